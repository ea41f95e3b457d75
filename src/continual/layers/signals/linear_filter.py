"""Linear filters whose state is carried in double precision: what `SOSFilter`, `IIRFilter` and exponential averages share."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...core.precision import kept_wide, widest
from ...core.program.context import KernelContext, Run
from ...errors import ShapeMismatch
from ..recurrence import Recurrence, States
from ..weight_cache import PackedWeight


def signal_package(who: str) -> Any:
    """``scipy.signal``.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module("scipy.signal")
    except ImportError as error:
        raise ImportError(f"{who} needs scipy: pip install scipy. Or give coefficients that another tool has computed") from error


class Filter(Protocol):
    """The matrices of a filter. Samples are ``(…)`` or ``(…, n)``, states ``(…, N)``."""

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]: ...

    def run(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]: ...


class LinearFilter(Recurrence, PackedWeight, ABC):
    """Base class of filters along time, each channel and place apart. A subclass defines :meth:`coefficients` and :meth:`made`.

    Coefficients and state are float64, and stay so when the module moves to another dtype: what a filter rings on to may last a million
    samples, and single precision would change its poles. Outputs have the dtype of the inputs.
    """

    _wide = True
    _fast_chunks = True
    order: int
    zi: Tensor | None

    @abstractmethod
    def coefficients(self) -> Sequence[Tensor]:
        """The tensors that the matrices are made of."""

    @abstractmethod
    def made(self, coefficients: Sequence[Tensor]) -> Filter:
        """The matrices."""

    def _keep(self, name: str, value: Any) -> None:
        """Keep a tensor: a parameter if it is one, else a buffer, in float64."""
        if isinstance(value, nn.Parameter):
            self.register_parameter(name, nn.Parameter(value.detach().double(), value.requires_grad))
        else:
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float64).detach().clone())

    def _keep_initial(self, zi: Any, shape: tuple[int, ...]) -> None:
        """Keep the initial conditions of scipy."""
        if zi is None:
            self.zi = None
            return
        self._keep("zi", zi)
        if self.zi is None or self.zi.shape != shape:
            raise ValueError(f"{type(self).__name__}: zi has the shape {shape}, got {tuple(torch.as_tensor(zi).shape)}")

    def _filter(self) -> Filter:
        """The matrices, made once unless gradients flow into them."""
        coefficients = self.coefficients()
        if torch.is_grad_enabled() and any(t.requires_grad for t in coefficients):
            return self.made(coefficients)
        found: Filter = self._laid_out_together("filter", coefficients, self._plain)
        return found

    def _plain(self, coefficients: Sequence[Tensor]) -> Filter:
        with torch.inference_mode(False), torch.no_grad():
            return self.made([t.detach() for t in coefficients])

    # ---- recurrence -------------------------------------------------------------------------------------------------

    @property
    def _rests(self) -> bool:  # type: ignore[override]
        return self.zi is None

    def initial_state(self, x: Tensor) -> States:
        if not x.dtype.is_floating_point:
            raise ShapeMismatch(f"{type(self).__name__}: filters real numbers in floating point, got steps of {x.dtype}")
        cold = torch.zeros(*x.shape, self.order, dtype=widest(x.device), device=x.device)
        return {"state": cold if self.zi is None else cold + self.first_state(self.zi)}

    def first_state(self, zi: Tensor) -> Tensor:
        """The state ``(N,)`` that the initial conditions of scipy are."""
        return zi.flatten()

    def recur(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        return self._one(self._filter(), x, state)

    def recur_chunk(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        return self._many(self._filter(), x, state)

    def _one(self, own: Filter, x: Tensor, state: States) -> tuple[Tensor, States]:
        before = state["state"]
        y, after = own.step(x.to(before.dtype), before)
        return self.leaving(x, y.to(x.dtype)), {"state": after}

    def _many(self, own: Filter, x: Tensor, state: States) -> tuple[Tensor, States]:
        before = state["state"]
        y, after = own.run(x.to(before.dtype).movedim(2, -1), before)
        return self.leaving(x, y.movedim(-1, 2).to(x.dtype)), {"state": after}

    def leaving(self, x: Tensor, y: Tensor) -> Tensor:
        """What leaves, of the samples and what the filter made of them."""
        return y

    def program(self, ctx: KernelContext) -> Run:
        own = self._plain(self.coefficients())  # a constant of graphs that are traced
        use: Callable[[], Filter] = lambda: own if torch.compiler.is_compiling() else self._filter()  # noqa: E731
        chunk = (lambda x, state: self._many(use(), x, state)) if self.in_blocks(ctx) else None
        return self._in_program(ctx, lambda x, state, _: self._one(use(), x, state), chunk)

    def in_blocks(self, ctx: KernelContext) -> bool:
        """Whether what runs a program has the operations of :meth:`recur_chunk`."""
        return True

    def _move_of_weights(self, fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda t: kept_wide(fn, t)
