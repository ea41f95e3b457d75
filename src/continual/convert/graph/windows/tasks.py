"""The operations of a module over the positions of a window: which positions of their inputs they need, and how they run on some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ..exec_context import ExecContext
from ..instructions import Op, slots_of
from ..values import Const
from .wire import Axis, Ranges, Wire, count

WIRE = 1  # of the numbers of frames of a moment, that which operations of windows read
Value = Any  # a tensor, or a tuple of them
Get: TypeAlias = "Callable[[ExecContext, list[Value], Sequence[Tensor]], Value]"  # from what is computed so far, and what is kept


class Block(NamedTuple):
    """Positions of an input; those below 0 and from its length on are filled with one value."""

    lo: int
    hi: int
    more: int = 0  # filled positions behind them


@dataclass(eq=False)
class Task:
    """An operation.

    Attributes:
        path, label, source: where it comes from.
        inputs: the tasks whose values it takes.
        wire: of what it gives.
        items: the wires of its results, where it gives several.
        whole: whether all positions have to be computed at once.
        fill: what stands beyond the edges of its inputs.
        macs: multiply-adds for all positions of a row.
        weight: numbers that it reads of weights.
        dtype: of what it gives.
        uniform: the value of all its elements, where the module's code states one.
        copies: the constant that it repeats along its dimensions, if it does nothing else.
        single: whether it is the value's only position: operations on the result see no positions.
    """

    path: str
    label: str
    source: str
    inputs: tuple[Task, ...]
    wire: Wire
    items: tuple[Wire, ...] = ()
    whole: bool = False
    fill: float = 0.0
    macs: int = 0
    weight: int = 0
    dtype: torch.dtype = torch.float32
    uniform: float | None = None
    copies: Const | None = None
    single: bool = False

    def reach(self, ranges: Ranges) -> Sequence[tuple[Block, ...] | None]:
        """The positions of each input that some positions need: ``()`` of inputs without positions, ``None`` of what is not needed."""
        return [whole_of(t.wire) for t in self.inputs]

    def run(self, m: ExecContext, ranges: Ranges, xs: Sequence[Value]) -> Value:
        """The values at some positions, computed from the input positions that they need."""
        raise TypeError(f"{type(self).__name__} '{self.path}' is an input, which is not computed")

    def bound(self, ranges: Ranges, gets: Sequence[Get]) -> Get:
        """:meth:`run` at some positions, as a function of a window's values; ``gets`` find what it takes among them."""
        return lambda m, values, kept: self.run(m, ranges, [get(m, values, kept) for get in gets])

    def share(self, ranges: Ranges) -> float:
        """The multiply-adds of some positions."""
        return count(ranges) / self.wire.n if self.wire.timed else 1.0

    def item(self, index: int | None) -> Wire:
        """The wire of a result."""
        return self.wire if index is None else self.items[index]

    @property
    def reads(self) -> tuple[int, ...]:
        """The slots of the constants that it reads, and its own slots."""
        return ()


def whole_of(wire: Wire) -> tuple[Block, ...]:
    """All positions of a wire that has some."""
    return (Block(0, wire.n),) if wire.timed else ()


@dataclass(eq=False)
class WindowInput(Task):
    """A stream that comes in: ``number`` of the network's streams."""

    number: int = 0


@dataclass(eq=False)
class StaticInput(Task):
    """An input that is not a stream. It is the same for all frames of a window and may change from call to call."""

    slot: int = 0

    @property
    def reads(self) -> tuple[int, ...]:
        return (self.slot,)

    def run(self, m: ExecContext, ranges: Ranges, xs: Sequence[Value]) -> Value:
        return m.env[self.slot]


@dataclass(frozen=True)
class Table:
    """A constant that varies over time. The computed positions select its entries."""

    of: int  # its slot
    slot: int  # where the operation finds them
    axis: Axis
    n: int

    def fetch(self, m: ExecContext, ranges: Ranges) -> None:
        """Move the positions to the dimension that the operation expects."""
        table, axis = m.env[self.of], self.axis
        if ranges != ((0, self.n),):
            apart = axis.split(table, 1)
            found = [apart.narrow(axis.apart, lo, hi - lo) for lo, hi in ranges]
            table = axis.merge(found[0] if len(found) == 1 else torch.cat(found, axis.apart), 1)
        m.env[self.slot] = table


