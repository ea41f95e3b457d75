"""Matrices ``(T, T)`` of weights by distance, applied to the frames of the clip: filters that a module writes as a product."""

from __future__ import annotations

from collections.abc import Sequence

from ..axes import BATCH, TIME
from ..op_call import OpCall
from ..rule_context import RuleContext
from ..values import LengthDependent, Scores, Stream, Value
from .scores import attention_of, combined


def product_over_time(ctx: RuleContext, call: OpCall, x: Value, y: Value) -> Stream | None:
    """``weights @ y`` and ``x @ weights`` of weights ``(T, T)`` that follow from the length of the clip; ``None`` for other products."""
    if isinstance(y, Stream):
        return _filtered(ctx, call, x, y)
    if not isinstance(x, Stream) or len(x.dims) < 3 or x.dims[-1] != (TIME,) or not _is_of_pairs(ctx, y, x):
        return None
    swapped = [*range(len(x.dims) - 2), -1, -2]
    found = _filtered(ctx, call, _transposed(ctx, call, y), ctx.emit.permute(call, x, swapped))
    return None if found is None else ctx.emit.permute(call, found, swapped)


def _filtered(ctx: RuleContext, call: OpCall, weights: Value, x: Stream) -> Stream | None:
    """``weights @ x`` for ``x`` ``(…, T, E)``: attention whose products of queries and keys are 1."""
    if len(x.dims) < 3 or x.dims[-2] != (TIME,) or not _is_of_pairs(ctx, weights, x):
        return None
    ones = ctx.emit.filled(call, (*x.dims[:-1], ()), x, 1.0, x.dtype)
    return attention_of(ctx, call, Scores(ones, ones, x.dims[:-2], x.dtype, gate=weights), x)  # type: ignore[arg-type]


def _transposed(ctx: RuleContext, call: OpCall, weights: Value) -> Value:
    return combined(ctx, call, "aten.t.default", self=weights)


def filtered_by_einsum(ctx: RuleContext, call: OpCall) -> Stream | None:
    """The same by einsum, ``"ts,bsc->btc"``."""
    left, _, right = str(call["equation"]).replace(" ", "").partition("->")
    terms, operands = left.split(","), call.sequence("tensors")
    own = next((i for i, v in enumerate(operands) if isinstance(v, Stream)), None)
    if own is None or len(operands) != 2 or "." in left or not right:
        return None
    x, term, pair = operands[own], terms[own], terms[1 - own]
    if not isinstance(x, Stream) or len(pair) != 2 or not _is_of_pairs(ctx, operands[1 - own], x):
        return None
    weights, query, key = operands[1 - own], pair[0], pair[1]
    if key in right:
        weights, query, key = _transposed(ctx, call, weights), key, query
    rows = [c for c, d in zip(term, x.dims, strict=True) if BATCH in d]
    rest = [c for c in term if c not in (*rows, key)]
    if key not in term or query in term or x.dims[term.index(key)] != (TIME,) or sorted(right) != sorted([*rows, query, *rest]):
        return None
    inside = ctx.emit.permute(call, x, [term.index(c) for c in (*rows, key, *rest)])
    y = _filtered(ctx, call, weights, _one_channel(ctx, call, inside, len(rows) + 1))
    if y is None:
        return None
    y = ctx.emit.reshape(call, y, (*y.dims[:-1], *inside.dims[len(rows) + 1 :]))
    return ctx.emit.permute(call, y, [[*rows, query, *rest].index(c) for c in right])


def _one_channel(ctx: RuleContext, call: OpCall, x: Stream, start: int) -> Stream:
    """The dimensions from one on as one."""
    if len(x.dims) == start + 1:
        return x
    if len(x.dims) == start:
        return ctx.emit.unsqueeze(call, x, start)
    return ctx.emit.reshape(call, x, (*x.dims[:start], tuple(f for d in x.dims[start:] for f in d)))


def _is_of_pairs(ctx: RuleContext, weights: Value, x: Stream) -> bool:
    """Whether a tensor has a number for each pair of frames of a stream, for clips of any length."""
    if not isinstance(weights, LengthDependent):
        return False
    lengths: Sequence[int] = ctx.shapes.length(x.wire).values
    return all(ctx.lengths.concrete(weights, i).shape == (lengths[i], lengths[i]) for i in (0, 3))
