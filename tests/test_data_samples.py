"""The sample photographs: inside the wheel, darkened reproducibly, none on both sides."""

import importlib.metadata

import numpy as np
import pytest

from sel.data import sample_pairs, samples
from sel.errors import UserError
from sel.images import image_size


@pytest.fixture(scope="module")
def drawn():
    return sample_pairs(darkenings=2, seed=3)


def test_the_photographs_are_files_of_the_wheel():
    """Listed with a hash in the wheel's record, so not fetched later; and in colour."""
    recorded = {str(file): file for file in importlib.metadata.files("scikit-image")}
    for name in (*samples.TRAINING, *samples.VALIDATION):
        file = recorded[f"skimage/data/{name}"]
        assert file.hash is not None
        assert min(image_size(file.locate())) >= 300


def test_shapes_names_and_sides(drawn):
    training, validation = drawn
    assert len(training) == 2 * len(samples.TRAINING)
    assert len(validation) == len(samples.VALIDATION) >= 2
    assert len({pair.name for pair in training + validation}) == len(training) + len(validation)
    stems = {pair.name.split("-")[0] for pair in training}
    assert not stems & {pair.name for pair in validation}
    for pair in training + validation:
        assert pair.mu.shape == pair.x0.shape
        assert pair.mu.dtype == pair.x0.dtype == np.uint8
        assert np.ptp(pair.x0.astype(int), axis=-1).max() > 50  # colour
        assert pair.mu.mean() < 0.5 * pair.x0.mean()


def test_no_photograph_is_on_both_sides(drawn):
    training, validation = drawn
    for left in training:
        for right in validation:
            h, w = (min(a, b) for a, b in zip(left.x0.shape, right.x0.shape, strict=True) if a > 3)
            a, b = left.x0[:h, :w].mean(-1).ravel(), right.x0[:h, :w].mean(-1).ravel()
            assert abs(np.corrcoef(a, b)[0, 1]) < 0.6


def test_deterministic_from_the_seed_and_validation_fixed(drawn):
    training, validation = drawn
    again, same = sample_pairs(darkenings=2, seed=3)
    for left, right in zip(training + validation, again + same, strict=True):
        np.testing.assert_array_equal(left.mu, right.mu)
    other, fixed = sample_pairs(darkenings=1, seed=4)
    assert np.any(other[0].mu != training[0].mu)
    first, _ = sample_pairs(darkenings=1, seed=3)
    np.testing.assert_array_equal(first[1].mu, training[2].mu)  # more darkenings add to the earlier ones
    for left, right in zip(validation, fixed, strict=True):
        np.testing.assert_array_equal(left.mu, right.mu)


def test_exposure_is_drawn_within_its_range(monkeypatch):
    monkeypatch.setattr(samples, "TRAINING", samples.TRAINING[-1:])
    levels = []
    for low, high in ((0.05, 0.05), (0.05, 0.15), (0.15, 0.15)):
        training, validation = sample_pairs(darkenings=2, exposure=(low, high))
        levels.append(([pair.mu.mean() for pair in training], [pair.mu.mean() for pair in validation]))
    for side in (0, 1):
        low, middle, high = (np.asarray(level[side]) for level in levels)
        assert np.all(low <= middle)
        assert np.all(middle <= high)
        assert np.all(low < high)
    first = levels[1][0]
    assert len({round(float(level), 3) for level in first}) == len(first)


@pytest.mark.parametrize(
    "wrong",
    [
        {"darkenings": 0},
        {"exposure": (0.2, 0.1)},
        {"exposure": (0.0, 0.1)},
        {"exposure": (0.1, 1.1)},
        {"read_noise": -1.0},
    ],
)
def test_wrong_arguments_are_named(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^{name} must"):
        sample_pairs(**{"darkenings": 1, **wrong})


def test_a_scikit_image_without_the_photographs(monkeypatch):
    monkeypatch.setattr(samples, "TRAINING", ("nowhere.png",))
    with pytest.raises(UserError, match=r"nowhere\.png: this version of scikit-image lacks the photograph"):
        sample_pairs(darkenings=1)
    monkeypatch.setattr(samples.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="scikit-image, which is not installed: pip install"):
        sample_pairs(darkenings=1)
