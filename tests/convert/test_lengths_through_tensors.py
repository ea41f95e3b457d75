"""Lengths that modules compute through tensors, of sizes and of integers in buffers; and by Python's ``int``, ``max`` and ``round``."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from continual.convert.graph.capture import capture
from tests.contract import assert_equal
from tests.convert.rows import F64, Fn
from tests.convert.test_lengths_at_the_end import check_lengths


class Checked(nn.Module):
    """It asks for numbers of its constants: a window's least value, a list of dilations, a gain."""

    def __init__(self, fixed: float = 0.5) -> None:
        super().__init__()
        self.conv, self.fixed = nn.Conv1d(3, 4, 3, bias=False), [torch.tensor([fixed, 2.0])]
        self.register_buffer("window", torch.tensor([[[0.25], [1.5], [0.75]]]))

    def forward(self, x: Tensor) -> Tensor:
        assert (self.window > 0.1).all()
        gain = self.window.amax().item() * float(self.fixed[0][0])
        if (self.window * self.fixed[0][1]).sum() > 4:
            x = F.pad(x, (self.fixed[0].long().tolist()[1], 0))
        return self.conv(x * self.window) * gain + x.mean(1, keepdim=True)[..., 2:]


class BufferedPad(nn.Module):
    """A convolution with full windows, whose sizes are tensors, as EnCodec's and Mimi's in transformers."""

    def __init__(self, kernel: int = 5, stride: int = 2, mode: str = "reflect"):
        super().__init__()
        self.conv, self.mode = nn.Conv1d(2, 3, kernel, stride), mode
        self.register_buffer("stride", torch.tensor(stride), persistent=False)
        self.register_buffer("kernel", torch.tensor(kernel), persistent=False)
        self.register_buffer("before", self.kernel - self.stride, persistent=False)
        self.register_buffer("ready", torch.tensor([True]))

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[-1]
        windows = (length - self.kernel + self.before) / self.stride + 1
        whole = (torch.ceil(windows).to(torch.int64) - 1) * self.stride + self.kernel - self.before
        more = whole - length
        if not self.ready:
            raise RuntimeError("not trained")
        if length <= max(self.before, more):  # type: ignore[call-overload]
            x = F.pad(x, (0, 9))
        return self.conv(F.pad(x, (self.before, more), self.mode))  # type: ignore[arg-type]


def by_tensor(x: Tensor) -> Tensor:
    length = torch.tensor(x.shape[2])
    return F.avg_pool1d(x[:, :, : (length // 3).item() * 3], 3)


def by_list(x: Tensor) -> Tensor:
    before, after = torch.tensor([1, -x.shape[2] % 4]).tolist()
    return F.avg_pool1d(F.pad(x, (before, after)), 2)


def by_tensors_that_meet(x: Tensor) -> Tensor:
    y = F.avg_pool1d(x, 4, 2)
    frames = torch.minimum(torch.as_tensor(y.shape[2]), torch.as_tensor(x.shape[2]) // 2).long()
    return y[:, :, :frames] * F.max_pool1d(x, 2)[:, :, :frames]


def by_numbers(x: Tensor) -> Tensor:
    frames = max(math.ceil(x.shape[2] / 3), 1)
    return F.avg_pool1d(F.pad(x, (0, int(frames * 3 - x.shape[2]))), 3)


def by_the_longest_row(x: Tensor) -> Tensor:
    lengths = x.new_full((x.shape[0],), x.shape[2]).long()
    longest = torch.max(lengths - lengths.min() % 3).item()
    return F.avg_pool1d(x[:, :, :longest], 3)


def by_dimensions(x: Tensor) -> Tensor:
    """Found in a package for separation: it had no export."""
    channels, _ = torch.arange(1, x.ndim).tolist()
    return x - x.mean(channels, keepdim=True)


BODIES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    f.__name__: (f, least)
    for f, least in (
        (by_tensor, 3),
        (by_list, 1),
        (by_tensors_that_meet, 4),
        (by_numbers, 1),
        (by_the_longest_row, 3),
        (by_dimensions, 1),
    )
}


@pytest.mark.parametrize("name", BODIES)
def test_every_length(name: str) -> None:
    body, least = BODIES[name]
    module = Fn(body).eval()
    with torch.no_grad():
        net = co.continual(module, torch.randn(2, 3, 13, dtype=F64))
        assert check_lengths(net, module, (2, 3, 0), 2, range(1, 25)) == 25 - least


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_sizes_in_buffers(mode: str) -> None:
    module = BufferedPad(mode=mode).to(F64).eval()
    clip = torch.randn(2, 2, 21, dtype=F64)
    assert capture(module, clip, 2).numbers == {"stride", "kernel", "before", "ready"}
    with torch.no_grad():
        assert check_lengths(co.continual(module, clip), module, (2, 2, 0), 2, range(6, 40)) == 34


def test_other_values_in_a_buffer_that_was_read_are_refused() -> None:
    module = BufferedPad().to(F64).eval()
    net: Any = co.continual(module, torch.randn(2, 2, 21, dtype=F64))
    module.stride.copy_(torch.tensor(2))  # the same value
    net(torch.randn(2, 2, 30, dtype=F64))
    module.to(torch.float32)  # integers stay as they are
    module.stride.fill_(3)
    for _ in range(2):
        with pytest.raises(
            co.NotStreamable, match=r"buffer 'stride' was 2 when it was converted, and is 3 now\. .*Convert it again"
        ):
            net(torch.randn(2, 2, 30))
    module.stride.fill_(2)
    net(torch.randn(2, 2, 30))


@pytest.mark.parametrize("pooled", [False, True])
def test_numbers_of_constants(pooled: bool) -> None:
    own = Checked().to(F64).eval()
    module = nn.Sequential(own, nn.AdaptiveAvgPool1d(1)).eval() if pooled else own
    clip = torch.randn(2, 3, 13, dtype=F64)
    net: Any = co.continual(module, clip)
    with torch.no_grad():
        if pooled:
            long = torch.cat((clip, clip.flip(2)), 2)
            want = torch.stack([module(long[:, :, i : i + 13]) for i in range(14)], 2)
            assert_equal(net.forward_steps(long), want)
        else:
            assert check_lengths(net, module, (2, 3, 0), 2, range(1, 20)) == 19
    own.window[0, 1] = 1.25
    with pytest.raises(co.NotStreamable, match="buffer 'window' was .* when it was converted"):
        net.forward(clip)


def test_numbers_of_parameters_may_change_and_are_refused() -> None:
    def gained(m: nn.Module, x: Tensor) -> Tensor:
        return x * m.w.max().item()

    module = Fn(gained, w=(4,)).eval()
    with pytest.raises(co.NotStreamable, match="takes a number out of a parameter"):
        co.continual(module, torch.randn(2, 3, 13))


def test_a_copy_keeps_its_buffers() -> None:
    module = BufferedPad().to(F64).eval()
    net: Any = co.continual(module, torch.randn(2, 2, 21, dtype=F64))
    twin = copy.deepcopy(net)
    clip = torch.randn(2, 2, 30, dtype=F64)
    assert_equal(twin(clip), module(clip))


def test_values_of_the_input_are_no_lengths() -> None:
    def chosen(x: Tensor) -> Tensor:
        return x[:, :, : int(x.abs().max().item())]

    with pytest.raises(co.NotStreamable, match="depends on values of its input"):
        co.continual(Fn(chosen).eval(), torch.full((2, 3, 13), 7.0))
