"""Attention masks, read as functions of the positions of query and key, however they were written."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..axes import BATCH
from ..helper_ops import HIDDEN, band_row, factor_row, factor_rows, mask_rows
from ..op_call import CAUSAL, Misfit, Refused
from ..rule_context import RuleContext
from ..shape_queries import LONGER
from ..values import Const, LengthDependent, Stream

Mask = Const | LengthDependent
FULL = "attention to all frames of the clip (bidirectional): each output would wait for the last of them"
DIFFERS = "the mask of attention to a sequence that is not a stream differs from frame to frame"
SAME = "a mask that is the same for all frames"
OTHER_LENGTH = 4  # the index of a sample length that is a little more than the example's
MANY = 1 << 25  # pairs of frames for which a mask is not computed to see how it goes on
ROUNDING = 8  # units in the last place by which equal values may differ


@dataclass(frozen=True)
class Band:
    """A mask that depends on the distance of key and query alone.

    Attributes:
        mask: where it was read, ``(T, T)`` or ``(H, T, T)``.
        size: frames there, ``T``.
        behind, ahead: how many frames before and after it a query sees.
        row: what is added to the scores for each distance, ``(1 or H, behind + ahead + 1)``, where ``-inf`` hides a key; or by what
            they are multiplied, where 0 does.
        rounding: by which values that are equal may differ.
    """

    mask: Const
    size: int
    behind: int
    ahead: int
    row: Tensor
    rounding: float

    @property
    def whole_past(self) -> bool:
        """Whether the last frame sees the first."""
        return self.behind == self.size - 1 > 0

    @property
    def whole_future(self) -> bool:
        """Whether the first frame sees the last."""
        return self.ahead == self.size - 1 > 0


@dataclass(frozen=True)
class _Kind:
    """The effect of a mask on the scores: it is added, or it multiplies them."""

    does: str
    nothing: float
    rows: Callable[[Tensor, Sequence[int]], Tensor]
    row: Callable[[Tensor, int, int], Tensor]
    remedy: str


WEIGHTS = "factors that depend on the distance of the frames alone; one for each query is multiplied with the outcome"
ADDED = _Kind("adds", -math.inf, mask_rows, band_row, CAUSAL)
MULTIPLIED = _Kind("multiplies by", 0.0, factor_rows, factor_row, WEIGHTS)


def band_of(ctx: RuleContext, q: Stream, mask: Mask) -> Band:
    """How far each query looks, and what is added to its scores for each distance.

    Raises:
        Refused: the mask depends on more than the distance, on the length of the clip, or lets its queries see all frames.
    """
    return _band_of(ctx, q, mask, ADDED)[0]


def factors_of(ctx: RuleContext, q: Stream, factors: Mask) -> tuple[Band, bool]:
    """How far each query looks, by what its products with keys are multiplied for each distance, and whether that decays geometrically.

    Raises:
        Refused: as :func:`band_of`.
    """
    band, longer = _band_of(ctx, q, factors, MULTIPLIED)
    return band, band.whole_past and not band.ahead and _geometric(longer)


def _geometric(band: Band) -> bool:
    """Whether factors decay geometrically: each is the same fraction of the next."""
    row = band.row.flip(-1)
    decay, d = (row[:, 1] / row[:, 0]).unsqueeze(1), torch.arange(row.shape[1])
    expected = row[:, :1] * decay**d
    close = (row - expected).abs() <= band.rounding * (1 + d * decay.abs() ** d)
    return bool(close.all()) and bool((decay.abs() <= 1).all())


def _band_of(ctx: RuleContext, q: Stream, mask: Mask, kind: _Kind) -> tuple[Band, Band]:
    """A band, and the same for the longest clips at which it was looked at.

    Raises:
        Refused: the mask depends on more than the distance, on the length of the clip, or lets its queries see all frames.
    """
    sizes = ctx.shapes.length(q.wire).values
    band = longer = read_band(of_all_rows(ctx, mask, q, 0), sizes[0], kind)
    if isinstance(mask, LengthDependent) and (found := for_longer(ctx, q, mask)) is not None:
        other, size = found
        rows = sorted({*range(0, size, max(1, size // 16)), *range(min(3, size)), *range(max(0, size - 3), size)})
        longer = read_band(other, size, kind, rows)
        band = _going_on(band, longer, kind)
    if band.whole_future:
        raise Refused(FULL, CAUSAL)
    return band, longer


def for_longer(ctx: RuleContext, q: Stream, mask: LengthDependent) -> tuple[Const, int] | None:
    """A mask for clips that are longer than the example, and their frames; ``None`` where the module has none, as by a table that ends."""
    sizes = ctx.shapes.length(q.wire).values
    for sample in (LONGER, OTHER_LENGTH):
        if sizes[sample] > sizes[0] and sizes[sample] ** 2 <= MANY:
            with contextlib.suppress(RuntimeError, IndexError, Misfit):
                return of_all_rows(ctx, mask, q, sample), sizes[sample]
    return None


def of_all_rows(ctx: RuleContext, mask: Mask, q: Stream, sample: int) -> Const:
    """A mask for a sample length as ``(T, T)`` or ``(H, T, T)``. Over the rows of the batch it must be constant.

    Args:
        mask: any shape that broadcasts to the scores.
        q: the queries, ``(B, H, T, E)`` or ``(B·H, T, E)``.
        sample: the index of the sample length.
    """
    found, emit = ctx.lengths.constant(mask, sample), ctx.emit
    size, rows = ctx.shapes.length(q.wire).values[sample], ctx.shapes.batches[sample]
    shape = tuple(found.value.shape)
    if len(shape) > 4 or any(n not in (1, size) for n in shape[-2:]) or not shape:
        raise Misfit(f"a mask of attention of the shape {shape} for {size} frames", CAUSAL)
    if len(shape) == 3 == len(q.dims) and BATCH in q.dims[0] and shape[0] > 1:
        if q.dims[0][0] != BATCH:
            raise Misfit(
                "a mask of attention whose heads come before the rows of the batch", "(B, heads, T, T), or (B · heads, T, T)"
            )
        heads = math.prod(f for f in q.dims[0] if isinstance(f, int))
        found = emit.const("aten.reshape.default", [found, [rows, heads, *shape[1:]]])
    if len(found.dims) == 4:
        if not torch.equal(found.value, found.value[:1].expand_as(found.value)):
            raise Refused("a mask of attention that differs between the rows of the batch", CAUSAL)
        found = emit.const("aten.select.int", [found, 0, 0])
    if tuple(found.value.shape[-2:]) != (size, size):
        found = emit.const("aten.expand.default", [found, [*found.value.shape[:-2], size, size]])
    return found


def of_all_frames(ctx: RuleContext, mask: Mask, rank: int) -> Const:
    """One row ``(…, 1, S)`` of the mask of an attention from each frame to tensors that are not streams.

    Args:
        mask: any shape that broadcasts to the scores.
        rank: of the queries, whose first dimension has the rows of the batch.

    Raises:
        Refused: it differs between frames, between rows, or between clips of different lengths.
    """
    samples = (0, OTHER_LENGTH) if isinstance(mask, LengthDependent) else (0,)
    first, *others = (ctx.lengths.constant(mask, sample) for sample in samples)
    one = first if first.value.ndim < 2 else ctx.emit.const("aten.slice.Tensor", [first, -2, 0, 1])
    one = one if one.value.ndim < rank else ctx.emit.const("aten.slice.Tensor", [one, 0, 0, 1])  # of all rows of the batch
    if any(v.value.shape[-1:] != one.value.shape[-1:] or not bool((v.value == one.value).all()) for v in (first, *others)):
        raise Refused(DIFFERS, SAME)
    return one


def read_band(mask: Const, size: int, kind: _Kind, queries: Sequence[int] | None = None) -> Band:
    """Read a mask.

    Args:
        mask: ``(T, T)`` or ``(H, T, T)``.
        size: frames, ``T``.
        kind: what it does with the scores.
        queries: those that are looked at; all by default.

    Raises:
        Refused: it depends on more than the distance of query and key, or hides all frames.
    """
    queries = range(size) if queries is None else queries
    row, found = kind.row(mask.value, size - 1, size - 1), kind.rows(mask.value, queries)
    i = torch.tensor(list(queries)).unsqueeze(1)
    expected = row[:, torch.arange(size) - i + size - 1].expand_as(found)
    rounding = rounding_of(mask.value)
    same = (expected == found) | ((expected - found).abs() <= rounding)
    if not bool(same.all()):
        head, query, key = (int(n) for n in (~same).nonzero()[0])
        raise Refused(
            _two_frames(kind, queries[query], key, float(found[head, query, key]), float(expected[head, query, key])), kind.remedy
        )
    seen = (row != kind.nothing).any(0).nonzero().flatten()
    if not seen.numel():
        raise Refused("a mask that hides all frames", CAUSAL)
    behind, ahead = max(0, size - 1 - int(seen.min())), max(0, int(seen.max()) - (size - 1))
    return Band(mask, size, behind, ahead, row[:, size - 1 - behind : size + ahead], rounding)


def rounding_of(mask: Tensor) -> float:
    """By which values of a mask that are equal may differ."""
    if not mask.is_floating_point():
        return 0.0
    largest = mask.masked_fill(mask <= HIDDEN, 0.0).nan_to_num(0.0, 0.0, 0.0).abs().max()
    return ROUNDING * torch.finfo(mask.dtype).eps * float(largest)


def _two_frames(kind: _Kind, query: int, key: int, own: float, expected: float) -> str:
    """The reason why a mask is not a function of distances."""
    distance = f"{abs(query - key)} {'before' if key < query else 'after'} it"
    start = f"a mask that is not the same for every frame (seen from the frame): frame {query}"
    if (own == kind.nothing) != (expected == kind.nothing):
        sees, others = ("sees", "do not see") if own != kind.nothing else ("does not see", "see")
        return f"{start} {sees} frame {key}, {distance}, and others {others} the frame as far from them"
    return (
        f"{start} {kind.does} {own:.4g} for the score of frame {key}, {distance}; at this distance it is {expected:.4g} elsewhere"
    )


def _going_on(band: Band, longer: Band, kind: _Kind) -> Band:
    """The band, where the example may be too short to show its end.

    Raises:
        Refused: it differs for longer clips.
    """
    for side, whole, here, there in (
        ("before", band.whole_past, band.behind, longer.behind),
        ("after", band.whole_future, band.ahead, longer.ahead),
    ):
        if there < here or (there > here and not whole):
            raise Refused(
                f"the mask of attention depends on the length of the clip: a frame sees {here} frames {side} it in clips of "
                f"{band.size} frames, and {there} in clips of {longer.size}",
                "a window of so many frames for clips of any length",
            )
    start = longer.behind - band.behind
    common = longer.row[:, start : start + band.row.shape[1]]
    close = (common == band.row) | ((common - band.row).abs() <= max(band.rounding, longer.rounding))
    if not bool(close.all()):
        head, place = (int(n) for n in (~close).nonzero()[0])
        a, b = float(band.row[head, place]), float(common[head, place])
        raise Refused(
            f"the mask of attention depends on the length of the clip: for the score of a frame {abs(place - band.behind)} steps away it "
            f"{kind.does} {a:.4g} in clips of {band.size} frames, and {b:.4g} in clips of {longer.size}",
            "numbers that depend on the distance of the frames alone",
        )
    ends = (band.whole_past and not longer.whole_past) or (band.whole_future and not longer.whole_future)
    return longer if ends else band
