"""Attention over time: causal, or a band."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from ....core.module import CoModule
from ....layers.attention.projected import BandAttention
from ..axes import BATCH, TIME, dim_of, joined_dims, with_size
from ..exec_context import Ref
from ..op_call import CAUSAL, Misfit, OpCall, Refused, RowsMisfit, as_tensor
from ..rule_context import RuleContext, rule
from ..values import Const, LengthDependent, Stream, TensorValue, as_number
from .chunk_masks import Chunks, chunks_of, in_chunks
from .key_masks import DEPENDS, apart
from .masks import DIFFERS, FULL, SAME, Mask, band_of, of_all_frames
from .parts import with_streams

SPILLS = "a frame of which all keys are hidden becomes a mean over all hidden frames of the clip"
SPILLED = (
    "-inf for what is beyond the band: masked_fill(~band, -torch.inf) after the mask of the keys; or boolean masks, joined by &"
)
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
            "self-attention with is_causal=True; or attention within a frame, or to what is not a stream",
        )
    mask, causal, scale = ctx.free.known(call).get("attn_mask"), bool(call.get("is_causal", False)), call.get("scale")
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
    ctx: RuleContext,
    call: OpCall,
    parts: Sequence[Stream],
    mask: Mask | None,
    scale: float | None,
    softmax: torch.dtype | None = None,
    cap: float | None = None,
) -> Stream:
    """Attention of queries, keys and values ``(…, T, E)``.

    Args:
        ctx, call: the operation.
        parts: queries, keys and values.
        mask: added to the scores, or which of them are seen, ``(…, T, T)``; ``None`` for causal attention.
        scale: of the scores.
        softmax: the type of the softmax, if not that of the scores.
        cap: of the scores, where they are ``cap · tanh(scores)``.
    """
    mask, keys = apart(ctx, call, mask, parts[0])
    joined = joined_heads(ctx, call, [*parts, *([] if keys is None else [keys.added])])
    q, _, v = joined[:3]
    size, value_size = ctx.shapes.shape(q)[-1], ctx.shapes.shape(v)[-1]
    try:
        behind, ahead, row = _band(ctx, call, q, mask)
    except Refused:
        chunks = None if mask is None or softmax is not None or cap is not None else chunks_of(ctx, q, mask)
        if chunks is None or (keys is not None and keys.spills):
            raise
        return _in_chunks(ctx, call, joined, chunks, scale)
    if keys is not None and keys.spills and behind + 1 < ctx.shapes.length(q.wire).now:
        raise Refused(SPILLS, SPILLED)
    layer = BandAttention(behind, ahead, size, value_size, scale, row is not None, softmax, keys is not None, cap)
    weights = {} if row is None else {"bias": row}
    return in_heads(ctx, call, joined, layer, weights, f"attention −{behind} … +{ahead}")


def joined_heads(ctx: RuleContext, call: OpCall, parts: Sequence[Stream]) -> list[Stream]:
    """Queries, keys and values ``(…, T, E)``, aligned, with the same rows and heads."""
    if any(TIME in d or (BATCH in d and i == len(s.dims) - 2) for s in parts for i, d in enumerate((*s.dims[:-2], s.dims[-1]))):
        raise Misfit("attention whose heads or channels are time", "time in dim -2 of queries, keys and values")
    return _broadcast(ctx, call, parts)


def in_heads(
    ctx: RuleContext, call: OpCall, parts: Sequence[Stream], layer: CoModule, weights: Mapping[str, TensorValue], label: str
) -> Stream:
    """A layer that takes queries, keys and values (and marks of keys) side by side, ``(B, H, n, 2E + V)``."""
    q, v = parts[0], parts[2]
    width = sum(ctx.shapes.shape(s)[-1] for s in parts)
    four = [_with_heads(ctx, call, s) for s in parts]
    args, dims = ([Ref(s.slot) for s in four], 3), (*four[0].dims[:3], dim_of(width))
    joined = ctx.emit.local(call, dims, four[0], target="aten.cat.default", args=args, inputs=four, dtype=q.dtype)
    y = ctx.emit.layer(call, joined, layer, four[2].dims, weights=weights, label=label)
    return ctx.emit.reshape(call, y, (*q.dims[:-2], (TIME,), v.dims[-1]))


def _in_chunks(ctx: RuleContext, call: OpCall, parts: Sequence[Stream], chunks: Chunks, scale: float | None) -> Stream:
    """Attention by chunks of frames, in the layout of the queries."""
    q, v = parts[0], parts[2]
    y = in_chunks(ctx, call, [_with_heads(ctx, call, s) for s in parts], chunks, scale)
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
    if len(rows) == 1 and rows[0][0] == BATCH:
        rows = ((BATCH,), rows[0][1:])
    if BATCH not in rows[0]:
        raise Misfit("attention whose rows do not come first", "(B, heads, T, E)")
    heads = math.prod(int(f) for d in rows[1:] for f in d)
    return ctx.emit.reshape(call, s, (rows[0], dim_of(heads), *s.dims[-2:]))


def _repeated(ctx: RuleContext, call: OpCall, s: Stream, times: int) -> Stream:
    """Keys or values of grouped attention, with as many heads as the queries."""
    at = len(s.dims) - 3
    dims = with_size(s.dims, at, ctx.shapes.shape(s)[at] * times)
    return ctx.emit.op(call, "aten.repeat_interleave.self_int", s, dims, times, at)


def _within_frames(ctx: RuleContext, call: OpCall, q: TensorValue, k: TensorValue, v: TensorValue) -> Stream:
    """Attention within each frame, or from each frame to tensors that are not streams."""
    mask, over_frames = call.get("attn_mask"), TIME in q.dims[-2]
    if isinstance(mask, LengthDependent) or (over_frames and isinstance(mask, Const)):
        mask = of_all_frames(ctx, mask, len(q.dims))
        call = call.with_args(attn_mask=mask)
    other_rows = isinstance(mask, Stream) and ctx.shapes.shape(mask)[-2] != 1
    if over_frames and (call.get("is_causal") or other_rows):
        raise Refused(DIFFERS, SAME)
    if any(BATCH in d for s in (q, k, v) for d in s.dims[-2:]) or any(TIME in s.dims[-1] for s in (q, k, v)):
        raise RowsMisfit("attention among the rows of the batch, or over channels that are time", "(B, heads, tokens, channels)")
    rows = joined_dims([s.dims[:-2] for s in (q, k, v)])
    if rows is None:
        raise Misfit(HEADS, "reshape them")
    return with_streams(ctx, call, {"query": q, "key": k, "value": v}, (*rows, q.dims[-2], v.dims[-1]))


# ---- masks --------------------------------------------------------------------------------------------------------------


def _band(ctx: RuleContext, call: OpCall, q: Stream, mask: Mask | None) -> tuple[int, int, Const | None]:
    """How far each query looks back and ahead, and what is added to its scores for each distance."""
    size = ctx.shapes.length(q.wire).now
    note = f"causal attention over the {size} frames of a clip; in a stream over a sliding window of as many"
    if mask is None:
        ctx.draft.window_note(call, note)
        return size - 1, 0, None
    band = band_of(ctx, q, mask)
    behind, ahead, row = band.behind, band.ahead, band.row
    if band.whole_past:
        ctx.draft.window_note(call, note)
    if bool((row == 0).all()):
        return behind, ahead, None
    if not ctx.origin.can_change(band.mask):
        return behind, ahead, ctx.emit.constant(f"{call.node.name}.bias", row)
    return behind, ahead, ctx.emit.const("helper_ops:band_row", [band.mask, behind, ahead])
