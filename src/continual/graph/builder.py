"""From an exported graph to a program: every node is looked at once, by the rule of its operation."""

from __future__ import annotations

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
    Refused,
    Rule,
    Source,
    exchanged,
    hint,
    leaves,
)
from .capture import module_path, source_line
from .clockwork import Clockwork
from .decomposition import paired, taken_apart
from .layout import BATCH, TIME, fixed, where
from .mutation import Mutations
from .program import Home, Op, Shape, resolve
from .values import STILL, Clocked, Const, Fragment, Scores, Size, Stream, Unknown, Value, Varying


def rule_of(name: str) -> Rule | None:
    """The rule of an operation."""
    found = RULES.get(name) or RULES.get(name.rpartition(".")[0])
    if found is None and torch.Tag.pointwise in getattr(resolve(name), "tags", ()):
        found = RULES["pointwise"]
    return found


def settled(value: Value) -> Value:
    """A number beside windows of the clip: they are as long as the example, so it is that of the example."""
    if isinstance(value, (list, tuple)):
        return [settled(v) for v in value]
    return value.values[0] if isinstance(value, (Size, Varying)) else value


class Builder(Clockwork):
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
                outputs = self._outputs([n for n in node.args[0] if isinstance(n, Fx)])
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
        name = signature.inputs_to_lifted_tensor_constants[node.name]
        self.tensors[name] = program.constants[name].detach()
        self.sources.append(Source(slot, "constant", name))
        return self._held(slot, self.tensors[name])

    def _held(self, slot: int, tensor: Tensor) -> Const:
        return Const(slot, fixed(tensor.shape), tensor.detach())

    def evaluate(self, node: Fx) -> Value:
        """The value of an operation; a refusal is noted, and the walk goes on with what can be guessed of it."""
        try:
            return self.mutations.evaluate(node)
        except Refused as refused:
            return self._refuse(node, refused.reason, refused.remedy)
        except Exception as error:  # a rule that meets what it was not made for
            what = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
            return self._refuse(node, f"its streaming rule can't take it as it is used here ({what})",
                                "write it in another way, and report it: this is a gap of the conversion")  # fmt: skip

    def _refuse(self, node: Fx, reason: str, remedy: str) -> Value:
        """Note a refusal, and give a stand-in for the result, so that what comes after it is looked at too."""
        name = str(node.target).split(".")[1] if "." in str(node.target) else getattr(node.target, "__name__", str(node.target))
        call = Call(node, f"aten.{name.strip('_')}.default", {}, ())
        path = self.unique(self.name_of(call))
        self.refusals.append(Refusal(module_path(node), name.strip("_"), source_line(node), reason, remedy, row=path))
        val = node.meta.get("val")
        given = [v for v in leaves([self.values.get(a) for a in node.all_input_nodes]) if isinstance(v, Stream)]
        slot = self.slot()
        if given:
            slots = tuple(s.slot for s in given)
            self.instructions.append(
                Op(path, name.strip("_"), source_line(node), "aten.alias.default", (), {}, slots, slot, max(given[0].wire, 0))
            )
        if isinstance(val, (list, tuple)):
            return [self._stand_in(given, slot, v) for v in val]
        return self._stand_in(given, slot, val)

    def _stand_in(self, given: list[Stream], slot: int, val: Any) -> Value:
        """What a refused operation gives, as far as it can be guessed of its shape."""
        try:
            shape = tuple(hint(s) for s in val.shape) if isinstance(val, Tensor) else ()
        except Refused:
            shape = ()
        if not given or not isinstance(val, Tensor) or len(shape) != self.rank(given[0]):
            return Unknown(shape)
        first = given[0]
        dims = tuple(d if s == t else fixed((t,))[0] for d, s, t in zip(first.dims, self.shape(first), shape, strict=True))
        whole = where(dims, TIME) is not None and where(dims, BATCH) is not None
        return Stream(slot, dims, first.wire, val.dtype, first.windows) if whole else Unknown(shape)

    def apply_named(self, node: Fx, name: str, args: dict[str, Value], positional: tuple[str, ...]) -> Value:
        """An operation on values, by its name."""
        values, op = leaves(list(args.values())), name.split(".")[1]
        if op in RANDOM:
            raise Refused(f"`{op}` draws random numbers", "leave it out in eval mode")
        if any(isinstance(v, Unknown) for v in values):
            return self._unknown(node)
        fragment = next((v for v in values if isinstance(v, Fragment)), None)
        if fragment is not None:
            return self._like_fragment(node, name, fragment)
        if any(isinstance(v, Scores) for v in values):
            return self._on_scores(Call(node, name, args, positional))
        if not any(isinstance(v, Stream) for v in values):
            if any(isinstance(v, Clocked) or (isinstance(v, Size) and v.varies) for v in values):
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

    def _unknown(self, node: Fx) -> Value:
        """The result of an operation on what a refused one gives."""
        val = node.meta.get("val")
        return [Unknown(())] * len(val) if isinstance(val, (list, tuple)) else Unknown(())

    def _like_fragment(self, node: Fx, name: str, like: Fragment) -> Stream:
        value = {"aten.zeros_like.default": 0.0, "aten.ones_like.default": 1.0}.get(name)
        if value is None:
            raise Refused(like.reason, like.remedy)
        call = Call(node, "aten.full.default", {}, ())
        made = self.still(call, like.dims, (Shape(like.dims), value), {"dtype": like.dtype, "device": Home()}, like.dtype)
        return replace(made, fill=value)

    def _in_parts(self, node: Fx, name: str, args: dict[str, Value]) -> Value:
        """An operation without a rule: what torch makes of it, operation by operation."""
        parts = taken_apart(node, name)
        if parts is None:
            raise Refused(
                f"there is no streaming rule for `{name.removeprefix('aten.').removesuffix('.default')}` yet",
                "write it with operations that are covered (docs/conversion.md lists them), or ask for it in an issue",
            )
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
                self.values[inner] = self.mutations.evaluate(inner)
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
                    makers = self._reduced.get(s.wire, ())
                    self.middle_found.update(makers)
                    what = " and ".join(sorted({f"`{name.rstrip('_0123456789')}`" for name in makers})) or "a value"
                    raise Refused(
                        f"{what} of the whole clip meets the clip's frames again, in `{call.op}`: a stream has not seen all of them",
                        'co.continual(…, time_pooling="window") for a sliding window of the example\'s length, or time_pooling="frame" '
                        "for each frame alone; the twin is then another function than the module",
                    )
        if len({s.wire for s in moving.values()}) <= 1:
            return call
        aligned = dict(zip(moving, self.aligned(call, list(moving.values())), strict=True))
        wire = next(iter(aligned.values())).wire
        self._reduced[wire] = {n for s in moving.values() for n in self._reduced.get(s.wire, ())}
        return replace(call, args={n: exchanged(v, aligned) for n, v in call.args.items()})

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

    def _outputs(self, nodes: list[Fx]) -> list[Stream]:
        spec = self.captured.program.call_spec.out_spec
        self.nested = spec is not None and not spec.is_leaf()
        if self.nested and spec.type not in (tuple, list):
            self.refusals.append(
                Refusal("", "output", "", f"the module returns a {spec.type.__name__}", "return a tensor, or a tuple of tensors")
            )
        outputs: list[Stream] = []
        for i, node in enumerate(nodes):
            value = self.mutations.value(node)
            if isinstance(value, Unknown):
                continue
            if isinstance(value, Scores):
                value = Fragment((), value.dtype, COMPARES, BANDED)
            if isinstance(value, Fragment):
                self.refusals.append(
                    Refusal(module_path(node), "output", source_line(node), f"output {i}: {value.reason}", value.remedy)
                )
                continue
            if not isinstance(value, Stream):
                self.refusals.append(Refusal("", "output", "", f"output {i} does not depend on the stream", "return what does"))
                continue
            at = where(value.dims, TIME)
            if not value.windows and at is not None and value.dims[at] != (TIME,):
                self.refusals.append(
                    Refusal("", "output", "", f"output {i} merges time with another dimension, so chunks of it can't be joined",
                            "reshape it, so that time is a dimension of its own")
                )  # fmt: skip
            outputs.append(value)
        if not self.refusals and len({o.wire for o in outputs}) > 1:
            call = Call(self.node, "aten.output.default", {}, ())  # type: ignore[arg-type]
            try:
                outputs = self.aligned(call, outputs)
            except Refused as refused:
                self.refusals.append(Refusal("", "output", "", f"the outputs: {refused.reason}", refused.remedy))
        return outputs
