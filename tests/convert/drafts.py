"""A program while it is drawn: values with their layouts, tried out on clips of a few lengths. No tests are in this file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.convert.cases import randomised
from tests.convert.programs import Op
from tests.pasting import new

Drawer = Callable[[st.SearchStrategy[Any]], Any]
BEYOND = (0, 1, 2, 5, 6, 12)  # lengths that lines are tried on, beyond the example's
SIZES = {"C": (2, 3, 4), "S": (2, 3)}
LARGEST, MOST = 1e3, 4000  # of the numbers in a value, and how many there are at most


class Unfit(Exception):
    """A line that does not fit: it is left out."""


@dataclass(frozen=True)
class Value:
    """What a line gives.

    Attributes:
        number: in the program.
        dims: a letter for each dimension: B, T, C (channels), S (space), M (batch and time merged); W: of a clip, no T is left.
        probes: what it is for clips of the lengths that lines are tried on; ``None`` for lengths that the program refuses.
    """

    number: int
    dims: str
    probes: tuple[Tensor | None, ...]

    @property
    def example(self) -> Tensor:
        """The value for the example's length."""
        assert self.probes[0] is not None
        return self.probes[0]

    @property
    def merged(self) -> bool:
        """Whether time is merged with the batch."""
        return "M" in self.dims

    @property
    def _clip_level(self) -> bool:
        """Whether it is a value of the whole clip."""
        return "T" not in self.dims and "M" not in self.dims

    def at(self, letter: str) -> int:
        """The dimension of a letter."""
        return self.dims.index(letter)

    def size(self, letter: str) -> int:
        """The size of a dimension."""
        return self.example.shape[self.at(letter)]

    @property
    def lengths(self) -> tuple[int | None, ...]:
        """How many frames it has for each of the lengths."""
        return tuple(None if p is None else p.shape[self.at("T")] for p in self.probes)


