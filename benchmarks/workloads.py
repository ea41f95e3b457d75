"""What is measured: layers and networks as data, so that each library builds the same one from it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from .bursts import Skip

KINDS = ("dense", "depthwise", "pool", "recurrent", "encoder", "attention", "network")


@dataclass(frozen=True)
class Layer:
    """One layer: a class name that ``torch.nn`` and the streaming libraries share, and its arguments."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def constant_rate(self) -> nn.Module:
        """The ``torch.nn`` layer; ``Skip`` and ``Residual`` are layers with a connection around them."""
        if self.name == "Residual":
            return Residual(nn.Sequential(*(layer.constant_rate() for layer in self.args)))
        if self.name == "Skip":
            return Skip(nn.Sequential(*(layer.constant_rate() for layer in self.args)))
        if self.name == "TransformerEncoder":
            return encoder(*self.args)
        made: nn.Module = getattr(nn, self.name)(*self.args, **self.kwargs)
        return made


class Residual(nn.Module):
    """A module, and its input added to its output."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.inner(x)
        return y


def encoder(channels: int, heads: int, hidden: int, layers: int) -> nn.Module:
    """An encoder as ``torch.nn`` has it, on clips ``(B, T, E)``."""
    layer = nn.TransformerEncoderLayer(channels, heads, hidden, batch_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


@dataclass(frozen=True)
class Workload:
    """A row of the table.

    Attributes:
        name: what the row is called.
        layers: the layers; more than one make an ``nn.Sequential``.
        frame: one step ``(B, C, *S)``.
        kind: one of :data:`KINDS`; the targets depend on it.
        period: steps after which the pattern of outputs repeats. Above 1 they come in bursts: see :mod:`benchmarks.bursts`.
    """

    name: str
    layers: tuple[Layer, ...]
    frame: tuple[int, ...]
    kind: str
    period: int = 1

    def constant_rate(self, seed: int = 0) -> nn.Module:
        """The ``torch.nn`` module, in eval mode.

        Weights are drawn so that the signal neither dies nor explodes over ten layers: with torch's defaults the outputs
        of the networks are so small that a comparison would say little. Recurrent layers keep torch's weights: larger ones
        would amplify rounding errors from step to step. Encoders do too: their norms take care of the signal.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = [layer.constant_rate() for layer in self.layers]
            drawn = [m for m in made if not isinstance(m, (nn.RNNBase, nn.TransformerEncoder))]
            for weight in (p for m in drawn for p in m.parameters() if p.ndim > 1):
                nn.init.kaiming_normal_(weight, nonlinearity="relu")
        return (made[0] if len(made) == 1 else nn.Sequential(*made)).eval()

    def clip(self, steps: int, seed: int = 1) -> Tensor:
        """A random clip ``(B, C, steps, *S)``."""
        batch, channels, *space = self.frame
        return torch.randn(batch, channels, steps, *space, generator=torch.Generator().manual_seed(seed))

    def at(self, size: int) -> Workload:
        """The same on frames of at most this spatial size."""
        return replace(self, frame=(*self.frame[:2], *(min(size, s) for s in self.frame[2:])))

    def spec(self) -> list[dict[str, Any]]:
        """The layers as JSON data."""
        return [asdict(layer) for layer in self.layers]

    @property
    def options(self) -> dict[str, Any]:
        """What ``co.continual`` has to be told."""
        return dict(self.layers[0].kwargs) if self.kind in ("encoder", "attention") else {}

    @property
    def has_weights(self) -> bool:
        """Whether there is anything to convolve with."""
        return self.kind != "pool"

    @property
    def frame_bytes(self) -> int:
        """Bytes of one step in float32."""
        return 4 * math.prod(self.frame)


def _conv3d(channels: int, **kwargs: Any) -> Layer:
    return Layer("Conv3d", (channels, channels, 3), {"padding": (0, 1, 1), **kwargs})


def _pool3d(name: str) -> Layer:
    return Layer(name, (3,), {"stride": (1, 2, 2), "padding": (0, 1, 1)})


def _stack(layer: Layer, depth: int = 10) -> tuple[Layer, ...]:
    return (layer, Layer("ReLU")) * depth


