"""`co.Stream`: what it refuses leaves it as it was; several frames in a call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co

from .fills import clip_of, filled, made, near, same, stacked

# ---- refusals ------------------------------------------------------------------------------------------------------------------


def test_a_call_that_raises_leaves_the_stream_as_it_was() -> None:
    net, clip = made("convolutions"), clip_of(20)
    stream, calm = (co.Stream(net, rate=10, gaps="error") for _ in range(2))
    wrong = [
        (co.ShapeMismatch, lambda: stream.step(torch.zeros(2, 3, dtype=torch.float64), time=0.6)),
        (co.ShapeMismatch, lambda: stream.step(torch.zeros(2, 2), time=0.6)),
        (co.ShapeMismatch, lambda: stream.step([clip[:, :, 0], clip[:, :, 0]], time=0.6)),
        (co.MissingFrames, lambda: stream.step(clip[:, :, 0], time=1.6)),
        (co.MissingFrames, lambda: stream.step(None, time=0.6)),
        (ValueError, lambda: stream.step(clip[:, :, 0], index=3)),
        (ValueError, lambda: stream.step(clip[:, :, 0], time=1.0, index=3)),
        (ValueError, lambda: stream.step(clip[:, :, 0], time=float("nan"))),
    ]
    for t in range(12):
        for error, call in wrong:
            if t == 6:
                with pytest.raises(error):
                    call()
        same(stream.step(clip[:, :, t], time=t / 10), calm.step(clip[:, :, t], time=t / 10))
    same(stream.finish(), calm.finish())
    assert stream.counters == calm.counters


def test_a_network_that_fails_in_the_middle_of_a_gap() -> None:
    """The clock and the network go back together, whichever of the steps of a call fails."""

    class Failing(nn.Module):
        calls, fail = 0, -1

        def forward(self, x: Tensor) -> Tensor:
            Failing.calls += 1
            if Failing.calls == Failing.fail:
                raise RuntimeError("no memory")
            return x

    net = co.Sequential(co.CumulativeSum(), co.forward_stepping(Failing()))
    stream, calm = (co.Stream(net, gaps="hold") for _ in range(2))
    clip = torch.randn(2, 2, 6)
    for s in (stream, calm):
        s.steps(clip[:, :, :3], indices=range(3))
    Failing.fail = Failing.calls + 3
    with pytest.raises(RuntimeError, match="no memory"):
        stream.step(clip[:, :, 3], index=203)  # 200 missing frames, in several calls of the network
    Failing.fail = -1
    assert stream.counters["missing"] == 0
    same(stream.step(clip[:, :, 4], index=4), calm.step(clip[:, :, 4], index=4))


@pytest.mark.parametrize("name", ["convolutions", "strides", "upsampling", "windows"])
def test_several_frames_at_once_are_frames_one_by_one(name: str) -> None:
    clip = clip_of(150)
    at = [t for t in range(150) if t % 11 not in (3, 4)]
    one, several = (co.Stream(made(name), rate=5, gaps="hold", reset_after=10) for _ in range(2))
    want = [out for t in at for out in one.step(clip[:, :, t], time=t / 5)] + one.step(clip[:, :, 0], time=90.0)
    found = several.steps([clip[:, :, t] for t in [*at, 0]], times=[*(t / 5 for t in at), 90.0])
    assert len(found) == len(want)
    for a, b in zip(found, want, strict=True):
        assert near(a.value, b.value)
        assert (a.time, a.index, a.flags) == (b.time, b.index, b.flags)
    assert one.counters == several.counters
    before = several.get_state()
    with pytest.raises(co.ShapeMismatch):
        several.steps([clip[:, :, 0], clip[:1, :, 0]], times=[90.2, 90.4])
    assert before is not None
    assert several.get_state().facts == before.facts  # type: ignore[union-attr]


def test_what_a_stream_takes() -> None:
    with pytest.raises(co.NotStreamable, match=r"co\.continual\(module, clip\)"):
        co.Stream(nn.Conv1d(1, 1, 3))  # type: ignore[arg-type]
    stream = co.Stream(made("convolutions"))
    with pytest.raises(ValueError, match="time stamps need the rate"):
        stream.step(clip_of(1)[:, :, 0], time=0.0)
    with pytest.raises(ValueError, match="2 frames have 3 indices"):
        stream.steps(clip_of(2), indices=[0, 1, 2])
    assert stream.step(None) == []
    assert stream.finish() == []
    tokens = co.Stream(co.Sequential(co.Embedding(9, 4)), rate=1.0, gaps="interpolate")
    tokens.step(torch.tensor([[1], [2]]), time=0.0)
    with pytest.raises(co.ShapeMismatch, match="can't be interpolated"):
        tokens.step(torch.tensor([[3], [4]]), time=2.0)


def test_callers_may_reuse_their_buffers() -> None:
    net, clip = made("convolutions"), clip_of(12)
    stream, buffer = co.Stream(net, gaps="interpolate"), torch.zeros(2, 2, dtype=torch.float64)
    found = []
    for t in range(12):
        if t % 4 != 2:
            buffer.copy_(clip[:, :, t])
            found += stream.step(buffer, index=t)
            buffer.fill_(torch.nan)
    came = [t for t in range(12) if t % 4 != 2]
    assert near(stacked(found + stream.finish()), net(filled(clip, came, "interpolate")))


def test_an_input_that_is_no_stream_keeps_its_value() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(2, 2, 3, padding=1)

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.conv(x) * scale.unsqueeze(2)

    module = Scaled().double().eval()
    clip, scale = clip_of(14), torch.rand(2, 2, dtype=torch.float64) + 0.5
    net = co.continual(module, (clip, scale), time_dim=(2, None))
    stream = co.Stream(net, gaps="zero")
    came = [0, 1, 4, 5, 6, 9, 13]
    found = [out for t in came for out in stream.step([clip[:, :, t], scale], index=t)] + stream.finish()
    assert near(stacked(found), module(filled(clip, came, "zero"), scale))
    calls = iter([None, RuntimeError("no memory")])

    def failing(x: Any) -> Any:
        if (error := next(calls)) is not None:
            raise error
        return step(x)

    several = co.Stream(net)
    several.step([clip[:, :, 0], scale])
    before, step = several.get_state(), several._network.net.forward_step
    several._network.net.forward_step = failing  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="no memory"):
        several.steps([[clip[:, :, t], scale] for t in (1, 2)])  # two calls of the network, of which the second one fails
    after = several.get_state()
    assert before is not None
    assert after is not None
    assert all(torch.equal(t, after.network.tensors[name]) for name, t in before.network.tensors.items())
    changing = [scale * (1 + t) for t in range(14)]  # each step with the value that came with it, however many are taken at once
    one, several = co.Stream(net), co.Stream(net)
    want = [out for t in range(14) for out in one.step([clip[:, :, t], changing[t]])]
    same(several.steps([[clip[:, :, t], changing[t]] for t in range(14)]), want)


def test_inputs_of_several_rates() -> None:
    """A step of one input holds four of its frames."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fast, self.slow = nn.Conv1d(1, 4, 8, stride=4, padding=2), nn.Conv1d(3, 4, 3, padding=1)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.fast(x) + self.slow(y)

    module, x, y = Two().eval(), torch.randn(2, 1, 64), torch.randn(2, 3, 16)
    stream, came = co.Stream(co.continual(module, (x, y)), gaps="hold"), [t for t in range(16) if t not in (5, 6, 12)]
    found = stream.steps([[x[:, :, 4 * t : 4 * t + 4], y[:, :, t]] for t in came], indices=came) + stream.finish()
    held = [t - (t in (5, 12)) - 2 * (t == 6) for t in range(16)]
    want = module(x.unflatten(2, (16, 4))[:, :, held].flatten(2), y[:, :, held])
    assert torch.allclose(stacked(found), want, atol=1e-5)
