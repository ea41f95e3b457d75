"""Padding, and windows that slide."""

from __future__ import annotations

from typing import Any

from ....layers import padding as pads
from ....layers.delay import Trim
from ..axes import View
from ..instructions import Ref
from ..op_call import Call, Refused, rule
from ..time_layers import Taps
from ..values import Stream
from ..walker import Builder
from .parts import alone, whole, with_dim

PADS: Any = {
    "constant": (None, pads.ConstantPad1d, pads.ConstantPad2d, pads.ConstantPad3d),
    "replicate": (None, pads.ReplicationPad1d, pads.ReplicationPad2d, pads.ReplicationPad3d),
    "reflect": (None, pads.ReflectionPad1d, pads.ReflectionPad2d, pads.ReflectionPad3d),
}


@rule("aten.pad.default", "aten.constant_pad_nd.default")
def pad(b: Builder, call: Call) -> Stream:
    """Padding of space on every frame, of time by a streaming layer."""
    x: Stream = call["self"]
    mode, value = call.get("mode", "constant"), call.get("value")
    amounts = [b.number(p, "the padding") for p in call["pad"]]
    rank, pairs = len(x.dims), {len(x.dims) - 1 - i: (amounts[2 * i], amounts[2 * i + 1]) for i in range(len(amounts) // 2)}
    time = next((d for d, p in pairs.items() if any(p) and alone(b, call, x, d, "pads")), None)
    if time is not None and mode == "circular":
        raise Refused(
            "pads time with frames from the other end of the clip (circular), which a stream has not seen",
            "padding by zeros or 'replicate'",
        )
    if time is not None and mode not in PADS:
        raise Refused(f"pads time by mode {mode!r}", "'constant', 'replicate' or 'reflect'")
    space = {d: p for d, p in pairs.items() if d != time and any(p)}
    if space:
        flat = [v for i in range(len(amounts) // 2) for v in space.get(rank - 1 - i, (0, 0))]
        dims = tuple(whole(s + sum(space[d])) if d in space else x.dims[d] for d, s in enumerate(b.shape(x)))
        args = (Ref(x.slot), flat, mode, value) if call.op == "pad" else (Ref(x.slot), flat, value or 0)
        x = b.local(call, dims, x, args=args, kwargs={}, inputs=[x])
    return (
        x
        if time is None
        else pad_time(b, call, x, pairs[time], mode, 0.0 if value is None else b.number(value, "the padding's value"))
    )


def pad_time(b: Builder, call: Call, x: Stream, amounts: tuple[int, int], mode: str, value: float) -> Stream:
    """Padding of time."""
    maker = b.maker(call, x) if mode == "constant" else None
    if (
        maker is not None
        and isinstance(maker.module, Trim)
        and not any(a and c for a, c in zip(amounts, (maker.module.first, maker.module.last)))
    ):
        amounts = (
            amounts[0] - maker.module.first,
            amounts[1] - maker.module.last,
        )  # a shift: in one layer, and without delay if it can
        x = b.undo(maker, x)
    n = max(1, len(View(x.dims).order) - 2)
    if n > 3:
        raise Refused("pads time of a tensor of more than 5 dimensions", "merge dimensions before")
    flat = (*(0,) * 2 * (n - 1), *amounts)
    layer = PADS[mode][n](flat, float(value)) if mode == "constant" else PADS[mode][n](flat)
    return b.layer(
        call, x, layer, x.dims, label=f"pad {amounts[0]}, {amounts[1]} ({mode})", fill=x.fill if x.fill == value else None
    )


@rule("aten.unfold.default")
def unfold(b: Builder, call: Call) -> Stream:
    """Sliding windows in a new last dimension."""
    x: Stream = call["self"]
    dim, size, step = int(call["dimension"]) % len(x.dims), int(call["size"]), int(call["step"])
    if alone(b, call, x, dim, "slides over"):
        x = b.roomy(call, x)
        return b.snug(
            call,
            b.layer(call, x, Taps(size, step), (*x.dims, whole(size)), label=f"unfold {size}, {step}"),
            len(call["self"].dims) + 1,
        )
    count = (b.shape(x)[dim] - size) // step + 1
    return b.local(call, (*with_dim(x.dims, dim, whole(count)), whole(size)), x)
