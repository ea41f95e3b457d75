"""How the outputs of a module grow with the clip: whether they have frames, and where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from .axes import BATCH, where
from .capture import fresh
from .recurrent_ops import WholeOps
from .undone import quiet, restored
from .windows.window import Windowed

Shapes = list[tuple[int, ...]]


class Lengths:
    """The outputs of a module for clips of other lengths. Only shapes are computed, except for modules that read values: they run on real
    clips.

    Args:
        window: the module's window.
        module: the module.
    """

    def __init__(self, window: Windowed, module: nn.Module):
        self._captured, self._module = window.walk.captured, module
        self._rows = [where(out.wire.dims, BATCH) for out in window.outputs]
        self._known: dict[int, Shapes | None] = {}
        steps = self._captured.steps
        self._longer = (2 * steps, *(steps + 2**i for i in range(7)))
        self._shorter = tuple(n for n in (steps // 2, *(steps - 2**i for i in range(7))) if n > 0)

    @property
    def sequence(self) -> bool:
        """Whether outputs grow with the clip: more for a longer clip and less for a shorter one, as far as the module takes them.

        If no shorter clip gives less, the example has the length of one score, and a longer clip has several scores. The batch
        dimension does not count: a module that splits clips into parts of fixed length returns a row for each part.
        """
        longer = next(self._taken(self._longer), None)
        if longer is not None and not self._grown(longer):
            return False
        return any(self._grown(y) for y in self._taken(self._shorter))

    @cached_property
    def frame_dims(self) -> list[int | None]:
        """The dimension in which each output grows with the clip, where it is one.

        If the module takes clips of one length only, it is the only dimension as long as the module's fastest stream, or as a
        slower one.
        """
        now = self.of(self._captured.steps)
        others = self._taken((*self._longer, *self._shorter))
        first = next(others, None)
        if now is None or first is None:
            return [self._like_a_stream(shape) for shape in now or []] or [None] * len(self._rows)
        other = next((y for y in (first, *others) if y != now), now)
        return [grown[0] if len(grown) == 1 else None for grown in _grown_dims(now, other)]

    def of(self, steps: int) -> Shapes | None:
        """The shapes for a clip of ``steps`` steps; ``None`` if the module refuses it."""
        if steps not in self._known:
            self._known[steps] = self._run(steps, self._on_shapes)
        return self._known[steps]

    def _taken(self, lengths: Iterable[int]) -> Iterator[Shapes]:
        """The shapes for clips of some lengths, as far as the module takes them."""
        return (y for steps in lengths if (y := self.of(steps)) is not None)

    def _grown(self, other: Shapes) -> bool:
        """Whether the size of an output differs in a dimension without rows."""
        now = self.of(self._captured.steps) or other
        if len(now) != len(other):
            return True
        return any(set(dims) - {rows} for dims, rows in zip(_grown_dims(now, other), self._rows, strict=True))

    def _like_a_stream(self, shape: tuple[int, ...]) -> int | None:
        captured = self._captured
        streams = {x.shape[t] for x, t in zip(captured.inputs, captured.time_dims, strict=True) if t is not None}
        for frames in sorted(streams, reverse=True):
            found = [d for d, size in enumerate(shape) if d and size == frames]
            if found:
                return found[0] if len(found) == 1 else None
        return None

    @cached_property
    def _on_shapes(self) -> bool:
        return self._run(self._captured.steps, True) is not None

    def _run(self, steps: int, fake: bool) -> Shapes | None:
        clip, module = self._captured.of_length(steps), self._module
        with restored(module), quiet(), torch.no_grad():
            try:
                if fake:
                    with FakeTensorMode(allow_non_fake_inputs=True) as mode, WholeOps():
                        found = module(*(mode.from_tensor(x) for x in clip))
                else:
                    found = module(*fresh(clip))
            except Exception:  # it takes no such clip, or looks at values
                return None
        return [tuple(y.shape) for y in tree_leaves(found) if isinstance(y, Tensor)]


def _grown_dims(now: Shapes, other: Shapes) -> list[list[int]]:
    """The dimensions in which the sizes of outputs differ; all dimensions, where their number differs."""
    if len(now) != len(other):
        return [[] for _ in now]
    return [
        [d for d, (m, n) in enumerate(zip(a, b, strict=True)) if m != n] if len(a) == len(b) else list(range(len(a)))
        for a, b in zip(now, other, strict=True)
    ]
