"""`co.scan`: a loop that carries a state, as one recurrent layer of the converted network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.long import by_turns
from tests.programs.rows import check_rows


class Gated(nn.Module):
    """A recurrent cell between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.pre, self.cell, self.head = nn.Conv1d(3, 3, 3, padding=1), nn.GRUCell(3, 4), nn.Conv1d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        def step(frame: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            h = self.cell(frame, h)
            return h, h

        return self.head(co.scan(step, self.pre(x), x.new_zeros(x.shape[0], 4))[0])


class Named(nn.Module):
    """Two outputs by name, and a state that begins with a parameter; time in dim 1."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.h0 = nn.LSTMCell(3, 4), nn.Parameter(torch.randn(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        def step(frame: Tensor, state: Any) -> tuple[dict[str, Tensor], Any]:
            h, c = self.cell(frame, state)
            return {"h": h, "c": c}, (h, c)

        y, _ = co.scan(step, x, (self.h0.expand(x.shape[0], -1), torch.zeros_like(self.h0).expand(x.shape[0], -1)), dim=1)
        return y["h"] - y["c"]


class Images(nn.Module):
    """A convolutional cell, on two streams."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        def step(frames: Any, state: Any) -> tuple[Tensor, Any]:
            h, c = state
            i, f, o, u = self.conv(torch.cat((*frames, h), 1)).chunk(4, 1)
            c = i.sigmoid() * u.tanh() + f.sigmoid() * c
            return o.sigmoid() * c.tanh(), (o.sigmoid() * c.tanh(), c)

        zeros = x.new_zeros(x.shape[0], 4, *x.shape[3:])
        return co.scan(step, (x[:, :1], x[:, 1:].relu()), (zeros, zeros))[0]


class Spatial(nn.Module):
    """Rows of the batch merged with pixels, and a state whose batch is not its first dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 5) / 3)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, 2, 5)
        def step(frame: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            h = torch.tanh(frame.flatten(0, 1) @ self.weight + h[0] / 2).unsqueeze(0)
            return h.view(frame.shape), h

        return co.scan(step, x, x.new_zeros(x.shape[0], 2, 5).flatten(0, 1).unsqueeze(0), dim=1)[0]


CASES = {
    "gated": (Gated, (2, 3, 19), 2),
    "named": (Named, (2, 19, 3), 1),
    "images": (Images, (2, 2, 9, 3, 5), 2),
    "spatial": (Spatial, (2, 11, 2, 5), 1),
}


def made(name: str) -> tuple[Any, nn.Module, Tensor]:
    """The converted network, the module and a clip."""
    cls, shape, time = CASES[name]
    module = cls().eval()
    for p in module.parameters():
        nn.init.normal_(p, std=0.6)
    clip = torch.randn(shape)
    return co.continual(module, clip, time_dim=time), module, clip


@pytest.mark.parametrize("name", by_turns(CASES, 3))
def test_a_scan_is_one_recurrent_layer(name: str) -> None:
    net, module, clip = made(name)
    assert [row.op for row in net.operation_graph().rows].count("loop") == 1
    assert {p.data_ptr() for p in net.parameters()} == {p.data_ptr() for p in module.parameters()}
    co.verify(net, clip, reference=module)


@pytest.mark.parametrize("name", ["gated", "named", "images"])
def test_a_scan_in_a_program(name: str) -> None:
    net, _, clip = made(name)
    check_rows(net, clip)


def test_chunks_of_another_type() -> None:
    net, module, clip = made("gated")
    torch.testing.assert_close(net.double()(clip.double()), module.double()(clip.double()))


def test_the_state_behind_the_clip() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.GRUCell(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            def step(frame: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
                h = self.cell(frame, h)
                return h, h

            return self.head(co.scan(step, x, x.new_zeros(x.shape[0], 4))[1])

    module, clip = Last().eval(), torch.randn(2, 3, 8)
    net = co.continual(module, clip, windows="stream")
    longer = torch.randn(2, 3, 11)
    with torch.no_grad():
        found = net.forward_steps(longer)
        torch.testing.assert_close(found[:, :, -1], module(longer))


def test_export_by_torch_keeps_one_operation() -> None:
    module, clip = Gated().eval(), torch.randn(2, 3, 9)
    ends = torch.export.Dim.AUTO
    with torch.no_grad():
        program = torch.export.export(module, (clip,), dynamic_shapes=({0: ends, 2: ends},), strict=False)
        longer = torch.randn(3, 3, 31)
        torch.testing.assert_close(program.module()(longer), module(longer))
    assert sum("scan" in str(n.target) and n.op == "call_function" for n in program.graph.nodes) == 1


def test_eager_values() -> None:
    clip = torch.tensor([[[1.0, -2.0, 4.0]], [[0.5, 0.0, -1.0]]])
    y, last = co.scan(lambda x, h: (x + h / 2, x + h / 2), clip, torch.zeros(2, 1))
    torch.testing.assert_close(y, torch.tensor([[[1.0, -1.5, 3.25]], [[0.5, 0.25, -0.875]]]))
    torch.testing.assert_close(last, y[:, :, -1])


@pytest.mark.parametrize(
    ("x", "state", "dim", "error", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3), 2, co.ShapeMismatch, "there is no dim=2"),
        (torch.zeros(2, 3, 0), torch.zeros(2, 3), 2, co.ShapeMismatch, "of one frame at least"),
        ((torch.zeros(2, 3, 4), torch.zeros(2, 3, 5)), torch.zeros(2, 3), 2, co.ShapeMismatch, r"got \[4, 5\]"),
        (torch.zeros(2, 3, 4), torch.zeros(1, 3), 2, co.StateMismatch, r"begins as .*\(1, 3\).* gives .*\(2, 3\)"),
        ("abc", torch.zeros(2, 3), 2, co.ShapeMismatch, "x is a tensor"),
    ],
)
def test_refusals(x: Any, state: Tensor, dim: int, error: type[Exception], message: str) -> None:
    def step(frame: Any, h: Tensor) -> tuple[Tensor, Tensor]:
        h = (frame[0] if isinstance(frame, tuple) else frame) + h
        return h, h

    with pytest.raises(error, match=message):
        co.scan(step, x, state, dim)


def test_a_state_that_begins_with_the_clip_is_refused() -> None:
    class Begins(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return co.scan(lambda f, h: (f + h, f + h), x, x.mean(2))[0]

    with pytest.raises(co.NotStreamable, match="`mean` of the whole clip meets the clip.s frames again, in `scan`"):
        co.continual(Begins().eval(), torch.randn(2, 3, 8))


def test_an_iteration_that_uses_the_whole_clip_is_refused() -> None:
    class Whole(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return co.scan(lambda f, h: (f + h + x.sum(2), f - h), x, x.new_zeros(x.shape[0], 3))[0]

    with pytest.raises(co.NotStreamable, match="every iteration of a loop uses"):
        co.continual(Whole().eval(), torch.randn(2, 3, 8))


def test_states_whose_rows_are_not_those_of_the_batch_are_refused() -> None:
    class Mixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:  # (B, T, 3, 5)
            def step(frame: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
                h = frame.transpose(0, 1).flatten(0, 1) + h / 2
                return h.view(3, -1, 5).transpose(0, 1), h

            return co.scan(step, x, x.new_zeros(x.shape[0], 3, 5).flatten(0, 1), dim=1)[0]

    with pytest.raises(co.NotStreamable, match="the states of a loop mix rows of the batch"):
        co.continual(Mixed().eval(), torch.randn(2, 8, 3, 5), time_dim=1)


def test_a_batch_of_the_example_alone_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return co.scan(lambda f, h: (f + h, f + h / 2), x, torch.zeros(2, 3))[0]

    with pytest.raises(co.NotStreamable, match="takes the number of rows of its example for a constant"):
        co.continual(Two().eval(), torch.randn(2, 3, 8))
