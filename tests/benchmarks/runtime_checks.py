"""Our export in the runtimes that the suite times. In a process of its own: OpenVINO has crashed in long ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import continual as co
from benchmarks import candidates, runtimes
from benchmarks.measure import WrongResult


@pytest.mark.parametrize("name", list(candidates.RUNTIMES))
def test_the_export_in_a_runtime(name: str, tmp_path: Path):
    """Calls of two steps, from a cold start and on: the outputs are the network's, and what gives others is not timed."""
    net = co.Sequential(co.Conv1d(3, 4, 5, stride=2, padding=2), torch.nn.Tanh(), co.Conv1d(4, 2, 2)).eval()
    clip = torch.randn(2, 3, 31)
    wanted = candidates.outputs_of(net, clip)
    path = runtimes.written(net, clip[:, :, 0], tmp_path / "net.onnx")
    for way, opened in candidates.RUNTIMES[name](path, 1).items():
        found = opened.outputs(clip)
        assert opened.file.chunk == 2
        assert wanted.shape[2] - 1 <= found.shape[2] <= wanted.shape[2]
        candidates.require_start(way, found, wanted)
        with pytest.raises(WrongResult, match="a copy: differs from the plain module by"):
            candidates.require_start("a copy", found + 1e-3, wanted)
        with pytest.raises(WrongResult, match="a copy: 0 outputs where"):
            candidates.require_start("a copy", found[:, :, :0], wanted)
