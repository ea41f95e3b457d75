"""The three encoder layers: one token of a window, one token with a causal band, the whole window with every step."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...core.state import StateNode, StateUpdates
from ..attention.base import in_order
from ..attention.multihead import MultiheadAttention, RetroactiveMultiheadAttention, SingleOutputMultiheadAttention
from ..delay import queued
from .base import Activation, EncoderLayer, SlidingEncoderLayer, names_in_two_parts


class SingleOutputTransformerEncoderLayer(SlidingEncoderLayer):
    """An encoder layer that gives one token of a sliding window: the query's, which attends to all of the window.

    Args:
        d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, device, dtype: as ``torch.nn``; the activation is
            ``"relu"``, ``"gelu"``, a function or a module.
        sequence_len: tokens in the window.
        single_output_forward: ``forward`` gives what a stream gives, one token for every window in the clip. With ``False`` it is
            ``torch.nn``'s layer: all tokens of the clip, each attending to all.
        query_index: which token of the window asks; the delay is ``sequence_len - 1`` for each.
        norm_first, bias: as ``torch.nn``.

    Raises:
        ValueError: without ``sequence_len``.
        ShapeMismatch: steps that are not ``(B, d_model)``.

    Example:
        >>> layer = co.SingleOutputTransformerEncoderLayer(8, 2, 16, sequence_len=4).eval()
        >>> clip = torch.randn(3, 8, 4)
        >>> torch.allclose(layer.forward_steps(clip), layer(clip)[:, :, -1:], atol=1e-6)
        True

    Source: Hedegaard, Bakhtiarnia and Iosifidis, Continual Transformers (2022), section 3.5.
    """

    attention = SingleOutputMultiheadAttention
    _earlier_names = names_in_two_parts("{}.fn", "_ff_block.1.{}")

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        device: Any = None,
        dtype: Any = None,
        sequence_len: int | None = None,
        single_output_forward: bool = False,
        query_index: int = -1,
        *,
        norm_first: bool = False,
        bias: bool = True,
    ):
        own = {"sequence_len": sequence_len, "single_output_forward": single_output_forward, "query_index": query_index}
        self._construct(
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, device, dtype, norm_first, bias, **own
        )

    def configure(  # type: ignore[override]
        self,
        sequence_len: int | None = None,
        mask: Tensor | None = None,
        single_output_forward: bool = False,
        query_index: int = -1,
    ) -> None:
        """Set the window, its mask, and which token of it asks."""
        super().configure(sequence_len, mask, query_index=query_index, forward_returns_attn_mask=False)
        self.single_output_forward = single_output_forward
        self._output_of_window = None if single_output_forward else (self.sequence_len, self.heads.query_index)

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        """The clip ``(B, E, T)``: one token of every window in it, or ``torch.nn``'s layer."""
        if self.on_windows:
            return self.on_frames(input)
        return self.single(input) if self.single_output_forward else self.whole(input.transpose(1, 2)).transpose(1, 2)

    def of_windows(self, x: Tensor, in_stream: bool = False) -> Tensor:
        place = self.heads.query_index
        return self.after(x[:, place], self.heads.ask(self.before(x), place), in_stream)

    def on_frames(self, x: Tensor) -> Tensor:
        batch, _, count, _ = x.shape
        y = self.of_windows(x.permute(0, 2, 3, 1).flatten(0, 1))
        return y.unflatten(0, (batch, count)).transpose(1, 2)


