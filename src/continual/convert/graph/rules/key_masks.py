"""Attention masks that hide keys independently of the query, beside a band: frames after the length of a row, frames that an input
marks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from ..axes import BATCH, TIME, Dims
from ..exec_context import Ref
from ..helper_ops import HIDDEN
from ..op_call import OpCall, Refused
from ..rule_context import RuleContext
from ..values import Const, LengthDependent, Stream, Value, streams_of
from .masks import Mask

DEPENDS = "the mask of attention depends on the stream, so it is not known which frames are seen"
KEYS = "a causal mask, and one of whole keys: causal & keep[:, None, None, :]"
KeyMask = LengthDependent | Stream


@dataclass(frozen=True)
class Keys:
    """A mask of keys.

    Attributes:
        added: to all scores of each key, as frames ``(B, T, 1)`` or ``(B, 1, T, 1)``: 0, or what hides it.
        spills: whether a frame of which all keys are hidden becomes a mean over hidden frames beyond its band, too.
    """

    added: Stream
    spills: bool


def apart(ctx: RuleContext, call: OpCall, mask: Mask | None, q: Stream) -> tuple[Mask | None, Keys | None]:
    """The parts of a mask that depend on distances, and on keys.

    Raises:
        Refused: it depends on streams in another way.
    """
    if not isinstance(mask, LengthDependent) or not any(streams_of(mask)):
        return mask, None
    keys = {id(k): k for k in _key_masks(ctx, mask)}
    if len(keys) != 1:
        raise Refused(DEPENDS, KEYS)
    (key,) = keys.values()
    if _dtype(key).is_floating_point:
        return _added_to(ctx, call, mask, key, q)
    for kept in (True, False):
        if (found := _hides(ctx, call, mask, key, kept)) is not None:
            hides, spills = found
            return _without(ctx, call, mask, key, kept), Keys(_marks(ctx, call, key, kept, hides, q), spills)
    raise Refused(DEPENDS, KEYS)


def _key_masks(ctx: RuleContext, value: Value) -> Iterator[KeyMask]:
    """The largest parts of a mask that say for keys alone whether they count."""
    if isinstance(value, (list, tuple)):
        for v in value:
            yield from _key_masks(ctx, v)
    elif isinstance(value, (Stream, LengthDependent)) and any(streams_of(value)):
        if _of_keys(ctx, value):
            yield value
        elif isinstance(value, Stream):
            raise Refused(DEPENDS, KEYS)
        else:
            yield from _key_masks(ctx, list(value.args.values()))


def _of_keys(ctx: RuleContext, value: KeyMask) -> bool:
    """Whether a value is a truth value, or a number of a stream, for each frame in its last dimension."""
    if isinstance(value, Stream):
        fits = value.dtype == torch.bool or value.dtype.is_floating_point
        return fits and value.dims[-1:] == ((TIME,),) and not any(TIME in d for d in value.dims[:-1])
    val = value.node.meta.get("val")
    if not isinstance(val, Tensor) or val.dtype != torch.bool or not val.ndim:
        return False
    same = [i for i, rows in enumerate(ctx.shapes.batches) if rows == ctx.shapes.batches[0]]
    varies = [len({ctx.lengths.size(value, d).values[i] for i in same}) > 1 for d in range(val.ndim)]
    return varies[-1] and not any(varies[:-1])


def _dtype(key: KeyMask) -> torch.dtype:
    return key.dtype if isinstance(key, Stream) else cast(torch.dtype, key.node.meta["val"].dtype)


def _exchanged(value: Value, key: KeyMask, new: Value) -> Value:
    """A mask with the mask of keys replaced."""
    if value is key:
        return new
    if isinstance(value, (list, tuple)):
        return [_exchanged(v, key, new) for v in value]
    if isinstance(value, LengthDependent) and any(streams_of(value)):
        return replace(value, args={n: _exchanged(v, key, new) for n, v in value.args.items()})
    return value


def _filled(ctx: RuleContext, call: OpCall, key: KeyMask, value: bool | float) -> LengthDependent:
    """A mask for as many keys, all alike."""
    *rows, frames = (ctx.lengths.size(key, d) for d in range(_rank(key)))
    args: dict[str, Value] = {"size": [*(n.now for n in rows), frames], "fill_value": value, "dtype": _dtype(key)}
    return LengthDependent(call.node, "aten.full.default", args, ("size", "fill_value"), frozenset({"dtype"}))


def _without(ctx: RuleContext, call: OpCall, mask: LengthDependent, key: KeyMask, kept: bool | float) -> LengthDependent:
    """A mask for keys that all count."""
    return cast(LengthDependent, _exchanged(mask, key, _filled(ctx, call, key, kept)))


def _rank(key: KeyMask) -> int:
    return len(key.dims) if isinstance(key, Stream) else int(key.node.meta["val"].ndim)


def _hides(ctx: RuleContext, call: OpCall, mask: LengthDependent, key: KeyMask, kept: bool) -> tuple[float, bool] | None:
    """What is added for a key that is not marked, and whether that spills; ``None`` where marks do more. ``kept``: the value of a mark."""
    every = _added(ctx.lengths.concrete(_without(ctx, call, mask, key, kept)))
    *rows, size = (ctx.lengths.size(key, d).now for d in range(_rank(key)))
    marks = torch.arange(size) * 7 % 5 < 3
    constant = Const(-1, (), (marks == kept).expand(*rows, size))
    some = _added(ctx.lengths.concrete(_exchanged(mask, key, constant)))
    every, marks = every.expand_as(some), marks.expand_as(some)
    seen = every > HIDDEN
    found = (some - every)[seen & ~marks].unique().tolist()
    if len(found) != 1 or found[0] > HIDDEN or not torch.equal(some[marks], every[marks]) or bool((some[~seen] > HIDDEN).any()):
        return None
    return float(found[0]), bool((some[~seen & ~marks] > -torch.inf).any())


def _added_to(ctx: RuleContext, call: OpCall, mask: LengthDependent, key: KeyMask, q: Stream) -> tuple[Mask, Keys]:
    """A mask to which numbers of the keys are added."""
    every = ctx.lengths.concrete(_without(ctx, call, mask, key, 0.0))
    *rows, size = (ctx.lengths.size(key, d).now for d in range(_rank(key)))
    numbers = -(torch.arange(size) * 7 % 5).to(_dtype(key))
    some = ctx.lengths.concrete(_exchanged(mask, key, Const(-1, (), numbers.expand(*rows, size))))
    if not some.is_floating_point() or not torch.equal(some, every + numbers):
        raise Refused(DEPENDS, KEYS)
    found, dims = _as_frames(ctx, call, key, q)
    added = found if found.dtype == q.dtype else ctx.emit.op(call, "aten.to.dtype", found, dims, q.dtype, dtype=q.dtype)
    return _without(ctx, call, mask, key, 0.0), Keys(replace(added, fill=None), False)


def _added(mask: Tensor) -> Tensor:
    """A mask as what is added to the scores."""
    return mask if mask.dtype != torch.bool else torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)


def _as_frames(ctx: RuleContext, call: OpCall, key: KeyMask, q: Stream) -> tuple[Stream, Dims]:
    """A mask of keys as frames ``(B, T, 1)`` or ``(B, 1, T, 1)``."""
    found = ctx.lengths.beside(key, q) if isinstance(key, LengthDependent) else key
    if not isinstance(found, Stream) or found.dims[-1] != (TIME,) or [d for d in found.dims[:-1] if d] != [(BATCH,)]:
        raise Refused(DEPENDS, KEYS)
    dims: Dims = ((BATCH,), *((),) * (len(q.dims) - 3), (TIME,), ())
    return ctx.emit.reshape(call, found, dims), dims


def _marks(ctx: RuleContext, call: OpCall, key: KeyMask, kept: bool, hides: float, q: Stream) -> Stream:
    """What is added to the scores of each key, as frames."""
    emit, (hidden, dims) = ctx.emit, _as_frames(ctx, call, key, q)
    if kept:
        hidden = emit.op(call, "aten.logical_not.default", hidden, dims, dtype=torch.bool)
    numbers = emit.op(call, "aten.to.dtype", hidden, dims, q.dtype, dtype=q.dtype)
    args = Ref(numbers.slot), Ref(hidden.slot), hides
    return emit.local(call, dims, hidden, target="aten.masked_fill.Scalar", args=args, inputs=[numbers, hidden], dtype=q.dtype)
