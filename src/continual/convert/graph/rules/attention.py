"""Attention over time: causal, or a band."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ....layers.attention.projected import BandAttention
from ..axes import BATCH, TIME, Dims, joined_dims
from ..helper_ops import HIDDEN, distances
from ..instructions import Ref, Shape
from ..op_call import CAUSAL, Call, Misfit, Refused, rule
from ..shape_queries import LONGER
from ..values import Clocked, Const, Stream
from ..walker import Builder
from .parts import positional

FULL = "attention to all frames of the clip (bidirectional): each output would wait for the last of them"
DEPENDS = "the mask of attention depends on the stream, so it is not known which frames are seen"


@rule("aten.scaled_dot_product_attention.default", keeps_clocked=True)
def attention(b: Builder, call: Call) -> Stream:
    """Attention among the frames: a sliding band. Attention beside time stays as it is."""
    names = ("query", "key", "value")
    q, k, v = (b.beside(replace(call, args={n: call[n] for n in names}))[n] for n in names)
    streams = [s for s in (q, k, v) if isinstance(s, Stream)]
    if not any(TIME in s.dims[-2] for s in (k, v) if isinstance(s, Stream)):
        return _beside(b, call, q, k, v)
    if len(streams) < 3 or any(s.dims[-2] != (TIME,) for s in streams):
        raise Refused(
            "attention between the frames of a stream and something else",
            "self-attention with is_causal=True; or attention within a frame, or to what is no stream",
        )
    mask, causal = call.get("attn_mask"), bool(call.get("is_causal", False))
    if isinstance(mask, Stream):
        raise Refused(DEPENDS, CAUSAL)
    if mask is None and not causal:
        raise Refused(FULL, CAUSAL)
    heads, groups = b.shape(q)[-3] if len(q.dims) > 3 else 1, b.shape(k)[-3] if len(k.dims) > 3 else 1
    if heads != groups:
        k, v = (_repeated(b, call, s, heads // groups) for s in (k, v))
    return attend(b, call, (q, k, v), mask, call.get("scale"))


def attend(b: Builder, call: Call, parts: Sequence[Stream], mask: Const | Clocked | None, scale: float | None) -> Stream:
    """Attention of queries, keys and values ``(…, T, E)``.

    Args:
        b, call: the operation.
        parts: queries, keys and values.
        mask: what is added to the scores, or which of them are seen, ``(…, T, T)``; ``None`` for causal attention.
        scale: of the scores.
    """
    if any(TIME in d or (BATCH in d and i == len(s.dims) - 2) for s in parts for i, d in enumerate((*s.dims[:-2], s.dims[-1]))):
        raise Misfit("attention whose heads or channels are time", "time in dim -2 of queries, keys and values")
    q, k, v = _alike(b, call, parts)
    size, value_size = b.shape(q)[-1], b.shape(v)[-1]
    behind, ahead, row = _band(b, call, q, mask)
    rows: Dims = tuple(q.dims[:-2])
    four = [_four(b, call, s) for s in (q, k, v)]
    args = ([Ref(s.slot) for s in four], 3)
    dims = (*four[0].dims[:3], (2 * size + value_size,))
    joined = b.local(call, dims, four[0], target="aten.cat.default", args=args, kwargs={}, inputs=four)
    layer = BandAttention(behind, ahead, size, value_size, scale, row is not None)
    given = {} if row is None else {"bias": row}
    y = b.layer(call, joined, layer, four[2].dims, weights=given, label=f"attention −{behind} … +{ahead}")
    out = (*rows, (TIME,), v.dims[-1])
    if out == y.dims:
        return y
    return b.local(call, out, y, target="aten.reshape.default", args=(Ref(y.slot), Shape(out)), kwargs={}, inputs=[y])


def _alike(b: Builder, call: Call, parts: Sequence[Stream]) -> list[Stream]:
    """Aligned, and with the same rows and heads."""
    streams = b.aligned(call, parts)
    rows = joined_dims([s.dims[:-2] for s in streams])
    if rows is None or not any(BATCH in d for d in rows):
        raise Misfit("attention of queries, keys and values whose heads do not fit", "reshape them")
    found = []
    for s in streams:
        dims = (*rows, *s.dims[-2:])
        args = (Ref(s.slot), Shape(dims))
        found.append(
            s if dims == s.dims else b.local(call, dims, s, target="aten.expand.default", args=args, kwargs={}, inputs=[s])
        )
    return found


def _four(b: Builder, call: Call, s: Stream) -> Stream:
    """As ``(rows, heads, T, E)``."""
    rows = s.dims[:-2]
    first = next(i for i, d in enumerate(rows) if BATCH in d)
    if len(rows) == 2 and not first:
        return s
    if first:
        raise Misfit("attention whose rows do not come first", "(B, heads, T, E)")
    heads = math.prod(int(f) for d in rows[1:] for f in d)
    dims = (rows[0], (heads,) if heads != 1 else (), *s.dims[-2:])
    return b.local(call, dims, s, target="aten.reshape.default", args=(Ref(s.slot), Shape(dims)), kwargs={}, inputs=[s])


def _repeated(b: Builder, call: Call, s: Stream, times: int) -> Stream:
    """With as many heads as the queries have."""
    at = len(s.dims) - 3
    dims = (*s.dims[:at], (b.shape(s)[at] * times,), *s.dims[at + 1 :])
    args = (Ref(s.slot), times, at)
    return b.local(call, dims, s, target="aten.repeat_interleave.self_int", args=args, kwargs={}, inputs=[s])


def _beside(b: Builder, call: Call, q: Stream | Const, k: Stream | Const, v: Stream | Const) -> Stream:
    """Attention within each frame, or from each frame to what is no stream."""
    mask, frames = call.get("attn_mask"), TIME in q.dims[-2]
    if (
        isinstance(mask, Clocked)
        or (frames and call.get("is_causal"))
        or (frames and mask is not None and b.shape(mask)[-2] != 1)
    ):
        raise Refused(
            "the mask of attention to what is no stream is another one for each frame", "a mask that is the same for all frames"
        )
    if any(BATCH in d for s in (q, k, v) for d in s.dims[-2:]) or any(TIME in s.dims[-1] for s in (q, k, v)):
        raise Misfit("attention among the rows of the batch, or over channels that are time", "(B, heads, tokens, channels)")
    rows = joined_dims([s.dims[:-2] for s in (q, k, v)])
    if rows is None:
        raise Misfit("attention of queries, keys and values whose heads do not fit", "reshape them")
    given = {"query": q, "key": k, "value": v}
    return positional(b, call, given, (*rows, q.dims[-2], v.dims[-1]))


def _band(b: Builder, call: Call, q: Stream, mask: Const | Clocked | None) -> tuple[int, int, Const | None]:
    """How far each query looks back and ahead, and what is added to its scores for each distance."""
    size = b.length(q.wire).now
    note = f"causal attention over the {size} frames of a clip; in a stream over a sliding window of as many"
    if mask is None:
        b.window_note(call, note)
        return size - 1, 0, None
    fixed = _for_all_rows(b, b.for_example(mask))
    behind, ahead, row = read_band(fixed.value, size)
    if behind == size - 1 and isinstance(mask, Clocked):  # the example may be too short to show where the band ends
        longer, more = _for_all_rows(b, b.for_example(mask, LONGER)), b.length(q.wire).values[LONGER]
        found = read_band(longer.value, more)
        if found[0] < more - 1:
            fixed, (behind, ahead, row) = longer, found
    if behind == size - 1 and size > 1:
        b.window_note(call, note)
    if bool((row == 0).all()):
        return behind, ahead, None
    if not b.learned(fixed):
        return behind, ahead, b.constant(f"{call.node.name}.bias", row)
    return behind, ahead, b.const("helper_ops:band_row", [fixed, behind, ahead])


def _for_all_rows(b: Builder, mask: Const) -> Const:
    """A mask without the dimension of rows, ``(B, H, T, T)``, for which it has to be the same."""
    if len(mask.dims) != 4:
        return mask
    if not torch.equal(mask.value, mask.value[:1].expand_as(mask.value)):
        raise Refused("a mask of attention that is another one for each row of the batch", CAUSAL)
    return b.const("aten.select.int", [mask, 0, 0])


def read_band(mask: Tensor, size: int) -> tuple[int, int, Tensor]:
    """A mask ``(…, T, T)`` that says the same for every query, by the distance of the key.

    Returns:
        How many tokens before and after it a query sees, and what is added to their scores.
    """
    if mask.ndim not in (2, 3) or mask.shape[-2:] != (size, size):
        raise Misfit(f"a mask of attention of the shape {tuple(mask.shape)} for {size} frames", CAUSAL)
    scores = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else mask
    scores = scores.masked_fill(scores <= HIDDEN, -torch.inf)
    row = distances(scores)
    i = torch.arange(size)
    apart = scores if scores.ndim == 3 else scores.unsqueeze(0)
    if not torch.equal(row[:, (i - i.unsqueeze(1)) + size - 1], apart):
        raise Refused("a mask that is not the same for every frame (seen from the frame)", CAUSAL)
    seen = (row > -torch.inf).any(0).nonzero().flatten()
    if not seen.numel():
        raise Refused("a mask that hides all frames", CAUSAL)
    behind, ahead = max(0, size - 1 - int(seen.min())), max(0, int(seen.max()) - (size - 1))
    if ahead == size - 1 and size > 1:
        raise Refused(FULL, CAUSAL)
    return behind, ahead, row[:, size - 1 - behind : size + ahead]
