"""Convolutions of images in compiled programs, by the kernels that read frames where a ring holds them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import continual as co
from continual.layers.native import convolution, depthwise, image_operations
from continual.programs.backends.images import use_images
from continual.programs.step_program import StepProgram
from tests.long import by_turns
from tests.programs.rows import check_rows

pytestmark = pytest.mark.skipif(depthwise.library() is None, reason="no kernel: no compiler")

DENSE: dict[str, dict[str, Any]] = {
    "a square": {"kernel_size": 3, "padding": 1},
    "strided, and no square": {"kernel_size": (2, 3, 2), "stride": (1, 2, 1), "padding": (1, 0, 1), "bias": False},
    "dilated": {"kernel_size": (3, 2, 3), "padding": (4, 1, 3), "dilation": (2, 1, 3)},
    "wide padding": {"kernel_size": (2, 5, 3), "padding": (0, 5, 4), "stride": (1, 3, 2)},
}


def dense(**options: Any) -> co.Sequential:
    return co.Sequential(co.Conv3d(13, 37, **options), co.Identity()).eval()


@pytest.mark.skipif(convolution.library() is None, reason="no kernel: no compiler, or a processor without AVX")
@pytest.mark.parametrize("name", by_turns(DENSE, 2, ["a square"]))
def test_rows_of_dense_convolutions(name: str) -> None:
    program = check_rows(dense(**DENSE[name]), torch.randn(3, 13, 15, 19, 14), fused=True)
    assert "continual.image_convolution.default" in operations(program)


OTHER_DENSE: dict[str, dict[str, Any]] = {
    "many weights": {"in_channels": 128, "kernel_size": 3, "out_channels": 64},
    "few channels": {"in_channels": 7, "kernel_size": 3, "out_channels": 37},
    "double precision": {"in_channels": 13, "kernel_size": 3, "out_channels": 37, "dtype": torch.float64},
    "mirrored over space": {
        "in_channels": 13,
        "kernel_size": 3,
        "out_channels": 37,
        "padding": (0, 1, 1),
        "padding_mode": "reflect",
    },
}


@pytest.mark.parametrize("name", by_turns(OTHER_DENSE, 2))
def test_other_dense_convolutions_are_computed_by_torch(name: str) -> None:
    options = OTHER_DENSE[name]
    net = co.Sequential(co.Conv3d(**options), co.Identity()).eval()
    clip = torch.randn(2, options["in_channels"], 5, 9, 8, dtype=options.get("dtype"))
    program = check_rows(net, clip, fused=True)
    assert "continual.image_convolution.default" not in operations(program)


GUARDED = """
import ctypes, mmap, torch, continual as co
from continual.layers.native import convolution, depthwise
from continual.layers.native.image_operations import define
libc, page = ctypes.CDLL(None), mmap.PAGESIZE

