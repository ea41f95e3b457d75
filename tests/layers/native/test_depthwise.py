"""The compiled kernel for depthwise convolutions: against `torch.nn`, and where torch's own operations are used instead of it."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import continual as co
from continual.layers.native import depthwise
from continual.layers.native.build import found_compiler
from continual.layers.native.depthwise import Depthwise, Geometry
from continual.models.x3d import block
from tests.models.zoo import random_statistics

pytestmark = pytest.mark.skipif(found_compiler() is None, reason="no C++ compiler on this machine")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of windows that the kernel has computed, call by call."""
    plain, found = Depthwise._run, []

    def run(self: Depthwise, geometry: Any, pieces: Any, outputs: int, bias: Any) -> Any:
        y = plain(self, geometry, pieces, outputs, bias)
        found.append(outputs)
        return y

    monkeypatch.setattr(Depthwise, "_run", run)
    return found


def pair(dims: int, channels: int, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Our layer, and torch's in double precision with the same weights."""
    ours = {2: co.Conv2d, 3: co.Conv3d}[dims](channels, channels, *args, groups=channels, **kwargs).eval()
    theirs = {2: nn.Conv2d, 3: nn.Conv3d}[dims](channels, channels, *args, groups=channels, **kwargs).double()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def random_layer(choose: random.Random) -> tuple[Any, Any, torch.Tensor]:
    """A layer that the kernel computes, of any geometry, and a clip."""
    dims, channels, taps = choose.choice((2, 3, 3, 3)), choose.choice((16, 17, 24, 33, 54)), choose.randint(1, 4)
    k = 1 if dims == 2 else choose.choice((1, 3, 3, 3))
    stride, pads = (1, (0,) * (dims - 1)) if k == 1 else (choose.choice((1, 2)), (choose.randint(0, 3), choose.randint(0, 3)))
    dilation, time_stride = choose.randint(1, 3), choose.randint(1, 2)
    options = {
        "kernel_size": (taps, *(k,) * (dims - 1)),
        "stride": (time_stride, *(stride,) * (dims - 1)),
        "padding": (choose.randint(0, min(2, dilation * (taps - 1))), *pads),
        "dilation": (dilation, *(1,) * (dims - 1)),
        "bias": choose.random() < 0.7,
    }
    space = [choose.randint(3, 20) for _ in range(dims - 1)]
    ours, theirs = pair(dims, channels, **options)
    return ours, theirs, torch.randn(choose.randint(1, 3), channels, dilation * (taps - 1) + choose.randint(2, 9), *space)


@pytest.mark.parametrize("seed", range(40))
def test_steps_and_chunks_equal_the_convolution(seed: int, runs: list[int]):
    torch.manual_seed(seed)
    net, reference, clip = random_layer(random.Random(seed))
    last = seed % 2 == 1 and clip.ndim == 5
    with torch.inference_mode():
        expected = reference(clip.double()).float()
        steps = clip.unbind(2)
        if last:
            steps = tuple(s.contiguous(memory_format=torch.channels_last) for s in steps)
        found = [y.unsqueeze(2) for y in map(net.forward_step, steps) if y is not None]
        end = net.forward_steps(clip[:, :, :0], pad_end=True)
        y = torch.cat([*found, *([] if end is None else [end])], 2)
        assert sum(runs) == expected.shape[2]
        torch.testing.assert_close(y, expected, rtol=0, atol=3e-5)
        net.clean_state()
        chunked = [net.forward_steps(clip[:, :, :3]), net.forward_steps(clip[:, :, 3:], pad_end=True)]
        assert torch.equal(torch.cat([c for c in chunked if c is not None], 2), y)  # to the bit: sums have one order
    assert sum(runs) == 2 * expected.shape[2]


def test_frames_without_and_with_padding_that_is_wider_than_they_are(runs: list[int]):
    for padding, space in (((1, 0, 0), (3, 3)), ((1, 4, 5), (1, 2)), ((0, 1, 1), (1, 1)), ((0, 1, 1), (2, 37))):
        net, reference = pair(3, 18, 3, padding=padding)
        clip = torch.randn(2, 18, 6, *space)
        with torch.no_grad():
            torch.testing.assert_close(net.forward_steps(clip, pad_end=True), reference(clip.double()).float(), rtol=0, atol=3e-5)
    assert len(runs) >= 4


OTHERS: dict[str, tuple[int, dict[str, Any]]] = {
    "groups of several channels": (16, {"kernel_size": 3, "groups": 8}),
    "more outputs than channels": (16, {"kernel_size": 3, "groups": 16, "out_channels": 32}),
    "a wide kernel": (16, {"kernel_size": (3, 5, 5), "groups": 16}),
    "no square": (16, {"kernel_size": (3, 3, 1), "groups": 16}),
    "strides that differ": (16, {"kernel_size": 3, "groups": 16, "stride": (1, 2, 1)}),
    "a stride of 3": (16, {"kernel_size": 3, "groups": 16, "stride": (1, 3, 3)}),
    "dilation over space": (16, {"kernel_size": 3, "groups": 16, "dilation": (1, 2, 2)}),
    "mirrored": (16, {"kernel_size": 3, "groups": 16, "padding": 1, "padding_mode": "reflect"}),
    "single pixels with a stride": (16, {"kernel_size": (3, 1, 1), "groups": 16, "stride": (1, 2, 2)}),
    "single pixels with padding": (16, {"kernel_size": (3, 1, 1), "groups": 16, "padding": (0, 1, 1)}),
    "very many taps": (16, {"kernel_size": (33, 1, 1), "groups": 16}),
    "few channels": (3, {"kernel_size": 3, "groups": 3}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_all_others_are_computed_by_torch(name: str, runs: list[int]):
    channels, options = OTHERS[name]
    options = {"out_channels": channels, **options}
    net, reference = co.Conv3d(channels, **options).eval(), nn.Conv3d(channels, **options)
    reference.load_state_dict(net.state_dict())
    clip = torch.randn(2, channels, 35, 7, 6)
    with torch.no_grad():
        expected = reference(clip)
        found = [y for y in (net.forward_step(s) for s in clip.unbind(2)) if y is not None]
        torch.testing.assert_close(torch.stack(found, 2), expected[:, :, : len(found)], rtol=0, atol=3e-5)
    assert not runs
    assert name == "few channels" or Geometry.of(net) is None


def vmapped(net: Any, x: torch.Tensor) -> torch.Tensor:
    """A step under a transform of torch: its numbers have no address."""
    return torch.func.vmap(net.over_time_step, (None, 0))((), x.unsqueeze(1)).squeeze(1)


WATCHED: dict[str, tuple[Callable[[], AbstractContextManager[Any]], Callable[[Any, torch.Tensor], torch.Tensor]]] = {
    "gradients": (torch.enable_grad, lambda net, x: net.forward_step(x)),
    "autocast": (lambda: torch.autocast("cpu"), lambda net, x: net.forward_step(x).float()),
    "a mode": (lambda: FlopCounterMode(display=False), lambda net, x: net.forward_step(x)),
    "double precision": (nullcontext, lambda net, x: net.double().forward_step(x.double()).float()),
    "a transform": (nullcontext, vmapped),
}


@pytest.mark.parametrize("name", WATCHED)
def test_where_more_than_the_result_is_asked_for_torch_computes(name: str, runs: list[int]):
    context, step = WATCHED[name]
    net, reference = pair(3, 16, (1, 3, 3), padding=(0, 1, 1))
    x = torch.randn(3, 16, 5, 6)
    with torch.no_grad(), context():
        y = step(net, x)
    tolerance = 2e-2 if name == "autocast" else 3e-5
    torch.testing.assert_close(y, reference(x.double().unsqueeze(2)).squeeze(2).float(), rtol=0, atol=tolerance)
    assert not runs
    assert name != "gradients" or y.requires_grad
    with torch.no_grad():  # and the kernel otherwise, with weights that require gradients
        net.float().clean_state()
        net.forward_step(x)
    assert runs == [1]


def test_frames_and_rings_that_lie_otherwise(runs: list[int]):
    """A state whose channels are not last, as one that was read or that gradients went through."""
    net, reference = pair(3, 17, 3)
    clip = torch.randn(2, 17, 8, 7, 6)
    with torch.no_grad():
        net.forward_steps(clip[:, :, :4])
        net.set_state(net.get_state().map(lambda t: t.contiguous()))
        found = [net.forward_step(s) for s in clip[:, :, 4:6].unbind(2)]
        wide = torch.randn(2, 17, 2, 7, 12)
        wide[..., ::2] = clip[:, :, 6:]
        rest = net.forward_steps(wide[..., ::2])
    y = torch.cat([torch.stack(found, 2), rest], 2)
    torch.testing.assert_close(y, reference(clip.double())[:, :, 2:].float(), rtol=0, atol=3e-5)
    assert runs == [2, 1, 1, 2]


def test_weights_that_change_are_seen(runs: list[int]):
    net, reference = pair(3, 16, 3)
    clip = torch.randn(2, 16, 5, 5, 4)
    with torch.no_grad():
        net.forward_steps(clip[:, :, :3])
        for p, q in zip(net.parameters(), reference.parameters(), strict=True):
            p.mul_(-1.5)
            q.mul_(-1.5)
        y = net.forward_step(clip[:, :, 3])
        net.bias = nn.Parameter(net.bias + 1)
        shifted = net.forward_step(clip[:, :, 4])
    expected = reference(clip.double()).float()
    torch.testing.assert_close(y, expected[:, :, 1], rtol=0, atol=3e-5)
    torch.testing.assert_close(shifted, expected[:, :, 2] + 1, rtol=0, atol=3e-5)
    assert len(runs) == 3


def test_two_threads_compute_the_same(runs: list[int]):
    if depthwise.library() is None or depthwise.library().parallel is None:
        pytest.skip("torch has no OpenMP runtime of GCC's interface here")
    net, _ = pair(3, 33, 3, padding=1)
    clip, before = torch.randn(2, 33, 4, 19, 21), torch.get_num_threads()
    assert clip[:, :, 0].numel() * 27 > depthwise.ALONE
    ys = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.no_grad():
                net.clean_state()
                ys.append(net.forward_steps(clip))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*ys)


@pytest.fixture(params=[True, False], ids=["on", "off"])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.setattr(depthwise, "library", lambda: None)
    return request.param


def test_a_layer_is_verified(native: bool, runs: list[int]):
    net = co.Conv3d(17, 17, 3, stride=(1, 2, 2), padding=1, groups=17)
    assert co.verify(net, torch.randn(2, 17, 9, 7, 6), reference=nn.Conv3d.forward.__get__(net)).passed
    assert bool(runs) == native


def test_blocks_are_verified(native: bool, runs: list[int]):
    net = co.Sequential(block(8, 8, 0), block(8, 8, 1))
    random_statistics(net)
    assert co.verify(net.eval(), torch.randn(2, 8, 9, 7, 6)).passed
    assert bool(runs) == native
