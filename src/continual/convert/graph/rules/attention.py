"""Attention over time: causal, or a band."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ....layers.attention.projected import BandAttention
from ..axes import BATCH, TIME, dim_of, joined_dims, with_size
from ..helper_ops import HIDDEN, distances
from ..instructions import Ref
from ..op_call import CAUSAL, Misfit, OpCall, Refused, RowsMisfit, as_tensor
from ..rule_context import RuleContext, rule
from ..shape_queries import LONGER
from ..values import Const, LengthDependent, Stream, TensorValue, as_number
from .parts import with_streams

FULL = "attention to all frames of the clip (bidirectional): each output would wait for the last of them"
DEPENDS = "the mask of attention depends on the stream, so it is not known which frames are seen"
HEADS = "attention of queries, keys and values whose heads do not fit"


@rule("aten.scaled_dot_product_attention.default", keeps_length_dependent=True)
def attention(ctx: RuleContext, call: OpCall) -> Stream:
    """Attention between frames: a sliding band. Attention within frames stays as it is."""
    parts = ctx.lengths.materialise(OpCall(call.node, call.name, {n: call[n] for n in ("query", "key", "value")}))
    q, k, v = (as_tensor(a) for a in parts.args.values())
    if not any(TIME in s.dims[-2] for s in (k, v) if isinstance(s, Stream)):
        return _within_frames(ctx, call, q, k, v)
    streams = [s for s in (q, k, v) if isinstance(s, Stream) and s.dims[-2] == (TIME,)]
    if len(streams) < 3:
        raise Refused(
            "attention between the frames of a stream and something else",
            "self-attention with is_causal=True; or attention within a frame, or to what is no stream",
        )
    mask, causal, scale = call.get("attn_mask"), bool(call.get("is_causal", False)), call.get("scale")
    if isinstance(mask, Stream):
        raise Refused(DEPENDS, CAUSAL)
    if mask is None and not causal:
        raise Refused(FULL, CAUSAL)
    heads, groups = (ctx.shapes.shape(s)[-3] if len(s.dims) > 3 else 1 for s in streams[:2])
    if heads != groups:
        streams[1:] = [_repeated(ctx, call, s, heads // groups) for s in streams[1:]]
    known = mask if isinstance(mask, (Const, LengthDependent)) else None
    return attend(ctx, call, streams, known, None if scale is None else as_number(scale))


def attend(
    ctx: RuleContext, call: OpCall, parts: Sequence[Stream], mask: Const | LengthDependent | None, scale: float | None
) -> Stream:
    """Attention of queries, keys and values ``(…, T, E)``.

    Args:
        ctx, call: the operation.
        parts: queries, keys and values.
        mask: added to the scores, or which of them are seen, ``(…, T, T)``; ``None`` for causal attention.
        scale: of the scores.
    """
    if any(TIME in d or (BATCH in d and i == len(s.dims) - 2) for s in parts for i, d in enumerate((*s.dims[:-2], s.dims[-1]))):
        raise Misfit("attention whose heads or channels are time", "time in dim -2 of queries, keys and values")
    q, k, v = _broadcast(ctx, call, parts)
    size, value_size = ctx.shapes.shape(q)[-1], ctx.shapes.shape(v)[-1]
    behind, ahead, row = _band(ctx, call, q, mask)
    four = [_with_heads(ctx, call, s) for s in (q, k, v)]
    args, dims = ([Ref(s.slot) for s in four], 3), (*four[0].dims[:3], dim_of(2 * size + value_size))
    joined = ctx.emit.local(call, dims, four[0], target="aten.cat.default", args=args, inputs=four)
    layer = BandAttention(behind, ahead, size, value_size, scale, row is not None)
    given = {} if row is None else {"bias": row}
    y = ctx.emit.layer(call, joined, layer, four[2].dims, weights=given, label=f"attention −{behind} … +{ahead}")
    return ctx.emit.reshape(call, y, (*q.dims[:-2], (TIME,), v.dims[-1]))


def _broadcast(ctx: RuleContext, call: OpCall, parts: Sequence[Stream]) -> list[Stream]:
    """Aligned streams with the same rows and heads."""
    streams = ctx.streams.aligned(call, parts)
    rows = joined_dims([s.dims[:-2] for s in streams])
    if rows is None or not any(BATCH in d for d in rows):
        raise Misfit(HEADS, "reshape them")
    layouts = [(*rows, *s.dims[-2:]) for s in streams]
    return [s if dims == s.dims else ctx.emit.expand(call, s, dims, [s], s) for s, dims in zip(streams, layouts, strict=True)]


def _with_heads(ctx: RuleContext, call: OpCall, s: Stream) -> Stream:
    """A stream as ``(rows, heads, T, E)``."""
    rows = s.dims[:-2]
    first = next(i for i, d in enumerate(rows) if BATCH in d)
    if len(rows) == 2 and not first:
        return s
    if first:
        raise Misfit("attention whose rows do not come first", "(B, heads, T, E)")
    heads = math.prod(int(f) for d in rows[1:] for f in d)
    return ctx.emit.reshape(call, s, (rows[0], dim_of(heads), *s.dims[-2:]))


def _repeated(ctx: RuleContext, call: OpCall, s: Stream, times: int) -> Stream:
    """Keys or values of grouped attention, with as many heads as the queries."""
    at = len(s.dims) - 3
    dims = with_size(s.dims, at, ctx.shapes.shape(s)[at] * times)
    return ctx.emit.op(call, "aten.repeat_interleave.self_int", s, dims, times, at)


def _within_frames(ctx: RuleContext, call: OpCall, q: TensorValue, k: TensorValue, v: TensorValue) -> Stream:
    """Attention within each frame, or from each frame to what is no stream."""
    mask, over_frames = call.get("attn_mask"), TIME in q.dims[-2]
    other_rows = isinstance(mask, (Stream, Const)) and ctx.shapes.shape(mask)[-2] != 1
    if isinstance(mask, LengthDependent) or (over_frames and (call.get("is_causal") or other_rows)):
        raise Refused(
            "the mask of attention to what is no stream is another one for each frame", "a mask that is the same for all frames"
        )
    if any(BATCH in d for s in (q, k, v) for d in s.dims[-2:]) or any(TIME in s.dims[-1] for s in (q, k, v)):
        raise RowsMisfit("attention among the rows of the batch, or over channels that are time", "(B, heads, tokens, channels)")
    rows = joined_dims([s.dims[:-2] for s in (q, k, v)])
    if rows is None:
        raise Misfit(HEADS, "reshape them")
    return with_streams(ctx, call, {"query": q, "key": k, "value": v}, (*rows, q.dims[-2], v.dims[-1]))


# ---- masks --------------------------------------------------------------------------------------------------------------


def _band(ctx: RuleContext, call: OpCall, q: Stream, mask: Const | LengthDependent | None) -> tuple[int, int, Const | None]:
    """How far each query looks back and ahead, and what is added to its scores for each distance."""
    size = ctx.shapes.length(q.wire).now
    note = f"causal attention over the {size} frames of a clip; in a stream over a sliding window of as many"
    if mask is None:
        ctx.draft.window_note(call, note)
        return size - 1, 0, None
    fixed = _same_for_rows(ctx, ctx.lengths.constant(mask))
    behind, ahead, row = read_band(fixed.value, size)
    if behind == size - 1 and isinstance(mask, LengthDependent):  # the example may be too short to show where the band ends
        longer = _same_for_rows(ctx, ctx.lengths.constant(mask, LONGER))
        more = ctx.shapes.length(q.wire).values[LONGER]
        found = read_band(longer.value, more)
        if found[0] < more - 1:
            fixed, (behind, ahead, row) = longer, found
    if behind == size - 1 and size > 1:
        ctx.draft.window_note(call, note)
    if bool((row == 0).all()):
        return behind, ahead, None
    if not ctx.origin.can_change(fixed):
        return behind, ahead, ctx.emit.constant(f"{call.node.name}.bias", row)
    return behind, ahead, ctx.emit.const("helper_ops:band_row", [fixed, behind, ahead])


def _same_for_rows(ctx: RuleContext, mask: Const) -> Const:
    """A mask ``(B, H, T, T)`` without its batch dimension, over which it must be constant."""
    if len(mask.dims) != 4:
        return mask
    if not torch.equal(mask.value, mask.value[:1].expand_as(mask.value)):
        raise Refused("a mask of attention that is another one for each row of the batch", CAUSAL)
    return ctx.emit.const("aten.select.int", [mask, 0, 0])


def read_band(mask: Tensor, size: int) -> tuple[int, int, Tensor]:
    """Read a mask ``(…, T, T)`` that depends on the distance of query and key alone.

    Returns:
        How many tokens before and after it a query sees, and what is added to their scores.

    Raises:
        Refused: the mask depends on more than the distance, or its queries see all frames.
    """
    if mask.ndim not in (2, 3) or mask.shape[-2:] != (size, size):
        raise Misfit(f"a mask of attention of the shape {tuple(mask.shape)} for {size} frames", CAUSAL)
    scores = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else mask
    scores = scores.masked_fill(scores <= HIDDEN, -torch.inf)
    row = distances(scores)
    i = torch.arange(size)
    per_head = scores if scores.ndim == 3 else scores.unsqueeze(0)
    if not torch.equal(row[:, (i - i.unsqueeze(1)) + size - 1], per_head):
        raise Refused("a mask that is not the same for every frame (seen from the frame)", CAUSAL)
    seen = (row > -torch.inf).any(0).nonzero().flatten()
    if not seen.numel():
        raise Refused("a mask that hides all frames", CAUSAL)
    behind, ahead = max(0, size - 1 - int(seen.min())), max(0, int(seen.max()) - (size - 1))
    if ahead == size - 1 and size > 1:
        raise Refused(FULL, CAUSAL)
    return behind, ahead, row[:, size - 1 - behind : size + ahead]
