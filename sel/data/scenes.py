"""Photographs of one scene: found by correlation, kept on one side of a split; and images that are the same one.

Thumbnails decide, so that neither size nor compression nor file format matters.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.ndimage import gaussian_filter
from scipy.sparse.csgraph import connected_components

from sel.errors import UserError
from sel.images.reading import RGB
from sel.images.resizing import thumbnail

# Of any size: the images of a list need not be as large as one another.
Picture = UInt8[np.ndarray, "_ _ 3"]

# In thumbnails: their side, the largest shift that is looked for (a sixteenth of the image) and the width of the blur
# that is subtracted. With the threshold, chosen on LOL v1 (485 photographs, 231 listed scenes): between 0.5 and 0.7 no
# listed scene is torn apart, and what is joined besides shows the same objects rearranged.
SIDE = 32
SHIFT = 2
BLUR = 4.0
THRESHOLD = 0.65

# In images of 8 x 8 pixels, levels of 255. Of LOL v1's 445 training references, compressed as JPEG of quality 95, 75
# and 50, it finds 445, 442 and 433; different photographs of one scene differ by 3 and more.
HASH_SIDE = 8
HASH_TOLERANCE = 2


def near_duplicates(
    images: Sequence[Picture], others: Sequence[Picture], *, threshold: float = THRESHOLD
) -> Bool[np.ndarray, "n m"]:
    """Find which photographs show the same scene, alike but for light, noise and a small shift.

        d(i, j) = max over shifts s of  corr(T_i, shift_s T_j),    T = thumbnail - blurred thumbnail

    Correlation over pixels and colours does not see brightness and contrast; without the blurred part, of which most
    is where an indoor photograph is bright, it does not mistake one room for another.

    Args:
      images: 8-bit images of any sizes; thumbnails do as well.
      others: images to compare with.
      threshold: correlation in (0, 1] from which two images are duplicates.

    Returns:
      For each image and each other, whether they are. An image without structure resembles none, not even itself.

    Raises:
      ValueError: if the threshold is out of range.

    Cost: 25 n m products of thumbnails, twice that if the lists differ: a second for 500 images among themselves, a
    minute for 5,000.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must lie in (0, 1], found {threshold}")
    found = np.zeros((len(images), len(others)), bool)
    if not found.size:
        return found
    same = others is images
    details = _details(images)
    other_details = details if same else _details(others)
    here, there = (_window(x, 0, 0) for x in (details, other_details))
    for down in range(-SHIFT, SHIFT + 1):
        for right in range(-SHIFT, SHIFT + 1):
            # Each is shifted against the other's middle: with that the relation is symmetric.
            _mark(found, here, _window(other_details, down, right), threshold)
            if not same:
                _mark(found, _window(details, down, right), there, threshold)
    return found | found.T if same else found


def group_scenes(images: Sequence[Picture], *, threshold: float = THRESHOLD) -> Int[np.ndarray, " n"]:
    """Number the scenes of photographs; of a chain of near-duplicates all get one number.

    Args:
      images: 8-bit images of any sizes, for pairs the bright ones.
      threshold: as in `near_duplicates`.

    Returns:
      The number of each image's scene, from 0 in the order of their first images.

    Raises:
      ValueError: if the threshold is out of range.
    """
    if not images:
        return np.zeros(0, np.int64)
    labels = connected_components(near_duplicates(images, images, threshold=threshold), directed=False)[1]
    _, first, scenes = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[scenes]


def split_by_scene(
    scenes: Int[np.ndarray, " n"], fraction: float, *, seed: int = 0
) -> tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]:
    """Hold out whole scenes, drawn at random, which together have at most the wanted fraction of the images.

    If already the smallest scene has more, it is held out alone.

    Args:
      scenes: number of each image's scene.
      fraction: fraction of the images to hold out, in (0, 1).
      seed: seed of the draw.

    Returns:
      Indices of the images that are left, and of those held out, each ascending and not empty.

    Raises:
      UserError: if there are fewer than two scenes.
      ValueError: if the fraction is out of range.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie in (0, 1), found {fraction}")
    names, counts = np.unique(scenes, return_counts=True)
    if len(names) < 2:
        raise UserError(f"{len(scenes)} images show {len(names)} scenes: at least 2 are needed to hold one out")
    held, room = [], fraction * len(scenes)
    for i in np.random.default_rng(seed).permutation(len(names))[:-1]:
        if counts[i] <= room:
            held.append(names[i])
            room -= counts[i]
    out = np.isin(scenes, held or names[[np.argmin(counts)]])
    return np.flatnonzero(~out), np.flatnonzero(out)


def content_hash(image: RGB) -> str:
    """Return the image reduced to 8 x 8 pixels as 384 hexadecimal digits: another file of it has nearly the same."""
    return thumbnail(image, HASH_SIDE, HASH_SIDE).tobytes().hex()


def find_same(hashes: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """Find images that are among known ones, stored or compressed anew.

    Args:
      hashes: `content_hash` of images, by name.
      known: those of the known images, by name.

    Returns:
      For each image that is known, its name and the name of the closest known one.
    """
    if not hashes or not known:
        return {}
    names, table = list(known), _levels(known)
    same = {}
    for name, levels in zip(hashes, _levels(hashes), strict=True):
        distances = np.abs(table - levels).max(axis=1)
        if distances.min() <= HASH_TOLERANCE:
            same[name] = names[int(distances.argmin())]
    return same


def _levels(hashes: Mapping[str, str]) -> Int[np.ndarray, "n d"]:
    return np.stack([np.frombuffer(bytes.fromhex(text), np.uint8) for text in hashes.values()]).astype(np.int16)


def _details(images: Sequence[Picture]) -> Float[np.ndarray, "n s s 3"]:
    """Thumbnails without what a blur keeps."""
    with ThreadPoolExecutor() as pool:
        thumbnails = np.stack(list(pool.map(lambda image: thumbnail(image, SIDE, SIDE), images))).astype(np.float32)
    return thumbnails - gaussian_filter(thumbnails, (0, BLUR, BLUR, 0), mode="nearest")


def _mark(
    found: Bool[np.ndarray, "n m"], here: Float[np.ndarray, "n d"], there: Float[np.ndarray, "m d"], threshold: float
) -> None:
    """Mark the pairs that correlate, some rows at a time, which bounds the memory."""
    for start in range(0, len(here), 1024):
        found[start : start + 1024] |= here[start : start + 1024] @ there.T >= threshold


def _window(details: Float[np.ndarray, "n s s 3"], down: int, right: int) -> Float[np.ndarray, "n d"]:
    """The middles of shifted thumbnails as vectors of mean 0 and length 1; 0 of what is flat."""
    top, left, size = SHIFT + down, SHIFT + right, SIDE - 2 * SHIFT
    vectors = details[:, top : top + size, left : left + size].reshape(len(details), -1)
    vectors = vectors - vectors.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    # A deviation of a twentieth of a level is rounding, not structure.
    return np.where(lengths > 0.05 * np.sqrt(vectors.shape[1]), vectors / np.maximum(lengths, 1e-6), 0)
