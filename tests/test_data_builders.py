"""Prepared sets: TFDS reads them without TensorFlow, and every route to an image leads to the same pixels."""

import json
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from downloads import LAYOUTS, build, hostile, refused, zipped
from PIL import Image
from programs import photograph

from sel.data import DATASETS, find_dataset, load_pairs
from sel.data.builders import BUILDERS, LolV1, LolV2Real
from sel.data.builders.encoding import encoded
from sel.data.prepared import find_prepared
from sel.errors import UserError
from sel.images import fingerprint, image_size, read_bytes, read_image

ROOT = Path(__file__).parents[1]
tfds.disable_progress_bar()


def prepare(name, folder, source, **options):
    BUILDERS[name](source=source, data_dir=str(folder), **options).download_and_prepare()
    return folder


def equal(pairs, others):
    assert [pair.name for pair in pairs] == [pair.name for pair in others]
    for pair, other in zip(pairs, others, strict=True):
        np.testing.assert_array_equal(pair.mu, other.mu)
        np.testing.assert_array_equal(pair.x0, other.x0)


def test_every_set_has_a_builder():
    assert set(BUILDERS) == set(DATASETS)
    assert {"lol_v1", "lol_v2_real", "lol_v2_synthetic", "ntire2024_low_light"} <= set(BUILDERS)


@pytest.mark.parametrize("route", ["folder", "zip"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_prepared_sets_hold_what_the_folders_hold(tmp_path, name, route):
    root = tmp_path / "download"
    build(root, LAYOUTS[name])
    source = root if route == "folder" else zipped(root, tmp_path / "x.zip", "top/")
    data = prepare(name, tmp_path / "data", source)
    assert "tensorflow" not in sys.modules
    for split in LAYOUTS[name]:
        expected = load_pairs(find_dataset(name, root, split))
        equal(load_pairs(find_dataset(name, data, split)), expected)
        equal(load_pairs(find_dataset("pairs", data, split)), expected)
        records = tfds.data_source(name, split=split, data_dir=str(data))
        assert [record["id"].decode() for record in records] == [pair.name for pair in expected]
        for record, pair in zip(records, expected, strict=True):
            np.testing.assert_array_equal(record["low"], pair.mu)
            np.testing.assert_array_equal(record["high"], pair.x0)


def test_the_manual_folder_of_tfds_may_hold_the_archive(tmp_path):
    build(tmp_path / "download", LAYOUTS["lol_v1"])
    (tmp_path / "manual").mkdir()
    zipped(tmp_path / "download", tmp_path / "manual" / "LOLdataset.zip")
    builder = LolV1(data_dir=str(tmp_path / "data"))
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(tmp_path / "manual")))
    assert builder.info.splits["train"].num_examples == 2
    assert builder.info.metadata["test"] == ["1"]
    assert builder.info.file_format.value == "array_record"


