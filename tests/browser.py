"""A browser without a window, driven by chromedriver over HTTP (W3C WebDriver): no library between."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

# The key of an element's reference in the protocol.
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def missing_browser():
    """What is not installed, or None."""
    names = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"not installed: {', '.join(names)} (Debian: chromium, chromium-driver)" if names else None


class Browser:
    """Chromium, as a context manager."""

    def __init__(self, folder, size=(1280, 900)):
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._url = f"http://127.0.0.1:{free.getsockname()[1]}"
        port = self._url.rpartition(":")[2]
        self._driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL)
        self._wait_for_driver()
        # A container has no user namespaces and little shared memory.
        arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        arguments += [f"--window-size={size[0]},{size[1]}", f"--user-data-dir={folder / 'profile'}"]
        options = {"args": arguments, "prefs": {"download.default_directory": str(self.downloads)}}
        capabilities = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
        session = self._call("POST", "/session", {"capabilities": capabilities})
        self._session = f"/session/{session['sessionId']}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._call("DELETE", self._session)
        finally:
            self._driver.terminate()
            self._driver.wait(30)

    def _wait_for_driver(self):
        for _ in range(300):
            try:
                return self._call("GET", "/status")
            except OSError:
                time.sleep(0.1)
        raise TimeoutError("chromedriver does not answer")

    def _call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"].splitlines()[0]) from None

    def open(self, url):
        self._call("POST", f"{self._session}/url", {"url": url})

    def find(self, selector):
        found = self._call("POST", f"{self._session}/element", {"using": "css selector", "value": selector})
        return f"{self._session}/element/{found[ELEMENT]}"

    def click(self, selector):
        self._call("POST", f"{self.find(selector)}/click", {})

    def type(self, selector, text):
        """Write into a field; the names of files into one for files."""
        self._call("POST", f"{self.find(selector)}/value", {"text": str(text)})

    def run(self, script, *arguments):
        """The value of a script's `return`."""
        return self._call("POST", f"{self._session}/execute/sync", {"script": script, "args": list(arguments)})

    def wait_for(self, condition, seconds=120):
        """The value of a JavaScript expression, as soon as it is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = self.run(f"return {condition}")
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError(f"after {seconds} s not true: {condition}; the page says: {self.run(PAGE)!r}")

    def resize(self, width, height):
        self._call("POST", f"{self._session}/window/rect", {"width": width, "height": height})

    def screenshot(self, path):
        Path(path).write_bytes(base64.b64decode(self._call("GET", f"{self._session}/screenshot")))


PAGE = "return document.body.innerText"