def _unet(dims: int, channels: int, kernel: int, depth: int = 2) -> tuple[Layer, ...]:
    """Down by two, twice as many channels, and up again, ``depth`` times, with skip connections."""

    def conv(inputs: int, outputs: int) -> tuple[Layer, ...]:
        return Layer(f"Conv{dims}d", (inputs, outputs, kernel), {"padding": kernel // 2}), Layer("ReLU")

    if depth == 0:
        return conv(channels, channels)
    two = (2, *(1,) * (dims - 1))
    down = Layer(f"Conv{dims}d", (channels, 2 * channels, two), {"stride": two})
    up = Layer(f"ConvTranspose{dims}d", (2 * channels, channels, two), {"stride": two})
    skip = Layer("Skip", (down, Layer("ReLU"), *_unet(dims, 2 * channels, kernel, depth - 1), up, Layer("ReLU")))
    return *conv(channels, channels), skip, *conv(2 * channels, channels)


def _encoder(layers: int, window: int, **kwargs: Any) -> tuple[Layer, ...]:
    return (Layer("TransformerEncoder", (128, 4, 256, layers), {"sequence_len": window, **kwargs}),)


def _tcn() -> tuple[Layer, ...]:
    convs = (Layer("Conv1d", (64, 64, 3), {"dilation": 2**i}) for i in range(8))
    return tuple(layer for conv in convs for layer in (conv, Layer("ReLU")))


WORKLOADS: tuple[Workload, ...] = (
    Workload("Conv3d 64→64 k3, 56²", (_conv3d(64),), (1, 64, 56, 56), "dense"),
    Workload("Conv3d 64→64 k3, 28²", (_conv3d(64),), (1, 64, 28, 28), "dense"),
    Workload("Conv3d depthwise 54 k3, 56²", (_conv3d(54, groups=54),), (1, 54, 56, 56), "depthwise"),
    Workload("Conv3d depthwise 54 k3, 28²", (_conv3d(54, groups=54),), (1, 54, 28, 28), "depthwise"),
    Workload("Conv2d 64→64 (9,1), V=25", (Layer("Conv2d", (64, 64, (9, 1))),), (1, 64, 25), "dense"),
    Workload("Conv1d 256→256 k9", (Layer("Conv1d", (256, 256, 9)),), (1, 256), "dense"),
    Workload("Conv1d 64→64 k3", (Layer("Conv1d", (64, 64, 3)),), (1, 64), "dense"),
    Workload("AvgPool3d k3 s(1,2,2), 64×56²", (_pool3d("AvgPool3d"),), (1, 64, 56, 56), "pool"),
    Workload("MaxPool3d k3 s(1,2,2), 64×56²", (_pool3d("MaxPool3d"),), (1, 64, 56, 56), "pool"),
    Workload("LSTM 128", (Layer("LSTM", (128, 128)),), (1, 128), "recurrent"),
    Workload("GRU 128", (Layer("GRU", (128, 128)),), (1, 128), "recurrent"),
    Workload("encoder of 1, window 32", _encoder(1, 32), (1, 128), "attention"),
    Workload("encoder of 1, window 128", _encoder(1, 128), (1, 128), "attention"),
    Workload("encoder of 2, window 32", _encoder(2, 32), (1, 128), "encoder"),
    Workload("encoder of 2, window 128", _encoder(2, 128), (1, 128), "encoder"),
    Workload("encoder of 4, window 32", _encoder(4, 32), (1, 128), "attention"),
    Workload("encoder of 4, window 128", _encoder(4, 128), (1, 128), "attention"),
    Workload("causal encoder of 8, band 32", _encoder(8, 32, causal=True), (1, 128), "attention"),
    Workload("10 × Conv1d 64 k3 + ReLU", _stack(Layer("Conv1d", (64, 64, 3))), (1, 64), "network"),
    Workload("10 × Conv3d 16 k3 + ReLU, 32²", _stack(_conv3d(16)), (1, 16, 32, 32), "network"),
    Workload("TCN of 8 × Conv1d 64 k3, dilations 1…128", _tcn(), (1, 64), "network"),
    Workload("U-Net of Conv1d 64 k9, down and up by 4", _unet(1, 64, 9), (1, 64), "network", period=4),
    Workload("U-Net of Conv3d 16 k3, down and up by 4, 32²", _unet(3, 16, 3), (1, 16, 32, 32), "network", period=4),
)


def choose(pattern: str | None, workloads: Iterable[Workload] = WORKLOADS) -> list[Workload]:
    """The workloads whose name or kind matches: a part of the name, or a shell pattern; case does not matter."""
    if not pattern:
        return list(workloads)
    low = pattern.lower()
    return [w for w in workloads if low in w.name.lower() or low == w.kind or fnmatch(w.name.lower(), low)]
