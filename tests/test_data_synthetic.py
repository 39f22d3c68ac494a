"""Pairs made from photographs: found, reduced, darkened from names and seeds, kept in the cache."""

import zipfile

import jax
import numpy as np
import pytest
from PIL import Image

from sel.data import bright_photographs, find_photographs, synthetic, synthetic_pairs
from sel.errors import UserError

CAMERA = {"exposure": (0.05, 0.2), "cast": 0.0}


@pytest.fixture(autouse=True)
def compile_fast(monkeypatch):
    monkeypatch.setattr(synthetic, "_TILE", 32)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def photograph(path, seed=0, size=(20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(60, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def root(tmp_path):
    photograph(tmp_path / "photos" / "b.png", 1)
    photograph(tmp_path / "photos" / "a10.png", 2)
    photograph(tmp_path / "photos" / "a9.jpg", 3)
    photograph(tmp_path / "photos" / "trip" / "b.png", 4, size=(20, 25))
    return tmp_path / "photos"


def test_photographs_are_found_below_a_folder_and_in_an_archive(root, tmp_path):
    names = ["a9", "a10", "b", "trip/b"]
    assert list(find_photographs(root)) == names
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in root.rglob("*.*g"):
            archive.write(path, path.relative_to(root))
    assert list(find_photographs(tmp_path / "photos.zip")) == names
    images, others = (
        bright_photographs(find_photographs(place), tmp_path / "cache") for place in (root, tmp_path / "photos.zip")
    )
    assert all(np.array_equal(images[name], others[name]) for name in names)
    photograph(root / "b.jpg")
    assert list(find_photographs(root)) == ["a9", "a10", "b.jpg", "b.png", "trip/b"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: holds no image"):
        find_photographs(tmp_path / "empty")


def test_large_photographs_are_reduced_and_small_ones_kept(root, tmp_path):
    photographs = find_photographs(root)
    images = bright_photographs(photographs, tmp_path / "cache", longest_side=27)
    assert {name: image.shape[:2] for name, image in images.items()} == {
        "a9": (18, 27),
        "a10": (18, 27),
        "b": (18, 27),
        "trip/b": (20, 25),
    }
    np.testing.assert_array_equal(images["trip/b"], np.asarray(Image.open(root / "trip" / "b.png")))


def test_bad_photographs_raise_or_are_left_out(root, tmp_path):
    (root / "b.png").write_text("no image")
    photographs = find_photographs(root)
    with pytest.raises(UserError, match=r"b\.png"):
        bright_photographs(photographs, tmp_path / "cache")
    problems = []
    assert list(bright_photographs(photographs, tmp_path / "cache", report=problems.append)) == ["a9", "a10", "trip/b"]
    assert len(problems) == 1
    with pytest.raises(UserError, match="none of 1 photographs"):
        bright_photographs({"b": root / "b.png"}, tmp_path / "cache", report=problems.append)


def test_pairs_are_dark_different_and_depend_on_name_and_seed_alone(root, tmp_path, monkeypatch):
    images = bright_photographs(find_photographs(root), tmp_path / "cache")
    pairs = synthetic_pairs(images, tmp_path / "cache", darkenings=2, seed=1, camera=CAMERA)
    assert [pair.name for pair in pairs] == [f"{name}-{i}" for name in images for i in (0, 1)]
    for pair in pairs:
        assert pair.mu.shape == pair.x0.shape
        assert pair.mu.dtype == pair.x0.dtype == np.uint8
        assert 0 < pair.mu.mean() < 0.7 * pair.x0.mean()
        np.testing.assert_array_equal(pair.x0, images[pair.name[:-2]])
    assert len({pair.mu.tobytes() for pair in pairs}) == len(pairs)
    # Fewer photographs in another order, made anew: the same images.
    some = {name: images[name] for name in ("trip/b", "a9")}
    expected = {pair.name: pair.mu for pair in pairs}
    for pair in synthetic_pairs(some, tmp_path / "other", darkenings=1, seed=1, camera=CAMERA):
        np.testing.assert_array_equal(pair.mu, expected[pair.name])
    for changes in ({"seed": 2}, {"camera": CAMERA | {"jpeg_quality": (50, 60)}}):
        options = {"darkenings": 1, "seed": 1, "camera": CAMERA} | changes
        for pair in synthetic_pairs(some, tmp_path / "other", **options):
            assert np.any(pair.mu != expected[pair.name])
    monkeypatch.setattr(synthetic, "_darkened", lambda *_: pytest.fail("darkened again"))
    again = synthetic_pairs(images, tmp_path / "cache", darkenings=2, seed=1, camera=CAMERA)
    assert all(np.array_equal(pair.mu, expected[pair.name]) for pair in again)


def test_wrong_options_are_named(root, tmp_path):
    with pytest.raises(ValueError, match="darkenings must be at least 1, found 0"):
        synthetic_pairs({}, tmp_path, darkenings=0)
    with pytest.raises(ValueError, match="exposure must be"):
        synthetic_pairs({}, tmp_path, camera={"exposure": (0.5, 0.1)})
