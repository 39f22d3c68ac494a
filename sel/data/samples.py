"""Pairs without a download: colour photographs that come inside the scikit-image wheel, darkened by the camera model.

Enough to see a model learn and to test with; no benchmark. The photographs: astronaut (NASA), chelsea (Stefan van der
Walt), coffee (Rachel Michetti), rocket (SpaceX), motorcycle (Scharstein et al., Middlebury 2014 stereo; its right view
shows the same scene and is left out).
"""

import importlib.util
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from sel.camera.lowlight import darken
from sel.data.pairs import Pair
from sel.errors import UserError
from sel.extras import install
from sel.images.reading import RGB, read_image

TRAINING = ("astronaut.png", "motorcycle_left.png", "rocket.jpg")
VALIDATION = ("chelsea.png", "coffee.png")
VALIDATION_SEED = 2404_09735


def sample_pairs(
    *,
    darkenings: int = 8,
    seed: int = 0,
    exposure: tuple[float, float] = (0.05, 0.15),
    shot_noise: float = 2e-4,
    read_noise: float = 5e-4,
) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Make training and validation pairs from photographs at hand; no photograph is on both sides.

    Each training photograph is darkened `darkenings` times, with exposures drawn log-uniformly. Each validation
    photograph is darkened once, to the geometric mean of the range and with fixed noise, whatever `seed` and
    `darkenings` are, so that runs can be compared.

    Args:
      darkenings: pairs per training photograph, at least 1.
      seed: seed of exposures and noise of the training pairs.
      exposure: least and greatest fraction of light, in (0, 1].
      shot_noise: as in `darken`, variance per unit of linear signal.
      read_noise: as in `darken`, standard deviation in linear light.

    Returns:
      Training pairs and validation pairs, named by photograph and number.

    Raises:
      UserError: if a photograph is not in the installed scikit-image.
      ValueError: if a parameter is out of range.
    """
    low, high = exposure
    if darkenings < 1:
        raise ValueError(f"darkenings must be at least 1, found {darkenings}")
    if not 0 < low <= high <= 1:
        raise ValueError(f"exposure must be (least, greatest) with 0 < least <= greatest <= 1, found {exposure}")
    training, validation = [], []
    key = jax.random.key(seed)
    for number, file in enumerate(TRAINING):
        x0 = _photograph(file)
        for i in range(darkenings):
            key_exposure, key_noise = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, number), i))
            drawn = jnp.exp(jax.random.uniform(key_exposure, minval=np.log(low), maxval=np.log(high)))
            training.append(_pair(f"{Path(file).stem}-{i}", key_noise, x0, float(drawn), shot_noise, read_noise))
    for number, file in enumerate(VALIDATION):
        key_noise = jax.random.fold_in(jax.random.key(VALIDATION_SEED), number)
        middle = float(np.sqrt(low * high))
        validation.append(_pair(Path(file).stem, key_noise, _photograph(file), middle, shot_noise, read_noise))
    return tuple(training), tuple(validation)


def _pair(name: str, key: jax.Array, x0: RGB, exposure: float, shot_noise: float, read_noise: float) -> Pair:
    return Pair(name, np.asarray(_darken(key, x0, exposure, shot_noise, read_noise)), x0)


@partial(jax.jit, static_argnames=("shot_noise", "read_noise"))
def _darken(key: jax.Array, x0: jax.Array, exposure: ArrayLike, shot_noise: float, read_noise: float) -> jax.Array:
    """As one program, which is compiled once for photographs of one size."""
    clean = x0.astype(jnp.float32) / 255
    mu = darken(key, clean, exposure=exposure, shot_noise=shot_noise, read_noise=read_noise)
    return jnp.round(mu * 255).astype(jnp.uint8)


def _photograph(file: str) -> RGB:
    """Read a photograph of the installed scikit-image without importing it, which would be slow and might download."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise UserError(f"the sample photographs come with scikit-image, which is not installed: {install('train')}")
    path = Path(spec.origin).parent / "data" / file
    if not path.is_file():
        raise UserError(f"{path}: this version of scikit-image lacks the photograph; versions 0.25 and 0.26 have it")
    return read_image(path)
