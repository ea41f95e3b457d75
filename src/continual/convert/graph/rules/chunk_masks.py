"""Attention in chunks: each frame sees its whole chunk and a number of chunks before it, as in streaming speech recognition.

Such a mask is another one for each place in a chunk. Chunks are taken together, and each sees the frames of its window by one table.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..axes import Dims, dim_of, with_dim
from ..end_lengths import fitted
from ..exec_context import Ref
from ..helper_ops import mask_rows
from ..op_call import OpCall
from ..rule_context import RuleContext
from ..time_layers import UnfoldTime
from ..values import Const, LengthDependent, Stream
from .masks import Mask, for_longer, of_all_rows, rounding_of
from .padding import pad_time


@dataclass(frozen=True)
class Chunks:
    """A mask of chunks.

    Attributes:
        size: frames in a chunk, ``c``.
        behind: chunks that a frame sees before its own, ``n``.
        table: what is added to the scores, ``(1 or H, c, (n + 1) · c)``, where ``-inf`` hides a key.
        whole_past: whether a frame sees all chunks before its own, in a clip of the example's length.
    """

    size: int
    behind: int
    table: Tensor
    whole_past: bool

    def fits(self, added: Tensor, rounding: float) -> bool:
        """Whether it is what a mask ``(1 or H, T, T)`` adds, as far as its windows go."""
        frames = added.shape[-1]
        i = torch.arange(frames).unsqueeze(1)
        place = torch.arange(frames) - (i // self.size - self.behind) * self.size
        inside = (place >= 0) & (place < self.table.shape[-1])
        expected = self.table[:, i % self.size, place.clamp(0, self.table.shape[-1] - 1)]
        same = (expected == added) | ((expected - added).abs() <= rounding)
        return bool((same | ~inside).all()) and (self.whole_past or not bool((added[:, ~inside] > -math.inf).any()))


def chunks_of(ctx: RuleContext, q: Stream, mask: Mask) -> Chunks | None:
    """A mask as one of chunks; ``None`` if it is another one.

    Args:
        q: the queries.
        mask: any shape that broadcasts to the scores.
    """
    masks = [of_all_rows(ctx, mask, q, 0)]
    if isinstance(mask, LengthDependent) and (longer := for_longer(ctx, q, mask)) is not None:
        masks.append(longer[0])
    if any(map(ctx.origin.can_change, masks)):
        return None
    added = [mask_rows(m.value, range(m.value.shape[-1])) for m in masks]
    found = _read(added[-1], added[0].shape[-1])
    fits = found is not None and all(found.fits(a, rounding_of(m.value)) for a, m in zip(added, masks, strict=True))
    return found if fits else None


def _read(added: Tensor, example: int) -> Chunks | None:
    """The chunks of a mask, as its last whole chunk has them.

    Args:
        added: what it adds, for clips that may be longer than the example.
        example: frames of the example.
    """
    seen, frames = (added > -math.inf).any(0), added.shape[-1]
    i, last = torch.arange(frames), frames - 1 - seen.flip(-1).int().argmax(-1)
    size = int(last[0]) + 1
    if not 1 < size < frames or not torch.equal(last, ((i // size + 1) * size).clamp(max=frames) - 1):
        return None
    behind, group = int((i // size - seen.int().argmax(-1) // size).max()), frames // size - 1
    whole = behind == (frames - 1) // size
    behind = min((example - 1) // size, group) if whole else behind
    if group < behind:
        return None
    table = added[:, group * size : (group + 1) * size, (group - behind) * size : (group + 1) * size]
    return Chunks(size, behind, table, whole)


def in_chunks(ctx: RuleContext, call: OpCall, parts: Sequence[Stream], chunks: Chunks, scale: float | None) -> Stream:
    """Attention with a mask of chunks.

    Args:
        ctx, call: the operation.
        parts: queries, keys, values and perhaps what is added for each key, ``(B, H, T, E)``.
        chunks: the mask.
        scale: of the scores.
    """
    emit, (q, _, v), size = ctx.emit, parts[:3], chunks.size
    if chunks.whole_past:
        note = f"attention to all chunks of {size} frames before; in a stream to {chunks.behind} of them"
        ctx.draft.window_note(call, note)
    kinds = [*parts, emit.filled(call, (*q.dims[:-1], ()), q, 1.0, q.dtype)]
    widths = [ctx.shapes.shape(s)[-1] for s in kinds]
    length = ctx.shapes.length(q.wire)
    x = _joined(ctx, call, kinds, (*q.dims[:-1], dim_of(sum(widths))))
    whole = length.combine(operator.add, size - 1).combine(operator.floordiv, size).combine(operator.mul, size)
    x = fitted(ctx, call, x, whole, "pads the end") or x
    own = _windows(ctx, call, _part(ctx, call, x, 0, widths[0]), size, size)
    rest = _part(ctx, call, x, widths[0], sum(widths[1:]))
    rest = pad_time(ctx, call, rest, (chunks.behind * size, 0), "constant", 0.0) if chunks.behind else rest
    rest = _windows(ctx, call, rest, (chunks.behind + 1) * size, size)
    own, rest = ctx.streams.aligned(call, [own, rest])
    at = [sum(widths[1:i]) for i in range(1, len(widths) + 1)]
    key, value = (_part(ctx, call, rest, a, n) for a, n in zip(at[:2], widths[1:3], strict=True))
    mask = _mask(ctx, call, [_part(ctx, call, rest, a, 1) for a in at[2:-1]], chunks)
    dims = (*own.dims[:-1], v.dims[-1])
    own, key, value, mask = (_as_rows(ctx, call, s) for s in (own, key, value, mask))
    args = Ref(own.slot), Ref(key.slot), Ref(value.slot), Ref(mask.slot), 0.0, False
    target = "aten.scaled_dot_product_attention.default"
    kwargs = {} if scale is None else {"scale": scale}
    inputs = [own, key, value, mask]
    y = emit.local(call, (*own.dims[:-1], dims[-1]), own, target=target, args=args, kwargs=kwargs, inputs=inputs, dtype=q.dtype)
    y = emit.permute(call, emit.reshape(call, y, (dims[0], dims[2], dims[1], *dims[3:])), [0, 2, 1, 3, 4])
    merged = emit.reshape(call, y, (*dims[:2], (*dims[2], *dims[3]), dims[-1]))
    y = ctx.groups.apart(call, merged) or merged
    return fitted(ctx, call, y, length, "cuts the end") or y


def _joined(ctx: RuleContext, call: OpCall, parts: Sequence[Stream], dims: Dims) -> Stream:
    """Streams side by side in their last dimension."""
    args = [Ref(s.slot) for s in parts], len(dims) - 1
    return ctx.emit.local(call, dims, parts[0], target="aten.cat.default", args=args, inputs=parts, dtype=parts[0].dtype)


def _part(ctx: RuleContext, call: OpCall, x: Stream, start: int, count: int) -> Stream:
    """Some of the last dimension."""
    dims = with_dim(x.dims, len(x.dims) - 1, dim_of(count))
    return ctx.emit.op(call, "aten.slice.Tensor", x, dims, len(dims) - 1, start, start + count, dtype=x.dtype)


def _windows(ctx: RuleContext, call: OpCall, x: Stream, size: int, step: int) -> Stream:
    """Windows of frames: ``(B, H, T, E)`` becomes ``(B, H, T // step, size, E)``."""
    label = f"{size} frames, {step} apart"
    y = ctx.emit.layer(call, x, UnfoldTime(size, step), (*x.dims, dim_of(size)), label=label)
    return ctx.emit.permute(call, y, [0, 1, 2, 4, 3])


def _as_rows(ctx: RuleContext, call: OpCall, x: Stream) -> Stream:
    """Chunks among the rows: ``(B, H, T, n, E)`` becomes ``(B · T, H, n, E)``, as kernels of attention take it."""
    y = ctx.emit.permute(call, x, [0, 2, 1, 3, 4])
    return ctx.emit.reshape(call, y, ((*y.dims[0], *y.dims[1]), *y.dims[2:]))


def _mask(ctx: RuleContext, call: OpCall, columns: Sequence[Stream], chunks: Chunks) -> Stream:
    """The mask of each window, ``(B, H, T, c, (n + 1) · c)``.

    Args:
        columns: what is added for each key, if anything is, and marks of the frames that exist, ``(B, H, T, (n + 1) · c, 1)``.
    """
    emit = ctx.emit
    rows = [emit.permute(call, s, [0, 1, 2, 4, 3]) for s in columns]
    *added, there = rows
    gone = emit.op(call, "aten.eq.Scalar", there, there.dims, 0, dtype=torch.bool)
    own = added[0] if added else emit.op(call, "aten.zeros_like.default", there, there.dims, dtype=there.dtype)
    args = Ref(own.slot), Ref(gone.slot), -math.inf
    hidden = emit.local(call, own.dims, own, target="aten.masked_fill.Scalar", args=args, inputs=[own, gone], dtype=own.dtype)
    table = _table(ctx, call, chunks)
    dims = (*hidden.dims[:3], dim_of(chunks.size), hidden.dims[-1])
    return emit.op(call, "helper_ops:plus_table", hidden, dims, Ref(table.slot), dtype=hidden.dtype)


def _table(ctx: RuleContext, call: OpCall, chunks: Chunks) -> Const:
    """What the mask adds, ``(1 or H, 1, c, (n + 1) · c)``."""
    return ctx.emit.constant(f"{call.node.name}.chunks", chunks.table.unsqueeze(1))
