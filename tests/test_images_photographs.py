"""Photographs of every kind: what is read is what was written; hostile files are one line."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, ImageOps, TiffImagePlugin

from sel.errors import UserError
from sel.images.decoding import read_photograph
from sel.images.metadata import Metadata
from sel.images.photographs import Photograph
from sel.images.png import add_png_metadata
from sel.images.writing import write_photograph

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (20, 31, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (20, 31, 4), dtype=np.uint16)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="Nacht"/></x:xmpmeta>'


def exif(orientation=1):
    data = Image.Exif()
    data[ExifTags.Base.Model], data[ExifTags.Base.Orientation] = "Camera", orientation
    data[ExifTags.Base.Copyright] = "Jürgen".encode()
    data.get_ifd(ExifTags.IFD.Exif).update(
        {0x829A: TiffImagePlugin.IFDRational(1, 30), 0x8827: 800, 0xA002: 31, 0xA003: 20}
    )
    data.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (52.0, 30.0, 0.0)})
    return data


@pytest.mark.parametrize("end", [".jpg", ".png", ".webp", ".tif", ".deep.png", ".deep.tif"])
def test_metadata_comes_through_every_format(tmp_path, end):
    source, target = tmp_path / "in.jpg", tmp_path / f"out{end}"
    Image.fromarray(COLOR).save(source, exif=exif(6), icc_profile=PROFILE, xmp=XMP, dpi=(300, 300))
    photograph = read_photograph(source)
    assert photograph.color.shape == (31, 20, 3)
    if "deep" in end:
        photograph = Photograph(photograph.color.astype(np.uint16) * 257, None, photograph.metadata)
    write_photograph(target, photograph)
    with Image.open(target) as image:
        image.load()
        found = image.getexif()
        assert image.size == (20, 31)
        assert found[ExifTags.Base.Model] == "Camera"
        assert found[ExifTags.Base.Copyright].encode("latin-1") == "Jürgen".encode()
        assert found.get(ExifTags.Base.Orientation, 1) == 1
        details = found.get_ifd(ExifTags.IFD.Exif)
        assert (float(details[0x829A]), details[0x8827]) == (pytest.approx(1 / 30), 800)
        assert (details[0xA002], details[0xA003]) == (20, 31)
        assert found.get_ifd(ExifTags.IFD.GPSInfo)[2] == (52.0, 30.0, 0.0)
        assert image.info["icc_profile"] == PROFILE
        assert end == ".webp" or image.info["dpi"] == pytest.approx((300, 300), abs=0.01)
    # What was written is read as it was.
    again = read_photograph(target)
    assert again.metadata.exif == photograph.metadata.exif
    assert again.metadata.xmp == XMP.replace(b'"6"', b'"1"')
    assert again.color.dtype == photograph.color.dtype
    if end not in (".jpg", ".webp"):
        np.testing.assert_array_equal(again.color, photograph.color)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("end", [".png", ".tif"])
def test_every_kind_of_pixels_stays(tmp_path, end, dtype, channels):
    pixels = DEEP[..., :channels].astype(dtype)
    parts = (pixels[..., :-1], pixels[..., -1:]) if channels in (2, 4) else (pixels, None)
    write_photograph(tmp_path / f"a{end}", Photograph(*parts, Metadata()))
    got = read_photograph(tmp_path / f"a{end}")
    np.testing.assert_array_equal(got.color, parts[0])
    assert (got.alpha is None) == (parts[1] is None)
    if parts[1] is not None:
        np.testing.assert_array_equal(got.alpha, parts[1])
    # The identity changes nothing.
    np.testing.assert_array_equal(got.replaced(got.intensities()).color, got.color)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path, orientation):
    data = exif(orientation)
    wanted = Image.fromarray(COLOR)
    wanted.info["exif"] = data.tobytes()
    wanted = np.asarray(ImageOps.exif_transpose(wanted))
    deep = COLOR.astype(np.uint16) * 257
    Image.fromarray(COLOR).save(tmp_path / "a.png", exif=data)
    coded = bytes(imagecodecs.png_encode(deep))
    (tmp_path / "b.png").write_bytes(add_png_metadata(coded, Metadata(exif=data.tobytes())))
    for name, pixels in (("a.tif", COLOR), ("b.tif", deep)):
        tags = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(tmp_path / name, pixels, photometric="rgb", extratags=tags)
    for name in ("a.png", "a.tif", "b.png", "b.tif"):
        got = read_photograph(tmp_path / name).color
        np.testing.assert_array_equal(got, wanted if name.startswith("a") else wanted.astype(np.uint16) * 257, name)


def test_kinds_of_pixels_that_change(tmp_path):
    image = Image.fromarray(COLOR)
    kinds = {"CMYK": ("tif", 3), "1": ("png", 1), "YCbCr": ("jpg", 3), "P": ("png", 3)}
    for mode, (end, channels) in kinds.items():
        image.convert(mode).save(tmp_path / f"{mode}.{end}")
        got = read_photograph(tmp_path / f"{mode}.{end}")
        assert (got.color.shape[-1], got.color.dtype, got.alpha) == (channels, np.uint8, None), mode
    palette = image.convert("P")
    clear = palette.getpixel((0, 0))
    palette.save(tmp_path / "clear.png", transparency=clear)
    palette.save(tmp_path / "clear.gif", transparency=clear, save_all=True, append_images=[palette.rotate(180)])
    for name in ("clear.png", "clear.gif"):
        alpha = read_photograph(tmp_path / name).alpha
        np.testing.assert_array_equal(alpha[..., 0] == 0, np.asarray(palette) == clear)
    tifffile.imwrite(tmp_path / "white.tif", DEEP[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(read_photograph(tmp_path / "white.tif").color[..., 0], 65535 - DEEP[..., 0])
    for compression in ("lzw", "zstd"):
        tifffile.imwrite(
            tmp_path / "planes.tif", np.moveaxis(DEEP, -1, 0)[:3], photometric="rgb", compression=compression
        )
        np.testing.assert_array_equal(read_photograph(tmp_path / "planes.tif").color, DEEP[..., :3])
    # Of a 16-bit photograph JPEG gets the nearest of 8 bits; a grey profile doesn't fit colours.
    flat = np.full((8, 8, 3), 300, np.uint16)
    write_photograph(tmp_path / "flat.webp", Photograph(flat, None, Metadata(icc=PROFILE)))
    assert read_photograph(tmp_path / "flat.webp").color.max() <= 2


def test_damaged_metadata_is_left_out(tmp_path):
    broken = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\xff" * 9
    Image.fromarray(COLOR).save(tmp_path / "a.jpg", exif=broken, icc_profile=b"no profile")
    photograph = read_photograph(tmp_path / "a.jpg")
    assert photograph.metadata.icc == b""
    for end in (".jpg", ".png", ".webp", ".tif"):
        write_photograph(tmp_path / f"b{end}", photograph)
        assert read_photograph(tmp_path / f"b{end}").color.shape == COLOR.shape


def png_that_claims(width, height, depth=8):
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    coded = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(coded)


def encoded(pixels, kind, **options):
    file = io.BytesIO()
    if kind == "tifffile":
        tifffile.imwrite(file, pixels, **options)
    else:
        Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


HOSTILE = {
    "bomb.png": (png_that_claims(40_000, 40_000), "too large"),
    "deep_bomb.png": (png_that_claims(40_000, 40_000, 16), "too large"),
    "short.png": (png_that_claims(300, 300, 16), "damaged"),
    "half.png": (bytes(imagecodecs.png_encode(DEEP))[:900], "damaged"),
    "half.tif": (encoded(DEEP[..., :3], "tifffile", photometric="rgb")[:900], "damaged"),
    "float.tif": (encoded(COLOR.astype(np.float32), "tifffile", photometric="rgb"), ""),
    "grey.tif": (encoded(COLOR[..., 0].astype(np.float32), "TIFF"), "no known white"),
    "half.webp": (encoded(COLOR, "WEBP")[:300], ""),
    "empty.jpg": (b"", "(0 bytes)"),
    "text.jpg": (b"no photograph", "not an image"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_one_line(tmp_path, name, caplog):
    content, message = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name) as error:
        read_photograph(tmp_path / name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert caplog.text == ""


def test_what_a_format_cannot_hold_is_named(tmp_path):
    clear = Photograph(COLOR, COLOR[..., :1], Metadata())
    for name, photograph, message in (
        ("a.jpg", clear, "no transparency"),
        ("a.gif", clear, "must end in"),
        ("a.webp", Photograph(np.zeros((1, 17_000, 3), np.uint8), None, Metadata()), "16383 pixels"),
        ("no/a.png", clear, "can't be written"),
    ):
        with pytest.raises(UserError, match=message):
            write_photograph(tmp_path / name, photograph)
    assert list(tmp_path.iterdir()) == []
