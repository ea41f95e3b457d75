"""Fixtures of the tests of `continual export` and `continual run`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import continual as co
from tests.cli import exports, streamed


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The current folder has a file of networks."""
    (tmp_path / "export_nets.py").write_text(exports.NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.delenv("CONTINUAL_TRACEBACK", raising=False)
    yield
    sys.modules.pop("export_nets", None)


@pytest.fixture
def made(networks: None) -> Path:
    """A network, exported."""
    content, path = exports.made(), Path("made.onnx")
    path.write_bytes(content)
    return path


@pytest.fixture
def unwritten(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is exported is the file that has been made, whatever the network; it is a copy of it that is checked."""
    monkeypatch.setattr(co, "export", lambda net, step, path, **options: shutil.copy(made, path))


@pytest.fixture
def nets_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The current folder has the networks that are run on signals."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CONTINUAL_TRACEBACK", raising=False)
    Path("nets.py").write_text(streamed.NETS)
    yield
    for name in [n for n in sys.modules if n == "nets" or n.startswith("_target_nets")]:
        del sys.modules[name]
