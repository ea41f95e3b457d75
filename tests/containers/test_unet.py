"""Networks that go down and up in time: U-Nets with skip connections, and other wires whose rate is a fraction."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal, check_contract, check_gradients, fingerprint, run, stream
from tests.long import by_turns
from tests.strategies import CONV

CHANNELS = 3
Make = Callable[[], nn.Module]


def conv(kernel: int, stride: int = 1, padding: int = 0) -> nn.Module:
    return nn.Conv1d(CHANNELS, CHANNELS, kernel, stride, padding)


def up(kernel: int, padding: int = 0, beyond: int = 0) -> nn.Module:
    return nn.ConvTranspose1d(CHANNELS, CHANNELS, kernel, 2, padding, beyond)


DOWN: dict[str, Make] = {
    "conv k2": lambda: conv(2, 2),
    "conv k3": lambda: conv(3, 2, 1),
    "conv k4": lambda: conv(4, 2, 1),
    "max pool": lambda: nn.MaxPool1d(2),
    "average pool": lambda: nn.AvgPool1d(2),
    "linear": lambda: nn.Upsample(scale_factor=0.5, mode="linear"),
}
UP: dict[str, Make] = {
    "transposed k2": lambda: up(2),
    "transposed k3": lambda: up(3, 1, 1),
    "transposed k4": lambda: up(4, 1),
    "nearest and conv": lambda: nn.Sequential(nn.Upsample(scale_factor=2), conv(3, 1, 1)),
    "linear and conv": lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="linear"), conv(3, 1, 1)),
}


def level(down: nn.Module, inner: nn.Module, rise: nn.Module, concat: bool = True) -> co.CoModule:
    """Down, something inside, up, and a skip connection around all three."""
    branch = co.Sequential(down, nn.Tanh(), inner, rise)
    if not concat:
        return co.Residual(branch)
    joined = nn.Conv1d(2 * CHANNELS, CHANNELS, 3, padding=1)
    return co.Sequential(co.BroadcastReduce(co.Identity(), branch, reduce="concat"), joined, nn.Tanh())


def unet(down: str, rise: str, depth: int = 2, concat: bool = True) -> co.CoModule:
    """A U-Net whose shortest clip step is ``2**depth``."""
    inner = conv(3, 1, 1)
    for _ in range(depth):
        inner = level(DOWN[down](), inner, UP[rise](), concat)
    return co.Sequential(conv(1), inner).double()


def seen(net: Any, steps: int) -> list[int]:
    """How many inputs each of four outputs in the middle of a clip depends on, from the first to the last."""
    clip = torch.randn(1, CHANNELS, steps, dtype=torch.float64, requires_grad=True)
    y, spans = net(clip), []
    for j in range(steps // 2, steps // 2 + 4):
        touched = torch.autograd.grad(y[:, :, j].sum(), clip, retain_graph=True)[0].abs().sum((0, 1)).nonzero().flatten()
        spans.append(int(touched[-1] - touched[0]) + 1)
    return spans


@pytest.mark.parametrize(("down", "rise"), by_turns(itertools.product(DOWN, UP), 2))
def test_unet(down: str, rise: str):
    net = unet(down, rise)
    for steps in (4, 28):
        check_contract(net, torch.randn(2, CHANNELS, steps, dtype=torch.float64))
    check_gradients(net, torch.randn(2, CHANNELS, 24, dtype=torch.float64))


@pytest.mark.parametrize(
    ("down", "rise"), [("conv k2", "transposed k2"), ("conv k4", "nearest and conv"), ("linear", "linear and conv")]
)
def test_deeper_and_with_sums(down: str, rise: str):
    check_contract(unet(down, rise, depth=3), torch.randn(2, CHANNELS, 40, dtype=torch.float64))
    check_contract(unet(down, rise, concat=False), torch.randn(2, CHANNELS, 24, dtype=torch.float64))
    check_contract(unet(down, rise).float(), torch.randn(2, CHANNELS, 24))


@pytest.mark.parametrize(("down", "rise"), list(itertools.product([d for d in DOWN if d != "max pool"], UP)))
def test_the_receptive_field_is_the_widest_of_a_period(down: str, rise: str):
    """The closed form alone would say less: what an output sees depends on its place in the period."""
    net = unet(down, rise)
    assert net.receptive_field == max(seen(net, 128))


def test_what_a_unet_reports():
    net = unet("conv k2", "transposed k2")
    assert (net.stride, net.delay, net.receptive_field, net.timing.bursts) == ((1,), 7, 20, True)
    assert [net.timing.delivered(n) for n in (7, 8, 11, 12, 16)] == [0, 1, 1, 5, 9]
    assert net.timing.ended(16) == 16
    clip = torch.randn(2, CHANNELS, 16, dtype=torch.float64)
    outs = [net.forward_step(clip[:, :, t]) for t in range(12)]
    assert [None if y is None else y.shape[2] for y in outs] == [*[None] * 7, 1, *[None] * 3, 4]


def test_verify():
    net = unet("conv k4", "transposed k4").float()
    assert co.verify(net, torch.randn(2, CHANNELS, 64)).passed


def test_a_clip_of_another_length_is_refused_and_the_stream_goes_on():
    net = unet("conv k2", "transposed k2")
    clip = torch.randn(2, CHANNELS, 20, dtype=torch.float64)
    for steps in (17, 18, 19):
        with pytest.raises(co.ShapeMismatch, match="lengths"):
            net(clip[:, :, :steps])
        net.clean_state()
        outs = stream(net, clip[:, :, : steps - 1], [steps - 1], end=False)
        before = fingerprint(net._stream)
        for update_state in (True, False):
            with pytest.raises(co.ShapeMismatch, match=r"the stream ends here, and its branches have \[\d+, \d+\] output steps"):
                net.forward_steps(clip[:, :, steps - 1 : steps], pad_end=True, update_state=update_state)
            assert str(fingerprint(net._stream)) == str(before)
        outs += stream(net, clip[:, :, steps - 1 :], [21 - steps])
        assert_equal(torch.cat([y for y in outs if y is not None], 2), net(clip))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_unet_over_time_and_space(dims: int):
    space: tuple[int, ...] = (6, 4)[: dims - 1]
    up_class = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[dims]
    inner: nn.Module = CONV[dims](CHANNELS, CHANNELS, 3, padding=1)
    for rise in (up_class(CHANNELS, CHANNELS, 2, 2), nn.Upsample(scale_factor=2, mode=("bilinear", "trilinear")[dims - 2])):
        branch = co.Sequential(CONV[dims](CHANNELS, CHANNELS, 2, 2), inner, rise)
        net = co.Sequential(
            co.BroadcastReduce(co.Identity(), branch, reduce="concat"), CONV[dims](2 * CHANNELS, CHANNELS, 1)
        ).double()
        check_contract(net, torch.randn(2, CHANNELS, 14, *space, dtype=torch.float64))


# ---- wires of other rates ------------------------------------------------------------------------------------------------

WIRES: dict[str, Make] = {
    "up, then down": lambda: co.Sequential(up(4, 1), conv(3, 2, 1)),
    "up ×3, down ×2": lambda: co.Sequential(nn.ConvTranspose1d(CHANNELS, CHANNELS, 3, 3), conv(2, 2)),
    "linear ×1.5, transposed ×2": lambda: co.Sequential(nn.Upsample(scale_factor=1.5, mode="linear"), up(3)),
    "branches at half a step": lambda: co.Sequential(
        up(2), co.BroadcastReduce(conv(1), conv(5, 1, 2), co.Sequential(co.Delay(2), conv(3, 1, 1)))
    ),
    "two ways up": lambda: co.BroadcastReduce(up(2), nn.Upsample(scale_factor=2, mode="linear"), up(4, 1), reduce="concat"),
    "two ways up, slowly": lambda: co.BroadcastReduce(
        co.Sequential(conv(5, 1, 2), up(2)), co.Sequential(nn.Upsample(scale_factor=2), conv(7, 1, 3)), reduce="mul"
    ),
    "ways of 3/2": lambda: co.BroadcastReduce(
        nn.Upsample(scale_factor=1.5), nn.Upsample(scale_factor=1.5, mode="linear"), reduce="max"
    ),
    "down inside up": lambda: co.Sequential(up(2), co.Residual(co.Sequential(conv(2, 2), up(2))), conv(3, 1, 1)),
    "a pair of streams": lambda: co.Sequential(
        co.Broadcast(2), co.Parallel(up(2), co.Sequential(conv(3, 1, 1), up(4, 1))), co.ParallelDispatch([1, 0]), co.Reduce("sum")
    ),
    "a choice of two": lambda: co.Conditional(lambda module, x: True, up(4, 1), nn.Upsample(scale_factor=2)),
    "crops at half a step": lambda: co.Sequential(up(3, 0, 1), co.Trim(1, 3), conv(3, 1, 2), co.Trim(0, 2)),
    "a waiting branch before a stride": lambda: co.Sequential(
        co.BroadcastReduce(co.Delay(2), co.Sequential(conv(2, 2), nn.Upsample(scale_factor=2, mode="linear"))), conv(2, 2)
    ),
    "gaps before a delay": lambda: co.Sequential(nn.ConvTranspose1d(CHANNELS, CHANNELS, 1, 3), co.Residual(conv(3, 1, 1))),
}


@pytest.mark.parametrize("name", WIRES)
def test_wires_of_fractional_rate(name: str):
    net = co.Sequential(WIRES[name]()).double()
    for steps in (1, 2, 16):
        check_contract(net, torch.randn(2, CHANNELS, steps, dtype=torch.float64))
    check_gradients(net, torch.randn(2, CHANNELS, 16, dtype=torch.float64))


def test_a_branch_that_is_not_chosen_does_not_refuse_the_end():
    """``forward`` runs the chosen module alone: the other one may have branches of different lengths for this clip."""
    net = co.Conditional(lambda module, x: False, unet("conv k2", "transposed k2"), conv(3, 1, 1)).double()
    clip = torch.randn(2, CHANNELS, 11, dtype=torch.float64)
    for sizes in ([11], [1] * 11 + [0], [3, 0, 5, 3]):
        assert_equal(run(net, clip, sizes), net(clip))
    check_gradients(net, clip)


def test_a_residual_shrinks_around_a_unet():
    """What is lost is counted: the widest receptive field says more than the length that a clip loses."""
    net = co.Residual(co.Sequential(unet("conv k2", "transposed k4"), conv(3)), residual_shrink=True).double()
    for steps in (20, 24):
        check_contract(net, torch.randn(2, CHANNELS, steps, dtype=torch.float64))


def test_one_output_per_step_is_a_single_frame():
    """Up by two and down by two gives one frame for one: nothing is stacked, though the wire between carries two."""
    net = WIRES["up, then down"]().double()
    clip = torch.randn(2, CHANNELS, 9, dtype=torch.float64)
    assert net.stride == (1,)
    assert not net.timing.bursts
    steps = [net.forward_step(clip[:, :, t]) for t in range(9)]
    assert {y.shape for y in steps if y is not None} == {(2, CHANNELS)}
    assert_equal(torch.stack([y for y in steps if y is not None], 2), net(clip)[:, :, : net.timing.delivered(9)])


def test_branches_of_different_rates_are_refused():
    with pytest.raises(co.ShapeMismatch, match=r"temporal strides .*Fraction\(1, 2\).*belong to different moments"):
        co.BroadcastReduce(conv(1), up(2))


def test_hooks_see_every_frame_once():
    """Also where a chunk of one runs as a step, and where nothing comes between strided outputs."""
    net = unet("conv k2", "transposed k2")
    clip, frames = torch.randn(2, CHANNELS, 24, dtype=torch.float64), dict.fromkeys(range(2), 0)
    wanted = net(clip)
    inner = [m for m in net.modules() if isinstance(m, co.ConvTranspose1d)]
    for i, module in enumerate(inner):

        def count(module: nn.Module, args: tuple[Tensor], y: Tensor, i: int = i) -> None:
            frames[i] += y.shape[2]

        module.register_forward_hook(count)
    with torch.no_grad():
        assert_equal(run(net, clip, [1] * 24 + [0]), wanted)
    assert sorted(frames.values()) == [12, 24]
