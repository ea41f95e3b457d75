"""Fourier transforms of other dimensions than time, and windows of time that are put together again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ....layers.delay import Trim
from ....layers.padding import _ConstantPad, _Pad
from ....layers.signals.stft import STFT
from ..axes import BATCH, TIME, dim_of, fixed
from ..exec_context import Ref
from ..instructions import Layer, Op
from ..op_call import Misfit, OpCall, Refused, RowsMixed, result_shape, results_of
from ..rule_context import RuleContext, rule
from ..values import Const, Stream


@rule("aten._fft_r2c.default", "aten._fft_c2c.default", "aten._fft_c2r.default")
def fft(ctx: RuleContext, call: OpCall) -> Stream:
    """A transform of other dimensions than time."""
    x = call.stream("self")
    dims = [d % len(x.dims) for d in call.integers("dim")]
    if any(TIME in x.dims[d] for d in dims):
        raise Refused(
            "takes the spectrum of the whole clip, of which a stream has seen a part",
            "spectra of windows: torch.stft(…, center=False), or x.unfold(time, size, hop) and torch.fft.rfft over its last dimension",
        )
    if any(BATCH in x.dims[d] for d in dims):
        raise RowsMixed(f"`{call.op}` mixes the rows of the batch", "transforms of other dimensions")
    sizes = fixed(result_shape(call.node))
    return ctx.emit.local(call, tuple(sizes[i] if i in dims else d for i, d in enumerate(x.dims)), x)


@rule("aten.stft.default", "aten.stft.center")
def stft(ctx: RuleContext, call: OpCall) -> Any:
    """Spectra of windows of each row. Others are taken apart into windows and their transforms."""
    x, window, n = call.stream("self"), call.get("window"), call.integer("n_fft")
    if (
        x.dims != ((BATCH,), (TIME,))
        or x.dtype.is_complex
        or not (window is None or isinstance(window, Const))
        or call.get("center")
    ):
        return NotImplemented
    hop, size = ctx.shapes.integer(call.get("hop_length") or n // 4), ctx.shapes.integer(call.get("win_length") or n)
    if window is None:
        window = ctx.emit.const("aten.ones.default", [[size]], {"dtype": x.dtype, "device": results_of(call.node)[0].device})
    elif window.value.dtype != x.dtype:  # an attribute that is no buffer keeps its dtype when the module moves
        window = ctx.emit.const("aten._to_copy.default", [window], {"dtype": x.dtype})
    one, pairs = call.get("onesided") is not False, not call.get("return_complex")
    layer = STFT(n, hop, window=torch.empty(window.value.shape, device="meta"), center=False, normalized=bool(call.get("normalized")),
                 onesided=one, return_complex=not pairs)  # fmt: skip
    x = _padded_in_front(ctx, call, x, layer)
    dims = ((BATCH,), dim_of(layer.bins), (TIME,), *((dim_of(2),) if pairs else ()))
    return ctx.emit.layer(
        call, ctx.emit.unsqueeze_dummy(call, x), layer, dims, weights={"window": window}, label=f"stft {n}, {hop}"
    )


RESHAPES = ("reshape", "squeeze")  # between a pad, which torch takes for clips (1, B, T), and what takes (B, T)


def _padded_in_front(ctx: RuleContext, call: OpCall, x: Stream, layer: STFT) -> Stream:
    """What is padded in front of the windows becomes their own padding, as `center=True` has it: a pad between two reshapes.

    Frames that are mirrored at the start come all at once, in no program. The window waits for them.
    """
    shaped = ctx.draft.sole_use(call.node, x.slot)
    pad = None if not isinstance(shaped, Op) or shaped.label not in RESHAPES else ctx.draft.sole_use(None, shaped.inputs[0])
    padding = pad.module if isinstance(pad, Layer) else None
    if shaped is None or not isinstance(pad, Layer) or not isinstance(padding, _Pad):
        return x
    start, end = padding._pads[-2:]
    constant = isinstance(padding, _ConstantPad) and padding.value == 0
    if not (constant or padding.mode in ("replicate", "reflect")) or min(start, end) < 0 or max(start, end) >= layer.n_fft:
        return x
    if any(padding._pads[:-2]) or tuple(d for d in pad.enter.dims if d) != x.dims:
        return x
    layer.center, layer.pad_mode = True, padding.mode
    layer.set_frames(start, end, "zeros" if constant else padding.mode)
    ctx.draft.instructions.remove(shaped)
    return ctx.emit.undo(pad, replace(x, slot=pad.out))


# ---- windows that are put together again --------------------------------------------------------------------------------


@rule("aten.col2im.default")
def fold(ctx: RuleContext, call: OpCall) -> Stream:
    """Patches become images: frame by frame, or over time, where each adds to the frames that it covers."""
    x = call.stream("self")
    if len(x.dims) != 3 or TIME in x.dims[1] or any(BATCH in d for d in x.dims[1:]):
        raise Refused("`fold` takes time, or rows, for the places in a patch", "patches in dim 1 and time in dim 2: (B, C·k, T)")
    if TIME not in x.dims[2]:
        return ctx.emit.local(call, (x.dims[0], *fixed(result_shape(call.node)[1:])), x)
    kernel, dilation, padding, stride = (
        [ctx.shapes.integer(v) for v in call.sequence(name)] for name in ("kernel_size", "dilation", "padding", "stride")
    )
    side = 0 if kernel[1] == 1 else 1  # of the image, along which time lies
    other, size, hop = 1 - side, kernel[side], stride[side]
    space = dim_of(result_shape(call.node)[2 + other])
    if (kernel[other], padding[other]) != (1, 0) or (space and stride[other] > 1) or dilation[side] > 1 or hop > size:
        raise Refused(
            "`fold` adds patches over time and space at once, or patches whose frames lie apart",
            "patches over time alone, (k, 1), with a stride of k at most and without dilation; space with time in the batch",
        )
    if x.dims[2] != ((TIME, *space) if side == 0 else (*space, TIME)):
        raise Misfit(f"`fold` of patches {ctx.shapes.described(x)}", "a patch for each frame and place, (B, C·k, T·S)")
    channels = fixed((ctx.shapes.shape(x)[1] // size, size))
    y = ctx.emit.reshape(call, x, (x.dims[0], *channels, *(((TIME,), space) if side == 0 else (space, (TIME,)))))
    y = ctx.groups.added(call, ctx.emit.permute(call, y, [0, 1, 3, 4, 2]), size, hop, f"patches of {size}, {hop} apart")
    return _cut(ctx, call, y, padding[side], padding[side])


def _cut(ctx: RuleContext, call: OpCall, x: Stream, first: int, last: int) -> Stream:
    """A stream without its first and last frames."""
    if not first and not last:
        return x
    return replace(ctx.emit.layer(call, x, Trim(first, last), x.dims, label=f"cut {first}, {last}"), dtype=x.dtype)


@rule("aten.istft.default")
def istft(ctx: RuleContext, call: OpCall) -> Stream:
    """Overlapping windows are added, and divided by the sum of the squared windows that lie there: fewer at the ends of the clip."""
    x, n = call.stream("self"), call.integer("n_fft")
    if x.dims[-1] != (TIME,) or BATCH in x.dims[-2] or call.get("return_complex"):
        raise Refused("`istft` does not run over time here, or gives complex numbers", "(B, F, T), and return_complex=False")
    hop, size = call.get("hop_length") or n // 4, call.get("win_length") or n
    hop, size = ctx.shapes.integer(hop), ctx.shapes.integer(size)
    window = _padded(ctx, call, size, n)
    rank, norm = len(x.dims), "ortho" if call.get("normalized") else None
    y = ctx.emit.permute(call, x, [*range(rank - 2), rank - 1, rank - 2])
    half = (*y.dims[:-1], dim_of(n // 2 + 1))
    y = ctx.emit.op(call, "aten.slice.Tensor", y, half, rank - 1, 0, n // 2 + 1, 1, dtype=x.dtype)  # all, if one-sided
    y = ctx.emit.op(call, "aten.fft_irfft.default", y, (*y.dims[:-1], dim_of(n)), n, -1, norm)
    y = ctx.emit.op(call, "aten.mul.Tensor", y, y.dims, Ref(window.slot))
    squares = ctx.emit.expand(call, ctx.emit.const("aten.mul.Tensor", [window, window]), y.dims, [y], y)
    parts = [ctx.groups.added(call, v, n, hop, f"windows of {n}, {hop} apart") for v in (y, squares)]
    first, last = _ends(ctx, call, parts[0], n // 2 if call.get("center", True) else 0)
    total, weights = (_cut(ctx, call, v, first, last) for v in parts)
    args = Ref(total.slot), Ref(weights.slot)
    return ctx.emit.local(call, total.dims, total, target="aten.div.Tensor", args=args, inputs=[total, weights])


def _padded(ctx: RuleContext, call: OpCall, size: int, n: int) -> Const:
    """The window, with zeros on both sides."""
    window, result = call.get("window"), results_of(call.node)[0]
    if window is None:
        window = ctx.emit.const("aten.ones.default", [[size]], {"dtype": result.dtype, "device": result.device})
    if not isinstance(window, Const):
        raise Refused("the window of `istft` depends on the stream", "a constant window")
    left = (n - size) // 2
    return window if size == n else ctx.emit.const("aten.constant_pad_nd.default", [window, [left, n - size - left]])


def _ends(ctx: RuleContext, call: OpCall, x: Stream, half: int) -> tuple[int, int]:
    """How many frames `istft` cuts off at the start and at the end."""
    if call.get("length") is None:
        return half, half
    last = ctx.shapes.length(x.wire).now - half - ctx.shapes.integer(call["length"])
    if last < 0:
        raise Refused(f"`istft` to a length puts {-last} zeros behind the last window", "no length, or a shorter one")
    ctx.draft.note(
        call, f"cuts {last} frames at the end, as for the example: clips have to leave the same rest when hops divide them"
    )
    ctx.draft.divided = True
    return half, last
