"""PNG and PNM as they are defined; files that lack only their end; bombs, other formats, HEIC: one decoder for all."""

import io
import itertools
import struct
import sys
import types
import zipfile
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from sel.errors import UserError
from sel.images import TooLargeError, image_size, read_image, read_images, read_photograph, storage
from sel.images.jpeg import completed
from sel.images.storage import ZipMember, image_tree
from sel.images.writing import write_png

RNG = np.random.default_rng(0)
SMOOTH = np.dstack([np.add.outer(np.arange(40) * 3, np.arange(56) * 2 + k * 9) for k in range(3)]).astype(np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values, bits, color, *extra):
    """A PNG written from the definition; `values` is [h, w, samples], `extra` chunks before the pixels."""
    rows = values.reshape(len(values), -1)
    digits = (rows[..., None] >> np.arange(bits)[::-1]) & 1
    packed = np.packbits(digits.reshape(len(rows), -1).astype(np.uint8), axis=1)
    lines = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, color, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def both(path, light, opacity=None):
    """Compare both readers with the right light in [0, 1]."""
    photograph = read_photograph(path)
    white = np.iinfo(photograph.color.dtype).max
    np.testing.assert_allclose(
        photograph.intensities(), np.broadcast_to(light, (*light.shape[:2], 3)), atol=0.501 / white
    )
    assert (photograph.alpha is None) == (opacity is None)
    if opacity is not None:
        np.testing.assert_allclose(photograph.alpha / white, opacity, atol=0.501 / white)
    shown = light if opacity is None else light * opacity
    got = read_image(path)
    np.testing.assert_allclose(got / 255, np.broadcast_to(shown, got.shape), atol=0.51 / 255)
    assert image_size(path) == got.shape[:2]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("color", [0, 2, 3, 4, 6])
def test_png_of_every_depth_with_every_opacity(tmp_path, bits, color):
    if bits not in {0: (1, 2, 4, 8, 16), 3: (1, 2, 4, 8)}.get(color, (8, 16)):
        return
    path, maximum = tmp_path / "a.png", 2**bits - 1
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    values = RNG.integers(0, maximum, (7, 11, samples), endpoint=True)
    if color in (4, 6):
        path.write_bytes(png(values, bits, color))
        both(path, values[..., :-1] / maximum, values[..., -1:] / maximum)
        return
    if color == 3:
        colors, opacities = RNG.integers(0, 256, (maximum + 1, 3)), RNG.integers(0, 256, maximum + 1)
        palette = chunk(b"PLTE", colors.astype(np.uint8).tobytes())
        path.write_bytes(png(values, bits, color, palette))
        both(path, colors[values[..., 0]] / 255)
        path.write_bytes(png(values, bits, color, palette, chunk(b"tRNS", opacities.astype(np.uint8).tobytes())))
        both(path, colors[values[..., 0]] / 255, opacities[values] / 255)
        return
    path.write_bytes(png(values, bits, color))
    both(path, values / maximum)
    clear = values[2, 3]
    path.write_bytes(png(values, bits, color, chunk(b"tRNS", clear.astype(">u2").tobytes())))
    both(path, values / maximum, 1.0 - np.all(values == clear, axis=-1, keepdims=True))


@pytest.mark.parametrize("maximum", [1, 3, 100, 254, 255, 256, 1023, 4095, 16383, 65534, 65535])
@pytest.mark.parametrize("kind", [2, 3, 5, 6])
def test_pnm_of_every_maximum(tmp_path, maximum, kind):
    values = RNG.integers(0, maximum, (6, 9, 3 if kind in (3, 6) else 1), endpoint=True)
    values[0, :2] = [[0], [maximum]]
    header = f"P{kind}\n# by hand\n9 6\n{maximum}\n".encode()
    numbers = values.reshape(-1)
    binary = numbers.astype(">u2" if maximum > 255 else np.uint8).tobytes()
    (tmp_path / "a.pgm").write_bytes(header + (binary if kind > 3 else " ".join(map(str, numbers)).encode()))
    both(tmp_path / "a.pgm", values / maximum)


def test_black_and_white_pbm(tmp_path):
    values = RNG.integers(0, 2, (6, 9, 1))
    rows = np.packbits(values[..., 0].astype(np.uint8), axis=1).tobytes()
    for content in (b"P4\n9 6\n" + rows, b"P1\n9 6\n" + " ".join(map(str, values.reshape(-1))).encode()):
        (tmp_path / "a.ppm").write_bytes(content)
        both(tmp_path / "a.ppm", 1.0 - values)


