"""Operations that write into tensors: into a stream itself, into slices, and through views."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.convert.cases import noise, seeded
from tests.convert.rows import No, Row, check_refused, check_row, fn, no, row
from tests.programs.rows import check_rows


def whole(x: Tensor) -> Tensor:
    y = x * 1
    y += 1
    y.mul_(2).sub_(x)
    z = y.clamp_(min=-1)
    z.relu_()
    return y + z + x


def kept(m: nn.Module, x: Tensor) -> Tensor:
    """A causal convolution with a state of its own, which begins with every clip: what is written into it at the end is for the next."""
    state, known = torch.zeros(x.shape[0], 3, 4, dtype=x.dtype), torch.ones(x.shape[0], dtype=torch.bool)
    y = torch.cat((state, x), 2)
    z = F.conv1d(y, m.w)
    state[:] = torch.where(known.view(-1, 1, 1), y[..., -4:], state)
    return z


def views(x: Tensor) -> Tensor:
    y = x * 1
    first = y[:, 0]
    rows = y.transpose(1, 2)
    first.add_(10)  # seen through y, and through the other view
    return rows.transpose(1, 2) - y[:, :1] + first.unsqueeze(1)


def through_chunks(x: Tensor) -> Tensor:
    y = x * 1
    a, b = y.chunk(2, 1)
    a.mul_(3)
    b += a
    return y


def through_unbind(x: Tensor) -> Tensor:
    y = x.clone()
    for i, c in enumerate(y.unbind(1)):
        c.mul_(i)
    return y


def through_split(x: Tensor) -> Tensor:
    y = x * 1
    y.split([1, 3], 1)[1].neg_()
    return y


def through_shapes(x: Tensor) -> Tensor:
    y = x * 1
    y.transpose(1, 2)[:, :, 0].sub_(5)
    y.unsqueeze(1).mul_(2)
    y.view(y.shape[0], 2, 2, -1)[:, 1].zero_()
    y.permute(2, 0, 1)[:, :, 1].add_(1)
    return y


def channels(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 0] = 0
    y[:, 1:2] = y[:, 2:3] * 2
    y[:, -1] *= 3
    return y


def into_zeros(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :2] = x[:, 1:3]
    y[:, 3] = x[:, 0].exp()
    return y + x


def into_torch_zeros(x: Tensor) -> Tensor:
    y = torch.zeros(x.shape[0], 5, x.shape[2], dtype=x.dtype)
    y[:, 1:5] = x
    return y


def into_empty(x: Tensor) -> Tensor:
    y = x.new_empty(x.shape[0], 2, x.shape[2])
    y[:, 0] = x.sum(1)
    y[:, 1] = x.amax(1)
    return y


def shift(x: Tensor) -> Tensor:
    """The temporal shift of published code: written into zeros."""
    y = torch.zeros_like(x)
    y[:, :1, :-1] = x[:, :1, 1:]
    y[:, 1:2, 1:] = x[:, 1:2, :-1]
    y[:, 2:] = x[:, 2:]
    return y


def causal_shift(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :, 1:] = x[:, :, :-1]
    return y


def shift_of_segments(x: Tensor) -> Tensor:
    """The same on frames that lie in the batch, ``(B·T, C, H, W)``."""
    b, t = x.shape[:2]
    flat = x.reshape(b * t, *x.shape[2:])
    y = flat.view(b, t, *x.shape[2:])
    out = torch.zeros_like(y)
    out[:, :-1, :1] = y[:, 1:, :1]
    out[:, 1:, 1:2] = y[:, :-1, 1:2]
    out[:, :, 2:] = y[:, :, 2:]
    return out.view(b * t, *x.shape[2:]).relu().view(b, t, *x.shape[2:])


def neighbours(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :, :-1] += x[:, :, 1:]
    y[:, 1:, 2:] *= x[:, 1:, :-2]
    return y


def middle(x: Tensor) -> Tensor:
    y = x * 3
    y[:, :, 2:-1] = F.avg_pool1d(x, 4, 1)
    return y


def masked(x: Tensor) -> Tensor:
    y = x.clone()
    y.masked_fill_(y > 1, 0.5)
    y[:, 0].clamp_(0, 1)
    return y


def indexed(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, [0, 2]] = 7.0
    y.index_fill_(1, torch.tensor([1]), -1.0)
    y.index_add_(1, torch.tensor([3]), x[:, :1])
    return y


def layouts(x: Tensor) -> Tensor:
    y = x * 2
    y.unsqueeze_(1).squeeze_(1).transpose_(1, 2)
    return y.t_() if y.ndim == 2 else y.transpose_(1, 2).add_(1)


def unused_base(x: Tensor) -> Tensor:
    y = (x * 2).unfold(2, 3, 3)
    y.mul_(0.5)  # through a view that can't be undone, of a tensor that nobody looks at again
    return y.sum(-1)


def positions_in_place(x: Tensor) -> Tensor:
    p = torch.arange(x.shape[2], dtype=x.dtype)
    p.mul_(0.1).add_(1)
    return x * p


def accumulated(x: Tensor) -> Tensor:
    out = x.new_zeros(x.shape)
    for k in range(3):
        out += F.pad(x, (k, 0))[:, :, : x.shape[2]] * (k + 1)
    return out


def two_dimensions(x: Tensor) -> Tensor:
    """Slices of two dimensions are written. Of what the second leaves out, the first has written a part."""
    y = torch.zeros_like(x)
    y[:, 1:3] = x[:, 1:3]
    y[..., 2:4] = x[..., 2:4]
    return y[..., :1] * 2


def shift_of_a_token(x: Tensor) -> Tensor:
    """Channels of one token go to the neighbouring frames; the last write is between frames of a stream, of a cut that waits."""
    y = torch.zeros_like(x)
    y[:, :, 1:, :1] = x[:, :, :-1, :1]
    y[:, 2:, :-1, :1] = x[:, 2:, 1:, :1] * 2
    y[:, :, :, 1:] = x[:, :, :, 1:]
    return y


class Residual(nn.Module):
    """In-place activations and additions, as torchvision writes them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv1d(4, 4, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.conv(x))
        out = self.conv(out)
        out += x
        return self.relu(out)


