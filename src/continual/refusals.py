"""Why norms over the whole clip can't be streamed, and what can be chosen instead, in lines that can be pasted."""

from __future__ import annotations

from torch import nn


def no_end(name: str, cumulative: str, windowed: str, instead: str) -> str:
    """The refusal of a norm whose statistics run over the whole clip.

    Args:
        name: the norm.
        cumulative, windowed: the norms to take for it.
        instead: norms that are exact in streams and in clips.
    """
    return (
        f"{name} takes its statistics over the whole clip, which a stream has not seen. Remedies (each computes something else on "
        "clips too, so look at the accuracy, or train with it):\n"
        f'  - statistics up to now: co.continual(net, time_norm="cumulative"), or {cumulative} in its place\n'
        f'  - of the last N frames: co.continual(net, time_norm="window", norm_window=N), or {windowed} in its place\n'
        "  - fixed ones, measured on clips: co.continual(co.calibrate(net, clips))\n"
        f"  - another norm, to train with: {instead}"
    )


def group_norm(norm: nn.GroupNorm) -> str:
    """Why ``nn.GroupNorm`` is refused."""
    sizes = f"{norm.num_groups}, {norm.num_channels}"
    return no_end(
        f"GroupNorm({sizes})",
        f"co.CumulativeGroupNorm({sizes})",
        f"co.WindowedGroupNorm({sizes}, window=N)",
        "nn.BatchNorm, which in eval mode has fixed statistics",
    )


def instance_norm(norm: nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d) -> str:
    """Why instance normalisation without running statistics is refused."""
    dims = 1 if isinstance(norm, nn.InstanceNorm1d) else 2 if isinstance(norm, nn.InstanceNorm2d) else 3
    affine = ", affine=True" if norm.affine else ""
    return no_end(
        f"InstanceNorm{dims}d without running statistics",
        f"co.CumulativeInstanceNorm{dims}d({norm.num_features}{affine})",
        f"co.WindowedInstanceNorm{dims}d({norm.num_features}{affine}, window=N)",
        "nn.InstanceNorm with track_running_stats=True, which in eval mode has fixed statistics",
    )


def layer_norm(norm: nn.LayerNorm | nn.RMSNorm, ndim: int) -> str:
    """Why a norm of the last dimensions is refused on clips with ``ndim`` dimensions; empty if it leaves time alone."""
    shape, dims = tuple(norm.normalized_shape), len(norm.normalized_shape)
    if dims <= ndim - 3:
        return ""
    over = f"{type(norm).__name__}({shape}) normalises the last {dims} of {ndim} dimensions, time among them"
    instead = "normalise over space alone, or over channels with co.Lambda on steps"
    if norm.elementwise_affine:
        steps = shape[dims - (ndim - 2)]
        return (
            f"{over}, with a weight for each of {steps} steps, and a stream has more. Remedies: {instead}; or train with "
            "co.CumulativeLayerNorm(C) in its place, which has a weight for each channel"
        )
    if isinstance(norm, nn.RMSNorm):
        return f"{over}. Remedies: {instead}"
    kind = "LayerNorm(C, affine=False" if dims == ndim - 1 else f"InstanceNorm{ndim - 2}d(C"
    return no_end(f"{over}: it", f"co.Cumulative{kind})", f"co.Windowed{kind}, window=N)", instead)
