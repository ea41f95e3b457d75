"""`co.Streams`: each stream of a batch is as a stream alone, whatever the others do."""

from __future__ import annotations

import functools
from typing import Any, cast

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import continual as co

from .fills import network, options

made = functools.cache(network)


def batch(name: str) -> co.StreamBatch:
    return co.StreamBatch(made(name), torch.zeros(1, 2, dtype=torch.float64), capacity=4, backend="eager")


def alike(a: list[co.StreamOutput], b: list[co.StreamOutput]) -> None:
    for own, alone in zip(a, b, strict=True):
        assert (own.index, own.time, own.flags) == (alone.index, alone.time, alone.flags)
        assert own.value.shape == alone.value.shape[1:]
        assert torch.allclose(own.value, alone.value[0], rtol=0, atol=1e-11)


def ended(finish: Any) -> list[co.StreamOutput] | None:
    """What the end of a stream brings; ``None`` if it is refused."""
    try:
        return cast(list[co.StreamOutput], finish())
    except co.ShapeMismatch:
        return None


RULES: list[dict[str, Any]] = [
    options("hold") | {"lateness": 0.1},
    options("interpolate"),
    options("value") | {"reset_after": 0.15},
    options("reset"),
]


@pytest.mark.parametrize("name", ["convolutions", "strides", "u-net", "windows"])
@settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow])
@given(
    arrivals=st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 4), st.booleans()), min_size=30, max_size=60),
    seed=st.integers(0, 99),
)
def test_streams_of_a_batch_are_streams_alone(name: str, arrivals: list[tuple[int, int, bool]], seed: int) -> None:
    """Frames of four streams in any order, each with rules of its own, one or several in a call."""
    frames = torch.randn(len(arrivals), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    streams, alone, clock = co.Streams(batch(name), rate=25), {}, dict.fromkeys(range(4), 0)
    for i, rules in enumerate(RULES):
        assert streams.open(i, **rules) == i
        alone[i] = co.Stream(made(name), rate=25, **rules)
    call: dict[int, tuple[Tensor | None, float]] = {}
    for k, (i, ahead, there) in enumerate(arrivals):
        clock[i] += ahead
        call[i] = (frames[k] if there else None), 7 + clock[i] / 25
        if k % 3 and k < len(arrivals) - 1:
            continue
        found = streams.step({j: x for j, (x, _) in call.items()}, times={j: t for j, (_, t) in call.items()})
        for j, (x, t) in call.items():
            alike(found[j], alone[j].step(None if x is None else x.unsqueeze(0), time=t))
        call = {}
    for i in range(4):
        assert streams.counters(i) == alone[i].counters
        own, want = ended(lambda: streams.finish(i)), ended(alone[i].finish)  # noqa: B023 (called here)
        if own is None or want is None:  # the branches of the U-Net differ after an odd number of steps
            assert own is want
            streams.close(i)
        else:
            alike(own, want)
    assert not streams.ids
    assert not len(streams.batch)


def test_a_stream_goes_on_in_another_batch(tmp_path: Any) -> None:
    clip, found = torch.randn(1, 2, 30, dtype=torch.float64), []
    first, second, alone = co.Streams(batch("strides")), co.Streams(batch("strides")), co.Stream(made("strides"), gaps="hold")
    first.open("a", gaps="hold")
    assert first.snapshot("a") is None
    for t in range(30):
        if t in (4, 5, 17):
            continue
        streams = first if t < 13 else second
        if t == 13:
            second.open("other")
            second.step({"other": clip[0, :, 0]})
            second.open("b", gaps="hold")
            state = first.snapshot("a")
            assert state is not None
            co.save_state(state, tmp_path / "a.safetensors")
            second.restore("b", co.load_state(tmp_path / "a.safetensors"))  # type: ignore[arg-type]
        (own,) = streams.step({"a" if t < 13 else "b": clip[0, :, t]}, indices=t).values()
        found += own
        alike(own, alone.step(clip[:, :, t], index=t))
    assert second.counters("b") == alone.counters
    assert len(found) > 8
    second.restore("b", None)
    assert second.snapshot("b") is None
    assert second.counters("b")["frames"] == 0
    with pytest.raises(co.StateMismatch, match="takes a state of snapshot"):
        second.restore("b", 3)  # type: ignore[arg-type]


def test_a_call_that_raises_leaves_all_streams_where_they_were() -> None:
    clip = torch.randn(2, 12, dtype=torch.float64)
    streams, calm = co.Streams(batch("convolutions"), rate=10), co.Streams(batch("convolutions"), rate=10)
    for own in (streams, calm):
        own.open("a", gaps="hold")
        own.open("b")
    bad: list[tuple[Any, Any]] = [
        (co.MissingFrames, lambda t: streams.step({"a": clip[:, t], "b": clip[:, t]}, indices={"a": t + 3, "b": t + 1})),
        (co.MissingFrames, lambda t: streams.step({"a": clip[:, t], "b": None}, indices=t)),
        (co.ShapeMismatch, lambda t: streams.step({"a": clip[:, t], "b": clip[:, t].float()}, indices=t)),
        (co.ShapeMismatch, lambda t: streams.step({"a": clip[:, t], "b": clip[:1, t]}, indices=t)),
        (KeyError, lambda t: streams.step({"a": clip[:, t], "c": clip[:, t]}, indices=t)),
        (ValueError, lambda t: streams.step({"a": clip[:, t], "b": clip[:, t]}, indices=t, times={"b": 0.1})),
    ]
    for t in range(12):
        for error, call in bad:
            if t == 5:
                with pytest.raises(error):
                    call(t)
        found, want = (own.step({"a": clip[:, t], "b": clip[:, t]}, indices=t) for own in (streams, calm))
        for i in "ab":
            alike(found[i], [co.StreamOutput(o.value.unsqueeze(0), o.time, o.index, o.flags) for o in want[i]])
    assert streams.counters("a") == calm.counters("a")


def test_a_program_that_fails_between_the_steps_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    streams, clip = co.Streams(batch("convolutions"), gaps="hold"), torch.randn(2, 9, dtype=torch.float64)
    a, b = streams.open(), streams.open()
    for t in range(4):
        streams.step({a: clip[:, t], b: clip[:, t]}, indices=t)
    before, step, calls = streams.snapshot(a), streams.batch.step, iter([None, None, RuntimeError("no memory")])

    def failing(frames: Any) -> Any:
        if (error := next(calls)) is not None:
            raise error
        return step(frames)

    monkeypatch.setattr(streams.batch, "step", failing)
    with pytest.raises(RuntimeError, match="no memory"):
        streams.step({a: clip[:, 8], b: clip[:, 4]}, indices={a: 8, b: 4})  # four steps of a, one of b
    after = streams.snapshot(a)
    assert before is not None
    assert after is not None
    assert all(torch.equal(t, after.network.tensors[name]) for name, t in before.network.tensors.items())
    assert (before.facts, streams.batch.steps(b), streams.counters(b)["frames"]) == (after.facts, 4, 4)


def test_an_exported_file(tmp_path: Any) -> None:
    pytest.importorskip("onnxruntime")
    net = network("convolutions").float()
    path = co.export(net, torch.zeros(1, 2), tmp_path / "net.onnx", rate=40)
    streams = co.Streams(co.StreamBatch(co.load(path), capacity=2), gaps="zero")
    alone, clip = co.Stream(net, rate=40, gaps="zero"), torch.randn(1, 2, 12)
    a = streams.open()
    for t in (0, 1, 2, 5, 6, 11):
        own, want = streams.step({a: clip[0, :, t]}, times=t / 40)[a], alone.step(clip[:, :, t], time=t / 40)
        assert [(o.index, o.time, o.flags) for o in own] == [(o.index, o.time, o.flags) for o in want]
        assert all(torch.allclose(o.value, w.value[0], atol=1e-5) for o, w in zip(own, want, strict=True))
    assert repr(streams) == f"Streams({streams.batch!r}, rate=40, gaps='zero')"


def test_what_is_refused() -> None:
    streams = co.Streams(batch("convolutions"), gaps="value", value=2.0)
    with pytest.raises(KeyError, match="no stream 'a' is open"):
        streams.counters("a")
    assert streams.open("a", gaps="zero") == "a"
    with pytest.raises(ValueError, match="gaps is one of"):
        streams.open("b", gaps="skip")  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        streams.open("b", gap="hold")  # type: ignore[call-overload]
    assert streams.ids == ["a"] == streams.batch.ids
    streams.close("a")
    assert len(streams) == 0
