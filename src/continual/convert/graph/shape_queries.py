"""Lengths, shapes and sizes of values, for the example and for other clip lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from .axes import BATCH, TIME, Dim, Dims, dim_of, fixed, shape_of
from .capture import fresh
from .formulas import SizeOf
from .op_call import Misfit, OpCall
from .program_draft import ProgramDraft
from .values import STATIC, Const, Number, Size, SymScalar, TensorValue, Unknown, Value

FAR = 1024 * 3**2 * 5**2 * 7**2 * 11  # whole periods of all strides that occur: lengths so far apart differ by the rate alone
FARTHER = 1  # the index of the first sample length so far away
LONGER = 5  # the index of the sample length that is a few times that of the example


def is_symbolic(size: int | torch.SymInt) -> bool:
    """Whether a size is a symbol that stands for no known number."""
    return isinstance(size, torch.SymInt) and size.node.maybe_as_int() is None


def _is_multiple(size: Size, values: Sequence[int]) -> bool:
    """Whether a size is a whole number of times another one, at lengths that lie far apart."""
    times = size.values[1] // max(1, values[1])
    return times > 0 and size.values[:3] == tuple(times * v for v in values[:3])


class ShapeQueries:
    """Answers what rules ask about lengths and shapes.

    Args:
        draft: the program.

    Attributes:
        lengths: the sample lengths of the clip, the example's first.
        batches: the batch sizes that go with them.
    """

    def __init__(self, draft: ProgramDraft):
        self._draft, self._captured = draft, draft.captured
        b, t = draft.captured.batch, draft.captured.steps
        self.lengths = (t, t + FAR, t + 2 * FAR, t + 1, t + 3, 4 * t)
        self.batches = (b, b + 1, b + 2, b, b, b)
        self._length_of: dict[int, Size] = {}

    def sized(self, value: Value) -> Size:
        """An integer as a size."""
        return Size.of(value, len(self.lengths))

    def length(self, wire: int) -> Size:
        """The number of frames on a wire, for all sample lengths."""
        if wire == STATIC:
            return self.sized(1)
        if wire not in self._length_of:
            timing = self._draft.wires.timing(wire)
            formula = SizeOf(wire, timing.period, lambda batch, frames: frames)
            self._length_of[wire] = Size(tuple(timing.ended(t) for t in self.lengths), formula)
        return self._length_of[wire]

    def shape(self, value: TensorValue | Unknown) -> tuple[int, ...]:
        """The shape for the example."""
        if isinstance(value, Unknown):
            return value.shape
        if isinstance(value, Const):
            return tuple(value.value.shape)
        return shape_of(value.dims, self.batches[0], self.length(value.wire).now)

    def described(self, value: TensorValue) -> str:
        """The shape, with batch and frames named: ``(2 rows, 4, 20 frames)``."""
        if isinstance(value, Const):
            return str(self.shape(value))
        of = {BATCH: f"{self.batches[0]} rows", TIME: f"{self.length(value.wire).now} {'windows' if value.windows else 'frames'}"}
        shown = []
        for dim in value.dims:
            size = math.prod(f for f in dim if isinstance(f, int))
            names = [of[str(f)] for f in dim if not isinstance(f, int)]
            shown.append(" × ".join(names + [str(size)] * (size > 1 or not names)))
        return f"({', '.join(shown)})"

    def size(self, value: TensorValue, dim: int) -> Size:
        """The size of a dimension, for all sample lengths."""
        if isinstance(value, Const):
            return self.sized(value.value.shape[dim])
        own, length = (value.dims[dim],), self.length(value.wire)
        sizes = tuple(shape_of(own, b, t)[0] for b, t in zip(self.batches, length.values, strict=True))
        if length.formula is None:
            return Size(sizes)
        return Size(sizes, SizeOf(value.wire, length.formula.period, lambda batch, frames: shape_of(own, batch, frames)[0]))

    def length_is_fixed(self, call: OpCall, dim: int) -> bool:
        """Whether the export knows the size of a dimension for the example alone: recurrent layers, global pools … fix it."""
        sources = call.node.all_input_nodes
        val = sources[0].meta.get("val") if sources else None
        return isinstance(val, Tensor) and dim < val.ndim and not is_symbolic(val.shape[dim])

    @cached_property
    def clip_is_fixed(self) -> bool:
        """Whether the export knows the clip's length for the example alone."""
        program = self._captured.program
        names = program.graph_signature.user_inputs
        values = [n.meta["val"] for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
        times = zip(values, self._captured.time_dims, strict=True)
        return not all(is_symbolic(v.shape[t]) for v, t in times if t is not None)

    def number(self, value: Value, what: str = "a number") -> Number:
        """A number that must not depend on the clip.

        Raises:
            Misfit: it does.
            TypeError: the value is not a number.
        """
        if isinstance(value, Size) and not value.varies:
            return value.now
        if isinstance(value, (Size, SymScalar)):
            if len(set(value.values[1:3])) == 1 and value.values[0] == value.values[1]:
                raise Misfit(
                    f"{what} depends on what is left when the clip's length is divided: {value.values[0]}, {value.values[3]}, "
                    f"{value.values[4]} for clips of {self.lengths[0]}, {self.lengths[3]}, {self.lengths[4]} steps",
                    "pad the clip before the network, or by a fixed number of steps",
                )
            raise Misfit(
                f"{what} depends on the length of the clip ({value.values[0]} for {self.lengths[0]} steps)",
                "make it a fixed number: a stream has no length",
            )
        if isinstance(value, (int, float, complex)):
            return value
        raise TypeError(f"expected a number, got {type(value).__name__}")

    def real(self, value: Value, what: str = "a number") -> float:
        """A real number that must not depend on the clip: as :meth:`number`."""
        found = self.number(value, what)
        if isinstance(found, complex):
            raise TypeError(f"{what} is complex")
        return found

    def integer(self, value: Value, what: str = "a number") -> int:
        """An integer that must not depend on the clip: as :meth:`number`."""
        return int(self.real(value, what))

    def layout(self, sizes: Sequence[Value], wire: int) -> Dims:
        """The layout that a list of sizes means beside frames of a wire."""
        length = self.length(wire)
        both = tuple(b * t for b, t in zip(self.batches, length.values, strict=True))
        moving = [((BATCH,), self.batches), *([((TIME,), length.values), ((BATCH, TIME), both)] if length.varies else [])]
        dims: list[Dim] = []
        for dim in sizes:
            size = self.sized(dim)
            found = [(own, size.values[1] // values[1]) for own, values in moving if _is_multiple(size, values)]
            if self.clip_is_fixed and size.constant and size.now == length.now > 1 and length.varies:
                dims.append((TIME,))  # the export knows one length alone
            elif size.varies and found:
                own, times = min(found, key=lambda f: f[1])
                dims.append((*own, *dim_of(times)))
            else:
                dims += fixed((self.integer(size, "a size"),))
        return tuple(dims)

    @cached_property
    def output_ignores_length(self) -> bool:
        """Whether the module gives outputs of the same shape for a clip of twice the length (or refuses that clip)."""
        shapes = []
        for clip in (self._captured.inputs, self._captured.longer):
            try:
                with torch.no_grad():
                    found = self._draft.module(*fresh(clip))
            except Exception:
                return True
            shapes.append([tuple(y.shape) for y in torch.utils._pytree.tree_leaves(found) if isinstance(y, Tensor)])
        return shapes[0] == shapes[1]
