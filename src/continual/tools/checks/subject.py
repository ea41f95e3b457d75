"""The module under test, seen through its public methods."""

from __future__ import annotations

import copy
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ...core.state import Wire, rewire
from ...errors import ShapeMismatch
from .compare import flat, snapshot_of
from .layout import Layout
from .wires import cut, frames_in


class Broken(Exception):
    """A check found a counter-example."""


class Skipped(Exception):
    """A check is not applicable, for this reason."""


def unnamed(y: Any) -> Any:
    """Outputs as a list, where some are in a dictionary or a dataclass."""
    if any(isinstance(v, dict) or is_dataclass(v) for v in (y, *(y if isinstance(y, (tuple, list)) else ()))):
        return [t for t in tree_leaves(y) if isinstance(t, Tensor)]
    return y


class Subject:
    """A module behind its layout: time is always dim 2, and the output of a step is a chunk.

    Args:
        net: the object under test.
        layout: where time is in what it takes and gives.
        reference: the clip computation, if the object has none of its own (or in addition).
    """

    def __init__(self, net: Any, layout: Layout, reference: Any):
        self.net, self.layout, self.reference = net, layout, reference
        self.time_dim = layout.time_dim
        self._window: tuple[int, int | None] | None = getattr(net, "_output_of_window", None)
        self._takes_first = self._clip_level = False
        self.own_ndim = 0  # dimensions of what `forward_steps` returns
        self.step_ndim = 0  # and of what `forward_step` returned last

    # ---- clips ----------------------------------------------------------------------------------------------------------

    @property
    def has_forward(self) -> bool:
        """Whether the object has a ``forward``."""
        return callable(getattr(self.net, "forward", None))

    def raw_forward(self, x: Wire) -> Any:
        """The clip computation, the module's own or the reference's if it has none, in the module's layout."""
        run = getattr(self.net, "_sequences", self.net.forward) if self.has_forward else self.reference
        return self.computed(run, x)

    def forward(self, x: Wire) -> Wire:
        """The clip computation."""
        return self.canonical(self.raw_forward(x))

    def truth(self, x: Wire) -> Wire:
        """The clip computation on a cold stream, because a wrong module may read it."""
        self.cold()
        return self.forward(x)

    def cold(self) -> None:
        """Prepare a clip computation."""
        self.clean()

    def canonical(self, y: Any) -> Wire:
        """A clip's output with time in dim 2: of ``(output, hidden)`` the output, and an output of a whole clip as one frame."""
        if self._takes_first and isinstance(y, (tuple, list)):
            y = y[0]
        if (self._clip_level or self.layout.outputs is not None) and flat(y)[0].ndim < self.own_ndim:
            return self.layout.arrived_step(y)
        return self.layout.arrived(y) if self.layout.outputs is not None else rewire(self._out, y)

    def computed(self, run: Any, x: Wire) -> Any:
        """A clip computation, in the module's own layout; of every window in the clip where `_output_of_window` says so."""
        if self._window is None:
            moved = rewire(Tensor.contiguous, self.moved(x))  # modules may ask for clips whose elements lie in order
            return unnamed(run(*moved) if isinstance(run, nn.Module) and len(self.layout.inputs or ()) > 1 else run(moved))
        size, token = self._window
        count = frames_in(x) - size + 1
        if count < 1:
            raise ShapeMismatch(f"a clip of {frames_in(x)} steps is shorter than a window of {size}")

        def output(j: int) -> Tensor:
            y = run(rewire(Tensor.contiguous, self.moved(cut(x, j, j + size))))
            y = y[0] if isinstance(y, (tuple, list)) else y
            chosen: Tensor = y if token is None else y.select(self.time_dim, token)
            return chosen

        return torch.stack([output(j) for j in range(count)], self.time_dim)

    # ---- streams --------------------------------------------------------------------------------------------------------

    def step(self, x: Wire, **options: Any) -> Wire | None:
        """``forward_step`` on a chunk of one."""
        y = self._call("forward_step", self.stepped(x), options)
        if y is None:
            return None
        self.step_ndim = flat(y)[0].ndim
        if self.step_ndim != self.own_ndim:
            return self.layout.arrived_step(rewire(self._batch_first, y))
        return rewire(self._out, y) if self.layout.outputs is None and self.time_dim == 2 else self.layout.arrived(y)

    def steps(self, x: Wire, **options: Any) -> Wire | None:
        """``forward_steps``."""
        y = self._call("forward_steps", self.moved(x), options)
        return None if y is None else self.arrived(y)

    def arrived(self, y: Wire) -> Wire:
        """What ``forward_steps`` returned, with time in dim 2."""
        if self.layout.outputs is not None:
            return self.layout.arrived(y)
        return rewire(lambda t: self._out(t) if t.ndim > self.time_dim else t, y)

    def _call(self, method: str, x: Wire, options: dict[str, Any]) -> Wire | None:
        versions = [t._version for t in flat(x)]
        y: Wire | None = unnamed(getattr(self.net, method)(x, **options))
        if versions != [t._version for t in flat(x)]:
            raise Broken(f"{method} changed its input in place")
        return y

    def clean(self) -> None:
        """``clean_state``."""
        self.net.clean_state()

    def state(self) -> Any:
        """``get_state``."""
        return self.net.get_state()

    def look(self) -> dict[str, Any]:
        """A description of the state."""
        return snapshot_of(self.net.get_state())

    # ---- what it says of itself -----------------------------------------------------------------------------------------

    def modules(self) -> list[nn.Module]:
        """The module and its submodules."""
        return list(self.net.modules()) if isinstance(self.net, nn.Module) else []

    def parameters(self) -> list[Tensor]:
        """The module's parameters, if it is a module."""
        return list(self.net.parameters()) if isinstance(self.net, nn.Module) else []

    @property
    def fixed_batch(self) -> int | None:
        """The number of rows that the object takes, if it states one."""
        return self._number("batch")

    @property
    def timing(self) -> Any:
        """The timing that the module states, if it does."""
        timing = getattr(self.net, "timing", None)
        return timing if callable(getattr(timing, "delivered", None)) else None

    @property
    def period(self) -> int:
        """The period of the outputs: ``forward`` treats lengths that differ by it alike."""
        stated = (getattr(getattr(net, "timing", None), "period", None) for net in (self.net, self.reference))
        return next((p for p in stated if isinstance(p, int)), 1)

    @property
    def delay(self) -> int | None:
        """The delay that the module states, if it does."""
        value = getattr(self.net, "delay", None)
        return value if isinstance(value, int) else None

    @property
    def chunk(self) -> int:
        """The number of steps that the object collects before it computes, if it states one: outputs may wait for the last."""
        return self._number("chunk") or 1

    @property
    def stated_field(self) -> int | None:
        """The receptive field that the module states; that of its bounded parts where :attr:`unbounded`."""
        value = getattr(self.net, "receptive_field", None)
        return value if isinstance(value, int) else None

    @property
    def receptive_field(self) -> int | None:
        """The receptive field that the module states, if it is bounded."""
        return None if self.unbounded else self.stated_field

    @property
    def unbounded(self) -> bool:
        """Whether the module states that an output depends on all earlier inputs."""
        return any(getattr(m, "unbounded_memory", False) for m in (self.net, *self.modules()))

    def moved_copy(self, dtype: torch.dtype) -> Any:
        """A deep copy of the module with another dtype."""
        copied = copy.deepcopy(self.net)
        mine = {id(p) for p in (*self.modules(), *self.parameters(), *self.net.buffers())}
        if any(id(p) in mine for p in (*copied.modules(), *copied.parameters(), *copied.buffers())):
            raise Broken("a deepcopy shares modules or weights with the original")  # .to() would change those of the user
        return copied.to(dtype)

    def _number(self, name: str) -> int | None:
        """A number that an object states; ``None`` for a module."""
        value = None if isinstance(self.net, nn.Module) else getattr(self.net, name, None)
        return value if isinstance(value, int) else None

    # ---- layouts --------------------------------------------------------------------------------------------------------

    def moved(self, x: Wire) -> Any:
        """A chunk in the module's layout."""
        return self.layout.chunk(x)

    def stepped(self, x: Wire) -> Any:
        """A chunk of one as a step, as the module takes it."""
        return self.layout.step(x)

    def _out(self, y: Tensor) -> Tensor:
        """Outputs in the module's layout with the batch in dim 0 and time in dim 2."""
        return self._batch_first(y.movedim(self.time_dim, 2))

    def _batch_first(self, y: Tensor) -> Tensor:
        """Windows of tokens ``(L, N, …)`` with the batch in dim 0."""
        whole_windows = self._window is not None and self._window[1] is None
        return y.transpose(0, 1) if whole_windows and self.time_dim == 0 else y
