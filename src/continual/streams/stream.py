"""`Stream`: a network on frames as they come, with time stamps, gaps and late frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..core.module import CoModule
from ..core.step_spec import Inputs
from ..errors import StateMismatch
from .clock import Event, Start
from .frames import Frames
from .moments import Moments
from .network import Network
from .output import StreamOutput
from .policy import Gaps, Policy
from .state import StreamState
from .track import Steps, Track, blocks, placed

if TYPE_CHECKING:
    from ..export.runner import Runner


class Stream:
    """A network on frames as they come from a source: with sequence numbers or time stamps, with gaps, late and double frames.

    The network gets a frame for each of its steps. Frames within ``jitter`` of a step are that step's; a step between two neighbouring
    frames is interpolated between them; for steps whose frames are missing, ``gaps`` decides. Outputs say which moment of the input
    they are about. A stream starts at its first frame.

    Args:
        net: a streaming network, of which the stream shares the weights and not the state; or a file opened by :func:`continual.load`.
        rate: steps per second of the network. Time stamps need it. By default, that of the file's metadata.
        gaps: what stands for a missing frame: ``"hold"`` (the last frame), ``"zero"``, ``"value"`` (``value``), ``"interpolate"``
            (between the frames around the gap: its outputs wait for the next frame), or ``"error"``. ``"reset"``: nothing does. The
            network starts again at the next frame, and the frames that wait in it are dropped.
        value: for ``gaps="value"``: a number, or a tensor that broadcasts to a frame ``(B, C, *S)``.
        lateness: how long missing frames are waited for, in seconds by the stamps of frames that come; without a rate, in steps. Frames
            that come later are dropped and counted.
        jitter: how far a frame's stamp may be from a step to be the frame of that step, in steps. With 0.5 no frames are interpolated.
        source_rate: frames per second of the source, if they are not ``rate``.
        reset_after: seconds (without a rate, steps). The network starts again after longer gaps, whatever ``gaps`` says, and when the
            source goes back in time by more.

    Attributes:
        delay: frames before the one that brings the first output.
        lookahead: steps from the moment that an output is about to its arrival, at most.

    Raises:
        NotStreamable: ``net`` can't be stepped.
        ValueError: arguments that contradict each other.

    Example:
        >>> net = co.Conv1d(1, 1, 3, padding=1).eval()
        >>> stream = co.Stream(net, rate=50, gaps="hold")
        >>> clip = torch.randn(2, 1, 6)
        >>> found = [out for t in (0, 1, 2, 5) for out in stream.step(clip[:, :, t], time=t / 50)] + stream.finish()
        >>> [(out.index, out.time, out.flags.gap) for out in found]
        [(0, 0.0, False), (1, 0.02, False), (2, 0.04, True), (3, 0.06, True), (4, 0.08, True), (5, 0.1, True)]
        >>> held = clip[:, :, [0, 1, 2, 2, 2, 5]]  # what the network has seen
        >>> torch.allclose(torch.stack([out.value for out in found], 2), net(held), atol=1e-6)
        True
        >>> stream.counters["missing"], stream.lookahead_ms
        (2, 20.0)
    """

    def __init__(
        self,
        net: CoModule | Runner,
        *,
        rate: float | None = None,
        gaps: Gaps = "error",
        value: Tensor | float | None = None,
        lateness: float = 0.0,
        jitter: float = 0.02,
        source_rate: float | None = None,
        reset_after: float | None = None,
    ):
        self._network = Network(net)
        rate = self._network.rate if rate is None else rate
        self.policy = Policy(gaps, rate, source_rate, lateness, jitter, reset_after, value)
        moments = self._network.moments
        self._track = Track(Frames(self._network.times, self._network.several, self.policy), moments)
        self.delay, self.lookahead = self._network.delay, moments.lookahead
        self._before: tuple[Any] | None = None  # the state of the network before a call

    # ---- properties -----------------------------------------------------------------------------------------------------

    @property
    def rate(self) -> float | None:
        """Steps per second, if known."""
        return self.policy.rate

    @property
    def delay_ms(self) -> float | None:
        """Milliseconds of frames before the one that brings the first output; ``None`` without a rate."""
        return in_ms(self.delay, self.rate)

    @property
    def lookahead_ms(self) -> float | None:
        """Milliseconds from the moment that an output is about to its arrival, at most; ``None`` without a rate."""
        return in_ms(self.lookahead, self.rate)

    @property
    def moments(self) -> Moments:
        """Which steps each output of the network sees, and which it is about, counted from a start of the network."""
        return self._track.moments

    @property
    def counters(self) -> dict[str, int]:
        """What has happened since the stream started.

        ``frames`` that came, ``missing`` steps whose frames did not come in time, ``late`` and ``duplicate`` frames that were dropped,
        ``interpolated`` steps, ``resets``, and ``outputs``.
        """
        return self._track.counters

    # ---- steps ----------------------------------------------------------------------------------------------------------

    def step(self, frame: Inputs | None, *, time: float | None = None, index: int | None = None) -> list[StreamOutput]:
        """Take a frame, and return the outputs that it brings.

        Args:
            frame: ``(B, C, *S)``, as ``forward_step`` takes it; a list for several inputs. ``None``: the frame is known to be missing.
            time: its time stamp in seconds, of any clock that goes on.
            index: its sequence number. With neither of them, it is the next frame.

        Raises:
            ShapeMismatch: another shape than that of the frames before. The stream is where it was.
            MissingFrames: frames are missing, and ``gaps`` is ``"error"``. The stream is where it was.
            ValueError: ``time`` and ``index`` together, in turns, or ``time`` without a rate.
        """
        kind, number = placed(time, index, self.policy)
        with self._all_or_nothing():
            return self._run(self._track.give(frame, kind, number))

    def steps(
        self,
        frames: Inputs | Iterable[Any],
        *,
        times: Sequence[float] | Tensor | None = None,
        indices: Sequence[int] | Tensor | None = None,
    ) -> list[StreamOutput]:
        """Take several frames. The outputs are those of one :meth:`step` after another, and cost less.

        Args:
            frames: a chunk ``(B, C, T, *S)``, as ``forward_steps`` takes it; or frames as :meth:`step` takes them.
            times: a time stamp for each of them.
            indices: a sequence number for each of them.

        Raises:
            ShapeMismatch, MissingFrames, ValueError: as :meth:`step`. None of the frames has been taken.
        """
        each: list[Any] = self._track.frames.unstacked(frames) if isinstance(frames, Tensor) else list(frames)
        for name, own in (("times", times), ("indices", indices)):
            if own is not None and len(own) != len(each):
                raise ValueError(f"Stream: {len(each)} frames have {len(own)} {name}: give one for each frame")
        stamps = [None] * len(each) if times is None else [float(t) for t in times]
        numbers = [None] * len(each) if indices is None else [int(i) for i in indices]
        track, policy = self._track, self.policy
        with self._all_or_nothing():
            moments = (track.give(x, *placed(t, i, policy)) for x, t, i in zip(each, stamps, numbers, strict=True))
            return self._run(chain.from_iterable(moments))

    def finish(self) -> list[StreamOutput]:
        """End the stream, and return the outputs that its end brings. The next frame starts another stream.

        Raises:
            ShapeMismatch: branches of the network differ in length after so many steps. The stream is where it was.
            ExportError: a file that was exported with ``flush=False``.
        """
        track = self._track
        if track.numbering is None:
            return []
        with self._all_or_nothing(everything=True):
            found = self._run(track.clock.rest())
            found += track.took([], self._network.end(track.frames.chunk([], track.like)))
        self.clean_state()
        self._track.clock.counters, self._track.outputs = track.clock.counters, track.outputs
        return found

    # ---- state ----------------------------------------------------------------------------------------------------------

    def get_state(self) -> StreamState | None:
        """An independent snapshot of the network, the clock and the frames that wait; ``None`` before the first frame."""
        return self._track.state(self._network.net.get_state())

    def set_state(self, state: StreamState | None) -> None:
        """Go on from a snapshot, of this stream or of another one of the same network and rates; ``None``: start anew.

        Raises:
            StateMismatch: a state of another network, of other weights, or of other rates. The stream keeps its state.
        """
        if state is None:
            return self.clean_state()
        if not isinstance(state, StreamState):
            raise StateMismatch(f"Stream: set_state takes a state of get_state(), or None, not {type(state).__name__}")
        track = self._track.restored(state)
        self._network.net.set_state(state.network)
        self._track = track

    def clean_state(self) -> None:
        """Forget the stream and its counters: the next frame is the first of another stream."""
        self._network.net.clean_state()
        self._track = Track(self._track.frames, self._track.moments)

    # ---- inside ---------------------------------------------------------------------------------------------------------

    def _run(self, events: Iterator[Event]) -> list[StreamOutput]:
        """Take steps. If they are several calls of the network, its state is kept before the first one, to go back to."""
        found: list[StreamOutput] = []
        steps = blocks(events)
        block = next(steps, None)
        while block is not None:
            after = next(steps, None)
            if self._before is None and (after is not None or self._network.calls(block) > 1):
                self._before = (self._network.net.get_state(),)
            found += self._taken(block)
            block = after
        return found

    def _taken(self, block: Start | Steps) -> list[StreamOutput]:
        """The outputs of some steps."""
        track = self._track
        if isinstance(block, Start):
            self._network.net.clean_state()
            track.started(block)
            return []
        return track.took(block, self._network.feed(track.frames, track.made(block)))

    @contextmanager
    def _all_or_nothing(self, everything: bool = False) -> Iterator[None]:
        """Put the stream back to where it was if the block raises.

        Args:
            everything: whether the network's state is kept from the beginning. Otherwise it is kept before several calls of the network:
                one that raises leaves it as it was.
        """
        before = self._track.copy()
        self._before = (self._network.net.get_state(),) if everything else None
        try:
            yield
        except BaseException:
            self._track = before
            if self._before is not None:
                self._network.net.set_state(self._before[0])
            raise
        finally:
            self._before = None

    def __repr__(self) -> str:
        clock = f", rate={self.rate:g}" if self.rate is not None else ""
        late = f" ({self.delay_ms:g} ms)" if self.delay_ms is not None else ""
        return f"Stream({self._network.name}{clock}, gaps={self.policy.gaps!r}, delay={self.delay}{late}, lookahead={self.lookahead})"


def in_ms(steps: float, rate: float | None) -> float | None:
    """Steps in milliseconds."""
    return None if rate is None else 1000 * steps / rate
