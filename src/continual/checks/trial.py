"""The module under test, seen through its public methods, and the register of checks."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ShapeMismatch
from ..state import Wire, rewire
from .compare import changed, flat, mismatch, snapshot_of, tolerance_of
from .layout import Layout
from .wires import Plan, cut, frames_in, joined, shapes, turned_rows


class Broken(Exception):
    """A check found a counter-example."""


class Skipped(Exception):
    """A check can't be made, for this reason."""


CHECKS: list[tuple[int, str, Callable[[Trial], str]]] = []


def contract(point: int, name: str) -> Callable[[Callable[[Trial], str]], Callable[[Trial], str]]:
    """Register a check. It returns what it measured, or raises :class:`Broken` or :class:`Skipped`."""

    def registered(check: Callable[[Trial], str]) -> Callable[[Trial], str]:
        CHECKS.append((point, name, check))
        return check

    return registered


@dataclass
class Run:
    """A stream from its cold start on: what came out, and how many outputs there were after how many inputs."""

    parts: list[Wire] = field(default_factory=list)
    counts: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])

    @property
    def outputs(self) -> Wire | None:
        """All outputs so far."""
        return joined(self.parts)

    @property
    def sent(self) -> int:
        """How many outputs have come."""
        return self.counts[-1][1]

    def take(self, y: Wire | None, inputs: int) -> None:
        """Note what a call brought."""
        if y is not None:
            self.parts.append(y)
        n, sent = self.counts[-1]
        self.counts.append((n + inputs, sent + frames_in(y)))


