"""Interpolation: of space on every frame, of time by a factor."""

from __future__ import annotations

from fractions import Fraction

from ....errors import ContinualError
from ....layers.upsample import Upsample
from ..axes import BATCH, TIME, View, dim_of, where
from ..exec_context import Arg, Ref, Shape
from ..op_call import Merged, Misfit, OpCall, Refused, RowsMixed, result_shape
from ..rule_context import RuleContext, rule
from ..values import Stream, as_number
from ..without_rows import with_rows
from .elementwise import joined
from .parts import expanded_argument, with_streams

MODES = {"nearest": ("nearest",) * 4, "nearest-exact": ("nearest-exact",) * 4, "linear": ("", "linear", "bilinear", "trilinear"),
         "cubic": ("", "", "bicubic", "")}  # fmt: skip
FACTOR = "scale_factor=…; or size=y.shape[time] of a stream y with a whole multiple of frames"
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
def interpolate(ctx: RuleContext, call: OpCall) -> Stream:
    """Interpolation to other sizes."""
    x = call.stream("input")
    n, kind, shape = len(x.dims) - 2, OPS[call.name], result_shape(call.node)
    if any(BATCH in d for d in x.dims[-n:]):
        raise RowsMixed(f"`{call.op}` interpolates between the rows of the batch", "the batch in dim 0")
    at = next((i for i, d in enumerate(x.dims) if TIME in d and i >= 2), None)
    dims = tuple(d if i < 2 or i == at else dim_of(s) for i, (d, s) in enumerate(zip(x.dims, shape, strict=True)))
    if at is None:
        return ctx.emit.local(call, dims, x)
    if x.dims[at] != (TIME,):
        raise Merged(f"`{call.op}` interpolates time merged with another dimension", "keep time a dimension of its own")
    if kind == "antialiased":
        raise Refused("antialiased interpolation of time", "antialias=False, or average pooling")
    factor = _factor(ctx, call, x, at)
    if dims != x.dims:  # space first, on every frame
        corners: list[Arg] = [bool(call["align_corners"])] if kind in ("linear", "cubic") else []
        x = ctx.emit.local(call, dims, x, args=(Ref(x.slot), Shape(dims[2:]), *corners, None), inputs=[x])
    if factor == 1:
        return x
    if call.get("align_corners"):
        raise Refused(
            "interpolates time with align_corners=True, so that all places depend on the length of the clip",
            "align_corners=False",
        )
    return over_time(ctx, call, x, factor, kind)


def _factor(ctx: RuleContext, call: OpCall, x: Stream, at: int) -> Fraction | float:
    """Output frames per input frame."""
    if call.get("scale_factors"):
        return as_number(call.sequence("scale_factors")[at - 2])
    length, wanted = ctx.shapes.length(x.wire), ctx.shapes.sized(call.sequence("output_size")[at - 2])
    if (
        ctx.shapes.length_is_fixed(call, at) and wanted.constant and wanted.now % length.now == 0
    ):  # the export knows one length alone
        ctx.draft.note(
            call, f"interpolates {length.now} frames to {wanted.now}, for clips of other lengths as many times as many"
        )
        ctx.draft.divided = True
        return Fraction(wanted.now, length.now)
    ratios = [Fraction(w, n) for w, n in zip(wanted.values, length.values, strict=True)]
    if len(set(ratios[:3])) > 1:
        period, remedy = ctx.draft.wires.timing(x.wire).period, FACTOR
        if wanted.varies and wanted.now % period:
            example = wanted.now - wanted.now % period or period
            remedy = f"an example of {example} frames, or of another multiple of {period}, for which the factor is a whole number"
        raise Misfit(
            f"interpolates time from {length.now} frames to {wanted.now}: another factor for each length of the clip", remedy
        )
    if len(set(ratios)) > 1:
        ctx.draft.note(
            call, "interpolates time to the length of another stream: clips have to be of lengths that the strides divide"
        )
        ctx.draft.divided = True
    return ratios[0]


def over_time(ctx: RuleContext, call: OpCall, x: Stream, factor: Fraction | float, kind: str) -> Stream:
    """Upsampling of time alone."""
    n = max(1, len(View(with_rows(x.dims, x.dims)[0] if where(x.dims, BATCH) is None else x.dims).order) - 2)
    mode = MODES[kind][n] if n < 4 else ""
    if not mode:
        raise Refused(f"interpolation ({kind}) of time on {n + 2} dimensions", "interpolate (B, C, T)")
    scale = int(factor) if factor == int(factor) else float(factor)
    corners = False if kind in ("linear", "cubic") else None
    try:
        layer = Upsample(scale_factor=(scale, *(1,) * (n - 1)), mode=mode, align_corners=corners)
    except ContinualError as error:
        raise Refused(str(error), "a whole factor") from None
    return ctx.emit.layer(call, x, layer, x.dims, label=f"upsample ×{factor} ({mode})")


@rule("aten.grid_sampler.default")
def grid_sample(ctx: RuleContext, call: OpCall) -> Stream:
    """Samples of images at given places, frame by frame."""
    x = call.stream("input")
    grid = expanded_argument(ctx, call, "grid", x)
    if any(TIME in d or BATCH in d for d in (*x.dims[2:], *grid.dims[1:])):
        raise Refused(
            "`grid_sample` takes samples between frames of the clip",
            "sample frame by frame, with time in the batch; interpolate over time",
        )
    rows = joined(call, [x.dims[:1], grid.dims[:1]], "`grid_sample` of images and places whose rows do not fit")
    return with_streams(ctx, call, {"grid": grid}, (*rows, x.dims[1], *grid.dims[1:-1]))
