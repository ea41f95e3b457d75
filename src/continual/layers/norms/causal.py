"""Norms over time that a stream can compute: by the statistics of all frames up to now, or of the last ones.

``nn.GroupNorm`` and its like take their statistics over the whole clip, so no output could leave before the last frame is there.
The norms here are other functions, which only look back, and they are so in all three forward modes: what is trained with them
streams exactly. How ``co.continual`` chooses one of them is in :mod:`continual.convert.norm_choice`; norms with fixed statistics are in
:mod:`continual.layers.norms.frozen`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ...core.registry import register_window
from ...core.state import StepSpec
from ...errors import ShapeMismatch
from .kernel import OfLast, TimeNorm, UpToNow


class _Group(TimeNorm, nn.GroupNorm):
    """Groups of channels, as ``nn.GroupNorm``."""

    def groups(self, shape: Sequence[int]) -> int:
        return self.num_groups

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"

    def check(self, frame: StepSpec, path: str) -> None:
        super().check(frame, path)
        if frame.shape[1] != self.num_channels:
            raise ShapeMismatch(f"{path}: expects steps of {self.num_channels} channels, got {tuple(frame.shape)}")


class _Layer(_Group):
    """All channels in one group."""

    def __init__(self, num_channels: int, eps: float = 1e-5, affine: bool = True, device: Any = None, dtype: Any = None):
        super().__init__(1, num_channels, eps, affine, device, dtype)

    def configure(self) -> None:
        super().configure()
        if self.num_groups != 1:
            raise ValueError(f"{type(self).__name__} stands for GroupNorm(1, C), not for {self.num_groups} groups")

    def extra_repr(self) -> str:
        return f"{self.num_channels}, eps={self.eps}, affine={self.affine}"


class _Instance(TimeNorm):
    """Every channel alone, as ``nn.InstanceNorm`` without running statistics."""

    dims: int
    num_features: int
    affine: bool

    def __init__(self, num_features: int, eps: float = 1e-5, *, affine: bool = False, device: Any = None, dtype: Any = None):
        init: Any = super().__init__  # of the torch.nn class, whose momentum is of no use here
        init(num_features, eps, affine=affine, device=device, dtype=dtype)

    def configure(self) -> None:
        super().configure()
        if getattr(self, "track_running_stats", False):
            raise ValueError(
                f"{type(self).__name__}: the module has running statistics and takes none from clips; in eval mode "
                "co.continual(module) streams it as it is"
            )

    def groups(self, shape: Sequence[int]) -> int:
        return shape[1]

    def check(self, frame: StepSpec, path: str) -> None:
        super().check(frame, path)
        if len(frame.shape) != self.dims + 1:
            dims = ", ".join(["B", "C", *"HW"[3 - self.dims :]])
            raise ShapeMismatch(f"{path}: expects steps ({dims}), got {tuple(frame.shape)}")

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, affine={self.affine}"


class _Instance1d(_Instance, nn.InstanceNorm1d):
    dims = 1


class _Instance2d(_Instance, nn.InstanceNorm2d):
    dims = 2


class _Instance3d(_Instance, nn.InstanceNorm3d):
    dims = 3


for _torch, _kind in (
    (nn.GroupNorm, _Group),
    (nn.InstanceNorm1d, _Instance1d),
    (nn.InstanceNorm2d, _Instance2d),
    (nn.InstanceNorm3d, _Instance3d),
):
    register_window(_torch, _kind)


# ---- by all frames up to now --------------------------------------------------------------------------------------------


class CumulativeGroupNorm(UpToNow, _Group):
    """``nn.GroupNorm`` by the statistics up to now: of all frames up to and including the one that is normalised.

    For a group of channels at step ``t`` these are the mean and the variance of its values in the frames ``0 … t`` of the stream,
    over space too. The last frame of a clip is normalised as ``nn.GroupNorm`` would, the ones before by less. ``forward`` does
    the same on clips ``(B, C, T, *S)``.

    Statistics are kept in float64, and with mean and variance, not sums, so they neither overflow nor lose digits, however
    long the stream and however large its mean. After ``n`` steps a new frame counts ``1/n``: an endless stream whose level changes
    is followed ever more slowly. Then call :meth:`clean_state` now and then, or take :class:`WindowedGroupNorm`. A NaN stays
    until :meth:`clean_state`.

    Args:
        num_groups, num_channels, eps, affine, device, dtype: as ``torch.nn.GroupNorm``.

    Raises:
        ShapeMismatch: a step of another number of channels, dtype or device.

    Example:
        >>> norm, clip = co.CumulativeGroupNorm(2, 4), torch.randn(3, 4, 10)
        >>> torch.allclose(torch.stack([norm.forward_step(step) for step in clip.unbind(2)], 2), norm(clip), atol=1e-5)
        True
        >>> torch.allclose(norm(clip)[:, :, -1], nn.GroupNorm(2, 4)(clip)[:, :, -1], atol=1e-5)
        True

    Source: Y. Wu and K. He, "Group Normalization", ECCV 2018, for groups; :class:`CumulativeLayerNorm` for cumulation.
    """


class CumulativeLayerNorm(UpToNow, _Layer):
    """Normalise by the statistics of all channels (and space) in all frames up to now, with a weight and a bias per channel.

    With ``x`` of shape ``(B, C, T, *S)``, frame ``t`` is normalised by the mean and the variance of ``x[:, :, : t + 1]`` over all
    dimensions but the batch. It is :class:`CumulativeGroupNorm` with one group, and the causal counterpart of ``nn.GroupNorm(1, C)``.
    (``nn.LayerNorm`` over channels alone sees one frame at a time, and needs none of this.)

    Args:
        num_channels: ``C``.
        eps, affine, device, dtype: as ``torch.nn.GroupNorm``.

    Raises:
        ShapeMismatch: a step of another number of channels, dtype or device.

    Example:
        >>> norm = co.CumulativeLayerNorm(2)
        >>> [norm.forward_step(torch.tensor([[t, t + 2.0]])).tolist() for t in range(2)]
        [[[-1.0, 1.0]], [[-0.447..., 1.341...]]]

    Source: Y. Luo and N. Mesgarani, "Conv-TasNet: Surpassing Ideal Time-Frequency Magnitude Masking for Speech Separation",
    IEEE/ACM Transactions on Audio, Speech, and Language Processing 27 (2019).
    """


class CumulativeInstanceNorm1d(UpToNow, _Instance1d):
    """``nn.InstanceNorm1d`` by the statistics up to now: of every channel alone, in all frames up to now; clips ``(B, C, T)``.

    The first frame of a stream is a single value, its own mean, and so becomes zero (times the weight, plus the bias). The rest
    is as :class:`CumulativeGroupNorm` with a group per channel.

    Args:
        num_features: channels.
        eps, affine, device, dtype: as ``torch.nn.InstanceNorm1d``.

    Raises:
        ShapeMismatch: a step of another rank, number of channels, dtype or device.

    Example:
        >>> norm, clip = co.CumulativeInstanceNorm1d(4), torch.randn(3, 4, 10)
        >>> torch.allclose(norm(clip)[:, :, -1], nn.InstanceNorm1d(4)(clip)[:, :, -1], atol=1e-5)
        True
    """


class CumulativeInstanceNorm2d(UpToNow, _Instance2d):
    """:class:`CumulativeInstanceNorm1d` for clips ``(B, C, T, S)``: over space too."""


class CumulativeInstanceNorm3d(UpToNow, _Instance3d):
    """:class:`CumulativeInstanceNorm1d` for clips ``(B, C, T, H, W)``: over space too."""


# ---- by the last frames -------------------------------------------------------------------------------------------------


class WindowedGroupNorm(OfLast, _Group):
    """``nn.GroupNorm`` by the statistics of the last ``window`` frames, of those present at the start of the stream.

    For a group of channels at step ``t`` these are the mean and the variance of its values in the frames ``t - window + 1 … t``,
    over space too. ``forward`` does the same on clips ``(B, C, T, *S)``; one no longer than the window has
    its last frame normalised as ``nn.GroupNorm`` would. There is no delay, and the receptive field is the window.

    The state is the mean and variance of each group in each frame of the window, in float64. A step computes those of the window
    from them again: nothing drifts, and what leaves the window leaves no trace.

    Args:
        num_groups, num_channels, eps, affine, device, dtype: as ``torch.nn.GroupNorm``.
        window: in frames; 1 is each frame alone.

    Raises:
        ValueError: no window, or one below 1.
        ShapeMismatch: a step of another number of channels, dtype or device.

    Example:
        >>> norm, clip = co.WindowedGroupNorm(2, 4, window=6), torch.randn(3, 4, 10)
        >>> norm.receptive_field, norm.delay, norm(clip).shape
        (6, 0, torch.Size([3, 4, 10]))
        >>> torch.allclose(norm(clip)[:, :, -1], nn.GroupNorm(2, 4)(clip[:, :, -6:])[:, :, -1], atol=1e-5)
        True
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        window: int,
    ):
        super().__init__(num_groups, num_channels, eps, affine, device, dtype)
        self.configure(window)


