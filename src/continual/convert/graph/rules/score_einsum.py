"""Attention scores by einsum, and values weighed by einsum."""

from __future__ import annotations

from collections.abc import Sequence

from ..axes import TIME, joined_dims
from ..op_call import OpCall
from ..rule_context import RuleContext, score_rule
from ..values import Scores, Stream, TensorValue, Value
from .scores import as_scores, attention_of, lost


def einsum_scores(ctx: RuleContext, call: OpCall, terms: list[str], right: str, operands: Sequence[TensorValue]) -> Scores | None:
    """The scores that an einsum gives: ``"bihd,bjhd->bhij"``."""
    streams = [v for v in operands if isinstance(v, Stream)]
    if len(terms) != 2 or len(streams) != 2 or len(right) < 3:
        return None
    times = [next((c for c, d in zip(t, v.dims, strict=True) if d == (TIME,)), "") for t, v in zip(terms, streams, strict=True)]
    if "" in times or times[0] == times[1] or set(right[-2:]) != set(times):
        return None
    rows, found = right[:-2], dict[str, Stream]()
    for term, time, x in zip(terms, times, streams, strict=True):
        summed = [c for c in terms[0] if c in terms[1] and c not in right]
        if (y := _in_order(ctx, call, x, term, [*rows, time, *summed], rows)) is None:
            return None
        found[time] = _flat_from(ctx, call, y, len(rows) + 1)
    q, k = found[right[-2]], found[right[-1]]
    return Scores(q, k, q.dims[:-2], q.dtype) if joined_dims([q.dims[:-2], k.dims[:-2]]) else None


def _in_order(ctx: RuleContext, call: OpCall, x: Stream, term: str, order: Sequence[str], shared: Sequence[str]) -> Stream | None:
    """A stream in another order of its dimensions. Those of ``shared`` that it lacks have size 1: keys that all heads share."""
    lacking = [c for c in order if c not in term and c in shared]
    if sorted([*term, *lacking]) != sorted(order):
        return None
    y = ctx.emit.permute(call, x, [term.index(c) for c in order if c in term])
    for c in lacking:
        y = ctx.emit.unsqueeze(call, y, order.index(c))
    return y


def _flat_from(ctx: RuleContext, call: OpCall, x: Stream, start: int) -> Stream:
    """All dimensions from one on, merged."""
    if len(x.dims) == start + 1:
        return x
    return ctx.emit.reshape(call, x, (*x.dims[:start], tuple(f for d in x.dims[start:] for f in d)))


@score_rule("einsum")
def einsum(ctx: RuleContext, call: OpCall) -> Value:
    """Attention by einsum: ``"bhij,bjhd->bihd"``."""
    left, _, right = str(call["equation"]).replace(" ", "").partition("->")
    terms, operands = left.split(","), call.sequence("tensors")
    if "." in left or not right or len(operands) != 2 or sum(isinstance(v, Scores) for v in operands) != 1:
        return lost(call)
    at = 0 if isinstance(operands[0], Scores) else 1
    s, v, names, other = as_scores(operands[at]), operands[1 - at], terms[at], terms[1 - at]
    query, key = (names[-1], names[-2]) if s.transposed else (names[-2], names[-1])
    rest = [c for c in other if c not in names]
    order = [*names[:-2], key, *rest]
    values = _in_order(ctx, call, v, other, order, names[:-2]) if isinstance(v, Stream) and key not in right else None
    if values is None:
        return lost(call)
    y = attention_of(ctx, call, s, _flat_from(ctx, call, values, len(names) - 1))
    y = ctx.emit.reshape(call, y, (*y.dims[:-1], *values.dims[len(names) - 1 :]))
    letters = [*names[:-2], query, *rest]
    return ctx.emit.permute(call, y, [letters.index(c) for c in right])
