"""TIFF as it is defined: depth, planes, white, opacity, palettes; the picture and not its preview; both readers."""

import itertools
import math
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from sel.errors import UserError
from sel.images import image_size, read_image, read_photograph

HEIGHT, WIDTH = 19, 23
RNG = np.random.default_rng(0)


def packed(values: np.ndarray, bits: int, order: str) -> bytes:
    """Rows of samples in big-endian bits, each row filled up to a byte; 8 and 16 bits in the file's byte order."""
    if bits in (8, 16):
        return values.astype(f"{order}u{bits // 8}").tobytes()
    rows = values.reshape(values.shape[0], -1)
    digits = (rows[..., None] >> np.arange(bits)[::-1]) & 1
    return np.packbits(digits.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def tiff(
    values, bits, photometric, *, order="<", planar=False, extra=(), strip=None, compress=None, tags=(), tile=None
):
    """A TIFF written from the definition: header, strips or tiles, one directory. `values` is [h, w, samples]."""
    height, width, samples = values.shape
    planes = [values[..., i : i + 1] for i in range(samples)] if planar else [values]
    if tile:
        down, across = math.ceil(height / tile) * tile, math.ceil(width / tile) * tile
        planes = [np.pad(plane, [(0, down - height), (0, across - width), (0, 0)]) for plane in planes]
        parts = [
            plane[y : y + tile, x : x + tile]
            for plane in planes
            for y, x in itertools.product(range(0, down, tile), range(0, across, tile))
        ]
    else:
        parts = [plane[y : y + (strip or height)] for plane in planes for y in range(0, height, strip or height)]
    coded = [packed(part, bits, order) for part in parts]
    coded = [compress(part) if compress else part for part in coded]
    entries = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits] * samples),
        259: ("H", [8 if compress else 1]),
        262: ("H", [photometric]),
        277: ("H", [samples]),
        284: ("H", [2 if planar else 1]),
    }
    if extra:
        entries[338] = ("H", list(extra))
    entries |= {code: (kind, list(numbers)) for code, kind, numbers in tags}
    if tile:
        entries |= {322: ("I", [tile]), 323: ("I", [tile])}
    else:
        entries[278] = ("I", [strip or height])
    content, places = bytearray(8), []
    for part in coded:
        places.append(len(content))
        content += part + b"\0" * (len(part) % 2)
    entries |= {324 if tile else 273: ("I", places), 325 if tile else 279: ("I", [len(part) for part in coded])}
    directory, beyond = b"", bytearray()
    start = len(content) + 2 + 12 * len(entries) + 4
    for code, (kind, numbers) in sorted(entries.items()):
        data = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        directory += struct.pack(f"{order}HHI", code, {"H": 3, "I": 4}[kind], len(numbers))
        if len(data) <= 4:
            directory += data.ljust(4, b"\0")
        else:
            directory += struct.pack(f"{order}I", start + len(beyond))
            beyond += data + b"\0" * (len(data) % 2)
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", len(content))
    content[:8] = header
    content += struct.pack(f"{order}H", len(entries)) + directory + b"\0" * 4 + beyond
    return bytes(content)


