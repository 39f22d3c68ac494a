"""Damage and trouble told apart: a changed bit is noticed wherever it is, and a failing disk is no damage."""

import errno
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from tiny_runs import PAIRS, assert_same, configured, contents, run

from sel.digests import SUMS, check_digests, write_digests
from sel.errors import DamagedError, UserError
from sel.training import Hooks, find_checkpoint, read_config, read_params, train
from sel.training.checkpoint import check

pytestmark = pytest.mark.usefixtures("compile_little")


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "run")


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_every_flipped_bit_is_noticed(copied):
    checkpoint, draw = copied / "checkpoints/6", random.Random(0)
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.stat().st_size]
    assert checkpoint / SUMS in files
    # Each file once, and further ones where most bits are.
    for path in [*files, *draw.choices(files, [path.stat().st_size for path in files], k=24)]:
        before = path.read_bytes()
        flip(path, draw.randrange(8 * len(before)))
        with pytest.raises(DamagedError, match="checkpoints/6"):
            read_params(checkpoint)
        path.write_bytes(before)
    assert read_params(checkpoint)


def test_a_changed_configuration_is_noticed_where_it_is_read(copied):
    path = copied / "checkpoints/6/_CHECKPOINT_METADATA"
    path.write_bytes(path.read_bytes().replace(b'"decay": 0.9', b'"decay": 0.8'))
    with pytest.raises(DamagedError, match="checkpoints/6"):
        read_config(path.parent)


@pytest.mark.parametrize("place", ["_CHECKPOINT_METADATA", "state/d"])
def test_training_goes_back_from_a_flipped_bit(whole, copied, place):
    path = copied / "checkpoints/6" / place
    path = next(path.iterdir()) if path.is_dir() else path
    flip(path, 4 * path.stat().st_size)
    told = []
    assert_same(train(configured(), copied, PAIRS, hooks=Hooks(on_message=told.append)), whole[1])
    assert told == ["the checkpoint of step 6 is damaged and now called 6.damaged; going on from 4"]


@pytest.mark.parametrize(("number", "words"), [(errno.EIO, "Input/output error"), (errno.EACCES, "Permission denied")])
@pytest.mark.parametrize("place", ["state/d", "_CHECKPOINT_METADATA"])
def test_a_failing_disk_is_no_damage(copied, monkeypatch, number, words, place):
    opened, before = Path.open, contents(copied)

    def failing(self, *arguments, **options):
        if f"checkpoints/6/{place}" in str(self):
            raise OSError(number, words, str(self))
        return opened(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing)
        for read in (lambda: run(copied), lambda: read_params(find_checkpoint(copied))):
            with pytest.raises(UserError, match=f"can't be read, and is left as it is: .*{words}") as caught:
                read()
            assert not isinstance(caught.value, DamagedError)
            assert "delete" not in str(caught.value)
    assert contents(copied) == before


@pytest.mark.parametrize(
    ("listed", "error", "damage"),
    [
        (True, ValueError("whatever the reader stumbles upon"), False),
        (False, ValueError("Error reading 'd/1': [OS error 5: EIO Input/output error]"), False),
        (False, RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), False),
        (False, OSError(errno.EIO, "Input/output error"), False),
        (False, ValueError("NOT_FOUND: Error opening 'd/1' [OS error 2: ENOENT No such file or directory]"), True),
        (False, KeyError("a type that is no type"), True),
    ],
)
def test_what_the_reader_says_is_damage_only_if_it_is(copied, monkeypatch, listed, error, damage):
    """Checkpoints of earlier versions have no digests, which would tell."""
    if not listed:
        (copied / "checkpoints/6" / SUMS).unlink()
        assert read_params(copied / "checkpoints/6")

    def failing(*_):
        raise error

    monkeypatch.setattr("sel.training.checkpoint.ocp.load", failing)
    with pytest.raises(UserError) as caught:
        read_params(copied / "checkpoints/6")
    assert isinstance(caught.value, DamagedError) == damage
    assert ("delete" in str(caught.value)) == damage


def test_a_folder_that_cannot_be_read_is_not_taken_for_empty(copied, monkeypatch):
    def failing(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("sel.training.checkpoint.os.listdir", failing)
    with pytest.raises(PermissionError):
        run(copied)


def test_digests_are_those_of_sha256sum(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a", "deep/b"):
        (tmp_path / name).write_text(name)
    assert not check_digests(tmp_path)
    write_digests(tmp_path)
    subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / ".nfs0001").write_text("of a network disk")
    assert check_digests(tmp_path)
    assert check_digests(tmp_path, ["a"])
    (tmp_path / "deep/b").unlink()
    assert check_digests(tmp_path, ["a"])
    with pytest.raises(DamagedError, match="deep/b"):
        check_digests(tmp_path)


def test_checkpoints_are_complete_with_their_digests(whole):
    for step in (4, 6):
        assert check(whole[0] / "checkpoints" / str(step))
    assert sorted(path.name for path in (whole[0] / "checkpoints").iterdir()) == ["4", "6"]
