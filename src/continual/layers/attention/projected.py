"""Attention of queries, keys and values that the module has projected itself, over a sliding band of tokens."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.module import CoModule
from ...core.program.context import CallRows, KernelContext, Run
from ...core.ring_buffer import one_piece, ring_zeros, wire_frames
from ...core.state import InitContext, StateNode, StateUpdates, StepSpec
from ...core.timing import Timing, Window
from ...layers.attention.program import Band
from ..ring_views import RingViews
from .band import are_finite, band_attention


class BandAttention(CoModule):
    """Scaled dot-product attention to the tokens from ``behind`` before to ``ahead`` after each query.

    Takes queries, keys and values side by side, ``(B, H, n, 2E + V)``; gives ``(B, H, n, V)``.

    Args:
        behind: tokens before a query that it sees.
        ahead: tokens after a query that it sees.
        size: of a head's queries and keys, ``E``.
        value_size: of its values, ``V``.
        scale: of the scores; ``None``: ``E ** -0.5``.
        biased: whether :attr:`bias` is added to the scores, one value for each distance (and head): ``(1 or H, behind + ahead + 1)``.
        softmax: the type in which the module takes the softmax, where it is narrower than that of the scores.
        marked: whether a number comes behind the values, ``2E + V + 1`` in all, that is added to the key's scores: 0, or what hides it.
        cap: scores are ``cap · tanh(scores)``.
    """

    bias: Tensor | None
    nothing = -torch.inf  # the bias of a key that is not seen

    def __init__(
        self, behind: int, ahead: int, size: int, value_size: int, scale: float | None, biased: bool = False,
        softmax: torch.dtype | None = None, marked: bool = False, cap: float | None = None,
    ):  # fmt: skip
        super().__init__()
        self.behind, self.ahead, self.size, self.value_size = behind, ahead, size, value_size
        self.scale, self.biased, self.softmax, self.marked = scale, biased, softmax, marked
        self._parts, self.cap = (size, size, value_size + marked), cap
        self.register_parameter("bias", None)

    @property
    def timing(self) -> Timing:
        return Window(self.behind + self.ahead + 1, start=self.behind, end=self.ahead)

    def forward(self, input: Tensor) -> Tensor:
        """All tokens of a clip ``(B, H, T, 2E + V)``."""
        q, k, v = input.split(self._parts, 3)
        return self._attend(q, k, v, 0)

    def open(self, frame: StepSpec, init: InitContext) -> StateNode:
        batch, heads, _ = frame.shape
        rings = {"keys_values": (sum(self._parts[1:]), self.behind + self.ahead), "queries": (self.size, self.ahead)}
        tensors = {name: ring_zeros(frame.resized(batch, heads, width), depth) for name, (width, depth) in rings.items() if depth}
        return StateNode(init, self.kind, frame.resized(batch, heads, self.value_size), tensors)

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        n_in = node.n_in
        n, n_out, ended = self.count(x, node, n_if_ended, updates)
        q, kv = (None, None) if x is None else x.split((self.size, sum(self._parts[1:])), 3)
        for i, new in enumerate((kv, q)):
            if new is not None and i < len(node.tensors):
                updates.ring(node, i, n_in, new)
        if n_out == node.n_out:
            return None, ended
        first = max(0, node.n_out - self.behind)
        queries = one_piece(wire_frames(node, 1, q, n_in, node.n_out, n_out))
        window = one_piece(wire_frames(node, 0, kv, n_in, first, min(n, n_out + self.ahead)))
        keys, values = window.split(self._parts[1:], 3)
        return self._attend(queries, keys, values, node.n_out - first), ended

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor | None:
        if self.ahead:
            return cast("Tensor | None", super().advance_step(x, node, updates))
        n_in = node.n_in
        q, pair = x.split((self.size, sum(self._parts[1:])), 2)
        updates.ticks.append((node, n_in + 1, n_in + 1))
        window = pair.unsqueeze(2)
        if self.behind:
            views, place = self._views_of(node), n_in % self.behind
            updates.slots.append((views.slot(place), pair))
            if n_in >= self.behind:
                window = torch.cat((*views.parts(place), window), 2)
            elif n_in:
                window = torch.cat((node.tensors[0].narrow(1, 0, n_in).transpose(1, 2), window), 2)
        k, v = window.split(self._parts[1:], 3)
        q = q.unsqueeze(2)
        y = self._attend_biased(q, k, v, k.shape[2] - 1) if self.biased or self.marked else self.weigh(q, k, v, None)
        return y.squeeze(2)

    def _views_of(self, node: StateNode) -> RingViews:
        memo: RingViews | None = node.memo
        if memo is None:
            memo = node.memo = RingViews(node.tensors[0], self.behind + 1, 1, _as_heads)
        return memo

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, offset: int) -> Tensor:
        """Queries of which the first is key ``offset``."""
        if self.biased or self.marked:
            return self._attend_biased(q, k, v, offset)
        y = band_attention(self._merged, q, k, v, offset, self.behind, self.ahead)
        return y.unflatten(2, (q.shape[1], -1)).transpose(1, 2)

    def _merged(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return self.weigh(q, k, v, mask).transpose(1, 2).flatten(2)

    def weigh(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """The weighted values ``(B, H, n, V)``. ``mask``: where keys are seen, or what is added for them."""
        if self.softmax is None and self.cap is None:
            return F.scaled_dot_product_attention(q, k, v, mask, scale=self.scale)
        scores = q @ k.mT * (self.size**-0.5 if self.scale is None else self.scale)
        if self.cap is not None:
            scores = self.cap * scores.tanh()
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        return scores.softmax(-1, self.softmax).to(v.dtype) @ v

    def _attend_biased(self, q: Tensor, k: Tensor, v: Tensor, offset: int) -> Tensor:
        """Block by block, with a bias for each distance; what is not finite is left out, and put back where it is seen."""
        v, hidden = self._hidden(v)
        if q.shape[2] == 1 and offset <= self.behind and k.shape[2] - 1 - offset <= self.ahead and are_finite(k, v):
            return self._attend_one(q, k, v, offset, hidden)
        broken = ~(k.isfinite().all(-1) & v.isfinite().all(-1))
        k, v = (t.masked_fill(broken.unsqueeze(-1), 0.0) for t in (k, v))
        if hidden is not None:
            broken = broken & (hidden.squeeze(2) == 0)  # not in place: gradients need it as it was
        reach, block = self.behind + self.ahead + 1, max(64, self.behind + self.ahead + 1)
        row, found = self._row(q), []
        for start in range(0, q.shape[2], block):
            part = q[:, :, start : start + block]
            low = max(0, start + offset - self.behind)
            high = min(k.shape[2], start + offset + part.shape[2] + self.ahead)
            i = torch.arange(start, start + part.shape[2], device=q.device).unsqueeze(1) + offset
            distance = torch.arange(low, high, device=q.device) - i
            mask = row[:, (distance + self.behind + 1).clamp(0, reach + 1)].to(q.dtype)
            mask = mask if hidden is None else mask + hidden[..., low:high]
            y = self.weigh(part, k[:, :, low:high], v[:, :, low:high], mask)
            visible = (mask != self.nothing).to(q.dtype)
            seen = (visible @ broken[:, :, low:high].unsqueeze(-1).to(q.dtype)) > 0
            found.append(y.masked_fill(seen, torch.nan))
        return torch.cat(found, 2) if len(found) > 1 else found[0]

    def _attend_one(self, q: Tensor, k: Tensor, v: Tensor, offset: int, hidden: Tensor | None) -> Tensor:
        """One query and keys that are all in its band."""
        added = hidden
        if self.bias is not None:
            added = self.bias.narrow(1, self.behind - offset, k.shape[2]).unsqueeze(1).to(q.dtype)  # (H or 1, 1, m)
            added = added if hidden is None else added + hidden
        return self.weigh(q, k, v, added) if hidden is not None or added is None else self.weigh_one(q, k, v, added)

    def weigh_one(self, q: Tensor, k: Tensor, v: Tensor, added: Tensor) -> Tensor:
        """:meth:`weigh` for one query, with what is added for each key, ``(H or 1, 1, m)``."""
        if self.cap is not None or self.softmax is not None or q.dtype.itemsize < 4:
            return self.weigh(q, k, v, added)
        batch, heads = q.shape[:2]
        q, k, v = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
        added = added.expand(batch, heads, 1, -1).flatten(0, 1)
        scores = torch.baddbmm(added, q, k.mT, alpha=self.size**-0.5 if self.scale is None else self.scale)
        return torch.bmm(scores.softmax(-1), v).unflatten(0, (batch, heads))  # torch's own takes 1.6 to 12 times as long here

    def _hidden(self, v: Tensor) -> tuple[Tensor, Tensor | None]:
        """Values, and what is added to the scores of their keys, ``(B, H, 1, m)``."""
        if not self.marked:
            return v, None
        v, marks = v.split((self.value_size, 1), 3)
        return v, marks.mT

    def _row(self, like: Tensor) -> Tensor:
        """What is added for each distance in the band, and beyond it on both sides."""
        row = like.new_zeros(1, self.behind + self.ahead + 1) if self.bias is None else self.bias
        return F.pad(row, (1, 1), value=self.nothing)

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> int:
        return frame.shape[1] * (self.size + self.value_size) * (self.behind + self.ahead + 1)

    def program(self, ctx: KernelContext) -> Run:
        """Attention that a converted module has written itself."""
        band = Band(ctx, self.behind, self.ahead, ctx.out_schedule.first, True)
        batch, heads, _ = ctx.node.in_spec.shape
        pairs = ctx.history(
            "keys_values", ctx.node.in_spec.resized(batch, heads, sum(self._parts[1:])), band.first - ctx.in_schedule.first
        )
        queries = ctx.history(
            "queries", ctx.node.in_spec.resized(batch, heads, self.size), ctx.out_schedule.first - ctx.in_schedule.first
        )

        def run(x: Tensor, rows: CallRows) -> Tensor:
            q, kv = x.split((self.size, sum(self._parts[1:])), 3)
            q = queries.extend(rows, q)[:, :, : band.count]
            k, v = pairs.extend(rows, band.gated(rows, kv))[:, :, : band.keys].split(self._parts[1:], 3)
            v, hidden = self._hidden(v)
            mask = band.mask(rows, q)
            if self.biased or self.marked:
                row = self._row(q)
                place = (band.distances(q) + self.behind + 1).clamp(0, row.shape[-1] - 1)
                added = row[:, place].to(q.dtype)
                added = added if hidden is None else added + hidden
                mask = added if mask is None else torch.where(mask, added, self.nothing)
            return self.weigh(q, k, v, mask)

        return run


def _as_heads(pieces: list[Tensor]) -> tuple[Tensor, ...]:
    """Views ``(B, n, H, D)`` as those of heads, ``(B, H, n, D)``."""
    return tuple(p.transpose(1, 2) for p in pieces)
