"""From the exported graph of one window to tasks: every operation is looked at once, by its rule or as it is."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node as Fx

from ...rows import Refusal
from ..builder import Builder
from ..call import RANDOM, Call, Source, leaves
from ..capture import module_path, source_line
from ..layout import BATCH, TIME, Dims, fixed, size_of, where
from ..mutation import asserts
from ..program import Count, Home, Op, Ref, Shape
from ..values import Const
from .tasks import WIRE, Entry, Given, Item, Local, Table, Task
from .wire import Axis, Wire
from .work import macs_of, weight_of

ROWS = 10_007  # the rows for which layouts are worked out: a prime, so that no other size is taken for them


class Unfollowed(Exception):
    """An operation can't be followed position by position: it is computed on the window."""


Rule = Callable[["Walk", Call], Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the rule of operations: ``"aten.add.Tensor"``, or ``"aten.add"`` for all overloads."""

    def registered(fn: Rule) -> Rule:
        for name in names:
            RULES[name] = fn
        return fn

    return registered


SAME_VALUES = ("slice", "narrow", "select", "view", "reshape", "expand", "clone", "unsqueeze", "permute", "transpose", "_to_copy")


def _uniform(call: Call, inputs: Sequence[Task]) -> float | None:
    """The value of all elements of what an operation gives."""
    if not inputs:
        value = {"zeros": 0.0, "ones": 1.0}.get(call.op, call.get("fill_value"))
        return float(value) if isinstance(value, (int, float)) else None
    return inputs[0].uniform if len(inputs) == 1 and call.op in SAME_VALUES else None


@lru_cache(maxsize=4096)
def _linear(formula: Any) -> Count:
    """A size as a function of the rows."""
    found = [int(formula.subs(dict.fromkeys(formula.free_symbols, n))) for n in (2, 3, 5)]
    rate = found[1] - found[0]
    if found[2] != found[0] + 3 * rate:
        raise Unfollowed(f"{formula} is no multiple of the rows")
    return Count(rate, found[0] - 2 * rate)


def known(size: Any) -> int | Count:
    """A size: a number, or one that grows with the rows."""
    if isinstance(size, torch.SymInt) and size.node.maybe_as_int() is None:
        return _linear(size.node.expr)
    return int(size)


def number(size: int | Count) -> int:
    """A size for :data:`ROWS` rows."""
    return size.rate * ROWS + size.more if isinstance(size, Count) else size


def tasks_in(value: Any) -> list[Task]:
    """The tasks among values."""
    return [v for v in leaves(value if isinstance(value, (list, tuple)) else [value]) if isinstance(v, Task)]


class Walk(Builder):
    """Makes tasks of an exported module.

    Attributes:
        tasks: each behind its inputs.
        rows: how many rows the export is for; ``None``: any.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tasks: list[Task] = []
        self.rows: int | None = None
        self.entry_slots: list[tuple[int, int]] = []
        self.why: dict[str, str] = {}  # operations on the whole window, by the names of their nodes
        self.unexpected: list[tuple[Fx, Exception]] = []

    def follow(self) -> list[Task]:
        """Walk the graph; returns the tasks whose values leave."""
        program = self.captured.program
        signature, numbers = program.graph_signature, iter(range(len(self.captured.inputs)))
        if signature.buffers_to_mutate:
            names = ", ".join(sorted(set(signature.buffers_to_mutate.values())))
            self.refusals.append(
                Refusal(
                    "", "", "", f"the module changes its own buffers in forward ({names})", "keep such state out of the module"
                )
            )
        found: list[Task] = []
        for node in program.graph.nodes:
            self.node = node
            if node.op == "placeholder":
                self.values[node] = self._arrives(node, signature, numbers)
            elif node.op == "output":
                found = self._leaving(node.args[0])
            elif node.op == "call_function":
                self.values[node] = self._value(node)
        return found

    # ---- what comes in and what leaves ----------------------------------------------------------------------------------

    def _arrives(self, node: Fx, signature: Any, numbers: Any) -> Any:
        if node.name not in signature.user_inputs:
            return self._placeholder(node, signature, numbers)
        i = next(numbers)
        self.names.append(node.name)
        x, time, batch = self.captured.inputs[i], self.captured.time_dims[i], self.captured.batch_dims[i]
        slot, dims = self.slot(), list(fixed(x.shape))
        self.sources.append(Source(slot, "input", str(i)))
        val = node.meta["val"]
        if batch is not None:
            dims[batch] = (BATCH,)
            if not isinstance(known(val.shape[batch]), Count):
                self.rows = int(val.shape[batch])
        if time is None:
            return self._keep(Given(node.name, "input", "", (), Wire(tuple(dims)), slot=slot, dtype=x.dtype))
        dims[time] = (TIME,)
        number = len(self.entry_slots)
        self.entry_slots.append((i, slot))
        return self._keep(Entry(node.name, "input", "", (), Wire(tuple(dims), x.shape[time]), number=number, dtype=x.dtype))

    def _leaving(self, nodes: Sequence[Any]) -> list[Task]:
        spec = self.captured.program.call_spec.out_spec
        self.nested = spec is not None and not spec.is_leaf()
        found = []
        for i, node in enumerate(nodes):
            value = self.values.get(node) if isinstance(node, Fx) else node
            if not isinstance(value, Task):
                said = "does not depend on the stream" if isinstance(value, (Const, Tensor)) else f"is {value!r}"
                self.refusals.append(Refusal("", "output", "", f"output {i} {said}", "return what does"))
                continue
            found.append(value)
        return found

    # ---- operations ---------------------------------------------------------------------------------------------------------

    def _value(self, node: Fx) -> Any:
        name, val = str(node.target), node.meta.get("val")
        if isinstance(val, (torch.SymInt, int)) and not isinstance(val, bool):
            try:
                return known(val)
            except Unfollowed:
                self.rows = self.captured.batch
                return int(val.node.hint) if isinstance(val, torch.SymInt) else val
        if node.target is operator.getitem:
            return self.values[node.args[0]][node.args[1]]  # type: ignore[index]
        if not hasattr(node.target, "_schema"):
            self.refusals.append(Refusal(module_path(node), name, source_line(node), f"`{name}` is a function of Python", "plain operations on tensors"))  # fmt: skip
            return None
        if asserts(name):
            return None
        call = self._call(node, name)
        if call.op in RANDOM:
            self.refusals.append(Refusal(module_path(node), call.op, source_line(node), f"`{call.op}` draws random numbers", "leave it out in eval mode; what is drawn once belongs in a buffer"))  # fmt: skip
            return None
        if not tasks_in(list(call.args.values())):
            if any(isinstance(v, Count) for v in leaves(list(call.args.values()))):
                return self.window(call, steady=True)
            return self._constant(node, name, call.args, call.positional)
        return self.apply(call)

    def _call(self, node: Fx, name: str) -> Call:
        args: dict[str, Any] = {}
        positional: list[str] = []
        for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
            if i < len(node.args):
                args[argument.name] = self._given(node.args[i])
                positional.append(argument.name)
            elif argument.name in node.kwargs:
                args[argument.name] = self._given(node.kwargs[argument.name])
            elif argument.has_default_value() and not argument.kwarg_only:
                args[argument.name] = argument.default_value
        return Call(node, name, args, tuple(positional))

    def _given(self, arg: Any) -> Any:
        if isinstance(arg, Fx):
            return self.values[arg]
        if isinstance(arg, (list, tuple)):
            return [self._given(a) for a in arg]
        return arg

    def apply(self, call: Call) -> Any:
        """An operation by its rule, or on the whole window."""
        found = RULES.get(call.name) or RULES.get(call.name.rpartition(".")[0])
        if found is None and torch.Tag.pointwise in getattr(call.node.target, "tags", ()):
            found = RULES["pointwise"]
        if found is not None and self.rows is None:
            try:
                return found(self, call)
            except Unfollowed as why:
                self.why[call.node.name] = str(why)
            except Exception as error:  # a rule that meets what it was not made for: the window is always right
                self.unexpected.append((call.node, error))
        return self.window(call)

    def shape(self, value: Any) -> tuple[int, ...]:
        """The shape of a value, for :data:`ROWS` rows."""
        if isinstance(value, Task):
            return tuple(size_of(d, ROWS, value.wire.n) for d in value.wire.dims)
        return tuple(value.value.shape) if isinstance(value, Const) else super().shape(value)

    def result_shape(self, call: Call, item: int | None = None) -> tuple[int, ...]:
        """The shape of what an operation gives, for :data:`ROWS` rows."""
        val = call.node.meta["val"]
        val = val[item or 0] if isinstance(val, (list, tuple)) else val
        return tuple(number(known(s)) for s in val.shape)

    def result_dims(self, val: Any) -> Dims:
        """The layout of a value without positions."""
        found = []
        for size in val.shape:
            own = known(size)
            if not isinstance(own, Count):
                found.append(fixed((own,))[0])
            else:
                found.append((BATCH,) if own.rate == 1 else (BATCH, own.rate))
                if own.more:
                    raise Unfollowed("sizes that are no multiples of the rows")
        return tuple(found)

    # ---- tasks ----------------------------------------------------------------------------------------------------------

    def _keep(self, task: Any) -> Any:
        self.tasks.append(task)
        return task

    def add(self, call: Call, cls: type[Task], inputs: Sequence[Task], wire: Wire, **more: Any) -> Any:
        """A task of an operation: its result, number ``result`` of several, or with ``inner`` a step on the way to it.

        Raises:
            Unfollowed: the layout is not that of the result.
        """
        path, label, source = self.place(call)
        single = wire.timed and wire.n == 1  # one position: there is nothing to share
        if single:
            wire = Wire(tuple(() if d == (TIME,) else tuple(f for f in d if f != TIME) for d in wire.dims))
        shape = tuple(size_of(d, ROWS, wire.n) for d in wire.dims)
        inner, result = more.pop("inner", False), more.pop("result", 0)
        if not more.get("items") and not inner and shape != self.result_shape(call, result):
            raise Unfollowed(f"{call.op} gives {self.result_shape(call, result)}, not {shape}")
        val = call.node.meta["val"]
        val = val[result] if isinstance(val, (list, tuple)) else val
        dtype = val.dtype if isinstance(val, Tensor) else inputs[0].dtype if inputs else torch.float32
        return self._keep(cls(path, label, source, tuple(inputs), wire, dtype=dtype, single=single, **more))

    def operation(self, call: Call, target: str, args: Sequence[Any], kwargs: dict[str, Any], inputs: Sequence[Task],
                  tables: Sequence[Const] = ()) -> tuple[Op, tuple[int, ...], tuple[int, ...]]:  # fmt: skip
        """An operation on slots, the slots of its inputs, and those of its tables."""
        slots, given = [self.slot() for _ in inputs], [self.slot() for _ in tables]
        of = {id(t): s for t, s in zip(inputs, slots, strict=True)} | {id(c): s for c, s in zip(tables, given, strict=True)}

        def template(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return [template(v) for v in value]
            if id(value) in of:
                return Ref(of[id(value)])
            return Home() if isinstance(value, torch.device) else Ref(value.slot) if isinstance(value, Const) else value

        path, label, source = self.name_of(call), call.op.strip("_"), source_line(call.node)
        kw = {k: template(v) for k, v in kwargs.items() if not (k == "pin_memory")}
        op = Op(path, label, source, target, tuple(template(a) for a in args), kw, (), self.slot(), WIRE)
        return op, tuple(slots), tuple(given)

    def given_args(self, call: Call) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of an operation as they are called."""
        args = [call.args[n] for n in call.positional]
        return args, {n: call.args[n] for n in call.node.kwargs}

    def window(self, call: Call, dims: Dims | Sequence[Dims | None] | None = None, like: Wire | None = None, *, steady: bool = False) -> Any:  # fmt: skip
        """An operation on the whole window, as it is.

        Args:
            dims: the layout of what it gives (of several results, of each), where it has positions still.
            like: their wire.
        """
        args, kwargs = self.given_args(call)
        inputs = list({id(t): t for t in tasks_in([*args, *kwargs.values()])}.values())
        target = "aten.reshape.default" if call.name in ("aten.view.default", "aten._unsafe_view.default") else call.name
        op, slots, _ = self.operation(call, target, args, kwargs, inputs)
        steady = all(t.wire.steady for t in inputs) if inputs else steady
        val = call.node.meta["val"]
        more = {"op": op, "slots": slots, "entire": (True,) * len(inputs), "macs": self.macs(call), "weight": weight_of(call)}
        if not isinstance(val, (list, tuple)):
            wire = self._window_wire(val, dims, like, steady)  # type: ignore[arg-type]
            return self.add(call, Local, inputs, wire, whole=wire.timed, uniform=_uniform(call, inputs), **more)
        several = dims or [None] * len(val)
        wires = tuple(self._window_wire(v, d, like, steady) for v, d in zip(val, several, strict=True))  # type: ignore[arg-type]
        own = next((w for w in wires if w.timed), Wire(()))
        parent = self.add(call, Local, inputs, own, whole=own.timed, items=wires, **more)
        return self.items(call, parent)

    def items(self, call: Call, parent: Task) -> list[Task]:
        """The results of an operation that gives several."""
        return [self.add(call, Item, [parent], w, index=i, result=i) for i, w in enumerate(parent.items)]

    def _window_wire(self, val: Any, dims: Dims | None, like: Wire | None, steady: bool) -> Wire:
        if dims is None or like is None or where(dims, TIME) is None:
            plain = self.result_dims(val) if self.rows is None else fixed(val.shape)
            return Wire(plain, steady=steady)
        return replace(like, dims=dims, a=like.n, b=0, steady=False)

    def local(
        self, call: Call, dims: Dims | Sequence[Dims], like: Wire, *, target: str | None = None, args: Sequence[Any] | None = None,
        kwargs: dict[str, Any] | None = None, entire: Sequence[Task] = (), tables: Sequence[tuple[Const, int]] = (), group: int = 1,
        result: int = 0,
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
        """
        if args is None:
            args, kwargs = self.given_args(call)
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
        found = tuple(
            Table(c.slot, s, self.table_axis(c, d, n, layout), n) for (c, d), s in zip(tables, own, strict=True)
        )
        more = {
            "op": op, "slots": slots, "tables": found, "group": group, "entire": tuple(id(t) in wide for t in inputs),
            "macs": self.macs(call), "weight": weight_of(call),
        }  # fmt: skip
        if not several:
            return self.add(call, Local, inputs, Wire(dims, n, stride, a, b), result=result, **more)  # type: ignore[arg-type]
        wires = tuple(Wire(d, n, stride, a, b) for d in dims)  # type: ignore[arg-type]
        return self.items(call, self.add(call, Local, inputs, wires[0], items=wires, **more))

    def beside(self, call: Call, task: Task, like: Task) -> Task:
        """A value whose elements are all the same, at the positions of another one."""
        wire, sizes = like.wire, self.shape(task)
        own = [wire.dims[i - len(sizes)] if len(sizes) - i <= len(wire.dims) else () for i in range(len(sizes))]
        dims = tuple(
            d if size_of(d, ROWS, wire.n) == s else ((s,) if s != 1 else ()) for d, s in zip(own, sizes, strict=True)
        )
        if not any(TIME in d for d in dims) or any(d != (BATCH,) and BATCH in d and TIME not in d for d in dims):
            raise Unfollowed("all elements the same, at no positions")
        kwargs = {"dtype": task.dtype}
        op, slots, _ = self.operation(call, "aten.new_full.default", [like, Shape(dims), task.uniform], kwargs, [like])
        made = Wire(dims, wire.n, wire.stride)
        found = self.add(call, Local, [like], made, op=op, slots=slots, entire=(False,), inner=True)
        found.dtype = task.dtype
        return found  # type: ignore[no-any-return]

    # ---- tables ---------------------------------------------------------------------------------------------------------

    def table_axis(self, const: Const, dim: int, n: int, dims: Dims) -> Axis:
        """Where time is in a constant beside values of a layout."""
        axis = replace(Wire(dims).axis, at=dim)
        if BATCH in (*axis.outer, *axis.inner) or const.value.shape[dim] != size_of((*axis.outer, n, *axis.inner), 1, 1):
            raise Unfollowed("a table of another length")
        return axis

    def varies(self, const: Const, dim: int, n: int, dims: Any) -> tuple[int, int]:
        """The margins outside of which a constant is the same at all positions."""
        axis = self.table_axis(const, dim, n, dims)
        if self.learned(const):  # it may be another one tomorrow
            return n, 0
        rows = axis.split(const.value, 1).movedim(axis.apart, 0).flatten(1)
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
