"""The clip lengths at which a converted network is compared with its module: they reveal numbers of the example in the program."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.fx import Node as Fx
from torch.utils._sympy.numbers import int_oo

from .capture import Captured, lengths_in
from .functionalise import op_of

SMALL = 8  # the longest period, and the largest group of frames, for which every length is tried
MOST = 9  # lengths that are compared, at most
FAR = 8  # times the example's length: longer clips are not tried
AFFORDED = 2e10  # multiply-adds of the module, for all lengths together: about a second of one core
SPLITTING = {"view", "reshape", "unflatten", "_unsafe_view"}


def other_lengths(captured: Captured, period: int, divided: bool = False) -> list[int]:
    """Lengths of every class that a module may distinguish, the most revealing first.

    Twice the example; the first that the export is not for; every remainder modulo a small number and modulo the network's period; and
    the next length that a reshape into groups of frames accepts. A module may refuse some of them.

    Args:
        captured: the exported module.
        period: frames after which the pattern of the network's outputs repeats.
        divided: whether the network is for lengths with the same remainder alone.
    """
    t = captured.steps
    if divided:
        return [t + period * n for n in (1, 2, 3, -(-t // period))]
    rests = range(1, period + 1) if period <= SMALL else (period // 2, period - 1, period + 1)
    more = [
        t,
        *_beyond(captured),
        period,
        *range(1, SMALL // 2 + 1),
        *_groups(captured),
        *rests,
        *range(SMALL // 2 + 1, SMALL + 1),
    ]
    return [t + n for n in dict.fromkeys(more)]


def longest(captured: Captured) -> int | None:
    """The longest clip for which the export is valid. Longer clips take another path through the module's code. ``None``: any."""
    limits, lengths = captured.program.range_constraints, lengths_in(captured.program, captured.time_dims)
    upper = [limits[n.node.expr].upper for n in lengths if isinstance(n, torch.SymInt) and n.node.expr in limits]
    return min((int(n) for n in upper if n != int_oo), default=None)


def _beyond(captured: Captured) -> list[int]:
    """From the example to a clip that is slightly too long for the export."""
    limit = longest(captured)
    return [] if limit is None or limit > FAR * captured.steps else [limit + 1 - captured.steps]


def affordable(captured: Captured) -> int:
    """The number of lengths to compare: fewer for a large module."""
    return max(2, min(MOST, int(AFFORDED / max(1.0, _work(captured)))))


def _groups(captured: Captured) -> list[int]:
    """Sizes in reshapes that exceed the other lengths, but not the clip."""
    found: set[int] = set()
    for node in captured.program.graph.nodes:
        if op_of(node) in SPLITTING:
            found |= {int(n) for n in node.args[-1] if isinstance(n, int) and SMALL < n <= captured.steps}
    return sorted(found)[:4]


def _work(captured: Captured) -> float:
    """An estimate of the module's multiply-adds on two rows of the example: the elements of results, times the terms of each sum."""
    total = 0.0
    for node in captured.program.graph.nodes:
        val = node.meta.get("val")
        if node.op == "call_function" and isinstance(val, Tensor):
            total += math.prod(_known(n) for n in val.shape) * max([1, *_depths(node)])
    return total * 2 / captured.batch


def _depths(node: Fx) -> Iterator[int]:
    """The number of terms in each element of a result, by the weights of an operation."""
    for source in node.all_input_nodes:
        weight = source.meta.get("val")
        if source.op == "placeholder" and isinstance(weight, Tensor) and weight.ndim > 1 and not _symbolic(weight):
            yield weight.numel() // max(1, weight.shape[0])


def _known(size: int | torch.SymInt) -> int:
    """A size of the example; 0 where it depends on values."""
    return int((size.node.hint if isinstance(size, torch.SymInt) else size) or 0)


def _symbolic(x: Tensor) -> bool:
    return any(isinstance(n, torch.SymInt) for n in x.shape)
