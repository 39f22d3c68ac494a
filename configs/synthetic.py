"""Good photographs of your own as training data: a folder (or zip) of them, darkened by the camera model.

    python -m experiments.train --config=configs/synthetic.py --config.data.root=PHOTOS --workdir=runs/synthetic

Photographs of a tenth of the scenes are held out for validation; near-duplicates stay on one side. What the camera does
is described at `sel.data.darken`, the laws of its parameters at `sel.data.sample_camera`, pictures of both stand in
docs/lowlight.md. Not trained to the end yet: no score is known.
"""

from ml_collections import ConfigDict, FieldReference

from configs.default import get_config as get_default


def get_config() -> ConfigDict:
    """The default with pairs that are made."""
    config = get_default()
    config.data.name = "photographs"
    config.data.train = ""  # folder below the root
    config.data.validation = "0.1"  # a fraction of the photographs, or a folder below the root
    config.data.longest_side = 1024  # larger photographs are reduced to this, which also averages out their noise
    config.data.darkenings = 4  # of each photograph, every one with a camera of its own
    config.data.camera = ConfigDict()
    config.data.camera.exposure = (0.01, 0.15)  # fraction of the light, log-uniform
    config.data.camera.shot_noise = (1e-4, 4e-3)  # variance per unit of light, log-uniform; read noise goes with it
    config.data.camera.cast = 0.1  # error in white balance, standard deviation of its logarithm
    config.data.camera.jpeg_quality = FieldReference(None, field_type=object)  # for example (75, 100)
    return config
