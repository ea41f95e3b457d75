"""Integrate-and-fire neurons: those of spikingjelly, by the names of their classes. Neurons of snntorch convert as loops do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..core.module import CoModule
from ..core.naming import named
from ..core.registry import register_by_name
from ..errors import NotStreamable
from .recurrence import Recurrence, States


def fire(x: Tensor) -> Tensor:
    """1 at 0 and above, 0 below, with the gradient of ``sigmoid(4 x)``."""
    smooth = torch.sigmoid(4 * x)
    return (x >= 0).to(x.dtype) + (smooth - smooth.detach())


class IntegrateAndFire(Recurrence):
    """Neurons on clips ``(B, C, T, *S)``: a potential that takes the inputs, fires at a threshold, and is reset.

    The potential is charged, ``v = v + x`` without a leak, ``v = v + (x - (v - v₀)) / τ`` where the input decays too, and
    ``v = v - (v - v₀) / τ + x`` where it does not. At the threshold it gives 1, and is set to ``v₀``, or lowered by the threshold.

    Args:
        rate: ``1 / τ``; ``None`` for no leak. A parameter ``w`` of the module takes its place, as ``sigmoid(w)``.
        decay_input: whether the input decays too.
        threshold: at which it fires.
        reset: ``v₀``; ``None``: lower it by the threshold.
        spike: 1 at 0 and above, 0 below, with the gradient that stands for that of a step. It is called where gradients are enabled.
        detach_reset: whether the reset has no gradient.

    Raises:
        ShapeMismatch: steps of another type.

    Example:
        >>> from continual.layers.spiking import IntegrateAndFire
        >>> neuron = IntegrateAndFire(0.5, threshold=1.2)
        >>> [neuron.forward_step(torch.full((1, 1), 2.0)).item() for _ in range(4)]
        [0.0, 1.0, 0.0, 1.0]

    Source: Fang et al. (2023), SpikingJelly, Science Advances.
    """

    w: Tensor | None

    def __init__(
        self,
        rate: float | None,
        decay_input: bool = True,
        threshold: float = 1.0,
        reset: float | None = 0.0,
        spike: Callable[[Tensor], Tensor] = fire,
        detach_reset: bool = False,
    ):
        super().__init__()
        self.rate, self.decay_input, self.threshold, self.reset = rate, decay_input, threshold, reset
        self.detach_reset = detach_reset
        self.__dict__["spike"] = spike  # it is no part of the network, though it may be a module
        self.register_parameter("w", None)

    def extra_repr(self) -> str:
        return f"rate={self.rate}, threshold={self.threshold}, reset={self.reset}"

    def initial_state(self, x: Tensor) -> States:
        return {"potential": torch.full_like(x, self.reset or 0.0)}

    def recur(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        v = self._charged(x, state["potential"])
        over = v - self.threshold
        spikes = self.__dict__["spike"](over) if torch.is_grad_enabled() else (over >= 0).to(x.dtype)
        fired = spikes.detach() if self.detach_reset else spikes
        after = v - fired * self.threshold if self.reset is None else (1.0 - fired) * v + fired * self.reset
        return spikes, {"potential": after}

    def _charged(self, x: Tensor, v: Tensor) -> Tensor:
        rate = self.rate if self.w is None else torch.sigmoid(self.w)
        if rate is None:
            return v + x
        above = v - self.reset if self.reset else v
        return v + (x - above) * rate if self.decay_input else v - above * rate + x


def _fits(module: Any) -> bool:
    """Whether a module takes all frames at a time, and fires."""
    spiking = getattr(getattr(module, "surrogate_function", None), "spiking", False)
    return getattr(module, "step_mode", "s") == "m" and not getattr(module, "store_v_seq", False) and bool(spiking)


def _build(module: Any, memo: dict[int, Any], path: str) -> CoModule:
    if not _fits(module):
        raise NotStreamable(
            f"{named(path, module)}: takes single frames, stores all potentials, or does not fire. Remedy: step_mode='m', "
            "store_v_seq=False and a surrogate function with spiking=True"
        )
    weight, tau = getattr(module, "w", None), getattr(module, "tau", None)
    made = IntegrateAndFire(
        None if tau is None else 1.0 / tau,
        getattr(module, "decay_input", True),
        module.v_threshold,
        module.v_reset,
        module.surrogate_function,
        module.detach_reset,
    )
    if weight is not None:
        made.w = nn.Parameter(weight.detach().clone(), weight.requires_grad)
    made._set_time_dim(0)
    return made.train(module.training)


for _place, _name in (("integrate_and_fire", "IFNode"), ("lif", "LIFNode"), ("plif", "ParametricLIFNode")):
    for _module in ("neuron", f"neuron.{_place}"):
        register_by_name(f"spikingjelly.activation_based.{_module}.{_name}", _build, _fits)
