"""The cache of decoded images: equal to decoding, rebuilt after any change, bounded, safe with several builders."""

import errno
import os
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from sel.data import (
    PairPaths,
    batches,
    cache,
    cached_images,
    cached_pairs,
    default_cache_dir,
    find_pairs,
    load_pairs,
    loading,
    training_dataset,
)
from sel.data.cache import Recipe
from sel.errors import UserError


def photograph(path, seed=0, size=(20, 24), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def pairs(tmp_path):
    for i, name in enumerate(("1", "2", "10")):
        photograph(tmp_path / "data" / "low" / f"{name}.png", i)
        photograph(tmp_path / "data" / "high" / f"{name}.png", 100 + i)
    return find_pairs(tmp_path / "data")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "deep" / "cache"


def flat(value, size=(4, 5)):
    """A recipe of an image of one colour."""
    return Recipe(f"{value} {size}", lambda: size, lambda: np.full((*size, 3), value, np.uint8))


def file_size(size=(4, 5)):
    return 128 + 3 * size[0] * size[1] + 32


def never(*_):
    raise AssertionError("decoded again")


def assert_same(pairs, others):
    assert [pair.name for pair in pairs] == [pair.name for pair in others]
    for pair, other in zip(pairs, others, strict=True):
        np.testing.assert_array_equal(pair.mu, other.mu)
        np.testing.assert_array_equal(pair.x0, other.x0)


def test_pixels_are_those_of_decoding_and_decoding_happens_once(pairs, folder, monkeypatch):
    expected, seen = load_pairs(pairs), []
    assert_same(cached_pairs(pairs, folder, progress=lambda *done: seen.append(done)), expected)
    assert seen == [(i, 6) for i in range(1, 7)]
    monkeypatch.setattr(loading, "read_image", never)
    again = cached_pairs(pairs, folder, progress=never)
    assert_same(again, expected)
    assert all(type(x) is np.ndarray and not x.flags.writeable for pair in again for x in (pair.mu, pair.x0))
    assert sorted(path.suffix for path in folder.iterdir()) == [".npy"] * 6


def test_odd_images_are_what_reading_makes_of_them(tmp_path, folder):
    for side in ("low", "high"):
        exif = Image.Exif()
        exif[0x0112] = 6
        photograph(tmp_path / "data" / side / "turned.jpg", 1, exif=exif)
        grey = photograph(tmp_path / "data" / side / "grey.png", 2)
        Image.open(grey).convert("L").save(grey)
        photograph(tmp_path / "data" / side / "one.png", 3, size=(1, 1))
    paths = find_pairs(tmp_path / "data")
    assert_same(cached_pairs(paths, folder), load_pairs(paths))
    assert {pair.x0.shape for pair in cached_pairs(paths, folder)} == {(24, 20, 3), (20, 24, 3), (1, 1, 3)}


def test_batches_are_the_same_from_memory_and_cache(pairs, folder):
    options = {"batch_size": 2, "crop_size": 8, "seed": 1, "resize_chance": 0.5}
    a, b = (batches(training_dataset(x, **options)) for x in (load_pairs(pairs), cached_pairs(pairs, folder)))
    for _ in range(5):
        left, right = next(a), next(b)
        for name in left:
            np.testing.assert_array_equal(left[name], right[name])
    a.close()
    b.close()


@pytest.mark.parametrize("change", ["size", "time", "nothing that shows"])
def test_a_changed_source_is_decoded_again(pairs, folder, change):
    cached_pairs(pairs, folder)
    source = pairs[1].low
    before = source.stat()
    photograph(source, seed=9, compress_level=0)
    content = source.read_bytes()
    if change == "nothing that shows":  # replaced with its old size and time: only the time of the replacement differs
        photograph(source, seed=8, compress_level=0)
        cached_pairs(pairs, folder)
        before = source.stat()
        time.sleep(0.02)
        source.write_bytes(content)
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (source.stat().st_size, source.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    elif change == "time":
        photograph(source, seed=9)
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    assert_same(cached_pairs(pairs, folder), load_pairs(pairs))


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "other type", "gone"])
def test_a_damaged_cache_is_repaired(pairs, folder, damage):
    cached_pairs(pairs, folder)
    victim = sorted(folder.iterdir())[2]
    match damage:
        case "empty":
            victim.write_bytes(b"")
        case "cut":
            victim.write_bytes(victim.read_bytes()[:-7])
        case "text":
            victim.write_text("no array" * 50)
        case "other type":
            with victim.open("wb") as file:
                np.save(file, np.zeros((3, 4, 3)))
        case "gone":
            victim.unlink()
    assert_same(cached_pairs(pairs, folder), load_pairs(pairs))
    assert len(list(folder.iterdir())) == 6


def test_deleting_the_cache_hurts_no_one(pairs, folder):
    expected, mapped = load_pairs(pairs), cached_pairs(pairs, folder)
    for path in folder.iterdir():
        path.unlink()
    assert_same(mapped, expected)


def test_what_was_used_last_longest_ago_makes_room(folder):
    room = 3 * file_size()
    for value in (1, 2, 3):
        cached_images([flat(value)], folder, max_bytes=room)
        time.sleep(0.01)
    cached_images([flat(1)], folder, max_bytes=room)  # used again
    cached_images([flat(4)], folder, max_bytes=room)
    assert {int(np.load(path)[0, 0, 0]) for path in folder.iterdir()} == {1, 3, 4}
    assert sum(path.stat().st_size for path in folder.iterdir()) == room