def both(path, light, opacity=None, tolerance=0.0):
    """Compare both readers with the right light in [0, 1], not multiplied by opacity."""
    photograph = read_photograph(path)
    deep = 65535 if photograph.color.dtype == np.uint16 else 255
    np.testing.assert_allclose(
        photograph.intensities(), np.broadcast_to(light, (*light.shape[:2], 3)), atol=0.501 / deep + tolerance
    )
    shown = light
    if opacity is None:
        assert photograph.alpha is None
    else:
        np.testing.assert_allclose(photograph.alpha / deep, opacity, atol=0.501 / deep)
        shown = light * opacity
    got = read_image(path)
    np.testing.assert_allclose(got / 255, np.broadcast_to(shown, got.shape), atol=0.51 / 255 + tolerance)
    assert image_size(path) == got.shape[:2] == photograph.color.shape[:2]


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8, 10, 12, 14, 16])
@pytest.mark.parametrize("photometric", [0, 1, 2])
def test_depth_is_that_of_the_file(tmp_path, bits, photometric):
    path, maximum = tmp_path / "a.tif", 2**bits - 1
    values = RNG.integers(0, maximum, (HEIGHT, WIDTH, 3 if photometric == 2 else 1), endpoint=True)
    values[0, 0], values[0, 1] = 0, maximum
    light = 1 - values / maximum if photometric == 0 else values / maximum
    layouts = itertools.product("<>", (False, True), (None, 7), (None, imagecodecs.zlib_encode), (None, 16))
    for order, planar, strip, compress, tile in layouts:
        if (planar and photometric != 2) or (strip and tile):
            continue
        path.write_bytes(
            tiff(values, bits, photometric, order=order, planar=planar, strip=strip, compress=compress, tile=tile)
        )
        both(path, light)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("colors", [1, 3])
@pytest.mark.parametrize("planar", [False, True])
def test_opacity_as_the_file_says(tmp_path, bits, colors, planar):
    path, maximum = tmp_path / "a.tif", 2**bits - 1
    light = RNG.uniform(0, 1, (HEIGHT, WIDTH, colors))
    opacity = RNG.integers(maximum // 8, maximum, (HEIGHT, WIDTH, 1), endpoint=True) / maximum
    opacity[0] = 1

    def write(first, *extra):
        values = np.concatenate([np.rint(first * maximum), np.rint(opacity * maximum)], axis=-1).astype(int)
        values = np.concatenate([values, *[values[..., :1]] * (len(extra) - 1)], axis=-1)
        path.write_bytes(tiff(values, bits, 2 if colors == 3 else 1, planar=planar, extra=extra))
        return values[..., :colors] / maximum

    for order in ((2,), (2, 0)):
        both(path, write(light, *order), opacity)
    write(light * opacity, 1)
    both(path, light, opacity, tolerance=0.51 / maximum * 8)  # as much as was lost when it was multiplied
    both(path, write(light, 0))  # unspecified: no opacity
    path.write_bytes(tiff(np.full((4, 4, 2), maximum), bits, 0, extra=(1,)))
    with pytest.raises(UserError, match="no certain meaning"):
        read_image(path)


def test_premultiplied_opacity_is_written_back_as_bright_as_it_was(tmp_path):
    from sel.images import write_photograph

    values = np.full((5, 6, 4), 32768)
    values[..., :3] = [3000, 6000, 9000]
    (tmp_path / "a.tif").write_bytes(tiff(values, 16, 2, extra=(1,)))
    photograph = read_photograph(tmp_path / "a.tif")
    np.testing.assert_array_equal(photograph.color[0, 0], np.rint(np.array([3000, 6000, 9000]) * 65535 / 32768))
    for name in ("b.tif", "b.png"):
        write_photograph(tmp_path / name, photograph)
        np.testing.assert_array_equal(read_photograph(tmp_path / name).color, photograph.color)
        np.testing.assert_array_equal(read_image(tmp_path / name), read_image(tmp_path / "a.tif"))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes(tmp_path, bits):
    places = RNG.integers(0, 2**bits, (HEIGHT, WIDTH, 1))
    colors = RNG.integers(0, 256, (3, 2**bits))
    colors[:, 0] = 255
    for stored in (colors * 257, colors * 256, colors):
        (tmp_path / "a.tif").write_bytes(tiff(places, bits, 3, tags=[(320, "H", stored.reshape(-1))]))
        both(tmp_path / "a.tif", colors.T[places[..., 0]] / 255)


def test_inks_and_other_colours(tmp_path):
    path = tmp_path / "a.tif"
    inks = np.zeros((HEIGHT, WIDTH, 4), int)
    inks[..., 0] = 255
    for bits in (8, 16):
        path.write_bytes(tiff(inks * (1 if bits == 8 else 257), bits, 5))
        both(path, np.broadcast_to([0.0, 1.0, 1.0], (HEIGHT, WIDTH, 3)))
    path.write_bytes(tiff(inks, 8, 5, tags=[(332, "H", [2])]))
    with pytest.raises(UserError, match="must be grey, RGB"):
        read_image(path)
    # JPEG inside, with colours as brightness and differences.
    smooth = np.dstack([np.add.outer(np.arange(32) * 3, np.arange(48) * 2 + k * 20) for k in range(3)]).astype(np.uint8)
    ycc = np.asarray(Image.fromarray(smooth).convert("YCbCr"))
    tifffile.imwrite(path, ycc, photometric="ycbcr", compression="jpeg", compressionargs={"level": 95})
    both(path, smooth / 255, tolerance=6 / 255)
    Image.fromarray(smooth).save(path, compression="jpeg", quality=95)
    both(path, smooth / 255, tolerance=6 / 255)
    rgb, lab = Image.fromarray(smooth), ImageCms.createProfile("LAB")
    ImageCms.profileToProfile(rgb, ImageCms.createProfile("sRGB"), lab, outputMode="LAB").save(path)
    both(path, smooth / 255, tolerance=8 / 255)


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_compressions(tmp_path, compression, dtype):
    values = RNG.integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, 3), dtype, endpoint=True)
    for predictor in (False, True) if compression != "packbits" else (False,):
        options = {"photometric": "rgb", "compression": compression, "predictor": predictor, "rowsperstrip": 5}
        tifffile.imwrite(tmp_path / "a.tif", values, **options)
        both(tmp_path / "a.tif", values / np.iinfo(dtype).max)
        tifffile.imwrite(tmp_path / "b.tif", values, bigtiff=True, byteorder=">", **options)
        both(tmp_path / "b.tif", values / np.iinfo(dtype).max)


