"""What every run shares; the other files here change a few lines of it.

Every key, with its default, its range and what it means, is listed in docs/configuration.md; it is defined by a field
of `sel.training.Config`. Here stand the values that differ from those of the library, and why. A value is changed on
the command line by its key: `--config.loss.num_bins=16`. `configs/default.py:unet` has the other network.

Choosing takes one flag: with `--config.loss.name=l1`, the keys of the loss below are dropped. But **a key that somebody
sets must be read**: naming it on the command line, or giving it another value than here in a configuration file, is an
error if the chosen loss, optimizer, ... does not read it.
"""

from ml_collections import ConfigDict

from configs.config_dict import default_keys


def get_config(model: str = "nafnet", **chosen: str) -> ConfigDict:
    """A small network, the corrected spatial-entropy loss, and paired folders whose place is still to be given.

    Args:
      model: the network.
      **chosen: other choices, by section: `data="samples"`.
    """
    if model not in ("nafnet", "unet"):
        raise ValueError(f"variant of configs/default.py must be nafnet or unet, found {model!r}")
    config = default_keys(model=model, **chosen)
    if model == "nafnet":  # 1.3 M parameters; the library's own defaults are the published size
        config.model.width = 32
        config.model.encoder_blocks = (1, 1, 1)
        config.model.decoder_blocks = (1, 1, 1)
    else:  # published: width 64, depth 4
        config.model.width = 16
        config.model.depth = 3
    # x_{t-1} is compared, which is noisy: clipping it to (0, 1) would leave dark pixels without gradient.
    config.loss.value_range = (-0.3, 1.3)
    # A network that is little trained throws the estimate of the clean image far out of the range of images.
    config.sampler.clip_x0 = (0.0, 1.0)
    return config