class CausalTransformerEncoderLayer(SlidingEncoderLayer):
    """An encoder layer with a band for a mask: every token attends to ``sequence_len`` tokens up to its own. One token a step.

    Args:
        d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, device, dtype, norm_first, bias: as ``torch.nn``.
        sequence_len: tokens in the band, the token's own and those of the look-ahead included.
        look_ahead: tokens after its own that a token sees; so many steps of delay.
        positions: as in :class:`~continual.MultiheadAttention`.

    Raises:
        ValueError: without ``sequence_len``.
        ShapeMismatch: steps that are not ``(B, d_model)``.

    Example:
        >>> layer = co.CausalTransformerEncoderLayer(8, 2, 16, sequence_len=4).eval()
        >>> clip = torch.randn(3, 8, 10)
        >>> layer.delay, torch.allclose(layer.forward_steps(clip), layer(clip), atol=1e-6)
        (0, True)
    """

    attention = MultiheadAttention

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        device: Any = None,
        dtype: Any = None,
        sequence_len: int | None = None,
        look_ahead: int = 0,
        *,
        positions: Any = None,
        norm_first: bool = False,
        bias: bool = True,
    ):
        own = {"sequence_len": sequence_len, "look_ahead": look_ahead, "positions": positions}
        self._construct(
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, device, dtype, norm_first, bias, **own
        )

    def configure(  # type: ignore[override]
        self, sequence_len: int | None = None, look_ahead: int = 0, positions: Any = None
    ) -> None:
        """Set the band and the positions."""
        super().configure(sequence_len, None, look_ahead=look_ahead, positions=positions)

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        """``torch.nn``'s layer with the band for a mask, on a clip ``(B, E, T)``."""
        return self.single(input)


class RetroactiveTransformerEncoderLayer(EncoderLayer):
    """An encoder layer that gives all tokens of a sliding window with every step: ``torch.nn``'s layer on the newest tokens.

    A step returns ``(B, E, L)``, ``forward_steps`` stacks windows on dim 2: ``(B, E, W, L)``.

    Args:
        d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, device, dtype, norm_first, bias: as ``torch.nn``.
        sequence_len: tokens in the window.

    Raises:
        ValueError: without ``sequence_len``.
        ShapeMismatch: steps that are not ``(B, d_model)``.

    Example:
        >>> layer = co.RetroactiveTransformerEncoderLayer(8, 2, 16, sequence_len=4).eval()
        >>> clip = torch.randn(3, 8, 6)
        >>> windows = layer.forward_steps(clip)
        >>> windows.shape, torch.allclose(windows[:, :, -1], layer(clip[:, :, -4:]), atol=1e-6)
        (torch.Size([3, 8, 3, 4]), True)

    Source: Hedegaard, Bakhtiarnia and Iosifidis, Continual Transformers (2022), section 3.5.
    """

    attention = RetroactiveMultiheadAttention
    _earlier_names = names_in_two_parts("fn.{}", "fn._ff_block.fn.{}")

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        device: Any = None,
        dtype: Any = None,
        sequence_len: int | None = None,
        *,
        norm_first: bool = False,
        bias: bool = True,
    ):
        own = {"sequence_len": sequence_len}
        self._construct(
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, device, dtype, norm_first, bias, **own
        )

    def configure(self, sequence_len: int | None = None, mask: Tensor | None = None) -> None:  # type: ignore[override]
        """Set the window and its mask."""
        super().configure(sequence_len, mask, forward_returns_attn_mask=False)
        self._output_of_window = (self.sequence_len, None)

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        """``torch.nn``'s layer on a clip ``(B, E, T)``: all tokens, each attending to all."""
        return self.on_frames(input) if self.on_windows else self.whole(input.transpose(1, 2)).transpose(1, 2)

    def _attended(
        self, x: Tensor | None, child_node: StateNode, n_if_ended: int, updates: StateUpdates
    ) -> tuple[Tensor | None, int]:
        return self.heads._windows(x, child_node, n_if_ended, updates)

    def _attended_step(self, x: Tensor, child_node: StateNode, updates: StateUpdates) -> Tensor | None:
        return self.heads._window(x, child_node, updates)

    def _joined(self, attended: Tensor, x: Tensor | None, node: StateNode, first: int, stop: int) -> Tensor:
        size = self.sequence_len
        tokens = queued(node, 0, x, node.n_in, first, stop + size - 1) if x is None or node.tensors else x
        return self.after(tokens.unfold(2, size, 1).permute(0, 2, 3, 1), attended).permute(0, 3, 1, 2)

    def _joined_step(self, attended: Tensor, x: Tensor, node: StateNode) -> Tensor:
        tokens = in_order(node.tensors[0], node.n_in, x) if node.tensors else x.unsqueeze(1)
        return self.after(tokens, attended, in_stream=True).transpose(1, 2)