FOUR = (2, 4, 9)
ROWS = [
    fn("a tensor itself", whole, delay=0),
    fn("seen through views", views, delay=0),
    fn("a state that nothing reads", kept, params={"w": (2, 3, 5)}, delay=0, field=5),
    fn("through chunks", through_chunks, shape=FOUR, delay=0),
    fn("through unbind", through_unbind, delay=0),
    fn("through split", through_split, shape=FOUR, delay=0),
    fn("through shapes", through_shapes, shape=FOUR, delay=0),
    fn("channels", channels, shape=FOUR, delay=0),
    fn("into zeros", into_zeros, shape=FOUR, delay=0),
    fn("into torch.zeros", into_torch_zeros, shape=FOUR, delay=0),
    fn("into empty", into_empty, shape=FOUR, delay=0),
    fn("temporal shift", shift, shape=FOUR, delay=1),
    fn("causal shift", causal_shift, delay=0),
    fn("temporal shift of segments", shift_of_segments, shape=(2, 7, 4, 3, 2), time=1, delay=1),
    fn("temporal shift of a token", shift_of_a_token, shape=(2, 4, 9, 5), delay=1),
    fn("into neighbouring frames", neighbours, shape=FOUR, delay=2),
    fn("into the middle of a clip", middle, shape=FOUR, delay=3),
    fn("masked", masked, delay=0),
    fn("indexed", indexed, shape=FOUR, delay=0),
    fn("layouts in place", layouts, delay=0),
    fn("a view that can't be undone", unused_base, delay=2),
    fn("positions", positions_in_place, delay=0),
    fn("accumulated taps", accumulated, delay=0, field=3),
    fn("into two dimensions of zeros", two_dimensions, shape=(2, 4, 9, 5), delay=0),
    row("residual network", Residual, shape=FOUR, delay=2, field=5),
    fn("fill, zero, copy", lambda x: (x * 1).fill_(2.0) + (x * 1).zero_() + torch.empty_like(x).copy_(x), delay=0),
    fn("addcmul_, lerp_, clamp_", lambda x: (x * 1).addcmul_(x, x, value=2).lerp_(x, 0.3).clamp_(-2, 2), delay=0),
]  # fmt: skip


def used_base(x: Tensor) -> Tensor:
    y = x * 2
    y.unfold(2, 3, 1).mul_(0.5)
    return y


def one_frame(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :, 3] = 0
    return y


def first_frames(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :, :2] = x[:, :, 1:3]
    return y


def every_other(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :, ::2] = x[:, :, ::2]
    return y


class Counter(nn.Module):
    """A module with a state of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(3, 1))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x.mean((0, 2)).unsqueeze(1).detach()
        return x + self.seen


REFUSED = [
    no("windows of a tensor that is used", used_base, "written into through a view made by `unfold`", "slices"),
    no("one frame", one_frame, "writes single frames", "torch.cat over time.*where"),
    no("the first frames", first_frames, "frames of the clip alone|part of another stream", "torch.cat|zeros"),
    no("every other frame", every_other, "every other frame", "where|transposed"),
    no("a buffer of its own", Counter, "changes its own|state|rows of the batch", "stream has its own|batch"),
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_writes(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)


class Shifted(nn.Module):
    """A temporal shift of some channels of ``(B, T, C)``, written in place: the code of most networks with one."""

    def __init__(self, back: bool) -> None:
        super().__init__()
        self.linear, self.back = nn.Linear(3, 6), back

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        out = torch.zeros_like(y)
        if self.back:
            out[:, :-1, 4:] = y[:, 1:, 4:]
        else:
            out[:, :, 4:] = y[:, :, 4:]
        out[:, 1:, :2] = y[:, :-1, :2]
        out[:, :, 2:4] = y[:, :, 2:4]
        return out


@pytest.mark.parametrize("back", [False, True])
def test_a_shift_of_some_channels_waits_for_none(back: bool) -> None:
    """Frames of all channels waited for the cut of some; without a look ahead, the first two outputs came at once, in no program."""
    module = seeded(lambda: Shifted(back))
    net = co.continual(module, noise(2, 9, 3), time_dim=1)
    assert net.delay == int(back)
    co.verify(net, noise(2, 14, 3), reference=module)
    check_rows(net, noise(2, 14, 3))
