"""Code in which the first frames are others than the rest: differences of neighbours, deltas, writes into later frames."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import continual as co
from tests.convert.cases import noise
from tests.convert.rows import Fn
from tests.programs.rows import check_rows


def written(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[:, 1:] = x[:, 1:] - x[:, :-1]
    return out


def emphasised(x: Tensor) -> Tensor:
    out = x.clone()
    out[:, 1:] = x[:, 1:] - 0.97 * x[:, :-1]
    return out * 2


def written_twice(x: Tensor) -> Tensor:
    """The second write is into what the first one made."""
    out = torch.ones_like(x)
    out[:, 1:] = x[:, 1:] * x[:, :-1]
    out[:, 2:] = x[:, 2:] - x[:, :-2]
    return out


FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "padded difference": lambda x: F.pad(x[:, 1:] - x[:, :-1], (0, 0, 1, 0)),
    "padded diff": lambda x: F.pad(torch.diff(x, dim=1), (0, 0, 1, 0)),
    "padded diff of the last dimension": lambda x: F.pad(x.mT.diff(), (1, 0)).mT,
    "a value before": lambda x: F.pad((x[:, 1:] * x[:, :-1]).tanh(), (0, 0, 1, 0), value=1.5),
    "zeros before": lambda x: torch.cat((torch.zeros_like(x[:, :1]), x[:, 1:] - x[:, :-1]), 1),
    "the first frame before": lambda x: torch.cat((x[:, :1], x[:, 1:] - x[:, :-1]), 1),
    "two frames before": lambda x: torch.cat((x[:, :2], 0.5 * (x[:, 2:] + x[:, :-2]) - x[:, 1:-1]), 1),
    "nothing before, as empty caches are": lambda x: torch.cat((x.new_zeros(0), x.tanh()), 1),
    "prepended": lambda x: torch.diff(x, dim=1, prepend=x[:, :1]),
    "written": written,
    "emphasised": emphasised,
    "written twice": written_twice,
}


@pytest.mark.parametrize("name", FORMS)
def test_frames_do_not_wait(name: str) -> None:
    """A frame was held back by the cut, the first two came at once, and no program had them; some were refused."""
    module = Fn(lambda x: torch.cat((x, FORMS[name](x)), 2)).eval()
    net = co.continual(module, noise(2, 12, 3), time_dim=1)
    assert net.delay == 0
    co.verify(net, noise(2, 19, 3), reference=module)
    check_rows(net, noise(2, 19, 3))


def test_whole_numbers_stay_whole() -> None:
    module = Fn(lambda x: F.pad(x[:, 1:] - x[:, :-1], (0, 0, 1, 0), value=7)).eval()
    clip = torch.randint(0, 9, (2, 12, 3))
    net = co.continual(module, clip, time_dim=1)
    assert net.delay == 0
    assert torch.equal(net.forward_steps(clip), module(clip))


def read_between(x: Tensor) -> Tensor:
    """The tensor is read before it is written into."""
    out = torch.zeros_like(x)
    before = out + 1
    out[:, 1:] = x[:, 1:] - x[:, :-1]
    return out + before


def seen_through_a_view(x: Tensor) -> Tensor:
    """A view that was taken before sees what is written."""
    out = torch.zeros_like(x)
    view = out[:, :, :2]
    out[:, 1:] = x[:, 1:] - x[:, :-1]
    return view + x[:, :, :2]


OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "read between": read_between,
    "seen through a view": seen_through_a_view,
    "a frame more before": lambda x: F.pad(x[:, 1:] - x[:, :-1], (0, 0, 2, 0))[:, 1:],
    "a broadcast": lambda x: F.pad(x[:, 1:] - x[:, :-1, :1], (0, 0, 1, 0)),
    "behind": lambda x: F.pad(x[:, 1:] - x[:, :-1], (0, 0, 0, 1)),
    "of a part": lambda x: F.pad(x[:, 3:] - x[:, 2:-1], (0, 0, 1, 0)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_forms_stay_exact(name: str) -> None:
    module = Fn(OTHERS[name]).eval()
    co.verify(co.continual(module, noise(2, 12, 3), time_dim=1), noise(2, 19, 3), reference=module)
