"""Attention that a module writes itself: queries times keys, masks, softmax, times values. The walk follows the scores symbolically."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..axes import BATCH, TIME, Dim, Dims, joined_dims, regrouped, size_of
from ..helper_ops import HIDDEN
from ..op_call import BANDED, CAUSAL, COMPARES, OpCall, Refused, as_stream, hint
from ..rule_context import RuleContext, score_rule
from ..values import Const, LengthDependent, NotStreamed, Scores, Size, Stream, SymScalar, Value, as_number, leaves, streams_of
from .attention import attend
from .elementwise import refuse_dropout
from .key_masks import DEPENDS
from .masks import FULL, Mask
from .retention import retain

MULTIPLIES = "multiplies the scores of attention by a number for each pair of frames, before a softmax"
ADD = "a mask that is added: 0 or -inf"


def scores_of(ctx: RuleContext, call: OpCall, x: Value, y: Value) -> Scores | None:
    """The scores that ``x @ y`` gives, if it is ``q @ k.transpose(-2, -1)``."""
    if not (isinstance(x, Stream) and isinstance(y, Stream)) or min(len(x.dims), len(y.dims)) < 3:
        return None
    if x.dims[-2] != (TIME,) or y.dims[-1] != (TIME,):
        return None
    if any(TIME in d for d in (*x.dims[:-2], x.dims[-1], *y.dims[:-1])) or BATCH in x.dims[-1]:
        return None
    rows = joined_dims([x.dims[:-2], y.dims[:-2]])
    return None if rows is None else Scores(x, _transposed(ctx, call, y), rows, x.dtype)


def _transposed(ctx: RuleContext, call: OpCall, x: Stream) -> Stream:
    """The last two dimensions exchanged."""
    return ctx.emit.permute(call, x, [*range(len(x.dims) - 2), -1, -2])


def lost(call: OpCall, reason: str = "", remedy: str = "") -> NotStreamed:
    """A result that is not followed; it may be unused."""
    return NotStreamed((), torch.get_default_dtype(), reason or f"`{call.op}` {COMPARES}", remedy or BANDED)


def combined(ctx: RuleContext, call: OpCall, name: str, /, **args: Value) -> Mask:
    """An operation on masks."""
    if any(isinstance(v, LengthDependent) or (isinstance(v, Size) and v.varies) for v in leaves([*args.values()])):
        return LengthDependent(call.node, name, args, tuple(args))
    return ctx.emit.const(name, list(args.values()))


def _value(ctx: RuleContext, mask: Mask) -> torch.Tensor:
    """A mask for the example."""
    return ctx.lengths.constant(mask).value


def _pair(call: OpCall) -> tuple[Scores, Value]:
    """The scores, and the other operand."""
    x, y = [v for n, v in call.args.items() if n not in ("alpha", "rounding_mode", "beta")][:2]
    if isinstance(x, Scores):
        return x, y
    return as_scores(y), x


def as_scores(value: Value) -> Scores:
    """Attention scores.

    Raises:
        TypeError: the value is none.
    """
    if not isinstance(value, Scores):
        raise TypeError(f"expected attention scores, got {type(value).__name__}")
    return value


def _number(ctx: RuleContext, value: Value) -> float | None:
    """A number, also one in a tensor of one element that does not change."""
    if isinstance(value, (Size, SymScalar)):
        return ctx.shapes.real(value)
    if isinstance(value, Const) and value.value.numel() == 1 and not ctx.origin.can_change(value):
        return float(value.value)
    return float(value) if isinstance(value, (int, float)) else None


# ---- scale and masks ----------------------------------------------------------------------------------------------------


@score_rule("mul", "div")
def scaled(ctx: RuleContext, call: OpCall) -> Value:
    """A scale, a temperature, a factor for each query or key, or one for each pair of frames."""
    s, other = _pair(call)
    if s.weights or isinstance(other, Scores) or call.get("rounding_mode"):
        return lost(call)
    if call.op == "div" and not isinstance(call["self"], Scores):
        return lost(call)
    number, name = _number(ctx, other), f"aten.{call.op}.Tensor"
    if number is not None:
        number = 1.0 / number if call.op == "div" else number
        bias = s.bias if s.bias is None else combined(ctx, call, "aten.mul.Scalar", self=s.bias, other=number)
        if s.cap is not None:
            return replace(s, cap=s.cap * number, bias=bias)
        return replace(s, scale=s.scale * number, bias=bias)
    if s.cap is not None:
        return lost(call)
    if isinstance(other, Stream):
        return _scaled_by_frames(ctx, call, s, other)
    if not isinstance(other, (Const, LengthDependent)):
        return lost(call)
    shape = tuple(_value(ctx, other).shape[-2:])
    if s.bias is not None and shape in ((), (1,), (1, 1)):  # one factor for each head
        s = replace(s, bias=combined(ctx, call, name, self=s.bias, other=other))
    elif s.bias is not None:
        return lost(call, MULTIPLIES, ADD)
    if not shape or shape[-1] == 1:  # for each query, or for all
        return replace(s, query=as_stream(ctx.apply(call.other(name, self=s.query, other=other))))
    if len(shape) == 1 or shape[0] == 1:
        if len(shape) == 1:
            other = combined(ctx, call, "aten.unsqueeze.default", self=other, dim=0)
        column = combined(ctx, call, "aten.transpose.int", self=other, dim0=-1, dim1=-2)
        return replace(s, key=as_stream(ctx.apply(call.other(name, self=s.key, other=column))))
    other = combined(ctx, call, "aten.to.dtype", self=other, dtype=s.dtype)
    return _weighed(ctx, call, s, other if call.op == "mul" else combined(ctx, call, "aten.reciprocal.default", self=other))


@score_rule("tanh")
def capped(ctx: RuleContext, call: OpCall) -> Value:
    """A soft cap, which bounds the scores."""
    s = as_scores(call["self"])
    plain = s.bias is None and s.gate is None and s.cap is None and not s.weights
    return replace(s, cap=1.0) if plain else lost(call)


def _scaled_by_frames(ctx: RuleContext, call: OpCall, s: Scores, other: Stream) -> Value:
    """Scores times one number for each query, or each key: these are scaled instead."""
    name, last = f"aten.{call.op}.Tensor", other.dims[-2:]
    if s.bias is None and len(last) == 2 and not last[1]:
        return replace(s, query=as_stream(ctx.apply(call.other(name, self=s.query, other=other))))
    if s.bias is None and len(last) == 2 and not last[0]:
        return replace(s, key=as_stream(ctx.apply(call.other(name, self=s.key, other=_transposed(ctx, call, other)))))
    return lost(call, DEPENDS, CAUSAL)


def _weighed(ctx: RuleContext, call: OpCall, s: Scores, factors: Mask) -> Scores:
    """Scores times a number for each pair of frames more."""
    return replace(s, gate=factors if s.gate is None else combined(ctx, call, "aten.mul.Tensor", self=s.gate, other=factors))


@score_rule("tril", "triu")
def cut(ctx: RuleContext, call: OpCall) -> Value:
    """Scores on one side of a diagonal; the others are 0."""
    s = as_scores(call["self"])
    if s.weights or s.bias is not None:
        return lost(call)
    size = ctx.shapes.length(s.query.wire)
    ones = LengthDependent(
        call.node, "aten.ones.default", {"size": [size, size], "dtype": s.dtype}, ("size",), frozenset({"dtype"})
    )
    return _weighed(ctx, call, s, combined(ctx, call, f"aten.{call.op}.default", self=ones, diagonal=call.get("diagonal", 0)))


@score_rule("sum")
def summed(ctx: RuleContext, call: OpCall) -> Value:
    """The sum over all keys, by which linear attention is normalised: the weighed sum of ones."""
    s = as_scores(call["self"])
    rank = len(s.rows) + 2
    if s.weights or s.transposed or [d % rank for d in call.integers("dim")] != [rank - 1]:
        return lost(call)
    ones = ctx.emit.filled(call, (*s.key.dims[:-1], ()), s.key, 1.0, s.key.dtype)
    y = attention_of(ctx, call, s, ones)
    return y if call.get("keepdim") else ctx.emit.squeeze(call, y, [len(y.dims) - 1])


@score_rule("add", "sub")
def biased(ctx: RuleContext, call: OpCall) -> Value:
    """A mask, or a bias for each distance."""
    s, other = _pair(call)
    if isinstance(other, Stream):
        return lost(call, DEPENDS, CAUSAL)
    if s.weights or isinstance(other, Scores) or (call.op == "sub" and not isinstance(call["self"], Scores)):
        return lost(call)
    if _number(ctx, other) is not None:
        return s
    if not isinstance(other, (Const, LengthDependent)):
        return lost(call)
    return _plus(ctx, call, s, other, as_number(call.get("alpha", 1)) * (-1 if call.op == "sub" else 1))


def _plus(ctx: RuleContext, call: OpCall, s: Scores, other: Mask, factor: float) -> Scores:
    """Scores with a bias more, times a factor."""
    if factor != 1:
        other = combined(ctx, call, "aten.mul.Scalar", self=other, other=factor)
    return replace(s, bias=other if s.bias is None else combined(ctx, call, "aten.add.Tensor", self=s.bias, other=other))


@score_rule("masked_fill", "where")
def hidden(ctx: RuleContext, call: OpCall) -> Value:
    """Scores of keys that a query does not see."""
    if call.op == "where":
        s, filled = (call["self"], call["other"]) if isinstance(call["self"], Scores) else (call["other"], call["self"])
        mask, inverted = call["condition"], s is call["self"]
    else:
        s, mask, filled, inverted = call["self"], call["mask"], call["value"], False
    if not isinstance(s, Scores) or not isinstance(mask, (Const, LengthDependent)):
        return lost(call, DEPENDS, CAUSAL)
    value = _number(ctx, filled)
    if value == 0 and not s.weights and s.bias is None:
        keep = mask if inverted else combined(ctx, call, "aten.logical_not.default", self=mask)
        return _weighed(ctx, call, s, combined(ctx, call, "aten.to.dtype", self=keep, dtype=s.dtype))
    if isinstance(filled, (Const, LengthDependent)) and value is None:
        values = _value(ctx, filled)
        value = float(values.max()) if values.numel() else None
    if inverted:
        mask = combined(ctx, call, "aten.logical_not.default", self=mask)
    if s.weights:
        wanted = _value(ctx, mask).bool()
        known = _value(ctx, s.bias) <= HIDDEN if s.bias is not None else torch.zeros((), dtype=torch.bool)
        return s if value == 0 and not bool((wanted & ~known).any()) else lost(call)
    if value is None or value > HIDDEN:
        return lost(
            call, f"fills scores of attention with {value}, which does not hide them", "-inf, or torch.finfo(x.dtype).min"
        )
    mask = combined(ctx, call, "aten.to.dtype", self=mask, dtype=torch.bool)
    name, bias = ("aten.where.Scalar", 0.0) if s.bias is None else ("aten.where.ScalarSelf", s.bias)
    fill = torch.finfo(torch.float32).min if value > -torch.inf and any(streams_of(mask)) else -torch.inf
    return replace(s, bias=combined(ctx, call, name, condition=mask, self=fill, other=bias))


@score_rule("softmax", "_softmax", "_safe_softmax")
def softmax(ctx: RuleContext, call: OpCall) -> Value:
    """The weights of the keys."""
    s = as_scores(call["self"])
    rank = len(s.rows) + 2
    if s.weights or call.dim(rank) != rank - 1:
        return lost(call, "softmax over time sees the whole clip", "softmax over the keys of causal attention")
    if s.gate is not None:
        if not bool(((closed := _value(ctx, s.gate)) == 0).logical_or(closed == 1).all()):
            return lost(call, MULTIPLIES, ADD)
        s = replace(s, bias=_gated(ctx, call, s, s.gate), gate=None)
    return replace(s, weights=True, dtype=ctx.emit.dtype(call))


# ---- layout -------------------------------------------------------------------------------------------------------------


@score_rule("to", "_to_copy", "type_as", "clone", "contiguous", "alias", "detach", "dropout", "nan_to_num", "float")
def passed_on(ctx: RuleContext, call: OpCall) -> Value:
    """Operations that do not change the scores."""
    if call.op == "dropout":
        refuse_dropout(call)
    return call.get("self", call.get("input"))


@score_rule("transpose", "permute", "mT", "swapaxes", "swapdims")
def transposed(ctx: RuleContext, call: OpCall) -> Value:
    """Keys and queries change places."""
    s = as_scores(call["self"])
    rank = len(s.rows) + 2
    if call.op == "permute":
        swaps = [d % rank for d in call.integers("dims")] == [*range(rank - 2), rank - 1, rank - 2]
    else:
        dims = sorted(int(as_number(v)) % rank for n, v in call.args.items() if n != "self")
        swaps = dims in ([], [rank - 2, rank - 1])
    if not swaps:
        return lost(call)
    if s.weights:
        return replace(s, transposed=not s.transposed)
    swapped = {"dim0": -1, "dim1": -2}
    bias, gate = (v if v is None else combined(ctx, call, "aten.transpose.int", self=v, **swapped) for v in (s.bias, s.gate))
    return replace(s, query=s.key, key=s.query, bias=bias, gate=gate)


@score_rule("view", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "flatten", "unflatten")
def reshaped(ctx: RuleContext, call: OpCall) -> Value:
    """Rows and heads are merged or split."""
    s = as_scores(call["self"])
    shape = [hint(n) for n in call.node.meta["val"].shape]
    size = ctx.shapes.length(s.query.wire).now
    rows = regrouped(s.rows, shape[:-2], ctx.shapes.batches[0], size) if shape[-2:] == [size, size] else None
    if rows is None:
        return lost(call)
    bias, gate = (v if v is None else _regrouped(ctx, call, v, s.rows, rows) for v in (s.bias, s.gate))
    q, k = (_with_rows(ctx, call, v, s.rows, rows) for v in (s.query, s.key))
    return replace(s, query=q, key=k, rows=rows, bias=bias, gate=gate)


def _regrouped(ctx: RuleContext, call: OpCall, mask: Mask, before: Dims, after: Dims) -> Mask:
    """A mask with rows and heads in another layout; without them, where it is the same for all."""
    shape = _value(ctx, mask).shape
    if all(n == 1 for n in shape[:-2]):
        for _ in shape[:-2]:
            mask = combined(ctx, call, "aten.select.int", self=mask, dim=0, index=0)
        return mask
    full, wanted = ([_rows_of(ctx, d) for d in dims] for dims in (before, after))
    mask = combined(ctx, call, "aten.expand.default", self=mask, size=[*full, -1, -1])
    return combined(ctx, call, "aten.reshape.default", self=mask, shape=[*wanted, *_last_two(ctx, mask)])


def _rows_of(ctx: RuleContext, dim: Dim) -> Value:
    """The size of a dimension of rows and heads, for all sample lengths."""
    return Size(tuple(size_of(dim, rows, 1) for rows in ctx.shapes.batches))


def _last_two(ctx: RuleContext, mask: Mask) -> list[Value]:
    """The sizes of a mask's dimensions of queries and keys, for all sample lengths."""
    rank = len(_value(ctx, mask).shape)
    return [ctx.lengths.size(mask, rank - 2), ctx.lengths.size(mask, rank - 1)]


