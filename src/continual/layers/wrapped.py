"""Modules of `torch.nn` that are local in time, as streaming modules.

Every such class becomes a class that is both, so that names, parameters, ``isinstance`` and printing stay as they are:
``type(wrap(nn.ReLU()))`` is a subclass of ``nn.ReLU`` and of :class:`~continual.layers.local.LocalInTime`.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..core.module import CoModule
from ..core.naming import named
from ..core.parametrised import with_parametrisations
from ..core.registry import register_default
from ..core.state import InitContext, StateNode, StateUpdates, StepSpec
from ..errors import NotStreamable, ShapeMismatch
from . import norm_refusals as refusals
from .exact_gradients import with_exact_norms
from .local import LocalInTime, check_parameters, parameter


class WrappedTorch(LocalInTime):
    """A ``torch.nn`` module as a :class:`LocalInTime` module, with its own ``forward``, attributes and parameters."""

    _torch_class: type[nn.Module] = nn.Module
    _base: type[WrappedTorch] | None = None  # by which the class is wrapped, if not by that of LOCAL_CLASSES
    _own_forward = False  # whether clips are computed otherwise than by the wrapped class
    _prepared = frozenset({"_warned"})
    norms = True  # whether the class's code may call norms, whose gradients torch computes wrongly in some layouts

    def computed(self, x: Tensor) -> Any:
        """The wrapped class's ``forward``."""
        return self._torch_class.forward(self, x)

    def clip(self, x: Tensor) -> Tensor:
        y: Tensor = self.computed(x if self.time_dim == 2 else x.movedim(2, self.time_dim))
        return y if self.time_dim == 2 else y.movedim(self.time_dim, 2)

    def local_step(self, x: Tensor) -> Tensor:
        dim = self.time_dim
        y: Tensor = self.computed(x.unsqueeze(dim)).squeeze(dim)
        return y

    def check(self, frame: StepSpec, path: str) -> None:
        ndim = len(frame.shape) + 1
        if reason := _sees_time(self, ndim, self.time_dim % ndim):
            raise NotStreamable(f"{path}: {reason}")
        check_parameters(self, frame, path)

    def open(self, frame: StepSpec, init: InitContext) -> StateNode:
        self._warn_of_training(init.path, init.warned)
        return super().open(frame, init)

    def _warn_of_training(self, path: str, warned: set[str]) -> None:
        """Say once that norms in training mode, this one or those inside, take the statistics of what a call brings.

        Args:
            path: of this module.
            warned: what has been said of the stream.
        """
        if self.__dict__.get("_warned") or not (self.training or self._modules):
            return
        for name, module in self.named_modules(prefix=path):
            if _in_training(module):
                self.__dict__["_warned"] = True
                if refusals.TRAINING not in warned:
                    warned.add(refusals.TRAINING)
                    warnings.warn(f"{named(name, module)} {refusals.TRAINING}", stacklevel=2)
                return

    @property
    def _sees_call(self) -> bool:  # type: ignore[override]
        return any(map(_in_training, self.modules()))

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        if self.training or self._modules:  # switched since the stream was opened
            self._warn_of_training(node.path, set())
        return super().advance(x, node, n_if_ended, updates)

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor:
        if self.training or self._modules:
            self._warn_of_training(node.path, set())
        return self.local_step(x)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild, (self._torch_class, type(self).__name__, self._base), self.__getstate__()

    @property
    def has_products(self) -> bool:  # type: ignore[override]
        return next(self.parameters(), None) is not None

    def extra_ops(self, node: StateNode, frame: StepSpec) -> int:
        counted = next((ops for cls, ops in _EXTRA_OPS.items() if isinstance(self, cls)), 0)
        return counted * math.prod(frame.shape[1:])


class _Pointwise(WrappedTorch):
    """Elementwise: a step needs no time axis, and the frame keeps its shape."""

    norms = False

    def local_step(self, x: Tensor) -> Tensor:
        return self._torch_class.forward(self, x)

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor:
        return self._torch_class.forward(self, x)

    def out(self, frame: StepSpec) -> StepSpec:
        return frame