BROKEN = {
    "2 MB of compressed text": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 2**21)),
    "2 MB of XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * 2**21)),
    "checksum of text": chunk(b"tEXt", b"Comment\0day")[:-4] + b"\0\0\0\0",
    "checksum of EXIF": chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0")[:-4] + b"\0\0\0\0",
    "checksum of a profile": chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(b"no profile"))[:-4] + b"\0\0\0\0",
    "checksum of a resolution": chunk(b"pHYs", b"\0" * 9)[:-4] + b"abcd",
    "a profile of 9 MB": chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(b"x" * 9_000_000)),
    "text that can't be inflated": chunk(b"zTXt", b"workflow\0\0nonsense"),
    "a short time": chunk(b"tIME", b"\0"),
    "an unknown chunk": chunk(b"prVt", b"anything"),
    "20 MB of text": chunk(b"tEXt", b"Comment\0" + b"x" * 20_000_000),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("behind", [False, True])
def test_metadata_hides_no_pixels_and_no_other_metadata(tmp_path, name, behind, capfd):
    good = chunk(b"pHYs", struct.pack(">IIB", 11811, 11811, 1))
    content = png(SMOOTH.astype(int), 8, 2, good, *([] if behind else [BROKEN[name]]))
    if behind:
        content = content[:-12] + BROKEN[name] + content[-12:]
    (tmp_path / "a.png").write_bytes(content)
    both(tmp_path / "a.png", SMOOTH / 255)
    if "resolution" not in name:
        assert read_photograph(tmp_path / "a.png").metadata.dpi == pytest.approx((300, 300), abs=0.01)
    assert capfd.readouterr() == ("", "")


def test_a_checksum_of_pixels_or_opacity_counts(tmp_path):
    for bad in (chunk(b"tRNS", b"\0\1\0\1\0\1")[:-4] + b"abcd", chunk(b"ABCD", b"critical and unknown")):
        (tmp_path / "a.png").write_bytes(png(SMOOTH.astype(int), 8, 2, bad))
        with pytest.raises(UserError, match="damaged"):
            read_image(tmp_path / "a.png")


JPEGS = {
    "plain": {},
    "grey": {"mode": "L"},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 2},
    "rows of restarts": {"restart_marker_rows": 1, "subsampling": 0},
    "optimized": {"optimize": True, "subsampling": 0},
}


def jpeg(mode="RGB", **options):
    file = io.BytesIO()
    noisy = np.clip(SMOOTH + RNG.integers(-20, 20, SMOOTH.shape), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_without_its_end_marker_is_taken_and_a_shorter_one_is_not(tmp_path, name):
    whole, path = jpeg(**JPEGS[name]), tmp_path / "a.jpg"
    path.write_bytes(whole)
    expected = read_image(path)
    assert read_photograph(path).note == ""
    for end in (whole[:-2], whole[:-1]):
        path.write_bytes(end)
        np.testing.assert_array_equal(read_image(path), expected)
        assert "its pixels are whole" in f"its {read_photograph(path).note.partition('the ')[2]}"
    # The last bytes may be nothing but filling; a cut anywhere before is noticed.
    body = whole[:-2]
    cuts = {len(body) - 12, len(body) - 100, len(body) // 2}
    cuts |= {
        i for i in range(len(body) - 1) if body[i] == 0xFF and (0xD0 <= body[i + 1] <= 0xD7 or body[i + 1] == 0xDA)
    }
    for cut in cuts:
        assert completed(body[:cut]) is None, cut
        path.write_bytes(body[:cut])
        with pytest.raises(UserError, match="damaged"):
            read_image(path)


def test_a_png_that_lacks_only_its_end(tmp_path):
    content = png(SMOOTH.astype(int), 8, 2)
    (tmp_path / "a.png").write_bytes(content[:-12])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), SMOOTH)
    assert "the pixels are whole" in read_photograph(tmp_path / "a.png").note
    (tmp_path / "a.png").write_bytes(content[:-20])
    with pytest.raises(UserError, match="damaged or incomplete"):
        read_image(tmp_path / "a.png")


