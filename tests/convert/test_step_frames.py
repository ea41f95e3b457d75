"""Between layers no layout is changed in a step, and permutations beside them are none of the network's operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.convert.graph.axes import View
from tests.convert.loops.networks import ConvLSTM
from tests.long import by_turns


class Chain(nn.Module):
    """Two layers over time one after the other, in two layouts: ``(T, B, C)``."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.conv = nn.GRU(3, 4), nn.Conv1d(4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.gru(x)[0].permute(1, 2, 0)).permute(2, 0, 1)


class Pixels(nn.Module):
    """Channels change places with pixels: not the chunks of before."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.back = nn.Conv2d(3, 5, (2, 3)), nn.Conv2d(5, 2, (2, 1))

    def forward(self, x: Tensor) -> Tensor:  # (B, W, T, C)
        return self.back(self.conv(x.transpose(1, 3))).transpose(1, 3)


class Beside(nn.Module):
    """What leaves a layer is an output, and an operation takes it, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv1d(3, 3, 2), nn.Conv1d(3, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (B, T, C)
        y = self.conv(x.mT)
        return y.mT, self.last(y.relu() - y)


CASES: dict[str, tuple[type[nn.Module], tuple[int, ...], int, list[str]]] = {
    "chain": (Chain, (11, 2, 3), 0, []),
    "loops": (ConvLSTM, (2, 5, 2, 3, 4), 1, []),
    "pixels": (Pixels, (2, 5, 9, 3), 2, ["transpose", "transpose"]),
    "beside": (Beside, (2, 12, 3), 1, []),
}


def made(name: str) -> tuple[Any, nn.Module, Tensor]:
    cls, shape, time, _ = CASES[name]
    module, longer = cls().eval(), list(shape)
    longer[time] += 7
    return co.continual(module, torch.randn(shape), time_dim=time), module, torch.randn(longer)


@pytest.mark.parametrize("name", by_turns(CASES, 2))
def test_it_is_the_same_network(name: str) -> None:
    net, module, clip = made(name)
    co.verify(net, clip, reference=module)


@pytest.mark.parametrize("name", CASES)
def test_permutations_go_into_views(name: str) -> None:
    ops = [row.op for row in made(name)[0].operation_graph().rows]
    assert [op for op in ops if op in ("permute", "movedim", "transpose", "mT")] == CASES[name][3]


def test_a_step_between_layers_changes_no_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    net, module, clip = made("chain")
    with torch.no_grad():
        found = [net.forward_step(frame) for frame in clip[:5]]
        calls: list[str] = []
        for name in ("enter", "leave"):
            own = getattr(View, name)
            monkeypatch.setattr(View, name, lambda *args, own=own, name=name: calls.append(name) or own(*args))
        found += [net.forward_step(frame) for frame in clip[5:]]
        assert not calls
        torch.testing.assert_close(torch.stack(found[2:]), module(clip))
