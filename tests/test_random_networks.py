"""The contract on random networks, and the counter-examples that this has found."""

from typing import Any

import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import continual as co
from continual.layers.window import SlidingWindow
from tests import parts
from tests.contract import assert_identical, check_contract, check_gradients, clip_of, length, outputs_due, refuses_the_length
from tests.pasting import of_network, source
from tests.strategies import CHANNELS, module_is, networks_and_clips

EXAMPLES = settings().max_examples
TRANSPOSED = (co.ConvTranspose1d, co.ConvTranspose2d, co.ConvTranspose3d)
SLICES = 3  # one test each, so that workers share them


def has_frames_of_bias(m: Any) -> bool:
    """Whether some outputs of a transposed convolution are its bias alone, so that they depend on nothing, yet come in their order.

    Its padding may cut off all that its first input adds: they come with the frame whose place they take. Or its stride leaves gaps: they
    come after the frame before the gap, though a stride behind may drop that frame.
    """
    taps = [m.dilation[0] * k for k in range(m.kernel_size[0])]
    return m.padding[0] > taps[-1] or len({tap % m.rate for tap in taps}) < m.rate


def mirrors(m: Any) -> bool:
    """Whether a layer begins with frames that come later."""
    if isinstance(m, (co.ReflectionPad1d, co.ReflectionPad2d, co.ReflectionPad3d)):
        return m.timing.start > 0
    return "reflect" in (getattr(m, "padding_mode", ""), getattr(m, "temporal_fill", ""))


def cuts(m: Any) -> bool:
    """Whether a layer drops frames at the start."""
    return isinstance(m, co.CoModule) and (isinstance(m, (co.Trim, co.Skip)) or m.timing.start < 0)


def repeats(m: Any) -> bool:
    """Whether a layer repeats the first frame before itself."""
    return isinstance(m, SlidingWindow) and m.fill == "replicate" and m.timing.start > 0


def cuts_the_end(m: Any) -> bool:
    """Whether a layer drops frames at the end."""
    return isinstance(m, co.CoModule) and m.timing.end < 0


def check(net: Any, clip: Tensor, seed: int) -> None:
    note(of_network(net, clip, f"check_contract(net, clip, seed={seed})"))
    check_contract(net, clip, seed=seed)


@pytest.mark.parametrize("part", range(SLICES))
@given(data=st.data())
@settings(max_examples=EXAMPLES)
def test_one_dimension(part: int, data: st.DataObject):
    check(*data.draw(networks_and_clips(depth=part)), seed=part)


@given(case=networks_and_clips(depth=3))
@settings(max_examples=EXAMPLES)
def test_deep(case: tuple[Any, Tensor]):
    check(*case, seed=0)


@given(case=networks_and_clips(dtype=torch.float32))
@settings(max_examples=EXAMPLES)
def test_single_precision(case: tuple[Any, Tensor]):
    check(*case, seed=1)