class _SpatialPool(WrappedTorch):
    """Adaptive pooling over space."""

    counts_inputs = True


_EXTRA_OPS: dict[type[nn.Module], int] = {nn.ReLU: 1, nn.LayerNorm: 1}  # for one value, as papers count


class _SameShape(WrappedTorch):
    """Keeps the frame's shape, but needs the time axis to know which dimension is which."""

    def out(self, frame: StepSpec) -> StepSpec:
        return frame


class _PerFrame2d(WrappedTorch):
    """Works on single images ``(…, C, H, W)``; on a clip ``(B, C, T, H, W)`` it works on every frame."""

    _own_forward = True

    def forward(self, input: Tensor) -> Tensor:
        """Every frame on its own: torch.nn would take time for the channels."""
        return self.clip(input.movedim(self.time_dim, 2)).movedim(2, self.time_dim)

    def clip(self, x: Tensor) -> Tensor:
        return self._torch_class.forward(self, x.movedim(2, 1)).movedim(1, 2)

    def local_step(self, x: Tensor) -> Tensor:
        return self._torch_class.forward(self, x)

    def check(self, frame: StepSpec, path: str) -> None:
        if len(frame.shape) != 4:
            raise ShapeMismatch(f"{path}: takes steps (B, C, H, W), got {tuple(frame.shape)}")


class _BatchNorm(_SameShape):
    """Batch normalisation with running statistics."""

    def local_step(self, x: Tensor) -> Tensor:
        if self.training:
            return super().local_step(x)
        buffers, eps = self._buffers, cast(nn.BatchNorm1d, self).eps
        mean, var = buffers["running_mean"], buffers["running_var"]
        return torch.batch_norm(x, parameter(self, "weight"), parameter(self, "bias"), mean, var, False, 0.0, eps, False)

    def extra_ops(self, node: StateNode, frame: StepSpec) -> int:
        return (2 if cast(nn.BatchNorm1d, self).affine else 1) * math.prod(frame.shape[1:])


class _InstanceNorm(_SameShape):
    """Instance normalisation with running statistics: as batch normalisation."""

    def check(self, frame: StepSpec, path: str) -> None:
        norm: Any = self
        if not norm.track_running_stats:
            raise NotStreamable(f"{path}: {refusals.instance_norm(norm)}")
        super().check(frame, path)


class _SoftmaxOverChannels(_SameShape):
    """A softmax that leaves its dimension open: over the channels, on clips and on steps."""

    _own_forward = True

    def forward(self, input: Tensor) -> Tensor:
        return input.softmax(1)

    def clip(self, x: Tensor) -> Tensor:
        return x.softmax(1)

    def local_step(self, x: Tensor) -> Tensor:
        return x.softmax(1)

    def check(self, frame: StepSpec, path: str) -> None:
        """Nothing to refuse."""


def over_channels(module: nn.Module) -> nn.Module:
    """An ``nn.Softmax()`` without ``dim`` as one over the channels, with a warning; every other module as it is."""
    if type(module) is not nn.Softmax or module.dim is not None:
        return module
    warnings.warn(
        "Softmax() without dim is taken as Softmax(dim=1), over the channels: torch chooses by the rank, which on clips (B, C, T) is the "
        "batch. Write dim=1",
        stacklevel=3,
    )
    made: Any = copy.copy(module)
    made.__class__ = wrapped_class(nn.Softmax, "Softmax", _SoftmaxOverChannels)
    result: nn.Module = made
    return result


def _in_training(module: nn.Module) -> bool:
    """Whether a module is a norm that takes the statistics of what it is given."""
    tracks = isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats
    return module.training and (tracks or isinstance(module, nn.modules.batchnorm._BatchNorm))


