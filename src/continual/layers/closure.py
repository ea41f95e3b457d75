"""Functions as modules: `Lambda`, and frequent small functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..core.function_source import shown
from ..core.program.context import KernelContext, Run
from ..core.state import StateNode, StateUpdates, StepSpec
from ..errors import NotStreamable, ShapeMismatch
from .exact_gradients import with_exact_norms
from .local import LocalFunction, LocalInTime

Fn = Callable[[Tensor], Tensor]


class Lambda(LocalInTime):
    """A function that is local in time, as a module.

    Args:
        fn: maps a step ``(B, C, *S)`` to a step. In ``forward`` and on chunks it is applied to every frame. A module will do; its
            parameters are then parameters of this one.
        forward_only_fn: what ``forward`` calls instead, with the clip ``(B, C, T, *S)``.
        forward_step_only_fn: what is called for a step instead, with the step; chunks of one are steps.
        forward_steps_only_fn: what is called for a longer chunk instead, with the chunk.
        takes_time: ``fn`` takes clips instead (faster on chunks); a step comes as a clip of one.

    That all of them compute the same is up to you. None of them may change its input in place.

    Raises:
        ValueError: neither ``fn`` nor all three of the others are functions.

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
        own = (forward_only_fn, forward_step_only_fn, forward_steps_only_fn)
        if not all(callable(f) for f in (own if fn is None else [fn, *(f for f in own if f is not None)])):
            raise ValueError(
                "Lambda takes a function `fn`, or all three of forward_only_fn, forward_step_only_fn and forward_steps_only_fn"
            )
        self.fn, self.takes_time = fn, takes_time
        self.forward_only_fn, self.forward_step_only_fn, self.forward_steps_only_fn = own

    @staticmethod
    def build_from(module: Fn, *args: Any, **kwargs: Any) -> Lambda:
        """As the constructor, whose arguments these are."""
        return Lambda(module, *args, **kwargs)

    def forward(self, input: Tensor) -> Tensor:
        """``fn`` on the clip, or on each of its frames."""
        return self._on_clip(self.forward_only_fn, input)

    def clip(self, x: Tensor) -> Tensor:
        if x.shape[2] == 1 and self.forward_step_only_fn is not None:
            return self.local_step(x.squeeze(2)).unsqueeze(2)
        return self._on_clip(self.forward_steps_only_fn, x)

    def local_step(self, x: Tensor) -> Tensor:
        fn: Any = self.forward_step_only_fn
        if fn is not None:
            return cast(Tensor, fn(x))
        fn = self.fn
        return cast(Tensor, fn(x.unsqueeze(2)).squeeze(2) if self.takes_time else fn(x))

    @with_exact_norms
    def _on_clip(self, own: Any, x: Tensor) -> Tensor:
        if own is not None:
            return cast(Tensor, own(x))
        fn: Any = self.fn
        return cast(Tensor, fn(x)) if self.takes_time else torch.stack([fn(step) for step in x.unbind(2)], 2)

    def extra_repr(self) -> str:
        own = (self.fn, self.forward_only_fn, self.forward_step_only_fn, self.forward_steps_only_fn)
        return ", ".join([shown(f) for f in own if f is not None] + ["takes_time=True"] * self.takes_time)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"  # in one line, also where a function is a module


class _WithConstant(LocalFunction):
    def __init__(self, constant: float | Tensor):
        super().__init__()
        if isinstance(constant, nn.Parameter):
            self.register_parameter("number", constant)
        elif isinstance(constant, Tensor) and constant.numel() > 1:
            self.register_buffer("number", constant, persistent=False)  # a constant in the code, not in checkpoints
        else:
            self.number: Any = constant.item() if isinstance(constant, Tensor) else constant

    @property
    def kind(self) -> str:
        return f"{type(self).__name__} {tuple(self.number.shape)}" if isinstance(self.number, Tensor) else type(self).__name__

    def check(self, frame: StepSpec, path: str) -> None:
        if isinstance(self.number, Tensor):
            self._aligned(len(frame.shape) + 1, path)

    def _aligned(self, ndim: int, path: str = "") -> Tensor:
        """A tensor with a dimension for each one of clips with so many, of which those of rows and of time have size 1."""
        number: Tensor = self.number
        shape = (1,) * (ndim - number.ndim) + tuple(number.shape)
        if len(shape) > ndim or shape[0] != 1 or shape[2] != 1:
            clip = ("1", "C", "1", *"SHW"[-max(0, ndim - 3) :]) if ndim > 3 else ("1", "C", "1")
            raise ShapeMismatch(
                f"{path or type(self).__name__}: a constant of size {tuple(number.shape)} is to meet clips of {ndim} dimensions, and has "
                f"to be the same for all rows and all moments: give it the size ({', '.join(clip)}), where each one may be 1"
            )
        return number.view(shape)

    def constant_for(self, x: Tensor) -> Any:
        """What meets a step."""
        number = self.number
        return self._aligned(x.ndim + 1).squeeze(2) if isinstance(number, Tensor) else number

    def out(self, frame: StepSpec) -> StepSpec:
        return LocalInTime.out(self, frame) if isinstance(self.number, Tensor) else frame

    def forward(self, input: Tensor) -> Tensor:
        """The same on every frame of the clip."""
        return self.clip(input)

    def clip(self, x: Tensor) -> Tensor:
        return self.combine(x, self._aligned(x.ndim) if isinstance(self.number, Tensor) else self.number)

    def local_step(self, x: Tensor) -> Tensor:
        return self.combine(x, self.constant_for(x))

    def combine(self, x: Tensor, constant: Any) -> Tensor:
        """What leaves, of what comes and the constant."""
        raise NotStreamable(f"{type(self).__name__} defines no `combine`")

    def extra_repr(self) -> str:
        return f"size={tuple(self.number.shape)}" if isinstance(self.number, Tensor) else f"{self.number}"


class Add(_WithConstant):
    """Add a constant.

    Args:
        constant: a number, or a tensor that broadcasts over clips ``(B, C, T, *S)`` and is the same for all rows and moments: its size
            is 1 in both of these dimensions. A tensor moves with the module; only an ``nn.Parameter`` is in the ``state_dict``.

    Raises:
        ShapeMismatch: when run on clips that the tensor does not fit.

    Example:
        >>> co.Add(2)(torch.zeros(1, 1, 3))
        tensor([[[2., 2., 2.]]])
        >>> co.Add(torch.tensor([1.0, -1.0]).view(1, 2, 1)).forward_step(torch.zeros(1, 2))
        tensor([[ 1., -1.]])
    """

    def __init__(self, constant: float | Tensor):
        super().__init__(constant)

    def combine(self, x: Tensor, constant: Any) -> Tensor:
        return x + constant


class Multiply(_WithConstant):
    """Multiply by a constant: a number, or a tensor as in :class:`Add`."""

    def __init__(self, factor: float | Tensor):
        super().__init__(factor)

    def combine(self, x: Tensor, constant: Any) -> Tensor:
        return x * constant


class Constant(LocalFunction):
    """Replace every value by a number."""

    def __init__(self, constant: float):
        super().__init__()
        if isinstance(constant, Tensor) and constant.numel() != 1:
            raise ValueError(
                f"Constant takes one number, got a tensor {tuple(constant.shape)}. Use co.Sequential(co.Zero(), co.Add(tensor))"
            )
        self.number = constant.item() if isinstance(constant, Tensor) else constant

    def local_step(self, x: Tensor) -> Tensor:
        return torch.full_like(x, self.number)

    def extra_repr(self) -> str:
        return f"{self.number}"


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