@given(case=networks_and_clips(dims=2))
@settings(max_examples=EXAMPLES // 2)
def test_two_dimensions(case: tuple[Any, Tensor]):
    check(*case, seed=2)


@given(case=networks_and_clips(dims=3, depth=1))
@settings(max_examples=EXAMPLES // 2)
def test_three_dimensions(case: tuple[Any, Tensor]):
    check(*case, seed=3)


@given(case=networks_and_clips(depth=2))
@settings(max_examples=EXAMPLES // 4)
def test_no_output_is_held_back(case: tuple[Any, Tensor]):
    net, clip = case
    note(of_network(net, clip, "assert_nothing_is_held_back(net)"))
    assert_nothing_is_held_back(net, clip.dtype)


def assert_nothing_is_held_back(net: Any, dtype: torch.dtype = torch.float64) -> None:
    """Counts equal dependence found by marking the future with NaN (delays wait on purpose: their counts are an upper bound)."""
    waits = module_is(net, co.Delay, co.Conditional, co.ParallelDispatch)
    waits |= any(has_frames_of_bias(m) for m in net.modules() if isinstance(m, TRANSPOSED))
    # Frames leave in their order: one that mirrors a later frame holds up those behind it, though a cut may drop it.
    waits |= any(mirrors(m) for m in net.modules()) and any(cuts(m) for m in net.modules())
    # A frame that may never exist is waited for, though it would repeat one that is there.
    waits |= any(repeats(m) for m in net.modules()) and any(cuts_the_end(m) for m in net.modules())
    # Many rows, so that no maximum or ReLU hides a change in all of them.
    longer = 3 * torch.randn(64, CHANNELS, 2 * net.receptive_field + 24, dtype=dtype)
    with torch.no_grad():
        # With branches that agree on some lengths alone, what exists is counted as if they agreed on all: an upper bound, too.
        waits |= any(refuses_the_length(net, longer[:, :, :-i]) for i in range(1, net.timing.period + 1))
        for n, due in enumerate(outputs_due(net, longer)):
            given_out = net.timing.delivered(n)
            assert given_out <= due if waits else given_out == due, f"after {n} inputs {given_out} outputs, {due} are due"


@given(case=networks_and_clips(depth=2))
@settings(max_examples=EXAMPLES // 4)
@torch.no_grad()
def test_a_counter_example_is_written_as_the_code_of_the_network(case: tuple[Any, Tensor]):
    net, clip = case
    again = eval(source(net), vars(parts)).to(clip.dtype).eval()
    again.load_state_dict(net.state_dict())
    assert [again.timing.counts(n, 30) for n in range(30)] == [net.timing.counts(n, 30) for n in range(30)]
    assert_identical(clip_of(again, clip), clip_of(net, clip))


def test_outputs_of_the_bias_alone():
    """Found by the test above: the first output is the bias, and still comes with the first frame behind the convolutions."""
    convs = (co.Conv1d(2, 2, 3, padding=1) for _ in range(2))
    net = co.Sequential(*convs, co.ConvTranspose1d(2, 2, 1, stride=2, padding=1)).double().eval()
    assert [net.timing.delivered(n) for n in range(5)] == [0, 0, 0, 1, 3]
    assert [net.timing.ended(n) for n in range(5)] == [0, 0, 1, 3, 5]
    check_contract(net, torch.randn(2, 2, 9, dtype=torch.float64))


@given(case=networks_and_clips(depth=2))
@settings(max_examples=EXAMPLES // 2)
def test_gradients(case: tuple[Any, Tensor]):
    net, clip = case
    note(of_network(net, clip, "check_gradients(net, clip)"))
    if length(clip_of(net, clip)):
        check_gradients(net, clip)


@torch.no_grad()
def test_frames_of_bias_behind_one_that_is_dropped_come_in_their_order():
    """Found by test_no_output_is_held_back: of outputs 0, 2, 4, the last depends on nothing, and comes after frame 3, which is dropped."""
    waits = co.Residual(co.Conv1d(2, 2, 5, padding=2))
    net = co.Sequential(waits, co.ConvTranspose1d(2, 2, 1, stride=3), co.Conv1d(2, 2, 1, stride=2)).double()
    clip = torch.randn(2, 2, 9, dtype=torch.float64)
    assert net.timing.delivered(3) == 2
    assert net.timing.delivered(4) == 3
    assert outputs_due(net, torch.randn(2, 2, 40, dtype=torch.float64))[3] == 3
    check_contract(net, clip, seed=0)


@torch.no_grad()
def test_a_frame_that_repeats_another_and_may_be_cut_off_is_waited_for():
    """Found by test_no_output_is_held_back. After one step the padding's second frame, a copy of the first, may yet be cut off.

    The convolution would put the same values in its place; which of the two it is, the second step tells.
    """
    net = co.Sequential(
        co.continual(nn.ReplicationPad1d((1, -1))), co.Conv1d(2, 2, 3, padding=1, temporal_fill="replicate")
    ).double()
    clip = torch.randn(2, 2, 13).double()
    check_contract(net, clip)
    assert [net.timing.delivered(n) for n in range(4)] == [0, 0, 1, 2]
    with torch.no_grad():
        assert torch.equal(net(clip[:, :, :1])[:, :, 0], net(clip)[:, :, 0])
    assert any("frames that repeat others" in check.detail for check in co.verify(net, clip).checks)


def test_a_mirrored_frame_that_is_dropped_holds_up_those_behind_it():
    """Found by test_no_output_is_held_back: the first frame of the padding mirrors frame 1, and is cut off again."""
    net = co.Sequential(co.Conv1d(2, 2, 3, padding=1), co.ReflectionPad1d((1, -1)), co.ConstantPad1d((-1, 1), 0.5)).double()
    assert [net.timing.delivered(n) for n in range(6)] == [0, 0, 0, 2, 3, 4]
    assert outputs_due(net, torch.randn(2, 2, 40, dtype=torch.float64))[:6] == [0, 0, 1, 2, 3, 4]
    check_contract(net, torch.randn(2, 2, 9, dtype=torch.float64), seed=0)


@torch.no_grad()
def test_frames_of_bias_wait_for_those_before_them():
    """Found by test_no_output_is_held_back, whose exception for gaps between taps looked at a stride of the stream, which is 1/2."""
    assert has_frames_of_bias(co.ConvTranspose1d(2, 2, 1, stride=2))
    assert not has_frames_of_bias(co.ConvTranspose1d(2, 2, 3, stride=2))
    inner = co.Residual(co.Conv1d(2, 2, 3, padding=1), reduce="max")
    assert_nothing_is_held_back(co.Sequential(co.ConvTranspose1d(2, 2, 1, stride=2), inner).double().eval())
