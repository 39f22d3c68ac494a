"""The page, as people use it: in a browser, if there is one."""

import importlib.util
import json
import re
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, missing_browser
from PIL import Image
from programs import assert_one_line, photograph

from sel.restorer import Restorer

WITH_GRADIO = importlib.util.find_spec("gradio") is not None
needs_gradio = pytest.mark.skipif(not WITH_GRADIO, reason="not installed: gradio (pip install -e '.[app]')")
needs_browser = pytest.mark.skipif(missing_browser() is not None, reason=str(missing_browser()))

# Mean intensities of the pictures that a selector finds, 0 to 255.
MEANS = """
return [...document.querySelectorAll(arguments[0])].map(image => {
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  return pixels.reduce((sum, value) => sum + value, 0) / pixels.length;
})"""
FOREIGN = "performance.getEntriesByType('resource').map(x => x.name).filter(x => !x.startsWith(location.origin))"


@pytest.fixture(scope="module")
def server(shell, trained):
    """The running program and its address."""
    process = shell.start("app", f"--checkpoint={trained[0]}", "--max_megapixels=0.01", "--keep_minutes=5")
    line = process.stdout.readline()
    address = re.match(r"(http://127\.0\.0\.1:\d+)/", line)
    if address is None:
        process.kill()
        raise AssertionError(line + process.communicate()[1])
    yield process, address[1]
    process.terminate()
    process.communicate(timeout=60)


@pytest.mark.skipif(WITH_GRADIO, reason="this is for where it is not")
def test_without_gradio_one_line_says_what_to_install(shell, trained):
    assert_one_line(shell("app", f"--checkpoint={trained[0]}"), "gradio is not installed", "[app]'")


def test_a_checkpoint_is_asked_for(shell):
    assert_one_line(shell("app", "--checkpoint=nowhere"), "nowhere")


@needs_gradio
@needs_browser
def test_a_photograph_is_brightened_in_a_browser(server, trained, tmp_path):
    path = photograph(tmp_path / "at night.png", size=(20, 24))
    with Browser(tmp_path) as browser:
        browser.open(server[1])
        browser.wait_for("document.querySelector('#field input[type=file]')")
        browser.type("#field input[type=file]", path)
        browser.wait_for("document.querySelector('#before img')?.naturalWidth")
        browser.wait_for("!document.querySelector('#enhance').disabled")
        browser.click("#enhance")
        browser.wait_for("[...document.querySelectorAll('#slider img')].filter(x => x.naturalWidth).length == 2")
        before, after = browser.run(MEANS, "#slider img")
        assert abs(before - after) > 2

        browser.click("#download")
        downloaded = browser.downloads / "at night_bright.png"
        wait_until(downloaded.exists)
        pixels = np.asarray(Image.open(path))
        expected = Restorer.from_checkpoint(str(trained[0]), seed=0)(pixels)
        # One level where the two programs round apart.
        np.testing.assert_allclose(np.asarray(Image.open(downloaded)).astype(int), expected, atol=1)
        assert browser.run(f"return {FOREIGN}") == []

        browser.type("#field input[type=file]", photograph(tmp_path / "large.png", size=(101, 100)))
        browser.wait_for("document.querySelector('#status [role=alert]')?.innerText.includes('large.png: 100 x 101')")
        browser.type("#field input[type=file]", path)
        source = browser.wait_for("document.querySelector('#before img')?.src")
        visit = Path(source.partition("file=")[2]).parent
        assert (visit / "photograph" / path.name).exists()
        browser.open("about:blank")
        wait_until(lambda: not visit.exists())


@needs_gradio
@pytest.mark.parametrize("path", ["/etc/hostname", "README.md", "../etc/hostname", "/proc/self/environ", "CHECKPOINT"])
@pytest.mark.parametrize("route", ["/gradio_api/file=", "/file=", "/gradio_api/file/", "/static/", "/assets/"])
def test_other_files_are_refused(server, trained, route, path):
    path = path.replace("CHECKPOINT", str(trained[0] / "metrics.jsonl"))
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(server[1] + route + urllib.request.quote(path))
    assert refusal.value.code in (403, 404)


@needs_gradio
def test_a_file_of_the_server_is_no_upload(server, trained):
    _, url = server
    config = json.load(urllib.request.urlopen(f"{url}/config"))
    (number,) = [x["id"] for x in config["dependencies"] if any(target[1] == "upload" for target in x["targets"])]
    stolen = {"path": str(trained[0] / "comparison.png"), "meta": {"_type": "gradio.FileData"}}
    job = {"data": [stolen], "fn_index": number, "session_hash": "thief"}
    request = urllib.request.Request(
        f"{url}/gradio_api/queue/join", json.dumps(job).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request).close()
    events = []
    with urllib.request.urlopen(f"{url}/gradio_api/queue/data?session_hash=thief", timeout=60) as stream:
        for line in stream:
            if line.startswith(b"data: "):
                events.append(json.loads(line[6:]))
                if events[-1]["msg"] in ("process_completed", "close_stream"):
                    break
    assert events[-1]["msg"] == "process_completed"
    assert not events[-1]["success"]
    assert Path(stolen["path"]).exists()


@needs_gradio
def test_nothing_is_left_at_the_end(server, tmp_path):
    process, url = server
    boundary = b"--x\r\nContent-Disposition: form-data; name=files; filename=a.png\r\n\r\nabc\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    request = urllib.request.Request(f"{url}/gradio_api/upload", boundary, headers)
    (uploaded,) = json.load(urllib.request.urlopen(request))
    (folder,) = [parent for parent in Path(uploaded).parents if parent.name.startswith("sel-app-")]
    assert Path(uploaded).read_bytes() == b"abc"
    assert folder.stat().st_mode & 0o077 == 0
    process.terminate()
    assert process.wait(timeout=60) == 0
    assert not folder.exists()


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
