"""Recurrent and cumulative modules in step programs: what they hold is carried from frame to frame, past frames that are no frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...convert.norm_choice import LayerNormOverTime
from ...core.precision import widest
from ...core.program.context import Held, Rows, Run, Site, kernel
from ...core.state import Frame
from ...layers.cumulative import _Cumulative
from ...layers.norms.kernel import OfLast, TimeNorm, UpToNow
from ...layers.norms.statistics import of_frames
from ...layers.positions.encodings import RecyclingPositionalEncoding, RotaryPositionalEncoding, SinusoidalPositionalEncoding
from ...layers.positions.fixed_point_angles import angles_at, angles_in_32_bits, limbs
from ...layers.recurrent.base import RECURRENCES, Recurrent

Angles = Callable[[Tensor], Tensor]  # positions (…) → (…, pairs)
Step = Callable[[Tensor, list[Tensor], Tensor], tuple[Tensor, list[Tensor]]]  # frame, carried, its index (B,) → output, carried


def carried(site: Site, held: list[Held], x: Tensor, rows: Rows, step: Step) -> Tensor:
    """Run frame by frame. What is carried stays as it is at frames from before the first."""
    inside, index = site.inside(rows, end=False), rows.index(site.arrives)
    state, outs = [rows.held[h.index] for h in held], []
    for i, frame in enumerate(x.unbind(2)):
        y, new = step(frame, state, index[:, i])
        if inside is not None:
            own = inside[:, i]
            new = [torch.where(own.view(-1, *(1,) * (n.ndim - 1)), n, s) for n, s in zip(new, state, strict=True)]
        outs.append(y)
        state = new
    for h, value in zip(held, state, strict=True):
        rows.keep(h, value)
    return torch.stack(outs, 2)


def of_rows(value: Tensor, like: Tensor) -> Tensor:
    """A value for each row ``(B,)``, to be broadcast over ``like``."""
    return value.view(-1, *(1,) * (like.ndim - 1))


@kernel(Recurrent)
def recurrent(site: Site) -> Run:
    """RNN, GRU and LSTM, cell by cell; each layer's state is a tensor of its own."""
    layer: Any = site.module
    names = RECURRENCES[layer.mode].names
    held = [
        site.hold(f"{name}{i or ''}", Frame.of(t[:, i]), None)
        for i in range(layer.num_layers)
        for name, t in zip(names, site.node.tensors, strict=True)  # (B, layers, H)
    ]
    cell = _CELLS[layer.mode] if site.plan.fused and not layer.proj_size else None

    def step(x: Tensor, state: list[Tensor], index: Tensor) -> tuple[Tensor, list[Tensor]]:
        by_layer = [tuple(state[i : i + len(names)]) for i in range(0, len(state), len(names))]
        if cell is None:
            new = layer.over_step(x, by_layer)
        else:
            new = []
            for i, old in enumerate(by_layer):
                new.append(cell(x, old, *layer.weights(i)))
                x = new[-1][0]
        return new[-1][0], [t for parts in new for t in parts]

    return lambda x, rows: carried(site, held, x, rows, step)


def _gru(x: Tensor, held: Any, w_ih: Tensor, w_hh: Tensor, *biases: Tensor) -> Any:
    """A gated recurrent unit in plain operations, which compilers fuse. Source: Cho et al. (2014), in torch's form."""
    a, b = F.linear(x, w_ih, *biases[:1]).chunk(3, 1), F.linear(held[0], w_hh, *biases[1:]).chunk(3, 1)
    reset, update = (a[0] + b[0]).sigmoid(), (a[1] + b[1]).sigmoid()
    new = (a[2] + reset * b[2]).tanh()
    return (new + update * (held[0] - new),)