def test_images_that_are_asked_for_are_never_deleted_but_refused(folder):
    cached_images([flat(1), flat(2)], folder)
    with pytest.raises(UserError, match=r"cache: the decoded images take .* may hold .*: raise config.data.cache_gib"):
        cached_images([flat(1), flat(2), flat(3)], folder, max_bytes=3 * file_size() - 1)
    assert {int(np.load(path)[0, 0, 0]) for path in folder.iterdir()} == {1, 2}
    # What is there already needs no room.
    assert len(cached_images([flat(1), flat(2)], folder, max_bytes=0)) == 2


def test_other_files_in_the_folder_are_left_alone(folder):
    folder.mkdir(parents=True)
    (folder / "thesis.npy").write_bytes(bytes(10_000))
    new, old = (folder / f".{digit * 32}.building" for digit in "ab")
    for path in (new, old):
        path.write_bytes(bytes(10))
    os.utime(old, (0, 0))
    cached_images([flat(1)], folder, max_bytes=file_size() + 10)
    cached_images([flat(2)], folder, max_bytes=file_size() + 10)
    assert (folder / "thesis.npy").exists()
    assert new.exists()  # someone is building
    assert not old.exists()  # someone was
    assert len(list(folder.iterdir())) == 3


def test_a_full_disk_is_noticed_before_and_while_writing(folder, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: Usage())
    with pytest.raises(UserError, match=r"the disk has .* left; config.data.cache_dir names another place"):
        cached_images([flat(1)], folder)
    monkeypatch.undo()

    def full(file, array):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.np, "save", full)
    with pytest.raises(UserError, match=r"cannot be written: No space left on device; config.data.cache_dir"):
        cached_images([flat(1)], folder)
    assert list(folder.iterdir()) == []


class Usage:
    free = 10


def test_a_folder_that_cannot_be_one_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"{tmp_path}/file: the cache .*config.data.cache_dir"):
        cached_images([flat(1)], tmp_path / "file")


def test_bad_images_raise_or_are_reported_in_order(pairs, folder):
    pairs[0].low.write_bytes(b"no image")
    pairs[2].high.write_bytes(pairs[2].high.read_bytes()[:200])
    with pytest.raises(UserError, match=r"low/1\.png"):
        cached_pairs(pairs, folder)
    for _ in range(2):  # what is bad is not remembered as good
        problems = []
        kept = cached_pairs(pairs, folder, report=problems.append)
        assert [pair.name for pair in kept] == ["2"]
        assert [path in str(p) for p, path in zip(problems, ("low/1.png", "high/10.png"), strict=True)] == [True] * 2
    pairs[1].low.unlink()
    with pytest.raises(UserError, match="neither this pair nor any of the other 2 can be used"):
        cached_pairs(pairs, folder, report=problems.append)


def test_pairs_of_two_sizes_raise_or_are_reported(pairs, tmp_path, folder):
    other = PairPaths("odd", pairs[0].low, photograph(tmp_path / "other.png", size=(24, 20)))
    with pytest.raises(UserError, match=r"low/1.png: .*odd: low 20 x 24 and high 24 x 20"):
        cached_pairs([other], folder)
    problems = []
    assert len(cached_pairs([*pairs, other], folder, report=problems.append)) == 3
    assert len(problems) == 1


def test_an_image_that_two_pairs_share_is_stored_once(pairs, folder):
    shared = [PairPaths(str(i), pair.low, pairs[0].high) for i, pair in enumerate(pairs)]
    assert_same(cached_pairs(shared, folder), load_pairs(shared))
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("strict", [True, False])
def test_two_processes_may_build_at_once(folder, strict):
    recipes = [flat(value, size=(40, 50)) for value in range(60)]

    def build():
        images = cached_images(recipes, folder, report=None if strict else never)
        assert [int(image.min()) for image in images] == [int(image.max()) for image in images] == list(range(60))

    children = []
    for _ in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of JAX, about threads: the children do not use it
            child = os.fork()
        if child == 0:
            code = 1
            try:
                build()
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    build()
    assert len(list(folder.iterdir())) == 60


def test_images_evicted_by_another_process_at_once_are_still_right(folder, monkeypatch):
    replace = os.replace

    def stolen(source, target):
        replace(source, target)
        os.unlink(target)

    monkeypatch.setattr(cache.os, "replace", stolen)
    images = cached_images([flat(1), flat(2)], folder)
    assert [int(image.max()) for image in images] == [1, 2]


def test_the_default_place_is_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "sel"
    cached_images([flat(1)], None)
    assert len(list((tmp_path / "sel").iterdir())) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(default_cache_dir()) == "/home/someone/.cache/sel"


def test_every_flipped_bit_is_noticed_and_the_image_made_again(folder):
    image = np.array(*cached_images([flat(7)], folder))
    (place,) = folder.iterdir()
    content = place.read_bytes()
    for bit in np.random.default_rng(0).integers(0, 8 * len(content), 24):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        place.write_bytes(changed)
        (again,) = cached_images([flat(7)], folder)
        np.testing.assert_array_equal(again, image)
        assert place.read_bytes() == content


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_a_failing_disk_is_no_damage(folder, monkeypatch, number):
    cached_images([flat(7)], folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}

    def failing(path):
        raise OSError(number, "it fails", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "read_bytes", failing)
        with pytest.raises(UserError, match="decoded image can't be read: it fails"):
            cached_images([Recipe("7 (4, 5)", lambda: (4, 5), never)], folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_users_without_a_home_have_a_folder_of_their_own(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(cache.os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    assert default_cache_dir() == tmp_path / f"sel-{os.getuid()}"
