"""Exported files for tests, made once a process, and a runner without a file. No tests are in this file."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

import continual as co
from continual.export.flat_call import FlatCall
from continual.export.int8 import ModuleStreams
from continual.export.runner import Runner
from tests.export.networks import FORMATS, NETWORKS

FOLDER = Path(tempfile.mkdtemp(prefix="continual-tests-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
PACKAGES = {"onnx": ("onnxscript", "onnxruntime"), "pt2": (), "executorch": ("executorch",), "openvino": ("openvino",)}


def needs(format: str) -> None:
    """Skip where a format's runtime is not installed."""
    for name in PACKAGES[format]:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    if format == "pt2" and not any(shutil.which(c) for c in ("g++", "clang++", "c++")):
        pytest.skip("there is no C++ compiler")


@functools.lru_cache(maxsize=8)
def network(name: str) -> Any:
    """A network of the table."""
    return NETWORKS[name].net()


@functools.lru_cache(maxsize=64)
def file(name: str, format: str = "onnx", batch: int | None = None, flush: bool = True) -> Path:
    """A network of the table, exported."""
    needs(format)
    path = FOLDER / f"{name.replace(' ', '-')}-{batch}-{flush}{FORMATS[format]}"
    return co.export(network(name), NETWORKS[name].step(batch or 1), path, format=format, batch=batch, flush=flush)


def unwritten(net: Any, step: Any, chunk: int | None = None, flush: bool = True, **options: Any) -> Runner:
    """A runner of what would be written."""
    call = FlatCall(net, step, chunk, None, flush, **options)
    metadata = call.metadata("onnx", None)
    return Runner(metadata, lambda batch: ModuleStreams(call, metadata, batch))
