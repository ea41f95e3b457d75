"""Loops over frames that are not a recurrence are refused with the reason."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.convert.graph.loops import rolled


class Code(nn.Module):
    """A function of a clip ``(B, C, T)``, with a linear layer."""

    def __init__(self, code: Callable[[Any, Tensor], Tensor]):
        super().__init__()
        self.fc, self.table, self.code = nn.Linear(3, 3), nn.Parameter(torch.randn(64, 3)), code

    def forward(self, x: Tensor) -> Tensor:
        return self.code(self, x)


def backward(m: Any, x: Tensor) -> Tensor:
    h, outs = x.new_zeros(x.shape[0], 3), []
    for i in reversed(range(x.shape[2])):
        h = torch.tanh(m.fc(h) + x[:, :, i])
        outs.append(h)
    return torch.stack(outs[::-1], 2)


def both_directions(m: Any, x: Tensor) -> Tensor:
    h, outs = x.new_zeros(x.shape[0], 3), []
    for i in range(x.shape[2]):
        h = torch.tanh(m.fc(h) - x[:, :, i])
        outs.append(h)
    return torch.stack(outs, 2) + backward(m, x)


def begins_with_the_clip(m: Any, x: Tensor) -> Tensor:
    h, outs = x.mean(2), []
    for i in range(x.shape[2]):
        h = torch.tanh(m.fc(h) + x[:, :, i])
        outs.append(h)
    return torch.stack(outs, 2)


def all_so_far(m: Any, x: Tensor) -> Tensor:
    keys, outs = [], []
    for i in range(x.shape[2]):
        keys.append(m.fc(x[:, :, i]))
        outs.append(torch.stack(keys, 1).softmax(1).sum(1) * x[:, :, i])
    return torch.stack(outs, 2)


def fixed_frame(m: Any, x: Tensor) -> Tensor:
    h, outs = x.new_zeros(x.shape[0], 3), []
    for i in range(x.shape[2]):
        h = torch.tanh(m.fc(h) + x[:, :, i] * x[:, :, 4])
        outs.append(h)
    return torch.stack(outs, 2)


def number(m: Any, x: Tensor) -> Tensor:
    h, outs = x.new_zeros(x.shape[0], 3), []
    for i in range(x.shape[2]):
        h = h * math.sin(i + 1) + m.fc(x[:, :, i])
        outs.append(h)
    return torch.stack(outs, 2)


def growing(m: Any, x: Tensor) -> Tensor:
    h, outs = x.new_zeros(x.shape[0], 3), []
    for i in range(x.shape[2]):
        h = h * 0.5 + m.fc(x[:, :, i]) * 1.5**i  # without bounds in an endless stream
        outs.append(h)
    return torch.stack(outs, 2)


def table(m: Any, x: Tensor) -> Tensor:
    h, outs = x.new_zeros(x.shape[0], 3), []
    for i in range(x.shape[2]):
        h = torch.tanh(m.fc(h) + x[:, :, i] + m.table[i])
        outs.append(h)
    return torch.stack(outs, 2)


def chance(m: Any, x: Tensor) -> Tensor:
    h, outs = x.new_zeros(x.shape[0], 3), []
    for i in range(x.shape[2]):
        h = torch.tanh(m.fc(h) + x[:, :, i] + torch.randn_like(h))
        outs.append(h)
    return torch.stack(outs, 2)


def clamped(m: Any, x: Tensor) -> Tensor:
    h, outs, last = x.new_zeros(x.shape[0], 3), [], x.shape[2] - 1
    for i in range(x.shape[2]):
        h = torch.tanh(m.fc(h) + x[:, :, i] - x[:, :, min(i + 2, last)])
        outs.append(h)
    return torch.stack(outs, 2)


def later(m: Any, x: Tensor) -> Tensor:
    """Something else happens long after the clips that are exported."""
    h, outs = x.new_zeros(x.shape[0], 3), []
    for i in range(x.shape[2]):
        h = torch.tanh(m.fc(h) + x[:, :, i] * (2 if i == 20 else 1))
        outs.append(h)
    return torch.stack(outs, 2)


REASONS = [
    (backward, "runs backward over the clip"),
    (both_directions, "runs backward over the clip"),
    (begins_with_the_clip, "of the whole clip meets the clip's frames again"),
    (all_so_far, "grows with every iteration, since it uses all frames so far"),
    (fixed_frame, "every iteration uses frame 4 of the clip"),
    (number, "a number in the loop depends on the iteration"),
    (growing, "a number in the loop depends on the iteration: 1.0, 1.5, 2.25"),
    (table, "a table of positions ends with the clip"),
    (chance, "draws random numbers"),
    (clamped, "the last iterations of a loop differ"),
    (later, "does something else with a clip of 24 frames"),
]


@pytest.mark.parametrize(("code", "reason"), REASONS, ids=lambda v: getattr(v, "__name__", ""))
def test_the_reason(code: Callable[[Any, Tensor], Tensor], reason: str) -> None:
    with pytest.raises(co.NotStreamable) as refused:
        co.continual(Code(code).eval(), torch.randn(2, 3, 24), windows="stream")
    assert re.search(re.escape(reason), str(refused.value)), str(refused.value)
    assert "Remedy: " in str(refused.value)


def twice(m: Any, x: Tensor) -> Tensor:
    return torch.stack([x[:, :, i // 2] for i in range(2 * x.shape[2])], 2)


def chunks_twice(m: Any, x: Tensor) -> Tensor:
    y = x.unfold(2, 8, 8).mean(3)
    return torch.stack([y[:, :, i // 2] for i in range(2 * y.shape[2])], 2)


@pytest.mark.parametrize("code", [twice, chunks_twice], ids=lambda v: v.__name__)
def test_a_loop_that_does_nothing_with_frames_is_exported_once(code: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, exports = rolled.capture_rows, []
    monkeypatch.setattr(rolled, "capture_rows", lambda *args: exports.append(1) or whole(*args))
    with pytest.raises(co.NotStreamable, match="put together again, and nothing is done with each"):
        co.continual(Code(code).eval(), torch.randn(2, 3, 40), windows="stream")
    assert len(exports) == 1


class FixedType(nn.Module):
    """Its states are float32, whatever the input is."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        h, outs = torch.zeros(x.shape[0], 4), []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            outs.append(h)
        return torch.stack(outs, 1)


def test_a_module_that_fails_on_its_own() -> None:
    """Though an export of it, on shapes, does not."""
    clip = torch.randn(2, 12, 3)
    co.verify(co.continual(FixedType().eval(), clip, time_dim=1), torch.randn(2, 20, 3))
    with pytest.raises(
        co.NotStreamable, match=r"^FixedType: module\(clip\) raises RuntimeError: mat1 and mat2 must have the same dtype"
    ):
        co.continual(FixedType().double().eval(), clip.double(), time_dim=1)
