"""Attention with one output a step: a sliding band of keys and values, kept projected in rings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .attention import Attention, Heads, head_ring, in_order
from .band import alibi_row, alibi_slopes, band_attention
from .errors import ShapeMismatch
from .positional_encoding import RotaryPositionalEncoding
from .state import Call, Node, Opening, Wire, ring_frames
from .timing import Timing, Window


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

    def open(self, frame: Any, opening: Opening) -> Node:
        like = self.check(frame, opening.path)
        sizes = {"keys": self.sequence_len - 1, "values": self.sequence_len - 1, "queries": self.ahead}
        rings = {n: head_ring(like, s, self.num_heads, self.head_dim) for n, s in sizes.items() if s}
        return Node(opening, self.kind, like.resized(like.shape[0], self.embed_dim), rings)

    def projected(self, x: Wire, first: int) -> Heads:
        """Heads of the tokens from index ``first`` on, turned to their positions."""
        q, k, v = self.project(x)
        if self.rotary is not None:
            q, k = (self.rotary.turned(t.transpose(1, 2), first).transpose(1, 2) for t in (q, k))
        return q, k, v

    def attended(self, x: Wire | None, node: Node, e: int, call: Call) -> tuple[Tensor | None, int]:
        """Run a chunk of tokens ``(B, n, E)``, up to the output projection."""
        seen = node.seen
        entered = None if x is None else [t.transpose(1, 2) for t in ([x] if isinstance(x, Tensor) else x)]
        n, sent, ended = self.count(entered, node, e, call)
        q, k, v = (None, None, None) if x is None else self.projected(x, seen)
        rings = dict(zip(node.names, range(3), strict=False))
        for name, new in (("keys", k), ("values", v), ("queries", q)):
            if new is not None and name in rings:
                call.ring(node, rings[name], seen, new)
        if sent == node.sent:
            return None, ended
        first = node.sent + (0 if self.partial else self.behind)  # the token that asks first
        stop = first + sent - node.sent
        oldest = max(0, first - self.behind)
        newest = min(n, stop + self.ahead)

        def since(name: str, new: Tensor | None, a: int, b: int) -> Tensor:
            pieces = ring_frames(node.tensors[rings[name]], a, min(b, seen)) if name in rings else []
            if new is not None and b > seen:
                pieces.append(new[:, :, max(0, a - seen) : b - seen])
            return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 2)

        queries = since("queries", q, first, stop)
        keys, values = (since(name, new, oldest, newest) for name, new in (("keys", k), ("values", v)))
        return self.banded(queries, keys, values, first - oldest), ended

    def banded(self, q: Tensor, k: Tensor, v: Tensor, offset: int) -> Tensor:
        """Every query attends to its window; ``offset`` is the key of the first query's own token."""
        if self.window_mask is not None:
            return self._masked_windows(q, k, v)
        slopes = alibi_slopes(self.num_heads, q.dtype, q.device) if self.alibi else None
        return band_attention(self.attend, q, k, v, offset, self.behind, self.ahead, slopes)

    def _masked_windows(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Windows with a mask that says for each place in the window whether it is seen (whole windows only)."""
        assert self.window_mask is not None
        batch, count = q.shape[0], q.shape[2]
        k, v = (t.unfold(2, self.sequence_len, 1).permute(0, 2, 1, 4, 3).flatten(0, 1) for t in (k, v))
        y = self.attend(q.transpose(1, 2).flatten(0, 1).unsqueeze(2), k, v, self.window_mask[self.behind].view(1, 1, 1, -1))
        return y.view(batch, count, -1)

    def attended_step(self, x: Wire, node: Node, call: Call) -> Tensor | None:
        """Run one step ``(B, E)``, up to the output projection."""
        seen, size = node.seen, self.sequence_len - 1
        emits = seen >= node.delay
        call.ticks.append((node, seen + 1, node.sent + emits))
        x = x.unsqueeze(1) if isinstance(x, Tensor) else [t.unsqueeze(1) for t in x]
        q, k, v = self.projected(x, seen)
        keys, values = k, v
        if size:
            rings = node.memo
            if rings is None:
                rings = node.memo = [t.transpose(1, 2) for t in node.tensors]
            position = seen % size
            call.slots.append((rings[0].select(2, position), k.squeeze(2)))
            call.slots.append((rings[1].select(2, position), v.squeeze(2)))
            if self.ahead:
                place = rings[2].select(2, seen % self.ahead)
                call.slots.append((place, q.squeeze(2)))
                q = place.unsqueeze(2)  # still the query of `ahead` steps ago
            if emits:
                keys, values = (self._window(ring, seen, new) for ring, new in ((rings[0], k), (rings[1], v)))
        if not emits:
            return None
        return self.attend(q, keys, values, self._step_mask(keys, seen)).squeeze(1)

    def _window(self, ring: Tensor, seen: int, new: Tensor) -> Tensor:
        """The newest tokens, in the order of time where a mask or a slope needs it."""
        size = ring.shape[2]
        if seen < size:
            return torch.cat((ring.narrow(2, 0, seen), new), 2)
        if not self.alibi and self.window_mask is None:
            return torch.cat((ring, new), 2)
        return in_order(ring, seen, new, 2)

    def _step_mask(self, keys: Tensor, seen: int) -> Tensor | None:
        if self.window_mask is not None:
            return self.window_mask[self.behind].view(1, 1, 1, -1)
        if not self.alibi:
            return None
        return alibi_row(self.num_heads, keys.shape[2], self.ahead, keys.dtype, keys.device)

    def advance(self, x: Wire | None, node: Node, e: int, call: Call) -> tuple[Tensor | None, int]:
        tokens = x if x is None else x.transpose(1, 2) if isinstance(x, Tensor) else [t.transpose(1, 2) for t in x]
        y, ended = self.attended(tokens, node, e, call)
        return (None if y is None else self.leave(y).transpose(1, 2)), ended

    def advance_step(self, x: Wire, node: Node, call: Call) -> Tensor | None:
        y = self.attended_step(x, node, call)
        return None if y is None else self.leave(y)

    def attended_windows(self, x: Wire) -> Tensor:
        """All outputs of clips as tokens ``(B, n, E)``, up to the output projection."""
        q, k, v = self.projected(x, 0)
        count = k.shape[2]
        if q.shape[2] != count:
            raise ShapeMismatch(f"{type(self).__name__}: queries and keys come together, got {q.shape[2]} and {count} of them")
        if self.partial:
            return self.banded(q, k, v, 0)
        if count < self.sequence_len:
            raise ShapeMismatch(
                f"{type(self).__name__}: a clip of {count} tokens is shorter than its window of {self.sequence_len}"
            )
        return self.banded(q[:, :, self.behind : count - self.ahead], k, v, self.behind)
