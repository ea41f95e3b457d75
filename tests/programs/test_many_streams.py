"""Streams that open, step, pause, end and are restored at random, over random networks: each equals a stream that runs alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from torch import Tensor

import continual as co
from tests.contract import TOO_SHORT, assert_equal, refuses_the_length
from tests.strategies import networks_and_clips

OPERATIONS = 50  # in each run


class Alone:
    """A stream on the host clock, by pure steps, and what it has given since the last call of the program."""

    def __init__(self, net: Any, frame: Tensor):
        self.net, self.state = net, net.init_state(frame.unsqueeze(0))
        self.given: list[Tensor] = []
        self.frames: list[Tensor] = []

    def step(self, frame: Tensor) -> None:
        """One frame ``(C, *S)``."""
        self.frames.append(frame)
        y, self.state = self.net.steps(frame.unsqueeze(0).unsqueeze(2), self.state)
        if y is not None:
            self.given += y[0].unbind(1)

    def copy(self) -> Alone:
        """The same stream at this moment."""
        other = Alone.__new__(Alone)
        other.__dict__.update(self.__dict__, given=list(self.given), frames=list(self.frames))
        return other


class Streams(RuleBasedStateMachine):
    """A batch of streams beside the same streams alone."""

    @initialize(data=st.data(), rows=st.integers(1, 4), shards=st.integers(1, 2))
    def begin(self, data: st.DataObject, rows: int, shards: int) -> None:
        net, clip = data.draw(networks_and_clips(depth=data.draw(st.integers(0, 2))))
        self.net, self.like, self.seed = net, clip[0, :, 0], 0
        try:
            grow = data.draw(st.booleans())
            self.streams = co.StreamBatch(net, clip[:1, :, 0], rows * shards, shards=shards, grow=grow, backend="eager")
        except co.NotStreamable as error:
            assume("co.compile" not in str(error))
            raise
        note(f"{net}\nchunk {self.streams.program.chunk}, starts at {self.streams.program.start}")
        self.alone: dict[Any, Alone] = {}
        self.snapshots: list[tuple[co.StreamSnapshot, Alone]] = []
        self.ending: dict[Any, list[Tensor]] = {}  # what is still to come
        self.open()

    def _frame(self) -> Tensor:
        self.seed += 1
        return torch.randn(self.like.shape, dtype=self.like.dtype, generator=torch.Generator().manual_seed(self.seed))

    def _some(self, data: st.DataObject) -> Any:
        return data.draw(st.sampled_from(sorted(self.alone)))

    @rule()
    def another(self) -> None:
        self.open()

    def open(self) -> None:
        if len(self.streams) + len(self.ending) == self.streams.capacity and (
            not self.streams.grow or self.streams.capacity >= 8
        ):
            return
        self.alone[self.streams.open()] = Alone(self.net, self.like)

    @precondition(lambda self: self.alone)
    @rule(data=st.data(), times=st.integers(1, 4))
    def step(self, data: st.DataObject, times: int) -> None:
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.alone)), min_size=1, unique=True))
        program = self.streams.program
        for _ in range(times):
            frames = {i: self._frame() for i in chosen}
            out = self.streams.step(frames)
            self._took({i: out.pop(i) for i in list(out) if i in self.ending})
            assert list(out) == chosen
            for i in chosen:
                own = self.alone[i]
                own.step(frames[i])
                if (len(own.frames) - program.start) % program.chunk:
                    assert out[i] is None
                    continue
                given, own.given = own.given, []
                if not given:
                    assert out[i] is None
                else:
                    want = given[0] if program.outputs == 1 else torch.stack(given, 1)
                    assert_equal(out[i], want, f"stream {i} after {len(own.frames)} steps")

    def _took(self, out: dict[Any, Tensor | None]) -> None:
        """Compare what the ends of streams have brought."""
        for i, y in out.items():
            found = [] if y is None else list(y.unbind(1))
            due, self.ending[i] = self.ending[i][: len(found)], self.ending[i][len(found) :]
            assert len(due) == len(found)
            for a, b in zip(found, due, strict=True):
                assert_equal(a, b, f"end of stream {i}")
        for i in [i for i in self.ending if i not in self.streams.ending]:
            assert not self.ending.pop(i), "outputs are missing at the end"

    @precondition(lambda self: self.alone)
    @rule(data=st.data(), count=st.integers(0, 9))
    def step_rows(self, data: st.DataObject, count: int) -> None:
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.alone)), min_size=1, unique=True))
        frames = {i: [self._frame() for _ in range(count)] for i in chosen}
        empty = self.like.new_zeros(self.like.shape[0], 0, *self.like.shape[1:])
        x = torch.stack([torch.stack(frames[i], 1) if count else empty for i in chosen])
        y, valid = self.streams.step_rows(self.streams.rows(chosen), x)
        self._took({e.stream: e.y for e in self.streams.ended()})
        program = self.streams.program
        for k, i in enumerate(chosen):
            own = self.alone[i]
            for frame in frames[i]:
                own.step(frame)
            waiting = (len(own.frames) - program.start) % program.chunk
            late = self._late(own, waiting)
            given, own.given = own.given[: len(own.given) - late], own.given[len(own.given) - late :]
            found = [y[k, :, j] for j in valid[k].nonzero().flatten().tolist()]
            assert len(found) == len(given)
            for a, b in zip(found, given, strict=True):
                assert_equal(a, b, f"stream {i} after {len(own.frames)} steps")

    def _late(self, own: Alone, waiting: int) -> int:
        """Outputs that come only with the rest of a chunk."""
        timing, n = self.net.timing, len(own.frames)
        return timing.counts(n, n)[0] - timing.counts(max(0, n - waiting), max(0, n - waiting))[0] if waiting else 0

    @precondition(lambda self: self.alone)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        i = self._some(data)
        try:
            rest = self.streams.flush(i)
        except co.ShapeMismatch:
            with pytest.raises(co.ShapeMismatch, match="differ in length"):
                self.streams.finish(i)
            return
        self.flush_of(i)
        self.streams.finish(i)
        self.ending[i] = [] if rest is None else list(rest.unbind(1))
        del self.alone[i]

    @precondition(lambda self: self.alone)
    @rule(data=st.data())
    def flush(self, data: st.DataObject) -> None:
        self.flush_of(self._some(data))

    def flush_of(self, i: Any) -> None:
        own = self.alone[i]
        if not own.frames:
            assert self.streams.flush(i) is None
            return
        clip = torch.stack(own.frames, 1).unsqueeze(0)
        try:
            found = self.streams.flush(i)
        except co.ShapeMismatch as error:
            if "branches of the network differ in length" not in str(error):
                raise
            with pytest.raises((co.ShapeMismatch, *TOO_SHORT)):
                self.net.forward(clip)
            return
        assert not refuses_the_length(self.net, clip)
        rest, _ = self.net.steps(torch.stack(own.frames[:0] or [self.like], 1).unsqueeze(0)[:, :, :0], own.state, True)
        due = [*own.given, *(() if rest is None else rest[0].unbind(1))]
        if not due:
            assert found is None
        else:
            assert_equal(found, torch.stack(due, 1), f"end of stream {i} after {len(own.frames)} steps")

    @precondition(lambda self: self.alone)
    @rule(data=st.data())
    def reset(self, data: st.DataObject) -> None:
        i = self._some(data)
        self.streams.reset(i)
        self.alone[i] = Alone(self.net, self.like)

    @precondition(lambda self: len(self.alone) > 1)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        i = self._some(data)
        self.streams.close(i)
        del self.alone[i]

    @precondition(lambda self: self.alone)
    @rule(data=st.data())
    def snapshot(self, data: st.DataObject) -> None:
        i = self._some(data)
        self.snapshots.append((self.streams.snapshot(i), self.alone[i].copy()))

    @precondition(lambda self: self.alone and self.snapshots)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        i = self._some(data)
        snapshot, alone = data.draw(st.sampled_from(self.snapshots))
        self.streams.restore(i, snapshot)
        self.alone[i] = alone.copy()


TestStreams = Streams.TestCase
TestStreams.settings = settings(max_examples=settings().max_examples, stateful_step_count=OPERATIONS)
