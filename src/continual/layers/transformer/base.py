"""Transformer encoder layers on streams. A step is ``(B, E)``, a clip ``(B, E, T)``; inside, tokens are ``(B, n, E)``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.call_modes import has_hooks
from ...core.naming import named
from ...core.program.context import CallRows, History, KernelContext, Run
from ...core.registry import TorchLayer, become, register_window
from ...core.ring_buffer import ring_zeros
from ...core.state import InitContext, StateNode, StateUpdates, StepSpec
from ...core.timing import IDENTITY, Timing
from ...errors import NotStreamable, ShapeMismatch
from ...layers.attention.program import Attended, sliding, windows
from .. import onednn
from ..attention.base import Attention
from ..delay import queued
from ..native import product
from ..native.product import LEAST_ROWS
from ..onednn import is_wide, pack_linear
from ..weight_cache import PackedWeight

_PLAIN = (nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear)


def normed(norm: Any, x: Tensor) -> Tensor:
    """A norm of tokens; for the ordinary classes without the cost of a module's call."""
    if type(norm) is nn.LayerNorm and not has_hooks(norm):
        own: dict[str, Any] = norm._parameters
        return torch.layer_norm(x, norm.normalized_shape, own["weight"], own["bias"], norm.eps)
    y: Tensor = norm(x)
    return y


def _inputs_outermost(weight: Tensor) -> Tensor:
    """The same weight in another order in memory."""
    return weight.t().contiguous().t()


def names_in_two_parts(norm: str, linear: str) -> dict[str, str]:
    """The names of a layer's modules in continual-inference 1.2.4, which has attention and feed-forward part in a container of two.

    Args:
        norm, linear: the paths of norms and of linear maps in the second part.
    """
    names = {name: f"1.{norm.format(name)}" for name in ("norm1", "norm2")}
    return names | {name: f"1.{linear.format(name)}" for name in ("linear1", "linear2")} | {"self_attn": "0.self_attn"}


Activation = str | Callable[[Tensor], Tensor]