class Trial:
    """A module, a clip and what ``forward`` makes of it. Here time is dim 2 always, and a step's output is a chunk.

    Args:
        net: the object under test.
        clip: ``(B, C, T, *S)``, or a list of such for several streams. A batch of 1 is tiled to 3 rows: as given, reversed in
            time, and turned by half its length.
        reference: the clip computation, if the object has none of its own (or in addition).
        splits: how many random splits.
        tolerance: ``None`` for the one of the dtype.
        seed: of everything that is drawn.
    """

    def __init__(
        self, net: Any, clip: Wire, reference: Any = None, splits: int = 8, tolerance: float | None = None, seed: int = 0
    ):
        self.net, self.reference, self.splits = net, reference, splits
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.layout = Layout(net, clip)
        self.time_dim = self.layout.time_dim
        self._window: tuple[int, int | None] | None = getattr(net, "output_of_window", None)
        clip = self.layout.clip
        self.fixed_batch = _number(net, "batch")
        alone = flat(clip)[0].shape[0] == 1 != self.fixed_batch
        self.clip = rewire(turned_rows if alone else torch.clone, clip)
        first = flat(self.clip)[0]
        self.batch, self.length = first.shape[0], first.shape[2]
        self.floating = all(t.is_floating_point() for t in flat(self.clip))
        self._pristine = rewire(torch.clone, self.clip)
        self._takes_first = self._clip_level = False
        self._ndim = self.own_ndim = 0
        self._prefixes: dict[int, Wire | None] = {}
        self._undisturbed: dict[int, Wire | None] = {}
        self.expected = self._expected()
        self._ndim = flat(self.expected)[0].ndim
        self.own_ndim = self.own_ndim or self._ndim
        parameters = [p.dtype for p in self.parameters() if p.is_floating_point()]
        outs = [t.dtype for t in (*flat(self.clip), *flat(self.expected))]
        self.tolerance = tolerance_of(*outs, *parameters) if tolerance is None else tolerance

    # ---- the module's public methods ------------------------------------------------------------------------------------

    def forward(self, x: Wire) -> Wire:
        """The clip computation: the module's own, or the reference's if it has none."""
        own = getattr(self.net, "forward", None)
        run = own if callable(own) else self.reference
        return self.canonical(self.computed(run, x))

    def truth(self, x: Wire) -> Wire:
        """The clip computation, from a cold stream, in case that it reads one."""
        self.clean()
        return self.forward(x)

    def canonical(self, y: Any) -> Wire:
        """A clip's output with time in dim 2: of ``(output, hidden)`` the output, and an output of a whole clip as one frame."""
        if self._takes_first and isinstance(y, (tuple, list)):
            y = y[0]
        if (self._clip_level or self.layout.outputs is not None) and flat(y)[0].ndim < self.own_ndim:
            return self.layout.arrived_step(y)
        return self.layout.arrived(y) if self.layout.outputs is not None else rewire(self._out, y)

    def step(self, x: Wire, **options: Any) -> Wire | None:
        """``forward_step`` on a chunk of one."""
        y = self._call("forward_step", self.stepped(x), options)
        if y is None:
            return None
        if flat(y)[0].ndim != self.own_ndim:
            return self.layout.arrived_step(rewire(self._batch_first, y))
        return rewire(self._out, y) if self.layout.outputs is None and self.time_dim == 2 else self.layout.arrived(y)

    def steps(self, x: Wire, **options: Any) -> Wire | None:
        """``forward_steps``."""
        y = self._call("forward_steps", self._moved(x), options)
        if y is None or self.layout.outputs is not None:
            return None if y is None else self.layout.arrived(y)
        return rewire(lambda t: self._out(t) if t.ndim > self.time_dim else t, y)

    def _call(self, method: str, x: Wire, options: dict[str, Any]) -> Wire | None:
        versions = [t._version for t in flat(x)]
        y = getattr(self.net, method)(x, **options)
        if versions != [t._version for t in flat(x)]:
            raise Broken(f"{method} changed its input in place")
        return y

    def renew(self) -> None:
        """Undo what a broken module may have done to the clip."""
        self.clip = rewire(torch.clone, self._pristine)

    def clean(self) -> None:
        """``clean_state``."""
        self.net.clean_state()

    def state(self) -> Any:
        """``get_state``."""
        return self.net.get_state()

    def look(self) -> dict[str, Any]:
        """The state, described."""
        return snapshot_of(self.net.get_state())

    def modules(self) -> list[nn.Module]:
        """The module and those in it."""
        return list(self.net.modules()) if isinstance(self.net, nn.Module) else []

    def parameters(self) -> list[Tensor]:
        """The module's parameters, if it is a module."""
        return list(self.net.parameters()) if isinstance(self.net, nn.Module) else []

    @property
    def timing(self) -> Any:
        """The module's own account of when outputs come, if it gives one."""
        timing = getattr(self.net, "timing", None)
        return timing if callable(getattr(timing, "delivered", None)) else None

    @property
    def chunk(self) -> int:
        """Steps that the object gathers before it computes, if it says so: outputs may wait for the last of them."""
        return 1 if isinstance(self.net, nn.Module) else _number(self.net, "chunk") or 1

    @property
    def receptive_field(self) -> int | None:
        """Inputs on which an output depends, if the module says so and it is bounded."""
        return None if self.unbounded else self.stated_field

    @property
    def stated_field(self) -> int | None:
        """What the module says is its receptive field; that of its bounded parts where :attr:`unbounded`."""
        value = getattr(self.net, "receptive_field", None)
        return value if isinstance(value, int) else None

    @property
    def unbounded(self) -> bool:
        """Whether the module says that an output depends on all that came before it."""
        return any(getattr(m, "unbounded_memory", False) for m in (self.net, *self.modules()))

    def moved_copy(self, dtype: torch.dtype) -> Any:
        """A deep copy of the module with another dtype."""
        twin = copy.deepcopy(self.net)
        mine = {id(p) for p in (*self.modules(), *self.parameters(), *self.net.buffers())}
        if any(id(p) in mine for p in (*twin.modules(), *twin.parameters(), *twin.buffers())):
            raise Broken("a deepcopy shares modules or weights with the original")  # .to() would change the user's
        return twin.to(dtype)

    # ---- streams --------------------------------------------------------------------------------------------------------

    def play(self, plan: Plan, x: Wire = None, clean: bool = True) -> Run:
        """Stream a clip in the pieces of a plan, from a cold start."""
        x = self.clip if x is None else x
        if clean:
            self.clean()
        run, at = Run(), 0
        for kind, n in plan:
            piece = cut(x, at, at + n)
            run.take(self.step(piece) if kind == "step" else self.steps(piece, **({"pad_end": True} if kind == "end" else {})), n)
            at += n
        return run

    def go_to(self, phase: int, x: Wire = None) -> Run:
        """Stream to a phase: a chunk, and up to two steps."""
        steps = min(2, phase)
        plan = [("chunk", phase - steps)] if phase > steps else []
        return self.play([*plan, *[("step", 1)] * steps], x)

    def go_on(self, phase: int, x: Wire = None) -> list[Wire | None]:
        """Stream on from a phase to the end of the clip: a step, a chunk of two and the rest."""
        x = self.clip if x is None else x
        found = [self.step(cut(x, phase, phase + 1))] if phase < self.length else []
        if phase + 3 < self.length:
            found.append(self.steps(cut(x, phase + 1, phase + 3)))
        at = phase + 3 if phase + 3 < self.length else phase + 1
        return [*found, self.steps(cut(x, at, self.length), pad_end=True)]

    def undisturbed(self, phase: int, x: Wire = None) -> Wire | None:
        """All outputs of a stream that goes to a phase and on, with nothing in between."""
        if x is None and phase in self._undisturbed:
            return self._undisturbed[phase]
        run = self.go_to(phase, x)
        y = joined([*run.parts, *(y for y in self.go_on(phase, x) if y is not None)])
        if x is None:
            self._undisturbed[phase] = None if y is None else rewire(torch.clone, y)
        return y

    def right_to_the_end(self, run: Run, phase: int, what: str) -> None:
        """Stream on, and compare all outputs with those of a stream that was left alone."""
        got = joined([*run.parts, *(y for y in self.go_on(phase) if y is not None)])
        if found := mismatch(got, self.undisturbed(phase), self.tolerance):
            raise Broken(f"{what}, the stream goes on differently: {found}")

    def phases(self, count: int = 6) -> list[int]:
        """Moments to stand at: cold, after 1 and 2 steps, in the middle, and some that are drawn."""
        last = self.length - 1
        drawn = [self.random.randint(0, last) for _ in range(count - 4)]
        return sorted({p for p in (0, 1, 2, self.length // 2, *drawn) if p <= last})

    def random_plan(self) -> Plan:
        """A split that mixes sizes 0, 1, 2, … and both methods; it ends with ``pad_end=True``."""
        plan: list[tuple[str, int]] = []
        left = self.length
        # chunks of at least length/60 now and then, so that a long clip is no long plan
        long = max(5, self.length // 60)
        while left:
            n = min(left, self.random.choice((0, 1, 1, 1, 2, 2, 3, 4, long, self.random.randint(0, 3 * long))))
            plan.append(("step" if n == 1 and self.random.random() < 0.6 else "chunk", n))
            left -= n
        if plan[-1][0] == "step" or self.random.random() < 0.3:
            return [*plan, ("end", 0)]
        return [*plan[:-1], ("end", plan[-1][1])]

    def prefix(self, n: int) -> Wire | None:
        """``forward`` of the first ``n`` steps; ``None`` where it refuses the clip as too short, or gives nothing."""
        if n not in self._prefixes:
            try:
                y = self.truth(cut(self.clip, 0, n)) if n else None
            except Exception:
                y = None
            self._prefixes[n] = None if y is None or frames_in(y) == 0 else y
        return self._prefixes[n]

    def positions(self, limit: int = 32) -> list[int]:
        """Numbers of inputs at which to look: all up to ``limit`` of them; of a longer clip the first half and random pairs."""
        if self.length < limit:
            return list(range(self.length + 1))
        drawn = [self.random.randint(limit // 2, self.length - 1) for _ in range(limit // 4)]
        return sorted({*range(limit // 2), *drawn, *(n + 1 for n in drawn), self.length})

    def noise(self, x: Wire, scale: float = 3.0) -> Wire:
        """Other content of the same kind: noise of so many times the largest value; for integers other frames of the clip."""

        def other(t: Tensor) -> Tensor:
            if not t.is_floating_point():
                order = torch.randperm(t.shape[2], generator=self.generator)
                return t[:, :, order.to(t.device)]
            size = float(t.abs().nan_to_num(0.0, 0.0, 0.0).max()) if t.numel() else 1.0
            drawn = torch.randn(t.shape, generator=self.generator, dtype=torch.float64).to(t.device)
            return (drawn * (scale * size or 1.0)).to(t.dtype)

        return rewire(other, x)

    # ---- inside ---------------------------------------------------------------------------------------------------------

    def computed(self, run: Any, x: Wire) -> Any:
        """A clip computation, in the module's own layout; of every window in the clip where `output_of_window` says so."""
        if self._window is None:
            moved = self._moved(x)
            return run(*moved) if isinstance(run, nn.Module) and len(self.layout.inputs or ()) > 1 else run(moved)
        size, token = self._window
        count = frames_in(x) - size + 1
        if count < 1:
            raise ShapeMismatch(f"a clip of {frames_in(x)} steps is shorter than a window of {size}")

        def output(j: int) -> Tensor:
            y = run(self._moved(cut(x, j, j + size)))
            y = y[0] if isinstance(y, (tuple, list)) else y
            chosen: Tensor = y if token is None else y.select(self.time_dim, token)
            return chosen

        return torch.stack([output(j) for j in range(count)], self.time_dim)

    def _out(self, y: Tensor) -> Tensor:
        """Outputs in the module's layout with the batch in dim 0 and time in dim 2."""
        return self._batch_first(y.movedim(self.time_dim, 2))

    def _batch_first(self, y: Tensor) -> Tensor:
        """Windows of tokens ``(L, N, …)`` with the batch in dim 0."""
        whole_windows = self._window is not None and self._window[1] is None
        return y.transpose(0, 1) if whole_windows and self.time_dim == 0 else y

    def _moved(self, x: Wire) -> Wire:
        return self.layout.chunk(x)

    def stepped(self, x: Wire) -> Wire:
        """A chunk of one as a step, as the module takes it."""
        return self.layout.step(x)

    def _expected(self) -> Wire:
        """What ``forward`` makes of the clip, after looking at how the stream's output is laid out."""
        own = getattr(self.net, "forward", None)
        if not callable(own) and self.reference is None:
            raise TypeError(f"co.verify: {type(self.net).__name__} has no `forward`; give the clip computation as `reference`")
        try:
            run = own if callable(own) else self.reference
            y = self.computed(run, self.clip)
        except Exception as error:
            raise ShapeMismatch(
                f"co.verify: forward refuses the clip {shapes(self.clip)} ({type(error).__name__}: {error}). "
                "Give one that it takes, a few receptive fields long"
            ) from error
        try:
            self.clean()
            raw = self._call("forward_steps", self._moved(rewire(torch.clone, self.clip)), {"pad_end": True})
            self.own_ndim = 0 if raw is None else flat(raw)[0].ndim
            self.clean()
            streamed = self.steps(rewire(torch.clone, self.clip), pad_end=True)
        except Exception:  # the checks will say so
            streamed = None
        if streamed is None:
            return self.canonical(y)
        self._takes_first = isinstance(streamed, Tensor) and isinstance(y, (tuple, list))
        first, out = flat(y[0] if self._takes_first else y)[0], flat(streamed)[0]
        self._ndim = out.ndim
        self._clip_level = first.ndim == self.own_ndim - 1 and out.shape[2] == 1
        return self.canonical(y)


def _number(net: Any, name: str) -> int | None:
    """A number that an object says of itself."""
    value = None if isinstance(net, nn.Module) else getattr(net, name, None)
    return value if isinstance(value, int) else None


def kept(trial: Trial, before: dict[str, Any], what: str) -> None:
    """The state is bit-identical to what it was before."""
    if found := changed(before, trial.look()):
        raise Broken(f"{what} changed the state: {found}")
