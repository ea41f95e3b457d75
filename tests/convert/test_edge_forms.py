"""Edge frames repeated or mirrored by `cat`, and a pre-emphasis whose first frame stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import continual as co
from tests.convert.rows import Fn, No, Row, check_refused, check_row, fn, no


def emphasis(x: Tensor) -> Tensor:
    return torch.cat((x[:, :, :1], x[:, :, 1:] - 0.97 * x[:, :, :-1]), 2)


ROWS = [
    fn("the first frame again", lambda x: torch.cat((x[:, :, :1], x), 2).cumsum(2), delay=0),
    fn("the first frame three times", lambda x: torch.cat((x[:, :, :1].repeat(1, 1, 3), x), 2).cumsum(2)),
    fn("both edges", lambda x: torch.cat((x[:, :, :1].expand(-1, -1, 2), x, x[:, :, -1:].expand(-1, -1, 3)), 2) * 2),
    fn("the last frame, time first", lambda x: torch.cat((x, x[:, -1:].repeat(1, 2, 1)), 1) + 1, shape=(2, 13, 3), time=1),
    fn("with the rows' number", lambda x: torch.cat((x[:, :, :1].expand(x.shape[0], 3, 2), x), 2).tanh()),
    fn("mirrored", lambda x: torch.cat((x[:, :, 1:4].flip(2), x, x[:, :, -3:-1].flip(2)), 2) * 3),
    fn("pre-emphasis", emphasis, delay=0),
    fn("of two frames before, the factor behind", lambda x: torch.cat((x[:, :, :2], x[:, :, 2:] - x[:, :, :-2] * 0.5), 2), delay=1),
    fn("another factor for each frame", lambda x: torch.cat((x[:, :, :1], x[:, :, 1:] - x[:, :, :-1] * x[:, :, :1]), 2)),
    fn("on waveforms", lambda x: torch.cat((x[:, :1], x[:, 1:] - 0.9 * x[:, :-1]), 1), shape=(2, 13), time=1, delay=0),
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_streams(case: Row) -> None:
    check_row(case)


def test_space_is_no_time() -> None:
    module = Fn(lambda x: torch.cat((x[..., :1].repeat(1, 1, 1, 2), x), 3).cumsum(2)).eval()
    clip = torch.randn(2, 3, 9, 5)
    net: Any = co.continual(module, clip)
    torch.testing.assert_close(net(clip), module(clip))


REFUSED = [
    no("frames of another tensor", lambda x: torch.cat(((x * 2)[:, :, :1], x), 2), "takes the first frame", "a shift by"),
    no("two frames repeated", lambda x: torch.cat((x[:, :, :2].repeat(1, 1, 2), x), 2), "takes the first 2 frames", "a shift by"),
    no("the edge frame in reverse", lambda x: torch.cat((x[:, :, :3].flip(2), x), 2), "takes the first 3 frames", "a shift by"),
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)
