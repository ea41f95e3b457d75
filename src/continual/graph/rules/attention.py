"""Attention over time: causal, or a band."""

from __future__ import annotations

import torch
from torch import Tensor

from ..attention import BandAttention
from ..builder import Builder
from ..call import Call, Refused, rule
from ..layout import BATCH, TIME
from ..program import Ref
from ..values import Clocked, Const, Stream
from .elementwise import lead

CAUSAL = "is_causal=True, or a mask that is a causal band: it then looks at a window of the past"


@rule("aten.scaled_dot_product_attention.default", keeps_clocked=True)
def attention(b: Builder, call: Call) -> Stream:
    """Attention among the frames: a sliding band. Attention beside time stays as it is."""
    q, k, v = (call[n] for n in ("query", "key", "value"))
    streams = [s for s in (q, k, v) if isinstance(s, Stream)]
    if not any(TIME in s.dims[-2] for s in streams):
        return _beside(b, call, q, k, v)
    if len(streams) < 3 or any(s.dims[-2] != (TIME,) for s in streams):
        raise Refused(
            "attention between the frames of a stream and something else",
            "self-attention with is_causal=True; or attention within a frame",
        )
    if any(TIME in d or (BATCH in d and i == len(s.dims) - 1) for s in streams for i, d in enumerate((*s.dims[:-2], s.dims[-1]))):
        raise Refused("attention whose heads or channels are time", "time in dim -2 of queries, keys and values")
    behind, ahead, bias = band(b, call, q)
    if b.shape(q)[-1] != b.shape(v)[-1]:
        raise Refused("attention whose values are of another size than its keys", "heads of one size")
    parts = [_four(b, call, s) for s in (q, k, v)]
    heads = b.shape(parts[0])[1]
    parts = [_repeated(b, call, s, heads) for s in parts]
    size = b.shape(q)[-1]
    dims = (*parts[0].dims[:3], (3 * size,))
    joined = b.local(
        call, dims, parts[0], target="aten.cat.default", args=([Ref(s.slot) for s in parts], 3), kwargs={}, inputs=parts
    )
    layer = BandAttention(behind, ahead, size, call.get("scale"), bias is not None)
    given = {} if bias is None else {"bias": b.constant(f"{call.node.name}.bias", bias)}
    y = b.layer(call, joined, layer, parts[0].dims, weights=given, label=f"attention −{behind} … +{ahead}")
    if len(q.dims) == 4:
        return y
    return b.local(call, q.dims, y, target="aten.squeeze.dims", args=(Ref(y.slot), [1]), kwargs={}, inputs=[y])


def _four(b: Builder, call: Call, s: Stream) -> Stream:
    """With a dimension of heads."""
    if len(s.dims) == 4:
        return s
    if len(s.dims) != 3:
        raise Refused(f"attention on tensors of {len(s.dims)} dimensions", "(B, heads, T, E) or (B, T, E)")
    return b.local(
        call, (s.dims[0], (), *s.dims[1:]), s, target="aten.unsqueeze.default", args=(Ref(s.slot), 1), kwargs={}, inputs=[s]
    )


def _repeated(b: Builder, call: Call, s: Stream, heads: int) -> Stream:
    """With as many heads as the queries have."""
    own = b.shape(s)[1]
    if own == heads:
        return s
    dims = (s.dims[0], (heads,), *s.dims[2:])
    args = (Ref(s.slot), heads // own, 1)
    return b.local(call, dims, s, target="aten.repeat_interleave.self_int", args=args, kwargs={}, inputs=[s])


def _beside(b: Builder, call: Call, q: Stream | Const, k: Stream | Const, v: Stream | Const) -> Stream:
    """Attention within each frame: time is among the rows."""
    if isinstance(call.get("attn_mask"), Clocked):
        raise Refused("the mask of attention within a frame depends on the length of the clip", "a constant mask")
    if any(BATCH in d for s in (q, k, v) for d in s.dims[-2:]):
        raise Refused("attention among the rows of the batch", "the batch in dim 0")
    first = lead(call.streams)
    return b.local(
        call, (*q.dims[:-1], v.dims[-1]) if isinstance(q, Stream) else (*first.dims[:-2], q.dims[-2], v.dims[-1]), first
    )


def band(b: Builder, call: Call, q: Stream) -> tuple[int, int, Tensor | None]:
    """How far each query looks back and ahead, and what is added to its scores for each distance."""
    size, mask = b.length(q.wire).now, call.get("attn_mask")
    if mask is None:
        if not call.get("is_causal", False):
            raise Refused("attention to all frames of the clip: each output would wait for the last of them", CAUSAL)
        b.window_note(call, f"causal attention over the {size} frames of a clip; in a stream over a sliding window of as many")
        return size - 1, 0, None
    if isinstance(mask, Stream):
        raise Refused("the mask of attention depends on the stream", CAUSAL)
    return read_band(b, call, torch.as_tensor(b.concrete(mask)), size)


def read_band(b: Builder, call: Call, mask: Tensor, size: int) -> tuple[int, int, Tensor | None]:
    """A mask ``(…, T, T)`` that says the same for every query, by the distance of the key."""
    while mask.ndim > 3 and mask.shape[0] == 1:
        mask = mask[0]
    if mask.ndim not in (2, 3) or mask.shape[-2:] != (size, size):
        raise Refused(f"a mask of the shape {tuple(mask.shape)} for {size} frames", CAUSAL)
    scores = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else mask
    scores = scores if scores.ndim == 3 else scores.unsqueeze(0)
    row = torch.full((scores.shape[0], 2 * size - 1), -torch.inf, dtype=scores.dtype)
    row[:, size - 1 :] = scores[:, 0, :]
    row[:, :size] = scores[:, :, 0].flip(-1)
    i = torch.arange(size)
    if not torch.equal(row[:, (i - i.unsqueeze(1)) + size - 1], scores):
        raise Refused("a mask that is not the same for every frame (seen from the frame)", CAUSAL)
    seen = (row > -torch.inf).any(0).nonzero().flatten()
    behind, ahead = size - 1 - int(seen.min()), int(seen.max()) - (size - 1)
    if ahead == size - 1 and size > 1:
        raise Refused("attention to all frames of the clip: each output would wait for the last of them", CAUSAL)
    if behind < 0 or ahead < 0:
        behind, ahead = max(behind, 0), max(ahead, 0)
    if behind == size - 1:
        b.window_note(call, f"causal attention over the {size} frames of a clip; in a stream over a sliding window of as many")
    row = row[:, size - 1 - behind : size + ahead]
    return behind, ahead, None if bool((row == 0).all()) else row
