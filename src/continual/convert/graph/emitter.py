"""Adds instructions and constants to the program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...core.module import CoModule
from .axes import BATCH, TIME, Dims, View, fixed
from .exec_context import Arg, CurrentDevice, Ref, Shape
from .fitted_ends import FitEnd, FittedEnd
from .instructions import Layer, Op
from .op_call import BANDED, COMPARES, DECAYS, Misfit, OpCall, Refused, RowsMixed, results_of
from .op_names import Label, OpNames
from .parameter_table import Source
from .program_draft import ProgramDraft
from .shape_queries import ShapeQueries
from .values import ITEM, STATIC, Const, Size, Stream, SymScalar, TensorValue, Value
from .without_rows import with_rows


class Emitter:
    """Adds the results of rules to a program.

    Args:
        draft: the program.
        shapes: answers questions on sizes.
        names: gives operations their paths.
    """

    def __init__(self, draft: ProgramDraft, shapes: ShapeQueries, names: OpNames):
        self._draft, self._shapes, self._names = draft, shapes, names

    # ---- constants --------------------------------------------------------------------------------------------------

    def const(self, target: str, args: Sequence[Value], kwargs: Mapping[str, Value] | None = None) -> Const:
        """Compute a constant from constants. The program computes it again when they change."""
        op, value = self._const_op(target, args, kwargs or {})
        return Const(op.out, fixed(value.shape), value)

    def consts(self, target: str, args: Sequence[Value], kwargs: Mapping[str, Value]) -> Const | list[Const]:
        """The same for an operation with several results."""
        op, value = self._const_op(target, args, kwargs)
        if isinstance(value, Tensor):
            return Const(op.out, fixed(value.shape), value)
        found = []
        for i, part in enumerate(value):
            item = Op("", ITEM, "", ITEM, (Ref(op.out), i), {}, (), self._draft.new_slot(), 0)
            self._draft.constants.append(item)
            found.append(Const(item.out, fixed(part.shape), part))
        return found

    def _const_op(self, target: str, args: Sequence[Value], kwargs: Mapping[str, Value]) -> tuple[Op, Any]:
        positional, named = tuple(map(self.template, args)), {k: self.template(v) for k, v in kwargs.items()}
        op = Op("", target, "", target, positional, named, (), self._draft.new_slot(), 0)
        with torch.no_grad():
            value = op.fn(*map(self.example, args), **{k: self.example(v) for k, v in kwargs.items()})
        self._draft.constants.append(op)
        return op, value

    def constant(self, name: str, value: Tensor) -> Const:
        """A tensor that the conversion computes."""
        self._draft.tensors[name] = value
        return self.from_source("constant", name, value)

    def from_source(self, kind: str, name: str, value: Tensor) -> Const:
        """A parameter, a buffer or a constant of the code."""
        slot = self._draft.new_slot()
        self._draft.sources.append(Source(slot, kind, name))
        return Const(slot, fixed(value.shape), value.detach())

    def example(self, value: Value) -> Any:
        """A constant's value for the example."""
        if isinstance(value, (list, tuple)):
            return [self.example(v) for v in value]
        return value.value if isinstance(value, Const) else value.now if isinstance(value, Size) else value

    def template(self, value: Value) -> Arg:
        """A value as an argument of an instruction."""
        if isinstance(value, (list, tuple)):
            return [self.template(v) for v in value]
        if isinstance(value, (Const, Stream)):
            return Ref(value.slot)
        if isinstance(value, (Size, SymScalar)):
            return self._shapes.number(value)
        if isinstance(value, torch.device):
            return CurrentDevice()
        return value  # type: ignore[return-value]  # others are refused before

    def arguments(self, call: OpCall) -> tuple[list[Arg], dict[str, Arg]]:
        """The arguments of a call for an instruction, positional and by name."""
        arguments = {name: self.template(v) for name, v in call.args.items()}
        return [arguments[n] for n in call.positional], {n: v for n, v in arguments.items() if n not in call.positional}

    # ---- instructions -----------------------------------------------------------------------------------------------

    def local(
        self,
        call: OpCall,
        dims: Dims,
        like: Stream,
        *,
        dtype: torch.dtype | None = None,
        target: str | None = None,
        args: Sequence[Arg] | None = None,
        kwargs: Mapping[str, Arg] | None = None,
        inputs: Sequence[Stream] = (),
        windows: bool | None = None,
        fill: float | None = None,
    ) -> Stream:
        """An operation that is local in time, on streams that are aligned with ``like``.

        Args:
            call: the operation.
            dims: the layout of the result.
            like: the stream whose timing the result has.
            dtype: of the result; by default that of the export.
            target, args, kwargs: what to run, if not the operation with its arguments.
            inputs: the streams among ``args`` where these are given.
            windows, fill: as in :class:`~continual.convert.graph.values.Stream`; by default those of the inputs.
        """
        if args is None:
            args, named = self.arguments(call)
            kwargs, inputs = named | dict(kwargs or {}), call.streams
        inputs = list(inputs) or [like]
        moving = [s for s in inputs if s.wire != STATIC]
        if sum(f == TIME for dim in dims for f in dim) > 1:
            raise Refused(f"`{call.op}` {COMPARES}", DECAYS if call.op == "sub" else BANDED)
        if any(BATCH in d for s in inputs for d in s.dims) and not any(BATCH in dim for dim in dims):
            raise RowsMixed(f"`{call.op}` mixes the rows of the batch", "keep the batch as a dimension of its own")
        wire = moving[0].wire if moving else STATIC
        path, label, source = self._names.label(call)
        label = label if target is None else target.split(":")[-1].split(".")[-2 if "." in target else -1].strip("_")
        windowed = (moving[0].windows if moving else False) if windows is None else windows
        made = Stream(self._draft.new_slot(), dims, wire, dtype or self.dtype(call), windowed, fill)
        slots = tuple(s.slot for s in moving)
        self._draft.instructions.append(
            Op(
                path,
                label,
                source,
                target or call.name,
                tuple(args),
                dict(kwargs or {}),
                slots,
                made.slot,
                max(wire, 0),
                dims=dims,
            )
        )
        return made

    def op(self, call: OpCall, target: str, x: Stream, dims: Dims, *args: Arg, dtype: torch.dtype | None = None) -> Stream:
        """An operation of one stream that is local in time: ``target(x, *args)``."""
        return self.local(call, dims, x, target=target, args=(Ref(x.slot), *args), inputs=[x], dtype=dtype)

    def reshape(self, call: OpCall, x: Stream, dims: Dims) -> Stream:
        """A stream in another layout of the same elements."""
        return x if dims == x.dims else self.op(call, "aten.reshape.default", x, dims, Shape(dims), dtype=x.dtype)

    def permute(self, call: OpCall, x: Stream, order: Sequence[int]) -> Stream:
        """Another order of the dimensions."""
        order = [i % len(x.dims) for i in order]
        if order == sorted(order):
            return x
        return self.op(call, "aten.permute.default", x, tuple(x.dims[i] for i in order), order, dtype=x.dtype)

    def unsqueeze(self, call: OpCall, x: Stream, dim: int) -> Stream:
        """A new dimension of size 1."""
        return self.op(call, "aten.unsqueeze.default", x, (*x.dims[:dim], (), *x.dims[dim:]), dim, dtype=x.dtype)

    def squeeze(self, call: OpCall, x: Stream, gone: Sequence[int]) -> Stream:
        """Drop dimensions of size 1."""
        if not gone:
            return x
        dims = tuple(d for i, d in enumerate(x.dims) if i not in gone)
        return self.op(call, "aten.squeeze.dims", x, dims, list(gone), dtype=x.dtype)

    def expand(self, call: OpCall, x: TensorValue, dims: Dims, inputs: Sequence[Stream], like: Stream) -> Stream:
        """A stream or a constant, repeated to a layout."""
        args = (Ref(x.slot), Shape(dims))
        return self.local(call, dims, like, target="aten.expand.default", args=args, inputs=inputs, dtype=x.dtype)

    def filled(self, call: OpCall, dims: Dims, beside: Stream, value: float, dtype: torch.dtype) -> Stream:
        """A stream of one value, beside another stream. It follows that stream's dtype where the module does so."""
        kwargs = {} if dtype == beside.dtype else {"dtype": dtype}
        args = (Ref(beside.slot), Shape(dims), value)
        return self.local(
            call, dims, beside, target="aten.new_full.default", args=args, kwargs=kwargs, inputs=[beside], dtype=dtype, fill=value
        )

    def static(
        self,
        call: OpCall,
        dims: Dims,
        args: Sequence[Arg],
        kwargs: Mapping[str, Arg],
        dtype: torch.dtype,
        fill: float | None = None,
    ) -> Stream:
        """An operation whose result is the same for every frame."""
        path, label, source = self._names.label(call)
        made = Stream(self._draft.new_slot(), dims, STATIC, dtype, fill=fill)
        self._draft.instructions.append(
            Op(path, label, source, call.name, tuple(args), dict(kwargs), (), made.slot, 0, dims=dims)
        )
        return made

    def layer(
        self, call: OpCall, stream: Stream, module: CoModule, dims: Dims, *, weights: Mapping[str, TensorValue] | None = None,
        label: str = "", windows: bool | None = None, fill: float | None = None,
    ) -> Stream:  # fmt: skip
        """A layer over time: it takes chunks ``(B, C, n, *S)`` of the stream and returns chunks of the layout ``dims``."""
        if not any(BATCH in d for d in stream.dims):
            if windows:
                raise Misfit(
                    f"`{call.op}` works over time on positions alone, which have no rows",
                    "positions by torch.arange(x.shape[time])",
                )
            taken, left = with_rows(stream.dims, dims)
            made = self.layer(call, self.in_rows(call, stream, taken), module, left, weights=weights, label=label, fill=fill)
            return self.one_row(call, made, dims)
        wire = self._draft.wires.then(stream.wire, module.timing)
        windowed = stream.windows if windows is None else windows
        made = Stream(self._draft.new_slot(), dims, wire, self.dtype(call), windowed, fill)
        path, name, source = self._names.label(call)
        module.eval()
        bound = weights or {}
        self._draft.instructions.append(
            Layer(path, label or name, source, module, stream.slot, made.slot, stream.wire, wire, View(stream.dims), View(dims),
                  self._draft.new_state_node(), {n: w.slot for n, w in bound.items()}, any(isinstance(w, Stream) for w in bound.values()))
        )  # fmt: skip
        return made

    def in_rows(self, call: OpCall, x: Stream, dims: Dims) -> Stream:
        """What has frames and no rows, as rows that are all alike."""
        return self.expand(call, x, dims, [x], x)

    def one_row(self, call: OpCall, x: Stream, dims: Dims) -> Stream:
        """One of rows that are all alike, in a layout without rows."""
        made = replace(x, slot=self._draft.new_slot(), dims=dims)
        path, label, source = self._names.label(call)
        target, args = ("aten.select.int", (0, 0)) if len(x.dims) > len(dims) else ("aten.narrow.default", (0, 0, 1))
        self._draft.instructions.append(
            Op(path, label, source, target, (Ref(x.slot), *args), {}, (x.slot,), made.slot, x.wire, dims=dims)
        )
        return made

    def label(self, call: OpCall) -> Label:
        """The path, the name and the line of code of an operation."""
        return self._names.label(call)

    def fitted_end(self, call: OpCall, x: Stream, module: FitEnd, to: int) -> Stream:
        """A stream whose number of frames at the end follows from the length of wire ``to``."""
        wire, view = self._draft.wires.fit(x.wire, to, module.fitted), View(x.dims)
        kept = x.fill is not None and (not module.most or (module.mode, module.value) == ("constant", x.fill))
        made = Stream(self._draft.new_slot(), x.dims, wire, self.dtype(call), x.windows, x.fill if kept else None)
        path, _, source = self._names.label(call)
        label, node = f"end {-module.waiting} … {module.most}", self._draft.new_state_node()
        module.eval()
        self._draft.instructions.append(
            FittedEnd(path, label, source, module, x.slot, made.slot, x.wire, wire, view, view, node, to=to)
        )
        return made

    def undo(self, layer: Layer, stream: Stream) -> Stream:
        """Remove a layer that is no longer needed. Returns its input."""
        self._draft.instructions.remove(layer)
        return replace(stream, slot=layer.slot, wire=layer.before, dims=layer.enter.dims, fill=None)

    def unsqueeze_dummy(self, call: OpCall, x: Stream) -> Stream:
        """A stream with a dimension beside batch and time, of size 1 if it has none."""
        bare = not any(BATCH in d for d in x.dims)
        if len(View(with_rows(x.dims, x.dims)[0] if bare else x.dims).order) > 2:
            return x
        return self.unsqueeze(call, self.unsqueeze(call, x, 0) if x.dims[0] == (TIME,) and bare else x, 1)

    def squeeze_dummy(self, call: OpCall, x: Stream, rank: int) -> Stream:
        """Without the dimensions that :meth:`unsqueeze_dummy` has added."""
        return self.squeeze(call, x, {0: [], 1: [1], 2: [0, 1]}[len(x.dims) - rank])

    def dtype(self, call: OpCall) -> torch.dtype:
        """The dtype of the result in the export."""
        val = results_of(call.node)[0]
        return val.dtype if isinstance(val, Tensor) else torch.get_default_dtype()
