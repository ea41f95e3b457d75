"""Lengths that modules compute: padding to a multiple, crops to the clip's length. In a stream they concern its end alone."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.contract import TOO_SHORT, assert_equal, random_split
from tests.convert.end_networks import ComplexUNet, ConvTasNet, Demucs, PaddedConv, SEANet, Squeezed
from tests.convert.rows import F64, Fn, No, check_refused, no
from tests.convert.streaming import stream
from tests.long import by_turns
from tests.programs.rows import check_rows

DOWN, UP = nn.Conv1d(3, 4, 4, 2).to(F64).eval(), nn.ConvTranspose1d(4, 3, 4, 2).to(F64).eval()


def to_fours(x: Tensor) -> Tensor:
    return F.pad(x, (0, -x.shape[2] % 4))


def shifted_to_threes(x: Tensor) -> Tensor:
    return F.pad(x, (2, -x.shape[2] % 3), value=0.5).cumsum(2)


def repeated(x: Tensor) -> Tensor:
    return F.avg_pool1d(F.pad(x, (1, 3 - x.shape[2] % 3), "replicate"), 3)


def mirrored(x: Tensor) -> Tensor:
    return F.avg_pool1d(F.pad(x, (2, -x.shape[2] % 4), "reflect"), 3, 2)


def groups_cut_off(x: Tensor) -> Tensor:
    return x[:, :, : x.shape[2] // 4 * 4]


def rest_cut_off(x: Tensor) -> Tensor:
    return F.avg_pool1d(x.narrow(2, 0, x.shape[2] - x.shape[2] % 3), 3)


def cut_to_the_clip(x: Tensor) -> Tensor:
    return UP(F.relu(DOWN(F.pad(x, (0, 4 + x.shape[2] % 2)))))[..., : x.shape[2]]


def skip_cut(x: Tensor) -> Tensor:
    y = UP(DOWN(x).tanh())
    return x[..., : y.shape[-1]] + y


def shortest_of_two(x: Tensor) -> Tensor:
    a, b = F.avg_pool1d(x, 3, 2), F.max_pool1d(x, 2, 2)
    n = min(a.shape[2], b.shape[2])
    return a[:, :, :n] * b[:, :, :n]


def back_to_the_clip(x: Tensor) -> Tensor:
    y = UP(DOWN(x))
    return x + F.pad(y, (0, x.shape[2] - y.shape[2]), value=-0.25)


def evens_and_odds(x: Tensor) -> Tensor:
    return x[:, :, ::2][:, :, : x.shape[2] // 2] * 2 + x[:, :, 1::2]


def twice(x: Tensor) -> Tensor:
    x = F.avg_pool1d(to_fours(x), 2)
    return F.max_pool1d(F.pad(x, (1, -x.shape[2] % 3)), 3)


def groups_if_needed(x: Tensor) -> Tensor:
    if x.shape[2] % 4:
        x = F.pad(x, (0, 4 - x.shape[2] % 4), value=0.5)
    return F.avg_pool1d(x, 4)


def groups_and_back(x: Tensor) -> Tensor:
    more = 3 - x.shape[2] % 3
    if more < 3:
        x = F.pad(x, (0, more))
    y = F.interpolate(F.avg_pool1d(x, 3), scale_factor=3.0).cumsum(2)
    if more < 3:
        y = y[..., :-more]
    return y


def cut_if_longer(x: Tensor) -> Tensor:
    y = F.interpolate(x[..., ::2].tanh(), scale_factor=2.0)
    if y.shape[-1] != x.shape[-1]:
        y = y[..., : x.shape[-1]]
    return x + y


def filled_if_shorter(x: Tensor) -> Tensor:
    y = F.interpolate(F.max_pool1d(x, 2), scale_factor=2.0)
    if y.shape != x.shape:
        y = F.pad(y, (0, x.shape[-1] - y.shape[-1]))
    return x + y


def last_frame_repeated(x: Tensor) -> Tensor:
    more = -x.shape[2] % 3
    if more:
        x = torch.cat((x, x[:, :, -1:].expand(-1, -1, more)), 2)
    return F.avg_pool1d(x, 3)


def frames_together(x: Tensor) -> Tensor:
    """The frames of a group side by side, and back; the last group is filled up with the last frame if it needs it."""
    more = -x.shape[2] % 3
    y = torch.cat((x, x[:, :, -1:].repeat(1, 1, more)), 2) if more else x
    y = y.reshape(x.shape[0], 3, -1, 3).cumsum(3)[..., 2:].expand(-1, -1, -1, 3).reshape(x.shape[0], 3, -1)
    return x + y[..., : x.shape[2]]


def joined_to_zeros(x: Tensor) -> Tensor:
    more = x.new_zeros(x.shape[0], x.shape[1], -x.shape[2] % 4)
    return F.avg_pool1d(torch.cat((x, more), 2), 4)


def between_values(x: Tensor) -> Tensor:
    first = torch.full((x.shape[0], 3, 2), 0.5, dtype=x.dtype)
    last = torch.full((x.shape[0], 3, 3 - x.shape[2] % 3), 0.5, dtype=x.dtype)
    return torch.cat((first, x, last), -1).cumsum(2)


def two_of_seven(x: Tensor) -> Tensor:
    y = F.avg_pool1d(F.pad(F.interpolate(x, scale_factor=2.0), (0, 16)), 7)
    return y[..., : math.ceil(2 * x.shape[2] / 7)]


def in_blocks(x: Tensor) -> Tensor:
    """A moving sum in overlapping blocks of 9 frames at most, which lie over each other in memory (as julius writes it)."""
    if x.shape[-1] < 3:
        raise RuntimeError("a window of 3 needs 3 frames")
    n, size = x.shape[-1], min(9, x.shape[-1])
    blocks = math.ceil((n - size) / (size - 2)) + 1
    x = F.pad(x, (0, (blocks - 1) * (size - 2) + size - n)).contiguous()
    y = x.as_strided([*x.shape[:2], blocks, size], [x.stride(0), x.stride(1), size - 2, 1])
    y = y[..., 2:] + y[..., 1:-1] - 0.5 * y[..., :-2]
    return y.reshape(x.shape[0], x.shape[1], -1)[..., : n - 2]


# name: module, the shortest clip that it takes, delay
ENDS: dict[str, tuple[Callable[[Tensor], Tensor], int, int]] = {
    f.__name__: (f, least, delay)
    for f, least, delay in (
        (to_fours, 1, 0), (shifted_to_threes, 1, 0), (repeated, 1, 1), (mirrored, 3, 2), (groups_cut_off, 4, 3), (rest_cut_off, 3, 2),
        (cut_to_the_clip, 1, 3), (skip_cut, 4, 3), (shortest_of_two, 3, 2), (back_to_the_clip, 4, 3), (twice, 1, 3),
        (evens_and_odds, 2, 1), (groups_if_needed, 1, 3), (groups_and_back, 1, 2), (joined_to_zeros, 1, 3),
        (last_frame_repeated, 1, 2), (frames_together, 1, 2),
        (cut_if_longer, 1, 0), (filled_if_shorter, 2, 1),
        (between_values, 1, 0), (two_of_seven, 1, 3),
    )
}  # fmt: skip
BURSTS = ("mirrored", "shifted_to_threes", "between_values")  # the padding before the first frame leaves with it
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {  # a maker, a clip's shape, the dimension of time
    "SEANet": (SEANet, (2, 1, 61), 2),
    "SEANet with zeros": (lambda: SEANet(mode="constant"), (2, 1, 66), 2),
    "Demucs": (Demucs, (2, 1, 43), 2),
    "ConvTasNet": (ConvTasNet, (2, 1, 37), 2),
    "ComplexUNet": (ComplexUNet, (2, 2, 17, 12), 3),
    "Squeezed": (Squeezed, (2, 1, 40), 2),
}


def check_lengths(net: Any, module: nn.Module, shape: tuple[int, ...], time: int, lengths: range, seed: int = 0) -> int:
    """Clips of every length: forward, and streams in random chunks, give what the module gives, or refuse what it refuses."""
    rng, taken = random.Random(seed), 0
    for n in lengths:
        x = torch.randn([n if i == time else s for i, s in enumerate(shape)], dtype=F64)
        try:
            want = module(x)
        except TOO_SHORT:
            with pytest.raises(TOO_SHORT):
                net(x)
            want = None
        found, _ = stream(net, [x], [time], [time], random_split(n, rng), lambda: rng.random() < 0.5)
        if want is None or not want.numel():
            assert found is None, f"a stream of {n} steps, which the module refuses, gives something"
            continue
        taken += 1
        assert_equal(net(x), want, f"forward on {n} steps")
        assert_equal(found, [want], f"a stream of {n} steps")
    net.clean_state()
    return taken


@pytest.mark.parametrize("name", by_turns(ENDS, 2, of="lengths"))
@pytest.mark.parametrize("example", [12, 13])
def test_every_length(name: str, example: int) -> None:
    body, least, delay = ENDS[name]
    module = Fn(body).eval()
    net: Any = co.continual(module, torch.randn(2, 3, example, dtype=F64))
    assert net.delay == delay
    with torch.no_grad():
        assert check_lengths(net, module, (2, 3, 0), 2, range(1, 31)) == 31 - least


def test_blocks_that_are_shorter_in_short_clips() -> None:
    """A length that is a minimum in code is that of long clips in a stream; a shorter clip is refused."""
    module = Fn(in_blocks).eval()
    net: Any = co.continual(module, torch.randn(2, 3, 13, dtype=F64))
    assert net.delay == 8
    with torch.no_grad():
        assert check_lengths(net, module, (2, 3, 0), 2, range(9, 31)) == 22
        with pytest.raises(co.ShapeMismatch, match="too short for a window of 9"):
            net(torch.randn(2, 3, 8, dtype=F64))


@pytest.mark.parametrize("name", by_turns(ENDS, 3))
def test_the_contract(name: str) -> None:
    module = Fn(ENDS[name][0]).eval()
    co.verify(co.continual(module, torch.randn(2, 3, 14, dtype=F64)), torch.randn(2, 3, 29, dtype=F64), reference=module)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", by_turns(ENDS, 3, of="programs"))
def test_in_programs(name: str, fused: bool) -> None:
    net = co.continual(Fn(ENDS[name][0]).eval(), torch.randn(2, 3, 13, dtype=F64))
    if name in BURSTS:
        with pytest.raises(co.NotStreamable, match="come all at once"):
            check_rows(net, torch.randn(2, 3, 31, dtype=F64))
        return
    check_rows(net, torch.randn(2, 3, 31, dtype=F64), fused=fused)


def network_of(name: str) -> tuple[nn.Module, Any]:
    build, shape, time = NETWORKS[name]
    torch.manual_seed(0)
    module = build().to(F64).eval()
    return module, co.continual(module, torch.randn(shape, dtype=F64), time_dim=time)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str) -> None:
    module, net = network_of(name)
    _, shape, time = NETWORKS[name]
    with torch.no_grad():
        assert check_lengths(net, module, shape, time, range(5, 41)) > 20


@pytest.mark.parametrize("name", by_turns(NETWORKS, 3))
def test_networks_in_full(name: str) -> None:
    module, net = network_of(name)
    _, shape, time = NETWORKS[name]
    clip = torch.randn([2 * n + 1 if i == time else n for i, n in enumerate(shape)], dtype=F64)
    co.verify(net, clip, reference=module)
    if name != "SEANet":
        check_rows(net, clip)


def test_what_comes_before_the_end_does_not_wait_for_it() -> None:
    """A step of a causal network gives its output at once, whatever is padded at the end."""
    conv = PaddedConv(1, 2, 4, 2, mode="constant").to(F64).eval()
    net: Any = co.continual(conv, torch.randn(2, 1, 13, dtype=F64))
    x = torch.randn(2, 1, 9, dtype=F64)
    with torch.no_grad():
        given = [net.forward_step(x[:, :, t]) is not None for t in range(9)]
    assert given == [t % 2 == 1 for t in range(9)]
    assert net.get_state().tensors.keys() == {"conv.window"}  # no frame is kept for the padding


REFUSED = [
    no("the first half", lambda x: x[:, :, : x.shape[2] // 2], "takes the first 6 frames of the clip alone", "a shift by"),
    no("as many zeros as frames", lambda x: F.pad(x, (0, x.shape[2])), "the padding depends on the length of the clip", "no length"),
    no("at the start", lambda x: F.pad(x, (-x.shape[2] % 4, 0)), "the padding depends on what is left", "fixed number of steps"),
    no("shorter and shorter", lambda x: x[:, :, : x.shape[2] - 3 * (x.shape[2] % 3)], "follows no simple rule", "next multiple"),
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)