class WindowedLayerNorm(OfLast, _Layer):
    """Normalise by the statistics of all channels (and space) in the last ``window`` frames, with a weight and bias per channel.

    :class:`WindowedGroupNorm` with one group.

    Args:
        num_channels: channels.
        eps, affine, device, dtype: as ``torch.nn.GroupNorm``.
        window: in frames.
    """

    def __init__(
        self, num_channels: int, eps: float = 1e-5, affine: bool = True, device: Any = None, dtype: Any = None, *, window: int
    ):
        super().__init__(num_channels, eps, affine, device, dtype)
        self.configure(window)


class _WindowedInstance(OfLast, _Instance):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        affine: bool = False,
        device: Any = None,
        dtype: Any = None,
        window: int,
    ):
        super().__init__(num_features, eps, affine=affine, device=device, dtype=dtype)
        self.configure(window)


class WindowedInstanceNorm1d(_WindowedInstance, _Instance1d):
    """``nn.InstanceNorm1d`` by the statistics of the last ``window`` frames; clips ``(B, C, T)``.

    :class:`WindowedGroupNorm` with a group per channel.

    Args:
        num_features: channels.
        eps, affine, device, dtype: as ``torch.nn.InstanceNorm1d``.
        window: in frames, at least 2 to be of use without space.
    """


class WindowedInstanceNorm2d(_WindowedInstance, _Instance2d):
    """:class:`WindowedInstanceNorm1d` for clips ``(B, C, T, S)``: over space too."""


class WindowedInstanceNorm3d(_WindowedInstance, _Instance3d):
    """:class:`WindowedInstanceNorm1d` for clips ``(B, C, T, H, W)``: over space too."""
