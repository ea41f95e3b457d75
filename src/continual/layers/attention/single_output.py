"""Attention with one output a step: a sliding band of keys and values, kept projected in rings."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from ...core.program.context import KernelContext, Run
from ...core.ring_buffer import one_piece, ring_zeros, wire_frames
from ...core.state import InitContext, StateNode, StateUpdates, Wire
from ...core.timing import Timing, Window
from ...errors import ShapeMismatch
from ...layers.attention.program import sliding, tokens
from ..positions.encodings import RotaryPositionalEncoding
from .band import alibi_row, alibi_slopes, band_attention
from .base import Attention, in_order


class SlidingAttention(Attention):
    """Base class of attention with one output a step: the token ``ahead`` steps back attends to the newest ``sequence_len``."""

    ahead = 0
    partial = False  # whether windows reach beyond the ends of the clip
    alibi = False
    rotary: RotaryPositionalEncoding | None

    def configure(self, sequence_len: int | None = None, embed_dim_second: bool = False) -> None:
        super().configure(sequence_len, embed_dim_second)
        self.register_module("rotary", None)

    @property
    def behind(self) -> int:
        """Tokens before the query in its window."""
        return self.sequence_len - 1 - self.ahead

    @property
    def timing(self) -> Timing:
        return Window(self.sequence_len, start=self.behind, end=self.ahead) if self.partial else Window(self.sequence_len)

    def open(self, frame: Any, init: InitContext) -> StateNode:
        like = self.check(frame, init.path)
        batch, size = like.shape[0], self.embed_dim
        sizes = {"keys_values": (2 * size, self.sequence_len - 1), "queries": (size, self.ahead)}
        rings = {name: ring_zeros(like.resized(batch, width), depth) for name, (width, depth) in sizes.items() if depth}
        return StateNode(init, self.kind, like.resized(batch, size), rings)

    def placed(self, packed: Tensor, first: int) -> Tensor:
        """Queries, keys and values of the tokens from index ``first`` on, ``(B, n, 3E)``, turned to their positions."""
        if self.rotary is None:
            return packed
        turned, values = packed.split((2 * self.embed_dim, self.embed_dim), -1)
        both = turned.unflatten(2, (2 * self.num_heads, self.head_dim))
        return torch.cat((self.rotary.turned(both, first).flatten(2), values), 2)

    def attended(self, x: Wire | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        """Run a chunk of tokens ``(B, n, E)``, up to the output projection."""
        n_in, size = node.n_in, self.embed_dim
        packed = None if x is None else self.placed(self.pack(x), n_in).transpose(1, 2)
        n, n_out, ended = self.count(packed, node, n_if_ended, updates)
        queries, pairs = (None, None) if packed is None else packed.split((size, 2 * size), 1)
        for i, new in enumerate((pairs, queries)):
            if new is not None and i < len(node.tensors):
                updates.ring(node, i, n_in, new)
        if n_out == node.n_out:
            return None, ended
        first = node.n_out + (0 if self.partial else self.behind)  # the token that asks first
        stop = first + n_out - node.n_out
        oldest = max(0, first - self.behind)
        (q,) = self._since(node, 1, queries, first, stop)
        k, v = self._since(node, 0, pairs, oldest, min(n, stop + self.ahead))
        return self.banded(q, k, v, first - oldest), ended

    def _since(self, node: StateNode, index: int, new: Tensor | None, first: int, stop: int) -> tuple[Tensor, ...]:
        """What tokens ``first … stop - 1`` have brought, from a ring and from a chunk ``(B, C, n)``, as heads."""
        found = one_piece(wire_frames(node, index, new, node.n_in, first, stop)).transpose(1, 2)
        return self.split(found, found.shape[2] // self.embed_dim)

    def banded(self, q: Tensor, k: Tensor, v: Tensor, offset: int) -> Tensor:
        """Every query attends to its window; ``offset`` is the key of the first query's own token."""
        if self.window_mask is not None:
            return self._masked_windows(q, k, v)
        slopes = alibi_slopes(self.num_heads, q.dtype, q.device) if self.alibi else None
        return band_attention(self.attend, q, k, v, offset, self.behind, self.ahead, slopes)

    def _masked_windows(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Windows with a mask that says for each place in the window whether it is seen (whole windows only)."""
        batch, count = q.shape[0], q.shape[2]
        k, v = (t.unfold(2, self.sequence_len, 1).permute(0, 2, 1, 4, 3).flatten(0, 1) for t in (k, v))
        y = self.attend(q.transpose(1, 2).flatten(0, 1).unsqueeze(2), k, v, self._mask_row(self.behind))
        return y.view(batch, count, -1)

    def _attended_step(self, x: Wire, node: StateNode, updates: StateUpdates) -> Tensor | None:
        """Run one step ``(B, E)``, up to the output projection."""
        n_in, size = node.n_in, self.sequence_len - 1
        emits = n_in >= node.delay
        updates.ticks.append((node, n_in + 1, node.n_out + emits))
        packed = self.pack(x)
        if self.rotary is not None:
            packed = self.placed(packed.unsqueeze(1), n_in).squeeze(1)
        query, pair = packed.split((self.embed_dim, 2 * self.embed_dim), 1)
        ring = node.tensors[0] if size else None
        if ring is not None:
            updates.slots.append((ring.select(1, n_in % size), pair))
            if self.ahead:
                place = node.tensors[1].select(1, n_in % self.ahead)
                updates.slots.append((place, query))
                query = place  # which still holds the query of `ahead` steps ago
        if not emits:
            return None
        window = pair.unsqueeze(1) if ring is None else self._window(ring, n_in, pair)
        k, v = self.split(window, 2)
        q = query.reshape(-1, self.num_heads, 1, self.head_dim)
        return self.attend(q, k, v, self._step_mask(k)).squeeze(1)

    def _window(self, ring: Tensor, n_in: int, new: Tensor) -> Tensor:
        """What the newest tokens have brought, in the order of time where a mask or a slope needs it."""
        if n_in < ring.shape[1]:
            return torch.cat((ring[:, :n_in], new.unsqueeze(1)), 1)
        if not self.alibi and self.window_mask is None:
            return torch.cat((ring, new.unsqueeze(1)), 1)
        return in_order(ring, n_in, new)

    def _step_mask(self, keys: Tensor) -> Tensor | None:
        row = self._mask_row(self.behind)
        if row is not None or not self.alibi:
            return row
        return alibi_row(self.num_heads, keys.shape[2], self.ahead, keys.dtype, keys.device)

    def advance(self, x: Wire | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        y, ended = self.attended(self._by_token(x), node, n_if_ended, updates)
        return (None if y is None else self.leave(y).transpose(1, 2)), ended

    def advance_step(self, x: Wire, node: StateNode, updates: StateUpdates) -> Tensor | None:
        y = self._attended_step(x, node, updates)
        return None if y is None else self.leave(y)

    def _attended_windows(self, x: Wire) -> Tensor:
        """All outputs of clips as tokens ``(B, n, E)``, up to the output projection."""
        lengths = [x.shape[1]] if isinstance(x, Tensor) else [cast(Tensor, t).shape[1] for t in x]
        if len(set(lengths)) > 1:
            raise ShapeMismatch(f"{type(self).__name__}: queries, keys and values come together, got {lengths} of them")
        q, k, v = self.split(self.placed(self.pack(x), 0))
        count = k.shape[2]
        if self.partial:
            return self.banded(q, k, v, 0)
        if count < self.sequence_len:
            raise ShapeMismatch(
                f"{type(self).__name__}: a clip of {count} tokens is shorter than its window of {self.sequence_len}"
            )
        return self.banded(q[:, :, self.behind : count - self.ahead], k, v, self.behind)

    def program(self, ctx: KernelContext) -> Run:
        """One token a step."""
        attend = sliding(ctx, self, ctx)
        return lambda x, rows: self.leave(attend(tokens(x), rows)).transpose(1, 2)
