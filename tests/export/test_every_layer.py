"""Every layer and the networks of the table in exported form, with any number of rows, and in ExecuTorch, whose kernels are its own.

Other runtimes: tests/programs/test_runtimes.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

import continual as co
from continual.export.flat_call import FlatCall
from continual.export.int8 import ModuleStreams
from continual.export.runner import Runner
from tests.export.artefacts import needs
from tests.long import by_turns
from tests.programs.test_every_layer import CASES, MORE, REFUSED, made

LAYERS = [n for n in (*CASES, *MORE) if n not in REFUSED]
FIXED = {"Conv1d reflect", "Upsample, linear", "AvgPool3d"}  # in which the number of rows was once fixed


def assert_streams(runner: Any, net: Any, clip: torch.Tensor) -> None:
    """The same outputs of a whole stream with its end."""
    with torch.no_grad():
        found, want = (pytree.tree_leaves(stream.forward_steps(clip, pad_end=True)) for stream in (runner, net))
    assert len(found) == len(want) > 0
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", by_turns(LAYERS, 8, always=FIXED))
def test_any_number_of_rows(name: str):
    """Three rows of a graph that was made of one."""
    net, clip = made(name)
    net, clip = net.float(), clip.float()
    assert len(clip) == 3
    call = FlatCall(net, clip[:1, :, 0], None, None, True)
    graph, metadata = call.exported().module(), call.metadata("onnx", None)
    assert_streams(Runner(metadata, lambda batch: ModuleStreams(graph, metadata, batch)), net, clip)


@pytest.mark.parametrize("name", by_turns(LAYERS, 120))  # some seconds each
def test_in_executorch(name: str, tmp_path: Path):
    needs("executorch")
    net, clip = made(name)
    net, clip = net.float(), clip[:1].float()
    assert_streams(co.load(co.export(net, clip[:, :, 0], tmp_path / "layer.pte")), net, clip)
