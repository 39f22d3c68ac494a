"""Scenes on made-up near-duplicates; splits that keep them together; images recognised in other files."""

import io

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from sel.data import content_hash, find_same, group_scenes, near_duplicates, split_by_scene
from sel.errors import UserError


def scene(seed, size=(90, 120)):
    """Soft blobs of many sizes and colours: photographs have detail at all scales."""
    rng = np.random.default_rng(seed)
    noise = [gaussian_filter(rng.standard_normal((*size, 3)), (s, s, 0)) * s for s in (2, 4, 8, 16)]
    image = sum(noise)
    return np.uint8(np.clip(128 + 45 * image / image.std(), 0, 255))


def darker(image, rng):
    return np.uint8(255 * (image / 255 * rng.uniform(0.4, 0.9)) ** rng.uniform(0.7, 1.4))


def shifted(image, rng):
    """Moved by up to a sixteenth of its size, with what comes in at the border repeated."""
    down, right = (round(rng.uniform(-1, 1) * n / 16) for n in image.shape[:2])
    return np.roll(np.pad(image, [(8, 8), (8, 8), (0, 0)], "edge"), (down, right), (0, 1))[8:-8, 8:-8]


def compressed(image, rng, quality=50):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def noisy(image, rng):
    return np.uint8(np.clip(image + 10 * rng.standard_normal(image.shape), 0, 255))


def smaller(image, rng):
    return np.asarray(Image.fromarray(image).resize((70, 52), Image.Resampling.LANCZOS))


def tinted(image, rng):
    return np.uint8(image * rng.uniform(0.7, 1, 3))


CHANGES = (darker, shifted, compressed, noisy, smaller, tinted)
SCENES = [scene(seed) for seed in range(12)]


@pytest.mark.parametrize("change", CHANGES)
def test_near_duplicates_are_one_scene_and_others_are_not(change):
    rng = np.random.default_rng(0)
    changed = [change(image, rng) for image in SCENES]
    found = near_duplicates(SCENES, changed)
    np.testing.assert_array_equal(found, np.eye(len(SCENES), dtype=bool))
    np.testing.assert_array_equal(group_scenes([*SCENES, *changed]), [*range(12), *range(12)])


def test_changes_together_and_their_order():
    rng = np.random.default_rng(1)
    changed = [compressed(noisy(darker(shifted(image, rng), rng), rng), rng) for image in SCENES]
    order = rng.permutation(24)
    images = [([*SCENES, *changed])[i] for i in order]
    labels = group_scenes(images)
    np.testing.assert_array_equal(labels[:, None] == labels, order[:, None] % 12 == order % 12)
    assert list(dict.fromkeys(labels.tolist())) == list(range(12))  # numbered as they come
    np.testing.assert_array_equal(near_duplicates(images, SCENES), near_duplicates(SCENES, images).T)


def test_a_chain_of_near_duplicates_is_one_scene():
    wide = scene(5, size=(120, 160))
    chain = [wide[:, start : start + 100] for start in range(0, 61, 5)]
    assert not near_duplicates(chain[:1], chain[-1:]).any()
    assert group_scenes(chain).max() == 0


def test_scenes_of_unlike_brightness_layout_are_told_apart():
    """Blurred, all of these are the same: bright above, dark below."""
    ramp = np.linspace(200, 0, 90)[:, None, None]
    images = [np.uint8(np.clip(ramp + 0.2 * scene(seed), 0, 255)) for seed in range(6)]
    assert group_scenes(images).tolist() == list(range(6))


def test_flat_images_and_few_images():
    flat = [np.full((30, 40, 3), value, np.uint8) for value in (0, 0, 255)]
    assert group_scenes([*flat, SCENES[0]]).tolist() == [0, 1, 2, 3]
    assert group_scenes([]).tolist() == []
    assert group_scenes(SCENES[:1]).tolist() == [0]
    assert group_scenes([np.zeros((1, 1, 3), np.uint8)]).tolist() == [0]
    assert near_duplicates([], SCENES).shape == (0, 12)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    scenes=st.lists(st.integers(0, 12), min_size=2, max_size=80).filter(lambda x: len(set(x)) > 1),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 100),
)
def test_a_split_never_tears_a_scene_apart(scenes, fraction, seed):
    scenes = np.array(scenes)
    left, out = split_by_scene(scenes, fraction, seed=seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([left, out])), np.arange(len(scenes)))
    assert len(left) > 0
    assert len(out) > 0
    assert not set(scenes[left]) & set(scenes[out])
    smallest = np.unique(scenes, return_counts=True)[1].min()
    assert len(out) <= max(fraction * len(scenes), smallest)
    again = split_by_scene(scenes, fraction, seed=seed)
    np.testing.assert_array_equal(out, again[1])


def test_a_split_comes_close_to_its_fraction_and_depends_on_its_seed():
    scenes = np.repeat(np.arange(200), np.random.default_rng(0).integers(1, 6, 200))
    splits = [split_by_scene(scenes, 0.1, seed=seed)[1] for seed in range(5)]
    assert all(0.095 * len(scenes) < len(out) <= 0.1 * len(scenes) for out in splits)
    assert len({tuple(out) for out in splits}) == 5


def test_wrong_arguments_are_named():
    with pytest.raises(UserError, match="3 images show 1 scenes"):
        split_by_scene(np.zeros(3, int), 0.5)
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="fraction must lie in"):
            split_by_scene(np.arange(3), fraction)
    with pytest.raises(ValueError, match="threshold must lie in"):
        group_scenes(SCENES[:2], threshold=0.0)


def test_an_image_is_recognised_in_another_file_and_neighbours_are_not():
    rng = np.random.default_rng(0)
    large = [scene(seed, size=(400, 600)) for seed in range(4)]
    known = {f"train {i}": content_hash(image) for i, image in enumerate(large)}
    images = {
        "same": large[0],
        "jpeg": compressed(large[1], rng, quality=60),
        "half": np.asarray(Image.fromarray(large[2]).resize((300, 200), Image.Resampling.LANCZOS)),
        "other": scene(9, size=(400, 600)),
        "moved": np.roll(large[3], 20, axis=1),
        "darker": np.uint8(0.95 * large[3]),
    }
    hashes = {name: content_hash(image) for name, image in images.items()}
    assert find_same(hashes, known) == {"same": "train 0", "jpeg": "train 1", "half": "train 2"}
    assert find_same(hashes, {}) == find_same({}, known) == {}
