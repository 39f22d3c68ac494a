"""A page that brightens photographs in a browser.

    sel app --checkpoint=runs/quickstart

It needs `pip install -e '.[app]'`, serves this machine alone unless --host says otherwise, and runs until it is
interrupted. Photographs and results lie in a temporary folder and are removed when their visitor leaves, after
--keep_minutes, and at the end.
"""

import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import jax
from absl import flags

from sel.cli.arguments import define_path
from sel.cli.console import console, require, run
from sel.cli.visits import Model, Visits
from sel.errors import UserError
from sel.extras import needs

_CHECKPOINT = define_path("checkpoint", "", "Folder of a training run, or one of its checkpoints.")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to serve; 0.0.0.0 is everybody who reaches this machine.")
_PORT = flags.DEFINE_integer("port", None, "Port to serve; by default the first free one from 7860.", 1, 65535)
_MAX_MEGAPIXELS = flags.DEFINE_float(
    "max_megapixels", None, "Largest photograph; by default 4 on a CPU and 24 on a GPU or TPU.", lower_bound=0.01
)
_MAX_WAITING = flags.DEFINE_integer("max_waiting", 8, "Most visitors who wait for one another.", lower_bound=1)
_KEEP_MINUTES = flags.DEFINE_float("keep_minutes", 60, "How long files of a forgotten page are kept.", lower_bound=0.01)


def main() -> None:
    """Serve until interrupted."""
    model = Model(_CHECKPOINT.value)
    max_pixels = (_MAX_MEGAPIXELS.value or (4 if jax.default_backend() == "cpu" else 24)) * 1e6
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="sel-app-", ignore_cleanup_errors=True) as folder:
        # Read when Gradio is imported, or when its page is made: nothing of it lies elsewhere, and nothing is reported.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_EXAMPLES_CACHE": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        visits = Visits(Path(folder))
        server = serve(model, visits, max_pixels)
        try:
            sweep_forever(visits)
        except KeyboardInterrupt:
            console.print("closed")
        finally:
            server.close(verbose=False)


def serve(model: Model, visits: Visits, max_pixels: float) -> Any:
    """Start the server, and say where it is."""
    with needs("app"):
        from sel.cli.page import CSS, THEME, build_page
    name = Path(_CHECKPOINT.value).resolve().name
    page = build_page(model, visits, name=name, max_pixels=max_pixels, max_waiting=_MAX_WAITING.value)
    try:
        _, url, _ = page.launch(
            server_name=_HOST.value,
            server_port=_PORT.value,
            theme=THEME,
            css=CSS,
            # 16 bits of four channels, uncompressed.
            max_file_size=int(max_pixels * 8) + 2**20,
            allowed_paths=[],
            footer_links=[],
            run_history=False,
            share=False,
            ssr_mode=False,
            mcp_server=False,
            prevent_thread_lock=True,
            quiet=True,
        )
    except OSError as error:
        raise UserError(f"--host={_HOST.value}, --port={_PORT.value}: {error}") from None
    console.print(f"{url}  (end with Ctrl+C)")
    sys.stdout.flush()
    return page


def sweep_forever(visits: Visits) -> None:
    """Remove what nobody has come back for, now and then."""
    age = _KEEP_MINUTES.value * 60
    while not threading.Event().wait(min(60, age)):
        visits.sweep(age)


def start() -> None:
    """Parse the command line and run."""
    require("checkpoint")
    run(main)