def _sees_time(module: nn.Module, ndim: int, time: int = 2) -> str:
    """Why a module mixes time on clips with ``ndim`` dimensions, of which ``time`` is time; empty if it does not."""
    name = type(module).__name__
    dim = getattr(module, "dim", None)
    if isinstance(module, (nn.Softmax, nn.Softmin, nn.LogSoftmax, nn.GLU)):
        channels = "dim=1 (channels)" if time == 2 else "that of the channels"
        if dim is None:
            return f"{name} without `dim` chooses the dimension by rank; give {channels}"
        if dim % ndim == time:
            return f"{name}(dim={dim}) runs over time on clips with {ndim} dimensions; use {channels}, or co.Lambda on steps"
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and (reason := refusals.layer_norm(module, ndim, time)):
        return reason
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
        return f"{name}(track_running_stats=False) takes its statistics over the whole clip; use track_running_stats=True"
    if isinstance(module, nn.Flatten):
        first, last = module.start_dim % ndim, module.end_dim % ndim
        if first <= time and first < last:
            what = "merges time with other dimensions" if last >= time else "merges batch and channels, which makes time dim 1"
            return f"{name}({module.start_dim}, {module.end_dim}) {what}; start at dim {time + 1}, or use co.Reshape"
    if isinstance(module, nn.Unflatten) and module.dim % ndim <= time:
        return f"{name}({module.dim}) moves or splits time; use co.Reshape"
    if isinstance(module, nn.Softmax2d) and (ndim != 4 or time == 1):
        return f"{name} takes clips (B, C, T, S), with time in dim 2 of 4, got dim {time} of {ndim}; use Softmax(dim=1)"
    if isinstance(module, nn.Linear) and time == ndim - 1:
        return f"{name} acts on the last dimension, which is time in a clip (B, C, T). Use co.Linear(…, channel_dim=1)"
    if isinstance(module, nn.Upsample) and time >= 2:
        factor = module.scale_factor
        if module.size is not None or not isinstance(factor, tuple) or factor[time - 2] != 1:
            return f"{name} changes the number of frames: use co.Upsample (or co.continual); over space alone give scale_factor=(1, …)"
    if isinstance(module, (nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)) and time >= 2:
        size = module.output_size
        if not isinstance(size, tuple) or size[time - 2] is not None:
            return f"{name}({size}) pools over the whole clip; use co.{name}(output_size, kernel_size=frames), or output_size=(None, …)"
    return ""


def always_sees_time(module: nn.Module) -> str:
    """Why a module mixes time on clips of every rank; empty if on some it does not."""
    reasons = [_sees_time(module, ndim) for ndim in (3, 4, 5)]
    return reasons[0] if all(reasons) else ""


_POINTWISE = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.LogSigmoid, nn.Tanh,
    nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Hardshrink, nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanhshrink,
    nn.Threshold, nn.PReLU, nn.RReLU, nn.Dropout, nn.AlphaDropout, nn.Identity,
)  # fmt: skip


_SAME_SHAPE = (
    nn.Softmax, nn.Softmin, nn.LogSoftmax, nn.Softmax2d, nn.LayerNorm, nn.RMSNorm,
    nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout, nn.LocalResponseNorm,
)  # fmt: skip


_ANY_SHAPE = (
    nn.CrossMapLRN2d, nn.GLU, nn.ChannelShuffle, nn.Flatten, nn.Unflatten, nn.Upsample,
)  # fmt: skip


_DIRECT: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {  # without the calls in between
    nn.ReLU: torch.relu,
    nn.Sigmoid: torch.sigmoid,
    nn.Tanh: torch.tanh,
    nn.Identity: lambda x: x,
}


LOCAL_CLASSES: dict[type[nn.Module], type[WrappedTorch]] = {
    **dict.fromkeys(_POINTWISE, _Pointwise),
    **dict.fromkeys(_SAME_SHAPE, _SameShape),
    **dict.fromkeys(_ANY_SHAPE, WrappedTorch),
    **dict.fromkeys((nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), _SpatialPool),
    **dict.fromkeys((nn.PixelShuffle, nn.PixelUnshuffle), _PerFrame2d),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm), _BatchNorm),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _InstanceNorm),
}


