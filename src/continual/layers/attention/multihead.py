"""Attention on streams: `MultiheadAttention`, `SingleOutputMultiheadAttention`, `RetroactiveMultiheadAttention`."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ...core.io_layout import IDENTITY, MovedTime
from ...core.program.context import KernelContext, Run
from ...core.registry import option, register_builder, register_window, streaming_copy
from ...core.ring_buffer import ring_frames, ring_zeros
from ...core.state import InitContext, StateNode, StateUpdates, Wire
from ...core.timing import Timing, Window
from ...layers.attention.program import tokens, windows
from ..positions.encodings import RotaryPositionalEncoding
from .base import Attention, Heads, in_order, refuse_unbounded
from .single_output import SlidingAttention

__all__ = ["MultiheadAttention", "RetroactiveMultiheadAttention", "SingleOutputMultiheadAttention"]


class MultiheadAttention(SlidingAttention):
    """Attention of every token to a band of tokens around it: ``nn.MultiheadAttention`` with a banded mask, for ever.

    Token ``t`` attends to the ``sequence_len`` tokens ``t - sequence_len + 1 + look_ahead … t + look_ahead``, as far as the clip
    has them. Keys and values wait in rings, so a step projects one token and reads the window once.

    Args:
        embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, device, dtype: as ``torch.nn``.
        batch_first: clips are ``(N, L, E)``; with ``False`` ``(L, N, E)``.
        sequence_len: tokens in the window, the query's own and those of the look-ahead included.
        look_ahead: tokens after the query that it sees; so many steps of delay.
        embed_dim_second: clips are ``(N, E, L)``, as containers need them.
        positions: ``"alibi"``: a score falls with the distance, by a slope of the head; ``"rotary"``: queries and keys are turned
            to their positions; or a :class:`~continual.RotaryPositionalEncoding` of one head's size.

    Raises:
        ValueError: without ``sequence_len``, or with a look-ahead that the window has no room for.
        ShapeMismatch: steps of other sizes.

    Example:
        >>> attention = co.MultiheadAttention(8, 2, sequence_len=4).eval()
        >>> clip = torch.randn(3, 10, 8)
        >>> ages = torch.arange(10).unsqueeze(1) - torch.arange(10)
        >>> like = nn.MultiheadAttention(8, 2, batch_first=True)
        >>> _ = like.load_state_dict(attention.state_dict())
        >>> expected, _ = like(clip, clip, clip, attn_mask=(ages < 0) | (ages >= 4))
        >>> torch.allclose(attention(clip), expected, atol=1e-6)
        True
        >>> attention.forward_step(clip[:, 0]).shape, attention.delay
        (torch.Size([3, 8]), 0)
    """

    partial = True

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        sequence_len: int | None = None,
        look_ahead: int = 0,
        embed_dim_second: bool = False,
        positions: str | RotaryPositionalEncoding | None = None,
    ):
        own = (embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype)
        self._construct(own, sequence_len, look_ahead=look_ahead, embed_dim_second=embed_dim_second, positions=positions)

    def configure(  # type: ignore[override]
        self,
        sequence_len: int | None = None,
        look_ahead: int = 0,
        embed_dim_second: bool = False,
        positions: str | RotaryPositionalEncoding | None = None,
    ) -> None:
        """Set the band, the layout and the positions."""
        super().configure(sequence_len, embed_dim_second)
        if not 0 <= look_ahead < self.sequence_len:
            raise ValueError(f"look_ahead={look_ahead} does not fit into a window of {self.sequence_len} tokens with the query")
        self.ahead, self.positions = look_ahead, positions
        self.alibi = positions == "alibi"
        if positions == "rotary":
            self.rotary = RotaryPositionalEncoding(self.head_dim).to(self.out_proj.weight.device)
        elif isinstance(positions, RotaryPositionalEncoding):
            if positions.channels != self.head_dim:
                raise ValueError(f"positions turn {positions.channels} channels, a head has {self.head_dim}")
            self.rotary = positions
        elif positions is not None and not self.alibi:
            raise ValueError(f"positions is None, 'alibi', 'rotary' or a RotaryPositionalEncoding, not {positions!r}")

    @property
    def look_ahead(self) -> int:
        """Tokens after the query that it sees."""
        return self.ahead

    @property
    def kind(self) -> str:
        turned = self.positions if self.rotary is None else self.rotary.kind
        return f"{super().kind}, positions {turned}"

    def forward(self, query: Wire, key: Tensor | None = None, value: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """The clip computation: ``nn.MultiheadAttention`` with the band for a mask; the output alone, without weights."""
        return self.clip(self.leave(self._attended_windows(self.tokens(self.wire(query, key, value)))))


class SingleOutputMultiheadAttention(SlidingAttention):
    """Attention of one token in a sliding window to all of the window: one row of ``nn.MultiheadAttention`` a step.

    Args:
        embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, device, dtype: as ``torch.nn``.
        batch_first: clips are ``(N, L, E)``; with ``False`` ``(L, N, E)``.
        sequence_len: tokens in the window.
        query_index: which token of the window asks; -1 is the newest. Whichever it is, the window must be full first: the delay
            is ``sequence_len - 1``.
        forward_returns_attn_mask: ``forward`` returns ``(output, weights)``, weights ``(N, outputs, sequence_len)``, mean over
            heads.
        embed_dim_second: clips are ``(N, E, L)``, as containers need them.
        single_output_forward: ``forward`` gives what a stream gives, one output for every window in the clip. With ``False`` it
            is ``torch.nn``'s: every token of the clip attends to all of the clip.

    Raises:
        ValueError: without ``sequence_len``, or with a ``query_index`` outside of it.
        ShapeMismatch: steps of other sizes; a clip shorter than the window.

    Example:
        >>> attention = co.SingleOutputMultiheadAttention(8, 2, sequence_len=4).eval()
        >>> clip = torch.randn(3, 4, 8)
        >>> like = nn.MultiheadAttention(8, 2, batch_first=True)
        >>> _ = like.load_state_dict(attention.state_dict())
        >>> torch.allclose(attention.forward_steps(clip), like(clip, clip, clip)[0][:, -1:], atol=1e-6)
        True

    Source: Hedegaard, Bakhtiarnia and Iosifidis, Continual Transformers (2022), section 3.3.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = True,
        device: Any = None,
        dtype: Any = None,
        sequence_len: int | None = None,
        query_index: int = -1,
        forward_returns_attn_mask: bool = True,
        embed_dim_second: bool = False,
        single_output_forward: bool = True,
    ):
        own = (embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype)
        self._construct(
            own,
            sequence_len,
            query_index=query_index,
            forward_returns_attn_mask=forward_returns_attn_mask,
            embed_dim_second=embed_dim_second,
            single_output_forward=single_output_forward,
        )

    def configure(  # type: ignore[override]
        self,
        sequence_len: int | None = None,
        query_index: int = -1,
        forward_returns_attn_mask: bool = True,
        embed_dim_second: bool = False,
        single_output_forward: bool = True,
    ) -> None:
        """Set the window, the query and what ``forward`` returns."""
        super().configure(sequence_len, embed_dim_second)
        self.query_index = checked_index(query_index, self.sequence_len)
        self.ahead = self.sequence_len - 1 - self.query_index
        self._gives_more, self.single_output_forward = forward_returns_attn_mask, single_output_forward
        self._output_of_window = None if single_output_forward else (self.sequence_len, self.query_index)

    @property
    def forward_returns_attn_mask(self) -> bool:
        """Whether ``forward`` returns the attention weights too."""
        return self._gives_more

    def forward(self, query: Wire, key: Tensor | None = None, value: Tensor | None = None) -> Any:  # type: ignore[override]
        """One output for every window in the clip, or ``torch.nn``'s computation; with weights if so configured."""
        clip = self.wire(query, key, value)
        if not self.single_output_forward:
            return self._full_forward(clip, self._gives_more)
        x = self.tokens(clip)
        q, k, v = cast(Heads, x if isinstance(x, list) else (x, x, x))
        if {t.shape[1] for t in (q, k, v)} == {self.sequence_len}:  # one window
            return self._as_torch(q[:, self.behind].unsqueeze(1), k, v, self._mask_row(self.behind), self._gives_more)
        y = self.clip(self.leave(self._attended_windows(x)))
        return (y, self._window_weights(x)) if self._gives_more else y

    def _window_weights(self, x: Wire) -> Tensor:
        q, k, _ = self.project(x)
        windows = k.unfold(2, self.sequence_len, 1).permute(0, 2, 1, 4, 3)  # (B, W, H, L, D)
        asking = q[:, :, self.behind : q.shape[2] - self.ahead].transpose(1, 2).unsqueeze(3)
        return self.weights(asking, windows, self._mask_row(self.behind)).squeeze(2)


