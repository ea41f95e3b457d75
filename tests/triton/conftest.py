"""Models that tests of this folder share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import continual as co
from tests.triton.networks import made

Written = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """``written(network, backend)``: the folder of a model, written once."""
    pytest.importorskip("onnxruntime", reason="writes ONNX files")
    pytest.importorskip("onnxscript", reason="writes ONNX files")
    folders: dict[tuple[str, str], Path] = {}

    def write(network: str, backend: str) -> Path:
        if (network, backend) not in folders:
            directory = tmp_path_factory.mktemp("repository")
            options = {"max_streams": 4, "backend": backend, "threads": 1}
            folders[network, backend] = co.triton.write_repository(*made(network), directory, **options)
        return folders[network, backend]

    return write
