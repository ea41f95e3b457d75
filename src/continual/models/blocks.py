"""Blocks of several families: a path with a shortcut, and squeeze-and-excitation of single frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..containers.parallel import BroadcastReduce, shrinking
from ..containers.sequential import Sequential
from ..convert.fuse import Uses, fold
from ..core.module import CoModule
from ..core.state import StateNode, StepSpec
from ..errors import ShapeMismatch
from ..layers.closure import Identity
from ..layers.local import LocalInTime
from ..layers.native import product


def norm(channels: int) -> nn.BatchNorm3d:
    """Batch normalisation of video."""
    return nn.BatchNorm3d(channels)


class Shortcut(BroadcastReduce):
    """A path and a shortcut around it, added, and a ReLU: the residual block of most networks.

    The modules of both paths are children of the block itself, as in networks with published weights: a parameter is
    ``block.conv.weight`` and not ``block.1.conv.weight``.

    Args:
        path: modules by name, one after another.
        shortcut: the same; the identity by default.
        shrink: the identity drops the frames that the path drops without padding, half of them at each end.

    Example:
        >>> from continual.models.blocks import Shortcut
        >>> block = Shortcut({"conv": co.Conv1d(2, 2, 3, padding=1), "norm": nn.BatchNorm1d(2)})
        >>> [name for name, _ in block.named_parameters()], block.delay
        (['conv.weight', 'conv.bias', 'norm.weight', 'norm.bias'], 1)
    """

    _paths: dict[str, CoModule]

    def __init__(self, path: dict[str, nn.Module], shortcut: dict[str, nn.Module] | None = None, shrink: bool = False):
        main = Sequential(path)
        around = Sequential(shortcut) if shortcut else shrinking(main.timing, "centered") if shrink else Identity()
        super().__init__({"shortcut": around, "path": main})

    def _set(self, modules: Sequence[Any]) -> None:
        self.__dict__["_paths"] = dict(modules[0])  # not children; the modules in them are
        for path in self._paths.values():
            for name, child in path.named_children():
                nn.Module.add_module(self, name, child)
        self._changed()

    def _replace(self, modules: dict[str, nn.Module | None]) -> Any:
        raise TypeError("Shortcut: its modules belong to two paths; build another Shortcut from other paths")

    def _exchange(self, name: str, module: Any) -> None:
        """Replace a module in its path too."""
        nn.Module.add_module(self, name, self._converted(module, name))
        for path in self._paths.values():
            if name in path._modules:
                path._modules[name] = self._modules[name]
        self._changed()

    def train(self, mode: bool = True) -> Any:
        """As ``torch.nn.Module.train``."""
        for path in self._paths.values():
            path.train(mode)
        return super().train(mode)

    @property
    def _children(self) -> list[CoModule]:
        return list(self._paths.values())

    @property
    def names(self) -> list[str]:
        return list(self._paths)

    def part(self, path: str) -> nn.Module:
        head, _, rest = path.partition(".")
        inner = self._paths[head]
        return inner.part(rest) if rest else inner

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        """The clip ``(B, C, T, *S)`` through both paths, added, and a ReLU."""
        return self.merge(self.branches(input))

    def merge(self, outs: Any) -> Tensor:
        return torch.relu_(outs[0] + outs[1])

    def extra_ops(self, node: StateNode, frame: StepSpec) -> int:
        return math.prod(frame.shape[1:])  # the ReLU


@fold.register
def _fold_shortcut(module: Shortcut, uses: Uses) -> None:
    for path in module._children:
        fold(path, uses)
    left = {name: child for path in module._children for name, child in path._modules.items()}
    module._modules = {name: left[name] for name in module._modules if name in left}


class SqueezeExcite(LocalInTime):
    """Weigh the channels of every frame ``(B, C, H, W)`` by two small layers on its mean.

    Args:
        channels: of a frame.
        hidden: width of the hidden layer.

    Source: Hu et al., Squeeze-and-excitation networks (2018), on single frames.
    """

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Conv3d(channels, hidden, 1)
        self.fc2 = nn.Conv3d(hidden, channels, 1)

    def forward(self, input: Tensor) -> Tensor:
        """Clips ``(B, C, T, H, W)``, each frame on its own."""
        weights = self._weights(input.mean((3, 4)).transpose(1, 2)).transpose(1, 2)
        return input * weights[..., None, None]

    def local_step(self, x: Tensor) -> Tensor:
        return x * self._weights(x.mean((2, 3)))[..., None, None]

    def _weights(self, means: Tensor) -> Tensor:
        """Means ``(…, C)`` to factors ``(…, C)``."""
        hidden = torch.relu(product.linear(means, self.fc1.weight.flatten(1), self.fc1.bias))
        return torch.sigmoid(product.linear(hidden, self.fc2.weight.flatten(1), self.fc2.bias))

    def check(self, frame: StepSpec, path: str) -> None:
        if len(frame.shape) != 4 or frame.shape[1] != self.fc1.in_channels:
            raise ShapeMismatch(f"{path}: expects steps (B, {self.fc1.in_channels}, H, W), got {tuple(frame.shape)}")

    def out(self, frame: StepSpec) -> StepSpec:
        return frame

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> int:
        return self.fc1.weight.numel() + self.fc2.weight.numel()

    def extra_ops(self, node: StateNode, frame: StepSpec) -> int:
        hidden = self.fc1.out_channels
        return math.prod(frame.shape[1:]) + 2 * hidden + self.fc2.out_channels  # the mean, biases and a ReLU