class WindowLayout(MovedTime):
    """Windows ``(B, E, W, L)`` of tokens and steps ``(B, E, L)``, in the layout of clips in which time is dimension 0 or 1."""

    def chunk_out(self, y: Wire) -> Wire:
        return cast(Tensor, y).permute(2, 3, 0, 1) if self.dim == 0 else cast(Tensor, y).permute(0, 2, 3, 1)

    def step_out(self, y: Wire) -> Wire:
        return cast(Tensor, y).permute(2, 0, 1) if self.dim == 0 else cast(Tensor, y).transpose(1, 2)

    def output_batch_dim(self, chunk: bool) -> int:
        return (2 if chunk else 1) if self.dim == 0 else 0


class RetroactiveMultiheadAttention(Attention):
    """Attention of all tokens in a sliding window to all: ``nn.MultiheadAttention`` on the newest tokens, with every step.

    A step returns the whole updated window, in the layout of a clip of ``sequence_len`` tokens. ``forward_steps`` stacks windows
    along the time of its layout: ``(W, L, N, E)``, with ``batch_first`` ``(N, W, L, E)``, with ``embed_dim_second``
    ``(N, E, W, L)``.

    Queries, keys and values are projected once and wait in rings. The softmax of every row is taken again, with its own maximum:
    as exact after ten million steps as after one. (Sums that are updated by adding the new and subtracting the old term cancel as
    soon as the largest term leaves. Merging kept maxima and sums is stable, but holds ``sequence_len`` times the state and was
    measured to be slower: see docs/performance.md.)

    Args:
        embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, device, dtype: as ``torch.nn``.
        batch_first: clips are ``(N, L, E)``; with ``False`` ``(L, N, E)``.
        sequence_len: tokens in the window.
        forward_returns_attn_mask: ``forward`` returns ``(output, weights)``, as ``torch.nn`` does.
        embed_dim_second: clips are ``(N, E, L)``, as containers need them.

    Raises:
        ValueError: without ``sequence_len``.
        ShapeMismatch: steps of other sizes.

    Example:
        >>> attention = co.RetroactiveMultiheadAttention(8, 2, batch_first=True, sequence_len=4).eval()
        >>> clip = torch.randn(3, 6, 8)
        >>> windows = attention.forward_steps(clip)
        >>> windows.shape, torch.allclose(windows[:, -1], attention(clip[:, -4:])[0], atol=1e-6)
        (torch.Size([3, 3, 4, 8]), True)

    Source: Hedegaard, Bakhtiarnia and Iosifidis, Continual Transformers (2022), section 3.2, for the windows; not for the update.
    """

    def _set_time_dim(self, dim: int) -> None:
        self.__dict__.update(time_dim=dim, io_layout=IDENTITY if dim == 2 else WindowLayout(dim))

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
        sequence_len: int | None = None,
        forward_returns_attn_mask: bool = True,
        embed_dim_second: bool = False,
    ):
        own = (embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype)
        self._construct(own, sequence_len, forward_returns_attn_mask=forward_returns_attn_mask, embed_dim_second=embed_dim_second)

    def configure(  # type: ignore[override]
        self, sequence_len: int | None = None, forward_returns_attn_mask: bool = True, embed_dim_second: bool = False
    ) -> None:
        """Set the window and what ``forward`` returns."""
        super().configure(sequence_len, embed_dim_second)
        self._gives_more, self._output_of_window = forward_returns_attn_mask, (self.sequence_len, None)

    @property
    def forward_returns_attn_mask(self) -> bool:
        """Whether ``forward`` returns the attention weights too."""
        return self._gives_more

    @property
    def _queries_per_step(self) -> int:  # type: ignore[override]
        return self.sequence_len

    @property
    def timing(self) -> Timing:
        return Window(self.sequence_len)

    def forward(self, query: Wire, key: Tensor | None = None, value: Tensor | None = None) -> Any:  # type: ignore[override]
        """``torch.nn``'s computation: every token of the clip attends to all of it."""
        return self._full_forward(self.wire(query, key, value), self._gives_more)

    def open(self, frame: Any, init: InitContext) -> StateNode:
        like = self.check(frame, init.path)
        batch, size, waiting = like.shape[0], self.embed_dim, self.sequence_len - 1
        ring = {"projected": ring_zeros(like.resized(batch, 3 * size), waiting)} if waiting else None
        return StateNode(init, self.kind, like.resized(batch, size, self.sequence_len), ring)

    def _windows(self, x: Wire | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        """Run a chunk of tokens ``(B, n, E)``, up to the output projection: ``(B, W, L, E)``."""
        packed = None if x is None else self.pack(x).transpose(1, 2)
        _, n_out, ended = self.count(packed, node, n_if_ended, updates)
        if packed is not None and node.tensors:
            updates.ring(node, 0, node.n_in, packed)
        if packed is None or n_out == node.n_out:
            return None, ended
        older = ring_frames(node.tensors[0], node.n_out, node.n_in) if node.tensors else ()
        windows = torch.cat((*older, packed), 2).unfold(2, self.sequence_len, 1).permute(0, 2, 3, 1)  # (B, W, L, 3E)
        q, k, v = self.split(windows.flatten(0, 1))
        y = self.attend(q, k, v, self.window_mask)
        return y.unflatten(0, (-1, n_out - node.n_out)), ended

    def _window(self, x: Wire, node: StateNode, updates: StateUpdates) -> Tensor | None:
        """Run one step ``(B, E)``, up to the output projection: ``(B, L, E)``."""
        n_in, size, packed = node.n_in, self.sequence_len - 1, self.pack(x)
        emits = n_in >= size
        updates.ticks.append((node, n_in + 1, node.n_out + emits))
        if size:
            updates.slots.append((node.tensors[0].select(1, n_in % size), packed))
        if not emits:
            return None
        window = in_order(node.tensors[0], n_in, packed) if size else packed.unsqueeze(1)
        q, k, v = self.split(window)
        return self.attend(q, k, v, self.window_mask)

    def advance(self, x: Wire | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        y, ended = self._windows(self._by_token(x), node, n_if_ended, updates)
        return (None if y is None else self.leave(y).permute(0, 3, 1, 2)), ended

    def advance_step(self, x: Wire, node: StateNode, updates: StateUpdates) -> Tensor | None:
        y = self._window(x, node, updates)
        return None if y is None else self.leave(y).transpose(1, 2)

    def program(self, ctx: KernelContext) -> Run:
        """The whole window with every step."""
        attend = windows(ctx, self, ctx)
        return lambda x, rows: self.leave(attend(tokens(x), rows)).permute(0, 3, 1, 2)


def checked_index(index: int, size: int) -> int:
    """A place in a window, counted from its start."""
    if not -size <= index < size:
        raise ValueError(f"query_index={index} is outside of a window of {size} tokens")
    return index % size


def _build(module: nn.Module, memo: dict[int, Any], path: str) -> Attention:
    length, causal = option(memo, "sequence_len"), option(memo, "causal", False)
    if length is None:
        raise refuse_unbounded(f"{path} (MultiheadAttention)" if path else "MultiheadAttention")
    options: dict[str, Any] = {"sequence_len": length, "embed_dim_second": True}
    if causal:
        return streaming_copy(module, memo, MultiheadAttention, look_ahead=option(memo, "look_ahead", 0), **options)
    return streaming_copy(module, memo, SingleOutputMultiheadAttention, forward_returns_attn_mask=False, **options)


register_window(nn.MultiheadAttention, Attention)
register_builder(nn.MultiheadAttention, _build)
