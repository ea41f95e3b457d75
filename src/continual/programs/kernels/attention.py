"""Attention in step programs: queries, keys and values that are kept, with a mask for each row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.program.context import Past, Ring, Rows, Run, Site, kernel
from ...core.state import Wire, rewire
from ...layers.attention.band import _sloped, alibi_slopes
from ...layers.attention.multihead import RetroactiveMultiheadAttention
from ...layers.attention.projected import BandAttention
from ...layers.attention.single_output import SlidingAttention
from ...layers.transformer.base import EncoderLayer, SlidingEncoderLayer
from .recurrent import angles_of, turned

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

    def __init__(self, site: Site, behind: int, ahead: int, query: int, partial: bool):
        self.site, self.behind, self.ahead, self.partial = site, behind, ahead, partial
        self.count, self.first = site.leaves.frames, query - behind  # of the keys, in call 0
        self.keys = self.count + behind + ahead

    def distances(self, like: Tensor) -> Tensor:
        """How many tokens after its query each key is, ``(queries, keys)``."""
        return (
            torch.arange(self.keys, device=like.device) - torch.arange(self.count, device=like.device).unsqueeze(1) - self.behind
        )

    def gated(self, rows: Rows, pairs: Tensor) -> Tensor:
        """Keys and values, those that are hidden as zeros: a weight of 0 makes NaN of what is not finite."""
        if not self.partial and self.count == 1:
            return pairs
        return self.site.gated(rows, pairs, 0.0, end=self.ahead > 0 or self.count > 1)

    def mask(self, rows: Rows, like: Tensor) -> Tensor | None:
        """Where a query sees a key: ``(B or 1, 1, queries, keys)``; ``None``: everywhere."""
        found: Tensor | None = None
        if self.count > 1:
            distance = self.distances(like)
            found = ((distance >= -self.behind) & (distance <= self.ahead)).view(1, 1, self.count, self.keys)
        if not self.partial:
            return found
        arrives = self.site.arrives
        index = rows.index(arrives)[:, :1] + (self.first - arrives.first) + torch.arange(self.keys, device=like.device)
        limits = [index >= 0] if self.behind else []
        if self.ahead and self.site.plan.flush:
            limits.append(index < rows.ended(self.site.before).unsqueeze(1))
        for limit in limits:
            own = limit.view(-1, 1, 1, self.keys)
            found = own if found is None else found & own
        return found


def sliding(site: Site, layer: Any, attending: Site) -> Attended:
    """The attention of a sliding layer, up to its output projection."""
    size, behind, ahead = layer.embed_dim, layer.behind, layer.ahead
    query = site.leaves.first + (0 if layer.partial else behind)
    band = Band(site, behind, ahead, query, layer.partial)
    given = site.node.given[0] if isinstance(site.node.given, list) else site.node.given
    if site.plan.fused and site.arrives.frames == band.count == 1 and not ahead and behind >= LONG:
        return _in_ring(layer, band, attending.ring("keys_values", given.resized(1, 2 * size), behind + 1))
    pairs = attending.past("keys_values", given.resized(1, 2 * size), band.first - site.arrives.first)
    queries = attending.past("queries", given.resized(1, size), query - site.arrives.first)

    project = _projection(site, layer)

    def attend(x: Wire, rows: Rows) -> Tensor:
        q, kv = project(x, rows).transpose(1, 2).split((size, 2 * size), 1)
        (q,) = layer.split(queries.extend(rows, q)[:, :, : band.count].transpose(1, 2), 1)
        k, v = layer.split(pairs.extend(rows, band.gated(rows, kv))[:, :, : band.keys].transpose(1, 2), 2)
        y: Tensor = layer.attend(q, k, v, _scores(layer, band, rows, q))
        return y

    return attend


def _projection(site: Site, layer: Any) -> Callable[[Wire, Rows], Tensor]:
    """What makes queries, keys and values of tokens, side by side ``(B, n, 3E)``, turned to their positions."""
    if layer.rotary is None:
        return lambda x, rows: layer.pack(x)
    angles = angles_of(layer.rotary, site)

    def project(x: Wire, rows: Rows) -> Tensor:
        both, values = layer.pack(x).split((2 * layer.embed_dim, layer.embed_dim), -1)
        heads = both.unflatten(2, (2 * layer.num_heads, layer.head_dim))
        return torch.cat((turned(layer.rotary, angles, heads, rows.index(site.arrives)).flatten(2), values), 2)

    return project


def _in_ring(layer: Any, band: Band, ring: Ring) -> Attended:
    """One query a call, to all keys of a ring: they are read where they lie, in whatever order that is."""
    size, depth, project = layer.embed_dim, ring.depth, _projection(band.site, layer)

    def attend(x: Wire, rows: Rows) -> Tensor:
        q, kv = project(x, rows).split((size, 2 * size), 2)
        kept = ring.push(rows, band.gated(rows, kv.transpose(1, 2)).squeeze(2))
        (q,) = layer.split(q, 1)
        k, v = layer.split(kept, 2)
        index = rows.index(band.site.arrives)
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


def _scores(layer: Any, band: Band, rows: Rows, like: Tensor) -> Tensor | None:
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


@kernel(SlidingAttention)
def sliding_attention(site: Site) -> Run:
    """One token a step."""
    layer: Any = site.module
    attend = sliding(site, layer, site)
    return lambda x, rows: layer.leave(attend(tokens(x), rows)).transpose(1, 2)


def windows(site: Site, layer: Any, attending: Site) -> Attended:
    """The attention of all tokens of each window to all of it, up to the output projection: ``(B, W, L, E)``."""
    given = site.node.given[0] if isinstance(site.node.given, list) else site.node.given
    past = attending.past("projected", given.resized(1, 3 * layer.embed_dim), site.leaves.first - site.arrives.first)

    def attend(x: Wire, rows: Rows) -> Tensor:
        packed = past.extend(rows, layer.pack(x).transpose(1, 2))
        found = packed.unfold(2, layer.sequence_len, 1)[:, :, : site.leaves.frames].permute(0, 2, 3, 1)  # (B, W, L, 3E)
        q, k, v = layer.split(found.flatten(0, 1))
        y: Tensor = layer.attend(q, k, v, layer.window_mask)
        return y.unflatten(0, (-1, site.leaves.frames))

    return attend


@kernel(RetroactiveMultiheadAttention)
def retroactive(site: Site) -> Run:
    """The whole window with every step."""
    layer: Any = site.module
    attend = windows(site, layer, site)
    return lambda x, rows: layer.leave(attend(tokens(x), rows)).permute(0, 3, 1, 2)


@kernel(EncoderLayer)
def encoder_layer(site: Site) -> Run:
    """Attention, the residual connection whose tokens wait, and the feed-forward part."""
    layer: Any = site.module
    if layer.on_windows:
        return lambda x, rows: layer.on_frames(x)
    within = Site(site.plan, layer.heads, site.node.kids[0])
    if isinstance(layer, SlidingEncoderLayer):
        attend = sliding(site, layer.heads, within)
        first = site.leaves.first + (0 if layer.heads.partial else layer.heads.behind)
        past = site.past("tokens", site.node.given, first - site.arrives.first)

        def run(x: Tensor, rows: Rows) -> Tensor:
            attended = attend(layer.before(x.transpose(1, 2)), rows)
            own = past.extend(rows, x)[:, :, : site.leaves.frames]
            y: Tensor = layer.after(own.transpose(1, 2), attended)
            return y.transpose(1, 2)

        return run
    return _retroactive_layer(site, layer, windows(site, layer.heads, within))


def _retroactive_layer(site: Site, layer: Any, attend: Attended) -> Run:
    past: Past = site.past("tokens", site.node.given, site.leaves.first - site.arrives.first)

    def run(x: Tensor, rows: Rows) -> Tensor:
        attended = attend(layer.before(x.transpose(1, 2)), rows)
        own = past.extend(rows, x).unfold(2, layer.sequence_len, 1)[:, :, : site.leaves.frames].permute(0, 2, 3, 1)
        y: Tensor = layer.after(own, attended)
        return y.permute(0, 3, 1, 2)

    return run


@kernel(BandAttention)
def band_attention(site: Site) -> Run:
    """Attention that a converted module has written itself."""
    layer: Any = site.module
    band = Band(site, layer.behind, layer.ahead, site.leaves.first, True)
    batch, heads, _ = site.node.given.shape
    pairs = site.past(
        "keys_values", site.node.given.resized(batch, heads, layer.size + layer.value_size), band.first - site.arrives.first
    )
    queries = site.past("queries", site.node.given.resized(batch, heads, layer.size), site.leaves.first - site.arrives.first)

    def run(x: Tensor, rows: Rows) -> Tensor:
        q, kv = x.split((layer.size, layer.size + layer.value_size), 3)
        q = queries.extend(rows, q)[:, :, : band.count]
        k, v = pairs.extend(rows, band.gated(rows, kv))[:, :, : band.keys].split((layer.size, layer.value_size), 3)
        mask = band.mask(rows, q)
        if layer.biased:
            row = F.pad(layer.bias, (1, 1), value=-torch.inf)
            place = (band.distances(q) + layer.behind + 1).clamp(0, row.shape[-1] - 1)
            added = row[:, place].to(q.dtype)
            mask = added if mask is None else torch.where(mask, added, -torch.inf)
        return F.scaled_dot_product_attention(q, k, v, mask, scale=layer.scale)

    return run
