"""What rules ask: lengths, shapes and sizes, for the example and for other lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node as Fx

from ...core.op_rows import Refusal
from ...core.timing_graph import Wires
from .axes import BATCH, TIME, Dim, Dims, fixed, shape_of
from .capture import Captured, fresh
from .instructions import Instruction, Op, slots_of
from .op_call import Call, Misfit, Source, leaves
from .values import STILL, Clocked, Const, Size, Stream, Unknown, Value, Varying

FAR = 80640  # a whole number of periods of all strides that occur, so that lengths so far apart differ by the rate alone


LONGER = 5  # which of the example lengths is a few times that of the example


def symbolic(size: Any) -> bool:
    """Whether a size is a symbol, and none that turned out to be a number."""
    return isinstance(size, torch.SymInt) and size.node.maybe_as_int() is None


@dataclass(frozen=True)
class Reduced:
    """What was made of the whole clip.

    Attributes:
        node: the operation that did it.
        what: in words.
        poolable: whether `time_pooling` knows another form of it.
    """

    node: Fx
    what: str
    poolable: bool


@dataclass
class Enquiry:
    """The program while it is built, and what there is to ask about its values."""

    captured: Captured
    module: nn.Module
    time_pooling: str | None = None
    middle: frozenset[str] = frozenset()  # names of nodes that pool over time in the middle of the network
    wires: Wires = field(default_factory=Wires)
    instructions: list[Instruction] = field(default_factory=list)
    constants: list[Op] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)  # constants of the module's code
    names: list[str] = field(default_factory=list)  # of the module's inputs
    baked: list[str] = field(default_factory=list)  # where sizes fit what is known of time for the example's length alone
    slots: int = 0
    kids: int = 0
    windowed: bool = False  # whether something looks at a window of the example's length, so that longer clips are another matter
    divided: bool = False  # whether the twin is for clips whose length the strides divide, as a note says
    nested: bool = False  # whether the module gives several outputs

    def __post_init__(self) -> None:
        b, t = self.captured.batch, self.captured.steps
        self.lengths = (t, t + FAR, t + 2 * FAR, t + 1, t + 3, 4 * t)
        self.batches = (b, b + 1, b + 2, b, b, b)
        self.values: dict[Fx, Value] = {}
        self._paths: set[str] = set()
        self._made: dict[tuple[Any, int, bool], Value] = {}
        self.origins: dict[int, Clocked] = {}  # how constants were made
        self._length_of: dict[int, Size] = {}
        self._reductions: dict[int, Reduced] = {}  # by slots
        self.middle_found: set[str] = set()
        self.node: Fx | None = None

    def length(self, wire: int) -> Size:
        """How many frames a wire has, for all example lengths."""
        if wire == STILL:
            return Size((1,) * len(self.lengths))
        if wire not in self._length_of:
            timing = self.wires.timing(wire)
            self._length_of[wire] = Size(tuple(timing.ended(t) for t in self.lengths))
        return self._length_of[wire]

    def shape(self, value: Stream | Const | Unknown) -> tuple[int, ...]:
        """The shape for the example."""
        if isinstance(value, Unknown):
            return value.shape
        if isinstance(value, Const):
            return tuple(value.value.shape)
        return shape_of(value.dims, self.batches[0], self.length(value.wire).now)

    def described(self, value: Stream | Const) -> str:
        """The shape, and which sizes are rows and frames: ``(2 rows, 4, 20 frames)``."""
        if isinstance(value, Const):
            return str(self.shape(value))
        of = {BATCH: f"{self.batches[0]} rows", TIME: f"{self.length(value.wire).now} {'windows' if value.windows else 'frames'}"}
        shown = []
        for dim in value.dims:
            size = math.prod(f for f in dim if isinstance(f, int))
            names = [of[str(f)] for f in dim if not isinstance(f, int)]
            shown.append(" × ".join(names + [str(size)] * (size > 1 or not names)))
        return f"({', '.join(shown)})"

    def rank(self, value: Stream | Const | Unknown) -> int:
        """The number of dimensions."""
        return len(self.shape(value))

    def size(self, value: Stream | Const, dim: int) -> Size:
        """The size of a dimension, for all examples."""
        if isinstance(value, Const):
            return Size((int(value.value.shape[dim]),) * len(self.batches))
        times = self.length(value.wire).values
        return Size(tuple(shape_of((value.dims[dim],), b, t)[0] for b, t in zip(self.batches, times, strict=True)))

    def length_is_fixed(self, call: Call, dim: int) -> bool:
        """Whether the export knows the size of a dimension for the example alone: recurrent layers, global pools … fix it."""
        sources = call.node.all_input_nodes
        val = sources[0].meta.get("val") if sources else None
        return isinstance(val, Tensor) and dim < val.ndim and not symbolic(val.shape[dim])

    @cached_property
    def clip_is_fixed(self) -> bool:
        """Whether the export knows the clip's length for the example alone."""
        program = self.captured.program
        names = program.graph_signature.user_inputs
        values = [n.meta["val"] for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
        times = zip(values, self.captured.time_dims, strict=True)
        return not all(symbolic(v.shape[t]) for v, t in times if t is not None)

    def number(self, value: Value, what: str = "a number") -> Any:
        """A number that must not depend on the clip."""
        if isinstance(value, Size) and not value.varies:
            return value.now
        if isinstance(value, (Size, Varying)):
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
        return value

    def layout(self, sizes: Sequence[Value], wire: int) -> Dims:
        """The layout that a list of sizes means beside frames of a wire."""
        length = self.length(wire)
        both = Size(tuple(b * t for b, t in zip(self.batches, length.values, strict=True)))
        dims: list[Dim] = []
        for given in sizes:
            size = Size.of(given, len(self.lengths))
            baked = self.clip_is_fixed and size.steady and size.now == length.now > 1  # the export knows one length alone
            if size.varies and size.values == self.batches:
                dims.append((BATCH,))
            elif length.varies and (baked or size.values[:3] == length.values[:3]):
                dims.append((TIME,))
            elif length.varies and size.values[:3] == both.values[:3]:
                dims.append((BATCH, TIME))
            else:
                dims.append(fixed((self.number(size, "a size"),))[0])
        return tuple(dims)

    def reductions(self, stream: Stream) -> list[Reduced]:
        """Which reductions over the clip a stream is computed of."""
        makers = {slot: i for i in self.instructions for slot in i.outs}
        todo, seen, found = [stream.slot], set[int](), dict[Reduced, None]()
        while todo:
            slot = todo.pop()
            if slot in seen:
                continue
            seen.add(slot)
            if slot in self._reductions:
                found[self._reductions[slot]] = None
            elif slot in makers:
                todo += slots_of(makers[slot])
        return sorted(found, key=lambda r: r.what)

    def learned(self, value: Const) -> bool:
        """Whether a constant is computed of what may change: parameters, buffers, inputs."""
        return any(s.kind != "constant" for s in self.made_of(value))

    def made_of(self, value: Const) -> list[Source]:
        """The parameters, buffers, inputs and constants of the code that a constant is computed of."""
        makers = {op.out: op for op in self.constants}
        sources = {s.slot: s for s in self.sources}
        todo, seen, found = [value.slot], set[int](), list[Source]()
        while todo:
            slot = todo.pop()
            if slot in seen:
                continue
            seen.add(slot)
            if slot in sources:
                found.append(sources[slot])
            elif slot in makers:
                todo += slots_of(makers[slot])
        return found

    @cached_property
    def one_output(self) -> bool:
        """Whether the module gives as much for a longer clip as for the example (or takes none)."""
        shapes = []
        for clip in (self.captured.inputs, self.captured.longer):
            try:
                with torch.no_grad():
                    found = self.module(*fresh(clip))
            except Exception:
                return True
            shapes.append([tuple(y.shape) for y in leaves(found) if isinstance(y, Tensor)])
        return shapes[0] == shapes[1]
