"""Why norms over the whole clip can't be streamed, and what can be chosen instead, in lines that can be pasted."""

from __future__ import annotations

from torch import nn

TRAINING = (
    "is in training mode: norms then take the statistics of what they are given, and learn from them. In a stream that is the frames of "
    "one call instead of the clip. Call net.eval() before streaming; in training, run clips through net.forward"
)


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


def layer_norm(norm: nn.LayerNorm | nn.RMSNorm, ndim: int | None = None, time: int = 2) -> str:
    """Why a norm of the last dimensions is refused on clips with ``ndim`` dimensions; empty if it leaves time alone.

    Without ``ndim``: why it is on clips of every rank.
    """
    shape, dims = tuple(norm.normalized_shape), len(norm.normalized_shape)
    if dims < (5 if ndim is None else ndim) - time:
        return ""
    among = "" if ndim is None else f" of {ndim}"
    over = f"{type(norm).__name__}({shape}) normalises the last {dims}{among} dimensions, time among them"
    instead = "normalise over space alone, or over channels with co.Lambda on steps"
    if norm.elementwise_affine:
        steps = "each step of a clip" if ndim is None else f"each of {shape[dims - (ndim - time)]} steps"
        return (
            f"{over}, with a weight for {steps}, and a stream has more. Remedies: {instead}; or train with "
            "co.CumulativeLayerNorm(C) in its place, which has a weight for each channel"
        )
    if isinstance(norm, nn.RMSNorm):
        return f"{over}. Remedies: {instead}"
    layer, instance = "LayerNorm(C, affine=False{})", f"InstanceNorm{dims}d(C{{}})"
    kinds = [layer if dims > 3 or dims + 1 == ndim else instance]
    if ndim is None and dims == 3:
        kinds = [layer, instance]  # (C, T, S) or (T, H, W)
    cumulative, windowed = (
        " (or, where it leaves channels apart, ".join(f"co.{name}{k.format(window)}" for k in kinds) + ")" * (len(kinds) - 1)
        for name, window in (("Cumulative", ""), ("Windowed", ", window=N"))
    )
    return no_end(f"{over}: it", cumulative, windowed, instead)
