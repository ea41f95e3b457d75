"""From one stream to several and back: `Broadcast`, `ParallelDispatch`, `Reduce`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.module import CoModule
from ..core.naming import named
from ..core.program.context import KernelContext, Run
from ..core.state import InitContext, StateNode, StateUpdates, StepSpec, Wire
from ..core.step_spec import length
from ..core.timing import IDENTITY, Timing
from ..errors import NotStreamable, ShapeMismatch, WrongMapping


class Rewiring(CoModule):
    """Base class of modules that only rearrange streams, frame by frame. Used on its own, such a module rearranges anything."""

    has_products = False
    runs_kernel = True

    @property
    def timing(self) -> Timing:
        return IDENTITY

    def rearrange(self, x: Any) -> Any:
        """What leaves, of what comes: for steps, chunks and clips alike."""
        raise NotStreamable(f"{type(self).__name__} defines no `rearrange`")

    def forward(self, input: Any) -> Any:
        """The rearranged clips."""
        return self.rearrange(input)

    def forward_step(self, input: Any, update_state: bool = True) -> Any:  # type: ignore[override]
        """As of any module; values that are not steps, ``(B, C, *S)``, are rearranged too."""
        return super().forward_step(input, update_state) if of_rank(input, 2) else self.rearrange(input)

    def forward_steps(self, input: Any, pad_end: bool = False, update_state: bool = True) -> Any:  # type: ignore[override]
        """As of any module; values that are not chunks, ``(B, C, T, *S)``, are rearranged too."""
        return super().forward_steps(input, pad_end, update_state) if of_rank(input, 3) else self.rearrange(input)

    def advance(self, x: Wire | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Wire | None, int]:
        return (None if x is None else self.rearrange(x)), n_if_ended

    def advance_step(self, x: Wire, node: StateNode, updates: StateUpdates) -> Wire:
        return self.rearrange(x)

    def program(self, ctx: KernelContext) -> Run:
        """Streams in another order."""
        return lambda x, rows: self.rearrange(x)


class Broadcast(Rewiring):
    """Hand the same stream to several branches.

    Args:
        num_streams: how many; inferred from the next module in a :class:`Sequential` where it takes several.

    Example:
        >>> len(co.Broadcast(2)(torch.zeros(1, 1, 3)))
        2
    """

    inferred: int | None = None

    def __init__(self, num_streams: int | None = None):
        super().__init__()
        self.num_streams = num_streams

    def rearrange(self, x: Any) -> list[Any]:
        number = self.num_streams or self.inferred
        if number is None:
            raise NotStreamable(
                "Broadcast does not know its number of streams: Broadcast(num_streams), or put it before a Parallel"
            )
        return [x] * number

    def open(self, frame: Any, init: InitContext) -> StateNode:
        return StateNode(init, "Broadcast", self.rearrange(frame))

    def extra_repr(self) -> str:
        return "" if self.num_streams is None else f"{self.num_streams}"


class ParallelDispatch(Rewiring):
    """Reorder, repeat, leave out or group parallel streams.

    Args:
        dispatch_mapping: for each output, the index of an input, or a list of indices to pass on as a group.

    Example:
        >>> a, b = torch.zeros(1, 1, 3), torch.ones(1, 1, 3)
        >>> [s.sum().item() for s in co.ParallelDispatch([1, 0, 1])([a, b])]
        [3.0, 0.0, 3.0]
    """

    def __init__(self, dispatch_mapping: Sequence[Any]):
        super().__init__()
        self._largest = self._check_mapping(dispatch_mapping)
        self.dispatch_mapping = list(dispatch_mapping)

    def _check_mapping(self, mapping: Any) -> int:
        """The largest index in a list of indices and such lists."""
        if not isinstance(mapping, (list, tuple)) or not mapping:
            raise WrongMapping(f"ParallelDispatch takes a list of indices and of lists of indices, got {mapping!r}")
        return max(m if isinstance(m, int) else self._check_mapping(m) for m in mapping)

    @property
    def num_streams(self) -> int:
        """How many streams it takes at least."""
        return self._largest + 1

    @property
    def kind(self) -> str:
        return f"ParallelDispatch {self.dispatch_mapping}"

    def rearrange(self, x: Any) -> Any:
        return self._dispatch(x, self.dispatch_mapping)

    def _dispatch(self, streams: Sequence[Any], mapping: Any) -> Any:
        if isinstance(mapping, int):
            return streams[mapping]
        return [self._dispatch(streams, m) for m in mapping]

    def open(self, frame: Any, init: InitContext) -> StateNode:
        name = named(init.path, self)
        if not isinstance(frame, list) or len(frame) <= self._largest:
            raise ShapeMismatch(f"{name}: takes a list of at least {self._largest + 1} streams, got {frame}")
        return StateNode(init, self.kind, self.rearrange(frame))

    def extra_repr(self) -> str:
        return f"{self.dispatch_mapping}"


_REDUCTIONS: dict[str, Callable[[Sequence[Tensor]], Tensor]] = {}


def reduction(fn: Callable[[Sequence[Tensor]], Tensor]) -> Callable[[Sequence[Tensor]], Tensor]:
    """Register a named reduction."""
    _REDUCTIONS[fn.__name__.removeprefix("reduce_")] = fn
    return fn


@reduction
def reduce_sum(streams: Sequence[Tensor]) -> Tensor:
    """Add them."""
    total = streams[0]
    for stream in streams[1:]:
        total = total + stream
    return total


@reduction
def reduce_concat(streams: Sequence[Tensor]) -> Tensor:
    """Join their channels."""
    return torch.cat(tuple(streams), 1)


@reduction
def reduce_mul(streams: Sequence[Tensor]) -> Tensor:
    """Multiply them."""
    product = streams[0]
    for stream in streams[1:]:
        product = product * stream
    return product


@reduction
def reduce_max(streams: Sequence[Tensor]) -> Tensor:
    """The largest value."""
    largest = streams[0]
    for stream in streams[1:]:
        largest = torch.maximum(largest, stream)
    return largest


class Reduce(Rewiring):
    """Reduce parallel streams to one.

    Args:
        reduce: ``"sum"``, ``"concat"`` (channels), ``"mul"``, ``"max"``, or a function of the list of tensors.

    Raises:
        ShapeMismatch: if the streams' lengths differ. They are never broadcast over time.
    """

    def __init__(self, reduce: str | Callable[[Sequence[Tensor]], Tensor] = "sum"):
        super().__init__()
        reduce = getattr(reduce, "value", reduce)
        if not callable(reduce) and reduce not in _REDUCTIONS:
            raise ValueError(
                f"reduce is one of {', '.join(map(repr, _REDUCTIONS))} or a function of the list of tensors, not {reduce!r}"
            )
        self.reduce = reduce

    @property
    def kind(self) -> str:
        return f"Reduce {self._name}"

    @property
    def _name(self) -> str:
        return self.reduce if isinstance(self.reduce, str) else getattr(self.reduce, "__name__", type(self.reduce).__name__)

    def rearrange(self, streams: Any) -> Tensor:
        """Reduce frames, or chunks of one length."""
        if isinstance(self.reduce, str):
            return _REDUCTIONS[self.reduce](streams)
        return self.reduce(streams)

    def forward(self, input: Any) -> Tensor:
        """One stream."""
        if of_rank(input, 3):
            check_lengths(type(self).__name__, input)
        return self.rearrange(input)

    def open(self, frame: Any, init: InitContext) -> StateNode:
        if not isinstance(frame, list):
            raise ShapeMismatch(f"{named(init.path, self)}: takes a list of streams, got one of {frame}")
        return StateNode(init, self.kind, self.out(frame, named(init.path, self)))

    def out(self, frame: list[Any], name: str) -> StepSpec:
        """The frame that leaves."""
        try:
            return StepSpec.of(self.rearrange([f.zeros() for f in frame]))
        except RuntimeError as error:
            shapes = ", ".join(str(f.shape) for f in frame)
            raise ShapeMismatch(f"{name}: the branches' steps {shapes} can't be reduced by {self._name}: {error}") from error

    def extra_repr(self) -> str:
        return f"'{self._name}'"


def of_rank(x: Any, rank: int) -> bool:
    """Whether something is a tensor of so many dimensions, or more, or a (nested) list of such tensors."""
    if isinstance(x, (list, tuple)):
        return bool(x) and all(of_rank(part, rank) for part in x)
    return isinstance(x, Tensor) and x.ndim >= rank


def check_lengths(name: str, streams: Sequence[Any], names: Sequence[str] = ()) -> None:
    """Parallel clips must have equal lengths; torch would silently repeat one of length 1."""
    found = [length(s) for s in streams]
    if len(set(found)) > 1:
        raise ShapeMismatch(
            f"{name}: the branches have {found} output steps for this clip. Give them equal lengths: the same padding − receptive "
            "field balance and stride, or residual_shrink / Delay(auto_shrink) where one branch loses frames; where one goes down and up "
            "in time, give clips of a length that its strides divide"
        )