def _lstm(x: Tensor, held: Any, w_ih: Tensor, w_hh: Tensor, *biases: Tensor) -> Any:
    """Long short-term memory in plain operations. Source: Hochreiter and Schmidhuber (1997), in torch's form."""
    take, forget, new, give = (F.linear(x, w_ih, *biases[:1]) + F.linear(held[0], w_hh, *biases[1:])).chunk(4, 1)
    memory = forget.sigmoid() * held[1] + take.sigmoid() * new.tanh()
    return give.sigmoid() * memory.tanh(), memory


def _elman(activation: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def cell(x: Tensor, held: Any, w_ih: Tensor, w_hh: Tensor, *biases: Tensor) -> Any:
        return (activation(F.linear(x, w_ih, *biases[:1]) + F.linear(held[0], w_hh, *biases[1:])),)

    return cell


_CELLS: dict[str, Callable[..., Any]] = {
    "GRU": _gru,
    "LSTM": _lstm,
    "RNN_TANH": _elman(torch.tanh),
    "RNN_RELU": _elman(torch.relu),
}


@kernel(_Cumulative)
def cumulative(site: Site) -> Run:
    """Sums, means, maxima of all frames up to now."""
    layer: Any = site.module
    cold = site.node.tensors[0]
    fill = cold.flatten()[0].item() if cold.numel() else 0
    held = [site.hold("so_far", Frame.of(cold), None, fill)]

    def step(x: Tensor, state: list[Tensor], index: Tensor) -> tuple[Tensor, list[Tensor]]:
        now = layer.reduce_step(x.to(cold.dtype), of_rows(index, x), state[0])
        return now.to(layer.out_type(x.dtype)), [now]

    return lambda x, rows: carried(site, held, x, rows, step)


# ---- norms ----------------------------------------------------------------------------------------------------------------


def _normed(layer: Any, parts: Tensor, mean: Tensor, variance: Tensor, like: Tensor) -> Tensor:
    """Frames ``(B, groups, N, n)`` by statistics ``(B, groups, 1, n)``, as ``(B, C, n, *S)``."""
    y = (parts - mean) * (variance + layer.eps).rsqrt()
    batch, channels, count, *space = like.shape
    y = y.transpose(2, 3).unflatten(3, (-1, *space)).movedim(2, 3).reshape(batch, channels, count, *space)
    return layer._scaled(y.clone()).to(like.dtype)


def _parts(layer: Any, x: Tensor) -> Tensor:
    """Frames ``(B, C, n, *S)`` by groups: ``(B, groups, N, n)``."""
    groups = layer.groups((*x.shape[:2], *x.shape[3:]))
    return x.to(widest(x.device)).unflatten(1, (groups, -1)).movedim(3, -1).flatten(2, -2)


@kernel(UpToNow)
def up_to_now(site: Site) -> Run:
    """By the statistics of all frames up to now."""
    layer: Any = site.module
    if not site.node.tensors:
        return _local_norm(layer)
    held = [site.hold(n, Frame.of(t), None) for n, t in zip(site.node.names, site.node.tensors, strict=True)]

    def step(alone: Tensor, state: list[Tensor], index: Tensor) -> tuple[Tensor, list[Tensor]]:
        (mean, variance), number = alone.unbind(-1), of_rows(index + 1, state[0]).to(alone.dtype)
        mean, variance = mean.unsqueeze(2), variance.unsqueeze(2)
        surprise = mean - torch.where(number > 1, state[0], mean)
        new = mean - surprise * ((number - 1) / number)
        spread = (state[1] * (number - 1) + variance + surprise.square() * ((number - 1) / number)) / number
        return torch.cat((new, spread), 2), [new, spread]

    def run(x: Tensor, rows: Rows) -> Tensor:
        parts = _parts(layer, x)
        mean, variance = of_frames(parts, [2])
        alone = torch.stack((mean, variance), -1).squeeze(2)  # (B, groups, n, 2)
        mean, variance = carried(site, held, alone, rows, step).unbind(-1)  # of (B, groups, n, 2)
        return _normed(layer, parts, mean.unsqueeze(2), variance.unsqueeze(2), x)

    return run


@kernel(OfLast)
def of_last(site: Site) -> Run:
    """By the statistics of the last frames, of those that there are."""
    layer: Any = site.module
    if isinstance(layer, LayerNormOverTime) and layer._is_local(len(site.node.given.shape)):
        return _local_norm(layer)
    groups = layer.groups(site.node.given.shape)
    like = replace(site.node.given, shape=(1, groups, 2), dtype=widest(site.node.given.device))
    past = site.past("frames", like, 1 - layer.window)

    def run(x: Tensor, rows: Rows) -> Tensor:
        parts = _parts(layer, x)
        alone = torch.stack([s.squeeze(2) for s in of_frames(parts, [2])], 3)  # (B, groups, n, 2)
        frames = past.extend(rows, alone).unfold(2, layer.window, 1)  # (B, groups, n, 2, window)
        index = rows.index(site.arrives).unsqueeze(2) - torch.arange(layer.window - 1, -1, -1, device=x.device)
        there = (index >= 0).unsqueeze(1).to(frames.dtype)  # (B, 1, n, window)
        frames = torch.where(there.unsqueeze(3) > 0, frames, 0.0)
        number = there.sum(-1)
        mean = frames[:, :, :, 0].sum(-1) / number
        apart = (frames[:, :, :, 0] - mean.unsqueeze(-1)).square() * there
        variance = (frames[:, :, :, 1].sum(-1) + apart.sum(-1)) / number
        return _normed(layer, parts, mean.unsqueeze(2), variance.unsqueeze(2), x)

    return run


def _local_norm(layer: Any) -> Run:
    """A norm that covers no time on such frames."""
    return lambda x, rows: F.layer_norm(x, layer.normalized_shape, None, None, layer.eps)


@kernel(TimeNorm)
def other_norm(site: Site) -> Run:
    """Norms that say themselves what they know."""
    raise site.refuse("takes statistics in a way of its own")


# ---- positions --------------------------------------------------------------------------------------------------------------


@kernel(RecyclingPositionalEncoding)
def recycling(site: Site) -> Run:
    """Vectors that recur."""
    layer: Any = site.module
    return lambda x, rows: x + layer.pe(rows.index(site.arrives).remainder(layer.num_embeds)).transpose(1, 2)


@kernel(SinusoidalPositionalEncoding)
def sinusoidal(site: Site) -> Run:
    """Waves."""
    layer: Any = site.module

    angles = angles_of(layer, site)

    def run(x: Tensor, rows: Rows) -> Tensor:
        angle = angles(rows.index(site.arrives))
        waves = torch.stack((angle.sin(), angle.cos()), 3).flatten(2)[:, :, : layer.channels]
        return x + waves.to(x.dtype).transpose(1, 2)

    return run


@kernel(RotaryPositionalEncoding)
def rotary(site: Site) -> Run:
    """Angles."""
    layer: Any = site.module
    angles = angles_of(layer, site)

    def run(x: Tensor, rows: Rows) -> Tensor:
        heads = x.transpose(1, 2).unflatten(2, (layer.heads, -1))
        return turned(layer, angles, heads, rows.index(site.arrives)).flatten(2).transpose(1, 2)

    return run


def angles_of(layer: Any, site: Site) -> Angles:
    """The angles of positions, by arithmetic that the runtime has."""
    if not site.plan.narrow:
        return lambda index: angles_at(layer.frequencies, index)
    parts = limbs(layer.frequencies)
    return lambda index: angles_in_32_bits(parts, index)


def turned(layer: Any, angles: Angles, x: Tensor, index: Tensor) -> Tensor:
    """Vectors ``(B, n, heads, d)`` turned to the positions ``(B, n)``."""
    angle = angles(index).unsqueeze(2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = (x[..., 0::2], x[..., 1::2]) if layer.interleaved else x.chunk(2, -1)
    pair = (a * cos - b * sin, a * sin + b * cos)
    return torch.stack(pair, -1).flatten(-2) if layer.interleaved else torch.cat(pair, -1)
