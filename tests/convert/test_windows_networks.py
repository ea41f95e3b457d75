"""Exact windows of networks of many kinds: each score is the module's own of its window, at 1e-10 in double precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.convert.windows import Eeg, Residual, Scaled, Shifts, Skeleton, Tagger, Tokens, UpDown, Video, check, shared, way
from tests.long import by_turns

__all__ = ["shared", "way"]  # fixtures

NETWORKS: dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]] = {
    "eeg": (Eeg, (1, 5, 128), {"dim": 3}),
    "eeg, each step": (Eeg, (1, 5, 128), {"dim": 3, "every": 1}),
    "eeg, every 8": (Eeg, (1, 5, 128), {"dim": 3, "every": 8}),
    "eeg, every 3": (Eeg, (1, 5, 128), {"dim": 3, "every": 3}),
    "residual": (Residual, (3, 63), {}),
    "residual, each step": (Residual, (3, 64), {"every": 1}),
    "residual, every 2": (Residual, (3, 61), {"every": 2}),
    "residual, hops longer than windows": (Residual, (3, 40), {"every": 57}),
    "residual, hops as long as windows": (Residual, (3, 40), {"every": 40}),
    "squeeze and excitation": (lambda: Residual(gate=True), (3, 62), {"every": 1}),
    "group norm over the clip": (lambda: Residual(norm="group"), (3, 62), {}),
    "frames in the rows": (Video, (11, 3, 8, 7), {"dim": 1}),
    "frames in the rows, every 4": (Video, (11, 3, 8, 7), {"dim": 1, "every": 4}),
    "tokens and positions": (Tokens, (3, 40), {"every": 1}),
    "tokens and positions, by patches": (Tokens, (3, 40), {}),
    "skeleton": (Skeleton, (3, 25, 5), {}),
    "skeleton, each step": (Skeleton, (3, 24, 5), {"every": 1}),
    "both directions": (lambda: Tagger("mean"), (3, 21), {}),
    "both directions, last states": (lambda: Tagger("states"), (3, 21), {"every": 5}),
    "scaled by the clip": (Scaled, (4, 19), {}),
    "shifts and edges": (Shifts, (4, 63), {"every": 1}),
    "shifts and edges, by strides": (Shifts, (4, 64), {}),
    "down and up": (UpDown, (4, 32), {"every": 1}),
    "down and up, by strides": (UpDown, (4, 32), {}),
}


@pytest.mark.parametrize("name", by_turns(NETWORKS, 3))
def test_scores_are_the_modules_own(name, way):
    module, shape, options = NETWORKS[name]
    check(module(), shape, **options)


@pytest.mark.parametrize("frame, every", [(-1, None), (0, 1), (7, 3)])
def test_one_frame_of_each_window(frame, every, shared):
    net = check(Tagger(), (3, 21), score=lambda y: y[:, frame], every=every, output=frame)
    assert net.windows.every == (every or 1)


REUSE = [
    (Eeg, (1, 5, 128), {"dim": 3, "every": 1}, 0.6),
    (Residual, (3, 256), {"every": 1}, 0.9),
    (Skeleton, (3, 101, 5), {"every": 1}, 0.9),
    (Video, (31, 3, 8, 8), {"dim": 1}, 0.9),
    (Shifts, (4, 128), {"every": 1}, 0.8),
    (UpDown, (4, 64), {"every": 1}, 0.5),
]


@pytest.mark.parametrize("module, shape, options, least", REUSE, ids=[r[0].__name__ for r in REUSE])
def test_windows_take_over_what_they_have_in_common(module, shape, options, least, shared):
    assert check(module(), shape, **options).windows.reuse >= least


class Table(nn.Module):
    """A table that is added in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.table = nn.Conv1d(3, 4, 3, padding=1), nn.Parameter(torch.zeros(4, 30))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.tanh(self.conv(x)[:, :3] + self.table[:3])).amax(2)


def test_a_table_that_is_the_same_everywhere_may_be_another_one_tomorrow(shared):
    net = check(Table(), (3, 30))
    with torch.no_grad():
        net.table.copy_(torch.randn(4, 30))
        module = Table().double().eval()
        module.load_state_dict(net.state_dict())
        clip = torch.randn(2, 3, 41, dtype=torch.float64)
        net.clean_state()
        got = net.forward_steps(clip)
        want = torch.stack([module(clip[:, :, i : i + 30]) for i in range(12)], 2)
    assert (got - want).abs().max() < 1e-10


class Fades(nn.Module):
    """A window of weights over time that is 1 in its middle, and written in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        place = torch.arange(x.shape[2])
        fade = (torch.minimum(place, x.shape[2] - 1 - place) / 5).clamp(max=1.0)
        return self.conv(self.conv(x)[:, :3] * fade).amax(2)


def test_a_table_of_the_code_has_margins_where_it_varies(shared):
    """Found by random modules: a table without rows and channels was no table."""
    net = check(Fades(), (3, 60))
    assert net.windows.reuse > 0.5
