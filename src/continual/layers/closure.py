"""Functions as modules: `Lambda`, and frequent small functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..core.program.context import KernelContext, Run
from ..core.state import StateNode, StateUpdates
from .exact_gradients import with_exact_norms
from .local import LocalFunction, LocalInTime

Fn = Callable[[Tensor], Tensor]


class Lambda(LocalInTime):
    """A function that is local in time, as a module.

    Args:
        fn: maps a step ``(B, C, *S)`` to a step. In ``forward`` it is applied to every frame.
        forward_only_fn, forward_step_only_fn, forward_steps_only_fn: another function for one of the three ways to run;
            given together they replace ``fn``.
        takes_time: ``fn`` takes clips ``(B, C, T, *S)`` instead (faster on chunks); a step comes as a clip of one.

    ``fn`` must not change its input in place.

    Example:
        >>> co.Lambda(lambda step: step.mean(-1)).forward(torch.ones(2, 3, 5, 4)).shape
        torch.Size([2, 3, 5])
        >>> co.Lambda(lambda clip: clip.mean(-1), takes_time=True).forward_step(torch.ones(2, 3, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        fn: Fn | None = None,
        forward_only_fn: Fn | None = None,
        forward_step_only_fn: Fn | None = None,
        forward_steps_only_fn: Fn | None = None,
        takes_time: bool = False,
    ):
        super().__init__()
        chosen = (forward_only_fn or fn, forward_step_only_fn or fn, forward_steps_only_fn or fn)
        if not all(callable(f) for f in chosen):
            raise ValueError(
                "Lambda takes a function `fn`, or all three of forward_only_fn, forward_step_only_fn and forward_steps_only_fn"
            )
        self.fn, self.takes_time = fn, takes_time
        self.forward_only_fn, self.forward_step_only_fn, self.forward_steps_only_fn = chosen

    def forward(self, input: Tensor) -> Tensor:
        """``fn`` on the clip, or on each of its frames."""
        return self._on_clip(self.forward_only_fn, input)

    def clip(self, x: Tensor) -> Tensor:
        return self._on_clip(self.forward_steps_only_fn, x)

    def local_step(self, x: Tensor) -> Tensor:
        fn: Any = self.forward_step_only_fn
        result: Tensor = fn(x.unsqueeze(2)).squeeze(2) if self.takes_time else fn(x)
        return result

    @with_exact_norms
    def _on_clip(self, fn: Any, x: Tensor) -> Tensor:
        if self.takes_time:
            result: Tensor = fn(x)
            return result
        return torch.stack([fn(step) for step in x.unbind(2)], 2)

    def extra_repr(self) -> str:
        names = [getattr(f, "__name__", type(f).__name__) for f in (self.fn,) if f is not None]
        return ", ".join(names + (["takes_time=True"] if self.takes_time else []))


class _WithNumber(LocalFunction):
    def __init__(self, number: float | Tensor):
        super().__init__()
        if isinstance(number, Tensor) and number.numel() != 1:
            raise ValueError(
                f"{type(self).__name__} takes one number, got a tensor {tuple(number.shape)}, which would meet clips and steps "
                "in different dimensions. Use co.Lambda(lambda step: …)"
            )
        self.number = number.item() if isinstance(number, Tensor) else number

    def extra_repr(self) -> str:
        return f"{self.number}"


class Add(_WithNumber):
    """Add a number.

    Example:
        >>> co.Add(2)(torch.zeros(1, 1, 3))
        tensor([[[2., 2., 2.]]])
    """

    def local_step(self, x: Tensor) -> Tensor:
        return x + self.number


class Multiply(_WithNumber):
    """Multiply by a number."""

    def local_step(self, x: Tensor) -> Tensor:
        return x * self.number


class Constant(_WithNumber):
    """Replace every value by a number."""

    def local_step(self, x: Tensor) -> Tensor:
        return torch.full_like(x, self.number)


class Zero(Constant):
    """Replace every value by 0."""

    def __init__(self) -> None:
        super().__init__(0)

    def extra_repr(self) -> str:
        return ""


class One(Constant):
    """Replace every value by 1."""

    def __init__(self) -> None:
        super().__init__(1)

    def extra_repr(self) -> str:
        return ""


class Identity(LocalFunction):
    """The identity; arguments are accepted and mean nothing, as in ``nn.Identity``."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()

    def local_step(self, x: Any) -> Any:
        return x

    def out(self, frame: Any) -> Any:
        return frame

    def advance(self, x: Any, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Any, int]:
        return x, n_if_ended

    def program(self, ctx: KernelContext) -> Run:
        return lambda x, rows: x
