"""Norms over time with fixed statistics, measured on clips: `FrozenNorm`, and `calibrate`, which puts it into a network."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ...core.call_modes import call_mode
from ...core.naming import named
from ...core.precision import widest
from ...core.state import StepSpec
from ...errors import NotStreamable, ShapeMismatch
from .. import norm_refusals as refusals
from ..exact_gradients import batch_norm
from ..local import LocalInTime, check_parameters, parameter

_NORMS = (nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.LayerNorm)


class FrozenNorm(LocalInTime):
    """Normalise each channel by a fixed mean and variance: what ``nn.BatchNorm`` does in eval mode, in training mode too.

    It is local in time, so it streams exactly. :func:`calibrate` makes it of norms whose statistics run over time.

    Args:
        num_features: channels of clips ``(B, C, T, *S)``.
        eps: added to the variance.
        affine: with a weight and a bias per channel.
        device, dtype: of these, and of the buffers ``running_mean`` and ``running_var``, which start at 0 and 1.

    Raises:
        ShapeMismatch: a step of another number of channels, dtype or device.

    Example:
        >>> norm = co.FrozenNorm(2)
        >>> norm.running_mean += torch.tensor([1.0, 5.0])
        >>> norm.forward_step(torch.tensor([[1.0, 6.0]]))
        tensor([[0.0000, 1.0000]], grad_fn=...)
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, affine: bool = True, device: Any = None, dtype: Any = None):
        super().__init__()
        self.num_features, self.eps, self.affine = num_features, eps, affine
        for name, value in (("weight", 1.0), ("bias", 0.0)):
            filled = nn.Parameter(torch.full((num_features,), value, device=device, dtype=dtype)) if affine else None
            self.register_parameter(name, filled)
        self.register_buffer("running_mean", torch.zeros(num_features, device=device, dtype=dtype))
        self.register_buffer("running_var", torch.ones(num_features, device=device, dtype=dtype))

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, T, *S)``, every channel normalised."""
        return self.local_step(input)

    def local_step(self, x: Tensor) -> Tensor:
        weight, bias = parameter(self, "weight"), parameter(self, "bias")
        return batch_norm(x, weight, bias, self.running_mean, self.running_var, False, 0.0, self.eps, False)

    def clip(self, x: Tensor) -> Tensor:
        return self.local_step(x)

    def check(self, frame: StepSpec, path: str) -> None:
        check_parameters(self, frame, path)

    def out(self, frame: StepSpec) -> StepSpec:
        return frame

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, affine={self.affine}"


def calibrate(net: nn.Module, clips: Tensor | Iterable[Tensor]) -> nn.Module:
    """A copy of a network whose norms over time have fixed statistics: those that they take of the given clips, on average.

    Replaced by :class:`FrozenNorm`, with their weights: ``nn.GroupNorm``, ``nn.InstanceNorm`` without running statistics, and
    ``nn.LayerNorm`` without weights where it covers time. The copy streams exactly (``co.continual(co.calibrate(net, clips))``), but **it
    is another function than the network**. They agree on a clip only where its own statistics are the measured ones, as on a single clip
    that is all it is calibrated on. So look at the accuracy, or train it further.

    Args:
        net: any network, run in eval mode; it is not changed. At its norms clips are ``(B, C, T, *S)``.
        clips: what it takes: one batch of clips, or several. Every clip counts the same.

    Raises:
        ValueError: no clips, no norm over time in the network, or one that the clips did not reach.
        NotStreamable: ``nn.LayerNorm`` with a weight for each step of a clip.

    Example:
        >>> net = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU())
        >>> clip = torch.randn(1, 2, 20)
        >>> frozen = co.calibrate(net, clip)
        >>> torch.allclose(frozen(clip), net(clip), atol=1e-5), torch.allclose(frozen(2 * clip), net(2 * clip), atol=1e-5)
        (True, False)
        >>> co.continual(frozen).forward_steps(clip, pad_end=True).shape
        torch.Size([1, 4, 20])
    """
    made = copy.deepcopy(net)
    norms = {m: _Measured(m, name) for name, m in made.named_modules() if _is_norm(m)}
    training = [(m, m.training) for m in made.modules()]
    handles = [norm.register_forward_pre_hook(measured.take) for norm, measured in norms.items()]
    count = 0
    try:
        made.eval()
        with torch.no_grad(), call_mode("forward"):
            for clip in [clips] if isinstance(clips, Tensor) else clips:
                made(clip)
                count += 1
    finally:
        for handle in handles:
            handle.remove()
    for module, flag in training:
        module.training = flag
    if not count:
        raise ValueError("calibrate: no clips were given")
    frozen = {norm: measured.frozen() for norm, measured in norms.items() if not measured.is_local}
    if not frozen:
        raise ValueError(f"calibrate: {type(net).__name__} has no norm over time, nothing to freeze")
    return _with_children(made, frozen)


def _is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm whose statistics may run over the clip."""
    base = next((n for n in _NORMS if isinstance(module, n)), None)
    return base is not None and type(module).forward is base.forward and not getattr(module, "track_running_stats", False)