def test_black_and_white_by_fax(tmp_path):
    picture = Image.fromarray(RNG.integers(0, 2, (HEIGHT, WIDTH)).astype(bool))
    for compression in ("group3", "group4", "tiff_ccitt"):
        picture.save(tmp_path / "a.tif", compression=compression)
        both(tmp_path / "a.tif", np.asarray(picture)[..., None].astype(float))


KINDS = {
    "uint32": (np.uint32, "32-bit"),
    "int16": (np.int16, "signed"),
    "int8": (np.int8, "signed"),
    "float32": (np.float32, "floating-point"),
    "float16": (np.float16, "floating-point"),
    "float64": (np.float64, "floating-point"),
    "complex64": (np.complex64, "complex"),
    "uint64": (np.uint64, "64-bit"),
}


@pytest.mark.parametrize("name", KINDS)
def test_pixels_without_a_known_white_are_refused_by_both(tmp_path, name):
    dtype, words = KINDS[name]
    for shape, options in (((9, 8), {"photometric": "minisblack"}), ((9, 8, 3), {"photometric": "rgb"})):
        tifffile.imwrite(tmp_path / "a.tif", np.ones(shape, dtype), **options)
        for read in (read_image, read_photograph):
            with pytest.raises(UserError, match=f"{words}.*no known white"):
                read(tmp_path / "a.tif")


def pages(path, *parts):
    """Pictures in the order of their directories: (pixels, options, pixels of a directory below it or None)."""
    with tifffile.TiffWriter(path) as file:
        for pixels, options, below in parts:
            kind = {"photometric": "rgb" if pixels.ndim == 3 else "minisblack", "metadata": None}
            file.write(pixels, subifds=0 if below is None else 1, **(kind | options))
            if below is not None:
                file.write(below, photometric="rgb" if below.ndim == 3 else "minisblack", metadata=None)


FULL = RNG.integers(0, 256, (48, 64, 3), np.uint8)
SMALL = FULL[::2, ::2].copy()
PREVIEW = {"subfiletype": 1}


