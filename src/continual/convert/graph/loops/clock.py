"""Numbers that depend on the iteration, as in running means. A state counts the iterations, and the numbers are computed from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch.fx import Graph
from torch.fx import Node as Fx

from .layout import Layout

A = torch.ops.aten
LARGEST = 1000  # denominator of a coefficient: other numbers are no such function
FINEST = 100_000  # denominator of a number in a power, such as 0.9995
ROUNDINGS = 8  # of a float64, by which the code's own order of operations may differ


class Ratio(NamedTuple):
    """The number ``(a·t + b) / (c·t + d)`` in iteration ``t``, counted from 0."""

    a: int
    b: int
    c: int
    d: int

    def at(self, t: int) -> float:
        """The number in an iteration."""
        below = self.c * t + self.d
        return (self.a * t + self.b) / below if below else math.nan

    def of(self, t: Fx) -> Fx:
        """The number of a count in float64."""
        call = t.graph.call_function
        found = call(A.add.Scalar, (call(A.mul.Scalar, (t, self.a)), self.b))
        if (self.c, self.d) != (0, 1):
            below = call(A.add.Scalar, (call(A.mul.Scalar, (t, self.c)), self.d))
            found = call(A.div.Tensor, (found, below))
        return found


class Power(NamedTuple):
    """The number ``offset + factor·base^t`` in iteration ``t``, counted from 0: weights that decay, and what is left of them."""

    offset: float
    factor: float
    base: float

    def at(self, t: int) -> float:
        """The number in an iteration."""
        return self.offset + self.factor * self.base**t

    def of(self, t: Fx) -> Fx:
        """The number of a count in float64."""
        call = t.graph.call_function
        return call(A.add.Scalar, (call(A.mul.Scalar, (call(A.pow.Scalar, (self.base, t)), self.factor)), self.offset))


Clock = Ratio | Power


def clock_of(numbers: Sequence[tuple[int, Any]]) -> Clock | None:
    """The function of the iteration that gives these numbers; ``None`` if it is of no known kind.

    Args:
        numbers: iterations, and the number in each of them.
    """
    if len(numbers) < 4 or not all(type(y) in (int, float) and math.isfinite(y) for _, y in numbers):
        return None
    near = ROUNDINGS * torch.finfo(torch.float64).eps
    for clock in (_ratio(numbers), _power(numbers)):
        if clock is not None and all(abs(clock.at(t) - y) <= near * max(abs(y), 1.0) for t, y in numbers):
            return clock
    return None


def _ratio(numbers: Sequence[tuple[int, float]]) -> Ratio:
    rows = [[float(t), 1.0, -y * t, -float(y)] for t, y in numbers]
    coefficients = torch.linalg.svd(torch.tensor(rows, dtype=torch.float64))[2][-1].tolist()
    largest = max(coefficients, key=abs)
    found = [Fraction(v / largest).limit_denominator(LARGEST) for v in coefficients]
    scale = math.lcm(*(f.denominator for f in found))
    return Ratio(*(int(f * scale) for f in found))


def _power(numbers: Sequence[tuple[int, float]]) -> Power | None:
    """Three consecutive numbers determine it. In an endless stream it is unbounded unless it decays."""
    (t, x), (_, y), (_, z) = numbers[:3]
    if x == y or [n - t for n, _ in numbers] != list(range(len(numbers))):
        return None
    base = float(Fraction((z - y) / (y - x)).limit_denominator(FINEST))
    if not 0 < abs(base) < 1:
        return None
    offset = float(Fraction(x - (y - x) / (base - 1)).limit_denominator(FINEST))
    return Power(offset, float(Fraction((x - offset) / base**t).limit_denominator(FINEST)), base)


def takes_tensor(node: Fx, place: int) -> bool:
    """Whether an operation takes a tensor in the place of one of its positional arguments."""
    schema: Any = getattr(node.target, "_schema", None)
    flat = not any(isinstance(a, (list, tuple)) for a in node.args)
    return flat and schema is not None and place < len(node.args) and str(schema.arguments[place].type) == "Tensor"


def counter(vals: Sequence[Any]) -> Fx:
    """The count of iterations as a state, one for each row of frames and states like these."""
    val = min(vals, key=lambda v: Layout.of(v).rate)
    place = Graph().placeholder("count")
    with val.fake_mode:
        place.meta["val"] = val.new_zeros((val.shape[Layout.of(val).rows or 0],), dtype=torch.int64)
    return place


def counted(count: Fx) -> Fx:
    """The count after an iteration."""
    made = count.graph.call_function(A.add.Scalar, (count, 1))
    made.meta["val"] = count.meta["val"]
    return made


def number(clock: Clock, count: Fx, result: Any) -> Fx | None:
    """The number as a frame beside a result; ``None`` if the rows differ.

    Args:
        clock: the function.
        count: of iterations.
        result: the value of the operation that takes the number.
    """
    own = Layout.of(result)
    if own.rows is None or own.rate != Layout.of(count.meta["val"]).rate:
        return None
    call = count.graph.call_function
    found = clock.of(call(A._to_copy.default, (count,), {"dtype": torch.float64}))
    shape = [-1 if i == own.rows else 1 for i in range(len(own.sizes))]
    found = call(A.reshape.default, (found, shape))
    return call(A._to_copy.default, (found,), {"dtype": result.dtype})