def webp(width, height, kind):
    if kind == b"VP8X":
        data = b"\x10\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif kind == b"VP8L":
        data = b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little")
    else:
        data = b"\0\0\0\x9d\x01\x2a" + width.to_bytes(2, "little") + height.to_bytes(2, "little")
    body = b"WEBP" + kind + len(data).to_bytes(4, "little") + data + b"\0" * 40
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def tiff_bomb(**tags):
    file = io.BytesIO()
    codes = {"depth": (32997, "I", 1), "width": (256, "I", 1), "height": (257, "I", 1), "samples": (277, "H", 1)}
    tifffile.imwrite(file, np.zeros((64, 64), np.uint8), compression="zlib", rowsperstrip=64, metadata=None)
    content = bytearray(file.getvalue())
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        found = {tag.code: tag for tag in tiff.pages.first.tags}
    spare = found[282]  # a resolution, whose place another tag can have
    for name, value in tags.items():
        code, kind, count = codes[name]
        tag = found.get(code, spare)
        head = struct.pack("<HHI", code, {"I": 4, "H": 3}[kind], count) + struct.pack(f"<{kind}", value).ljust(4, b"\0")
        content[tag.offset : tag.offset + 12] = head
    return bytes(content)


def jpeg_bomb():
    content = bytearray(jpeg())
    place = content.index(b"\xff\xc0")
    content[place + 5 : place + 9] = struct.pack(">HH", 65000, 65000)
    return bytes(content)


