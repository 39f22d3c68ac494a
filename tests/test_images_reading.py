"""Reading whatever people have, writing PNG, listing folders; and what is said when a file cannot be used."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import hypothesis
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from sel.errors import UserError
from sel.images import image_size, list_images, read_image, read_images, write_png

PICTURE = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, bits: int, color: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    chunks = _chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.fixture
def unchecked():
    """What a user meets, who runs without the type checker."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def _refused(call, path) -> str:
    """The message of a `UserError` that names the path on one line and hides what Pillow raised, without warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError) as caught:
            call(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return message


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(PICTURE).save(tmp_path / f"a.{suffix}", exif=exif, **options)
    stored = Image.fromarray(PICTURE)
    if suffix == "jpg":  # lossy: what the decoder gives is the reference
        plain = io.BytesIO()
        stored.save(plain, "jpeg")
        stored = Image.open(plain)
    expected = UPRIGHT[orientation](np.asarray(stored))
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), expected)
    assert image_size(tmp_path / f"a.{suffix}") == expected.shape[:2]


def test_unreadable_exif_does_not_hide_a_good_picture(tmp_path):
    for exif in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"):
        Image.fromarray(PICTURE).save(tmp_path / "a.png", exif=exif)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PICTURE)
            assert image_size(str(tmp_path / "a.png")) == (4, 6)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "LA", "RGBA"])
def test_every_common_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image = Image.fromarray(PICTURE).convert(mode)
    image.save(path)
    read = read_image(path)
    np.testing.assert_array_equal(read, np.asarray(image.convert("RGB")))  # opaque: alpha changes nothing
    assert read.dtype == np.uint8
    assert read.flags.writeable


def test_transparency_is_composited_over_black(tmp_path):
    rgba = np.dstack([PICTURE, np.full((4, 6), 255, np.uint8)])
    rgba[0, 0, 3], rgba[1, 1, 3] = 0, 128
    Image.fromarray(rgba).save(tmp_path / "a.png")
    expected = PICTURE.copy()
    expected[0, 0] = 0
    expected[1, 1] = np.round(PICTURE[1, 1] * (128 / 255))
    np.testing.assert_allclose(read_image(tmp_path / "a.png").astype(int), expected, atol=1)
    palette = Image.fromarray(PICTURE).convert("P")
    palette.save(tmp_path / "p.png", transparency=int(np.asarray(palette)[0, 0]))
    np.testing.assert_array_equal(read_image(tmp_path / "p.png")[0, 0], 0)


def test_16_bits_are_scaled(tmp_path):
    levels = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    expected = np.round(levels / 257)
    for name in ("a.png", "a.tif", "a.pgm"):
        Image.fromarray(levels).save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name), np.repeat(expected[..., None], 3, -1))
    colour = np.array([[[65535, 32768, 0], [257, 40000, 12345]]], np.uint16)
    (tmp_path / "c.png").write_bytes(_png(2, 1, 16, 2, b"\0" + colour.astype(">u2").tobytes()))
    # Pillow drops the low byte of colour: at most one level from rounding.
    np.testing.assert_allclose(read_image(tmp_path / "c.png").astype(int), colour / 257, atol=1)


def test_pixels_without_a_known_white_are_refused(tmp_path):
    Image.fromarray(np.float32([[0.5, 2.0]])).save(tmp_path / "f.tif")
    assert "no known white" in _refused(read_image, tmp_path / "f.tif")
    Image.fromarray(np.int32([[5, 70000]])).save(tmp_path / "i.tif")
    assert "no known white" in _refused(read_image, tmp_path / "i.tif")


@pytest.mark.parametrize("read", [read_image, image_size])
def test_files_that_are_no_image(tmp_path, read):
    assert "no such file" in _refused(read, tmp_path / "missing.png")
    assert "directory" in _refused(read, tmp_path)
    (tmp_path / "empty.png").touch()
    assert "empty (0 bytes)" in _refused(read, tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("not an image")
    assert "not an image" in _refused(read, tmp_path / "text.png")
    (tmp_path / "bomb.png").write_bytes(_png(60000, 60000, 8, 2, b""))
    assert "too large, 60000 x 60000 pixels are 3600 megapixels, above the limit of 180" in _refused(
        read, tmp_path / "bomb.png"
    )


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp", "gif"])
def test_truncated_files(tmp_path, suffix):
    picture = np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _refused(read_image, path)


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(data=st.data())
def test_damaged_bytes_give_a_picture_or_a_user_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "a.bin"
    kind = data.draw(st.sampled_from(["png", "jpeg", "webp", "tiff", "gif"]))
    encoded = io.BytesIO()
    Image.fromarray(PICTURE).save(encoded, kind)
    content = bytearray(encoded.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            picture = read_image(path)
        except UserError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 - both outcomes are right
        else:
            assert picture.ndim == 3


def test_many_images_come_in_order_with_progress(tmp_path):
    paths = []
    for i in range(7):
        paths.append(tmp_path / f"{i}.png")
        write_png(paths[-1], np.full((3, 5, 3), i, np.uint8))
    calls = []
    images = read_images(paths, lambda done, total: calls.append((done, total)))
    assert [int(image[0, 0, 0]) for image in images] == list(range(7))
    assert calls == [(i, 7) for i in range(1, 8)]
    paths[3].write_bytes(b"broken")
    with pytest.raises(UserError, match=r"3\.png: not an image"):
        read_images(paths)
    assert read_images([]) == ()


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(image=hnp.arrays(np.float32, (2, 3, 3), elements=st.floats(-1, 2, width=32)))
def test_floats_are_clipped_and_rounded_to_the_nearest_level(tmp_path_factory, image):
    path = tmp_path_factory.mktemp("written") / "a.png"
    write_png(path, image)
    # 255 x is rounded once in float32: half a level, and 1e-5 of a level for values next to a tie.
    assert np.abs(read_image(path) - 255 * np.clip(image.astype(np.float64), 0, 1)).max() <= 0.5 + 1e-5


def test_uint8_and_every_float_type_survive_a_round_trip(tmp_path):
    for image in (PICTURE, jnp.asarray(PICTURE), PICTURE / 255, jnp.asarray(PICTURE / 255, jnp.float32)):
        write_png(str(tmp_path / "a.PNG"), image)
        np.testing.assert_array_equal(read_image(tmp_path / "a.PNG"), PICTURE)
    write_png(tmp_path / "a.png", jnp.full((2, 2, 3), 0.5, jnp.bfloat16))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), 128)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_png(path, PICTURE)

    def full(*_):
        raise OSError(28, "No space left on device")

    for owner, name in ((os, "replace"), (Path, "write_bytes")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full if owner is os else lambda *_, **__: full())
            assert "No space left" in _refused(lambda p: write_png(p, 255 - PICTURE), path)
    np.testing.assert_array_equal(read_image(path), PICTURE)
    assert os.listdir(tmp_path) == ["a.png"]


def test_names_and_folders_that_cannot_be_written(tmp_path):
    assert "must end in .png" in _refused(lambda p: write_png(p, PICTURE), tmp_path / "a.jpg")
    assert "No such file" in _refused(lambda p: write_png(p, PICTURE), tmp_path / "nowhere" / "a.png")
    (tmp_path / "folder.png").mkdir()
    assert "can't be written" in _refused(lambda p: write_png(p, PICTURE), tmp_path / "folder.png")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 6), np.uint8), "shape"),
        (np.zeros((4, 6, 4), np.uint8), "shape"),
        (np.zeros((4, 0, 3), np.uint8), "shape"),
        (np.zeros((4, 6, 3), np.int32), "int32"),
        (np.full((4, 6, 3), np.nan, np.float32), "finite"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, image, words):
    with pytest.raises(ValueError, match=words):
        write_png(tmp_path / "a.png", image)
    assert not os.listdir(tmp_path)


def test_listing_is_in_natural_order_and_passes_over_other_files(tmp_path):
    for name in ("10.png", "2.JPG", "a2.png", "A1.png", "b.webp", "notes.txt", "._2.jpg", ".hidden.png", "07.tiff"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["2.JPG", "07.tiff", "10.png", "A1.png", "a2.png", "b.webp"]


def test_folders_that_hold_nothing(tmp_path):
    assert "no such folder" in _refused(list_images, tmp_path / "missing")
    (tmp_path / "a.txt").touch()
    assert "not a folder" in _refused(list_images, tmp_path / "a.txt")
    assert "found 1 other" in _refused(list_images, tmp_path)
    (tmp_path / "empty").mkdir()
    assert "found nothing" in _refused(list_images, tmp_path / "empty")


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_turned_uncompressed_tiff(tmp_path, mode, orientation):
    grey = np.arange(20 * 24).reshape(20, 24) % 256
    if mode == "I;16":
        image = Image.fromarray((grey * 257).astype(np.uint16))
    else:
        image = Image.fromarray(np.stack([grey, grey[::-1], grey[:, ::-1]], -1).astype(np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[274] = orientation
    image.save(tmp_path / "turned.tif", exif=exif)
    image.save(tmp_path / "plain.tif")
    expected = np.rot90(read_image(tmp_path / "plain.tif"), {1: 0, 3: 2, 6: 3, 8: 1}[orientation])
    np.testing.assert_array_equal(read_image(tmp_path / "turned.tif"), expected)
    assert image_size(tmp_path / "turned.tif") == expected.shape[:2]
