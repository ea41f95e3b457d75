"""How rules make tasks of operations: position by position, or on the whole window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node as Fx

from ..axes import BATCH, TIME, Dims, size_of, where
from ..capture import Captured, source_line
from ..emitter import Emitter
from ..exec_context import Count, CurrentDevice, Ref, Shape
from ..instructions import Op
from ..op_call import OpCall, hint
from ..op_names import OpNames
from ..program_draft import ProgramDraft
from ..provenance import Provenance
from ..shape_queries import ShapeQueries
from ..values import ITEM, Const
from .function_op import FunctionOp
from .sizes import ROWS, Unfollowed, number, sizes_of, tasks_in, value_of
from .tasks import WIRE, Item, OpTask, Table, Task
from .window_call import Call
from .wire import Axis, Wire, sized
from .work import macs_of, weight_of

SAME_VALUES = ("slice", "narrow", "select", "view", "reshape", "expand", "clone", "unsqueeze", "permute", "transpose", "_to_copy")
# What runs in place of operations that ask for a layout in memory: values of windows have others than the module's.
ANY_LAYOUT = {
    "aten.view.default": "aten.reshape.default",
    "aten._unsafe_view.default": "aten.reshape.default",
    "aten.view_as_complex.default": "helper_ops:as_complex",
}


def _named(call: Call) -> OpCall:
    return OpCall(call.node, call.name, {})


def _uniform(call: Call, inputs: Sequence[Task]) -> float | None:
    """The one value that all elements of a result have."""
    if not inputs:
        value = {"zeros": 0.0, "ones": 1.0}.get(call.op, call.get("fill_value"))
        return float(value) if isinstance(value, (int, float)) else None
    return inputs[0].uniform if len(inputs) == 1 and call.op in SAME_VALUES else None


class Making:
    """Makes tasks.

    Args:
        captured: the exported window.
        module: the module.

    Attributes:
        draft: what the program is made of.
        emit: adds constants to it.
        origin: knows what constants are computed from.
        tasks: each behind its inputs.
        rows: how many rows the export is for; ``None``: any.
    """

    def __init__(self, captured: Captured, module: nn.Module):
        self.captured, self.module = captured, module
        self.draft = ProgramDraft(captured, module)
        self.names, self.origin = OpNames(module), Provenance(self.draft)
        self.emit = Emitter(self.draft, ShapeQueries(self.draft), self.names)
        self.tasks: list[Task] = []
        self.rows: int | None = None

    def shape(self, value: Any) -> tuple[int, ...]:
        """The shape of a value, for :data:`ROWS` rows."""
        if isinstance(value, Task):
            return tuple(size_of(d, ROWS, value.wire.n) for d in value.wire.dims)
        return tuple(value.value.shape)

    def result_shape(self, call: Call, item: int | None = None) -> tuple[int, ...]:
        """The shape of a result, for :data:`ROWS` rows."""
        return tuple(map(number, sizes_of(call.node, item)))

    def result_dims(self, node: Fx, item: int | None = None) -> Dims:
        """The layout of a value without positions."""
        found: list[Any] = []
        try:
            sizes = sizes_of(node, item) if self.rows is None else ()
        except Unfollowed:  # two dimensions of rows: the graph has a fixed number of them
            self.rows, sizes = self.captured.batch, ()
        for size in sizes:
            rate, more = (size.rate, size.more) if isinstance(size, Count) else (0, size)
            if rate and more:
                self.rows = self.captured.batch
            found.append(sized(more) if not rate else (BATCH,) if rate == 1 else (BATCH, rate))
        return tuple(found) if self.rows is None else tuple(sized(hint(s)) for s in value_of(node, item).shape)

    # ---- tasks ----------------------------------------------------------------------------------------------------------

    def keep(self, task: Any) -> Any:
        """Add a task behind those that there are."""
        self.tasks.append(task)
        return task

    def add(self, call: Call, cls: type[Task], inputs: Sequence[Task], wire: Wire, **more: Any) -> Any:
        """A task of an operation: its result, number ``result`` of several, or with ``inner`` a step on the way to it.

        Raises:
            Unfollowed: the layout is not that of the result.
        """
        path, label, source = self.names.label(_named(call))
        single = wire.timed and wire.n == 1  # one position: there is nothing to share
        if single:
            wire = Wire(tuple(() if d == (TIME,) else tuple(f for f in d if f != TIME) for d in wire.dims))
        shape = tuple(size_of(d, ROWS, wire.n) for d in wire.dims)
        inner, result = more.pop("inner", False), more.pop("result", 0)
        if self.rows is None and not more.get("items") and not inner and shape != self.result_shape(call, result):
            raise Unfollowed(f"{call.op} gives {self.result_shape(call, result)}, not {shape}")
        val = value_of(call.node, result)
        dtype = val.dtype if isinstance(val, Tensor) else inputs[0].dtype if inputs else torch.float32
        return self.keep(cls(path, label, source, tuple(inputs), wire, dtype=dtype, single=single, **more))

    def operation(self, call: Call, target: str, args: Sequence[Any], kwargs: dict[str, Any], inputs: Sequence[Task],
                  tables: Sequence[Const] = ()) -> tuple[Op, tuple[int, ...], tuple[int, ...]]:  # fmt: skip
        """An operation on slots, the slots of its inputs, and those of its tables."""
        slots, table_slots = [self.draft.new_slot() for _ in inputs], [self.draft.new_slot() for _ in tables]
        of = {id(t): s for t, s in zip(inputs, slots, strict=True)} | {id(c): s for c, s in zip(tables, table_slots, strict=True)}

        def template(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return [template(v) for v in value]
            if id(value) in of:
                return Ref(of[id(value)])
            return CurrentDevice() if isinstance(value, torch.device) else Ref(value.slot) if isinstance(value, Const) else value

        path, label, source = self.names.path(_named(call)), call.op.strip("_"), source_line(call.node)
        kw = {k: template(v) for k, v in kwargs.items() if k != "pin_memory"}
        run = ANY_LAYOUT.get(target, target)
        op = Op(path, label, source, run, tuple(template(a) for a in args), kw, (), self.draft.new_slot(), WIRE)
        return op, tuple(slots), tuple(table_slots)

    def call_args(self, call: Call) -> tuple[list[Any], dict[str, Any]]:
        """The arguments with which an operation is called."""
        args = [call.args[n] for n in call.positional]
        return args, {n: call.args[n] for n in call.node.kwargs}

    def window(
        self,
        call: Call,
        dims: Dims | Sequence[Dims | None] | None = None,
        like: Wire | None = None,
        *,
        steady: bool = False,
        cls: type[OpTask] = OpTask,
        function: Callable[..., Any] | None = None,
        **own: Any,
    ) -> Any:
        """An operation on the whole window, as it is.

        Args:
            dims: the layout of the result (of each, if there are several), if it still has positions.
            like: their wire.
            cls, own: the class of the task, if it gives several results, and its own fields.
            function: what runs in place of an operation of torch, on its arguments.
        """
        args, kwargs = self.call_args(call)
        inputs = list({id(t): t for t in tasks_in([*args, *kwargs.values()])}.values())
        op, slots, _ = self.operation(call, call.name if function is None else ITEM, args, kwargs, inputs)
        op = op if function is None else FunctionOp.of(op, function)
        steady = all(t.wire.steady for t in inputs) if inputs else steady
        val = call.node.meta["val"]
        macs = own.pop("macs", None)
        more = {
            "op": op, "slots": slots, "entire": (True,) * len(inputs), "macs": self.macs(call) if macs is None else macs,
            "weight": weight_of(call),
        }  # fmt: skip
        if not isinstance(val, (list, tuple)):
            wire = self._window_wire(call.node, None, dims, like, steady)  # type: ignore[arg-type]
            return self.add(call, OpTask, inputs, wire, whole=wire.timed, uniform=_uniform(call, inputs), **more)
        several = dims or [None] * len(val)
        wires = tuple(self._window_wire(call.node, i, d, like, steady) for i, d in enumerate(several))  # type: ignore[arg-type]
        first = next((w for w in wires if w.timed), Wire(()))
        parent = self.add(call, cls, inputs, first, whole=first.timed, items=wires, **more, **own)
        return self.items(call, parent)

    def items(self, call: Call, parent: Task) -> list[Task]:
        """The results of an operation with several outputs."""
        return [self.add(call, Item, [parent], w, index=i, result=i) for i, w in enumerate(parent.items)]

    def _window_wire(self, node: Fx, item: int | None, dims: Dims | None, like: Wire | None, steady: bool) -> Wire:
        if dims is None or like is None or where(dims, TIME) is None:
            return Wire(self.result_dims(node, item), steady=steady)
        return replace(like, dims=dims, a=like.n, b=0, steady=False)

    def positionwise(
        self, call: Call, dims: Dims | Sequence[Dims], like: Wire, *, target: str | None = None, args: Sequence[Any] | None = None,
        kwargs: dict[str, Any] | None = None, entire: Sequence[Task] = (), tables: Sequence[tuple[Const, int]] = (), group: int = 1,
        result: int = 0, inner: bool = False,
    ) -> Any:  # fmt: skip
        """An operation position by position.

        Args:
            dims: the layout of what it gives; of several results, of each.
            like: the wire of its streams, with their positions and stride; the margins are worked out here.
            target, args, kwargs: what to run, if not the operation with its arguments.
            entire: inputs that it needs at all positions.
            tables: constants that vary over time, and the dimension in which they do.
            group: how many positions of its inputs go into one of its own.
            result: which of the operation's results it is.
            inner: whether it is a step on the way to the operation.
        """
        if args is None:
            args, kwargs = self.call_args(call)
        inputs = list({id(t): t for t in tasks_in([*args, *(kwargs or {}).values()])}.values())
        wide = {id(t) for t in entire}
        margins = [(t.wire.a, t.wire.b) for t in inputs if t.wire.timed and id(t) not in wide]
        a, b = (max(m[i] for m in margins) for i in (0, 1))
        a, b = -(-a // group), -(-b // group)
        n, stride = like.n // group, like.stride * group
        if any(not t.wire.steady for t in inputs if not t.wire.timed or id(t) in wide):
            a, b = n, 0
        several = isinstance(call.node.meta["val"], (list, tuple)) and target is None
        layout: Dims = dims[0] if several else dims  # type: ignore[assignment]
        for const, dim in tables:
            left, right = self.varies(const, dim, n, layout)
            a, b = max(a, left), max(b, right)
        if any(t.items for t in inputs):
            raise Unfollowed("several results at once")
        op, slots, own = self.operation(call, target or call.name, args, kwargs or {}, inputs, [c for c, _ in tables])
        found = tuple(Table(c.slot, s, self.table_axis(c, d, n, layout), n) for (c, d), s in zip(tables, own, strict=True))
        more = {
            "op": op, "slots": slots, "tables": found, "group": group, "entire": tuple(id(t) in wide for t in inputs),
            "macs": self.macs(call), "weight": weight_of(call),
        }  # fmt: skip
        if not several:
            return self.add(call, OpTask, inputs, Wire(dims, n, stride, a, b), result=result, inner=inner, **more)  # type: ignore[arg-type]
        wires = tuple(Wire(d, n, stride, a, b) for d in dims)  # type: ignore[arg-type]
        return self.items(call, self.add(call, OpTask, inputs, wires[0], items=wires, **more))

    def filled_beside(self, call: Call, task: Task, like: Task) -> Task:
        """A value with equal elements, at the positions of another value."""
        wire, sizes = like.wire, self.shape(task)
        own = [wire.dims[i - len(sizes)] if len(sizes) - i <= len(wire.dims) else () for i in range(len(sizes))]
        dims = tuple(d if size_of(d, ROWS, wire.n) == s else ((s,) if s != 1 else ()) for d, s in zip(own, sizes, strict=True))
        if not any(TIME in d for d in dims) or any(d != (BATCH,) and BATCH in d and TIME not in d for d in dims):
            raise Unfollowed("all elements the same, at no positions")
        kwargs = {"dtype": task.dtype}
        op, slots, _ = self.operation(call, "aten.new_full.default", [like, Shape(dims), task.uniform], kwargs, [like])
        made = Wire(dims, wire.n, wire.stride)
        found = self.add(call, OpTask, [like], made, op=op, slots=slots, entire=(False,), inner=True)
        found.dtype = task.dtype
        return found

    def copied_beside(self, call: Call, task: Task, like: Task) -> Task:
        """A constant that is repeated for rows and positions, at the positions of another value."""
        wire, sizes = like.wire, self.shape(task)
        own = [wire.dims[i - len(sizes)] if len(sizes) - i <= len(wire.dims) else () for i in range(len(sizes))]
        dims = tuple(d if size_of(d, ROWS, wire.n) == s else sized(s) for d, s in zip(own, sizes, strict=True))
        if not any(TIME in d for d in dims) or any(s % ROWS == 0 and BATCH not in d for s, d in zip(sizes, dims, strict=True)):
            raise Unfollowed("a constant for rows that lie differently")
        op, slots, _ = self.operation(call, "aten.expand.default", [task.copies, Shape(dims)], {}, [like])
        made = Wire(dims, wire.n, wire.stride)
        found = self.add(call, OpTask, [like], made, op=op, slots=slots, entire=(False,), inner=True)
        found.dtype = task.dtype
        return found

    # ---- tables ---------------------------------------------------------------------------------------------------------

    def table_axis(self, const: Const, dim: int, n: int, dims: Dims) -> Axis:
        """Where time is in a constant beside values of a layout."""
        axis = replace(Wire(dims).axis, at=dim)
        if BATCH in (*axis.outer, *axis.inner) or const.value.shape[dim] != size_of((*axis.outer, n, *axis.inner), 1, 1):
            raise Unfollowed("a table of another length")
        return axis

    def varies(self, const: Const, dim: int, n: int, dims: Any) -> tuple[int, int]:
        """The margins of a constant: outside of them it is the same at all positions."""
        axis = self.table_axis(const, dim, n, dims)
        if self.origin.can_change(const):  # its value may change later
            return n, 0
        rows = axis.split(const.value, 1).movedim(axis.apart, 0).reshape(n, -1)
        middle = n // 2
        same = (rows == rows[middle]).all(1).tolist()
        a, b = middle, middle
        while a > 0 and same[a - 1]:
            a -= 1
        while b < n - 1 and same[b + 1]:
            b += 1
        return a, n - 1 - b

    def macs(self, call: Call) -> int:
        """Multiply-adds of an operation for a row."""
        return macs_of(call, self.shape, lambda item: self.result_shape(call, item), ROWS)
