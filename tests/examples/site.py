"""The pages of examples/web on a server, with assets from another folder. No tests are in this file."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.examples import browser

EXAMPLE = Path(__file__).parents[2] / "examples" / "web"


class Files(SimpleHTTPRequestHandler):
    """The example's folder, but with assets from another one."""

    def __init__(self, *arguments: Any, assets: Path, **options: Any):
        self._assets = assets
        super().__init__(*arguments, directory=str(EXAMPLE), **options)

    def translate_path(self, path: str) -> str:
        found = Path(super().translate_path(path))
        inside = found.relative_to(EXAMPLE)
        return str(self._assets.joinpath(*inside.parts[1:]) if inside.parts[:1] == ("assets",) else found)

    def log_message(self, *arguments: Any) -> None:
        """Not to the terminal."""


@contextlib.contextmanager
def served(assets: Path) -> Iterator[str]:
    """The address of the pages, until the end of the ``with`` block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, assets=assets))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def skip_unless_it_can_run() -> None:
    """A browser and the page's packages are needed."""
    if browser.program() is None:
        pytest.skip(f"needs a browser: {' or '.join(browser.NAMES)}")
    if not (EXAMPLE / "node_modules" / "onnxruntime-web").is_dir():
        pytest.skip("needs onnxruntime-web: npm ci in examples/web")
