"""The program for photographs: what it keeps, what it refuses, how it goes on."""

import os

import numpy as np
import pytest
from PIL import Image
from programs import assert_one_line, photograph, snapshot

from sel.cli.jobs import passed_over_line, plan
from sel.cli.waiting import shown
from sel.errors import UserError
from sel.images.decoding import read_photograph
from sel.images.metadata import Metadata
from sel.images.photographs import Photograph
from sel.images.writing import write_photograph
from sel.restorer import turned, turned_back


def test_repeats_itself_and_overwrites_only_when_told(shell, trained, tmp_path):
    photo, output = photograph(tmp_path / "grey.png", mode="L"), tmp_path / "bright.png"
    arguments = [f"--checkpoint={trained[0] / 'checkpoints' / '36'}", f"--input={photo}", f"--output={output}"]
    assert shell("enhance", *arguments).code == 0
    first = output.read_bytes()
    assert_one_line(shell("enhance", *arguments, "--seed=1"), output, "exists already")
    assert output.read_bytes() == first
    results = {}
    for change in ([], ["--seed=1"], ["--steps=1"], ["--method=ddim"], ["--self_ensemble"], ["--device=cpu"]):
        done = shell("enhance", *arguments, "--overwrite", *change)
        assert (done.code, done.err) == (0, "")
        results[tuple(change)] = output.read_bytes()
    assert results[()] == results[("--device=cpu",)] == first
    assert len(set(results.values())) == 5
    assert Image.open(output).mode == "L"
    assert_one_line(shell("enhance", *arguments, "--overwrite", "--steps=3"), "3 steps", "1 to 2")
    assert_one_line(
        shell("enhance", *arguments, "--overwrite", "--tile=100"), "tile must be a multiple of 64", "found 100"
    )
    small = shell("enhance", *arguments, "--overwrite", "--max_megapixels=0.0001")
    assert_one_line(small, photo, "too large", "--max_megapixels raises it")


