"""Power-average pooling over time: the p-th root of the sum of p-th powers, or the largest or smallest magnitude."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.program.context import KernelContext
from ...core.registry import register_class
from ..window_program import Windows
from .base import _Pool, quick
from .program import Divide, counts
from .van_herk import cumulative_max, cumulative_sum, older_max

_AVG: Any = (None, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_MAX: Any = (None, F.max_pool1d, F.max_pool2d, F.max_pool3d)
_LP: Any = (None, F.lp_pool1d, F.lp_pool2d, F.lp_pool3d)


class _LPPool(_Pool):
    """What the three layers share. As torch.nn does, they average the powers and multiply by the size of the kernel.

    With an infinite norm they are maximum pooling of magnitudes, or of their negatives.
    """

    _native_fill = "zeros"
    norm_type: float

    def __init__(
        self,
        norm_type: float,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        ceil_mode: bool = False,
    ):
        super().__init__(norm_type, kernel_size, stride, ceil_mode)
        self.configure()

    def configure(self) -> None:  # type: ignore[override]  # there is no padding to fill
        if self.norm_type == 0 or math.isnan(self.norm_type):
            raise ValueError(f"{type(self).__name__}: norm_type is a number other than 0, got {self.norm_type}")
        self.padding, self.dilation = 0, 1
        self._extreme = math.isinf(self.norm_type)
        self.nothing = -math.inf if self._extreme else 0.0
        super().configure()
        self._size = math.prod(self.kernel_size)

    def forward(self, input: Tensor) -> Tensor:
        """The clip computation: that of the ``torch.nn`` layer."""
        if input.shape[-self.dims] < self.kernel_size[0]:
            return self.windows_of(input)  # with ceil_mode, which torch.nn refuses for some ranks
        kernel = self.kernel_size[0] if self.dims == 1 else self.kernel_size
        pooled: Tensor = _LP[self.dims](input, self.norm_type, kernel, self.stride, self.ceil_mode)
        return pooled

    # ---- kernels: what is kept of a frame are its powers, averaged over space -----------------------------------------

    def powers(self, x: Tensor) -> Tensor:
        """The values that are summed or compared."""
        if self._extreme:
            return x.abs() if self.norm_type > 0 else -x.abs()
        return x.pow(self.norm_type)

    def enter(self, x: Tensor) -> Tensor:
        return super().enter(x) if self._over_space else self.powers(x)

    def enter_step(self, x: Tensor) -> Tensor:
        return super().enter_step(self.powers(x))

    def over_space(self, x: Tensor) -> Tensor:
        pool, kernel, stride = (_MAX if self._extreme else _AVG)[self.dims - 1], self.kernel_size[1:], self.stride[1:]
        y: Tensor = pool(quick(x), kernel, stride, 0, ceil_mode=self.ceil_mode)
        return y

    def combine(self, older: Tensor, newer: Tensor) -> Tensor:
        return older_max(older, newer) if self._extreme else older + newer

    def cumulate(self, x: Tensor, dim: int, reverse: bool) -> Tensor:
        return (cumulative_max if self._extreme else cumulative_sum)(x, dim, reverse)

    def finish(self, y: Tensor, start: int, ended: int | None) -> Tensor:
        if self._extreme:
            return y if self.norm_type > 0 else -y
        divisor: Tensor | int = self._taps
        if ended is not None:  # the last windows may reach beyond the clip
            there = [min(self._taps, ended - start - self._window.stride * j) for j in range(y.shape[2])]
            divisor = torch.tensor(there, dtype=y.dtype, device=y.device).view(-1, *(1,) * (y.ndim - 3))
        return self._root(y / divisor)

    def _root(self, mean: Tensor) -> Tensor:
        return (mean.sign() * mean.abs().relu()).mul(self._size).pow(1 / self.norm_type)  # torch.nn's way, for its gradients

    def program_divisor(self, ctx: KernelContext, windows: Windows | None) -> Divide:
        counted = None if windows is None or self._extreme else counts(ctx, self, windows, padded=False)
        return super().program_divisor(ctx, windows) if counted is None else lambda y, rows: self._root(y / counted(y, rows))

    def _finish_step(self, y: Tensor) -> Tensor:
        if self._extreme:
            return y if self.norm_type > 0 else -y
        return (y / self._taps).mul_(self._size).pow_(1 / self.norm_type)


class LPPool1d(_LPPool, nn.LPPool1d):
    """Power-average pooling over time, ``nn.LPPool1d`` on clips ``(B, C, T)`` and on steps ``(B, C)``.

    A window of values ``x`` gives ``(Σ x^p)^(1/p)``, as in ``torch.nn``: powers keep their sign, so an odd or fractional ``p`` is
    for values that are not negative.

    Args:
        norm_type: ``p``, a number other than 0, or ``±inf`` for the largest or the smallest magnitude.
        kernel_size, stride, ceil_mode: as ``torch.nn.LPPool1d``; ``stride`` defaults to the kernel.

    Example:
        >>> pool = co.LPPool1d(2, kernel_size=2, stride=1)
        >>> [pool.forward_step(torch.tensor([[x]])) for x in (3.0, -4.0, 0.0)]
        [None, tensor([[5.]]), tensor([[4.]])]
    """

    dims = 1


class LPPool2d(_LPPool, nn.LPPool2d):
    """Power-average pooling over time and one more axis: clips ``(B, C, T, S)``, steps ``(B, C, S)``; as :class:`LPPool1d`."""

    dims = 2


class LPPool3d(_LPPool, nn.LPPool3d):
    """Power-average pooling over time and space: clips ``(B, C, T, H, W)``, steps ``(B, C, H, W)``; as :class:`LPPool1d`."""

    dims = 3


register_class(nn.LPPool1d, LPPool1d)
register_class(nn.LPPool2d, LPPool2d)
register_class(nn.LPPool3d, LPPool3d)
