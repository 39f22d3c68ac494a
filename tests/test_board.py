"""What a run shows on its way: curves and pictures for TensorBoard, a trace of its steps."""

import gzip
import io
import json
import struct

import numpy as np
import pytest
from PIL import Image
from programs import TINY, assert_one_line
from tensorboardX import record_writer
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tiny_runs import PAIRS, StopError, configured

from experiments.run.board import Board
from experiments.run.profiling import Profile
from sel.training import Hooks, train


def events_of(path):
    """The events of a file, by the layout of TFRecord: length, its checksum, the bytes, their checksum."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        header, body = data[at : at + 8], data[at + 12 : at + 12 + struct.unpack("<Q", data[at : at + 8])[0]]
        checksums = data[at + 8 : at + 12], data[at + 12 + len(body) : at + 16 + len(body)]
        assert [struct.pack("<I", record_writer.masked_crc32c(x)) for x in (header, body)] == list(checksums)
        yield Event.FromString(body)
        at += 16 + len(body)


def board_of(folder):
    """What TensorBoard shows: `{tag: {step: value}}`, without what a later start says that it does again."""
    shown = {}
    for path in sorted(folder.iterdir()):
        for event in events_of(path):
            if event.session_log.status == SessionLog.START:
                shown = {tag: {s: v for s, v in values.items() if s < event.step} for tag, values in shown.items()}
            for value in event.summary.value:
                content = value.image.encoded_image_string or value.simple_value
                assert event.step not in shown.setdefault(value.tag, {}), (value.tag, event.step)
                shown[value.tag][event.step] = content
    return shown


def lines_of(workdir):
    """The same of metrics.jsonl."""
    expected = {}
    for text in (workdir / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        for name, value in line.items():
            tag = name.replace("_", "/", 1) if name.startswith("validation_") else f"train/{name}"
            if name != "step":
                expected.setdefault(tag, {})[line["step"]] = pytest.approx(value, rel=1e-6)  # float32
    return expected


@pytest.fixture(scope="module")
def watched(shell, tmp_path_factory):
    """A run with validation on the way, and a trace."""
    workdir = tmp_path_factory.mktemp("runs") / "watched"
    rare = ["--config.validate_every=16", "--config.checkpoint.every=18"]  # not in the step of which there is a trace
    return workdir, shell("train", *TINY, *rare, f"--workdir={workdir}", "--profile")


def test_the_board_has_the_numbers_of_every_line(watched):
    workdir, result = watched
    assert (result.code, result.err) == (0, "")
    shown = board_of(workdir / "tensorboard")
    pictures = shown.pop("validation/dark_enhanced_target")
    expected = lines_of(workdir)
    assert shown == expected
    names = ("loss", "gradient_norm", "update_norm", "learning_rate", "images_per_second", "skipped")
    assert {f"train/{name}" for name in names} | {"validation/psnr", "validation/ssim"} <= set(shown)
    assert list(pictures) == [16, 32, 36]


def test_pictures_show_dark_enhanced_and_target(watched):
    workdir, _ = watched
    pictures = board_of(workdir / "tensorboard")["validation/dark_enhanced_target"]
    with Image.open(workdir / "comparison.png") as last, Image.open(io.BytesIO(pictures[36])) as shown:
        bottom = np.asarray(last.convert("RGB"))
        # Both images are narrower than a column of either picture: the same pixels, below one line of headings.
        np.testing.assert_array_equal(np.asarray(shown)[-bottom.shape[0] :], bottom)
    assert len(set(pictures.values())) == 3


def test_a_trace_holds_its_step_and_no_other(watched):
    workdir, result = watched
    assert f"writing a trace of step 3 to {workdir}/profile/plugins/profile" in result.out.replace("\n", " ")
    (folder,) = (workdir / "profile" / "plugins" / "profile").iterdir()
    assert {"perfetto_trace.json.gz"} < {path.name for path in folder.iterdir()}
    assert [path.stat().st_size > 1000 for path in folder.glob("*.xplane.pb")] == [True]
    events = json.loads(gzip.decompress((folder / "perfetto_trace.json.gz").read_bytes()))["traceEvents"]
    steps = [event["args"]["step_num"] for event in events if event.get("name") == "train"]
    assert steps == ["3"]
    assert not any("compile" in event.get("name", "").lower() for event in events)


def test_a_run_too_short_for_a_trace_says_so(tmp_path, capsys):
    waited = []
    with Profile(tmp_path / "profile", enabled=True) as profile:
        for step in (8, 9):
            profile(step, lambda: waited.append(True))
    assert "no trace was written" in capsys.readouterr().out
    assert (list(tmp_path.iterdir()), waited) == ([], [])


@pytest.mark.usefixtures("compile_little")
def test_a_run_that_goes_on_after_a_crash_has_one_curve(tmp_path):
    """It crashes after step 5, of which the board has a line; the last checkpoint is that of step 4."""

    def go(crash_after):
        def report(step, metrics):
            board.begin(step)
            if step == crash_after:
                raise StopError

        with Board(tmp_path / "tensorboard") as board:
            train(configured(log_every=1), tmp_path, PAIRS, hooks=Hooks(on_step_end=report, on_log=board.log))

    with pytest.raises(StopError):
        go(crash_after=5)
    assert list(board_of(tmp_path / "tensorboard")["train/loss"]) == [1, 2, 3, 4, 5]
    go(crash_after=None)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    shown = board_of(tmp_path / "tensorboard")
    assert shown == lines_of(tmp_path)
    assert list(shown["train/loss"]) == [1, 2, 3, 4, 5, 6]


def test_nothing_to_tell_leaves_no_file(tmp_path):
    with Board(tmp_path / "tensorboard") as board:
        board.image(1, "picture", np.zeros((4, 4, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_values_that_are_no_numbers_are_left_out(tmp_path):
    with Board(tmp_path) as board:
        board.log({"step": 3, "loss": None, "skipped": 3, "note": "x"})
    assert board_of(tmp_path) == {"train/skipped": {3: 3.0}}


def test_a_full_disk_is_heard_of(tmp_path, monkeypatch):
    board = Board(tmp_path)
    board.begin(1)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record_writer.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        board.log({"step": 1, "loss": 0.5})


def test_a_folder_that_cannot_be_made_is_one_line(shell, tmp_path):
    (tmp_path / "tensorboard").write_text("in the way")
    assert_one_line(shell("train", *TINY, f"--workdir={tmp_path}"), tmp_path / "tensorboard")
    assert (tmp_path / "tensorboard").read_text() == "in the way"
    profile = Profile(tmp_path / "tensorboard", enabled=True)
    for step in (1, 2):
        profile(step, lambda: None)
    with pytest.raises(FileExistsError) as caught:
        profile(3, lambda: None)
    assert caught.value.filename == str(tmp_path / "tensorboard")
