"""The first frame of the clip beside all frames."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.convert.cases import noise
from tests.convert.rows import Fn, No, Row, check_refused, check_row, fn, in_turns, no
from tests.programs.rows import check_rows

BTC: dict = {"shape": (2, 11, 4), "time": 1, "delay": 0}
SKELETON: dict = {"shape": (2, 9, 5, 3), "time": 1, "delay": 0}


def of_a_layer(m: nn.Module, x: Tensor) -> Tensor:
    """A gate of the first frame, and a bias of it, which two paths use."""
    first = x[:, 0]
    context = torch.tanh(F.linear(first, m.w, m.b) + 0.5)
    return x * torch.sigmoid(context)[:, None] + context.abs().unsqueeze(1) * m.g


def written_before(x: Tensor) -> Tensor:
    y = x * 2
    y[..., 1:] *= 3
    return y - y[:, :1]


ROWS = [
    fn("written before", written_before, **BTC),
    fn("relative to it", lambda x: x - x[:, :1], **BTC),
    fn("by its size", lambda x: x / (x[..., :1].abs() + 1), shape=(2, 4, 11), delay=0),
    fn("selected", lambda x: x - x[:, 0].unsqueeze(1) * 2, **BTC),
    fn("of a layer", of_a_layer, params={"w": (4, 4), "b": (4,), "g": (4,)}, **BTC),
    fn("relative to its first joint", lambda x: torch.cat((x - x[:, :1, :1], x[:, :, 1:] - x[:, :, :1]), 2), **SKELETON),
    fn("expanded", lambda x: torch.cat((x, x[:, :1].expand(-1, x.shape[1], -1) + 1), -1), **BTC),
    fn("repeated", lambda x: torch.cat((x, x[:, :1].tanh().repeat(1, x.shape[1], 1)), -1), **BTC),
    fn("behind a convolution", lambda m, x: (y := F.conv1d(x, m.w, stride=2, padding=1).relu()) - y[:, :, :1], shape=(2, 4, 11),
       params={"w": (5, 4, 3)}, delay=1),
]  # fmt: skip


def written_later(x: Tensor) -> Tensor:
    """The first frame is a view, which sees what is written later."""
    y = x * 2
    first = y[:, :1]
    y *= 3
    return y - first


REFUSED = [
    no("among channels", lambda x: x + x[:, :1].flatten(1).mean(1)[:, None, None], "first frame of the clip", "shift", shape=(2, 11, 4),
       time=1),
    no("written later", written_later, "first frame of the clip", "shift", shape=(2, 11, 4), time=1),
    no("with sizes of its own", lambda x: x + x[:, 0].reshape(x.shape[0], 1, 4), "frame 0 of the whole clip", "last n frames",
       shape=(2, 11, 4), time=1),
    no("the second", lambda x: x - x[:, 1:2], "frame 1 of the clip alone", "windows", shape=(2, 11, 4), time=1),
]  # fmt: skip


@pytest.mark.parametrize("case", in_turns(ROWS, 3))
def test_first_frames(case: Row) -> None:
    """They were refused, since a stream has its first frame once: it keeps it."""
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)


def test_in_programs_and_other_dtypes() -> None:
    module = Fn(lambda x: torch.cat((x - x[:, :1], x * x[:, 0][:, None]), -1)).eval()
    net = co.continual(module, noise(2, 12, 4), time_dim=1)
    check_rows(net, noise(2, 19, 4))
    clip = noise(2, 9, 4).half()
    assert torch.allclose(net.half()(clip), module(clip))


def test_a_score_of_the_clip_is_that_of_its_window() -> None:
    """There the first frame is that of the window."""
    module, stream = Fn(lambda x: (x - x[:, :1]).mean(1)).eval(), noise(2, 9, 4)
    net = co.continual(module, noise(2, 6, 4), time_dim=1)
    assert torch.allclose(net.forward_steps(stream)[:, :, -1], module(stream[:, 3:]), atol=1e-6)
