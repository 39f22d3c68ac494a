"""Which formats are read, told by the first bytes of a file; its name decides nothing."""

from sel.errors import UserError

# Ends of names under which folders and archives are searched.
SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpeg", ".jpg"),
    *(".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
)

# Files of camera sensors, which are no pictures yet.
RAW_SUFFIXES = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw"),
    *(".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)

# Formats that are read, in the words of messages.
NAMES = "JPEG, PNG, TIFF, WebP, HEIC, AVIF, JPEG 2000, GIF, BMP, PGM, PPM"

RAW = "a raw file of a camera, not a picture yet; develop it first, for example with darktable, and save a TIFF or JPEG"

# Bytes of a file that `kind_of` looks at.
HEAD = 32

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
)
_RAW_SIGNATURES = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"\0MRM", b"FOVb", b"II\x1a\0\0\0HEAPCCDR")
# Of ISO media files, by the brand in bytes 8 to 12.
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"crx ": "RAW"}
_BRANDS |= dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIF")


def kind_of(name: object, head: bytes) -> str:
    """Tell the format of a file.

    Args:
      name: the file, for the message; of TIFF its end tells raw files of cameras.
      head: its first `HEAD` bytes.

    Returns:
      One of AVIF, BMP, GIF, HEIF, JPEG, JPEG2000, PNG, PPM, TIFF, WEBP.

    Raises:
      UserError: if it is none of these, or a raw file of a camera.
    """
    kind = next((kind for signature, kind in _SIGNATURES if head.startswith(signature)), "")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        kind = "WEBP"
    elif head[4:8] == b"ftyp":
        # "mif1" says nothing of the codec; the brands that the file is compatible with follow.
        brands = [head[i : i + 4] for i in (8, *range(16, len(head) - 3, 4))]
        found = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        kind = "AVIF" if "AVIF" in found else found[0] if found else ""
    elif head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        kind = "PPM"
    raw_name = str(name).lower().endswith(RAW_SUFFIXES)
    if kind == "RAW" or head.startswith(_RAW_SIGNATURES) or (kind == "TIFF" and (raw_name or head[8:10] == b"CR")):
        raise UserError(f"{name}: {RAW}")
    if not kind:
        raise UserError(f"{name}: not an image, or of a format that is not read ({NAMES} are)")
    return kind
