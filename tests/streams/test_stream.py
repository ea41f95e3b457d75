"""`co.Stream`: a pattern of gaps, of late frames and of stamps equals the filled clip; outputs say what they are about."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import continual as co
from continual.core.timing import Timing
from continual.streams.moments import Moments

from .fills import NETWORKS, POLICIES, clip_of, filled, made, near, network, options, same, stacked

FEW = settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])

# ---- gaps are the filled clip -------------------------------------------------------------------------------------------------


@st.composite
def losses(draw: Any) -> tuple[int, list[int]]:
    """The length of a clip, and the frames of it that came."""
    steps = 2 * draw(st.integers(12, 20))
    lost = draw(st.sets(st.integers(1, steps - 2), max_size=steps // 2))
    return steps, [t for t in range(steps) if t not in lost]


@pytest.mark.parametrize("gaps", POLICIES)
@pytest.mark.parametrize("name", NETWORKS)
@FEW
@given(case=losses(), stamps=st.sampled_from(["index", "time", "none"]))
def test_a_pattern_of_gaps_is_the_filled_clip(name: str, gaps: str, case: tuple[int, list[int]], stamps: str) -> None:
    steps, came = case
    clip, net = clip_of(steps), made(name)
    stream = co.Stream(net, rate=25, **options(gaps))
    found: list[co.StreamOutput] = []
    for t in range(steps):
        if t in came:
            own = {"index": {"index": 40 + t}, "time": {"time": 9.5 + t / 25}, "none": {}}[stamps]
            found += stream.step(clip[:, :, t], **own)
        elif stamps == "none":
            found += stream.step(None)
    found += stream.finish()
    want = net(filled(clip, came, gaps))
    assert near(stacked(found), want.unsqueeze(2) if want.ndim == 2 else want)
    assert stream.counters["missing"] == steps - len(came)
    assert stream.counters["outputs"] == len(found)
    begin = {"index": 40, "time": 0, "none": 0}[stamps]
    moments = Moments.of(net)
    assert [out.index for out in found] == [begin + moments.moment(j) for j in range(len(found))]
    start = {"index": 40 / 25, "time": 9.5, "none": 0.0}[stamps]
    assert [out.time for out in found] == pytest.approx([start + float(moments.moment(j)) / 25 for j in range(len(found))])


@FEW
@given(case=losses(), order=st.randoms(use_true_random=False), name=st.sampled_from(["convolutions", "strides", "u-net"]))
def test_frames_in_any_order_that_are_waited_for(case: tuple[int, list[int]], order: Any, name: str) -> None:
    steps, came = case
    late = sorted(came[1:], key=lambda t: t + order.uniform(0, 4))
    arrivals = [0, *(t for t in late for _ in range(1 + (order.random() < 0.2)))]
    clip, net = clip_of(steps), made(name)
    stream = co.Stream(net, gaps="hold", lateness=4)
    found = stream.steps([clip[:, :, t] for t in arrivals], indices=arrivals) + stream.finish()
    assert near(stacked(found), net(filled(clip, came, "hold")))
    assert stream.counters["duplicate"] == len(arrivals) - len(came)
    assert stream.counters["late"] == 0


@FEW
@given(case=losses())
def test_reset_is_the_clips_between_the_gaps(case: tuple[int, list[int]]) -> None:
    steps, came = case
    clip, net = clip_of(steps), made("convolutions")
    stream = co.Stream(net, gaps="reset")
    found = stream.steps([clip[:, :, t] for t in came], indices=came)
    parts: list[list[int]] = []
    for t in came:
        parts[-1].append(t) if parts and parts[-1][-1] == t - 1 else parts.append([t])
    want, about = [], []
    for part in parts:
        y = net(clip[:, :, part])[:, :, : max(0, len(part) - net.delay)]
        want.append(y)
        about += part[: y.shape[2]]
    assert near(stacked(found), torch.cat(want, 2)) if about else not found
    assert [out.index for out in found] == about
    assert not any(out.flags.gap for out in found)
    assert stream.counters["resets"] == len(parts) - 1


# ---- what outputs say ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, moments, lookahead",
    [
        ("convolutions", [0, 1, 2], 3),
        ("causal", [0, 1, 2], 0),
        ("strides", [5, 7, 9], 1),  # the second convolution has no padding: 4 inputs and 1 more are lost
        ("upsampling", [-0.5, 0, 0.5], 2),
        ("u-net", [0, 1, 2], 4),
        ("windows", [11, 13, 15], 0),  # the newest frame of each window
        ("recurrent", [0, 1, 2], 0),
    ],
)
def test_the_moment_that_outputs_are_about(name: str, moments: list[float], lookahead: float) -> None:
    net, clip = made(name), clip_of(30)
    stream = co.Stream(net, rate=10)
    arrived = [(t, out) for t in range(30) for out in stream.step(clip[:, :, t], time=t / 10)]
    assert [out.index for _, out in arrived[:3]] == moments
    assert [out.time for _, out in arrived[:3]] == pytest.approx([m / 10 for m in moments])
    assert max(t - out.index for t, out in arrived) <= lookahead == stream.lookahead
    assert all(out.index <= t for t, out in arrived)  # never of a frame that has not come
    late = stream.finish()
    last = (arrived[-1][1] if not late else late[-1]).index
    assert 29 - net.timing.stride < last <= 29  # aligned with the end of the clip
    assert stream.lookahead_ms == 100 * lookahead
    assert stream.delay_ms == 100 * net.delay


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "recurrent"])
def test_flags_are_what_outputs_see(name: str) -> None:
    net, clip, lost = made(name), clip_of(40), {17, 18, 31}
    stream = co.Stream(net, gaps="interpolate")
    found = []
    for t in range(40):
        found += stream.step(None if t in lost else clip[:, :, t])
    found += stream.finish()
    moved = clip.clone()
    moved[:, :, sorted(lost)] += 1.0
    before = torch.cat([torch.full_like(clip[:, :, :1], torch.nan), clip[:, :, 1:]], 2)
    gaps = _differs(net(moved), net(clip))
    first = _differs(net(before), net(clip))
    seen = [out.flags.gap for out in found]
    assert all(flag for flag, differs in zip(seen, gaps, strict=True) if differs)  # flagged wherever the values depend on it
    assert sum(seen) <= sum(gaps) + 3 * len(lost)  # and hardly anywhere else
    assert [out.flags.interpolated for out in found] == seen
    assert all(differs for flag, differs in zip([o.flags.warming_up for o in found], first, strict=True) if flag)


def _differs(a: Tensor, b: Tensor) -> list[bool]:
    """For each output of two clips, whether they differ."""
    a, b = (y.unsqueeze(2) if y.ndim == 2 else y for y in (a, b))
    return [not torch.equal(u, v) for u, v in zip(a.unbind(2), b.unbind(2), strict=True)]


def test_warming_up_ends_when_outputs_see_frames_alone() -> None:
    stream = co.Stream(made("convolutions"))
    found = stream.steps(clip_of(12))
    assert [out.flags.warming_up for out in found[:5]] == [True, True, True, False, False]  # three frames of padding
    assert repr(found[0].flags) == "Flags(warming_up)"
    assert "gap" not in found[0].flags


def test_moments_are_those_of_the_counts_of_random_timings() -> None:
    from tests.core.timing.cases import compositions

    @FEW
    @given(case=compositions)
    def check(case: Any) -> None:
        timing: Timing = case[0]
        if timing.ended(60) < 3 or timing.delivered(60) < 1:
            return
        moments = Moments.of(type("Net", (), {"timing": timing}))
        delivered = [timing.delivered(n) for n in range(61)]
        for j in range(min(4, delivered[-1])):
            arrival = next(n for n in range(61) if delivered[n] > j) - 1
            assert moments.moment(j) <= arrival
        last = timing.ended(60) - 1
        assert 59 - timing.stride * timing.period < moments.moment(last) <= 59

    check()


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "u-net"])
def test_moments_by_the_calls_of_a_program_are_those_of_the_network(name: str) -> None:
    """What a file knows of its network."""
    net = made(name)
    program = co.compile(net, torch.zeros(1, 2, dtype=torch.float64), backend="eager")
    file = SimpleNamespace(timing=program.schedule, delay=net.delay, receptive_field=net.receptive_field)
    assert Moments.of(file) == Moments.of(net)


# ---- files ---------------------------------------------------------------------------------------------------------------------


def test_an_exported_file_is_the_network(tmp_path: Any) -> None:
    pytest.importorskip("onnxruntime")
    net = network("strides").float()
    path = co.export(net, torch.zeros(1, 2), tmp_path / "net.onnx", rate=50)
    clip, lost = clip_of(30).float(), (4, 9, 10, 23)
    found = []
    for made_of in (net, co.load(path)):
        stream = co.Stream(made_of, gaps="hold", **({"rate": 50.0} if made_of is net else {}))
        assert stream.rate == 50
        own = []
        for t in range(30):
            own += [] if t in lost else stream.step(clip[:, :, t], time=t / 50)
        found.append(own + stream.finish())
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a.value, b.value, atol=1e-5)
        assert (a.index, a.time, a.flags) == (b.index, b.time, b.flags)
    runner = co.load(path)
    assert runner.delay_ms == 20 * net.delay
    assert f"({20 * net.delay} ms)" in repr(runner)
    assert runner.new_stream() is not runner


# ---- states --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gaps", [*POLICIES, "reset"])
@pytest.mark.parametrize("to_file", [False, True])
def test_a_stream_goes_on_from_its_state(gaps: str, to_file: bool, tmp_path: Any) -> None:
    clip, net = clip_of(40), made("strides")
    arrivals = [0, 1, 3, 2, 2, 7, 8, 8, 6, 9, 9, 10, 11, 14, 12, 18, 19, 20, 21, 22, 24, 23, 26, 27, 28, 31, 32]
    lost = 11  # the place of a frame that is known to be missing

    def given(k: int) -> Tensor | None:
        return None if k == lost else clip[:, :, arrivals[k]]

    def stream() -> co.Stream:
        return co.Stream(net, rate=30, source_rate=25, lateness=0.05, **options(gaps))

    for at in (1, 7, 12, 14):
        whole, first, second = stream(), stream(), stream()
        for k, i in enumerate(arrivals):
            want = whole.step(given(k), index=i)
            if k < at:
                first.step(given(k), index=i)
                continue
            if k == at:
                state = first.get_state()
                assert isinstance(state, co.StreamState)
                if to_file:
                    co.save_state(state, tmp_path / "stream.safetensors")
                    state = co.load_state(tmp_path / "stream.safetensors")
                first.step(given(k), index=i)  # the state is independent
                second.set_state(state)
            same(second.step(given(k), index=i), want)
        assert second.counters == whole.counters
        same(second.finish(), whole.finish())


def test_states_that_do_not_fit() -> None:
    net = made("convolutions")
    stream = co.Stream(net, rate=30, gaps="hold")
    assert stream.get_state() is None
    stream.steps(clip_of(8))
    state = stream.get_state()
    with pytest.raises(co.StateMismatch, match=r"1 steps from frame to frame and rate=30, and this one has .*rate=25"):
        co.Stream(net, rate=25).set_state(state)
    with pytest.raises(co.StateMismatch, match="another network"):
        co.Stream(made("strides"), rate=30).set_state(state)
    with pytest.raises(co.StateMismatch, match="takes a state of get_state"):
        stream.set_state(net.get_state() or 3)  # type: ignore[arg-type]
    damaged = co.StreamState(state.network, dict(state.facts, waiting=[[3, True]]), state.frames)
    with pytest.raises(co.StateMismatch, match="damaged"):
        stream.set_state(damaged)
    assert stream.counters["frames"] == 8
    stream.set_state(None)
    assert stream.counters["frames"] == 0
    assert stream.get_state() is None
