"""`StepProgram`: a network as a static-shape pure step, for many rows that each have a clock of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from ..core.inputs import frame_of
from ..core.module import CoModule
from ..core.program.frame_schedule import OPEN
from ..core.progress import Progress
from ..core.state import Frame, Wire, frames, rewire
from ..core.step_spec import Inputs
from ..errors import ShapeMismatch, StateMismatch
from .backends import BACKENDS, MAKERS, RUNTIMES
from .backends.base import Core, exported
from .call_schedule import Rhythm, Totals
from .layouts import arrived, departed, flat
from .planning import Planned, planned

__all__ = ["StepProgram"]

ProgramState = dict[str, Tensor]


class StepProgram:
    """A network as a static-shape pure step: ``(x, state, active) → (y, valid, state)``. Made by :func:`continual.compile`.

    Every row of the batch is a stream of its own, with its own clock: rows may begin, end and pause at different times. A call takes
    ``chunk`` steps of every row.

    Attributes:
        net: the network.
        batch: rows.
        chunk: steps that each call takes of every row.
        outputs: how many outputs each call gives of every row; ``valid`` tells which of them exist.
        start: the index of the first step of a row's first call, 0 or below: so many steps of that call are from before the stream.
        backend: what runs it.

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
        self.frame = Frame.of(arrived(net, inputs, chunk=False))
        self._planned = self._plan(chunk, flush)
        plan, leaves = self._planned.plan, self._planned.leaves
        self.batch, self.chunk, self.start = frames(self.frame)[0].shape[0], plan.chunk, plan.start
        self.outputs, self.rhythm = leaves.frames, Rhythm(plan.chunk, plan.start, leaves, Totals.of(net.timing))
        self.names = [h.name for h in plan.held]
        self._cores: dict[bool, Core] = {}
        self._own: ProgramState | None = None
        self._pending: list[Wire] = []
        self._seen = 0

    def _plan(self, chunk: int | None, flush: bool) -> Planned:
        with torch.no_grad():
            written = {"fused": self.backend in ("inductor", "aot"), "narrow": self.backend == "openvino"}
            return planned(self.net, self.frame, chunk, flush=flush, located=self.backend in RUNTIMES, **written)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        device: torch.device = frames(self.frame)[0].device
        return device

    # ---- the pure step --------------------------------------------------------------------------------------------------

    def init_state(self) -> ProgramState:
        """The state of rows that all begin: tensors by name. ``clock`` is the index of each row's next step, ``end`` how many it has."""
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
        """One call.

        Args:
            x: the next ``chunk`` steps of every row, as ``forward_steps`` takes them; several inputs as a list. In a row's first call the
                first ``-start`` of them are from before its stream, and may hold anything. So may the steps of rows that have ended.
            state: from :meth:`init_state`, or from the call before. Compiled programs write the new state into its tensors: go on with the
                one that is returned.
            active: rows that take part, ``(B,)``; the others keep their state, and have no outputs. ``None``: all.

        Returns:
            The outputs as ``forward_steps`` gives them, ``outputs`` of each row; which of them exist, ``(B, outputs)``; the state.

        Raises:
            ShapeMismatch: chunks of another shape, dtype or device.
            StateMismatch: the state of another program.
        """
        inputs = tuple(x) if isinstance(x, (list, tuple)) else (x,)
        wire = arrived(self.net, inputs, chunk=True)
        self._check(wire, state, active)
        y, valid, state = self.run(wire, state, active)
        return departed(self.net, y, chunk=True), valid, state

    def run(self, x: Wire, state: ProgramState, active: Tensor | None = None) -> tuple[Wire, Tensor, ProgramState]:
        """As a call, without checks, on chunks ``(B, C, chunk, *S)``."""
        held = [state[name] for name in self.names]
        given = (x, state["clock"], state["end"], active, held)
        core = self._cores.get(active is not None)
        if core is None:
            with Progress(f"compiling {type(self.net).__name__} for {self.backend}"):
                core = self._cores[active is not None] = MAKERS[self.backend](self._planned, self._example(given))
                y, valid, clock, held = core(*given)  # in which torch.compile compiles
        else:
            y, valid, clock, held = core(*given)
        return y, valid, {"clock": clock, "end": state["end"]} | dict(zip(self.names, held, strict=True))

    def _example(self, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Tensors like those of a call, which a backend may write to."""
        x, clock, end, active, held = given
        active = None if active is None else active.clone()
        return rewire(lambda t: t.contiguous().clone(), x), clock.clone(), end.clone(), active, [h.clone() for h in held]

    def _check(self, x: Wire, state: ProgramState, active: Tensor | None) -> None:
        name = type(self.net).__name__
        got = frame_of(x, True)
        if got != self.frame or any(t.shape[2] != self.chunk for t in flat(x)):
            wanted = "; ".join(str(f.resized(*f.shape[:2], self.chunk, *f.shape[2:])) for f in frames(self.frame))
            shown = "; ".join(str(Frame.of(t)) for t in flat(x))
            raise ShapeMismatch(f"program of {name}: takes chunks {wanted}, got {shown}")
        if not isinstance(state, dict) or set(state) != {"clock", "end", *self.names}:
            raise StateMismatch(
                f"program of {name}: takes the state of init_state(), or of a call before, not {type(state).__name__}"
            )
        if state["clock"].shape != (self.batch,):
            raise StateMismatch(f"program of {name}: has {self.batch} rows, the state is of {state['clock'].shape[0]}")
        for held in self._planned.plan.held:
            t = state[held.name]
            if t.shape[1:] != held.shape or t.dtype != held.dtype or t.shape[0] != self.batch:
                raise StateMismatch(
                    f"program of {name}: {held.name!r} is {held.dtype} {(self.batch, *held.shape)} in its state, got {t.dtype} "
                    f"{tuple(t.shape)}. It is the state of another program"
                )
        if active is not None and (active.shape != (self.batch,) or active.dtype != torch.bool):
            raise ShapeMismatch(
                f"program of {name}: active is a bool for each of {self.batch} rows, got {active.dtype} {tuple(active.shape)}"
            )

    def export(self) -> torch.export.ExportedProgram:
        """The program by ``torch.export``, as a pure function ``(x, clock, end, active, held) → (y, valid, clock, held)``."""
        state = self.init_state()
        x = rewire(lambda f: f.zeros(self.chunk), self.frame)
        active = torch.ones(self.batch, dtype=torch.bool, device=self.device)
        return exported(self._planned, (x, state["clock"], state["end"], active, [state[n] for n in self.names]))

    # ---- rows -----------------------------------------------------------------------------------------------------------

    def reset(self, state: ProgramState, rows: Iterable[int] | None = None) -> ProgramState:
        """Let rows begin anew (``None``: all); changes the state's tensors, and returns it."""
        index = torch.tensor(list(range(self.batch) if rows is None else rows), dtype=torch.int64, device=self.device)
        state["clock"][index], state["end"][index] = self.start, OPEN
        for name, cold in zip(self.names, self._planned.cold(1), strict=True):
            state[name][index] = cold
        return state

    def finish(self, state: ProgramState, row: int, frames: int) -> ProgramState:
        """Say that a row's stream has ``frames`` steps in all. Calls after that bring what is left; see :meth:`calls_to_end`."""
        state["end"][row] = frames
        return state

    def calls_to_end(self, calls: int, frames: int) -> int:
        """How many calls more a row needs after ``calls`` of them, to give all outputs of a stream of ``frames`` steps."""
        return self.rhythm.calls_to_end(calls, frames)

    def valid_in(self, call: int, frames: int = OPEN) -> range:
        """Which of a call's outputs exist, of a row that has had ``call`` calls before and has ``frames`` steps in all."""
        return self.rhythm.valid_in(call, frames)

    # ---- one stream in lockstep -----------------------------------------------------------------------------------------

    @overload
    def step(self, *x: Tensor) -> Tensor | None: ...
    @overload
    def step(self, x: Sequence[Inputs], /) -> Wire | None: ...
    def step(self, *x: Any) -> Any:
        """One step of all rows together: the outputs that it completes, or ``None``, as ``forward_step`` gives them.

        With a ``chunk`` above 1 steps are gathered, and the last one of a chunk brings its outputs.
        """
        wire = arrived(self.net, x, chunk=False)
        got = Frame.of(wire)
        if got != self.frame:
            shown = "; ".join(map(str, frames(got)))
            raise ShapeMismatch(
                f"program of {type(self.net).__name__}: takes steps {'; '.join(map(str, frames(self.frame)))}, got {shown}"
            )
        self._pending.append(wire)
        call = self.rhythm.calls(self._seen)
        if not self.rhythm.fills(self._seen):
            self._seen += 1
            return None
        try:
            if self._own is None:
                self._own = self.init_state()
            y, _, self._own = self.run(self._gathered(self._pending), self._own)
        except Exception:
            self._pending.pop()
            raise
        self._pending = []
        self._seen += 1
        return self._given(y, self.valid_in(call))

    def _gathered(self, steps: list[Wire]) -> Wire:
        """Steps as a chunk; what is missing at its start is from before the stream, and at its end from after it."""
        missing = self.rhythm.before(self._seen)
        after = self.chunk - missing - len(steps)
        like = steps[0] if steps else rewire(lambda f: f.zeros(), self.frame)
        whole = [rewire(torch.zeros_like, like)] * missing + steps + [rewire(torch.zeros_like, like)] * after
        return rewire(lambda *t: torch.stack(t, 2) if len(t) > 1 else t[0].unsqueeze(2), *whole)

    def _given(self, y: Wire, valid: range) -> Any:
        if not valid:
            return None
        y = rewire(lambda t: t[:, :, valid.start : valid.stop], y)
        if self.outputs > 1:
            return departed(self.net, y, chunk=True)
        return departed(self.net, rewire(lambda t: t.squeeze(2), y), chunk=False)

    def flush(self) -> Tensor | None:
        """What the end of the stream after the steps so far would bring, stacked as ``forward_steps`` gives it; ``None`` if nothing.

        The stream goes on as if it had not been asked.

        Raises:
            ShapeMismatch: branches of the network differ in length for so many steps, and ``forward`` refuses such a clip.
        """
        if self._seen == 0:
            return None
        state = {name: t.clone() for name, t in (self._own or self.init_state()).items()}
        state["end"].fill_(self._seen)
        found, calls, pending = [], self.rhythm.calls(self._seen), list(self._pending)
        for call in range(calls, calls + self.calls_to_end(calls, self._seen)):
            x = self._gathered(pending)
            pending = []
            y, _, state = self.run(x, state)
            valid = self.valid_in(call, self._seen)
            if valid:
                found.append(rewire(lambda t, v=valid: t[:, :, v.start : v.stop], y))
        return departed(self.net, rewire(lambda *t: torch.cat(t, 2), *found), chunk=True) if found else None

    def clean_state(self) -> None:
        """Forget the stream of :meth:`step`."""
        self._own, self._pending, self._seen = None, [], 0

    def __repr__(self) -> str:
        name = type(self.net).__name__
        return f"StepProgram({name}, {self.batch} rows, chunk={self.chunk}, backend={self.backend!r})"