def freezable(module: nn.Module) -> bool:
    """Whether :func:`calibrate` can replace a norm, if it takes its statistics over the clip."""
    return _is_norm(module) and not (isinstance(module, nn.LayerNorm) and module.elementwise_affine)


def _with_children(net: nn.Module, new: dict[nn.Module, Any]) -> nn.Module:
    """A network with modules replaced, wherever they are used."""
    for module in net.modules():
        for name, child in module._modules.items():
            if child in new:
                module._modules[name] = new[child]
    made: nn.Module = new.get(net, net)
    return made


class _Measured:
    """The mean over clips of the statistics that a norm takes of them."""

    def __init__(self, norm: nn.Module, path: str):
        self.norm, self.path = norm, named(path, norm)
        self.clips, self.is_local = 0, False
        self.mean: Any = 0.0
        self.variance: Any = 0.0

    def take(self, norm: nn.Module, args: tuple[Tensor]) -> None:
        """Add the statistics of the clips in a batch."""
        x = args[0]
        groups = self._groups(x)
        if groups is None:
            self.is_local = True
            return
        values = x.to(widest(x.device)).unflatten(1, (groups, -1)).flatten(2)
        variance, mean = torch.var_mean(values, 2, correction=0)
        self.mean, self.variance = self.mean + mean.sum(0), self.variance + variance.sum(0)
        self.clips, self.channels, self.dtype = self.clips + x.shape[0], x.shape[1], x.dtype

    def _groups(self, x: Tensor) -> int | None:
        """In how many groups the norm takes the channels of a clip; ``None`` if it leaves time alone."""
        if x.ndim < 3:
            raise ShapeMismatch(f"{self.path}: calibrate expects clips (B, C, T, *S) here, got {tuple(x.shape)}")
        if isinstance(self.norm, nn.GroupNorm):
            return self.norm.num_groups
        if not isinstance(self.norm, nn.LayerNorm):
            return x.shape[1]
        if not (reason := refusals.layer_norm(self.norm, x.ndim)):
            return None
        if self.norm.elementwise_affine or len(self.norm.normalized_shape) > x.ndim - 1:
            raise NotStreamable(f"{self.path}: {reason}")
        return 1 if len(self.norm.normalized_shape) == x.ndim - 1 else x.shape[1]

    def frozen(self) -> FrozenNorm:
        """The norm with these statistics, and its own weight and bias."""
        if not self.clips:
            raise ValueError(f"{self.path}: the clips did not reach it, so there are no statistics to freeze")
        norm: Any = self.norm
        made = FrozenNorm(self.channels, norm.eps, norm.weight is not None, self.mean.device, self.dtype)
        for name, total in (("running_mean", self.mean), ("running_var", self.variance)):
            getattr(made, name).copy_((total / self.clips).repeat_interleave(self.channels // len(total)))
        for name in ("weight", "bias") if made.affine else ():
            value = getattr(norm, name)  # no parameter where it is parametrised
            setattr(
                made, name, value if value is None or isinstance(value, nn.Parameter) else nn.Parameter(value.detach().clone())
            )
        made.training = norm.training
        return made