def _with_rows(ctx: RuleContext, call: OpCall, s: Stream, before: Dims, rows: Dims) -> Stream:
    """A stream with rows and heads in another layout."""
    full = (*before, *s.dims[-2:])
    s = s if full == s.dims else ctx.emit.expand(call, s, full, [s], s)
    return ctx.emit.reshape(call, s, (*rows, *s.dims[-2:]))


# ---- weighted values ----------------------------------------------------------------------------------------------------


@score_rule("matmul", "bmm")
def product(ctx: RuleContext, call: OpCall) -> Value:
    """The weighted values: attention."""
    x, y = list(call.args.values())[:2]
    if isinstance(x, Scores) and isinstance(y, Stream) and not x.transposed:
        return attention_of(ctx, call, x, y)
    if isinstance(y, Scores) and isinstance(x, Stream) and y.transposed:  # (…, C, T) @ weights.mT
        return _transposed(ctx, call, attention_of(ctx, call, y, _transposed(ctx, call, x)))
    return lost(call)


def attention_of(ctx: RuleContext, call: OpCall, s: Scores, v: Stream) -> Stream:
    """Attention with these weights and values ``(…, T, E)``."""
    if len(v.dims) < 3 or v.dims[-2] != (TIME,):
        raise Refused(f"`{call.op}` {COMPARES}", BANDED)
    mask = s.bias if s.weights else s.gate
    if mask is None:
        raise Refused(FULL, CAUSAL)
    if s.weights:
        narrower = torch.finfo(s.dtype).bits < torch.finfo(s.query.dtype).bits
        return attend(ctx, call, (s.query, s.key, v), mask, s.scale, s.dtype if narrower else None, s.cap)
    if s.bias is not None or s.cap is not None:
        raise Refused(f"`{call.op}` {COMPARES}", BANDED)
    return retain(ctx, call, (s.query, s.key, v), mask, s.scale)


