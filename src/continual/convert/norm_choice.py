"""Conversion of norms over the whole clip: a refusal, or the norm that the user chooses by ``time_norm``.

The options are for all norms of a network: ``time_norm="cumulative"`` for the statistics of all frames up to now, or
``time_norm="window", norm_window=N`` for those of the last ``N`` frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from ..core.module import CoModule
from ..core.naming import named
from ..core.program.context import KernelContext, Run
from ..core.registry import option, register_builder, register_window, streaming_copy
from ..core.state import StateNode, StateUpdates, StepSpec
from ..errors import NotStreamable, ShapeMismatch
from ..layers import norm_refusals as refusals
from ..layers.norms.causal import (
    CumulativeGroupNorm,
    CumulativeInstanceNorm1d,
    CumulativeInstanceNorm2d,
    CumulativeInstanceNorm3d,
    WindowedGroupNorm,
    WindowedInstanceNorm1d,
    WindowedInstanceNorm2d,
    WindowedInstanceNorm3d,
)
from ..layers.norms.kernel import OfLast, TimeNorm, UpToNow
from ..layers.wrapped import wrap


class LayerNormOverTime(TimeNorm, nn.LayerNorm):
    """``nn.LayerNorm`` without weights, which covers time for some ranks of frames.

    Where it does, it looks back as the norms of :mod:`continual.layers.norms.causal` do; on other frames it is ``nn.LayerNorm`` itself. Its
    timing is always that of the first case.
    """

    def _is_local_in_time(self, frame_ndim: int) -> bool:
        return len(self.normalized_shape) <= frame_ndim - 2

    def groups(self, shape: Sequence[int]) -> int:
        return 1 if len(self.normalized_shape) == len(shape) else shape[1]

    def check(self, frame: StepSpec, path: str) -> None:
        sizes, own, rank = tuple(frame.shape), tuple(self.normalized_shape), len(frame.shape)
        if len(own) > rank:
            raise NotStreamable(f"{path}: normalises the last {len(own)} of {rank + 1} dimensions, the batch among them")
        if not self._is_local_in_time(rank):
            time = len(own) - (rank - 1)
            own = own[:time] + own[time + 1 :]
        if sizes[rank - len(own) :] != own:
            raise ShapeMismatch(f"{path}: normalises the dimensions {own} of a step, got steps {sizes}")
        if not frame.dtype.is_floating_point:
            raise ShapeMismatch(f"{path}: takes floating point numbers, got steps {frame}")

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        if x is None or not self._is_local_in_time(x.ndim - 1):
            return super().advance(x, node, n_if_ended, updates)
        _, _, ended = self.count(x, node, n_if_ended, updates)
        return F.layer_norm(x, self.normalized_shape, None, None, self.eps), ended

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor:
        if not self._is_local_in_time(x.ndim):
            return super().advance_step(x, node, updates)
        updates.tick(node, node.n_in + 1, node.n_out + 1)
        return F.layer_norm(x, self.normalized_shape, None, None, self.eps)

    def program(self, ctx: KernelContext) -> Run:
        if not self._is_local_in_time(len(ctx.node.in_spec.shape)):
            return super().program(ctx)
        return lambda x, rows: F.layer_norm(x, self.normalized_shape, None, None, self.eps)

    def cold(self, frame: StepSpec) -> dict[str, Tensor]:
        return {} if self._is_local_in_time(len(frame.shape)) else super().cold(frame)


class LayerNormUpToNow(LayerNormOverTime, UpToNow):
    """By the statistics of all frames up to now."""


class LayerNormOfLast(LayerNormOverTime, OfLast):
    """By the statistics of the last frames."""


# ---- the choice ---------------------------------------------------------------------------------------------------------


def chosen(memo: dict[int, Any]) -> tuple[str | None, int | None]:
    """The options of :func:`continual.continual`: the kind of statistics, and the window."""
    kind, window = option(memo, "time_norm"), option(memo, "norm_window")
    if kind not in (None, "cumulative", "window"):
        raise ValueError(
            f"time_norm is 'cumulative' or 'window', not {kind!r}; for fixed statistics: co.continual(co.calibrate(net, clips))"
        )
    if kind == "window" and window is None:
        raise ValueError("time_norm='window' needs norm_window, the number of frames over which norms take their statistics")
    if kind != "window" and window is not None:
        raise ValueError(f"norm_window={window!r} goes with time_norm='window'")
    return kind, window


def _as_chosen(
    module: nn.Module, memo: dict[int, Any], path: str, up_to_now: type[TimeNorm], of_last: type[TimeNorm], refusal: str
) -> CoModule:
    """The norm over time that the user has chosen, or the refusal."""
    kind, window = chosen(memo)
    if kind is None:
        raise NotStreamable(f"{named(path, module)}: {refusal}")
    try:
        made: CoModule = (
            streaming_copy(module, memo, up_to_now) if window is None else streaming_copy(module, memo, of_last, window=window)
        )
    except NotStreamable as error:
        raise NotStreamable(f"{named(path, module)}: {error}") from None
    return made


def _group(module: nn.Module, memo: dict[int, Any], path: str) -> CoModule:
    refusal = refusals.group_norm(cast(nn.GroupNorm, module))
    return _as_chosen(module, memo, path, CumulativeGroupNorm, WindowedGroupNorm, refusal)


def _instance(up_to_now: type[TimeNorm], of_last: type[TimeNorm]) -> Callable[[nn.Module, dict[int, Any], str], CoModule]:
    def build(module: nn.Module, memo: dict[int, Any], path: str) -> CoModule:
        norm = cast(nn.InstanceNorm1d, module)
        if norm.track_running_stats:
            return wrap(module, memo=memo)
        return _as_chosen(module, memo, path, up_to_now, of_last, refusals.instance_norm(norm))

    return build


def _layer(module: nn.Module, memo: dict[int, Any], path: str) -> CoModule:
    norm = cast(nn.LayerNorm, module)
    kind, _ = chosen(memo)
    if kind is not None and not norm.elementwise_affine:
        return _as_chosen(module, memo, path, LayerNormUpToNow, LayerNormOfLast, "")
    if reason := refusals.layer_norm(norm):
        raise NotStreamable(f"{named(path, module)}: {reason}")
    return wrap(module, memo=memo)  # it refuses frames of too low a rank


register_builder(nn.GroupNorm, _group)
register_builder(nn.InstanceNorm1d, _instance(CumulativeInstanceNorm1d, WindowedInstanceNorm1d))
register_builder(nn.InstanceNorm2d, _instance(CumulativeInstanceNorm2d, WindowedInstanceNorm2d))
register_builder(nn.InstanceNorm3d, _instance(CumulativeInstanceNorm3d, WindowedInstanceNorm3d))
register_builder(nn.LayerNorm, _layer)
register_window(nn.LayerNorm, LayerNormOverTime)
