"""Small made-up downloads of the public sets, in the layouts of the true ones; and one that is out to do harm."""

import stat
import zipfile

import numpy as np
import pytest
from PIL import Image
from programs import photograph

from sel.errors import UserError

# Of each set: files of the download by split, with the name of the pair; low before high.
LAYOUTS = {
    "lol_v1": {
        "train": {"2": ("our485/low/2.png", "our485/high/2.png"), "10": ("our485/low/10.png", "our485/high/10.png")},
        "validation": {"5": ("val/low/5.png", "val/high/5.png")},
        "test": {"1": ("eval15/low/1.png", "eval15/high/1.png")},
    },
    "lol_v2_real": {
        "train": {
            "00001": (f"{(r := 'LOL-v2/Real_captured')}/Train/Low/low00001.png", f"{r}/Train/Normal/normal00001.png")
        },
        "test": {"00690": (f"{r}/Test/Low/low00690.png", f"{r}/Test/Normal/normal00690.png")},
    },
    "lol_v2_synthetic": {
        "train": {
            "r000da54ft": (f"{(s := 'LOL-v2/Synthetic')}/Train/Low/r000da54ft.png", f"{s}/Train/Normal/r000da54ft.png")
        },
        "test": {"00816405t": (f"{s}/Test/Low/r00816405t.png", f"{s}/Test/Normal/00816405t.png")},
    },
    "lsrw": {
        "train": {
            "huawei-7": ("LSRW/Training data/Huawei/low/7.jpg", "LSRW/Training data/Huawei/high/7.jpg"),
            "nikon-7": ("LSRW/Training data/Nikon/low/7.jpg", "LSRW/Training data/Nikon/high/7.jpg"),
        },
        "test": {"huawei-9": ("LSRW/Eval/Huawei/low/9.jpg", "LSRW/Eval/Huawei/high/9.jpg")},
    },
    "ntire2024_low_light": {
        "train": {"3": ("train/input/3.png", "train/target/3.png"), "1": ("train/input/1.png", "train/target/1.png")},
        "validation": {"31": ("mini_val/input/31.png", "mini_val/target/31.png")},
    },
}


def build(root, layout):
    """Write a download; the low-light image of pair i has grey level i, its reference 100 + i."""
    levels = {}
    for split, pairs in layout.items():
        for name, (low, high) in pairs.items():
            levels[split, name] = len(levels)
            for path, level in ((low, levels[split, name]), (high, 100 + levels[split, name])):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((4, 6, 3), level, np.uint8)).save(root / path)
    return levels


def zipped(root, archive, prefix=""):
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                file.write(path, prefix + path.relative_to(root).as_posix())
    return archive


def levels_of(pairs):
    return {pair.name: (int(pair.mu[0, 0, 0]), int(pair.x0[0, 0, 0])) for pair in pairs}


def refused(call, *parts, **options):
    with pytest.raises(UserError) as caught:
        call(**options)
    for part in parts:
        assert str(part) in str(caught.value)
    assert "\n" not in str(caught.value)


def hostile(archive):
    """An archive with one good pair, and entries that lead astray."""
    picture = photograph(archive.parent / "picture.png", 3, (4, 6)).read_bytes()
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("our485\\low\\1.png", "our485/high/1.png", "our485/low/._1.png", "__MACOSX/our485/low/2.png"):
            file.writestr(name, picture)
        for name in ("../../our485/low/x.png", "/our485/low/y.png", "our485/low\\..\\z.png", "C:/our485/low/c.png"):
            file.writestr(name, picture)
        link = zipfile.ZipInfo("our485/low/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
        file.writestr("our485/low/2.png", picture)
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("our485/low/2.png", picture)
    return archive
