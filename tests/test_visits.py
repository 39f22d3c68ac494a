"""What the page does for its visitors, without a page."""

import os

import numpy as np
import pytest
from PIL import Image
from programs import photograph

from sel.cli.visits import Model, Visits, accept, enhance
from sel.errors import UserError
from sel.images.decoding import read_photograph
from sel.restorer import Restorer

pytestmark = pytest.mark.usefixtures("compile_little")


@pytest.fixture
def visits(tmp_path):
    (tmp_path / "root").mkdir()
    return Visits(tmp_path / "root")


def test_names_of_visitors_lead_nowhere_else(visits, tmp_path):
    folders = {visits.folder(name) for name in ("a", "b", "../../elsewhere", "/etc", "", "a\0b")}
    assert len(folders) == 6
    assert {folder.parent for folder in folders} == {tmp_path / "root"}
    assert visits.folder("a") in folders


def test_a_visit_leaves_nothing_and_touches_no_other(visits, tmp_path):
    accept(photograph(tmp_path / "a.png"), visits.folder("a"), 1e6)
    accept(photograph(tmp_path / "b.png"), visits.folder("b"), 1e6)
    visits.end("a")
    assert {path.name for path in (tmp_path / "root").rglob("*.*")} == {"b.png", "before.webp"}
    visits.end("b")
    assert not any((tmp_path / "root").iterdir())
    assert not any(tmp_path.glob("*.png"))


def test_what_nobody_came_back_for_is_swept(visits, tmp_path, monkeypatch):
    accept(photograph(tmp_path / "a.png"), visits.folder("a"), 1e6)
    visits.sweep(age=60.0)
    assert (visits.folder("a") / "photograph" / "a.png").exists()
    later = os.stat(visits.folder("a")).st_ctime + 120
    monkeypatch.setattr("time.time", lambda: later)
    visits.sweep(age=60.0)
    assert not any((tmp_path / "root").iterdir())


@pytest.mark.parametrize(
    ("name", "make", "parts"),
    [
        ("large.png", lambda path: photograph(path, size=(30, 40)), ["40 x 30", "0.0012", "0.001"]),
        ("text.png", lambda path: path.write_text("no picture"), ["not an image"]),
        ("empty.jpg", lambda path: path.write_bytes(b""), ["empty"]),
    ],
)
def test_what_can_not_be_enhanced_is_refused_in_one_line_and_removed(visits, tmp_path, name, make, parts):
    make(tmp_path / name)
    with pytest.raises(UserError) as refusal:
        accept(tmp_path / name, visits.folder("a"), 1e3)
    message = str(refusal.value)
    assert message.startswith(f"{name}: ")
    assert str(tmp_path) not in message
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_the_download_has_depth_and_opacity_of_the_photograph(visits, trained, tmp_path):
    model = Model(str(trained[0]))
    pixels = np.random.default_rng(0).integers(0, 2**16, (12, 9, 4), dtype=np.uint16)
    import imagecodecs

    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(pixels))
    source, preview = accept(tmp_path / "deep.png", visits.folder("a"), 1e6)
    assert Image.open(preview).size == (9, 12)
    told = []
    shown = enhance(model.restorer("ddim", 2, seed=5), source, lambda done, total: told.append((done, total)))
    assert shown.download.name == "deep_bright.png"
    result = read_photograph(shown.download)
    restorer = Restorer.from_checkpoint(str(trained[0]), seed=5, method="ddim", num_steps=2)
    expected = restorer.enhance(pixels[..., :3].astype(np.float32) / 65535)
    # One level of 16 bits where the two programs round apart.
    np.testing.assert_allclose(result.color.astype(float), expected * 65535, atol=1.1)
    np.testing.assert_array_equal(result.alpha, pixels[..., 3:])
    assert told[-1] == (2, 2)

    again = enhance(model.restorer("ddim", 2, seed=6), source, lambda done, total: None)
    assert again.after != shown.after
    assert not shown.download.exists()


def test_work_for_a_visitor_who_left_stops(visits, trained, tmp_path):
    source, _ = accept(photograph(tmp_path / "a.png"), visits.folder("a"), 1e6)
    model = Model(str(trained[0]))
    restorer = model.restorer(model.method, model.steps(model.method), seed=0)
    with pytest.raises(UserError, match="choose it again"):
        enhance(restorer, source, lambda done, total: visits.end("a") if done else None)
    assert not any((tmp_path / "root").iterdir())
    with pytest.raises(UserError, match="choose it again"):
        enhance(restorer, source, lambda done, total: None)
