"""Good photographs of your own as training data: a folder (or zip) of them, darkened by the camera model.

    python -m experiments.train --config=configs/synthetic.py --config.data.root=PHOTOS --workdir=runs/synthetic

Photographs of a tenth of the scenes are held out for validation; near-duplicates stay on one side. What the camera does
is described at `sel.camera.darken`, the laws of its parameters at `sel.camera.sample_camera`, pictures of both are in
docs/lowlight.md; the keys are `data.camera.*` of docs/configuration.md. Not trained to the end yet: no score is known.
"""

from ml_collections import ConfigDict

from configs.default import get_config as get_default


def get_config() -> ConfigDict:
    """The default with pairs that are made."""
    return get_default(data="photographs")
