"""From an exported graph to a program: every node is looked at once, by the rule of its operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node as Fx

from ..rows import Refusal
from .call import (
    APART,
    BANDED,
    COMPARES,
    KEEPS_CLOCKED,
    ON_SCORES,
    RANDOM,
    RULES,
    Call,
    Misfit,
    NoRule,
    Refused,
    Rule,
    Source,
    exchanged,
    hint,
    leaves,
)
from .decomposition import paired, taken_apart
from .enquiry import Reduced
from .layout import BATCH, TIME, fixed, where
from .mutation import Mutations
from .program import Home, Shape, resolve
from .refusing import Refusing, operation
from .stand_ins import SUMS
from .values import STILL, Clocked, Const, Fragment, Scores, Size, Stream, Unknown, Value, Varying

NUMBER = ("_local_scalar_dense", "item")
POOLING = (
    'co.continual(…, time_pooling="window") for a sliding window of the example\'s length, or time_pooling="frame" for each frame alone; '
    "the twin is then another function than the module"
)
WINDOWS = (
    "the same over the last n frames, F.pad(x, (n - 1, 0)).unfold(time, n, 1) and then over its last dimension; this changes what the "
    "module computes on clips too"
)


def rule_of(name: str) -> Rule | None:
    """The rule of an operation."""
    found = RULES.get(name) or RULES.get(name.rpartition(".")[0])
    if found is None and torch.Tag.pointwise in getattr(resolve(name), "tags", ()):
        found = RULES["pointwise"]
    return found


def caused(value: Value, node: Fx) -> Value:
    """A value that says of what can't be streamed where it comes from."""
    if isinstance(value, list):
        return [caused(v, node) for v in value]
    return replace(value, at=node) if isinstance(value, Fragment) and value.at is None else value


def settled(value: Value) -> Value:
    """A number beside windows of the clip: they are as long as the example, so it is that of the example."""
    if isinstance(value, (list, tuple)):
        return [settled(v) for v in value]
    return value.values[0] if isinstance(value, (Size, Varying)) else value


