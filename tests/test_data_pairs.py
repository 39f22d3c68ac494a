"""Finding and loading pairs: matched by name, every defect of a folder named."""

import numpy as np
import pytest
from PIL import Image
from programs import make_pairs

from sel.data import find_pairs, load_pairs
from sel.errors import UserError
from sel.images import image_size, list_images, write_png


def _write(root, side: str, name: str, level: int = 0, shape: tuple[int, int] = (4, 6)) -> None:
    (root / side).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*shape, 3), level, np.uint8)).save(root / side / name)


@pytest.fixture
def root(tmp_path):
    for name, level in (("10", 10), ("2", 2), ("dark room", 30)):
        _write(tmp_path, "low", f"{name}.png", level)
        _write(tmp_path, "high", f"{name}.bmp", level + 100)
    return tmp_path


def _refused(root) -> str:
    with pytest.raises(UserError) as caught:
        find_pairs(root)
    message = str(caught.value)
    assert str(root) in message
    assert "\n" not in message
    return message


def test_pairs_match_by_name_and_hold_what_the_files_hold(root):
    paths = find_pairs(str(root))
    assert [pair.name for pair in paths] == ["2", "10", "dark room"]
    calls = []
    pairs = load_pairs(paths, lambda done, total: calls.append((done, total)))
    assert [pair.name for pair in pairs] == ["2", "10", "dark room"]
    assert [(int(pair.mu[0, 0, 0]), int(pair.x0[0, 0, 0])) for pair in pairs] == [(2, 102), (10, 110), (30, 130)]
    assert all(pair.mu.shape == pair.x0.shape == (4, 6, 3) and pair.mu.dtype == np.uint8 for pair in pairs)
    assert calls[-1] == (6, 6)
    assert load_pairs(()) == ()


def test_missing_folders_are_named_with_what_was_found(tmp_path):
    assert "no such folder" in _refused(tmp_path / "nowhere")
    assert "missing low and high, found nothing" in _refused(tmp_path)
    for name in ("our485", "eval15", "low"):
        (tmp_path / name).mkdir()
    assert "missing high, found eval15, low, our485" in _refused(tmp_path)
    (tmp_path / "high").mkdir()
    assert "low: holds no image" in _refused(tmp_path)
    (tmp_path / "file").touch()
    assert "not a folder" in _refused(tmp_path / "file")


def test_images_without_partner_are_counted_and_named(root):
    for i in range(7):
        _write(root, "low", f"x{i}.png")
    _write(root, "high", "y.png")
    message = _refused(root)
    assert "7 in low/ without a partner in high/ (x0, x1, x2, x3, x4 and 2 more)" in message
    assert "1 in high/ without a partner in low/ (y)" in message


def test_doubled_names_are_refused(root):
    _write(root, "high", "2.jpg")
    assert "1 names occur twice, with different suffixes (2)" in _refused(root)


def test_sizes_are_compared_before_and_after_decoding(root):
    paths = find_pairs(root)
    _write(root, "high", "10.bmp", shape=(6, 4))
    expected = r"1 pairs differ in size, height x width \(10: low 4 x 6 and high 6 x 4\)"
    with pytest.raises(UserError, match=expected):
        find_pairs(root)
    with pytest.raises(UserError, match=expected):
        load_pairs(paths)


def test_sizes_are_those_of_the_upright_images(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "low").mkdir()
    Image.fromarray(np.zeros((6, 4, 3), np.uint8)).save(tmp_path / "low" / "a.jpg", exif=exif)
    (tmp_path / "high").mkdir()
    write_png(tmp_path / "high" / "a.png", np.zeros((4, 6, 3), np.uint8))
    (pair,) = load_pairs(find_pairs(tmp_path))
    assert pair.mu.shape == pair.x0.shape == (4, 6, 3)


def test_a_damaged_file_is_named(root):
    (root / "low" / "10.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"10\.png: not an image"):
        find_pairs(root)


def test_an_orientation_behind_the_pixels_does_not_part_a_pair(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((6, 4, 3), np.uint8)).save(root / "low" / "2.png", exif=exif)
    content = (root / "low" / "2.png").read_bytes()
    place = content.index(b"eXIf") - 4
    size = int.from_bytes(content[place : place + 4], "big") + 12
    exif_chunk, rest = content[place : place + size], content[place + size :]
    (root / "low" / "2.png").write_bytes(content[:place] + rest[:-12] + exif_chunk + rest[-12:])
    assert image_size(root / "low" / "2.png") == (4, 6)
    assert load_pairs(find_pairs(root))[0].mu.shape == (4, 6, 3)


def test_broken_links_are_named(root):
    (root / "low" / "9.png").symlink_to("9.png")
    (root / "high" / "9.png").symlink_to("nowhere.png")
    assert [path.name for path in list_images(root / "low")] == ["2.png", "9.png", "10.png", "dark room.png"]
    problems = []
    assert len(find_pairs(root, report=problems.append)) == 3
    assert f"{root}/low/9.png: too many levels of symbolic links" in str(problems[0])
    assert "9.png: too many levels" in _refused(root)


def test_equal_names_belong_together_whatever_they_begin_with(tmp_path):
    make_pairs(tmp_path, names=("street", "dark_street", "1"))
    assert [pair.name for pair in find_pairs(tmp_path)] == ["1", "dark_street", "street"]
    (tmp_path / "high" / "dark_street.png").unlink()
    problems = []
    assert [pair.name for pair in find_pairs(tmp_path, report=problems.append)] == ["1", "street"]
    assert "dark_street" in str(problems[0])