class EncoderLayer(TorchLayer, PackedWeight, nn.TransformerEncoderLayer):  # type: ignore[misc]
    """Base class: an ``nn.TransformerEncoderLayer``, with its parameters and names, on a stream of tokens.

    In an encoder, layers after the first see whole windows ``(B, E, L)`` as frames; they then hold no state.
    """

    attention: type[Attention]
    sequence_len = 0
    on_windows = False

    def _construct(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int,
        dropout: float,
        activation: Activation,
        layer_norm_eps: float,
        device: Any,
        dtype: Any,
        norm_first: bool,
        bias: bool,
        **own: Any,
    ) -> None:
        init: Any = super().__init__
        function: Any = activation
        init(d_model, nhead, dim_feedforward, dropout, function, layer_norm_eps, True, norm_first, bias, device, dtype)
        self.configure(**own)

    def configure(self, sequence_len: int | None = None, mask: Tensor | None = None, **own: Any) -> None:
        """Set the window; ``mask`` is what hides tokens of a window ``(L, L)``, as in ``torch.nn``."""
        if sequence_len is None:
            raise ValueError(f"{type(self).__name__} attends to a window of tokens: give its length as sequence_len=…")
        become(self.self_attn, self.attention, sequence_len=sequence_len, embed_dim_second=True, **own)
        self.heads._set_mask(mask)
        self.sequence_len = self.heads.sequence_len

    @property
    def heads(self) -> Any:
        """The attention."""
        return self.self_attn

    @property
    def timing(self) -> Timing:
        return IDENTITY if self.on_windows else self.heads.timing

    @property
    def kind(self) -> str:
        return f"{type(self).__name__} {self.timing}, norm_first={self.norm_first}"

    # ---- the layer's arithmetic on tokens -------------------------------------------------------------------------------

    def before(self, x: Tensor) -> Tensor:
        """The input of the attention."""
        return normed(self._modules["norm1"], x) if self.norm_first else x

    def after(self, x: Tensor, attended: Tensor, in_stream: bool = False) -> Tensor:
        """The tokens that leave: output projection, feed-forward, residual connections and norms.

        Args:
            x: the tokens that came, ``(…, E)``.
            attended: what they attended to, before the output projection.
            in_stream: in a stream that runs on windows: weights are read in the order that suits many tokens.
        """
        parts: dict[str, Any] = self._modules
        heads = parts["self_attn"]
        y = self._mapped("out_proj", heads._modules["out_proj"], attended, True) if in_stream else heads.leave(attended)
        if self.training:
            y = self.dropout1(y)
        if self.norm_first:
            x = x + y
            return x + self.feed_forward(normed(parts["norm2"], x), in_stream)
        x = normed(parts["norm1"], x + y)
        return normed(parts["norm2"], x + self.feed_forward(x, in_stream))

    def feed_forward(self, x: Tensor, in_stream: bool = False) -> Tensor:
        """The two linear maps, each token on its own."""
        parts = self._modules
        hidden = self._mapped("linear1", parts["linear1"], x, in_stream)
        in_place = self.activation is F.relu and not torch.is_grad_enabled()
        hidden = hidden.relu_() if in_place else self.activation(hidden)
        if not self.training:
            return self._mapped("linear2", parts["linear2"], hidden, in_stream)
        return self.dropout2(self.linear2(self.dropout(hidden)))

    def _mapped(self, name: str, linear: Any, x: Tensor, in_stream: bool) -> Tensor:
        """A linear map of tokens; for the ordinary class without the cost of a module's call."""
        if type(linear) not in _PLAIN or has_hooks(linear):
            y: Tensor = linear(x)
            return y
        own: dict[str, Any] = linear._parameters
        weight, bias = own["weight"], own["bias"]
        if in_stream and (mapped := self._of_many(name, x, weight, bias)) is not None:
            return mapped
        if in_stream and weight.is_cpu:  # for 32 tokens the product then takes 0.7 to 0.8 of the time
            weight = self._laid_out(name, weight, _inputs_outermost)
        return F.linear(x, weight, bias)

    def _of_many(self, name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        """A linear map of several tokens on a weight that is laid out for it; ``None`` where that is no gain."""
        if x.numel() >= LEAST_ROWS * weight.shape[1] and product.runs(x, weight, bias):
            return product.by_panels(x, self._laid_out(f"{name} panels", weight, product.packed), bias, len(weight))
        if is_wide(x, weight):
            return onednn.linear(x, self._laid_out(f"{name} packed", weight, pack_linear), bias)
        return None

    def whole(self, x: Tensor, in_stream: bool = False) -> Tensor:
        """``torch.nn``'s layer: all tokens ``(B, n, E)`` attend to all."""
        heads, asking = self.heads, self.before(x)
        weight = heads._parameters.get("in_proj_weight")
        if in_stream and weight is not None:
            packed = self._of_many("in_proj", asking, weight, heads._parameters.get("in_proj_bias"))
            if packed is not None:
                return self.after(x, heads.of_packed(packed), in_stream)
        return self.after(x, heads.whole(asking), in_stream)

    def of_windows(self, x: Tensor, in_stream: bool = False) -> Tensor:
        """Windows ``(B, L, E)``, each alone, to the outputs of the layer for each."""
        return self.whole(x, in_stream)

    def on_frames(self, x: Tensor) -> Tensor:
        """Windows that come as frames ``(B, E, W, L)``."""
        batch, _, count, _ = x.shape
        y = self.of_windows(x.permute(0, 2, 3, 1).flatten(0, 1)).unflatten(0, (batch, count))
        return y.permute(0, 3, 1, 2)

    # ---- kernel ---------------------------------------------------------------------------------------------------------

    def waiting(self) -> int:
        """How many tokens wait for the residual connection."""
        return self.sequence_len - 1

    def out(self, batch: int) -> tuple[int, ...]:
        """The shape of the frame that leaves."""
        return batch, self.heads.embed_dim, self.sequence_len

    def open(self, frame: StepSpec, init: InitContext) -> StateNode:
        self._forget_layouts()
        if self.on_windows:
            expected = (frame.shape[0], self.heads.embed_dim, self.sequence_len)
            if frame.shape != expected:
                raise ShapeMismatch(f"{named(init.path, self)}: expects windows {expected}, got {frame.shape}")
            return StateNode(init, self.kind, frame.resized(*self.out(frame.shape[0])), kept_spec=frame)
        child_node = self.heads.open(frame, init.below("self_attn"))
        waiting = self.waiting()
        rings = {"tokens": ring_zeros(frame, waiting)} if waiting else None
        return StateNode(init, self.kind, frame.resized(*self.out(frame.shape[0])), rings, [child_node], kept_spec=frame)

    def plan(self, node: StateNode, lookahead: int | None) -> tuple[int, int, int | None] | None:
        for child_node in node.children:
            self.heads.plan(child_node, lookahead)
        return super().plan(node, lookahead)

    def recount(self, node: StateNode, n: int, n_if_ended: int) -> tuple[int, int]:
        for child_node in node.children:
            self.heads.recount(child_node, n, n_if_ended)
        return super().recount(node, n, n_if_ended)

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        if self.on_windows:
            return (None if x is None else self.on_frames(x)), n_if_ended
        n_in, before = node.n_in, node.n_out
        _, n_out, ended = self.count(x, node, n_if_ended, updates)
        if x is not None and node.tensors:
            updates.ring(node, 0, n_in, x)
        attended, _ = self._attended(None if x is None else self.before(x.transpose(1, 2)), node.children[0], n_if_ended, updates)
        if attended is None:
            return None, ended
        return self._joined(attended, x, node, before, n_out), ended

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor | None:
        if self.on_windows:
            return self.of_windows(x.transpose(1, 2), in_stream=True).transpose(1, -1)
        n_in = node.n_in
        emits = n_in >= node.delay
        updates.ticks.append((node, n_in + 1, node.n_out + emits))
        if node.tensors:
            updates.slots.append((node.tensors[0].select(1, n_in % node.tensors[0].shape[1]), x))
        attended = self._attended_step(self.before(x), node.children[0], updates)
        return None if attended is None else self._joined_step(attended, x, node)

    def _attended(
        self, x: Tensor | None, child_node: StateNode, n_if_ended: int, updates: StateUpdates
    ) -> tuple[Tensor | None, int]:
        """The attention's kernel on a chunk of tokens, up to its output projection."""
        raise NotStreamable(f"{type(self).__name__} defines no attention")

    def _attended_step(self, x: Tensor, child_node: StateNode, updates: StateUpdates) -> Tensor | None:
        """The attention's kernel on a step, up to its output projection."""
        raise NotStreamable(f"{type(self).__name__} defines no attention")

    def _joined(self, attended: Tensor, x: Tensor | None, node: StateNode, first: int, stop: int) -> Tensor:
        """Outputs ``first … stop - 1`` of what was attended, and the tokens it is added to."""
        raise NotStreamable(f"{type(self).__name__} defines no residual connection")

    def _joined_step(self, attended: Tensor, x: Tensor, node: StateNode) -> Tensor:
        """The same for one step."""
        raise NotStreamable(f"{type(self).__name__} defines no residual connection")

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> int:
        tokens = self.sequence_len if len(frame.shape) == 3 else 1  # that leave
        own = self._macs_of_window(tokens) if self.on_windows else 0  # else the attention has a node of its own
        return own + tokens * self._feed_forward_macs

    @property
    def _feed_forward_macs(self) -> int:
        return 2 * self.heads.embed_dim * self.linear1.out_features

    def _macs_of_window(self, tokens: int) -> int:
        """The attention's share for a window of which so many tokens leave."""
        size, length = self.heads.embed_dim, self.sequence_len
        if tokens == length:
            return length * (4 * size**2 + 2 * length * size)
        return 4 * size**2 + 2 * self.heads.num_heads * length * size  # see `Attention.ask`

    def extra_ops(self, node: StateNode, frame: StepSpec) -> int:
        size = self.heads.embed_dim
        tokens = math.prod(frame.shape[1:]) // size
        own = self.heads.extra_ops(node, frame) if self.on_windows else 0  # else the attention has a node of its own
        return own + tokens * (self.linear1.out_features + 5 * size)  # biases, two norms, two residual additions

    def _macs_of_call(self, x: Tensor, y: Tensor | None) -> int:
        """Multiply-adds of a call that took ``x`` and returned ``y``; for counters."""
        if y is None:
            return int(self.heads._macs_of_call(x, None))
        frames = y.numel() // self.heads.embed_dim  # tokens that leave, of all rows and windows
        if not (self.on_windows or x.ndim == 4):
            return int(self.heads._macs_of_call(x, y) + frames * self._feed_forward_macs)
        windows = x.shape[0] * (x.shape[2] if x.ndim == 4 else 1)
        return windows * self._macs_of_window(frames // windows) + frames * self._feed_forward_macs

    def program(self, ctx: KernelContext) -> Run:
        """Attention, the residual connection whose tokens wait, and the feed-forward part."""
        if self.on_windows:
            return lambda x, rows: self.on_frames(x)
        within = KernelContext(ctx.plan, self.heads, ctx.node.children[0])
        if isinstance(self, SlidingEncoderLayer):
            attend = sliding(ctx, self.heads, within)
            first = ctx.out_schedule.first + (0 if self.heads.partial else self.heads.behind)
            past = ctx.history("tokens", ctx.node.in_spec, first - ctx.in_schedule.first)

            def run(x: Tensor, rows: CallRows) -> Tensor:
                attended = attend(self.before(x.transpose(1, 2)), rows)
                own = past.extend(rows, x)[:, :, : ctx.out_schedule.frames]
                y: Tensor = self.after(own.transpose(1, 2), attended)
                return y.transpose(1, 2)

            return run
        return _retroactive_layer(ctx, self, windows(ctx, self.heads, within))


class SlidingEncoderLayer(EncoderLayer):
    """Base class of layers with one token a step."""

    def waiting(self) -> int:
        return self.heads.ahead

    def out(self, batch: int) -> tuple[int, ...]:
        return batch, self.heads.embed_dim

    def _attended(
        self, x: Tensor | None, child_node: StateNode, n_if_ended: int, updates: StateUpdates
    ) -> tuple[Tensor | None, int]:
        return self.heads.attended(x, child_node, n_if_ended, updates)

    def _attended_step(self, x: Tensor, child_node: StateNode, updates: StateUpdates) -> Tensor | None:
        return self.heads._attended_step(x, child_node, updates)

    def _joined(self, attended: Tensor, x: Tensor | None, node: StateNode, first: int, stop: int) -> Tensor:
        skipped = 0 if self.heads.partial else self.heads.behind
        if x is None or node.tensors:
            own = queued(node, 0, x, node.n_in, first + skipped, stop + skipped)
        else:
            own = x[:, :, first + skipped - node.n_in :]
        return self.after(own.transpose(1, 2), attended).transpose(1, 2)

    def _joined_step(self, attended: Tensor, x: Tensor, node: StateNode) -> Tensor:
        own = node.tensors[0].select(1, node.n_in % node.tensors[0].shape[1]) if node.tensors else x
        return self.after(own, attended)

    def single(self, x: Tensor) -> Tensor:
        """The outputs of a stream for a clip ``(B, E, T)``."""
        tokens = x.transpose(1, 2)
        attended = self.heads._attended_windows(self.before(tokens))
        if not self.heads.partial:
            tokens = tokens[:, self.heads.behind : tokens.shape[1] - self.heads.ahead]
        return self.after(tokens, attended).transpose(1, 2)


register_window(nn.TransformerEncoderLayer, EncoderLayer)


def _retroactive_layer(ctx: KernelContext, layer: Any, attend: Attended) -> Run:
    past: History = ctx.frames_in_order("tokens", ctx.node.in_spec, ctx.out_schedule.first - ctx.in_schedule.first)

    def run(x: Tensor, rows: CallRows) -> Tensor:
        attended = attend(layer.before(x.transpose(1, 2)), rows)
        own = past.extend(rows, x).unfold(2, layer.sequence_len, 1)[:, :, : ctx.out_schedule.frames].permute(0, 2, 3, 1)
        y: Tensor = layer.after(own, attended)
        return y.permute(0, 3, 1, 2)

    return run
