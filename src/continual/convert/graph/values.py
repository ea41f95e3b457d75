"""The values of an exported graph's nodes while the program is built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx import Node as Fx

from .axes import Dims
from .formulas import Formula

ITEM = "helper_ops:item"  # selects one of several results
STATIC = -1  # the wire of a tensor that is the same for every frame

Number: TypeAlias = "bool | int | float | complex"
Plain: TypeAlias = (
    "Number | str | torch.dtype | torch.device | torch.layout | torch.memory_format | torch.Generator | torch.ScriptObject | None"
)
Value: TypeAlias = (
    "Size | SymScalar | Const | Stream | LengthDependent | NotStreamed | Scores | Unknown | Plain | Sequence[Value]"
)
TensorValue: TypeAlias = "Stream | Const"


@dataclass(frozen=True)
class Size:
    """An integer that may depend on the clip's batch size and length: its values for the sample lengths.

    Attributes:
        values: these values.
        formula: gives it for any length; ``None``: it is a number, or its formula is not known.
    """

    values: tuple[int, ...]
    formula: Formula | None = field(default=None, compare=False, repr=False)

    @staticmethod
    def of(value: Value, count: int) -> Size:
        """An integer as a size."""
        return value if isinstance(value, Size) else Size((as_int(value),) * count)

    @property
    def now(self) -> int:
        """Its value for the example itself."""
        return self.values[0]

    @property
    def varies(self) -> bool:
        """Whether it depends on the clip."""
        return len(set(self.values)) > 1

    @property
    def constant(self) -> bool:
        """Whether it is equal for all clips."""
        return not self.varies

    def combine(self, fn: Callable[..., int], *others: Size | int) -> Size:
        """A function of sizes and integers that gives an integer."""
        columns = (o.values if isinstance(o, Size) else (o,) * len(self.values) for o in others)
        values = tuple(fn(*row) for row in zip(self.values, *columns, strict=True))
        return Size(values, formula_of(fn, (self, *others)))


@dataclass(frozen=True)
class SymScalar:
    """A number that is not an integer and depends on the clip's length: its values for the sample lengths, and its formula."""

    values: tuple[Number, ...]
    formula: Formula | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Const:
    """A tensor that depends on no stream: a parameter, a buffer, a constant input, or computed from these.

    Attributes:
        slot: where the program keeps it.
        dims: its layout.
        value: its value for the example.
        fill: the value of all its elements, where the module's code states one.
    """

    slot: int
    dims: Dims
    value: Tensor
    fill: float | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its elements."""
        return self.value.dtype


@dataclass(frozen=True)
class Stream:
    """A tensor with frames, one for every ``n`` input steps.

    Attributes:
        slot: where the program keeps it.
        dims: its layout.
        wire: its timing, an index into :class:`~continual.core.timing_graph.Wires`.
        dtype: of its frames.
        windows: the clip's tensor has no time, which a window reduced: time counts windows here.
        fill: the value of all elements, where they have one value.
        patches: where slices were written into a tensor of one value: that value, the dimension, and the slices.
    """

    slot: int
    dims: Dims
    wire: int
    dtype: torch.dtype
    windows: bool = False
    fill: float | None = None
    patches: tuple[float, int, tuple[tuple[int, int], ...]] | None = None


@dataclass(frozen=True)
class NotStreamed:
    """A result that can't be streamed and may be unused. Only its shape and constants like it are available; other uses are refused."""

    dims: Dims
    dtype: torch.dtype
    reason: str
    remedy: str
    at: Fx | None = None  # the operation that gives it


@dataclass(frozen=True, eq=False, kw_only=True)
class Spectrum(NotStreamed):
    """The spectrum of a clip with zeros behind it. Times that of a filter, and back, it is a convolution; other uses are refused.

    Attributes:
        of: the stream, with time in its last dimension.
        length: of the clip with its zeros.
        taps: the filter that it was multiplied by.
        inverted: whether it is the convolution: as many frames as the clip has with its zeros.
    """

    of: Stream
    length: Size
    taps: Const | None = None
    inverted: bool = False