def odd_images(folder):
    """Images that decoders of TFDS would give other pixels than `read_image`, or none; and two plain ones."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    picture, exif = Image.fromarray(noise), Image.Exif()
    exif[0x0112] = 6
    folder.mkdir(parents=True)
    picture.save(folder / "plain.png")
    picture.save(folder / "plain.jpg")
    picture.save(folder / "turned.jpg", exif=exif)
    picture.save(folder / "turned.png", exif=exif)
    picture.save(folder / "lossless.webp", lossless=True)
    picture.save(folder / "a.tif", exif=exif)
    picture.save(folder / "a.bmp")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    for mode in ("L", "P", "RGBA", "LA", "1"):
        picture.convert(mode).save(folder / f"{mode}.png")
    picture.save(folder / "transparent.png", transparency=tuple(map(int, noise[0, 0])))
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(folder / "16.png")
    return sorted(folder.iterdir())


def test_odd_images_are_stored_as_everyone_reads_them(tmp_path):
    for path in odd_images(tmp_path / "odd"):
        content, pixels = encoded(path)
        (tmp_path / "stored").write_bytes(content)
        np.testing.assert_array_equal(pixels, read_image(path))
        np.testing.assert_array_equal(read_image(tmp_path / "stored"), pixels)
        np.testing.assert_array_equal(tfds.features.Image().decode_example_np(content), pixels)
        assert (content == path.read_bytes()) is path.name.startswith("plain"), path.name


def test_odd_images_survive_the_whole_way(tmp_path):
    for path in odd_images(tmp_path / "odd"):
        for side in ("low", "high"):
            target = tmp_path / "our485" / side / f"{path.stem}-{path.suffix[1:]}{path.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    data = prepare("lol_v1", tmp_path / "data", tmp_path)
    equal(load_pairs(find_dataset("lol_v1", data, "train")), load_pairs(find_dataset("lol_v1", tmp_path, "train")))


def test_order_is_kept_over_many_records(tmp_path):
    names = [str(i) for i in range(45)]
    build(tmp_path / "x", {"train": {name: (f"our485/low/{name}.png", f"our485/high/{name}.png") for name in names}})
    seen = []
    data = prepare("lol_v1", tmp_path / "data", tmp_path / "x", observer=lambda *told: seen.append(told))
    pairs = load_pairs(find_dataset("lol_v1", data, "train"))
    assert [(pair.name, int(pair.mu[0, 0, 0])) for pair in pairs] == [(name, int(name)) for name in names]
    assert seen == [("train", 45, (4, 6))] * 45


def test_bad_pairs_are_left_out_or_stop_everything(tmp_path, monkeypatch):
    names = ("1", "2", "3", "4")
    root = tmp_path / "download"
    build(root, {"x": {name: (f"our485/low/{name}.png", f"our485/high/{name}.png") for name in names}})
    for name in ("1", "3"):
        noisy = photograph(root / "our485" / "high" / f"{name}.png", 0, (4, 6))
        noisy.write_bytes(noisy.read_bytes()[:-40])
    (root / "our485" / "low" / "5.png").write_bytes(b"")
    problems, seen = [], []
    options = {"report": problems.append, "observer": lambda *told: seen.append(told)}
    data = prepare("lol_v1", tmp_path / "data", root, **options)
    assert [pair.name for pair in find_dataset("lol_v1", data, "train")] == ["2", "4"]
    equal(
        load_pairs(find_dataset("lol_v1", data, "train")),
        load_pairs(find_dataset("lol_v1", root, "train", report=print), report=print),
    )
    assert [
        "5.png" in str(problems[0]),
        "1.png: damaged" in str(problems[1]),
        "3.png: damaged" in str(problems[2]),
    ] == [True] * 3
    assert [size for _, _, size in seen] == [None, (4, 6), None, (4, 6)]
    with pytest.raises(UserError, match=r"1 in low/ without a partner in high/ \(5\)"):
        prepare("lol_v1", tmp_path / "strict", root, report=None)
    (root / "our485" / "low" / "5.png").unlink()
    with pytest.raises(UserError, match=r"1\.png: damaged"):
        prepare("lol_v1", tmp_path / "strict", root, report=None)
    assert not list((tmp_path / "strict").rglob("*.json"))
    # Not `pytest.warns`: filters of warnings belong to the process, and threads that read images change them.
    told = []
    monkeypatch.setattr("warnings.warn", lambda text, **_: told.append(str(text)))
    prepare("lol_v1", tmp_path / "default", root)
    assert any("damaged" in text for text in told)


def test_hostile_archives_write_nothing_outside(tmp_path):
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    archive = hostile(folder / "hostile.zip")
    before = set(tmp_path.rglob("*"))
    problems = []
    data = prepare("lol_v1", tmp_path / "data", archive, report=problems.append)
    assert len(problems) == 7
    assert [pair.name for pair in find_dataset("lol_v1", data, "train")] == ["1"]
    assert {path for path in tmp_path.rglob("*") if data not in (path, *path.parents)} == before
    refused(lambda: prepare("lol_v1", tmp_path / "strict", archive, report=None), "outside the archive")


def test_a_download_of_another_set_is_named(tmp_path):
    build(tmp_path, LAYOUTS["lol_v1"])
    refused(
        lambda: prepare("lol_v2_real", tmp_path / "data", tmp_path),
        "no train split",
        "Real_captured/Train/Low",
        "our485/low",
    )
    refused(lambda: prepare("lol_v1", tmp_path / "data", tmp_path / "nowhere"), "no such folder")


def test_records_are_like_files(tmp_path):
    build(tmp_path / "x", LAYOUTS["lol_v1"])
    data = prepare("lol_v1", tmp_path / "data", tmp_path / "x")
    first, second = find_dataset("lol_v1", data, "train")
    assert str(second.low) == f"{data}/lol_v1/1.0.0:train/low/10"
    assert image_size(second.low) == (4, 6)
    assert read_bytes(second.high) == read_bytes(tmp_path / "x" / "our485" / "high" / "10.png")
    assert len({fingerprint(source) for pair in (first, second) for source in (pair.low, pair.high)}) == 4
    assert pickle.loads(pickle.dumps(second)) == second
    results = []
    threads = [threading.Thread(target=lambda: results.append(read_image(second.low)[0, 0, 0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1] * 8
    other = build(tmp_path / "y", {"x": {"7": ("our485/low/7.png", "our485/high/7.png")}}) and tmp_path / "y"
    before = fingerprint(first.low)
    for path in sorted(data.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    refused(lambda: read_image(first.low), "no such file")
    prepare("lol_v1", data, other)
    assert fingerprint(first.low) != before
    refused(lambda: read_image(first.low), "train/low/2: not where it was")


def test_prepared_sets_are_found_from_any_folder_above(tmp_path):
    build(tmp_path / "x", LAYOUTS["lol_v1"])
    data = prepare("lol_v1", tmp_path / "data", tmp_path / "x")
    for root in (data, data / "lol_v1", data / "lol_v1" / "1.0.0"):
        assert find_prepared(root, "lol_v1") == find_prepared(root, None) == data / "lol_v1" / "1.0.0"
        assert [pair.name for pair in find_dataset("lol_v1", root, "train")] == ["2", "10"]
    assert find_prepared(tmp_path / "x", "lol_v1") is None
    refused(lambda: find_dataset("lol_v1", data, "other"), "no split 'other'", "train, validation, test")
    refused(lambda: find_dataset("lol_v2_real", data, "train"), "prepared set lol_v2_real", "found lol_v1")
    (data / "lol_v1" / "1.0.0" / "metadata.json").write_text("{")
    refused(lambda: find_dataset("lol_v1", data, "train"), "metadata.json: damaged")


def test_nothing_but_the_builders_imports_tfds(tmp_path):
    build(tmp_path / "x", LAYOUTS["lol_v2_real"])
    data = prepare("lol_v2_real", tmp_path / "data", tmp_path / "x")
    script = f"""if True:
        import json, sys
        import sel.data
        pairs = sel.data.find_dataset("lol_v2_real", {str(data)!r}, "train")
        before = "tensorflow_datasets" in sys.modules
        sel.data.load_pairs(pairs)
        print(json.dumps([before, "tensorflow_datasets" in sys.modules, "tensorflow" in sys.modules]))
    """
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, True, False]
    assert LolV2Real.name == "lol_v2_real"
