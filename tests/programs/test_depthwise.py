"""Depthwise convolutions of images in compiled programs, by the kernel that reads frames where a ring holds them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import continual as co
from continual.layers.native import depthwise
from continual.programs.step_program import StepProgram
from tests.long import by_turns
from tests.programs.rows import check_rows

pytestmark = pytest.mark.skipif(depthwise.library() is None, reason="no kernel: no compiler")

LAYERS: dict[str, dict[str, Any]] = {
    "a square": {"kernel_size": 3, "padding": 1},
    "strided": {"kernel_size": 3, "stride": (1, 2, 2), "padding": (0, 1, 0), "bias": False},
    "dilated over time": {"kernel_size": 3, "padding": (4, 1, 1), "dilation": (2, 1, 1)},
    "over time alone": {"kernel_size": (5, 1, 1), "padding": (2, 0, 0)},
    "over space alone": {"kernel_size": (1, 3, 3), "padding": (0, 2, 1)},
}


def layer(channels: int = 33, **options: Any) -> co.Conv3d:
    return co.Conv3d(channels, channels, groups=channels, **options).eval()


def operations(program: StepProgram) -> list[str]:
    """Of a program."""
    return [str(node.target) for node in program.export().graph.nodes]


@pytest.mark.parametrize("name", by_turns(LAYERS, 2, ["a square"]))
def test_rows_out_of_step_as_streams_alone(name: str) -> None:
    net = co.Sequential(layer(**LAYERS[name]), co.Identity()).eval()
    program = check_rows(net, torch.randn(3, 33, 17, 21, 14), fused=True)
    assert "continual.depthwise.default" in operations(program)


OTHERS: dict[str, tuple[int, dict[str, Any]]] = {
    "few channels": (3, {"kernel_size": 3, "groups": 3}),
    "groups of several channels": (32, {"kernel_size": 3, "groups": 16}),
    "a wide kernel": (32, {"kernel_size": (2, 5, 5), "groups": 32}),
    "mirrored over time": (32, {"kernel_size": 3, "groups": 32, "padding": 1, "temporal_fill": "replicate"}),
    "double precision": (32, {"kernel_size": 3, "groups": 32, "padding": (1, 0, 1), "dtype": torch.float64}),
}


@pytest.mark.parametrize("name", by_turns(OTHERS, 2))
def test_all_others_are_computed_by_torch(name: str) -> None:
    channels, options = OTHERS[name]
    net = co.Sequential(co.Conv3d(channels, channels, **options), co.Identity()).eval()
    program = check_rows(net, torch.randn(2, channels, 11, 19, 18, dtype=options.get("dtype")), fused=True)
    assert "continual.depthwise.default" not in operations(program)


def block() -> co.Sequential:
    """What surrounds such layers: products of pixels, norms, and a shortcut, whose frames wait channels last."""
    width = co.Sequential(co.Conv3d(17, 33, 1), torch.nn.BatchNorm3d(33), torch.nn.SiLU())
    inner = co.Sequential(width, layer(kernel_size=3, padding=1), torch.nn.ReLU(), co.Conv3d(33, 17, 1, bias=False))
    waits = co.Delay(6)  # in a ring
    return co.Sequential(co.Residual(inner), waits, layer(17, kernel_size=(1, 3, 3), stride=(1, 2, 2))).eval()


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler on this machine")
@pytest.mark.parametrize("way, threads", by_turns([("aot", 2), ("pt2", 1)], 2))
def test_compiled_programs_compute_with_it(way: str, threads: int, tmp_path: Path) -> None:
    net, clip, before = block(), torch.randn(3, 17, 14, 45, 47), torch.get_num_threads()
    assert 3 * clip[0, :, 0].numel() * 27 > depthwise.ALONE  # two threads take part
    with torch.no_grad():
        for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm3d)):
            norm.running_mean.uniform_(-1, 1), norm.running_var.uniform_(0.5, 2), norm.weight.uniform_(0.5, 2)
        expected = net(clip)
    torch.set_num_threads(threads)
    try:
        if way == "aot":
            program = co.compile(net, clip[:, :, 0], backend="aot")
            steps = [y for y in map(program.step, clip.unbind(2)) if y is not None]
        else:
            stream = co.load(co.export(net, clip[:1, :, 0], tmp_path / "net.pt2"))
            steps = [y for y in map(stream.forward_step, clip[:1].unbind(2)) if y is not None]
            expected = expected[:1]
    finally:
        torch.set_num_threads(before)
    y = torch.stack([torch.as_tensor(s) for s in steps], 2)
    torch.testing.assert_close(y, expected[:, :, : y.shape[2]], rtol=1e-4, atol=2e-5)
    assert y.shape[2] == 7
