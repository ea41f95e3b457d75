"""A row of the gallery: how a network is made, on what it is converted, and what is expected of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

Expected = Literal["stream", "windows", "refused"]
Shape = tuple[int, ...]
DEFAULT_SEED = 1


@dataclass(frozen=True)
class Network:
    """A network, an example clip and the result that an expert expects.

    Attributes:
        name: ``field/name`` or ``package/name``, unique.
        build: makes the module with random weights. It imports the package, so that the table can be read without it.
        clip: the shape of the example, or of each input; the batch is 2 or more. Numbers are drawn for it.
        expected: ``"stream"``: outputs as frames come; ``"windows"``: exact windows of the example's length; ``"refused"``.
        source: the paper, as ``Authors year, where``.
        why: for a refusal: why no stream gives these outputs, in a sentence.
        gap: of a network that the library refuses all the same: what it can't do yet. ``gaps.py`` has them.
        package: the package that it needs, as it is imported; empty for a builder of ours.
        time_dim: the dimension of time, of each input; ``None`` for an input that is not a stream.
        tokens: for each input that holds indices the number of symbols, ``0`` for real numbers; one number stands for all inputs.
        options: for ``co.continual``: ``output=…``, ``every=…``, ``time_pooling=…``.
        single: whether the module runs in float32 alone, since it makes tensors of this dtype.
    """

    name: str
    build: Callable[[], nn.Module]
    clip: Shape | Sequence[Shape]
    expected: Expected
    source: str
    why: str = ""
    gap: str = ""
    package: str = ""
    time_dim: int | tuple[int | None, ...] = 2
    tokens: int | tuple[int, ...] = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    single: bool = False

    @property
    def shapes(self) -> list[Shape]:
        """The shape of each input."""
        clip: Any = self.clip
        return [clip] if clip and isinstance(clip[0], int) else list(clip)

    @property
    def time_dims(self) -> tuple[int | None, ...]:
        """The dimension of time of each input, not negative."""
        dims = self.time_dim if isinstance(self.time_dim, tuple) else (self.time_dim,) * len(self.shapes)
        return tuple(None if d is None else d % len(s) for d, s in zip(dims, self.shapes, strict=True))

    @property
    def frames(self) -> int:
        """Steps of the example: its frames, where all streams have as many; of streams of several rates, the frames they share."""
        return math.gcd(*(s[d] for s, d in zip(self.shapes, self.time_dims, strict=True) if d is not None))

    def inputs(self, frames: int | None = None, seed: int = DEFAULT_SEED, rows: int | None = None) -> tuple[Tensor, ...]:
        """Drawn inputs.

        Args:
            frames: of the clip, in steps; by default those of the example.
            seed: of the numbers. Inputs that are not streams are the same for every seed.
            rows: of the batch; by default those of the example.
        """
        symbols = self.tokens if isinstance(self.tokens, tuple) else (self.tokens,) * len(self.shapes)
        batch = next(s[0 if d else 1] for s, d in zip(self.shapes, self.time_dims, strict=True) if d is not None)
        drawn = []
        for shape, time, count in zip(self.shapes, self.time_dims, symbols, strict=True):
            sizes = list(shape)
            if time is not None and frames is not None:
                sizes[time] = sizes[time] * frames // self.frames
            place = 0 if time != 0 else 1
            if rows is not None and sizes[place : place + 1] == [batch]:
                sizes[place] = rows
            drawn.append(_numbers(sizes, count, seed if time is not None else DEFAULT_SEED))
        return tuple(drawn)


def _numbers(sizes: list[int], symbols: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if symbols:
        return torch.randint(symbols, sizes, generator=generator)
    return torch.randn(sizes, generator=generator)


def made(network: Network, seed: int = 0) -> nn.Module:
    """The module in eval mode, with norm statistics and biases that are no identities."""
    torch.manual_seed(seed)
    module = network.build()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            mean, var = getattr(part, "running_mean", None), getattr(part, "running_var", None)
            if isinstance(mean, Tensor) and isinstance(var, Tensor):
                mean.normal_(0.0, 0.3, generator=generator)
                var.uniform_(0.5, 2.0, generator=generator)
            bias = getattr(part, "bias", None)
            if isinstance(bias, nn.Parameter) and bias.is_floating_point() and not bias.any():
                bias.normal_(0.0, 0.1, generator=generator)
    return module.eval()
