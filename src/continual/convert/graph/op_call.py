"""What a rule is given: one operation of the graph, its arguments by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Node as Fx

from .axes import View
from .values import Stream, Value

if TYPE_CHECKING:
    from .walker import Builder


class Refused(Exception):
    """An operation can't be streamed: why, and what to do.

    Attributes:
        at: the operation that is the cause, where it is not the one that met it.
    """

    def __init__(self, reason: str, remedy: str, at: Fx | None = None):
        super().__init__(reason)
        self.reason, self.remedy, self.at = reason, remedy, at


class NoRule(Refused):
    """An operation is not known, nor are its parts."""

    def __init__(self, op: str):
        super().__init__(
            f"there is no streaming rule for `{op}` yet",
            "write it with operations that are covered (docs/conversion.md lists them), or ask for it in an issue",
        )


class Misfit(Refused):
    """What an operation is given does not fit together: sizes, lengths, places of time and rows.

    Behind a refusal, where these are a guess, it is a consequence and no refusal of its own.
    """


@dataclass
class Call:
    """One operation of the graph, its arguments by their names in torch's schema."""

    node: Fx
    name: str  # "aten.add.Tensor"
    args: dict[str, Value]
    positional: tuple[str, ...]

    def __getitem__(self, name: str) -> Value:
        return self.args[name]

    def get(self, name: str, default: Value = None) -> Value:
        """An argument, if the operation has it."""
        return self.args.get(name, default)

    @property
    def op(self) -> str:
        """The operation's name without the library's."""
        return self.name.split(".")[1]

    @property
    def streams(self) -> list[Stream]:
        """The streams among the arguments."""
        return [v for v in leaves(list(self.args.values())) if isinstance(v, Stream)]


Rule = Callable[["Builder", Call], Value]
RULES: dict[str, Rule] = {}
APART = {"aten.slice_scatter.default", "aten.select_scatter.default", "aten.copy.default"}  # what they write is no matter of time
COMPARES = "compares all frames of the clip with each other"
BANDED = "attention: F.scaled_dot_product_attention with is_causal=True, or a mask that is a causal band"
CAUSAL = (
    "is_causal=True, or a mask that is a causal band: it then looks at a window of the past. A model that was trained with attention to "
    "the whole clip has to be trained for that, or to run on windows outside of the stream"
)
RANDOM = {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "normal", "poisson",
          "multinomial", "uniform", "exponential", "rrelu_with_noise"}  # fmt: skip
ON_SCORES: dict[str, Rule] = {}  # what operations do with scores of attention, by names without overloads
KEEPS_CLOCKED: set[str] = set()  # operations whose rules want masks as they are


def rule(*names: str, keeps_clocked: bool = False) -> Callable[[Rule], Rule]:
    """Register the rule of operations, by their names: ``"aten.add.Tensor"``, or ``"aten.add"`` for all overloads."""

    def registered(fn: Rule) -> Rule:
        for name in names:
            RULES[name] = fn
            if keeps_clocked:
                KEEPS_CLOCKED.add(name)
        return fn

    return registered


def leaves(value: Any) -> list[Any]:
    """All values in nested lists."""
    return [v for item in value for v in leaves(item)] if isinstance(value, (list, tuple)) else [value]


@dataclass
class Source:
    """Where the value of a slot comes from: a parameter or a buffer by its name, or an input that is no stream."""

    slot: int
    kind: str  # "parameter" | "buffer" | "constant" | "input"
    name: str
    view: View | None = None


def hint(size: Any) -> int:
    """A size of the example, also where it is symbolic.

    Raises:
        Refused: values decide how large it is.
    """
    known = size.node.hint if isinstance(size, torch.SymInt) else size
    if known is None:
        raise Refused("the values of the stream decide how many elements there are", "torch.where, which keeps all of them")
    return int(known)


def exchanged(value: Value, new: dict[int, Stream]) -> Value:
    """Values with some streams exchanged for others."""
    if isinstance(value, (list, tuple)):
        return [exchanged(v, new) for v in value]
    return new.get(value.slot, value) if isinstance(value, Stream) else value