def _build(module: nn.Module, memo: dict[int, Any], path: str) -> CoModule:
    made = wrap(module, memo=memo)
    if reason := always_sees_time(made):
        raise NotStreamable(f"{named(path, module)}: {reason}")
    return made


for _class in LOCAL_CLASSES:
    register_default(_class, _build)


_made: dict[tuple[type[nn.Module], str, type[WrappedTorch] | None], type[WrappedTorch]] = {}


def wrapped_class(cls: type[nn.Module], name: str, base: type[WrappedTorch] | None = None) -> type[WrappedTorch]:
    """The class that is both ``cls`` and a :class:`LocalInTime`; ``base`` wraps it, if not the base class of :data:`LOCAL_CLASSES`."""
    plain = cls.__bases__[0]
    if issubclass(plain, nn.Module) and (known := with_parametrisations(cls, wrapped_class(plain, plain.__name__, base))):
        return known
    if (cls, name, base) in _made:
        return _made[cls, name, base]
    wrapper = base or next(
        (LOCAL_CLASSES[c] for c in cls.__mro__ if c in LOCAL_CLASSES and c.forward is cls.forward), WrappedTorch
    )
    body: dict[str, Any] = {}
    if cls in _DIRECT:
        fn = _DIRECT[cls]
        body["advance_step"] = lambda self, x, node, call: fn(x)
    if not wrapper._own_forward:
        body["forward"] = cls.forward
        if wrapper.norms:
            body["forward"] = body["computed"] = with_exact_norms(cls.forward)
    body |= {"_torch_class": cls, "_base": base, "__doc__": cls.__doc__, "__module__": __name__}
    return _made.setdefault((cls, name, base), type(name, (wrapper, cls), body))


def _rebuild(cls: type[nn.Module], name: str, base: type[WrappedTorch] | None = None) -> nn.Module:
    made = wrapped_class(cls, name, base)
    return made.__new__(made)


def wrap(module: nn.Module, dim: int = 2, share: bool = False, memo: dict[int, Any] | None = None) -> LocalInTime:
    """A module that is local in time, as a streaming module.

    Args:
        module: it is not changed.
        dim: which dimension of its clips is time.
        share: share parameters with the module instead of copying them.
        memo: that of ``copy.deepcopy``, so that what is shared stays shared.
    """
    made: Any = copy.copy(module) if share else copy.deepcopy(module, memo)
    if share:
        for name in ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks"):
            made.__dict__[name] = getattr(module, name).copy()
    made.__class__ = wrapped_class(type(module), type(module).__name__)
    made._set_time_dim(dim)
    if getattr(made, "inplace", False):
        made.inplace = False  # what arrives may be kept by the layer before
    result: LocalInTime = made
    return result


STEPPERS: dict[type[nn.Module], Callable[[nn.Module, int], CoModule]] = {}  # what forward_stepping makes of other classes


def forward_stepping(module: nn.Module, dim: int = 2) -> CoModule:
    """Give steps to a module that is local in time. It is the caller who knows that it is; ``co.verify`` checks.

    Args:
        module: maps a clip to a clip of equal length, each frame on its own; or an ``nn.RNNCell``, ``nn.GRUCell`` or
            ``nn.LSTMCell``, whose hidden state is then carried. It is not changed; parameters are shared.
        dim: which dimension of the clip is time.

    Returns:
        A module of the same class that is a :class:`CoModule` too.

    Example:
        >>> head = nn.Sequential(nn.Conv3d(3, 4, kernel_size=(1, 3, 3)), nn.ReLU())
        >>> net = co.forward_stepping(head)
        >>> net.forward_step(torch.randn(2, 3, 8, 8)).shape
        torch.Size([2, 4, 6, 6])
    """
    if isinstance(module, CoModule):
        return module
    stepper = next((STEPPERS[c] for c in type(module).__mro__ if c in STEPPERS), None)
    return wrap(module, dim, share=True) if stepper is None else stepper(module, dim)