def test_a_folder_keeps_its_structure_and_goes_on_after_bad_files(shell, trained, tmp_path):
    source, output = tmp_path / "in", tmp_path / "in" / "out"
    photograph(source / "b[red].JPG")
    photograph(source / "deep" / "er" / "a.bmp")
    photograph(source / os.fsdecode(b"\xff.png"))
    (source / "notes.txt").write_text("no photograph")
    (source / "deep" / "loop").symlink_to(source)
    arguments = [f"--checkpoint={trained[0]}", f"--input={source}", f"--output={output}"]
    result = shell("enhance", *arguments)
    assert "passed over 1 file, no images by name: notes.txt\n" in result.out
    assert_one_line(result, "1 of 4 photographs failed", "deep/loop", "a link to a folder that holds it")
    (source / "deep" / "loop").unlink()
    written = {os.fsencode(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert written == {b"b[red].JPG", b"deep/er/a.png", b"\xff.png"}
    assert f"{source / 'b[red].JPG'} -> {output / 'b[red].JPG'}\n" in result.out
    with Image.open(output / "b[red].JPG") as picture:
        assert (picture.format, picture.size) == ("JPEG", (24, 20))
    before = snapshot(output)
    (source / "c.png").write_bytes((source / "b[red].JPG").read_bytes()[:300])
    (source / "e.jpg").write_bytes(b"")
    os.mkfifo(source / "f.png")
    photograph(source / "g.png")
    result = shell("enhance", *arguments, "--resume")
    assert_one_line(result, "3 of 4 photographs failed", source / "c.png", "e.jpg", "(0 bytes)", "f.png")
    assert f"left out: {source / 'c.png'}" in result.out
    after = snapshot(output)
    assert {path.name for path in after.keys() - before.keys()} == {"g.png"}
    assert before.items() <= after.items()


def test_what_a_photograph_is_stays(shell, trained, tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (20, 24, 4), dtype=np.uint16)
    write_photograph(tmp_path / "deep.tif", Photograph(deep[..., :3], deep[..., 3:], Metadata(dpi=(300.0, 300.0))))
    exif = Image.Exif()
    exif[0x0110], exif[0x0112] = "Camera", 6
    Image.fromarray((deep[..., :3] >> 8).astype(np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    result = shell("enhance", f"--checkpoint={trained[0]}", f"--input={tmp_path}/*.*", f"--output={tmp_path / 'out'}")
    assert (result.code, result.err) == (0, "")
    enhanced = read_photograph(tmp_path / "out" / "deep.tif")
    np.testing.assert_array_equal(enhanced.alpha, deep[..., 3:])
    assert enhanced.color.dtype == np.uint16
    assert len(np.unique(enhanced.color % 257)) > 100  # not 8 bits in 16
    assert enhanced.metadata.dpi == (300, 300)
    with Image.open(tmp_path / "out" / "turned.jpg") as picture:
        assert (picture.size, picture.getexif().get(0x0110)) == ((20, 24), "Camera")
        assert picture.getexif().get(0x0112, 1) == 1
    jpeg = ["--overwrite", f"--input={tmp_path / 'deep.tif'}", f"--output={tmp_path / 'out' / 'turned.jpg'}"]
    assert_one_line(shell("enhance", f"--checkpoint={trained[0]}", *jpeg), "turned.jpg", "no transparency")


def test_plan_of_patterns_and_of_an_output_inside_the_input(tmp_path):
    for name in ("a/x.jpg", "a/b/y.jpg", "a/b/z.png", "a/b/out/y.jpg"):
        photograph(tmp_path / name)
    output = tmp_path / "a" / "b" / "out"
    found = plan(f"{tmp_path}/a/**/*.jpg", output, overwrite=True)
    assert found.problems == found.passed_over == []
    assert [(str(j.source.relative_to(tmp_path)), str(j.target.relative_to(output))) for j in found.jobs] == [
        ("a/b/y.jpg", "b/y.jpg"),
        ("a/x.jpg", "x.jpg"),
    ]
    with pytest.raises(UserError, match=r"out/y\.jpg exists already"):
        plan(str(tmp_path / "a" / "b"), output, overwrite=False)
    found = plan(str(tmp_path / "a" / "b"), output, overwrite=False, resume=True)
    assert [job.target.name for job in found.jobs] == ["z.png"]
    with pytest.raises(UserError, match="a photograph to be enhanced"):
        plan(str(tmp_path / "a"), tmp_path / "a", overwrite=True)


def test_what_is_passed_over_is_named_and_no_two_photographs_become_one_file(tmp_path):
    for name in ("a.gif", "a.bmp", "b.gif", "c.bmp", "c.png", "d.jpg", "deep/a.gif"):
        photograph(tmp_path / "in" / name)
    for name in ("e.dng", "no_end", "g.txt", "deep/h.MOV", "i.psd", "j.svg", ".hidden"):
        (tmp_path / "in" / name).touch()
    found = plan(str(tmp_path / "in"), tmp_path / "out", overwrite=False)
    targets = {str(job.target.relative_to(tmp_path / "out")) for job in found.jobs}
    assert targets == {"a.gif.png", "a.bmp.png", "b.png", "c.bmp.png", "c.png", "d.jpg", "deep/a.png"}
    line = passed_over_line(found.passed_over)
    assert line == "passed over 6 files, no images by name: h.MOV, e.dng, g.txt, i.psd, j.svg and 1 more"
    assert passed_over_line([]) == ""
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "x.dng").touch()
    with pytest.raises(UserError, match=r"holds no image; passed over 1 file, no images by name: x\.dng"):
        plan(str(tmp_path / "only"), tmp_path / "out", overwrite=False)


@pytest.mark.parametrize("turn", range(8))
def test_turns_are_undone(turn):
    image = np.random.default_rng(0).random((4, 5, 3))
    np.testing.assert_array_equal(turned_back(turned(image, turn), turn), image)
    others = [turned(image, other) for other in range(8) if other != turn]
    assert not any(np.array_equal(turned(image, turn), other) for other in others)


def test_names_are_shown_whatever_they_hold():
    assert shown("a\nb" + os.fsdecode(b"\xff")) == "a b\N{REPLACEMENT CHARACTER}"
