"""Products of queries and keys that are weighed by distance, without a softmax: retention, linear attention, a band of them."""

from __future__ import annotations

from collections.abc import Sequence

from ....layers.attention.retention import BandProduct, Retention
from ..op_call import OpCall
from ..rule_context import RuleContext
from ..values import Stream, TensorValue
from .attention import in_heads, joined_heads
from .masks import Mask, factors_of


def retain(ctx: RuleContext, call: OpCall, parts: Sequence[Stream], factors: Mask, scale: float) -> Stream:
    """Values ``(…, T, V)`` weighed by products of queries and keys.

    Args:
        ctx, call: the operation.
        parts: queries, keys and values.
        factors: they multiply the products, ``(…, T, T)``; 0 hides a key.
        scale: of the products.
    """
    q, k, v = joined_heads(ctx, call, parts)
    size, value_size = ctx.shapes.shape(q)[-1], ctx.shapes.shape(v)[-1]
    band, decays = factors_of(ctx, q, factors)
    if decays:
        names = ("decay", "gain")
        kept: dict[str, TensorValue] = {n: ctx.emit.const(f"helper_ops:{n}_of", [band.mask]) for n in names}
        return in_heads(ctx, call, (q, k, v), Retention(size, value_size, scale), kept, "retention")
    if band.whole_past:
        ctx.draft.window_note(
            call, f"weights for each distance over the {band.size} frames of a clip; in a stream over a sliding window of as many"
        )
    row = ctx.emit.const("helper_ops:factor_row", [band.mask, band.behind, band.ahead])
    layer = BandProduct(band.behind, band.ahead, size, value_size, scale, True)
    return in_heads(ctx, call, (q, k, v), layer, {"bias": row}, f"products −{band.behind} … +{band.ahead}")
