"""The public sets as their downloads unpack, from folders and archives; what leads astray is named and left out."""

import os
import zipfile
from pathlib import PurePosixPath

import pytest
from downloads import LAYOUTS, build, hostile, levels_of, refused, zipped
from programs import photograph

from sel.data import DATASETS, find_dataset, find_pairs, load_pairs
from sel.data.pairs import scene_key
from sel.data.sources import split_images
from sel.images import fingerprint, image_size, read_bytes, read_image, read_images
from sel.images.storage import ZipMember, image_tree


@pytest.mark.parametrize("route", ["folder", "above", "zip", "nested zip", "zip in folder"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read_by_every_route(tmp_path, name, route):
    root = tmp_path / "download" / "LOLdataset"
    levels = build(root, LAYOUTS[name])
    if "zip" in route:
        folder = tmp_path / "archives"
        folder.mkdir()
        root = zipped(root, folder / "a b.zip", "top/" if "nested" in route else "")
        root = folder if route == "zip in folder" else root
    elif route == "above":
        root = root.parent
    for split, expected in LAYOUTS[name].items():
        found = load_pairs(find_dataset(name, root, split))
        assert levels_of(found) == {key: (levels[split, key], 100 + levels[split, key]) for key in expected}


def test_the_part_of_a_set_may_be_the_root(tmp_path):
    build(tmp_path, LAYOUTS["lol_v2_real"])
    (pair,) = find_dataset("lol_v2_real", tmp_path / "LOL-v2" / "Real_captured", "test")
    assert pair.name == "00690"


def test_sets_of_one_download_do_not_mix(tmp_path):
    build(tmp_path, LAYOUTS["lol_v2_real"])
    build(tmp_path, LAYOUTS["lol_v2_synthetic"])
    assert [pair.name for pair in find_dataset("lol_v2_real", tmp_path, "train")] == ["00001"]
    assert [pair.name for pair in find_dataset("lol_v2_synthetic", tmp_path, "train")] == ["r000da54ft"]
    refused(lambda: find_dataset("lol_v1", tmp_path, "train"), "our485/low and our485/high", "Real_captured/Test/Low")


@pytest.mark.parametrize(
    ("low", "high"),
    [("train/train_inp", "train/train_gt"), ("Train_Input", "Train_GT"), ("NTIRE train input", "NTIRE train GT")],
)
def test_other_names_of_the_challenge(tmp_path, low, high):
    build(
        tmp_path / "train_data",
        {"train": {"1": (f"{low}/1.png", f"{high}/1.png")}, "x": {"2": ("val/input/2.png",) * 2}},
    )
    assert [pair.name for pair in find_dataset("ntire2024_low_light", tmp_path / "train_data", "train")] == ["1"]
    refused(lambda: find_dataset("ntire2024_low_light", tmp_path, "validation"), "low-light images but no references")


def test_exposures_of_sice(tmp_path):
    for part, scene, count in ((1, 1, 7), (1, 4, 9), (2, 4, 7), (2, 200, 7)):
        for frame in range(1, count + 1):
            photograph(tmp_path / f"Dataset_Part{part}" / str(scene) / f"{frame}.JPG", frame, (4, 6))
        photograph(tmp_path / f"Dataset_Part{part}" / "Label" / f"{scene}.JPG", 0, (4, 6))
    train, test = (find_dataset("sice", tmp_path, split) for split in ("train", "test"))
    # Scene 4 of part 1 is one of the authors' test scenes; of 9 exposures the fourth is one stop below the middle.
    assert [pair.name for pair in train] == ["1-1-2", "1-1-3", "2-4-2", "2-4-3", "2-200-2", "2-200-3"]
    assert [(pair.name, pair.high.name) for pair in test] == [("1-4-4", "4.JPG")]
    assert {pair.high.parent.name for pair in train} == {"Label"}
    sources = {PurePosixPath(f"Dataset_Part1/Label/{i}.JPG"): tmp_path for i in range(1, 361)}
    assert len(split_images("sice", sources, "test")[1]) == 58


def test_folders_of_ones_own(tmp_path):
    build(
        tmp_path,
        {"x": {"a": ("mine/input/a_input.png", "mine/GT/a_gt.png"), "b": ("mine/input/b.png", "mine/GT/b.png")}},
    )
    expected = {"a": (0, 100), "b": (1, 101)}
    assert levels_of(load_pairs(find_pairs(tmp_path / "mine"))) == expected
    assert levels_of(load_pairs(find_dataset("pairs", tmp_path, "mine"))) == expected
    assert levels_of(load_pairs(find_dataset("pairs", tmp_path / "mine", ""))) == expected
    archive = zipped(tmp_path / "mine", tmp_path / "mine.zip")
    assert levels_of(load_pairs(find_dataset("pairs", archive, ""))) == expected
    (tmp_path / "mine" / "lq").mkdir()
    refused(lambda: find_pairs(tmp_path / "mine"), "several of each kind")


def test_names_of_sides_are_dropped_only_where_they_are_one():
    stems = {
        "low00690": "00690",
        "normal1": "1",
        "a-low": "a",
        "GT_3": "3",
        "lowland": "lowland",
        "low": "low",
        "x": "x",
    }
    assert {stem: scene_key(stem) for stem in stems} == stems


def test_unknown_sets_splits_and_places(tmp_path):
    refused(lambda: find_dataset("lol", tmp_path, "train"), "no data set 'lol'", *DATASETS)
    build(tmp_path, LAYOUTS["lol_v1"])
    refused(lambda: find_dataset("lol_v1", tmp_path, "our485"), "no split 'our485'", "train, validation, test")
    refused(lambda: find_dataset("lol_v1", tmp_path / "nowhere", "train"), "nowhere: no such folder or file")
    (tmp_path / "empty").mkdir()
    refused(lambda: find_dataset("lol_v1", tmp_path / "empty", "train"), "found no image")
    for name, content in (("a.rar", b"Rar!"), ("b.zip", b""), ("c.zip", b"PK\x03\x04 truncated")):
        (tmp_path / name).write_bytes(content)
        refused(
            lambda name=name: find_dataset("lol_v1", tmp_path / name, "train"), name, "no zip archive, or a damaged one"
        )


def test_bad_pairs_are_left_out_and_named(tmp_path):
    names = ("good", "alone", "twice", "empty", "small", "late")
    build(tmp_path, {"x": {name: (f"our485/low/{name}.png", f"our485/high/{name}.png") for name in names}})
    low, high = tmp_path / "our485" / "low", tmp_path / "our485" / "high"
    (high / "alone.png").unlink()
    photograph(low / "twice.jpg", 0, (4, 6))
    (low / "empty.png").write_bytes(b"")
    photograph(high / "small.png", 0, (1, 1))
    (low / "late.png").write_bytes(photograph(low / "late.png", 0, (4, 6)).read_bytes()[:-40])
    problems = []
    found = find_dataset("lol_v1", tmp_path, "train", report=problems.append)
    assert [pair.name for pair in found] == ["good", "late"]
    assert [pair.name for pair in load_pairs(found, report=problems.append)] == ["good"]
    said = [str(problem) for problem in problems]
    for path, words in (
        (low / "twice.jpg", "same name"),
        (low / "twice.png", "same name"),
        (low / "alone.png", "no partner"),
        (low / "empty.png", "empty (0 bytes)"),
        (low / "small.png", "differs in size, height x width (small: low 4 x 6 and high 1 x 1)"),
        (low / "late.png", "damaged or incomplete"),
    ):
        assert sum(line.startswith(f"{path}: ") and words in line for line in said) == 1, (path, said)
    assert len(said) == 6
    refused(lambda: find_dataset("lol_v1", tmp_path, "train"), "1 names occur twice", "twice")
    (low / "twice.jpg").unlink()
    refused(lambda: find_dataset("lol_v1", tmp_path, "train"), "1 in low/ without a partner in high/ (alone)")
    refused(lambda: load_pairs(found), low / "late.png")


def test_nothing_left_is_an_error_even_where_problems_are_reported(tmp_path):
    build(tmp_path, {"x": {"a": ("low/a.png", "high/b.png")}})
    problems = []
    refused(lambda: find_pairs(tmp_path, report=problems.append), tmp_path, "no pair is left", "no partner")
    build(tmp_path, {"x": {"a": ("low/a.png", "high/a.png")}})
    found = find_pairs(tmp_path, report=problems.append)
    (tmp_path / "high" / "a.png").write_bytes(b"")
    refused(lambda: load_pairs(found, report=problems.append), "neither this pair")


def test_links_are_followed_once(tmp_path):
    build(tmp_path / "disk", LAYOUTS["lol_v1"])
    root = tmp_path / "here"
    root.mkdir()
    (root / "our485").symlink_to(tmp_path / "disk" / "our485")
    assert len(find_dataset("lol_v1", root, "train")) == 2
    (tmp_path / "disk" / "our485" / "low" / "loop").symlink_to(tmp_path / "disk" / "our485")
    (tmp_path / "disk" / "our485" / "low" / "9.png").symlink_to("9.png")
    refused(lambda: find_dataset("lol_v1", root, "train"), "loop: a link to a folder that holds it")
    problems = []
    assert len(find_dataset("lol_v1", root, "train", report=problems.append)) == 2
    assert ["loop: a link" in str(problems[0]), "9.png: no partner" in str(problems[1])] == [True, True]
    refused(lambda: read_image(root / "our485" / "low" / "9.png"), "9.png: too many levels of symbolic links")


def test_entries_of_archives_that_lead_astray(tmp_path):
    archive = hostile(tmp_path / "a.zip")
    before = sorted(os.listdir(tmp_path))
    problems = []
    (pair,) = find_dataset("lol_v1", archive, "train", report=problems.append)
    assert pair.low == ZipMember(archive, "our485\\low\\1.png")
    assert str(pair.high) == f"{archive}:our485/high/1.png"
    assert image_size(pair.low) == read_image(pair.low).shape[:2] == (4, 6)
    said = [str(problem) for problem in problems]
    assert len(said) == 7
    for name, words in (("../../our485/low/x.png", "outside"), ("/our485/low/y.png", "outside"), ("z.png", "outside")):
        assert sum(name in line and words in line for line in said) == 1
    assert sum("C:/our485/low/c.png: its name leads outside" in line for line in said) == 1
    assert sum("link.png: a link" in line for line in said) == 1
    assert sum("2.png: the archive holds this name twice" in line for line in said) == 2
    refused(
        lambda: find_dataset("lol_v1", archive, "train"), "../../our485/low/x.png: its name leads outside the archive"
    )
    assert sorted(os.listdir(tmp_path)) == before


def test_members_that_are_encrypted_or_claim_to_be_huge(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("secret.png", "huge.png", "good.png"):
            file.writestr(f"low/{name}", b"12345678")
    content = bytearray(archive.read_bytes())
    entries = [i for i in range(len(content)) if content[i : i + 4] == b"PK\x01\x02"]
    content[entries[0] + 8] |= 1
    content[entries[1] + 24 : entries[1] + 28] = (2**31).to_bytes(4, "little")
    archive.write_bytes(content)
    problems = []
    assert [path.name for path in image_tree(archive, report=problems.append)] == ["good.png"]
    assert [str(problem).partition("low/")[2] for problem in problems] == [
        "secret.png: encrypted",
        "huge.png: too large, 2048 MiB; of a member of an archive 256 are read",
    ]


def test_damaged_members_and_changed_archives(tmp_path):
    build(tmp_path / "x", {"x": {"a": ("low/a.png", "high/a.png")}})
    archive = zipped(tmp_path / "x", tmp_path / "a.zip")
    (pair,) = find_dataset("pairs", archive, "")
    assert read_bytes(pair.low) == read_bytes(tmp_path / "x" / "low" / "a.png")
    before = fingerprint(pair.low)
    assert before == fingerprint(pair.low) != fingerprint(pair.high)
    content = archive.read_bytes()
    place = content.index(read_bytes(pair.low)) + 20
    archive.write_bytes(content[:place] + b"\0\0\0\0" + content[place + 4 :])
    os.utime(archive, ns=(1, 1))
    assert fingerprint(pair.low) != before
    refused(lambda: read_image(pair.low), f"{archive}:low/a.png: damaged (BadZipFile")
    problems = []
    images = read_images([pair.low, pair.high], report=problems.append)
    assert images[0] is None
    assert images[1].shape == (4, 6, 3)
    archive.unlink()
    refused(lambda: read_image(pair.high), "no such file")
    refused(lambda: fingerprint(pair.high), "No such file")


def test_links_between_folders_end(tmp_path):
    folders = [tmp_path / "set" / f"d{i}" for i in range(7)]
    for folder in folders:
        photograph(folder / "a.png")
    for folder in folders:
        for other in folders:
            if folder != other:
                (folder / f"to_{other.name}").symlink_to(other)
    (folders[0] / "up").symlink_to(tmp_path)
    photograph(tmp_path / "elsewhere" / "b.png")
    problems = []
    images = image_tree(tmp_path / "set", report=problems.append)
    assert not any(path.name == "b.png" for path in images)
    assert {path.parent.name for path in images} >= {folder.name for folder in folders}
    assert any("up: a link to a folder that holds it" in str(problem) for problem in problems)
