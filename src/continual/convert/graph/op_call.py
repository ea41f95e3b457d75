"""One operation of the graph with its arguments by name, and the exceptions that refuse it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node as Fx

from .values import Const, Stream, TensorValue, Value, as_int, as_sequence, leaves

OTHER_VALUES = "whose values may be others at the next call"
PLAIN_NUMBER = (
    "keep the number in the module as a plain int or float, set in __init__; or go on with the tensor, without `.item()`"
)
COMPARES = "compares all frames of the clip with each other"
BANDED = "attention: F.scaled_dot_product_attention with is_causal=True, or a mask that is a causal band"
DECAYS = (
    f"{BANDED}; weights that decay by sums of data, exp(c[i] - c[j]), are a recurrence: co.GatedLinearAttention, or co.scan over "
    "its state"
)
CAUSAL = (
    "is_causal=True, or a mask that is a causal band: it then looks at a window of the past. A model that was trained with attention to "
    "the whole clip has to be trained for that, or to run on exact windows, output=k"
)


class Refused(Exception):
    """An operation can't be streamed exactly.

    Attributes:
        reason: why not.
        remedy: what to write instead.
        at: the operation that is the cause, where another operation found it.
        mixes_rows: whether the reason is that rows of the batch, which are streams of their own, depend on each other.
        in_loop: whether the code repeats it for every frame of the clip.
    """

    mixes_rows = in_loop = False

    def __init__(self, reason: str, remedy: str, at: Fx | None = None):
        super().__init__(reason)
        self.reason, self.remedy, self.at = reason, remedy, at


class RowsMixed(Refused):
    """Rows of the batch, which are streams of their own, depend on each other."""

    mixes_rows = True


class FrameByFrame(Refused):
    """The frames of the clip are taken one by one, in a loop."""

    in_loop = True

    def __init__(self) -> None:
        super().__init__(
            "takes the frames of the clip one by one, in a loop: as many operations as the example has frames",
            "operations on all frames at once; nn.LSTM, nn.GRU or nn.RNN instead of a loop over cells",
        )


class NoRule(Refused):
    """There is no rule for an operation, nor for the operations that torch decomposes it into."""

    def __init__(self, op: str):
        super().__init__(
            f"there is no streaming rule for `{op}` yet",
            "write it with operations that are covered (docs/conversion.md lists them), or ask for it in an issue",
        )


class Misfit(Refused):
    """The arguments of an operation do not fit each other: sizes, lengths, positions of time and batch.

    Where the layout of an argument is a guess, after an earlier refusal, a misfit follows from the guess and is not reported.
    """


class RowsMisfit(RowsMixed, Misfit):
    """Rows of the batch stand where an operation has channels or heads."""


class Merged(Misfit):
    """An operation over time meets a dimension in which time is merged with others."""


@dataclass
class OpCall:
    """One operation of the graph.

    Attributes:
        node: the node in the exported graph.
        name: the operation, ``"aten.add.Tensor"``.
        args: its arguments, by their names in torch's schema.
        positional: which of them are positional.
    """

    node: Fx
    name: str
    args: dict[str, Value]
    positional: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Value:
        return self.args[name]

    def get(self, name: str, default: Value = None) -> Value:
        """An argument, if the operation has it."""
        return self.args.get(name, default)

    def stream(self, name: str) -> Stream:
        """An argument that is a stream.

        Raises:
            TypeError: it is none; the walk then refuses this use of the operation.
        """
        value = self.args[name]
        if not isinstance(value, Stream):
            raise TypeError(f"`{self.op}` expects a stream as {name}")
        return value

    def tensor(self, name: str) -> TensorValue:
        """An argument that is a stream or a constant.

        Raises:
            TypeError: it is neither.
        """
        return as_tensor(self.args[name])

    def integer(self, name: str, default: int = 0) -> int:
        """An argument that is a plain integer.

        Raises:
            TypeError: it is none.
        """
        return as_int(self.args.get(name, default))

    def sequence(self, name: str) -> list[Value]:
        """An argument that is a list; one value alone is a list of one."""
        return list(as_sequence(self.args[name]))

    def integers(self, name: str) -> list[int]:
        """An argument that is a list of plain integers, or one of them."""
        return [as_int(v) for v in as_sequence(self.args[name])]

    def dim(self, rank: int, name: str = "dim", default: int = 0) -> int:
        """An argument that is a dimension, counted from the start."""
        return self.integer(name, default) % rank

    def with_args(self, /, **new: Value) -> OpCall:
        """The same call with some arguments exchanged."""
        return OpCall(self.node, self.name, self.args | new, self.positional)

    def other(self, name: str, /, **args: Value) -> OpCall:
        """Another operation at the same node. All arguments are positional."""
        return OpCall(self.node, name, args, tuple(args))

    @property
    def op(self) -> str:
        """The operation's name without namespace and overload."""
        return self.name.split(".")[1]

    @property
    def leaves(self) -> list[Value]:
        """All arguments, those in lists too."""
        return leaves(list(self.args.values()))

    @property
    def streams(self) -> list[Stream]:
        """The streams among the arguments."""
        return [v for v in self.leaves if isinstance(v, Stream)]


Apply = Callable[[OpCall], Value]  # evaluates an operation


def as_tensor(value: Value) -> TensorValue:
    """A stream or a constant.

    Raises:
        TypeError: the value is neither.
    """
    if not isinstance(value, (Stream, Const)):
        raise TypeError(f"expected a stream or a constant, got {type(value).__name__}")
    return value


def as_stream(value: Value) -> Stream:
    """A stream.

    Raises:
        TypeError: the value is none.
    """
    if not isinstance(value, Stream):
        raise TypeError(f"expected a stream, got {type(value).__name__}")
    return value


def hint(size: int | torch.SymInt) -> int:
    """A size for the example, also where it is symbolic.

    Raises:
        Refused: the size depends on values.
    """
    known = size.node.hint if isinstance(size, torch.SymInt) else size
    if known is None:
        raise Refused("the values of the stream decide how many elements there are", "torch.where, which keeps all of them")
    return int(known)


def results_of(node: Fx) -> list[Tensor]:
    """The exported results of a node."""
    val: Any = node.meta.get("val")
    return list(val) if isinstance(val, (list, tuple)) else [val]


def result_shape(node: Fx) -> list[int]:
    """The shape of a node's first result, for the example."""
    return [hint(s) for s in results_of(node)[0].shape]


def operation(node: Fx) -> str:
    """The name of a node's operation without namespace and overload, as users know it."""
    name = str(node.target)
    name = name.split(".")[1] if "." in name else getattr(node.target, "__name__", name)
    return name.strip("_")
