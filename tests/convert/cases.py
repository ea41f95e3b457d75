"""A network of somebody else, an example clip and what the conversion has to be told. No tests are in this file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import continual as co

Maker = Callable[..., "Case"]
NETWORKS: dict[str, Maker] = {}  # filled by the files of networks; tests.convert.networks imports them all


def network(make: Maker) -> Maker:
    """Register a maker of cases under its name. Its keyword arguments are sizes, small by default."""
    NETWORKS[make.__name__] = make
    return make


@dataclass(frozen=True)
class Case:
    """A module in eval mode with an example clip.

    Attributes:
        module: weights, biases and statistics are random.
        clip: of batch 2 by default; a tuple for a module with several inputs.
        options: for ``co.continual``, beside the module and the clip.
        out_time: where time is in the output, ``None`` for an output of a whole clip; a tuple for several outputs.
        any_length: whether the twin equals the module on clips of other lengths than the example's, too.
        multiple: lengths that the module takes are multiples of this.
    """

    module: nn.Module
    clip: Tensor | tuple[Tensor, ...]
    options: dict[str, Any] = field(default_factory=dict)
    out_time: int | tuple[int | None, ...] | None = 2
    any_length: bool = True
    multiple: int = 1

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The example, as the module is called with it."""
        return self.clip if isinstance(self.clip, tuple) else (self.clip,)

    @property
    def time_dims(self) -> tuple[int | None, ...]:
        """Where time is in each input."""
        given = self.options.get("time_dim", 2)
        return given if isinstance(given, tuple) else (given,) * len(self.inputs)

    @property
    def frames(self) -> int:
        """The example's length."""
        return next(x.shape[d] for x, d in zip(self.inputs, self.time_dims) if d is not None)

    @property
    def _clip_level(self) -> bool:
        """Whether an output is that of a whole clip."""
        return self.out_time is None

    def convert(self, **options: Any) -> Any:
        """The streaming twin."""
        return co.continual(self.module, self.clip, **{"windows": "stream", **self.options, **options})

    def run(self, *inputs: Tensor) -> Any:
        """The module on other inputs, or on the example, without gradients."""
        with torch.no_grad():
            return self.module(*(inputs or self.inputs))

    def clips(self, frames: int, batch: int | None = None, seed: int = 1) -> tuple[Tensor, ...]:
        """Inputs like the example's with other values and of another length; those that are not streams are the example's."""
        generator = torch.Generator().manual_seed(seed)

        def drawn(x: Tensor, time: int | None) -> Tensor:
            if time is None:
                return x
            shape = list(x.shape)
            shape[time] = frames
            shape[0] = batch or shape[0]
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(x.dtype)

        return tuple(drawn(x, d) for x, d in zip(self.inputs, self.time_dims))

    def to(self, dtype: torch.dtype) -> Case:
        """The same in another dtype. The module is changed."""
        inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in self.inputs)
        clip = inputs if isinstance(self.clip, tuple) else inputs[0]
        return Case(self.module.to(dtype), clip, self.options, self.out_time, self.any_length, self.multiple)


def noise(*shape: int, seed: int = 0) -> Tensor:
    """A random clip."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """A module in eval mode whose weights, biases and statistics are all drawn.

    The signal neither dies nor explodes. Recurrent layers keep torch's weights, drawn with the seed of :func:`seeded`: larger ones
    would amplify rounding errors from step to step.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(values: Tensor, low: float, high: float) -> None:
        values.copy_(torch.rand(values.shape, generator=generator) * (high - low) + low)

    def normal(values: Tensor, deviation: float) -> None:
        values.copy_(torch.randn(values.shape, generator=generator) * deviation)

    with torch.no_grad():
        for part in module.modules():
            norm = isinstance(part, (_BatchNorm, nn.LayerNorm, nn.GroupNorm))
            if isinstance(part, _BatchNorm) and part.running_mean is not None and part.running_var is not None:
                uniform(part.running_mean, -0.5, 0.5)
                uniform(part.running_var, 0.5, 2.0)
            if isinstance(part, nn.RNNBase):
                continue
            for name, values in part.named_parameters(recurse=False):
                if name in ("importance", "original0") or (norm and name == "weight"):  # factors
                    uniform(values, 0.5, 1.5)
                elif name == "positions":
                    normal(values, 0.7)
                elif values.ndim > 1:
                    normal(values, (1.5 * values.shape[0] / values.numel()) ** 0.5)
                else:
                    uniform(values, -0.5, 0.5)
    return module.eval()


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A module made with the same random numbers each time, then :func:`randomised`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return randomised(make(), seed)
