"""`StepProgram`: a network as a pure step of static shapes, for many rows with a clock each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from ..core.inputs import frame_of
from ..core.kernel import chunk_of_one
from ..core.module import CoModule
from ..core.program.frame_schedule import OPEN
from ..core.progress import Progress
from ..core.state import StepSpec, Wire, frames, rewire
from ..core.step_spec import Inputs
from ..errors import ShapeMismatch, StateMismatch
from .backends import BACKENDS, MAKERS, TARGETS
from .backends.base import CompiledCall, exported
from .chunker import Chunker
from .layouts import flat, input_times, internal_layout, network_layout
from .planning import Planned, planned
from .schedule import CallSchedule, OutputCount

__all__ = ["StepProgram"]

ProgramState = dict[str, Tensor]


class StepProgram:
    """A network as a pure step of static shapes: ``(x, state, active) → (y, valid, state)``. Made by :func:`continual.compile`.

    Each row of the batch is a stream with its own clock: rows start, end and pause independently. A call takes ``chunk`` steps of every
    row.

    Attributes:
        net: the network.
        batch: the number of rows.
        chunk: steps per call and row.
        outputs: outputs per call and row; ``valid`` tells which of them exist.
        start: the index of the first step of a row's first call, at most 0: ``-start`` steps of that call precede the stream.
        backend: what runs the program.

    Example:
        >>> net = co.Sequential(co.Conv1d(2, 4, 3, padding=1), nn.ReLU()).eval()
        >>> program = co.compile(net, torch.zeros(3, 2), backend="eager")
        >>> state = program.init_state()
        >>> clip = torch.randn(3, 2, 10)
        >>> for t in range(4):
        ...     y, valid, state = program(clip[:, :, t : t + 1], state)
        >>> y.shape, valid.flatten().tolist(), torch.allclose(y, net(clip)[:, :, 2:3], atol=1e-6)
        (torch.Size([3, 4, 1]), [True, True, True], True)
    """

    def __init__(self, net: CoModule, step: Inputs, chunk: int | None, backend: str, flush: bool = True):
        if backend not in BACKENDS:
            raise ValueError(f"co.compile: backend is one of {', '.join(map(repr, BACKENDS))}, not {backend!r}")
        self.net, self.backend = net, backend
        inputs = tuple(step) if isinstance(step, (list, tuple)) else (step,)
        self.frame = StepSpec.of(internal_layout(net, inputs, chunk=False))
        self._planned = self._plan(chunk, flush)
        plan, out_schedule = self._planned.plan, self._planned.out_schedule
        self.batch, self.chunk, self.start, self.outputs = (
            frames(self.frame)[0].shape[0],
            plan.chunk,
            plan.start,
            out_schedule.frames,
        )
        self.schedule = CallSchedule(plan.chunk, plan.start, out_schedule, OutputCount.of(net.timing))
        self.names = [h.name for h in plan.state_specs]
        self._calls: dict[bool, CompiledCall] = {}
        self._chunker: Chunker | None = None  # of the stream of `step`, as its state and its number of steps
        self._state: ProgramState = {}
        self._seen = 0

    def _plan(self, chunk: int | None, flush: bool) -> Planned:
        with torch.no_grad():
            return planned(self.net, self.frame, chunk, flush=flush, target=TARGETS[self.backend])

    @property
    def device(self) -> torch.device:
        """The device of the network and of the state."""
        device: torch.device = frames(self.frame)[0].device
        return device

    @property
    def out(self) -> Any:
        """The frames of the outputs, nested as the internal layout nests them."""
        return self._planned.node.out

    def chunker(self) -> Chunker[Wire]:
        """A chunker for streams of this program, with a buffer of zeros."""
        chunker = Chunker[Wire](self.schedule, input_times(self.net, self.frame), rewire(lambda _: 2, self._planned.node.out))
        chunker.open(lambda: rewire(lambda f: f.zeros(self.chunk), self.frame))
        return chunker

    # ---- the pure step --------------------------------------------------------------------------------------------------

    def init_state(self) -> ProgramState:
        """The state of rows that start: tensors by name. ``clock`` is the index of each row's next step, ``end`` its number of steps."""
        clock = torch.full((self.batch,), self.start, dtype=torch.int64, device=self.device)
        state = {"clock": clock, "end": torch.full_like(clock, OPEN)}
        return state | dict(zip(self.names, self._planned.cold(self.batch), strict=True))

    @overload
    def __call__(self, x: Tensor, state: ProgramState, active: Tensor | None = None) -> tuple[Tensor, Tensor, ProgramState]: ...
    @overload
    def __call__(
        self, x: Sequence[Inputs], state: ProgramState, active: Tensor | None = None
    ) -> tuple[Wire, Tensor, ProgramState]: ...
    def __call__(self, x: Inputs, state: ProgramState, active: Tensor | None = None) -> tuple[Any, Tensor, ProgramState]:
        """Run one call.

        Args:
            x: the next ``chunk`` steps of every row, as ``forward_steps`` takes them; several inputs as a list. The values of steps that
                precede a row's stream (the first ``-start`` of its first call) or follow its end have no effect.
            state: from :meth:`init_state` or from the previous call. Compiled programs write the new state into these tensors: continue
                with the state that the call returns.
            active: the rows that take part, ``(B,)``; other rows keep their state and have no outputs. ``None``: all rows.

        Returns:
            The outputs as ``forward_steps`` returns them, ``outputs`` for each row; which of them exist, ``(B, outputs)``; the state.

        Raises:
            ShapeMismatch: chunks of another shape, dtype or device.
            StateMismatch: the state of another program.
        """
        inputs = tuple(x) if isinstance(x, (list, tuple)) else (x,)
        wire = internal_layout(self.net, inputs, chunk=True)
        self._check(wire, state, active)
        y, valid, state = self.run(wire, state, active)
        return network_layout(self.net, y, chunk=True), valid, state

    def run(self, x: Wire, state: ProgramState, active: Tensor | None = None) -> tuple[Wire, Tensor, ProgramState]:
        """Run one call without checks, on chunks ``(B, C, chunk, *S)``."""
        tensors = [state[name] for name in self.names]
        args = (x, state["clock"], state["end"], active, tensors)
        call = self._calls.get(active is not None)
        if call is None:
            with Progress(f"compiling {type(self.net).__name__} for {self.backend}"):
                call = self._calls[active is not None] = MAKERS[self.backend](self._planned, self._example(args))
                y, valid, clock, tensors = call(*args)  # torch.compile compiles in its first call
        else:
            y, valid, clock, tensors = call(*args)
        return y, valid, {"clock": clock, "end": state["end"]} | dict(zip(self.names, tensors, strict=True))

    def _example(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Copies of a call's arguments, which a backend may overwrite."""
        x, clock, end, active, tensors = args
        active = None if active is None else active.clone()
        return rewire(lambda t: t.contiguous().clone(), x), clock.clone(), end.clone(), active, [h.clone() for h in tensors]

    def _check(self, x: Wire, state: ProgramState, active: Tensor | None) -> None:
        name = type(self.net).__name__
        got = frame_of(x, True)
        if got != self.frame or any(t.shape[2] != self.chunk for t in flat(x)):
            wanted = "; ".join(str(f.resized(*f.shape[:2], self.chunk, *f.shape[2:])) for f in frames(self.frame))
            shown = "; ".join(str(StepSpec.of(t)) for t in flat(x))
            raise ShapeMismatch(f"program of {name}: takes chunks {wanted}, got {shown}")
        if not isinstance(state, dict) or set(state) != {"clock", "end", *self.names}:
            raise StateMismatch(
                f"program of {name}: takes the state of init_state() or of the previous call, not {type(state).__name__}"
            )
        if state["clock"].shape != (self.batch,):
            raise StateMismatch(f"program of {name}: has {self.batch} rows, the state is of {state['clock'].shape[0]}")
        for spec in self._planned.plan.state_specs:
            t = state[spec.name]
            if t.shape[1:] != spec.shape or t.dtype != spec.dtype or t.shape[0] != self.batch:
                raise StateMismatch(
                    f"program of {name}: {spec.name!r} is {spec.dtype} {(self.batch, *spec.shape)} in its state, got {t.dtype} "
                    f"{tuple(t.shape)}. It is the state of another program"
                )
        if active is not None and (active.shape != (self.batch,) or active.dtype != torch.bool):
            raise ShapeMismatch(
                f"program of {name}: active is a bool for each of {self.batch} rows, got {active.dtype} {tuple(active.shape)}"
            )

    def export(self) -> torch.export.ExportedProgram:
        """The program by ``torch.export``, as a pure function ``(x, clock, end, active, state) → (y, valid, clock, state)``."""
        state = self.init_state()
        x = rewire(lambda f: f.zeros(self.chunk), self.frame)
        active = torch.ones(self.batch, dtype=torch.bool, device=self.device)
        return exported(self._planned, (x, state["clock"], state["end"], active, [state[n] for n in self.names]))

    # ---- rows -----------------------------------------------------------------------------------------------------------

    def reset(self, state: ProgramState, rows: Iterable[int] | None = None) -> ProgramState:
        """Restart rows (``None``: all of them). Changes the state's tensors, and returns the state."""
        index = torch.tensor(list(range(self.batch) if rows is None else rows), dtype=torch.int64, device=self.device)
        state["clock"][index], state["end"][index] = self.start, OPEN
        for name, cold in zip(self.names, self._planned.cold(1), strict=True):
            state[name][index] = cold
        return state

    def finish(self, state: ProgramState, row: int, frames: int) -> ProgramState:
        """Set the end of a row's stream: ``frames`` steps in all. Later calls give the remaining outputs; see :meth:`calls_to_end`."""
        state["end"][row] = frames
        return state

    def calls_to_end(self, calls: int, frames: int) -> int:
        """How many calls a row needs after ``calls`` calls to give all outputs of a stream of ``frames`` steps."""
        return self.schedule.calls_to_end(calls, frames)

    def valid_in(self, call: int, frames: int = OPEN) -> range:
        """Which outputs exist in call ``call`` (from 0) of a row whose stream has ``frames`` steps in all."""
        return self.schedule.valid_in(call, frames)

    # ---- one stream in lockstep -----------------------------------------------------------------------------------------

    @overload
    def step(self, *x: Tensor) -> Tensor | None: ...
    @overload
    def step(self, x: Sequence[Inputs], /) -> Wire | None: ...
    def step(self, *x: Any) -> Any:
        """Take one step of all rows together. Returns the outputs that it completes as ``forward_step`` does, or ``None``.

        With a ``chunk`` above 1, steps wait in a buffer until the last step of a chunk runs a call.
        """
        wire = internal_layout(self.net, x, chunk=False)
        got = StepSpec.of(wire)
        if got != self.frame:
            shown = "; ".join(map(str, frames(got)))
            raise ShapeMismatch(
                f"program of {type(self.net).__name__}: takes steps {'; '.join(map(str, frames(self.frame)))}, got {shown}"
            )
        if self._chunker is None:
            self._chunker, self._state = self.chunker(), self.init_state()
        found = self._chunker.feed(rewire(chunk_of_one, wire), 1, self._seen, self._advance)
        self._seen += 1
        return network_layout(self.net, self._chunker.single(found[0]), chunk=self.outputs > 1) if found else None

    def _advance(self, x: Wire) -> Wire:
        y, _, self._state = self.run(x, self._state)
        return y

    def flush(self) -> Tensor | None:
        """The outputs that the end of the stream would bring now, stacked as by ``forward_steps``; ``None`` if there are none.

        The stream continues as if ``flush`` had not been called.

        Raises:
            ShapeMismatch: branches of the network differ in length after so many steps, and ``forward`` refuses such a clip.
        """
        if self._chunker is None or self._seen == 0:
            return None
        state = {name: t.clone() for name, t in self._state.items()}
        state["end"].fill_(self._seen)

        def call(x: Wire) -> Wire:
            nonlocal state
            y, _, state = self.run(x, state)
            return y

        y = self._chunker.joined(self._chunker.flush(self._seen, call))
        return None if y is None else network_layout(self.net, y, chunk=True)

    def clean_state(self) -> None:
        """Forget the stream of :meth:`step`."""
        self._chunker, self._state, self._seen = None, {}, 0

    def __repr__(self) -> str:
        name = type(self.net).__name__
        return f"StepProgram({name}, {self.batch} rows, chunk={self.chunk}, backend={self.backend!r})"