def _gated(ctx: RuleContext, call: OpCall, s: Scores, gate: Mask) -> Mask:
    """The mask of scores that are multiplied by zeros and ones, where a large negative number is added to the zeros."""
    closed = _value(ctx, gate) == 0
    if s.bias is None or bool(((_value(ctx, s.bias) > HIDDEN) & closed).any()):
        raise Refused("scores of attention are multiplied by 0, which does not hide them", "a mask that is added: 0 or -inf")
    zero = combined(ctx, call, "aten.eq.Scalar", self=gate, other=0)
    return combined(ctx, call, "aten.where.ScalarSelf", condition=zero, self=-torch.inf, other=s.bias)


@score_rule("baddbmm")
def added(ctx: RuleContext, call: OpCall) -> Value:
    """Weighted values and something else."""
    return lost(call)


def masked_product(ctx: RuleContext, call: OpCall, s: Scores, mask: Value) -> Value:
    """``baddbmm(mask, q, k.mT)``: scores and a mask."""
    alpha, beta = as_number(call.get("alpha", 1)), as_number(call.get("beta", 1))
    s = replace(s, scale=s.scale * alpha)
    if not isinstance(mask, (Const, LengthDependent)):
        return lost(call, DEPENDS, CAUSAL)
    return s if beta == 0 else _plus(ctx, call, s, mask, beta)
