"""Values that a module, or the walk through its graph, computes several times."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from continual.convert.graph.instructions import Op
from continual.convert.graph.queues import Positions
from tests.contract import assert_equal


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


class Rotary(nn.Module):
    """Causal attention in two layers with one table of rotary positions, as language models write it."""

    def __init__(self, layers: int = 2):
        super().__init__()
        self.register_buffer("rates", 1.0 / 10.0 ** torch.arange(0, 1, 0.5))
        self.layers = nn.ModuleList(nn.Linear(8, 24) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[1], device=x.device).unsqueeze(1) * self.rates
        angles = torch.cat((angles, angles), -1)
        cos, sin = angles.cos(), angles.sin()
        for layer in self.layers:
            q, k, v = (t.unflatten(2, (2, 4)).transpose(1, 2) for t in layer(x).chunk(3, 2))
            y = F.scaled_dot_product_attention(turned(q, cos, sin), turned(k, cos, sin), v, is_causal=True)
            x = x + y.transpose(1, 2).flatten(2)
        return x


def operations(net: Any) -> list[str]:
    """The operations of a converted network that run on frames."""
    return [i.target.split(".")[1] for i in net._program.instructions if isinstance(i, Op) and i.target.startswith("aten.")]


def converted(module: nn.Module, *shape: int) -> Any:
    """A converted module of float64, of which steps and clip agree."""
    module = module.double().eval()
    net: Any = co.continual(module, torch.randn(shape, dtype=torch.float64), time_dim=1, progress=False)
    clip = torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        steps = [net.forward_step(frame) for frame in clip.unbind(1)]
        assert_equal(torch.stack([y for y in steps if y is not None], 1), module(clip))
    return net


def test_tables_of_positions_are_computed_once() -> None:
    net = converted(Rotary(), 2, 9, 8)
    found = operations(net)
    assert (found.count("cos"), found.count("sin")) == (1, 1)
    assert sum(isinstance(i, Positions) for i in net._program.instructions) == 1


class Repeated(nn.Module):
    """The same product twice, and one with other numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(3, 3)), nn.Parameter(torch.randn(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return (
            (x @ self.first).tanh() * (x @ self.first)
            + (x @ self.second)
            + (x + 1) * (x + 1.0)
            + x.clamp(min=0)
            - x.clamp(min=0.0)
        )


def test_what_is_equal_is_computed_once_and_what_is_not_remains() -> None:
    module = Repeated()
    net = converted(module, 2, 5, 3)
    assert operations(net).count("matmul") == 2
    with torch.no_grad():
        module.second.mul_(-2.0)
        x = torch.randn(2, 4, 3, dtype=torch.float64)
        assert_equal(net.forward_steps(x), module(x))


class Tied(nn.Module):
    """Two names of one parameter, one of which is exchanged later."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) - 2 * self.b(x)


def test_parameters_of_equal_values_are_not_one() -> None:
    module = Tied()
    module.b.load_state_dict(module.a.state_dict())
    net = converted(module, 2, 5, 3)
    with torch.no_grad():
        module.b.weight.add_(1.0)
        x = torch.randn(2, 4, 3, dtype=torch.float64)
        assert_equal(net.forward_steps(x), module(x))


class Table(nn.Module):
    """Tables of two lengths: the stream ends where the shorter one does."""

    def __init__(self) -> None:
        super().__init__()
        self.long, self.short = nn.Embedding(40, 3), nn.Embedding(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.long(torch.arange(x.shape[1])) * self.short(torch.arange(x.shape[1]))


def test_the_shorter_table_ends_the_stream() -> None:
    net = converted(Table(), 2, 7, 3)
    net.clean_state()
    with torch.no_grad():
        net.forward_steps(torch.randn(2, 12, 3, dtype=torch.float64))
        with pytest.raises(co.ShapeMismatch, match="positions for 12"):
            net.forward_step(torch.randn(2, 3, dtype=torch.float64))


class Late(nn.Module):
    """Positions that begin at a number, as language models count on from a cache."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first, self.table = first, nn.Embedding(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table(torch.arange(x.shape[1]) + self.first)


@pytest.mark.parametrize("first", [0, 3])
def test_a_table_whose_positions_begin_late_ends_the_stream(first: int) -> None:
    net = converted(Late(first), 2, 7, 3)
    assert any(f"positions for {12 - first} frames" in note for note in net.notes)
    net.clean_state()
    with torch.no_grad():
        net.forward_steps(torch.randn(2, 12 - first, 3, dtype=torch.float64))
        with pytest.raises(co.ShapeMismatch, match=f"positions for {12 - first}"):
            net.forward_step(torch.randn(2, 3, dtype=torch.float64))


class Delayed(nn.Module):
    """The numbers of frames before and behind a convolution that looks ahead, and of every second frame."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.halved = nn.Conv1d(3, 3, 3, padding=1), nn.Conv1d(3, 3, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.arange(x.shape[2]).cos()
        x = self.same(x)
        x = self.halved(x + torch.arange(x.shape[2]).cos())
        return x * torch.arange(x.shape[2]).cos()


def test_numbers_of_frames_behind_a_delay_or_a_stride_are_others() -> None:
    module = Delayed().double().eval()
    net: Any = co.continual(module, torch.randn(2, 3, 12, dtype=torch.float64), progress=False)
    assert sum(isinstance(i, Positions) for i in net._program.instructions) == 3
    co.verify(net, torch.randn(2, 3, 16, dtype=torch.float64))


class Computed(nn.Module):
    """A weight that is computed from a parameter, beside one that is not read for it."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.other = nn.Parameter(torch.randn(3, 3)), nn.Parameter(torch.randn(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.own.softmax(1) * 2) + F.linear(x, self.other)


def test_what_is_computed_from_a_parameter_follows_it() -> None:
    module = Computed()
    net = converted(module, 2, 5, 3)
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(2):
            module.own.add_(torch.randn(3, 3))  # in place
            assert_equal(net.forward_steps(x), module(x))
            module.own.data = torch.randn(3, 3, dtype=torch.float64)  # other memory
            assert_equal(net.forward_steps(x), module(x))