@dataclass(eq=False)
class OpTask(Task):
    """An operation of the module as it is: position by position, or on the whole window.

    Attributes:
        op: the operation, on the slots below.
        slots: where it finds its inputs.
        entire: which inputs it needs at all positions, whatever is computed.
        tables: constants that vary over time.
        group: how many positions of its inputs go into one of its own.
    """

    op: Op = field(kw_only=True)
    slots: tuple[int, ...] = ()
    entire: tuple[bool, ...] = ()
    tables: tuple[Table, ...] = ()
    group: int = 1

    @property
    def reads(self) -> tuple[int, ...]:
        return (*slots_of(self.op), *(t.of for t in self.tables))

    def reach(self, ranges: Ranges) -> list[tuple[Block, ...]]:
        own = tuple(Block(lo * self.group, hi * self.group) for lo, hi in ranges)
        return [whole_of(t.wire) if every or not t.wire.timed else own for t, every in zip(self.inputs, self.entire, strict=True)]

    def run(self, m: ExecContext, ranges: Ranges, xs: Sequence[Value]) -> Value:
        for table in self.tables:
            table.fetch(m, ranges)
        return self.apply(m, self.op, count(ranges), xs)

    def bound(self, ranges: Ranges, gets: Sequence[Get]) -> Get:
        if type(self).run is not OpTask.run or self.tables:
            return super().bound(ranges, gets)
        op, positions, taken = self.op, count(ranges), list(zip(self.slots, gets, strict=True))

        def run(m: ExecContext, values: list[Value], kept: Sequence[Tensor]) -> Value:
            env = m.env
            for slot, get in taken:
                env[slot] = get(m, values, kept)
            m.frames[WIRE] = positions
            y = op.call(m)
            for slot, _ in taken:
                env[slot] = None
            return y

        return run

    def apply(self, m: ExecContext, op: Op, positions: int, xs: Sequence[Value]) -> Value:
        """The operation on values."""
        env = m.env
        for slot, x in zip(self.slots, xs, strict=True):
            env[slot] = x
        m.frames[WIRE] = positions
        y = op.call(m)
        for slot in self.slots:
            env[slot] = None
        return y


@dataclass(eq=False)
class Slice(Task):
    """Positions ``first, first + step, …`` of time."""

    first: int = 0
    step: int = 1

    def reach(self, ranges: Ranges) -> list[tuple[Block, ...]]:
        return [tuple(Block(self.first + lo * self.step, self.first + (hi - 1) * self.step + 1) for lo, hi in ranges)]

    def run(self, m: ExecContext, ranges: Ranges, xs: Sequence[Value]) -> Value:
        x: Tensor = xs[0]
        if self.step == 1:
            return x
        axis, found, at = self.inputs[0].wire.axis, list[Tensor](), 0
        x = axis.split(x, m.batch)
        for lo, hi in ranges:
            size = (hi - lo - 1) * self.step + 1
            found.append(x.narrow(axis.apart, at, size)[(slice(None),) * axis.apart + (slice(None, None, self.step),)])
            at += size
        return axis.merge(found[0] if len(found) == 1 else torch.cat(found, axis.apart), m.batch)


@dataclass(eq=False)
class Select(Task):
    """One position of time."""

    index: int = 0

    def reach(self, ranges: Ranges) -> list[tuple[Block, ...]]:
        return [(Block(self.index, self.index + 1),)]

    def run(self, m: ExecContext, ranges: Ranges, xs: Sequence[Value]) -> Value:
        axis = self.inputs[0].wire.axis
        return axis.split(xs[0], m.batch).squeeze(axis.apart) if axis.alone else xs[0]


@dataclass(eq=False)
class Padded(Task):
    """Positions at the start that have one value. Padding at the end lies beyond the edge."""

    start: int = 0

    def reach(self, ranges: Ranges) -> list[tuple[Block, ...]]:
        return [tuple(Block(lo - self.start, hi - self.start) for lo, hi in ranges)]

    def run(self, m: ExecContext, ranges: Ranges, xs: Sequence[Value]) -> Value:
        return xs[0]


@dataclass(eq=False)
class Concat(Task):
    """Tensors one after another in time, which is a dimension of its own.

    Attributes:
        parts: where each of them begins.
        sizes: how many positions each has.
    """

    parts: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()

    def _pieces(self, ranges: Ranges) -> list[tuple[int, int, int]]:
        """Each part in order, with the first and the last of its positions."""
        found = []
        for lo, hi in ranges:
            for number, (start, size) in enumerate(zip(self.parts, self.sizes, strict=True)):
                u, v = max(lo, start) - start, min(hi, start + size) - start
                if u < v:
                    found.append((number, u, v))
        return found

    def reach(self, ranges: Ranges) -> Sequence[tuple[Block, ...] | None]:
        wanted: list[list[Block] | None] = [None] * len(self.inputs)
        for number, u, v in self._pieces(ranges):
            known = wanted[number] = wanted[number] or []
            if self.inputs[number].wire.timed:
                known.append(Block(u, v))
        return [None if blocks is None else tuple(blocks) for blocks in wanted]

    def run(self, m: ExecContext, ranges: Ranges, xs: Sequence[Value]) -> Value:
        dim, taken, found = self.wire.dim, [0] * len(self.inputs), []
        for number, u, v in self._pieces(ranges):
            if self.inputs[number].wire.timed:
                found.append(xs[number].narrow(dim, taken[number], v - u))
                taken[number] += v - u
            else:
                found.append(xs[number].narrow(dim, u, v - u))
        return torch.cat(found, dim) if len(found) > 1 else found[0]


@dataclass(eq=False)
class Item(Task):
    """One of several results."""

    index: int = 0

    def reach(self, ranges: Ranges) -> list[tuple[Block, ...]]:
        return [tuple(Block(lo, hi) for lo, hi in ranges)]

    def run(self, m: ExecContext, ranges: Ranges, xs: Sequence[Value]) -> Value:
        return xs[0]