def last_of_memory(t):  # a copy that ends where no memory is
    pages = -(-t.numel() * 4 // page) + 1
    room = mmap.mmap(-1, pages * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(room))
    assert libc.mprotect(ctypes.c_void_p(start + (pages - 1) * page), page, 0) == 0
    numbers = torch.frombuffer(room, dtype=torch.float32, count=t.numel(), offset=(pages - 1) * page - 4 * t.numel())
    rooms.append(room)
    return numbers.copy_(t.flatten()).view(t.shape)

rooms, _ = [], define()
with torch.no_grad():
    for inputs, outputs, groups in [(17, 17, 17), (19, 35, 1), (8, 1, 1)]:
        layer = co.Conv3d(inputs, outputs, (1, 3, 3), padding=(0, 1, 1), groups=groups)
        x = torch.randn(2, 5, 7, inputs)
        given, bias = last_of_memory(x), last_of_memory(layer.bias)
        if groups > 1:
            weight = last_of_memory(depthwise.in_blocks(layer.weight, depthwise.library().lanes))
            y = torch.ops.continual.image_depthwise(None, None, given, weight, bias, 3, 1, 1, 1, 1)
        else:
            weight, geometry = last_of_memory(convolution.packed(layer.weight)), convolution.Geometry.of(layer)
            y = torch.ops.continual.image_convolution(None, None, given, weight, bias, outputs, *geometry, 1)
        assert torch.allclose(y.movedim(-1, 1), layer(x.movedim(-1, 1).unsqueeze(2)).squeeze(2), atol=1e-4)
print("read nothing else")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for memory that can't be read")
@pytest.mark.skipif(convolution.library() is None, reason="no kernel: no compiler, or a processor without AVX")
def test_nothing_is_read_behind_frames_and_weights() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", GUARDED], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "read nothing else", (done.returncode, done.stderr[-2000:])


@pytest.mark.skipif(convolution.library() is None, reason="no kernel: no compiler, or a processor without AVX")
def test_two_threads_give_the_same_bits_and_nan_stays_where_it_is_seen() -> None:
    layer = co.Conv3d(16, 33, (2, 3, 3), padding=(0, 1, 1))
    ring, x = torch.randn(3, 1, 41, 43, 16), torch.randn(3, 41, 43, 16)
    x[1, 20, 20, 3] = float("nan")
    geometry, before, ys = convolution.Geometry.of(layer), torch.get_num_threads(), []
    index = torch.tensor([0, 5, -1])
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.no_grad():
                ys.append(image_operations.convolution_of(ring, index, x, layer.weight, layer.bias, geometry, 1))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(ys[0].nan_to_num(7), ys[1].nan_to_num(7))
    seen = ys[0].isnan().any(-1).nonzero()
    assert seen.tolist() == [[1, i, j] for i in (19, 20, 21) for j in (19, 20, 21)]
    with torch.no_grad():
        wanted = layer(torch.stack((ring[:, 0], x), 1).movedim(-1, 1)).squeeze(2).movedim(1, -1)
    torch.testing.assert_close(ys[0], wanted, rtol=0, atol=3e-5, equal_nan=True)


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
    assert "continual.image_depthwise.default" in operations(program)


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
    assert "continual.image_depthwise.default" not in operations(program)


def block() -> co.Sequential:
    """What surrounds such layers: products of pixels, norms, and a shortcut, whose frames wait channels last."""
    width = co.Sequential(co.Conv3d(17, 33, 1), nn.BatchNorm3d(33), nn.SiLU())
    inner = co.Sequential(width, layer(kernel_size=3, padding=1), nn.ReLU(), co.Conv3d(33, 17, 1, bias=False))
    waits = co.Delay(6)  # in a ring
    return co.Sequential(
        co.Residual(inner), waits, layer(17, kernel_size=(1, 3, 3), stride=(1, 2, 2)), co.Conv3d(17, 35, 3, padding=1)
    ).eval()


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler on this machine")
@pytest.mark.parametrize("way, threads", by_turns([("aot", 2), ("pt2", 1)], 2))
def test_compiled_programs_compute_with_it(way: str, threads: int, tmp_path: Path) -> None:
    net, clip, before = block(), torch.randn(3, 17, 14, 45, 47), torch.get_num_threads()
    assert 3 * clip[0, :, 0].numel() * 27 > depthwise.ALONE  # two threads take part
    with torch.no_grad():
        for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm3d)):
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
    assert y.shape[2] == 6


# ---- single images ------------------------------------------------------------------------------------------------------


class Images(nn.Module):
    """Convolutions that become operations of the kernels, and such as do not."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Conv2d(3, 35, (3, 4), (1, 2), (2, 1), (2, 1))
        self.even, self.odd = nn.Conv2d(35, 32, 2, bias=False), nn.Conv2d(32, 33, 3, padding="same")
        self.by_channel, self.strided = nn.Conv2d(32, 32, 3, padding=(0, 2), groups=32), nn.Conv2d(33, 33, 3, 2, 1, groups=33)
        self.pixel, self.wide = nn.Conv2d(33, 33, 1), nn.Conv2d(33, 33, 5, groups=33)
        self.grouped = nn.Conv2d(33, 66, 3, groups=11)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.by_channel(self.even(self.dense(x)).relu())
        y = self.pixel(self.strided(self.odd(y)))
        return self.grouped(y)[:, :, :4, :4] + torch.cat([self.wide(y)] * 2, 1)[:, :, :4, :4]


@pytest.mark.skipif(convolution.library() is None, reason="no kernel: no compiler, or a processor without AVX")
def test_which_convolutions_of_single_images_the_kernels_compute() -> None:
    module, x = Images().eval(), torch.randn(2, 3, 23, 37)
    program = torch.export.export(module, (x,))
    with torch.no_grad():
        expected = program.module()(x)
        use_images(program)
        program.graph_module.recompile()
        used = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
        assert used.count("continual.image_convolution.default") == 2  # padding by a word is another operation
        assert used.count("continual.image_depthwise.default") == 2
        assert used.count("aten.conv2d.default") == 3
        torch.testing.assert_close(program.module()(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("what", ["large", "double", "many weights", "no constant"])
def test_other_single_images_are_computed_by_torch(what: str) -> None:
    inputs, size = (128, 8) if what == "many weights" else (8, 64 if what == "large" else 8)
    module = nn.Conv2d(inputs, 120, 3, padding=1)
    x = torch.randn(1, inputs, size, size)
    if what == "double":
        module, x = module.double(), x.double()
    given = (x, module.weight.detach()) if what == "no constant" else (x,)
    program = torch.export.export(Given() if what == "no constant" else module, given)
    use_images(program)
    assert "aten.conv2d.default" in [str(n.target) for n in program.graph.nodes]


class Given(nn.Module):
    def forward(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, weight)