@pytest.mark.parametrize(
    "parts",
    [
        [(SMALL, PREVIEW, None), (FULL, {}, None)],
        [(FULL, {}, None), (SMALL, PREVIEW, None)],
        [(SMALL, PREVIEW, FULL)],
        [(SMALL, PREVIEW, None), (SMALL[:6], PREVIEW, None), (FULL, {}, None), (SMALL, {}, None)],
        [(SMALL, {"extratags": [(255, "H", 1, 2, True)]}, None), (FULL, {}, None)],
        [(FULL, {}, None), (255 - FULL, {}, None)],
    ],
    ids=["first", "last", "above", "several", "old tag", "pages"],
)
def test_the_picture_and_not_its_preview(tmp_path, parts):
    pages(tmp_path / "a.tif", *parts)
    both(tmp_path / "a.tif", FULL / 255)


def test_a_mask_is_no_picture(tmp_path):
    pages(tmp_path / "a.tif", (SMALL, PREVIEW, None), (FULL, {}, None))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages.first.tags[254].overwrite(4)
    both(tmp_path / "a.tif", FULL / 255)


def test_the_orientation_is_that_of_the_picture(tmp_path):
    turned = {"extratags": [(274, "H", 1, 6, True)]}
    pages(tmp_path / "a.tif", (SMALL, PREVIEW, None), (FULL, turned, None))
    both(tmp_path / "a.tif", np.rot90(FULL, -1) / 255)
    pages(tmp_path / "a.tif", (SMALL, PREVIEW | turned, FULL))  # as cameras do: what is said above holds below
    both(tmp_path / "a.tif", np.rot90(FULL, -1) / 255)


GREY14 = (FULL[..., 0].astype(np.uint16) * 64).copy()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.dng", [(SMALL, PREVIEW, FULL)]),
        ("a.NEF", [(SMALL, PREVIEW, GREY14)]),
        ("a.tif", [(SMALL, PREVIEW | {"extratags": [(50706, "B", 4, (1, 4, 0, 0), True)]}, None)]),
        ("a.tif", [(FULL, {"extratags": [(50706, "B", 4, (1, 4, 0, 0), True)]}, None)]),
        ("a.tif", [(SMALL, PREVIEW, GREY14)]),
        ("a.tif", [(SMALL, {}, None), (GREY14, {"photometric": "cfa"}, None)]),
        ("a.tif", [(GREY14, {"photometric": "cfa"}, None)]),
    ],
    ids=["dng", "nef", "dng tag", "dng tag, full", "sensor below", "filters behind", "filters"],
)
def test_raw_files_are_refused(tmp_path, name, parts):
    pages(tmp_path / name, *parts)
    for read in (read_image, read_photograph, image_size):
        with pytest.raises(UserError, match=r"raw file of a camera.*develop it first"):
            read(tmp_path / name)


def test_a_preview_alone_is_refused(tmp_path):
    pages(tmp_path / "a.tif", (SMALL, PREVIEW, None))
    for read in (read_image, read_photograph, image_size):
        with pytest.raises(UserError, match="reduced preview without the picture"):
            read(tmp_path / "a.tif")


def test_planes_that_are_not_there_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, FULL, photometric="rgb", compression="lzw", rowsperstrip=5)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags[284].overwrite(2)
    with pytest.raises(UserError, match="some are missing"):
        read_image(path)


@pytest.mark.parametrize("compress", [None, imagecodecs.zlib_encode], ids=["plain", "deflate"])
@pytest.mark.parametrize("place", [0, 10**6], ids=["never written", "behind the end"])
def test_missing_parts_are_refused(tmp_path, compress, place):
    path = tmp_path / "a.tif"
    whole = bytearray(tiff(FULL.astype(int), 8, 2, strip=5, compress=compress))
    path.write_bytes(whole)
    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags[273]
    struct.pack_into("<I", whole, tag.valueoffset + 4 * 3, place)
    path.write_bytes(whole)
    for read in (read_image, read_photograph):
        with pytest.raises(UserError, match="damaged"):
            read(path)
