"""What a node of an exported graph stands for while the streaming network is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node as Fx

from .axes import Dims

Value = Any  # Size | Varying | Const | Stream | Clocked | Fragment | Unknown | numbers, None, lists
ITEM = "helper_ops:item"  # one of several results
STILL = -1  # the wire of what is the same for all frames


@dataclass(frozen=True)
class Size:
    """A whole number that may depend on the clip's rows and length: its values for several examples."""

    values: tuple[int, ...]

    @staticmethod
    def of(value: Any, count: int) -> Size:
        """A number as a size."""
        return value if isinstance(value, Size) else Size((int(value),) * count)

    @property
    def now(self) -> int:
        """Its value for the example itself."""
        return self.values[0]

    @property
    def varies(self) -> bool:
        """Whether it depends on the clip."""
        return len(set(self.values)) > 1

    @property
    def steady(self) -> bool:
        """Whether it is the same for all clips."""
        return not self.varies

    def combine(self, fn: Callable[..., Any], *others: Any) -> Any:
        """A function of sizes and numbers."""
        return computed(fn, self, *others)


@dataclass(frozen=True)
class Varying:
    """A number that is no whole number and depends on the clip's length."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Const:
    """What depends on no stream: parameters, buffers, constant inputs, and what is computed of them."""

    slot: int
    dims: Dims
    value: Tensor  # for the example
    fill: float | None = None  # the value of all elements, where the module's code says so


@dataclass(frozen=True)
class Stream:
    """A wire: one frame for every so many steps.

    Attributes:
        slot: where it is kept while the network runs.
        dims: its layout.
        wire: its timing, in :class:`~continual.core.timing_graph.Wires`.
        dtype: of its frames.
        windows: the layout of the clip has no time, which was reduced over a window: time stands for windows here.
        fill: the value of all elements, where they are one.
        patches: where a tensor of one value was written into: that value, the dimension, and the stretches of it.
    """

    slot: int
    dims: Dims
    wire: int
    dtype: torch.dtype
    windows: bool = False
    fill: float | None = None
    patches: tuple[float, int, tuple[tuple[int, int], ...]] | None = None


@dataclass(frozen=True)
class Fragment:
    """What can't be streamed and may not be needed: its shape may, and constants like it. Any other use is refused."""

    dims: Dims
    dtype: torch.dtype
    reason: str
    remedy: str
    at: Fx | None = None  # the operation that gives it


@dataclass(frozen=True, eq=False)
class Clocked:
    """What depends on the clip's length and on no stream: positions, and what is computed of them. Made where it is used.

    Attributes:
        node: where it comes from.
        name: the operation that makes it.
        args: that operation's arguments, by name.
        positional: which of them are positional.
    """

    node: Fx
    name: str
    args: dict[str, Value]
    positional: tuple[str, ...]
    given: frozenset[str] = frozenset()  # which others are given by name


@dataclass(frozen=True, eq=False)
class Scores:
    """How much each frame attends to each: ``scale · q · kᵀ + bias``, or the softmax of it. It is never computed as it stands.

    Attributes:
        query, key: ``(…, T, E)``, whose rows and heads may have to be repeated to fit.
        rows: the layout without its last two dimensions, which are time.
        dtype: of the scores.
        scale: a number.
        bias: what is added, ``(…, T, T)``.
        gate: by what the scores are multiplied, 0 or 1.
        weights: whether it is the softmax.
        turned: whether the keys come before the queries.
    """

    query: Stream
    key: Stream
    rows: Dims
    dtype: torch.dtype
    scale: float = 1.0
    bias: Const | Clocked | None = None
    gate: Const | Clocked | None = None
    weights: bool = False
    turned: bool = False


@dataclass(frozen=True)
class Unknown:
    """What a refused operation gives, where it is not known how time lies in it.

    Attributes:
        shape: for the example.
        like: the stream that it was made of: what is made of it may have its layout again.
        until: how the names of operations begin behind which it may: a spectrum of the clip has no time before it is turned back.
    """

    shape: tuple[int, ...]
    like: Stream | None = None
    until: str = ""


def computed(fn: Callable[..., Any], *args: Any) -> Any:
    """Arithmetic on sizes and numbers."""
    count = next((len(a.values) for a in args if isinstance(a, (Size, Varying))), 0)
    if not count:
        return fn(*args)
    found = [fn(*(a.values[i] if isinstance(a, (Size, Varying)) else a for a in args)) for i in range(count)]
    if all(isinstance(v, int) and not isinstance(v, bool) for v in found):
        return Size(tuple(found))
    return found[0] if len(set(found)) == 1 else Varying(tuple(found))
