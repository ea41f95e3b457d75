"""Writing repositories: files, and what is refused before anything is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import continual as co
from tests.triton.conftest import Written
from tests.triton.networks import made

PYTHON = ["1/model.onnx", "1/model.py", "1/slot_table.py", "config.pbtxt", "requirements.txt"]


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("backend, expected", [("python", PYTHON), ("onnxruntime", ["1/model.onnx", "config.pbtxt"])])
def test_the_files(written: Written, backend: str, expected: list[str]):
    folder = written("conv", backend)
    assert files(folder) == expected
    assert os.listdir(folder.parent) == ["model"]  # nothing that a server would take for a model


def test_writing_again_replaces_the_files_and_keeps_others(written: Written, tmp_path: Path):
    net, step = made("conv")
    folder = co.triton.write_repository(net, step, tmp_path / "new" / "repository", name="m", backend="python", rate=10)
    (folder / "2").mkdir()
    (folder / "2" / "model.onnx").write_text("another version")
    before = (folder / "config.pbtxt").read_text()
    co.triton.write_repository(net, step, tmp_path / "new" / "repository", name="m", backend="python", max_streams=3)
    assert files(folder) == [*PYTHON[:3], "2/model.onnx", *PYTHON[3:]]
    after = (folder / "config.pbtxt").read_text()
    assert "10 steps per second" in before
    assert 'string_value: "3"' in after
    assert after != before


def test_a_larger_chunk(tmp_path: Path):
    pytest.importorskip("onnxscript", reason="writes ONNX files")
    net, step = made("conv")
    folder = co.triton.write_repository(net, step, tmp_path, chunk=5)
    assert "dims: [2, 5]" in (folder / "config.pbtxt").read_text()


@pytest.mark.parametrize(
    "options, said",
    [
        ({"name": "a/b"}, "not 'a/b'. The folder that it comes into is `directory`"),
        ({"name": ""}, "not ''"),
        ({"name": ".."}, "not '..'"),
        ({"name": "a b"}, "not 'a b'"),
        ({"backend": "tensorrt"}, "backend is one of 'onnxruntime', 'python', not 'tensorrt'"),
        ({"batcher": "newest"}, "batcher is one of 'oldest', 'direct', not 'newest'"),
        ({"max_streams": 0}, "max_streams is at least 1, got 0"),
        ({"max_batch": 0}, "max_batch is at least 1, got 0"),
        ({"threads": 0}, "threads is at least 1, got 0"),
        ({"idle": 0}, "idle and queue_delay are seconds, got idle=0"),
        ({"queue_delay": -1}, "queue_delay=-1"),
        ({"max_streams": 4, "max_batch": 5}, "max_batch=5 rows are never full with max_streams=4"),
        ({"batcher": "direct", "max_streams": 8, "max_batch": 4}, "max_batch is max_streams=8, not 4"),
        ({"batcher": "direct", "preferred_batches": [4]}, "preferred_batches are for batcher='oldest'"),
        ({"max_batch": 4, "preferred_batches": [2, 8]}, "from 1 to 4 rows, got [2, 8]"),
        ({"chunk": -1}, "chunk"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, options: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        co.triton.write_repository(*made("conv"), tmp_path, **options)
    assert not os.listdir(tmp_path)


def test_a_directory_that_can_not_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(co.ExportError, match="can't write to the directory .*file"):
        co.triton.write_repository(*made("conv"), tmp_path / "file")
    with pytest.raises(co.ExportError, match="can't write to the directory .*inside"):
        co.triton.write_repository(*made("conv"), tmp_path / "file" / "inside")


def test_a_model_that_is_a_file(tmp_path: Path):
    pytest.importorskip("onnxscript", reason="writes ONNX files")
    (tmp_path / "model").write_text("")
    with pytest.raises(co.ExportError, match="can't write .*model"):
        co.triton.write_repository(*made("conv"), tmp_path)
    assert os.listdir(tmp_path) == ["model"]


def test_what_is_no_streaming_network(tmp_path: Path):
    with pytest.raises(TypeError, match="takes a streaming network, not Conv1d: convert it"):
        co.triton.write_repository(nn.Conv1d(2, 3, 3), torch.zeros(1, 2), tmp_path)  # type: ignore[arg-type]


def test_a_network_in_training_mode_leaves_nothing_behind(tmp_path: Path):
    with pytest.raises(co.NotStreamable, match="eval"):
        co.triton.write_repository(co.Sequential(co.Conv1d(2, 3, 3), nn.BatchNorm1d(3)).train(), torch.zeros(1, 2), tmp_path)
    assert not os.listdir(tmp_path)


def test_time_before_rows_is_refused(tmp_path: Path):
    pytest.importorskip("onnxscript", reason="writes ONNX files")

    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.GRU(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:  # (T, B, C)
            return self.net(x)[0]

    net = co.continual(TimeFirst().eval(), torch.randn(9, 2, 4), time_dim=0)
    with pytest.raises(co.ExportError, match="batches of the server have their rows first"):
        co.triton.write_repository(net, torch.zeros(2, 4), tmp_path)
    assert not os.listdir(tmp_path)


def test_importing_the_library_imports_nothing_of_it():
    code = "import sys, continual; print(sorted(m for m in sys.modules if m.startswith(('continual.triton', 'onnx', 'numpy.random'))))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "continual.triton" not in found.stdout
    assert "onnx" not in found.stdout
