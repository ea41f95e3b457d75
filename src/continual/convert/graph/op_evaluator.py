"""Evaluates one operation: by its rule, as a constant, or by its decomposition in torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch.fx import Node as Fx

from .axes import BATCH, with_size
from .decomposition import decomposed, paired
from .exec_context import Arg, CurrentDevice, Shape
from .instructions import resolve
from .op_call import BANDED, COMPARES, OTHER_VALUES, PLAIN_NUMBER, Merged, NoRule, OpCall, Refused, hint
from .refusals import RefusalCollector
from .rule_context import KEEPS_LENGTH_DEPENDENT, RULES, SCORE_RULES, SPECTRUM_RULES, UNALIGNED, Rule, RuleContext
from .values import STATIC, Const, LengthDependent, NotStreamed, Scores, Size, Spectrum, Stream, SymScalar, Unknown, Value, leaves

NUMBER = ("_local_scalar_dense", "item")
KEEPS_FILL = {"expand", "unsqueeze", "view", "reshape", "permute", "transpose", "repeat", "to", "_to_copy", "clone"}
RANDOM = {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "normal", "poisson",
          "multinomial", "uniform", "exponential", "rrelu_with_noise"}  # fmt: skip


def rule_of(name: str) -> Rule | None:
    """The rule of an operation."""
    found = RULES.get(name) or RULES.get(name.rpartition(".")[0])
    if found is None and torch.Tag.pointwise in getattr(resolve(name), "tags", ()):
        found = RULES["pointwise"]
    return found


def example_only(value: Value) -> Value:
    """A value used with windows of the clip. They are as long as the example, so sizes are those of the example."""
    if isinstance(value, (list, tuple)):
        return [example_only(v) for v in value]
    return value.values[0] if isinstance(value, (Size, SymScalar)) else value


class OpEvaluator:
    """Evaluates operations.

    Args:
        context: what rules work with.
        refusals: collects refusals.
        evaluate: gives the value of a node inside a decomposition.
        current: gives the current value of an argument of a node.
    """

    def __init__(
        self,
        context: RuleContext,
        refusals: RefusalCollector,
        evaluate: Callable[[Fx], Value],
        current: Callable[[object], Value],
    ):
        self._context, self._refusals, self._evaluate, self._current = context, refusals, evaluate, current

    def apply(self, call: OpCall) -> Value:
        """The value of an operation.

        Raises:
            Refused: it can't be streamed.
        """
        values, op, name = call.leaves, call.op, call.name
        if op in RANDOM:
            raise Refused(f"`{op}` draws random numbers", "leave it out in eval mode; what is drawn once belongs in a buffer")
        if any(isinstance(v, Unknown) for v in values):
            return self._refusals.guessed(call.node, name, values)
        lost = next((v for v in values if isinstance(v, NotStreamed)), None)
        if isinstance(lost, Spectrum) and (on_spectrum := SPECTRUM_RULES.get(op)) is not None:
            return on_spectrum(self._context, call)
        if lost is not None:
            return self._like_lost(call, lost)
        if any(isinstance(v, Scores) for v in values):
            return self._on_scores(self._context.free.known(call))
        if op in NUMBER:
            return self._number(values[0])
        streams, by_length = call.streams, any(isinstance(v, LengthDependent) for v in values)
        if by_length and all(s.wire == STATIC for s in streams):  # the frames that it is for are not known yet
            return _deferred(call)
        if not streams:
            return _deferred(call) if any(isinstance(v, Size) and v.varies for v in values) else self._constant(call)
        found = rule_of(name)
        try:
            value = NotImplemented if found is None else self._by_rule(found, call)
            return self._decomposed(call) if value is NotImplemented else value
        except Refused as refused:
            if (rescued := self._otherwise(call, refused)) is None:
                raise
            return rescued

    def _otherwise(self, call: OpCall, refused: Refused) -> Value:
        """The value of a refused operation that depends on no value of the streams, or for streams whose frames are taken apart."""
        if (free := self._context.free.rescued(call, refused)) is not None:
            return free
        found, finer = rule_of(call.name), self._context.groups.finer(call)
        if found is None or finer is None:
            return None
        try:
            value = self._by_rule(found, finer)
        except Refused as why:
            if isinstance(refused, Merged) and not isinstance(why, Merged):
                raise why from None
            return None
        # windows of the clip begin with whole frames
        return None if any(isinstance(v, Stream) and v.windows for v in leaves(value)) else value

    def _by_rule(self, found: Rule, call: OpCall) -> Value:
        """The result of a rule on aligned streams."""
        name = call.name
        if name not in UNALIGNED:
            call = self._context.streams.align(call)
        if (moving := [s for s in call.streams if s.wire != STATIC]) and all(s.windows for s in moving):
            call = call.with_args(**{n: example_only(v) for n, v in call.args.items()})
        if KEEPS_LENGTH_DEPENDENT.intersection((name, name.rpartition(".")[0])):
            return found(self._context, call)
        made = self._context.lengths.materialise(call)
        # what is made of the length may come on a wire of its own
        return found(self._context, made if made is call or name in UNALIGNED else self._context.streams.align(made))

    def _number(self, value: Value) -> Value:
        """A number read from a tensor. It is known only for constants."""
        origin = self._context.origin
        if isinstance(value, Const) and not origin.can_change(value):
            return value.value.item()
        if isinstance(value, Stream) and value.wire != STATIC:
            return NotStreamed(
                (), value.dtype, "takes a number out of the values of the stream", "leave `.item()` out: go on with the tensor"
            )
        if isinstance(value, LengthDependent):
            reason = "takes a number out of a tensor that depends on the length of the clip"
            return NotStreamed((), torch.long, reason, "x.shape[time]")
        weights = isinstance(value, Const) and all(s.kind != "input" for s in origin.sources_of(value))
        what = "a parameter or a buffer" if weights else "an input that is not a stream"
        return NotStreamed((), torch.get_default_dtype(), f"takes a number out of {what}, {OTHER_VALUES}", PLAIN_NUMBER)

    def _on_scores(self, call: OpCall) -> Value:
        """An operation on attention scores."""
        if (found := SCORE_RULES.get(call.op)) is not None:
            return found(self._context, call)
        return NotStreamed((), self._context.emit.dtype(call), f"`{call.op}` {COMPARES}", BANDED)

    def _like_lost(self, call: OpCall, like: NotStreamed) -> Stream | NotStreamed:
        """A constant in the shape of a result that can't be streamed, or a slice of it; any other use of it is refused."""
        if call.op in ("slice", "narrow") and call.get("self") is like:
            dim = call.dim(len(like.dims))
            if call.node.meta["val"].shape == call.node.args[0].meta["val"].shape:  # type: ignore[union-attr]
                return like
            if BATCH not in like.dims[dim]:
                return replace(like, dims=with_size(like.dims, dim, hint(call.node.meta["val"].shape[dim])))
        value = {"aten.zeros_like.default": 0.0, "aten.ones_like.default": 1.0}.get(call.name)
        if value is None:
            raise Refused(like.reason, like.remedy, like.at)
        full = OpCall(call.node, "aten.full.default", {})
        kwargs: dict[str, Arg] = {"dtype": like.dtype, "device": CurrentDevice()}
        return self._context.emit.static(full, like.dims, (Shape(like.dims), value), kwargs, like.dtype, value)

    def _decomposed(self, call: OpCall) -> Value:
        """An operation without a rule: its decomposition, operation by operation."""
        node, values = call.node, self._context.draft.values
        no_rule = NoRule(call.op.strip("_"))
        parts = decomposed(node, call.name)
        if parts is None:
            raise no_rule
        names = [a.name for a in resolve(call.name)._schema.arguments]  # type: ignore[attr-defined]
        values_of = dict(paired([*node.args], [call[n] for n in names[: len(node.args)]]))
        values_of |= dict(paired([*node.kwargs.values()], [call[n] for n in node.kwargs]))
        inputs = iter(node.all_input_nodes)
        for inner in parts.graph.nodes:
            if inner.op == "placeholder":
                values[inner] = values_of[next(inputs)]
            elif inner.op == "get_attr":
                values[inner] = self._context.emit.constant(inner.name, getattr(parts, inner.target))
            elif inner.op == "call_function":
                try:
                    values[inner] = self._evaluate(inner)
                except NoRule:
                    raise no_rule from None
            else:
                return self._current(inner.args[0])
        return None

    def _constant(self, call: OpCall) -> Value:
        """An operation on constants alone."""
        positional = [call[n] for n in call.positional]
        made = self._context.emit.consts(call.name, positional, {n: v for n, v in call.args.items() if n not in call.positional})
        if not isinstance(made, Const):
            return made
        made = replace(made, fill=_fill_of(call))
        self._context.draft.origins[made.slot] = _deferred(call)
        return made


def _deferred(call: OpCall) -> LengthDependent:
    """An operation that is evaluated where its result is used."""
    return LengthDependent(call.node, call.name, call.args, call.positional, frozenset(call.node.kwargs))


def _fill_of(call: OpCall) -> float | None:
    """The value of all elements of a constant, where the operation states one."""
    if call.name in ("aten.zeros.default", "aten.zeros_like.default"):
        return 0.0
    source = call.get("self")
    return source.fill if call.op in KEEPS_FILL and isinstance(source, Const) else None
