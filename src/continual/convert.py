"""Conversion: from `torch.nn` modules to streaming ones."""

from __future__ import annotations

from typing import Any

from torch import nn

from . import norm_choice  # noqa: F401 (it registers its conversions)
from .conv import Conv1d, Conv2d, Conv3d
from .linear import Linear
from .local import forward_stepping
from .module import CoModule
from .pooling import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from .registry import register, register_refusal, register_twin, register_window, with_options
from .unstreamable import REASONS

__all__ = ["continual", "forward_stepping", "register"]

_TWINS: tuple[tuple[type[nn.Module], type[CoModule]], ...] = (
    (nn.Conv1d, Conv1d),
    (nn.Conv2d, Conv2d),
    (nn.Conv3d, Conv3d),
    (nn.AvgPool1d, AvgPool1d),
    (nn.AvgPool2d, AvgPool2d),
    (nn.AvgPool3d, AvgPool3d),
    (nn.MaxPool1d, MaxPool1d),
    (nn.MaxPool2d, MaxPool2d),
    (nn.MaxPool3d, MaxPool3d),
    (nn.Linear, Linear),
)
_WINDOWS: tuple[tuple[type[nn.Module], type[CoModule]], ...] = (
    (nn.AdaptiveAvgPool1d, AdaptiveAvgPool1d),
    (nn.AdaptiveAvgPool2d, AdaptiveAvgPool2d),
    (nn.AdaptiveAvgPool3d, AdaptiveAvgPool3d),
    (nn.AdaptiveMaxPool1d, AdaptiveMaxPool1d),
    (nn.AdaptiveMaxPool2d, AdaptiveMaxPool2d),
    (nn.AdaptiveMaxPool3d, AdaptiveMaxPool3d),
)
for _torch, _co in _TWINS:
    register_twin(_torch, _co)
for _torch, _co in _WINDOWS:
    register_window(_torch, _co)

for _torch, _reason in REASONS.items():
    register_refusal(_torch, _reason)


def continual(module: nn.Module, **options: Any) -> Any:
    """The streaming version of a module: same weights, same function, step by step.

    Takes modules of registered classes and their subclasses, and ``nn.Sequential`` of them. The module itself is not changed;
    parameters are copied, and what shared a parameter still does. Dtype, device, ``requires_grad``, the training flag, hooks and
    parametrisations (weight norm) are kept. In-place activations become ordinary ones.

    Args:
        module: the module. A :class:`CoModule` is returned as it is.
        options: choices that some modules need, such as ``sequence_len`` for attention over a window. For norms over the whole
            clip (``nn.GroupNorm`` and its like): ``time_norm="cumulative"``, or ``time_norm="window", norm_window=frames``
            (or first :func:`~continual.frozen.calibrate`).

    Raises:
        TypeError: an option that no module in it takes.
        NotStreamable: a class that is not known, or that can't be streamed exactly, with its path and what you can do.

    Example:
        >>> net = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU()).eval()
        >>> stream = co.continual(net)
        >>> clip = torch.randn(1, 2, 10)
        >>> torch.allclose(stream.forward_steps(clip, pad_end=True), net(clip), atol=1e-6)
        True
    """
    return with_options(module, **options)