@dataclass(frozen=True, eq=False)
class LengthDependent:
    """A tensor that depends on the clip's length and on no stream: positions, and what is computed from them. It is built at its use.

    Attributes:
        node: the node that it comes from.
        name: the operation that makes it.
        args: that operation's arguments, by name.
        positional: which of them are positional.
        keywords: which others the call passes by name.
    """

    node: Fx
    name: str
    args: dict[str, Value]
    positional: tuple[str, ...]
    keywords: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Scores:
    """Attention scores between all frames: ``scale · q · kᵀ + bias``, or their softmax. The program never computes this matrix.

    Attributes:
        query, key: ``(…, T, E)``; their batch and head dimensions may broadcast.
        rows: the layout without its last two dimensions, which are time.
        dtype: of the scores.
        scale: a factor.
        cap: the scores are ``cap · tanh(scale · q · kᵀ)`` before anything is added.
        bias: what is added, ``(…, T, T)``.
        gate: zeros and ones that multiply the scores.
        weights: whether it is the softmax.
        transposed: whether the key dimension comes before the query dimension.
    """

    query: Stream
    key: Stream
    rows: Dims
    dtype: torch.dtype
    scale: float = 1.0
    cap: float | None = None
    bias: Const | LengthDependent | None = None
    gate: Const | LengthDependent | None = None
    weights: bool = False
    transposed: bool = False


@dataclass(frozen=True)
class Unknown:
    """The result of a refused operation, where the position of time in it is unknown.

    Attributes:
        shape: for the example.
        like: the stream that it was computed from: results of it may have that stream's layout again.
        until: the name prefix of the operations that restore the layout: a spectrum of the clip has no time before its inverse.
    """

    shape: tuple[int, ...]
    like: Stream | None = None
    until: str = ""


def as_int(value: Value) -> int:
    """A plain number as an integer.

    Raises:
        TypeError: it is not a plain number.
    """
    if isinstance(value, (int, float)):
        return int(value)
    raise TypeError(f"expected a number, got {type(value).__name__}")


def as_number(value: Value) -> float:
    """A plain real number.

    Raises:
        TypeError: it is not a plain number.
    """
    if isinstance(value, (int, float)):
        return value
    raise TypeError(f"expected a number, got {type(value).__name__}")


def as_sequence(value: Value) -> Sequence[Value]:
    """A list of values; one value alone is a list of one."""
    return value if isinstance(value, (list, tuple)) else [value]


def computed(fn: Callable[..., Value], *args: Value) -> Value:
    """A function of sizes and numbers, evaluated for every sample length."""
    count = next((len(a.values) for a in args if isinstance(a, (Size, SymScalar))), 0)
    if not count:
        return fn(*args)
    found = [fn(*(a.values[i] if isinstance(a, (Size, SymScalar)) else a for a in args)) for i in range(count)]
    integers = [v for v in found if isinstance(v, int) and not isinstance(v, bool)]
    if len(integers) == count:
        return Size(tuple(integers), formula_of(fn, args))
    numbers = [v for v in found if isinstance(v, (bool, int, float, complex))]
    return found[0] if len(set(numbers)) == 1 else SymScalar(tuple(numbers), formula_of(fn, args))


def formula_of(fn: Callable[..., Any], args: Sequence[Value | int]) -> Formula | None:
    """The formula of a function of sizes and numbers; ``None`` where that of a size is not known."""
    arguments: list[Any] = []
    for a in args:
        if not isinstance(a, (Size, SymScalar)):
            arguments.append(a)
        elif len(set(a.values)) == 1 and a.formula is None:
            arguments.append(a.values[0])
        elif a.formula is None:
            return None
        else:
            arguments.append(a.formula)
    return Formula(fn, tuple(arguments))


def leaves(value: Value) -> list[Value]:
    """All values in nested lists."""
    return [v for item in value for v in leaves(item)] if isinstance(value, (list, tuple)) else [value]


def exchanged(value: Value, new: Mapping[int, Value]) -> Value:
    """A value with some streams replaced, by their slots."""
    if isinstance(value, (list, tuple)):
        return [exchanged(v, new) for v in value]
    return new.get(value.slot, value) if isinstance(value, Stream) else value


def streams_of(value: Value, seen: set[int] | None = None) -> Iterator[Stream]:
    """The streams in nested lists, and those from which a length-dependent value is computed.

    Args:
        seen: the length-dependent values that are left out; takes those that are met. A mask that a loop fills is computed of each of its
            states twice.
    """
    seen = set() if seen is None else seen
    if isinstance(value, Stream):
        yield value
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from streams_of(v, seen)
    elif isinstance(value, LengthDependent) and id(value) not in seen:
        seen.add(id(value))
        yield from streams_of(list(value.args.values()), seen)
