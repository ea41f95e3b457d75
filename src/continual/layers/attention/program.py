"""Attention in a step program: queries, keys and values that are kept, with a mask for each row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...core.program.context import CallRows, KernelContext, Ring
from ...core.state import Wire, rewire
from ..positions.encodings import angles_of, turned
from .band import _sloped, alibi_slopes

LONG = 8  # keys before a query from which a ring costs less
Attended = Any  # a function of tokens (B, n, E) and rows: what they attend to, before the output projection


def tokens(x: Wire) -> Wire:
    """Chunks ``(B, E, n)`` as tokens ``(B, n, E)``."""
    return rewire(lambda t: t.transpose(1, 2), x)


class Band:
    """Which keys the queries of a call see.

    Args:
        behind, ahead: of each query.
        query: the index of the first query of call 0.
        partial: whether windows reach beyond the ends of the clip.
    """

    def __init__(self, ctx: KernelContext, behind: int, ahead: int, query: int, partial: bool):
        self.ctx, self.behind, self.ahead, self.partial = ctx, behind, ahead, partial
        self.count, self.first = ctx.out_schedule.frames, query - behind  # of the keys, in call 0
        self.keys = self.count + behind + ahead

    def distances(self, like: Tensor) -> Tensor:
        """How many tokens after its query each key is, ``(queries, keys)``."""
        return (
            torch.arange(self.keys, device=like.device) - torch.arange(self.count, device=like.device).unsqueeze(1) - self.behind
        )

    def gated(self, rows: CallRows, pairs: Tensor) -> Tensor:
        """Keys and values, those that are hidden as zeros: a weight of 0 makes NaN of what is not finite."""
        if not self.partial and self.count == 1:
            return pairs
        return self.ctx.gated(rows, pairs, 0.0, end=self.ahead > 0 or self.count > 1)

    def mask(self, rows: CallRows, like: Tensor) -> Tensor | None:
        """Where a query sees a key: ``(B or 1, 1, queries, keys)``; ``None``: everywhere."""
        found: Tensor | None = None
        if self.count > 1:
            distance = self.distances(like)
            found = ((distance >= -self.behind) & (distance <= self.ahead)).view(1, 1, self.count, self.keys)
        if not self.partial:
            return found
        in_schedule = self.ctx.in_schedule
        index = rows.index(in_schedule)[:, :1] + (self.first - in_schedule.first) + torch.arange(self.keys, device=like.device)
        limits = [index >= 0] if self.behind else []
        if self.ahead and self.ctx.plan.flush:
            limits.append(index < rows.ended(self.ctx.before).unsqueeze(1))
        for limit in limits:
            own = limit.view(-1, 1, 1, self.keys)
            found = own if found is None else found & own
        return found


def sliding(ctx: KernelContext, layer: Any, attending: KernelContext) -> Attended:
    """The attention of a sliding layer, up to its output projection."""
    size, behind, ahead = layer.embed_dim, layer.behind, layer.ahead
    query = ctx.out_schedule.first + (0 if layer.partial else behind)
    band = Band(ctx, behind, ahead, query, layer.partial)
    in_spec = ctx.node.in_spec[0] if isinstance(ctx.node.in_spec, list) else ctx.node.in_spec
    if ctx.target.compiler_fuses and ctx.in_schedule.frames == band.count == 1 and not ahead and behind >= LONG:
        return _in_ring(layer, band, attending.ring("keys_values", in_spec.resized(1, 2 * size), behind + 1))
    pairs = attending.history("keys_values", in_spec.resized(1, 2 * size), band.first - ctx.in_schedule.first)
    queries = attending.history("queries", in_spec.resized(1, size), query - ctx.in_schedule.first)

    project = _projection(ctx, layer)

    def attend(x: Wire, rows: CallRows) -> Tensor:
        q, kv = project(x, rows).transpose(1, 2).split((size, 2 * size), 1)
        (q,) = layer.split(queries.extend(rows, q)[:, :, : band.count].transpose(1, 2), 1)
        k, v = layer.split(pairs.extend(rows, band.gated(rows, kv))[:, :, : band.keys].transpose(1, 2), 2)
        y: Tensor = layer.attend(q, k, v, _scores(layer, band, rows, q))
        return y

    return attend


def _projection(ctx: KernelContext, layer: Any) -> Callable[[Wire, CallRows], Tensor]:
    """What makes queries, keys and values of tokens, side by side ``(B, n, 3E)``, turned to their positions."""
    if layer.rotary is None:
        return lambda x, rows: layer.pack(x)
    angles = angles_of(layer.rotary, ctx)

    def project(x: Wire, rows: CallRows) -> Tensor:
        both, values = layer.pack(x).split((2 * layer.embed_dim, layer.embed_dim), -1)
        heads = both.unflatten(2, (2 * layer.num_heads, layer.head_dim))
        return torch.cat((turned(layer.rotary, angles, heads, rows.index(ctx.in_schedule)).flatten(2), values), 2)

    return project


def _in_ring(layer: Any, band: Band, ring: Ring) -> Attended:
    """One query a call, to all keys of a ring: they are read where they lie, in whatever order that is."""
    size, depth, project = layer.embed_dim, ring.depth, _projection(band.ctx, layer)

    def attend(x: Wire, rows: CallRows) -> Tensor:
        q, kv = project(x, rows).split((size, 2 * size), 2)
        kept = ring.push(rows, band.gated(rows, kv.transpose(1, 2)).squeeze(2))
        (q,) = layer.split(q, 1)
        k, v = layer.split(kept, 2)
        index = rows.index(band.ctx.in_schedule)
        older = (index - torch.arange(depth, device=kept.device)).remainder(depth)  # how many tokens ago each slot was written
        mask = (index >= older).view(-1, 1, 1, depth) if band.partial else None
        added = None
        if layer.window_mask is not None:
            added = layer.window_mask[band.behind].to(q.dtype)[band.behind - older].view(-1, 1, 1, depth)
        elif layer.alibi:
            slopes = alibi_slopes(layer.num_heads, q.dtype, q.device)
            added = -slopes.view(1, -1, 1, 1) * older.view(-1, 1, 1, depth).to(slopes.dtype)
        if added is not None:
            mask = added if mask is None else torch.where(mask, added, -torch.inf)
        y: Tensor = layer.attend(q, k, v, mask)
        return y

    return attend


def _scores(layer: Any, band: Band, rows: CallRows, like: Tensor) -> Tensor | None:
    """What is added to the scores, or where they count."""
    mask = band.mask(rows, like)
    added = None
    if layer.window_mask is not None:
        row = layer.window_mask[band.behind].to(like.dtype)
        place = (band.distances(like) + band.behind).clamp(0, row.shape[0] - 1)
        added = row[place]
    elif layer.alibi:
        added = _sloped(band.distances(like), alibi_slopes(layer.num_heads, like.dtype, like.device))
    if added is None or mask is None:
        return mask if added is None else added
    return torch.where(mask, added, -torch.inf)


def windows(ctx: KernelContext, layer: Any, attending: KernelContext) -> Attended:
    """The attention of all tokens of each window to all of it, up to the output projection: ``(B, W, L, E)``."""
    in_spec = ctx.node.in_spec[0] if isinstance(ctx.node.in_spec, list) else ctx.node.in_spec
    past = attending.frames_in_order(
        "projected", in_spec.resized(1, 3 * layer.embed_dim), ctx.out_schedule.first - ctx.in_schedule.first
    )

    def attend(x: Wire, rows: CallRows) -> Tensor:
        packed = past.extend(rows, layer.pack(x).transpose(1, 2))
        found = packed.unfold(2, layer.sequence_len, 1)[:, :, : ctx.out_schedule.frames].permute(0, 2, 3, 1)  # (B, W, L, 3E)
        q, k, v = layer.split(found.flatten(0, 1))
        y: Tensor = layer.attend(q, k, v, layer.window_mask)
        return y.unflatten(0, (-1, ctx.out_schedule.frames))

    return attend
