"""NIQE: how far the statistics of an image are from those of good photographs, without a reference.

On the host, in float64: the fit reads a table and the final distance inverts a matrix, which is no work for an
accelerator.
"""

import functools
import importlib.resources

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import correlate1d
from scipy.special import gamma

_BLOCK = 96

# Gaussian of sigma 7/6 over 7 x 7 pixels, and the cubic kernel of Matlab's imresize at one half, both separable.
_WINDOW = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)
_WINDOW /= _WINDOW.sum()
_HALVING = np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256

# Shapes of the generalised Gaussian that are tried, and the ratio E[|x|]^2 / E[x^2] of each.
_SHAPES = np.arange(200, 10001) / 1000
_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))

Blocks = Float[np.ndarray, "blocks rows columns"]
Features = Float[np.ndarray, "blocks features"]


def niqe(image: UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w 3"]) -> float:
    """Natural image quality evaluator, with the authors' model of pristine photographs.

        NIQE = sqrt((m - m')^T ((S + S') / 2)^-1 (m - m'))

    m, S: mean and covariance over 96 x 96 blocks of 36 features, m', S': those of pristine photographs. Features, at
    full and at half size: of the contrast-normalised grey image (x - local mean) / (local deviation + 1), under a 7 x 7
    Gaussian of sigma 7/6, the shape and scale of a generalised Gaussian, and for its products with the neighbours in
    four directions shape, mean and both scales of an asymmetric one.

    Args:
      image: one RGB image, 8 bits, or floating point in [0, 1]. Grey is 0.2989 R + 0.5870 G + 0.1140 B, rounded to 8
        bits. What the blocks don't cover at the right and at the bottom is cut off.

    Returns:
      Lower is more natural: about 2 to 5 for good photographs. NaN where it is not defined: fewer than two blocks
      with structure (an image smaller than 96 x 192, or flat).

    Raises:
      ValueError: if the image has another shape.

    Source: Mittal, Soundararajan, Bovik, "Making a completely blind image quality analyzer", IEEE SPL 2013. The model
    is that of the authors' release, see `NIQE_NOTICE.txt`. Departure: where the local mean is the pixel, the normalised
    value is exactly 0; in the release its sign is that of a rounding error, which counts on flat dark images.

    Examples:
      >>> import numpy as np
      >>> from sel.metrics import niqe
      >>> noise = np.random.default_rng(0).integers(0, 256, (96, 192, 3), np.uint8)
      >>> niqe(noise) > 10, niqe(np.zeros((96, 192, 3), np.uint8))
      (True, nan)
    """
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"image must be [h, w, 3], found shape {image.shape}")
    scale = 1.0 if image.dtype == np.uint8 else 255.0
    grey = np.floor(image.astype(np.float64) * scale @ (0.2989, 0.5870, 0.1140) + 0.5)
    rows, columns = (side // _BLOCK for side in grey.shape)
    if rows * columns < 2:
        return float("nan")
    grey = grey[: rows * _BLOCK, : columns * _BLOCK]
    # A block without structure divides 0 by 0; it is left out below.
    with np.errstate(divide="ignore", invalid="ignore"):
        features = np.concatenate([_features(_blocks(x, rows, columns)) for x in (grey, _halved(grey))], axis=1)
    defined = features[~np.isnan(features).any(axis=1)]
    if len(defined) < 2:
        return float("nan")
    mean, covariance = _pristine()
    difference = np.nanmean(features, axis=0) - mean
    inverse = np.linalg.pinv((np.cov(defined, rowvar=False) + covariance) / 2)
    return float(np.sqrt(difference @ inverse @ difference))


def _blocks(grey: Float[np.ndarray, "h w"], rows: int, columns: int) -> Blocks:
    """Normalise the contrast of the whole image and cut it into blocks."""
    mean, power = (_filtered(x, _WINDOW) for x in (grey, grey**2))
    normalised = (grey - mean) / (np.sqrt(np.abs(power - mean**2)) + 1)
    normalised[np.abs(normalised) < 1e-9] = 0
    height, width = normalised.shape[0] // rows, normalised.shape[1] // columns
    return normalised.reshape(rows, height, columns, width).swapaxes(1, 2).reshape(-1, height, width)


def _features(blocks: Blocks) -> Features:
    shape, left, right = _fit(blocks)
    features = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = _fit(blocks * np.roll(blocks, shift, axis=(1, 2)))
        features += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return np.stack(features, axis=1)


def _fit(blocks: Blocks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shape, left and right scale of an asymmetric generalised Gaussian for each block, by its moments."""
    values = blocks.reshape(len(blocks), -1)
    power, sides = values**2, (values < 0, values > 0)
    left, right = (np.sqrt(np.sum(power * side, axis=1) / np.sum(side, axis=1)) for side in sides)
    skew = left / right
    ratio = np.mean(np.abs(values), axis=1) ** 2 / np.mean(power, axis=1)
    ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    above = np.clip(np.searchsorted(_RATIOS, ratio), 1, len(_RATIOS) - 1)
    nearest = np.where(ratio - _RATIOS[above - 1] <= _RATIOS[above] - ratio, above - 1, above)
    # Where the ratio is not defined, the authors' search stops at its first entry, which counts in their means.
    shape = _SHAPES[np.where(np.isnan(ratio), 0, nearest)]
    unit = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * unit, right * unit


def _halved(grey: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h2 w2"]:
    # Taps 2 i - 3 to 2 i + 4 of the input for pixel i; beyond the border the image is mirrored.
    for axis in (0, 1):
        grey = correlate1d(grey, _HALVING, axis=axis, mode="reflect", origin=-1)
    return grey[::2, ::2]


def _filtered(x: Float[np.ndarray, "h w"], weights: Float[np.ndarray, " taps"]) -> Float[np.ndarray, "h w"]:
    return correlate1d(correlate1d(x, weights, axis=0, mode="nearest"), weights, axis=1, mode="nearest")


@functools.cache
def _pristine() -> tuple[Float[np.ndarray, " 36"], Float[np.ndarray, "36 36"]]:
    with (importlib.resources.files("sel.metrics") / "niqe_model.npz").open("rb") as file, np.load(file) as model:
        return model["mean"], model["covariance"]
