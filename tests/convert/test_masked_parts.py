"""Elements that a mask of the stream chooses: written, or computed of those that the same mask chooses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.convert.cases import noise
from tests.convert.rows import Fn, No, Row, check_refused, check_row, fn, in_turns, no
from tests.long import one_in
from tests.programs.rows import check_rows

BTC: dict = {"shape": (2, 11, 4), "time": 1, "delay": 0}


def clipped(x: Tensor) -> Tensor:
    y = x + 0.1
    y[y < 0] = 0
    y[y != y] = y.new_tensor(1.0)
    return y


def marked(x: Tensor) -> Tensor:
    """Into tensors that are made here, of which one has no stream's values."""
    made, like = torch.ones(x.shape[0], x.shape[1], 4, dtype=x.dtype), torch.zeros_like(x)
    made[x > 0.3] = -2.0
    like[x < 0.1] = 5.0
    return made * x + like


def frames(x: Tensor) -> Tensor:
    """Whole frames, a part of each, and the same for all chosen rows."""
    y = x * 2
    y[x[..., 0] > 0] = 0.5
    y[:, :, 1][x[:, :, 2] > 0] = -1
    y[x[..., 1] > 0.2] = torch.arange(4, dtype=x.dtype)
    return y


def halves(x: Tensor) -> Tensor:
    """A function that has no value, and no gradient, outside of its mask."""
    y = x * 3
    positive = y > 0
    y[positive] = y[positive].log() + 2
    y[~positive] = -torch.sqrt(-y[~positive] + 0.1)
    return y


def read_before(x: Tensor) -> Tensor:
    """What is chosen is read before another write."""
    y, mask = x.clone(), x > 0.2
    held = y[mask] * 2 - x[mask].abs()
    y[..., :2] = 7.0
    y[mask] = held
    return y


def written_down_twice(x: Tensor) -> Tensor:
    y, z = x.clone(), x.flip(-1)
    y[z.abs() > 0.5] = z[z.abs() > 0.5] + 1
    y[y < 0] *= 0.1
    return y


def rows(m: nn.Module, x: Tensor) -> Tensor:
    """A layer for chosen frames alone."""
    out, mask = x.new_zeros(*x.shape[:2], 3), x[..., 0] > 0
    out[mask] = torch.tanh(F.linear(x[mask], m.w, m.b))
    return out


ROWS = [
    fn("clipped", clipped, **BTC),
    fn("marked", marked, **BTC),
    fn("frames", frames, **BTC),
    fn("halves", halves, **BTC),
    fn("read before", read_before, **BTC),
    fn("written down twice", written_down_twice, **BTC),
    fn("rows", rows, params={"w": (3, 4), "b": (3,)}, **BTC),
]


def turned(x: Tensor) -> Tensor:
    """The same mask once more, behind a write: other elements are chosen."""
    y = x.clone()
    held = y[y > 0]
    y.copy_(y.flip(-1))
    y[y > 0] = held
    return y


REFUSED = [
    no(
        "a mean of what is chosen",
        lambda x: x - x[x > 0].mean(),
        "how many elements there are",
        "torch.where",
        shape=(2, 11, 4),
        time=1,
    ),
    no(
        "sorted",
        lambda x: x.index_put((x > 0,), x[x > 0].sort().values),
        "how many elements",
        "torch.where",
        shape=(2, 11, 4),
        time=1,
    ),
    no("another mask", turned, "how many elements", "torch.where", shape=(2, 11, 4), time=1),
]


@pytest.mark.parametrize("case", in_turns(ROWS, 3))
def test_chosen_elements(case: Row) -> None:
    """They were refused: their number depends on values."""
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_what_depends_on_their_number(case: No) -> None:
    check_refused(case)


def test_in_programs_and_other_dtypes() -> None:
    module, clip = Fn(lambda x: halves(x) + frames(x)).eval(), noise(2, 12, 4)
    net = co.continual(module, clip, time_dim=1)
    check_rows(net, noise(2, 19, 4))
    single = clip.float()
    assert torch.allclose(net.float()(single), module(single), atol=1e-5)


class Spikes(nn.Module):
    """Neurons whose potential is taken down where they spike."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        v, found = x.new_zeros(x.shape[0], 3), []
        for t in range(x.shape[1]):
            v = 0.9 * v + self.inputs(x[:, t])
            spikes = v > 0.5
            v[spikes] = v[spikes] - 1
            found.append(v.clone())
        return torch.stack(found, 1)


@one_in(4)
def test_in_a_loop() -> None:
    """The loop was not seen: a run on shapes alone ended at the mask."""
    module = Spikes().eval()
    net, clip = co.continual(module, noise(2, 6, 4), time_dim=1), noise(2, 21, 4)
    assert torch.allclose(net.forward_steps(clip), module(clip), atol=1e-6)
    assert net.delay == 0
