"""Interpolation, of space on every frame and of time by a factor."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from ....errors import ContinualError
from ....layers.upsample import Upsample
from ..axes import BATCH, TIME, View, joined_dims
from ..instructions import Ref, Shape
from ..op_call import Call, Misfit, Refused, hint, rule
from ..values import Size, Stream
from ..walker import Builder
from .parts import positional, spread_out

MODES = {"nearest": ("nearest",) * 4, "nearest-exact": ("nearest-exact",) * 4, "linear": ("", "linear", "bilinear", "trilinear"),
         "cubic": ("", "", "bicubic", "")}  # fmt: skip
OPS = {
    f"aten.{op}.vec": kind
    for ops, kind in (
        (("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"), "nearest"),
        (("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d"), "nearest-exact"),
        (("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"), "linear"),
        (("upsample_bicubic2d",), "cubic"),
        (("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"), "antialiased"),
    )
    for op in ops
}


@rule(*OPS)
def interpolate(b: Builder, call: Call) -> Stream:
    """Interpolation to other sizes."""
    x: Stream = call["input"]
    n, kind = len(x.dims) - 2, OPS[call.name]
    if any(BATCH in d for d in x.dims[-n:]):
        raise Refused(f"`{call.op}` interpolates between the rows of the batch", "the batch in dim 0")
    out = [hint(s) for s in call.node.meta["val"].shape]
    at = next((i for i, d in enumerate(x.dims) if TIME in d), None)
    if at is None or at < 2:
        dims = tuple(d if i < 2 else ((s,) if s != 1 else ()) for i, (d, s) in enumerate(zip(x.dims, out, strict=True)))
        return b.local(call, dims, x)
    if x.dims[at] != (TIME,):
        raise Misfit(f"`{call.op}` interpolates time merged with another dimension", "keep time a dimension of its own")
    if kind == "antialiased":
        raise Refused("antialiased interpolation of time", "antialias=False, or average pooling")
    factor = _factor(b, call, x, at)
    dims = tuple(d if i < 2 or i == at else ((s,) if s != 1 else ()) for i, (d, s) in enumerate(zip(x.dims, out, strict=True)))
    if dims != x.dims:  # space first, on every frame
        sizes: list[Any] = [Ref(x.slot), Shape(dims[2:])]
        if kind in ("linear", "cubic"):
            sizes.append(bool(call["align_corners"]))
        x = b.local(call, dims, x, args=(*sizes, None), kwargs={}, inputs=[x])
    if factor == 1:
        return x
    if call.get("align_corners"):
        raise Refused(
            "interpolates time with align_corners=True, so that all places depend on the length of the clip",
            "align_corners=False",
        )
    return over_time(b, call, x, factor, kind)


def _factor(b: Builder, call: Call, x: Stream, at: int) -> Fraction | float:
    """Wire per input over time."""
    scales, sizes = call.get("scale_factors"), call.get("output_size")
    if scales:
        return scales[at - 2]
    length = b.length(x.wire)
    wanted = Size.of(sizes[at - 2], len(b.lengths))
    if b.length_is_fixed(call, at) and wanted.steady and wanted.now % length.now == 0:  # the export knows one length alone
        b.note(call, f"interpolates {length.now} frames to {wanted.now}, for clips of other lengths as many times as many")
        b.divided = True
        return Fraction(wanted.now, length.now)
    ratios = {Fraction(w, n) for w, n in zip(wanted.values[:3], length.values[:3], strict=True)}
    if len(ratios) > 1:
        raise Misfit(
            f"interpolates time to {wanted.now} frames whatever the length of the clip, or to another number than a multiple",
            "scale_factor=…; or size=y.shape[time] of a stream y with a whole multiple of frames",
        )
    factor = ratios.pop()
    if {Fraction(w, n) for w, n in zip(wanted.values, length.values, strict=True)} != {factor}:
        b.note(call, "interpolates time to the length of another stream: clips have to be of lengths that the strides divide")
        b.divided = True
    return factor


def over_time(b: Builder, call: Call, x: Stream, factor: Any, kind: str) -> Stream:
    """Upsampling of time alone."""
    n = max(1, len(View(x.dims).order) - 2)
    mode = MODES[kind][n] if n < 4 else ""
    if not mode:
        raise Refused(f"interpolation ({kind}) of time on {n + 2} dimensions", "interpolate (B, C, T)")
    whole = int(factor) if factor == int(factor) else float(factor)
    try:
        layer = Upsample(
            scale_factor=(whole, *(1,) * (n - 1)), mode=mode, align_corners=False if kind in ("linear", "cubic") else None
        )
    except ContinualError as error:
        raise Refused(str(error), "a whole factor") from None
    return b.layer(call, x, layer, x.dims, label=f"upsample ×{factor} ({mode})")


@rule("aten.grid_sampler.default")
def grid_sample(b: Builder, call: Call) -> Stream:
    """Samples of images at given places, frame by frame."""
    x, grid = call["input"], spread_out(b, call, "grid", call["input"])
    if any(TIME in d or BATCH in d for d in (*x.dims[2:], *grid.dims[1:])):
        raise Refused(
            "`grid_sample` takes samples between frames of the clip",
            "sample frame by frame, with time in the batch; interpolate over time",
        )
    dims = joined_dims([x.dims[:1], grid.dims[:1]])
    if dims is None:
        raise Misfit("`grid_sample` of images and places whose rows do not fit", "as many places as images")
    return positional(b, call, {"grid": grid}, (*dims, x.dims[1], *grid.dims[1:-1]))
