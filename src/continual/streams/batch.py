"""`Streams`: the streams of a batch, each with its own clock."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar, Unpack, overload

from torch import Tensor

from ..core.step_spec import Inputs
from ..errors import StateMismatch
from ..programs.stream_batch import StreamBatch
from .clock import Event, Start
from .frames import Frames
from .moments import Moments
from .network import Outputs, layout_of
from .output import StreamOutput
from .policy import Gaps, Policy, Rules
from .state import StreamState
from .track import Steps, Track, blocks, placed

Id = TypeVar("Id", bound=Hashable)
Do = Start | tuple[Steps, list[Tensor]]  # a beginning, or a single step with its frame
Plan = list[Do]  # what one stream has to do in a call


class Streams:
    """The streams of a :class:`~continual.StreamBatch` on frames as they come: what :class:`~continual.Stream` is for one of them.

    A call takes frames of any of the streams. Gaps, late frames and stamps differ from stream to stream, so a call may need several steps
    of some of them. The batch takes a step of all streams that have one, until none is left. One thread at a time.

    Args:
        batch: its streams are opened, stepped and closed through this object alone.
        rate, gaps, value, lateness, jitter, source_rate, reset_after: as of :class:`~continual.Stream`, for streams that are opened without
            others. ``rate`` is by default that of an exported file.

    Example:
        >>> net = co.Conv1d(2, 3, 3, padding=1).eval()
        >>> streams = co.Streams(co.StreamBatch(net, torch.zeros(1, 2), capacity=8, backend="eager"), rate=10, gaps="hold")
        >>> door, yard = streams.open("door"), streams.open("yard", gaps="zero")
        >>> for t in range(4):
        ...     found = streams.step({door: torch.randn(2), yard: None if t == 2 else torch.randn(2)}, times=t / 10)
        >>> [(out.index, out.time, out.flags.gap) for out in found[yard]]
        [(2, 0.2, True)]
        >>> streams.counters(yard)["missing"], [out.index for out in streams.finish(door)]
        (1, [3])
    """

    def __init__(
        self,
        batch: StreamBatch,
        *,
        rate: float | None = None,
        gaps: Gaps = "error",
        value: Tensor | float | None = None,
        lateness: float = 0.0,
        jitter: float = 0.02,
        source_rate: float | None = None,
        reset_after: float | None = None,
    ):
        self.batch = batch
        rate = getattr(batch.net, "rate", None) if rate is None else rate
        self.policy = Policy(gaps, rate, source_rate, lateness, jitter, reset_after, value)
        net: Any = batch.net
        self._moments = Moments.of(net)
        self._times, _, times, batches = layout_of(net)
        self._outputs = Outputs([time - (row < time) for time, row in zip(times, batches, strict=True)])
        self._several = batch.served.schedule.per_call > 1
        self._tracks: dict[Hashable, Track] = {}

    # ---- streams --------------------------------------------------------------------------------------------------------

    @property
    def ids(self) -> list[Hashable]:
        """The open streams."""
        return list(self._tracks)

    def __len__(self) -> int:
        return len(self._tracks)

    @overload
    def open(self, stream: None = None, **policy: Unpack[Rules]) -> int: ...
    @overload
    def open(self, stream: Id, **policy: Unpack[Rules]) -> Id: ...
    def open(self, stream: Hashable | None = None, **policy: Unpack[Rules]) -> Hashable:
        """Open a stream, and return its id: the given one, or a number.

        Args:
            stream: its id.
            policy: arguments of this class that are other ones for this stream.

        Raises:
            CapacityError: the batch is full, or the id is in use.
            ValueError, TypeError: arguments that contradict each other, or unknown ones.
        """
        rules: dict[str, Any] = dict(policy)
        if rules.get("gaps", "value") != "value":
            rules.setdefault("value", None)
        own = replace(self.policy, **rules)
        opened = self.batch.open() if stream is None else self.batch.open(stream)
        self._tracks[opened] = Track(Frames(self._times, [False] * len(self._times), own, "(C, *S)"), self._moments)
        return opened

    def close(self, stream: Hashable) -> None:
        """Close a stream. Its remaining outputs are dropped.

        Raises:
            KeyError: no such stream is open.
        """
        self.batch.close(stream)
        del self._tracks[stream]

    def counters(self, stream: Hashable) -> dict[str, int]:
        """What has happened in a stream, as :attr:`continual.Stream.counters`.

        Raises:
            KeyError: no such stream is open.
        """
        return self._track(stream).counters

    def _track(self, stream: Hashable) -> Track:
        if stream not in self._tracks:
            raise KeyError(f"Streams: no stream {stream!r} is open ({len(self)} are): open it by streams.open({stream!r})")
        return self._tracks[stream]

    # ---- steps ----------------------------------------------------------------------------------------------------------

    def step(
        self,
        frames: Mapping[Id, Inputs | None],
        *,
        times: float | Mapping[Id, float] | None = None,
        indices: int | Mapping[Id, int] | None = None,
    ) -> dict[Id, list[StreamOutput]]:
        """Take a frame of some of the streams, and return the outputs that it brings for each of them.

        Args:
            frames: ``(C, *S)`` for each stream that takes part, a list for several inputs; ``None``: the frame is known to be missing.
            times: a time stamp in seconds, of all frames or of each.
            indices: a sequence number, of all frames or of each.

        Raises:
            KeyError, ShapeMismatch, MissingFrames, ValueError: as :meth:`continual.Stream.step`, of one of the streams. All streams are
                where they were.
        """
        tracks, plans = dict[Hashable, Track](), dict[Hashable, Plan]()
        for stream, frame in frames.items():
            track = tracks[stream] = self._track(stream).copy()
            time = times.get(stream) if isinstance(times, Mapping) else times
            index = indices.get(stream) if isinstance(indices, Mapping) else indices
            plans[stream] = _planned(track, track.give(frame, *placed(time, index, track.frames.policy)))
        found = self._run(tracks, plans)
        return {stream: found[stream] for stream in frames}

    def finish(self, stream: Hashable) -> list[StreamOutput]:
        """End a stream, close it, and return the outputs that its end brings. This runs up to ``delay`` calls of the program.

        Raises:
            KeyError: no such stream is open.
            ShapeMismatch: branches of the network differ in length after so many steps. The stream stays open.
        """
        track = self._track(stream).copy()
        with self._all_or_nothing([stream]):
            found = self._run({stream: track}, {stream: _planned(track, track.clock.rest())})[stream]
            y = self.batch.flush(stream) if track.numbering is not None else None
        found += track.took([], self._outputs.apart(y))
        self.close(stream)
        return found

    def _run(self, tracks: dict[Hashable, Track], plans: dict[Hashable, Plan]) -> dict[Hashable, list[StreamOutput]]:
        """Take all steps of some streams, and put their tracks in place of those before."""
        found: dict[Hashable, list[StreamOutput]] = {stream: [] for stream in tracks}
        turns = {stream: iter(plan) for stream, plan in plans.items()}
        several = any(len(plan) > 1 for plan in plans.values())  # a call of the batch that raises leaves all streams as they were
        with self._all_or_nothing([s for s, plan in plans.items() if several and plan]):
            while now := {s: do for s, turn in turns.items() if (do := self._next(tracks[s], s, turn)) is not None}:
                outputs = self.batch.step({s: tracks[s].frames.nested(frame) for s, (_, frame) in now.items()})
                for stream, (steps, _) in now.items():
                    y = outputs[stream]
                    values = self._outputs.apart(y) if self._several else [] if y is None else [y]
                    found[stream] += tracks[stream].took(steps, values)
        self._tracks.update(tracks)
        return found

    def _next(
        self, track: Track, stream: Hashable, turn: Iterator[Start | tuple[Steps, list[Tensor]]]
    ) -> tuple[Steps, list[Tensor]] | None:
        """The next step of a stream; ``None`` if it has none."""
        for do in turn:
            if not isinstance(do, Start):
                return do
            self.batch.reset(stream)
            track.started(do)
        return None

    @contextmanager
    def _all_or_nothing(self, streams: list[Hashable]) -> Iterator[None]:
        """Put some streams of the batch back to where they were if the block raises."""
        if not streams:
            yield
            return
        rows, tracks = self.batch.rows(streams), {stream: self._tracks[stream] for stream in streams}
        before = self.batch.snapshot_rows(rows)
        try:
            yield
        except BaseException:
            self.batch.restore_rows(rows, before)
            self._tracks.update(tracks)
            raise

    # ---- snapshots ------------------------------------------------------------------------------------------------------

    def snapshot(self, stream: Hashable) -> StreamState | None:
        """An independent copy of a stream's state and clock; ``None`` before its first frame.

        Raises:
            KeyError: no such stream is open.
        """
        return self._track(stream).state(self.batch.snapshot(stream))

    def restore(self, stream: Hashable, state: StreamState | None) -> None:
        """Continue an open stream from a snapshot, of these streams or of others of the same network and rates; ``None``: start anew.

        Raises:
            KeyError: no such stream is open.
            StateMismatch: the snapshot is of another network, of other weights, or of other rates. The stream stays as it is.
        """
        track = self._track(stream)
        if state is None:
            self.batch.reset(stream)
            self._tracks[stream] = Track(track.frames, track.moments)
            return
        if not isinstance(state, StreamState):
            raise StateMismatch(f"Streams: restore takes a state of snapshot(), or None, not {type(state).__name__}")
        restored = track.restored(state)
        self.batch.restore(stream, state.network)
        self._tracks[stream] = restored

    def __repr__(self) -> str:
        clock = f", rate={self.policy.rate:g}" if self.policy.rate is not None else ""
        return f"Streams({self.batch!r}{clock}, gaps={self.policy.gaps!r})"


def _planned(track: Track, events: Iterator[Event]) -> Plan:
    """Events as single steps, with their frames."""
    plan: Plan = []
    for block in blocks(events):
        if isinstance(block, Start):
            plan.append(block)
            continue
        plan += [([step], frame) for step, frame in zip(block, track.made(block), strict=True)]
    return plan
