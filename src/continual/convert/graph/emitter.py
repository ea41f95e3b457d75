"""What rules give: instructions, and constants computed of constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ...core.module import CoModule
from ...core.timing_graph import Wiring
from ...errors import ShapeMismatch
from ...layers.delay import Trim
from .axes import BATCH, TIME, Dims, View, fixed
from .capture import module_path, source_line
from .instructions import Home, Layer, Op, Ref, Shape
from .op_call import BANDED, COMPARES, Call, Misfit, Refused, Source
from .queues import Meet
from .shape_queries import Enquiry, Reduced
from .values import STILL, Const, Size, Stream, Value, Varying


class Emission(Enquiry):
    """Adds instructions to the program."""

    def slot(self) -> int:
        """A new slot."""
        self.slots += 1
        return self.slots - 1

    def const(self, target: str, args: Sequence[Value], kwargs: dict[str, Value] | None = None) -> Const:
        """Compute a constant of constants; it is computed anew when they change."""
        out, kw = self.slot(), dict(kwargs or {})
        op = Op(
            "",
            target,
            "",
            target,
            tuple(self.template(a) for a in args),
            {k: self.template(v) for k, v in kw.items()},
            (),
            out,
            0,
        )
        with torch.no_grad():
            value = op.fn(*(self.example(a) for a in args), **{k: self.example(v) for k, v in kw.items()})
        self.constants.append(op)
        return Const(out, fixed(value.shape) if isinstance(value, Tensor) else (), value)

    def example(self, value: Value) -> Any:
        """A constant's value for the example."""
        if isinstance(value, (list, tuple)):
            return [self.example(v) for v in value]
        return value.value if isinstance(value, Const) else value.now if isinstance(value, Size) else value

    def template(self, value: Value) -> Any:
        """A value as an argument of an instruction."""
        if isinstance(value, (list, tuple)):
            return [self.template(v) for v in value]
        if isinstance(value, (Const, Stream)):
            return Ref(value.slot)
        if isinstance(value, (Size, Varying)):
            return self.number(value)
        if isinstance(value, torch.device):
            return Home()
        return value

    def local(
        self,
        call: Call,
        dims: Dims,
        like: Stream,
        *,
        dtype: torch.dtype | None = None,
        target: str | None = None,
        args: Sequence[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        inputs: Sequence[Stream] = (),
        windows: bool | None = None,
        fill: float | None = None,
    ) -> Stream:
        """An operation that is local in time, on streams that are aligned with ``like``.

        Args:
            call: the operation.
            dims: the layout of the result.
            like: the stream whose timing the result has.
            dtype: of the result; by default what the export says.
            target, args, kwargs: what to run, if not the operation with its arguments.
            inputs: the streams among ``args`` where these are given.
        """
        if args is None:
            given = {name: self.template(v) for name, v in call.args.items()}
            args = [given[n] for n in call.positional]
            kwargs = {n: v for n, v in given.items() if n not in call.positional} | (kwargs or {})
            inputs = call.streams
        inputs = list(inputs) or [like]
        moving = [s for s in inputs if s.wire != STILL]
        times = sum(f == TIME for dim in dims for f in dim)
        if times > 1:
            raise Refused(f"`{call.op}` {COMPARES}", BANDED)
        if any(BATCH in d for s in inputs for d in s.dims) and not any(BATCH in dim for dim in dims):
            raise Refused(f"`{call.op}` mixes the rows of the batch", "keep the batch as a dimension of its own")
        wire = moving[0].wire if moving else STILL
        path, label, source = self.place(call)
        label = label if target is None else target.split(":")[-1].split(".")[-2 if "." in target else -1].strip("_")
        windowed = (moving[0].windows if moving else False) if windows is None else windows
        made = Stream(self.slot(), dims, wire, dtype or self.dtype(call), windowed, fill)
        slots = tuple(s.slot for s in moving)
        self.instructions.append(
            Op(path, label, source, target or call.name, tuple(args), dict(kwargs or {}), slots, made.slot, max(wire, 0))
        )
        return made

    def layer(
        self, call: Call, stream: Stream, module: CoModule, dims: Dims, *, weights: Mapping[str, Const | Stream] | None = None,
        label: str = "", windows: bool | None = None, fill: float | None = None,
    ) -> Stream:  # fmt: skip
        """A layer that works over time: it takes chunks ``(B, C, n, *S)`` of the stream and gives such of the layout ``dims``."""
        if not any(BATCH in d for d in stream.dims):
            raise Misfit(
                f"`{call.op}` works over time on positions alone, which have no rows", "positions by torch.arange(x.shape[time])"
            )
        wire = self.wires.then(stream.wire, module.timing)
        windowed = stream.windows if windows is None else windows
        made = Stream(self.slot(), dims, wire, self.dtype(call), windowed, fill)
        path, name, source = self.place(call)
        module.eval()
        self.instructions.append(
            Layer(path, label or name, source, module, stream.slot, made.slot, stream.wire, wire, View(stream.dims), View(dims), self.kid(),
                  {n: w.slot for n, w in (weights or {}).items()}, any(isinstance(w, Stream) for w in (weights or {}).values()))
        )  # fmt: skip
        return made

    def maker(self, call: Call, stream: Stream) -> Layer | None:
        """The layer that gives a stream, if nothing but this operation takes it: it may then be changed instead."""
        last = next((i for i in reversed(self.instructions) if stream.slot in i.outs), None)
        same = {n for n, value in self.values.items() if value == stream}  # a slice of everything is the stream itself
        takers = {user for n in same for user in n.users} - same
        return last if takers == {call.node} and isinstance(last, Layer) else None

    def undo(self, layer: Layer, stream: Stream) -> Stream:
        """Take back a layer that nothing needs any more; what it took."""
        self.instructions.remove(layer)
        return replace(stream, slot=layer.slot, wire=layer.before, dims=layer.enter.dims, fill=None)

    def filled(self, call: Call, dims: Dims, beside: Stream, value: float, dtype: torch.dtype) -> Stream:
        """A stream of one value, beside another one and of its type where that is so in the module."""
        kwargs = {} if dtype == beside.dtype else {"dtype": dtype}
        args = (Ref(beside.slot), Shape(dims), value)
        return self.local(
            call, dims, beside, target="aten.new_full.default", args=args, kwargs=kwargs, inputs=[beside], dtype=dtype, fill=value
        )

    def trim(self, first: int, last: int) -> CoModule:
        """A layer that cuts frames off."""
        return Trim(first, last)

    def constant(self, name: str, value: Tensor) -> Const:
        """A tensor that the conversion has computed."""
        self.tensors[name] = value
        slot = self.slot()
        self.sources.append(Source(slot, "constant", name))
        return Const(slot, fixed(value.shape), value)

    def roomy(self, call: Call, x: Stream) -> Stream:
        """A stream with a dimension beside its batch and time, of size 1 if it has none."""
        if len(View(x.dims).order) > 2:
            return x
        dims = (x.dims[0], (), *x.dims[1:])
        return self.local(call, dims, x, target="aten.unsqueeze.default", args=(Ref(x.slot), 1), kwargs={}, inputs=[x])

    def snug(self, call: Call, x: Stream, rank: int) -> Stream:
        """Without the dimension that :meth:`roomy` has put there."""
        if len(x.dims) == rank:
            return x
        dims = (x.dims[0], *x.dims[2:])
        return self.local(call, dims, x, target="aten.squeeze.dims", args=(Ref(x.slot), [1]), kwargs={}, inputs=[x])

    def kid(self, count: int = 1) -> int:
        """The index of the next node of state."""
        self.kids += count
        return self.kids - count

    def aligned(self, call: Call, streams: Sequence[Stream]) -> list[Stream]:
        """The same streams after they have waited for each other."""
        moving = [s for s in streams if s.wire != STILL]
        wires = [s.wire for s in moving]
        if len(set(wires)) <= 1:
            return list(streams)
        try:
            wire = self.wires.meet(wires)
        except ShapeMismatch:
            rates = ", ".join(dict.fromkeys(f"1 frame in {self.wires.timing(w).stride}" for w in wires))
            raise Misfit(
                f"`{call.op}` joins streams of different rates ({rates} steps)",
                "bring them to one rate by a stride or by upsampling",
            ) from None
        lengths = {self.length(w).now for w in wires}
        if len(lengths) > 1:
            raise Misfit(f"`{call.op}` joins streams of different lengths, {sorted(lengths)}", "pad or cut one of them")
        paces = {_pace(self.wires.timing(w)) for w in wires}
        if wire in wires and len(paces) == 1 and None not in paces:
            return [s if s.wire == STILL else replace(s, wire=wire) for s in streams]
        different = {s.slot: s for s in moving}
        outs = {slot: Stream(self.slot(), s.dims, wire, s.dtype, s.windows) for slot, s in different.items()}
        name, source = self.name_of(call), source_line(call.node)
        timings = tuple(self.wires.timing(s.wire) for s in different.values())
        self.instructions.append(
            Meet(self.unique(f"{name}.wait"), "wait", source, tuple(different), tuple(o.slot for o in outs.values()),
                 tuple(s.wire for s in different.values()), wire, tuple(View(s.dims) for s in different.values()), timings,
                 self.kid(len(different)))
        )  # fmt: skip
        return [outs.get(s.slot, s) for s in streams]

    def reduced(self, stream: Stream, call: Call, what: str, poolable: bool = False) -> Stream:
        """Note that a stream was reduced over the clip here, in words, and whether `time_pooling` has another form of that."""
        self._reductions[stream.slot] = Reduced(call.node, what, poolable)
        return stream

    def window_note(self, call: Call, text: str) -> None:
        """A note about something that looks at a window of the example's length."""
        self.windowed = True
        self.note(call, text)

    def note(self, call: Call, text: str) -> None:
        """Something that people should know about an operation."""
        self.notes.append(f"{module_path(call.node) or call.op}: {text}")

    def still(self, call: Call, dims: Dims, args: Sequence[Any], kwargs: dict[str, Any], dtype: torch.dtype) -> Stream:
        """An operation that does not move: what it gives is the same for all frames."""
        path, label, source = self.place(call)
        made = Stream(self.slot(), dims, STILL, dtype)
        self.instructions.append(Op(path, label, source, call.name, tuple(args), dict(kwargs), (), made.slot, 0))
        return made

    def dtype(self, call: Call) -> torch.dtype:
        """The type of the result, as exported."""
        val = call.node.meta.get("val")
        val = val[0] if isinstance(val, (list, tuple)) else val
        return val.dtype if isinstance(val, Tensor) else torch.get_default_dtype()

    def place(self, call: Call) -> tuple[str, str, str]:
        """A path of its own, the operation and the source line of a node."""
        return self.unique(self.name_of(call)), call.op.strip("_"), source_line(call.node)

    def name_of(self, call: Call) -> str:
        """The path of the module, if it is one of torch's and so a single operation; else with the operation."""
        path = module_path(call.node)
        parts = self.parts
        return path if path in parts else f"{path}.{call.op}".lstrip(".")

    @cached_property
    def parts(self) -> frozenset[str]:
        """The paths of modules that are one of torch's own, and so a single operation."""
        own = {cls for cls in vars(nn).values() if isinstance(cls, type) and issubclass(cls, nn.Module)}
        own -= {nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict}
        return frozenset(name for name, part in self.module.named_modules() if name and own & set(type(part).__mro__))

    def unique(self, path: str) -> str:
        """A path that is not taken yet."""
        name, i = path, 1
        while name in self._paths:
            name, i = f"{path}_{i}", i + 1
        self._paths.add(name)
        return name


def _pace(timing: Wiring) -> tuple[int, int] | None:
    """Delay and stride of a wire whose counts are that simple from the start; wires of one pace and length never wait."""
    plain = timing.plain()
    return None if plain is None or plain.lead is None else (plain.delay, plain.stride)
