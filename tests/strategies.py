"""Hypothesis strategies of random networks and clips.

All layers map ``channels`` to ``channels`` and keep the size of space, so that any of them can follow or stand beside any other.
A *block* of stride ``s`` and loss ``c`` maps ``e`` frames to ``(e - 1 - c) // s + 1``: blocks that agree in both can be branches.
A U-Net does so for multiples of its rate alone; for other clips its branches have different lengths, and all refuse them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor, nn

import continual as co
from tests.contract import refuses_the_length
from tests.parts import AVG, CHANNELS, CONV, LINEAR, LP, MAX, NORM, PADS, SPACE, UP, doubled, first, flipped, random_norm, second
from tests.pasting import new

Draw = Callable[[st.SearchStrategy[Any]], Any]
BRANCH_REDUCTIONS = ("sum", "mul", "max")


def module_is(net: nn.Module, *classes: type) -> bool:
    """Whether a module of one of these classes is in the network."""
    return any(isinstance(m, classes) for m in net.modules())


# ---- layers ---------------------------------------------------------------------------------------------------------


def _space(draw: Draw, dims: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Kernel and padding over space that keep its size."""
    kernel = tuple(draw(st.sampled_from((1, 3))) for _ in range(dims - 1))
    return kernel, tuple(k // 2 for k in kernel)


def _extent(draw: Draw, extent: int) -> tuple[int, int]:
    """A kernel and a dilation of this extent."""
    if extent == 1:
        return 1, draw(st.sampled_from((1, 2)))
    dilation = draw(st.sampled_from([d for d in (1, 2, 3) if (extent - 1) % d == 0]))
    return (extent - 1) // dilation + 1, dilation


def _conv(draw: Draw, dims: int, kernel: int, dilation: int, stride: int, padding: int) -> nn.Module:
    spaces, pads = _space(draw, dims)
    fills = ["zeros", "replicate", *(["reflect"] if padding <= (kernel - 1) * dilation - padding else [])]
    options: dict[str, Any] = {}
    if padding:
        options = {"temporal_fill": draw(st.sampled_from([None, *fills]))}
    return new(
        CONV[dims],
        CHANNELS,
        CHANNELS,
        (kernel, *spaces),
        (stride, *(1,) * (dims - 1)),
        (padding, *pads),
        (dilation, *(1,) * (dims - 1)),
        groups=draw(st.sampled_from((1, 1, CHANNELS))),
        bias=draw(st.sampled_from((True, True, False))),
        **options,
    )


def _pool(draw: Draw, dims: int, kernel: int, dilation: int, stride: int, padding: int, ceil_mode: bool = False) -> nn.Module:
    spaces, pads = _space(draw, dims)
    full = {
        "kernel_size": (kernel, *spaces),
        "stride": (stride, *(1,) * (dims - 1)),
        "padding": (padding, *pads),
        "dilation": (dilation, *(1,) * (dims - 1)),
        "ceil_mode": ceil_mode,
        "temporal_fill": draw(st.sampled_from((None, "zeros", "replicate"))) if padding else None,
    }
    if draw(st.booleans()):
        return new(MAX[dims], **full)
    return new(AVG[dims], count_include_pad=draw(st.booleans()), **full)


def _lp_pool(draw: Draw, dims: int, kernel: int, stride: int, ceil_mode: bool = False) -> nn.Module:
    spaces, pads = _space(draw, dims)
    pool = new(LP[dims], draw(st.sampled_from((1, 2, 4, math.inf))), (kernel, *spaces), (stride, *(1,) * (dims - 1)), ceil_mode)
    return new(co.Sequential, _pad(draw, dims, 0, 0, pads), pool) if any(pads) else pool


def _pad(draw: Draw, dims: int, start: int, end: int, space: tuple[int, ...] = ()) -> nn.Module:
    """Padding, or with negative numbers a cut, of time, and padding of space."""
    around = [p for pad in reversed(space or (0,) * (dims - 1)) for p in (pad, pad)]
    cls = draw(st.sampled_from(PADS[dims]))
    return new(cls, (*around, start, end), *([0.5] if cls in (co.ConstantPad1d, co.ConstantPad2d, co.ConstantPad3d) else []))


def _unfold(draw: Draw, dims: int, kernel: int, dilation: int, stride: int, padding: int) -> nn.Module:
    return new(co.Sequential, new(co.Unfold, kernel, dilation, padding, stride), new(CONV[dims], kernel * CHANNELS, CHANNELS, 1))


def _norm(dims: int) -> nn.Module:
    return new(random_norm, NORM[dims], CHANNELS)


def _recurrent(draw: Draw) -> nn.Module:
    cls = draw(st.sampled_from((co.GRU, co.LSTM, co.GRUCell, co.LSTMCell, None)))
    return new(cls, CHANNELS, CHANNELS) if cls else new(co.LSTM, CHANNELS, CHANNELS + 1, 2, proj_size=CHANNELS)


def _attention(draw: Draw, loss: int) -> nn.Module:
    """Attention that loses so many frames: to a band (none), or of one token of a window.

    Norms of two values turn rounding errors of equal ones into differences of any size, above all in gradients: ``layer_norm_eps``
    bounds that.
    """
    eps = {"layer_norm_eps": 0.1}
    heads = draw(st.sampled_from((1, CHANNELS)))
    if loss:
        query = draw(st.integers(0, loss))
        made = {"sequence_len": loss + 1, "query_index": query}
        if draw(st.booleans()):
            return new(co.SingleOutputTransformerEncoderLayer, CHANNELS, heads, 3, single_output_forward=True, **made, **eps)
        return new(co.SingleOutputMultiheadAttention, CHANNELS, heads, embed_dim_second=True, **made)
    length = draw(st.integers(1, 5))
    ahead = draw(st.integers(0, length - 1))
    made = {"sequence_len": length, "look_ahead": ahead}
    match draw(st.sampled_from(("attention", "layer", "encoder"))):
        case "attention":
            positions = draw(st.sampled_from((None, "alibi", "rotary"))) if heads == 1 else None
            return new(co.MultiheadAttention, CHANNELS, heads, embed_dim_second=True, positions=positions, **made)
        case "layer":
            return new(co.CausalTransformerEncoderLayer, CHANNELS, heads, 3, norm_first=draw(st.booleans()), **made, **eps)
    return new(co.TransformerEncoder, new(co.TransformerEncoderLayerFactory, CHANNELS, heads, 3, causal=True, **made, **eps), 2)


def _looking_back(draw: Draw, dims: int) -> nn.Module:
    """Statistics over time, and positions: what depends on the clock or on all that came before."""
    makers = [
        lambda: new(co.CumulativeGroupNorm, 1, CHANNELS),
        lambda: new(co.WindowedGroupNorm, CHANNELS, CHANNELS, window=draw(st.integers(1, 5))),
        lambda: new(co.WindowedLayerNorm, CHANNELS, window=3),
        lambda: new(co.CumulativeMean),
        lambda: new(co.CumulativeMax),
    ]
    if dims == 1:
        makers += [
            lambda: new(co.SinusoidalPositionalEncoding, CHANNELS),
            lambda: new(co.RotaryPositionalEncoding, CHANNELS),
            lambda: new(co.RecyclingPositionalEncoding, CHANNELS, draw(st.integers(1, 5)), learned=draw(st.booleans())),
        ]
    return draw(st.sampled_from(makers))()


def _pointwise(draw: Draw, dims: int) -> nn.Module:
    makers = (
        *(nn.ReLU, nn.Tanh, nn.GELU, nn.PReLU, co.Identity),
        lambda: _norm(dims),
        lambda: new(nn.Softmax, dim=1),
        lambda: new(nn.Dropout, 0.5),
        lambda: new(co.Linear, CHANNELS, CHANNELS, channel_dim=1),
        lambda: new(co.Add, 0.5),
        lambda: new(co.Multiply, -1.5),
        lambda: new(co.Lambda, flipped),
        lambda: new(co.Lambda, doubled, takes_time=True),
    )
    make = draw(st.sampled_from(makers))
    return new(make) if isinstance(make, type) else make()


def _free(draw: Draw, dims: int) -> nn.Module:
    """A layer of any loss: padding beyond the kernel, ``ceil_mode``, "same" with an even kernel, cuts."""
    kernel, dilation, stride = draw(st.integers(1, 4)), draw(st.integers(1, 2)), draw(st.sampled_from((1, 1, 1, 2, 3)))
    extent = dilation * (kernel - 1) + 1
    kinds = ("conv", "conv", "conv", "wide", "pool", "pool", "lp pool", "pad", "unfold", "trim", "skip", "rate", "rate")
    match draw(st.sampled_from(kinds)):
        case "conv":
            return _conv(draw, dims, kernel, dilation, stride, draw(st.integers(0, extent - 1)))
        case "wide":
            return _conv(draw, dims, kernel, dilation, stride, draw(st.integers(0, extent + 2)))
        case "pool":
            padding = draw(st.integers(0, extent // 2)) if dilation == 1 else 0
            return _pool(draw, dims, kernel, dilation, stride, padding, draw(st.booleans()))
        case "lp pool":
            return _lp_pool(draw, dims, kernel, stride, draw(st.booleans()))
        case "pad":
            return _pad(draw, dims, draw(st.integers(-2, 3)), draw(st.integers(-2, 3)))
        case "unfold":
            return _unfold(draw, dims, kernel, dilation, stride, draw(st.integers(0, extent + 1)))
        case "trim":
            return new(co.Trim, draw(st.integers(0, 2)), draw(st.integers(0, 3)))
        case "rate":
            return _free_rate(draw, dims)
    return new(co.Skip, draw(st.integers(0, 3)))


def _free_rate(draw: Draw, dims: int) -> nn.Module:
    """Transposed convolution or interpolation of any rate and crop."""
    space = (1,) * (dims - 1)
    if draw(st.booleans()):
        mode = draw(st.sampled_from(("nearest", "nearest-exact", LINEAR[dims], *(["bicubic"] * (dims == 2)))))
        return new(co.Upsample, None, (draw(st.sampled_from((2, 3, 1.5, 0.5, 0.75, 1 / 3))), *space), mode)
    kernel, dilation, rate = draw(st.integers(1, 5)), draw(st.sampled_from((1, 1, 2))), draw(st.integers(1, 3))
    crop, beyond = draw(st.integers(0, 3)), draw(st.integers(0, max(rate, dilation) - 1))
    options: dict[str, Any] = {"groups": draw(st.sampled_from((1, CHANNELS))), "dilation": (dilation, *space)}
    zeros = (0,) * (dims - 1)
    return new(UP[dims], CHANNELS, CHANNELS, (kernel, *space), (rate, *space), (crop, *zeros), (beyond, *zeros), **options)


def _rise(draw: Draw, dims: int, rate: int) -> nn.Module:
    """A layer that maps ``e`` frames to ``rate * e``."""
    kind = draw(st.sampled_from(("transposed", "transposed", "transposed", "nearest", "linear")))
    if kind != "transposed":
        mode = LINEAR[dims] if kind == "linear" else draw(st.sampled_from(("nearest", "nearest-exact")))
        return new(co.Upsample, None, (rate, *(1,) * (dims - 1)), mode)
    kernel, dilation, padding = draw(st.integers(1, 5)), draw(st.sampled_from((1, 1, 1, 2))), draw(st.integers(0, 2))
    extent = dilation * (kernel - 1) + 1
    beyond = rate + 2 * padding - extent  # what makes the length rate times the input's
    while not 0 <= beyond < max(rate, dilation):
        kernel, padding = (kernel, padding + 1) if beyond < 0 else (kernel + 1, padding)
        beyond = rate + 2 * padding - dilation * (kernel - 1) - 1
    spaces, pads = _space(draw, dims)
    return new(
        UP[dims],
        CHANNELS,
        CHANNELS,
        (kernel, *spaces),
        (rate, *(1,) * (dims - 1)),
        (padding, *pads),
        (beyond, *(0,) * (dims - 1)),
        groups=draw(st.sampled_from((1, 1, CHANNELS))),
        bias=draw(st.sampled_from((True, True, False))),
        dilation=(dilation, *(1,) * (dims - 1)),
    )


def _fall(draw: Draw, dims: int, rate: int) -> nn.Module:
    """A layer that maps ``e`` frames to ``e / rate`` where that is a whole number, as a U-Net goes down."""
    match draw(st.sampled_from(("conv", "pool", "linear"))):
        case "conv":
            padding = draw(st.integers(0, 1))
            return _conv(draw, dims, rate + 2 * padding, 1, rate, padding)
        case "pool":
            return _pool(draw, dims, rate, 1, rate, 0)
    return new(co.Upsample, None, (1 / rate, *(1,) * (dims - 1)), LINEAR[dims])


def _exact(draw: Draw, dims: int, stride: int, loss: int) -> nn.Module:
    """A layer of this stride and loss."""
    choices = ["conv", "conv", "conv"]
    if loss >= 0:
        choices += ["pool", "lp pool", "unfold"]
    if stride == 1:
        choices += ["pad", "padded"]
    if stride == 1 and loss >= 0:
        choices += ["trim", "causal"]
    if stride == 1 and loss == 0:
        choices += ["pointwise", "delay", "same", "looking back", *(["recurrent"] if dims == 1 else [])]
    if dims == 1 and stride == 1 and loss >= 0:
        choices += ["attention"]
    padding = draw(st.integers(max(0, -loss), max(0, -loss) + 2))
    kernel, dilation = _extent(draw, loss + 1 + 2 * padding)
    match draw(st.sampled_from(choices)):
        case "conv":
            return _conv(draw, dims, kernel, dilation, stride, padding)
        case "pool":
            return _pool(draw, dims, loss + 1 + 2 * padding, 1, stride, padding)
        case "lp pool":
            return _lp_pool(draw, dims, loss + 1, stride)
        case "unfold":
            return _unfold(draw, dims, kernel, dilation, stride, padding)
        case "pad":
            start = draw(st.integers(-2, 2))
            return _pad(draw, dims, start, -loss - start)
        case "padded":
            wide = _conv(draw, dims, kernel, dilation, 1, 0)
            start = draw(st.integers(0, 2 * padding))
            return new(co.Sequential, _pad(draw, dims, start, 2 * padding - start), wide)
        case "trim":
            first = draw(st.integers(0, loss))
            return new(co.Trim, first, loss - first)
        case "causal":
            wide = _conv(draw, dims, kernel, dilation, 1, (kernel - 1) * dilation)
            return new(co.Sequential, wide, new(co.Trim, loss, (kernel - 1) * dilation))
        case "delay":
            return new(co.Delay, draw(st.integers(0, 4)))
        case "recurrent":
            return _recurrent(draw)
        case "attention":
            return _attention(draw, loss)
        case "looking back":
            return _looking_back(draw, dims)
        case "same":
            spaces, _ = _space(draw, dims)
            return new(CONV[dims], CHANNELS, CHANNELS, (draw(st.integers(1, 5)), *spaces), padding="same")
    return _pointwise(draw, dims)


# ---- blocks ---------------------------------------------------------------------------------------------------------


def block(draw: Draw, dims: int, stride: int, loss: int, depth: int) -> nn.Module:
    """A block of this stride and loss, nested ``depth`` deep at most."""
    kinds = ["layer"]
    if depth:
        kinds += ["before", "after", "branches", "concat"]
        if stride == 1:
            kinds += ["residual"] * (loss >= 0)
        if (stride, loss) == (1, 0):
            kinds += ["conditional", "twice", "streams", "up and down", "unet"]
    deeper = depth - 1
    match draw(st.sampled_from(kinds)):
        case "layer":
            return _exact(draw, dims, stride, loss)
        case "before":
            return new(co.Sequential, block(draw, dims, 1, 0, deeper), block(draw, dims, stride, loss, deeper))
        case "after":
            return new(co.Sequential, block(draw, dims, stride, loss, deeper), block(draw, dims, 1, 0, deeper))
        case "branches":
            branches = [block(draw, dims, stride, loss, deeper) for _ in range(draw(st.integers(1, 3)))]
            return new(co.BroadcastReduce, *branches, reduce=draw(st.sampled_from(BRANCH_REDUCTIONS)))
        case "concat":
            branches = [block(draw, dims, stride, loss, deeper) for _ in range(2)]
            joined = new(CONV[dims], 2 * CHANNELS, CHANNELS, 1)
            return new(co.Sequential, new(co.BroadcastReduce, *branches, reduce="concat"), joined)
        case "residual":
            shrink = draw(st.sampled_from((True, "centered", "lagging", "leading") if loss else (False, True)))
            inner = _shrinking(draw, dims, loss, deeper)
            return new(co.Residual, inner, residual_shrink=shrink, reduce=draw(st.sampled_from(BRANCH_REDUCTIONS)))
        case "conditional":
            choice = draw(st.booleans())
            a, b = (new(co.continual, block(draw, dims, 1, 0, deeper)) for _ in range(2))
            if any(a.timing.ended(e) != b.timing.ended(e) for e in range(1, 30)):
                return a  # a short clip that one of them refuses has no one length
            return new(co.Conditional, first if choice else second, a, b)
        case "up and down":
            rate = draw(st.integers(2, 3))
            return new(co.Sequential, _rise(draw, dims, rate), block(draw, dims, 1, 0, deeper), _fall(draw, dims, rate))
        case "unet":
            return _unet(draw, dims, deeper)
        case "twice":
            shared = block(draw, dims, 1, 0, deeper)
            return new(co.Sequential, shared, _pointwise(draw, dims), shared)
    branches = [block(draw, dims, 1, 0, deeper) for _ in range(2)]
    order = draw(st.sampled_from(([0, 1], [1, 0], [1, 1])))
    return new(
        co.Sequential, new(co.Broadcast, 2), new(co.Parallel, *branches), new(co.ParallelDispatch, order), new(co.Reduce, "sum")
    )


def _unet(draw: Draw, dims: int, depth: int) -> nn.Module:
    """Down, a block, up, and a skip connection around them."""
    rate = draw(st.sampled_from((2, 2, 3)))
    inner = block(draw, dims, 1, 0, depth)
    branch = new(co.Sequential, _fall(draw, dims, rate), inner, _rise(draw, dims, rate))
    if draw(st.booleans()):
        return new(co.Residual, branch, reduce=draw(st.sampled_from(BRANCH_REDUCTIONS)))
    return new(
        co.Sequential,
        new(co.BroadcastReduce, new(co.Identity), branch, reduce="concat"),
        new(CONV[dims], 2 * CHANNELS, CHANNELS, 1),
    )


def _shrinking(draw: Draw, dims: int, loss: int, depth: int) -> nn.Module:
    """A block that loses frames evenly, as convolutions do (a cut says which ones go, so a shrink can't be guessed)."""
    padding = draw(st.integers(0, 1))
    kernel, dilation = _extent(draw, loss + 1 + 2 * padding)
    made = _conv(draw, dims, kernel, dilation, 1, padding)
    return new(co.Sequential, block(draw, dims, 1, 0, depth), made) if depth else made


def network(draw: Draw, dims: int, depth: int = 2) -> co.CoModule:
    """Up to four blocks and free layers in a row."""
    parts = []
    for _ in range(draw(st.integers(1, 4 if dims == 1 else 2))):
        if draw(st.booleans()):
            parts.append(_free(draw, dims))
        else:
            stride, loss = draw(st.sampled_from((1, 1, 1, 2, 3))), draw(st.sampled_from((0, 0, 0, 1, 2, 3, -2)))
            parts.append(block(draw, dims, stride, loss, depth))
    alone = len(parts) == 1 and isinstance(parts[0], co.CoModule) and draw(st.booleans())
    return parts[0] if alone else new(co.Sequential, *parts)


@st.composite
def networks_and_clips(
    draw: Draw, dims: int = 1, depth: int = 2, dtype: torch.dtype = torch.float64, longest: int = 60
) -> tuple[Any, Tensor]:
    """A random network with a clip that is mostly, but not always, long enough for it."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    net = network(draw, dims, depth).to(dtype).eval()
    field = min(net.receptive_field, longest - 20)
    total = draw(st.integers(max(1, field - 3), field + 4 * min(6, int(net.timing.stride)) + 8))
    clip = torch.randn(draw(st.integers(1, 3)), CHANNELS, total + net.timing.period, *SPACE[dims]).to(dtype)
    while refuses_the_length(net, clip[:, :, :total]):
        total += 1
        assume(total <= clip.shape[2])
    return net, clip[:, :, :total]
