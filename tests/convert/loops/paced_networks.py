"""Modules whose loops take several frames in an iteration, or lie behind temporal strides. No tests are in this file."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Parts(nn.Module):
    """What the networks below are made of, and the loop of one of them.

    Args:
        run: the network: takes this module and a clip ``(B, 3, T)``.
    """

    def __init__(self, run: Callable[[Parts, Tensor], Tensor]):
        super().__init__()
        self.near, self.strided = nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(3, 4, 4, stride=2, padding=1)
        self.cell, self.gru, self.both = nn.GRUCell(4, 5), nn.GRU(4, 5), nn.LSTM(3, 2, bidirectional=True)
        self.wide = nn.Linear(12, 4)
        self._run = run

    def forward(self, x: Tensor) -> Tensor:
        return self._run(self, x)

    def recurrent(self, frames: list[Tensor]) -> Tensor:
        """A cell on features ``(B, 4)``: ``(B, 5, n)``."""
        state, outs = frames[0].new_zeros(frames[0].shape[0], 5), []
        for frame in frames:
            state = self.cell(frame, state)
            outs.append(state)
        return torch.stack(outs, 2)


def windows(x: Tensor, width: int, hop: int) -> list[Tensor]:
    """Slices at equal distances, as far as they are whole."""
    return [x[..., i : i + width] for i in range(0, x.shape[-1] - width + 1, hop)]


def behind_pools(m: Parts, x: Tensor) -> Tensor:
    y = F.max_pool1d(m.strided(x), 2)
    return m.recurrent([y[:, :, t] for t in range(y.shape[2])])


def every_second(m: Parts, x: Tensor) -> Tensor:
    return m.recurrent([m.wide(x[:, :, t].repeat(1, 4)) for t in range(0, x.shape[2], 2)])


def pairs(m: Parts, x: Tensor) -> Tensor:
    return m.recurrent([x[:, :, t : t + 2].flatten(1)[:, 1:5] for t in range(0, x.shape[2] - 1, 2)])


def two_rates(m: Parts, x: Tensor) -> Tensor:
    y = m.strided(x)
    return m.recurrent([y[:, :, t] + x[:, :1, 2 * t] for t in range(y.shape[2])])


def frames_of_groups(m: Parts, x: Tensor) -> Tensor:
    n = x.shape[2] // 4
    found = [x[:, :, 4 * i] - x[:, :, 4 * i + 1] + 2 * x[:, :, 4 * i + 3] for i in range(n)]
    return m.recurrent([m.wide(f.repeat(1, 4)) for f in found])


def overlapping(m: Parts, x: Tensor) -> Tensor:
    return torch.stack([m.near(w).amax(2) for w in windows(x, 5, 3)], 2)


def wide_windows(m: Parts, x: Tensor) -> Tensor:
    return torch.stack([m.near(w).amax(2) for w in windows(x, 20, 10)], 2)


def wide_at_every_frame(m: Parts, x: Tensor) -> Tensor:
    return torch.stack([m.near(w).amax(2) for w in windows(x, 12, 1)], 2)


def clamped(m: Parts, x: Tensor) -> Tensor:
    return torch.stack([m.near(x[:, :, max(0, t - 3) : t + 1]).mean(2) for t in range(x.shape[2])], 2)


def padded(m: Parts, x: Tensor) -> Tensor:
    return m.recurrent([m.near(w).mean(2) for w in windows(F.pad(x, (7, 0)), 8, 4)])


def both_directions(m: Parts, x: Tensor) -> Tensor:
    return torch.stack([m.both(w.permute(2, 0, 1))[0][-1] for w in windows(x, 8, 4)], 2)


def unfolded(m: Parts, x: Tensor) -> Tensor:
    w = x.unfold(2, 6, 3)
    return m.gru(torch.stack([m.near(w[:, :, i]).mean(2) for i in range(w.shape[2])], 0))[0].permute(1, 2, 0)


def backward_in_windows(m: Parts, x: Tensor) -> Tensor:
    found = []
    for w in windows(m.near(x), 4, 2):
        state = x.new_zeros(x.shape[0], 5)
        for j in reversed(range(4)):
            state = m.cell(w[:, :, j], state)
        found.append(state)
    return torch.stack(found, 2)


def written(m: Parts, x: Tensor) -> Tensor:
    out = x.new_zeros(x.shape[0], x.shape[2] // 5, 4)
    for i in range(out.shape[1]):
        out[:, i] = m.near(x[:, :, 5 * i : 5 * i + 5]).amax(2)
    return out.transpose(1, 2)


def chunks_with_a_state(m: Parts, x: Tensor) -> Tensor:
    state, found = None, []
    for chunk in x[:, :, : x.shape[2] // 4 * 4].split(4, dim=2):
        y, state = m.gru(m.near(chunk).permute(2, 0, 1), state)
        found.append(y.permute(1, 2, 0))
    return torch.cat(found, 2)


class Case(NamedTuple):
    """A network with an example length, and the delay and the stride of its stream."""

    run: Callable[[Parts, Tensor], Tensor]
    frames: int
    delay: int
    stride: int


CASES = {
    case.run.__name__: case
    for case in (
        Case(behind_pools, 48, 4, 4), Case(every_second, 24, 0, 2), Case(pairs, 23, 1, 2), Case(two_rates, 24, 2, 2),
        Case(frames_of_groups, 30, 3, 4), Case(overlapping, 29, 4, 3), Case(wide_windows, 80, 19, 10),
        Case(wide_at_every_frame, 40, 11, 1), Case(clamped, 20, 0, 1), Case(padded, 40, 0, 4),
        Case(both_directions, 40, 7, 4), Case(unfolded, 30, 5, 3), Case(backward_in_windows, 30, 4, 2), Case(written, 30, 4, 5),
        Case(chunks_with_a_state, 41, 3, 1),
    )
}  # fmt: skip