BOMBS = {
    "a.png": png(np.zeros((1, 1, 1), int), 8, 0)[:16] + struct.pack(">II", 60000, 60000) + b"\x08\0\0\0\0" + b"\0" * 99,
    "b.png": png(np.zeros((1, 1, 1), int), 8, 0)[:16] + struct.pack(">II", 2**31 - 1, 1) + b"\x10\6\0\0\0" + b"\0" * 99,
    "a.jpg": jpeg_bomb(),
    "a.webp": webp(16383, 16383, b"VP8 "),
    "b.webp": webp(16384, 16384, b"VP8L"),
    "c.webp": webp(2**24, 2**24, b"VP8X"),
    "a.tif": tiff_bomb(width=60000, height=60000),
    "b.tif": tiff_bomb(width=10000, height=10000, depth=1500),
    "c.tif": tiff_bomb(width=10000, height=10000, samples=500),
    "a.gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0" + b",\0\0\0\0\xff\xff\xff\xff\0\2\0\0;",
    "a.ppm": b"P6 60000 60000 255\n" + b"\0" * 99,
    "a.bmp": b"BM" + struct.pack("<IIIIiiHHIIiiII", 99, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0) + b"\0" * 99,
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_would_be_too_large_is_refused_before_it_is_decoded(tmp_path, name):
    resource = pytest.importorskip("resource")
    (tmp_path / name).write_bytes(BOMBS[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (read_image, read_photograph, image_size):
        with pytest.raises(TooLargeError, match="too large"):
            read(tmp_path / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # in KiB


def test_a_volume_of_small_layers_is_no_photograph(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff_bomb(depth=1500))
    with pytest.raises(UserError, match=r"too large|1500 layers"):
        read_image(tmp_path / "a.tif")


def test_a_large_picture_inside_a_small_tiff_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, SMOOTH, photometric="rgb", compression="jpeg")
    content = bytearray(path.read_bytes())
    place = content.index(b"\xff\xc0")
    content[place + 5 : place + 9] = struct.pack(">HH", 65000, 65000)
    path.write_bytes(content)
    with pytest.raises(UserError, match="a part of 65000 x 65000"):
        read_image(path)


def test_a_long_file_is_not_read_beyond_its_picture(tmp_path):
    resource = pytest.importorskip("resource")
    write_png(tmp_path / "a.png", SMOOTH)
    with (tmp_path / "a.png").open("ab") as file:
        file.truncate(2**31)  # sparse: it takes no room on the disk
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), SMOOTH)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # in KiB


def test_who_wants_larger_pictures_says_so(tmp_path):
    write_png(tmp_path / "a.png", SMOOTH)  # 40 x 56
    for read in (read_image, read_photograph, image_size):
        with pytest.raises(TooLargeError, match=r"56 x 40 pixels are 0.00224 megapixels, above the limit of 0.002"):
            read(tmp_path / "a.png", max_megapixels=0.002)
        read(tmp_path / "a.png", max_megapixels=0.003)
    problems = []
    assert read_images([tmp_path / "a.png"], report=problems.append, max_megapixels=0.002) == (None,)
    assert len(problems) == 1


def test_members_of_archives_are_bounded(tmp_path, monkeypatch):
    assert storage.MAX_MEMBER_BYTES <= 2**28
    monkeypatch.setattr(storage, "MAX_MEMBER_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("huge.png", b"\0" * 2**21)
        file.write(__file__, "small.png")
    problems = []
    assert [path.name for path in image_tree(tmp_path / "a.zip", report=problems.append)] == ["small.png"]
    assert "huge.png: too large, 2 MiB" in str(problems[0])
    with pytest.raises(UserError, match="too large"):  # by name, past the listing
        read_image(ZipMember(tmp_path / "a.zip", "huge.png"))


@pytest.mark.parametrize(
    "content",
    [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"%PDF-1.4\n", b"\xc5\xd0\xd3\xc6" + b"\0" * 28, b"<svg/>"],
    ids=["postscript", "pdf", "eps", "svg"],
)
def test_no_other_format_is_opened_whatever_its_name(tmp_path, content, monkeypatch):
    import subprocess

    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    for name in ("x.png", "x.jpg", "x.eps"):
        (tmp_path / name).write_bytes(content + b"\0" * 64)
        for read in (read_image, read_photograph, image_size):
            with pytest.raises(UserError, match="not an image, or of a format that is not read"):
                read(tmp_path / name)


@pytest.mark.parametrize("kind", ["ICO", "PCX", "TGA", "SGI", "DDS", "MSP", "XBM", "EPS", "PDF", "ICNS"])
def test_formats_that_pillow_would_open_and_nobody_asked_for(tmp_path, kind):
    mode = "1" if kind in ("MSP", "XBM") else "RGB"
    Image.fromarray(SMOOTH).resize((64, 64)).convert(mode).save(tmp_path / "a.png", kind)
    with pytest.raises(UserError, match="not an image, or of a format that is not read"):
        read_image(tmp_path / "a.png")


RAW = [
    b"IIRO\x08\0\0\0",
    b"IIU\0\x18\0\0\0",
    b"FUJIFILMCCD-RAW 0201",
    b"\0\0\0\x18ftypcrx \0\0\0\1",
    b"II*\0\x10\0\0\0CR\2\0",
]


@pytest.mark.parametrize("content", RAW)
def test_raw_files_of_cameras_are_named(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content + b"\0" * 64)
    with pytest.raises(UserError, match="raw file of a camera"):
        read_image(tmp_path / "a.jpg")


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40


def test_heic_says_what_it_needs(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(HEIC)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UserError, match=r"HEIC needs the package pillow-heif: pip install .*heif"):
        read_photograph(tmp_path / "a.heic")
    # With it, what it gives is taken like any other picture.
    stand_in = types.ModuleType("pillow_heif")
    stand_in.HeifImageFile = lambda file: Image.fromarray(SMOOTH)
    monkeypatch.setitem(sys.modules, "pillow_heif", stand_in)
    both(tmp_path / "a.heic", SMOOTH / 255)


def test_heic_of_a_telephone(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[272], exif[274] = "Telephone", 6
    pillow_heif.register_heif_opener()
    try:
        image = Image.fromarray(SMOOTH)
        image.info["exif"] = exif.tobytes()
        image.save(tmp_path / "a.heic", quality=-1)
    finally:
        Image.OPEN.pop("HEIF", None)
    photograph = read_photograph(tmp_path / "a.heic")
    expected = np.rot90(SMOOTH, -1)
    np.testing.assert_allclose(photograph.color.astype(int), expected, atol=3)
    np.testing.assert_array_equal(read_image(tmp_path / "a.heic"), photograph.color)
    assert image_size(tmp_path / "a.heic") == expected.shape[:2]
    assert b"Telephone" in photograph.metadata.exif


def test_both_readers_agree_on_every_format(tmp_path):
    for kind, mode in itertools.product(
        ("PNG", "TIFF", "JPEG", "WEBP", "AVIF", "JPEG2000", "GIF", "BMP", "PPM"), ("1", "L", "P", "RGB", "RGBA", "CMYK")
    ):
        try:
            Image.fromarray(SMOOTH).convert(mode).save(tmp_path / "a", kind)
        except (OSError, ValueError):  # a format that has no such pixels
            continue
        photograph = read_photograph(tmp_path / "a")
        seen = photograph.intensities() * (1 if photograph.alpha is None else photograph.alpha / 255)
        np.testing.assert_allclose(read_image(tmp_path / "a") / 255, seen, atol=0.51 / 255, err_msg=f"{kind} {mode}")
