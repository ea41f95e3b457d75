"""Lengths at which twins are compared with their modules, so that numbers of the example show."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from continual.convert.graph.capture import capture
from continual.convert.graph.check_lengths import MOST, affordable, other_lengths
from continual.convert.graph.program_draft import ProgramDraft
from continual.convert.graph.self_check import check_clip
from continual.core.timing import IDENTITY
from tests.contract import assert_equal
from tests.convert.rows import Fn


def shifted_in_groups(split: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Differences of frames, and a shift of these within groups of some frames of ``(B, T, C)``."""

    def run(x: Tensor) -> Tensor:
        y = x[:, 1:] - x[:, :-1]
        return F.pad(split(y), (0, 0, 1, -1)).reshape(y.shape)

    return run


GROUPS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "reshape": (4, lambda y: y.reshape(y.shape[0] * y.shape[1] // 4, 4, y.shape[2])),
    "reshape, the rest": (4, lambda y: y.reshape(-1, 4, y.shape[2])),
    "view": (4, lambda y: y.contiguous().view(y.shape[0] * y.shape[1] // 4, 4, -1)),
    "unflatten": (4, lambda y: y.flatten(0, 1).unflatten(0, (-1, 4))),
    "unflatten, groups of eleven": (11, lambda y: y.flatten(0, 1).unflatten(0, (-1, 11))),
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups_of_frames(name: str) -> None:
    """Twice the example is no length of such a module, nor are most others: within groups, it shifts the frames of whole ones."""
    size, split = GROUPS[name]
    module, clip = Fn(shifted_in_groups(split)).eval().double(), torch.randn(2, 2 * size + 1, 3, dtype=torch.float64)
    with pytest.raises(RuntimeError):
        module(torch.cat((clip, clip), 1)[:1])
    net = co.continual(module, clip, time_dim=1)
    assert (net.lengths, net.delay) == ("same rest", size)
    assert f"takes {size} frames together" in net.notes[0]
    assert_equal(net(clip), module(clip), "forward")
    longer = torch.randn(2, 5 * size + 1, 3, dtype=torch.float64)
    assert_equal(
        torch.cat([y for y in map(net.forward_step, longer.unbind(1)) if y is not None], 1), module(longer), "a longer stream"
    )
    co.verify(net, clip, reference=module)


@pytest.mark.parametrize("name", [name for name in GROUPS if "unflatten" not in name])
def test_one_group_as_long_as_the_example(name: str) -> None:
    """A size of the export that is that of the only group, or of the clip."""
    size, split = GROUPS[name]
    module, clip = Fn(shifted_in_groups(split)).eval(), torch.randn(2, size + 1, 3)
    with pytest.raises(co.NotStreamable, match=rf"reshape.*is what clips of {size + 1} steps alone have, at rows.py"):
        co.continual(module, clip, time_dim=1)


def alternating(x: Tensor) -> Tensor:
    return x if x.shape[2] % 2 else -x


def counted(x: Tensor) -> Tensor:
    return x * (int(x.shape[2]) % 3 - 1)


def table_of_python(x: Tensor) -> Tensor:
    return x + torch.tensor([float(i % 4) for i in range(x.shape[2])], dtype=x.dtype)


def halves(x: Tensor) -> Tensor:
    return torch.cat([part.cumsum(2) for part in x.chunk(2, 2)], 2)


def fours(x: Tensor) -> Tensor:
    return torch.cat([part.flip(2) for part in x.split(4, 2)], 2)


def first_positions(x: Tensor) -> Tensor:
    return x + torch.arange(12)[: x.shape[2]].repeat(-(-x.shape[2] // 12))[: x.shape[2]]


@pytest.mark.parametrize("body", [alternating, counted, table_of_python, halves, fours, first_positions])
def test_other_numbers_of_the_example(body: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(co.NotStreamable):
        co.continual(Fn(body).eval(), torch.randn(2, 3, 12))


def test_the_length_is_named() -> None:
    with pytest.raises(co.NotStreamable, match=r"on a clip of 13 steps \(the example has 12\)"):
        co.continual(Fn(alternating).eval(), torch.randn(2, 3, 12))


def test_lengths_that_only_the_twin_refuses_say_nothing() -> None:
    """A network that halves time and doubles it again is for even lengths, as its note says."""
    module = Fn(lambda x: x + F.interpolate(F.avg_pool1d(x, 2), size=x.shape[2])).eval()
    net = co.continual(module, torch.randn(2, 3, 12))
    assert "lengths that the strides divide" in str(net.notes)
    clip = torch.randn(2, 3, 14)
    torch.testing.assert_close(net(clip), module(clip))


class OneLength:
    """A twin that refuses all lengths but that of the example."""

    timing = IDENTITY

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[2] != 12:
            raise co.ShapeMismatch("the streams that meet have [3, 2] steps")
        return x


def test_a_twin_for_the_length_of_the_example_alone_is_refused() -> None:
    """The conversion ended in the twin's own words, without a remedy."""
    captured = capture(nn.ReLU(), torch.ones(2, 3, 12), 2)
    with pytest.raises(
        co.NotStreamable, match=r"takes clips of the example's 12 steps alone.*such as 24 \(.*Remedies: pad or cut"
    ):
        check_clip(OneLength(), IDENTITY.period, nn.ReLU(), ProgramDraft(captured, nn.ReLU()))


class Strided(nn.Sequential):
    """Convolutions of stride 2."""

    def __init__(self, count: int, channels: int = 2):
        super().__init__(*(nn.Conv1d(channels, channels, 3, stride=2, padding=1) for _ in range(count)))


@pytest.mark.parametrize(("count", "every"), [(1, 2), (2, 4), (3, 8)])
def test_every_rest_of_the_stride_is_tried(count: int, every: int) -> None:
    captured = capture(Strided(count).eval(), torch.randn(2, 2, 37), 2)
    lengths = other_lengths(captured, every)[: affordable(captured)]
    assert affordable(captured) == MOST
    assert 74 in lengths
    assert {n % every for n in [37, *lengths]} == set(range(every))


def test_groups_of_frames_are_found_in_the_graph() -> None:
    module = Fn(lambda x: x.unflatten(2, (-1, 11)).amax((2, 3)) + x.reshape(x.shape[0], 3, -1, 22).amax((2, 3))).eval()
    assert {11, 22} <= {n - 44 for n in other_lengths(capture(module, torch.randn(2, 3, 44), 2), 1)}


def test_large_modules_are_compared_on_fewer_lengths() -> None:
    module = nn.Conv3d(64, 512, 3, device="meta").eval()
    small = capture(Strided(1).eval(), torch.randn(2, 2, 37), 2)
    assert affordable(small) == MOST
    assert affordable(capture(module, torch.randn(2, 64, 16, 112, 112, device="meta"), 2)) == 2


def doubled(decay: float) -> nn.Module:
    """A running mean by a loop whose number of rounds follows from the length."""

    def scan(x: Tensor) -> Tensor:
        shift, a = 1, decay
        while shift < x.shape[2]:
            x = x + a * F.pad(x, (shift, 0))[:, :, :-shift]
            shift, a = 2 * shift, a * a
        return x

    return Fn(scan).eval()


@pytest.mark.parametrize("decay", [0.9, 0.58], ids=["of much", "of little more than rounding"])
def test_a_loop_whose_rounds_follow_from_the_length_is_no_stream(decay: float) -> None:
    """Found by the gallery: a difference of 2e-4 on longer clips was taken for rounding."""
    module, clip = doubled(decay), torch.randn(2, 3, 12)
    with pytest.raises(co.NotStreamable, match=r"other operations for clips of more than 16 steps.*co\.scan.*output=-1"):
        co.continual(module, clip)
    net, longer = co.continual(module, clip, output=-1), torch.randn(2, 3, 14)
    wanted = torch.stack([module(longer[:, :, t : t + 12])[:, :, -1] for t in range(3)], 2)
    assert_equal(net(longer), wanted, "windows")


def test_a_difference_that_rounding_explains_is_none() -> None:
    """In single precision, sums of large terms that cancel are off by as much as another function would be."""
    module, clip = Fn(lambda x: (x * 1e-3 + 3.0).cumsum(2) - 3.0 * torch.arange(1, x.shape[2] + 1)).eval(), torch.randn(2, 2, 30)
    captured = capture(module, clip, 2)
    other = Fn(lambda x: (x * 1e-3).cumsum(2)).eval()
    assert float((module(clip) - other(clip)).abs().max()) > 1e-6
    check_clip(other, IDENTITY.period, module, ProgramDraft(captured, module))
