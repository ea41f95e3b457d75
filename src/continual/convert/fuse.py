"""`co.fuse`: folds norms into the weights before them, for inference."""

from __future__ import annotations

import copy
from collections import Counter
from functools import singledispatch
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..containers.base import Container
from ..containers.sequential import Sequential
from ..core.call_modes import has_hooks
from ..core.module import CoModule
from ..errors import NotStreamable
from ..layers.folds_norms import FoldsNorms

Net = TypeVar("Net", bound=CoModule)
Uses = Counter[int]  # the number of places of each module in a network, by id

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_NOTHING = (nn.Identity, nn.modules.dropout._DropoutNd)


def fuse(net: Net) -> Net:
    """A copy of a network for inference, with less work per step and the same results but for rounding.

    - A norm with running statistics (``BatchNorm``, ``InstanceNorm``) right after a convolution, a transposed convolution or a
      ``Linear`` over channels becomes part of that layer's weight and bias.
    - Computed weights (``weight_norm``, ``spectral_norm``, other parametrisations) are computed once.
    - ``Dropout`` and ``Identity`` in a ``Sequential`` are removed.

    Layers keep their names; removed ones are missing from ``state_dict``. Modules that are used in several places or have hooks stay as
    they are. Fuse before compiling or exporting.

    Args:
        net: the network; it is not changed, and may be in training mode.

    Returns:
        A network of the same class in eval mode, with a cold state and its own weights, which need no gradients.

    Raises:
        NotStreamable: it is not a streaming network.

    Example:
        >>> net = co.Sequential(co.Conv1d(2, 4, 3, bias=False), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.2)).eval()
        >>> fast = co.fuse(net)
        >>> list(fast.state_dict()), [type(m).__name__ for m in fast]
        (['0.weight', '0.bias'], ['Conv1d', 'ReLU'])
        >>> clip = torch.randn(2, 2, 9)
        >>> torch.allclose(fast(clip), net(clip), atol=1e-6)
        True

    Source: Jacob et al., Quantization and training of neural networks for efficient integer-arithmetic-only inference (2018),
    section 3.2, on folding.
    """
    if not isinstance(net, CoModule):
        raise NotStreamable(f"co.fuse takes a streaming network, not {type(net).__name__}: give co.fuse(co.continual(net, …))")
    made = copy.deepcopy(net).eval().requires_grad_(False)
    for module in made.modules():
        if isinstance(module, CoModule):
            module.clean_state()
    _compute(made)
    fold(made, uses_of(made))
    return made


def uses_of(net: nn.Module) -> Uses:
    """The number of places of each module."""
    uses: Uses = Counter()

    def visit(module: nn.Module) -> None:
        uses[id(module)] += 1
        for child in module._children if isinstance(module, Container) else module.children():
            visit(child)

    visit(net)
    return uses


def _compute(net: nn.Module) -> None:
    """Replace parametrised weights by ordinary ones.

    ``remove_parametrizations`` is not an option: it changes the module's class, which copies of the module share.
    """
    for module in list(net.modules()):
        if parametrize.is_parametrized(module):
            names = list(cast(Any, module.parametrizations))
            weights = {name: cast(Tensor, getattr(module, name)) for name in names}
            del module._modules["parametrizations"]
            module.__class__ = type(module).__bases__[0]
            for name, weight in weights.items():
                module.register_parameter(name, frozen(weight, weight.dtype))


@singledispatch
def fold(module: nn.Module, uses: Uses) -> None:
    """Fold the norms inside a module into weights, in place. Classes with norms in other places register their own function."""
    for child in module.children():
        fold(child, uses)


@fold.register
def _of_container(module: Container, uses: Uses) -> None:
    for child in module._children:
        fold(child, uses)


@fold.register
def _of_sequential(module: Sequential, uses: Uses) -> None:
    for child in module._children:
        fold(child, uses)
    left: dict[str, nn.Module | None] = {}
    before: Any = None
    for name, child in zip(list(module._modules), module._children, strict=True):
        alone = uses[id(child)] == 1 and not has_hooks(child)
        if isinstance(child, _NOTHING) and not has_hooks(child):
            continue
        if alone and before is not None and absorb(before, child):
            continue
        left[name], before = child, child if alone else None
    module._replace(left)


def absorb(layer: Any, norm: Any) -> bool:
    """Fold a norm into the layer before it, if possible. Returns whether it was."""
    if not isinstance(norm, _NORMS) or norm.running_mean is None:
        return False
    if not isinstance(layer, FoldsNorms) or layer.norm_channels != norm.num_features:
        return False
    own = cast(Any, layer)  # weight and bias are those of its torch.nn class
    factor, offset = scale(norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)
    bias = 0 if own.bias is None else own.bias.double()
    dtype = own.weight.dtype
    own.weight = frozen(own.scaled_weight(own.weight.detach().double(), factor), dtype)
    own.bias = frozen(bias * factor + offset, dtype)
    return True


def scale(weight: Tensor | None, bias: Tensor | None, mean: Any, variance: Any, eps: float) -> tuple[Tensor, Tensor]:
    """A norm with running statistics as a factor and an offset per channel, in double precision."""
    factor = (variance.double() + eps).rsqrt()
    if weight is not None:
        factor = factor * weight.detach().double()
    offset = -mean.double() * factor
    return factor, offset if bias is None else offset + bias.detach().double()


def frozen(value: Tensor, dtype: torch.dtype) -> nn.Parameter:
    """A parameter without gradients."""
    return nn.Parameter(value.detach().to(dtype), requires_grad=False)