class Draft:
    """Lines so far.

    Args:
        draw: of hypothesis.
        inputs: for each input its layout and its tensors for the lengths that lines are tried on.
    """

    def __init__(self, draw: Drawer, inputs: Sequence[tuple[str, Sequence[Tensor]]]):
        self.draw = draw
        self.inputs = len(inputs)
        self.ops: list[Op] = []
        self.values = [Value(i, dims, tuple(probes)) for i, (dims, probes) in enumerate(inputs)]
        self.flags: set[str] = set()  # "one length": the twin equals the module on clips of the example's length alone

    def choose(self, *options: Any) -> Any:
        """One of these."""
        return self.draw(st.sampled_from(options))

    def number(self, low: int, high: int) -> int:
        """An integer, both ends included."""
        return self.draw(st.integers(low, high))

    def chance(self, one_in: int) -> bool:
        """True once in so many times."""
        return self.draw(st.integers(0, one_in - 1)) == one_in - 1  # shrinks to False

    def add(self, code: str, dims: str, *values: Value, **parts: nn.Module | Tensor) -> Value:
        """A line, if it can be run.

        Raises:
            Unfit: it can't, its values are too large, or there are too many.
        """
        for part in parts.values():
            if isinstance(part, nn.Module):
                new(randomised, part, self.number(0, 3))
        op = Op(code, [v.number for v in values], **parts).double().eval()
        probes: list[Tensor | None] = []
        for i in range(len(BEYOND)):
            given = [v.probes[i] for v in values]
            try:
                with torch.no_grad():
                    probes.append(None if any(g is None for g in given) else op(*given))
            except (RuntimeError, ValueError, IndexError) as error:
                if i == 0:
                    raise Unfit(f"{code}: {error}") from error
                probes.append(None)
        example = probes[0]
        assert example is not None
        if example.ndim != len(dims) or example.numel() == 0 or example.numel() > MOST:
            raise Unfit(f"{code} gives {tuple(example.shape)} for {dims}")
        if example.is_floating_point() and not float(example.abs().max()) < LARGEST:
            raise Unfit(f"{code}: values that are too large")
        if "T" in dims and example.shape[dims.index("T")] < 2:
            raise Unfit(f"{code}: a single frame")
        if flat(example, dims):
            raise Unfit(f"{code}: all frames are the same")
        made = Value(self.inputs + len(self.ops), dims, tuple(probes))
        self.ops.append(op)
        self.values.append(made)
        return made

    def attempt(self, make: Callable[[], Any]) -> bool:
        """Lines, all or none."""
        ops, values, flags = len(self.ops), len(self.values), set(self.flags)
        try:
            make()
        except Unfit:
            del self.ops[ops:], self.values[values:]
            self.flags = flags
            return False
        return True

    def pick(self, fits: Callable[[Value], bool] = lambda v: True) -> Value:
        """One of the values so far, mostly one of the last."""
        found = [v for v in self.values if v.example.is_floating_point() and not v._clip_level and fits(v)]
        if not found:
            raise Unfit("no such value")
        back = self.choose(0, 0, 0, 0, 1, 2, 5)
        return found[max(0, len(found) - 1 - back)]

    # ---- layouts ----------------------------------------------------------------------------------------------------

    def arranged(self, v: Value, *wanted: str) -> Value:
        """A value in one of these layouts, by whatever lines this takes; as it is if it has one of them."""
        if v.dims in wanted and not self.chance(8):
            return v
        goal = self.choose(*wanted)
        if v.merged:
            v = self.unmerged(v)
        if goal.startswith("M"):
            return self.merge(v, goal)
        if "S" in v.dims and "S" not in goal:
            v = self.without_space(v)
        if "S" in goal and "S" not in v.dims:
            v = self.add("x.unsqueeze(-1)", v.dims + "S", v)
        return self.permuted(v, goal)

    def permuted(self, v: Value, goal: str) -> Value:
        """The same dimensions in another order."""
        if v.dims == goal:
            return v
        order = tuple(v.at(letter) for letter in goal)
        moved = [i for i, j in enumerate(order) if i != j]
        ways = [f"x.permute{order}", f'torch.einsum("{v.dims.lower()}->{goal.lower()}", x)']
        if len(moved) == 2:
            ways += [f"x.transpose({moved[0]}, {moved[1]})"] * 3 + [f"x.swapaxes({moved[0]}, {moved[1]}).contiguous()"]
        else:
            ways += [f"x.movedim({order}, {tuple(range(len(order)))})"]
        return self.add(self.choose(*ways), goal, v)

    def without_space(self, v: Value) -> Value:
        """Space reduced, or among the channels."""
        s, rest = v.at("S"), v.dims.replace("S", "")
        if self.chance(2):
            other = self.permuted(v, self.choose("BTCS", "BCST") if v.size("C") * v.size("S") <= 9 else v.dims)
            if other.dims == "BTCS":
                return self.add("x.flatten(2)", "BTC", other)
            if other.dims == "BCST":
                return self.add("x.reshape(x.shape[0], -1, x.shape[3])", "BCT", other)
            v, s, rest = other, other.at("S"), other.dims.replace("S", "")
        return self.add(self.choose(f"x.mean({s})", f"x.amax({s})", f"x.select({s}, 0)", f"x.sum({s})"), rest, v)

    def merge(self, v: Value, goal: str) -> Value:
        """Batch and time as one dimension, and its layout."""
        if "S" in goal and "S" not in v.dims:
            v = self.add("x.unsqueeze(-1)", v.dims + "S", v)
        if "S" not in goal and "S" in v.dims:
            v = self.without_space(v)
        v = self.permuted(v, "BT" + goal[1:])
        rest = "x.shape[2]" + (", x.shape[3]" if len(goal) == 3 else "")
        code = self.choose("x.flatten(0, 1)", f"x.reshape(x.shape[0] * x.shape[1], {rest})", f"x.reshape(-1, {rest})")
        return self.add(code, goal, v)

    def unmerged(self, v: Value) -> Value:
        """Batch and time apart again, by the length of another value."""
        frames = tuple(None if p is None else p.shape[0] for p in v.probes)

        def fits(o: Value) -> bool:
            if "T" not in o.dims:
                return False
            return all(n is None or p is None or n == p.shape[o.at("B")] * p.shape[o.at("T")] for n, p in zip(frames, o.probes))

        others = [o for o in self.values if fits(o)]
        if not others:
            raise Unfit("nothing has its length")
        o = self.choose(*others)
        b, t = o.at("B"), o.at("T")
        code = self.choose(
            f"x.reshape(y.shape[{b}], y.shape[{t}], *x.shape[1:])",
            f"x.unflatten(0, (y.shape[{b}], y.shape[{t}]))",
            f"x.view(y.size({b}), -1, *x.shape[1:])",
        )
        return self.add(code, "BT" + v.dims[1:], v, o)


def flat(value: Tensor, dims: str) -> bool:
    """Whether all frames of a value are the same: then no test can tell right from wrong."""
    time = next((i for i, letter in enumerate(dims) if letter in "TM"), None)
    return time is not None and bool(torch.isclose(value, value.narrow(time, 0, 1)).all())


def slices(v: Value, t: int, what: str) -> str:
    """``x[:, :, what]``, with ``what`` in one dimension."""
    return f"x[{', '.join([':'] * t + [what])}]"


def padding(v: Value, t: int, start: int, end: int) -> tuple[int, ...]:
    """What ``F.pad`` takes to pad one dimension."""
    return (0, 0) * (len(v.dims) - 1 - t) + (start, end)