class Builder(Refusing):
    """Builds the program of an exported module."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mutations = Mutations(self)

    def run(self) -> list[Stream]:
        """Walk the graph; returns the streams that leave."""
        program = self.captured.program
        signature, streams = program.graph_signature, iter(range(len(self.captured.inputs)))
        if signature.buffers_to_mutate:
            names = ", ".join(sorted(set(signature.buffers_to_mutate.values())))
            self.refusals.append(Refusal("", "", "", f"the module changes its own buffers in forward ({names})",
                                         "keep such state out of the module: a stream has its own"))  # fmt: skip
        outputs: list[Stream] = []
        for node in program.graph.nodes:
            self.node = node
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node, signature, streams)
            elif node.op == "output":
                outputs = self._outputs(node.args[0])
            elif node.op == "call_function":
                self.values[node] = self.evaluate(node)
        return outputs

    def _placeholder(self, node: Fx, signature: Any, numbers: Any) -> Value:
        if node.name in signature.user_inputs:
            i = next(numbers)
            self.names.append(node.name)
            x, time, batch = self.captured.inputs[i], self.captured.time_dims[i], self.captured.batch_dims[i]
            dims = list(fixed(x.shape))
            if batch is not None:
                dims[batch] = (BATCH,)
            slot = self.slot()
            self.sources.append(Source(slot, "input", str(i)))
            if time is None:
                return Const(slot, tuple(dims), x) if batch is None else Stream(slot, tuple(dims), STILL, x.dtype)
            dims[time] = (TIME,)
            return Stream(slot, tuple(dims), 0, x.dtype)
        slot, program = self.slot(), self.captured.program
        if node.name in signature.inputs_to_parameters:
            name = signature.inputs_to_parameters[node.name]
            self.sources.append(Source(slot, "parameter", name))
            return self._held(slot, self.module.get_parameter(name))
        if node.name in signature.inputs_to_buffers:
            name = signature.inputs_to_buffers[node.name]
            self.sources.append(Source(slot, "buffer", name))
            return self._held(slot, self.module.get_buffer(name))
        if node.name not in signature.inputs_to_lifted_tensor_constants:  # an object that is no tensor, such as a generator
            return node.meta.get("val")
        name = signature.inputs_to_lifted_tensor_constants[node.name]
        self.tensors[name] = program.constants[name].detach()
        self.sources.append(Source(slot, "constant", name))
        return self._held(slot, self.tensors[name])

    def _held(self, slot: int, tensor: Tensor) -> Const:
        return Const(slot, fixed(tensor.shape), tensor.detach())

    def evaluate(self, node: Fx) -> Value:
        """The value of an operation; a refusal is noted, and the walk goes on with what can be guessed of it."""
        self.follows(node)
        try:
            return caused(self.mutations.evaluate(node), node)
        except Exception as error:  # a refusal, or a rule that meets what it was not made for
            value = self.settle(node, error)
            self.mutations.spoil(node, value)
            return value

    def apply_named(self, node: Fx, name: str, args: dict[str, Value], positional: tuple[str, ...]) -> Value:
        """An operation on values, by its name."""
        values, op = leaves(list(args.values())), name.split(".")[1]
        if op in RANDOM:
            raise Refused(f"`{op}` draws random numbers", "leave it out in eval mode; what is drawn once belongs in a buffer")
        if any(isinstance(v, Unknown) for v in values):
            return self.guessed(node, name, values)
        fragment = next((v for v in values if isinstance(v, Fragment)), None)
        if fragment is not None:
            return self._like_fragment(node, name, fragment)
        if any(isinstance(v, Scores) for v in values):
            return self._on_scores(Call(node, name, args, positional))
        if op in NUMBER:
            return self._number(values[0])
        clocked = any(isinstance(v, Clocked) for v in values)
        if clocked and all(v.wire == STILL for v in values if isinstance(v, Stream)):  # nothing says yet for which frames
            return Clocked(node, name, args, positional, frozenset(node.kwargs))
        if not any(isinstance(v, Stream) for v in values):
            if any(isinstance(v, Size) and v.varies for v in values):
                return Clocked(node, name, args, positional, frozenset(node.kwargs))
            return self._constant(node, name, args, positional)
        found, call = rule_of(name), Call(node, name, args, positional)
        if found is None:
            return self._in_parts(node, name, args)
        if name not in APART:
            call = self.together(call)
        if (moving := [s for s in call.streams if s.wire != STILL]) and all(s.windows for s in moving):
            call = replace(call, args={n: settled(v) for n, v in call.args.items()})
        return found(self, call if name in KEEPS_CLOCKED else self.beside(call))

    def _number(self, value: Value) -> Value:
        """A number that is taken out of a tensor: known of constants alone."""
        if isinstance(value, Const) and not self.learned(value):
            return value.value.item()
        if isinstance(value, Stream) and value.wire != STILL:
            return Fragment(
                (), value.dtype, "takes a number out of the values of the stream", "leave `.item()` out: go on with the tensor"
            )
        if isinstance(value, Clocked):
            return Fragment(
                (), torch.long, "takes a number out of a tensor that depends on the length of the clip", "x.shape[time]"
            )
        weights = isinstance(value, Const) and all(s.kind != "input" for s in self.made_of(value))
        what = "a parameter or a buffer" if weights else "an input that is no stream"
        return Fragment(
            (), torch.get_default_dtype(), f"takes a number out of {what}, whose values may be others at the next call",
            "keep the number in the module as a plain int or float, set in __init__; or go on with the tensor, without `.item()`",
        )  # fmt: skip

    def beside(self, call: Call) -> Call:
        """A call in which what depends on the clip's length is there for the frames of the streams."""
        if not any(isinstance(v, Clocked) for v in leaves(list(call.args.values()))):
            return call
        stream = next((s for s in call.streams if s.wire != STILL), call.streams[0])
        return replace(call, args={n: self._materialised(v, stream) for n, v in call.args.items()})

    def _on_scores(self, call: Call) -> Value:
        """An operation on how much each frame attends to each."""
        if (found := ON_SCORES.get(call.op)) is not None:
            return found(self, call)
        return Fragment((), self.dtype(call), f"`{call.op}` {COMPARES}", BANDED)

    def _like_fragment(self, node: Fx, name: str, like: Fragment) -> Stream | Fragment:
        source: Any = node.args[0] if node.args else None
        if name in ("aten.slice.Tensor", "aten.narrow.default") and self.values.get(source) is like:  # a part of a part
            if node.meta["val"].shape == source.meta["val"].shape:
                return like
            dim: Any = node.args[1]
            if BATCH not in like.dims[dim]:
                size = hint(node.meta["val"].shape[dim])
                return replace(like, dims=(*like.dims[:dim], fixed((size,))[0], *like.dims[dim:][1:]))
        value = {"aten.zeros_like.default": 0.0, "aten.ones_like.default": 1.0}.get(name)
        if value is None:
            raise Refused(like.reason, like.remedy, like.at)
        call = Call(node, "aten.full.default", {}, ())
        made = self.still(call, like.dims, (Shape(like.dims), value), {"dtype": like.dtype, "device": Home()}, like.dtype)
        return replace(made, fill=value)

    def _in_parts(self, node: Fx, name: str, args: dict[str, Value]) -> Value:
        """An operation without a rule: what torch makes of it, operation by operation."""
        parts = taken_apart(node, name)
        if parts is None:
            raise NoRule(name.split(".")[1].strip("_"))
        names = [a.name for a in resolve(name)._schema.arguments]  # type: ignore[attr-defined]
        given = dict(paired([*node.args], [args[n] for n in names[: len(node.args)]]))
        given |= dict(paired([*node.kwargs.values()], [args[n] for n in node.kwargs]))
        inputs = iter(node.all_input_nodes)
        for inner in parts.graph.nodes:
            if inner.op == "placeholder":
                self.values[inner] = given[next(inputs)]
            elif inner.op == "get_attr":
                self.values[inner] = self.constant(inner.name, getattr(parts, inner.target))
            elif inner.op == "call_function":
                try:
                    self.values[inner] = self.mutations.evaluate(inner)
                except NoRule:
                    raise NoRule(name.split(".")[1].strip("_")) from None
            else:
                return self.mutations.given(inner.args[0])
        return None

    def together(self, call: Call) -> Call:
        """A call whose streams have waited for each other."""
        moving = {s.slot: s for s in call.streams if s.wire != STILL}
        if 0 < sum(s.fill is None for s in moving.values()) < len(moving):
            call = self._refilled(call, moving)
            moving = {s.slot: s for s in call.streams if s.wire != STILL}
        clip_level = [s for s in moving.values() if s.windows]
        if clip_level and len(clip_level) < len(moving):
            frames = next(s for s in moving.values() if not s.windows)
            for s in clip_level:
                if self.length(s.wire).values != self.length(frames.wire).values:
                    self._met(call, self.reductions(s))
        if len({s.wire for s in moving.values()}) <= 1:
            return call
        aligned = dict(zip(moving, self.aligned(call, list(moving.values())), strict=True))
        return replace(call, args={n: exchanged(v, aligned) for n, v in call.args.items()})

    def _met(self, call: Call, makers: list[Reduced]) -> None:
        """Refuse what was made of the whole clip where it meets the clip's frames: each for itself, where it was made."""
        again = f"meets the clip's frames again, in `{call.op}`: a stream has not seen all of them"
        makers = [r for r in makers if not (operation(r.node) in SUMS and self._behind(r.node))]
        self.middle_found.update(r.node.name for r in makers if r.poolable)
        found = [Refused(f"{r.what} of the whole clip {again}", POOLING if r.poolable else WINDOWS, r.node) for r in makers]
        for refused in found[1:]:
            self.note_refusal(call.node, refused)
        raise found[0] if found else Misfit(f"a value of the whole clip {again}", WINDOWS)

    def _refilled(self, call: Call, moving: dict[int, Stream]) -> Call:
        """Streams of one value, made anew beside those that they meet, so that nothing waits for them."""
        beside = next(s for s in moving.values() if s.fill is None)
        new: dict[int, Stream] = {}
        for s in moving.values():
            if s.fill is None or s.wire == beside.wire or self.length(s.wire).values != self.length(beside.wire).values:
                continue
            new[s.slot] = self.filled(call, s.dims, beside, s.fill, s.dtype)
        return replace(call, args={n: exchanged(v, new) for n, v in call.args.items()})

    def _constant(self, node: Fx, name: str, args: dict[str, Value], positional: tuple[str, ...]) -> Value:
        """An operation on constants alone."""
        given = [args[n] for n in positional]
        kwargs = {n: v for n, v in args.items() if n not in positional}
        with torch.no_grad():
            many = resolve(name)(*(self.example(a) for a in given), **{k: self.example(v) for k, v in kwargs.items()})
        if not isinstance(many, (tuple, list)):
            made = replace(self.const(name, given, kwargs), fill=self._filled_with(name, args))
            self.origins[made.slot] = Clocked(node, name, args, positional, frozenset(node.kwargs))
            return made
        whole = self.const(name, given, kwargs)
        return [self.const("operators:item", [whole, i]) for i in range(len(many))]

    def _filled_with(self, name: str, args: dict[str, Value]) -> float | None:
        """The value of all elements of a constant, where the operation says so."""
        if name in ("aten.zeros.default", "aten.zeros_like.default"):
            return 0.0
        source = args.get("self")
        kept = name.split(".")[1] in (
            "expand",
            "unsqueeze",
            "view",
            "reshape",
            "permute",
            "transpose",
            "repeat",
            "to",
            "_to_copy",
            "clone",
        )
        return source.fill if kept and isinstance(source, Const) else None

    # ---- what leaves ------------------------------------------------------------------------------------------------

    def _outputs(self, nodes: Sequence[Any]) -> list[Stream]:
        spec = self.captured.program.call_spec.out_spec
        self.nested = spec is not None and not spec.is_leaf()
        if self.nested and spec.type not in (tuple, list):
            self.refusals.append(
                Refusal("", "output", "", f"the module returns a {spec.type.__name__}", "return a tensor, or a tuple of tensors")
            )
        outputs: list[Stream] = []
        for i, node in enumerate(nodes):
            if not isinstance(node, Fx):
                self.refusals.append(Refusal("", "output", "", f"output {i} is {node!r}", "return tensors alone"))
                continue
            try:
                outputs += self._output(i, node)
            except Refused as refused:
                self.note_refusal(node, refused, "output")
        if not self.refusals and len({o.wire for o in outputs}) > 1:
            try:
                outputs = self.aligned(Call(self.node, "aten.output.default", {}, ()), outputs)  # type: ignore[arg-type]
            except Refused as refused:
                self.refusals.append(Refusal("", "output", "", f"the outputs: {refused.reason}", refused.remedy))
        return outputs

    def _output(self, i: int, node: Fx) -> list[Stream]:
        """The stream that leaves as output ``i``; none, where that is unknown because of an earlier refusal."""
        value = self.mutations.value(node)
        if isinstance(value, Unknown):
            return []
        if isinstance(value, Scores):
            value = Fragment((), value.dtype, COMPARES, BANDED, node)
        if isinstance(value, Fragment):
            raise Refused(f"output {i}: {value.reason}", value.remedy, value.at)
        if not isinstance(value, Stream):
            raise Refused(f"output {i} does not depend on the stream", "return what does")
        at = where(value.dims, TIME)
        if not value.windows and at is not None and value.dims[at] != (TIME,):
            raise Misfit(
                f"output {i} merges time with another dimension, so chunks of it can't be joined",
                "reshape it, so that time is a dimension of its own",
            )
        return [value]
