"""A loop as one operation of an export."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from .layout import Layout
from .traced import Traced
from .whole import WholeLoop

_library = torch.library.Library("continual", "FRAGMENT")
_library.define("loop(Tensor[] xs, Tensor[] init, Tensor[] same, int number) -> Tensor[]")
_numbers = itertools.count()
LOOPS: dict[int, Traced] = {}  # of the conversions in progress


def registered(traced: Traced) -> int:
    """The number under which an export calls a loop."""
    number = next(_numbers)
    LOOPS[number] = traced
    return number


def _shapes(xs: Sequence[Tensor], init: Sequence[Tensor], same: Sequence[Tensor], number: int) -> list[Tensor]:
    """What leaves, without values: ``(T, …)``."""
    traced = LOOPS[number]
    first = Layout.of(traced.places[traced.states].meta["val"])
    batch = xs[0].shape[(first.rows or 0) + 1] // first.rate
    found = []
    for node in traced.results[traced.states :]:
        val = node.meta["val"]
        own = Layout.of(val)
        shape = [batch * s if i == own.rows else s for i, s in enumerate(own.sizes)]
        found.append(xs[0].new_empty(xs[0].shape[0], *shape, dtype=val.dtype))
    return found


def _run(xs: Sequence[Tensor], init: Sequence[Tensor], same: Sequence[Tensor], number: int) -> list[Tensor]:
    """The outputs, to compare a module with its converted loops."""
    return WholeLoop.of(LOOPS[number], False)(xs, init, same)


_library.impl("loop", _shapes, "Meta")
_library.impl("loop", _run, "CompositeExplicitAutograd")
