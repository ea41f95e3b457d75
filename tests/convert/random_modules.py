"""A hypothesis strategy of random modules of ordinary operations, a few of which can't be streamed. No tests are in this file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.convert import joints
from tests.convert.drafts import BEYOND, SIZES, Draft, Value
from tests.convert.lines import TIMELY
from tests.convert.programs import Program, pruned

KINDS = [make for weight, make in TIMELY for _ in range(weight)]
INPUTS = ("BCT", "BCT", "BTC", "BCTS", "BTCS", "BCST")


@dataclass(frozen=True, eq=False)
class RandomModule:
    """A module, an example, and where time is.

    Attributes:
        module: in eval mode and double precision.
        inputs: the example.
        dims: layouts of all values of the program, by letters (:class:`tests.convert.drafts.Value`).
        any_length: whether the twin equals the module on clips of other lengths, too.
    """

    module: Program
    inputs: tuple[Tensor, ...]
    dims: tuple[str, ...]
    any_length: bool

    @property
    def clip(self) -> Tensor | tuple[Tensor, ...]:
        """The example, for ``co.continual``."""
        return self.inputs if len(self.inputs) > 1 else self.inputs[0]

    @property
    def time_dims(self) -> tuple[int | None, ...]:
        """Where time is in the inputs."""
        return tuple(d.index("T") if "T" in d else None for d in self.dims[: len(self.inputs)])

    @property
    def options(self) -> dict[str, Any]:
        """Of the conversion."""
        return {"time_dim": self.time_dims if len(self.inputs) > 1 else self.time_dims[0]}

    @property
    def out_times(self) -> tuple[int | None, ...]:
        """Where time is in the outputs."""
        found = [self.dims[i] for i in self.module.outputs]
        return tuple(d.index("T") if "T" in d else None for d in found)

    @property
    def frames(self) -> int:
        """The example's length."""
        return self.inputs[0].shape[self.time_dims[0] or 0]

    def clips(self, frames: int, batch: int = 2, seed: int = 7) -> tuple[Tensor, ...]:
        """Other inputs of another length."""
        return tuple(inputs_like(d, x, frames, batch, seed + i) for i, (x, d) in enumerate(zip(self.inputs, self.dims)))

    def __repr__(self) -> str:
        shapes = ", ".join(f"x{i} {tuple(x.shape)}" for i, x in enumerate(self.inputs))
        return f"{shapes}, {self.options}\n{self.module!r}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """For hypothesis, which would print the tensors."""
        printer.text(repr(self))


def inputs_like(dims: str, x: Tensor, frames: int, batch: int, seed: int) -> Tensor:
    """Noise in a layout; what is not a stream stays. A clip is the beginning of every longer one."""
    if "T" not in dims:
        return x
    frame = [batch if letter == "B" else n for letter, n in zip(dims, x.shape) if letter != "T"]
    drawn = torch.randn(frames, *frame, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.movedim(0, dims.index("T"))


@st.composite
def random_modules(draw: Any, faults: int = 6, most: int = 7) -> RandomModule:
    """Random modules with examples of batch 2.

    Args:
        draw: of hypothesis.
        faults: one in about so many has a line that can't be streamed; 0: none has.
        most: kinds of lines; some are several lines.
    """
    torch.manual_seed(draw(st.integers(0, 7)))
    frames = draw(st.integers(8, 20))
    d = Draft(draw, _inputs(draw, frames))
    rounds = draw(st.integers(1, most))
    faulty = faults > 0 and draw(st.integers(1, faults)) == faults
    wrong = {draw(st.integers(0, rounds - 1)) for _ in range(draw(st.sampled_from((1, 1, 2))))} if faulty else set()
    for i in range(rounds):
        for _ in range(3):  # some lines do not fit
            if d.attempt(lambda: draw(st.sampled_from(KINDS))(d)):
                break
        if i in wrong:
            d.attempt(lambda: joints.fault(d))
    outputs = _outputs(d)
    module, numbers = pruned(d.ops, d.inputs, [v.number for v in outputs])
    dims = {new: d.values[old].dims for old, new in numbers.items()}
    inputs = tuple(v.example for v in d.values[: d.inputs])
    return RandomModule(module.eval(), inputs, tuple(dims[i] for i in sorted(dims)), "one length" not in d.flags)


def _inputs(draw: Any, frames: int) -> list[tuple[str, list[Tensor]]]:
    """One stream; sometimes another, sometimes a matrix."""
    found: list[tuple[str, list[Tensor]]] = []

    def add(dims: str, **sizes: int) -> None:
        shape = [{"B": 2, "T": frames, **sizes}[letter] for letter in dims]
        x = torch.zeros(shape, dtype=torch.float64)
        if "T" not in dims:
            x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        found.append((dims, [inputs_like(dims, x, frames + more, 2, 1 + len(found)) for more in BEYOND]))

    first = draw(st.sampled_from(INPUTS))
    c = draw(st.sampled_from(SIZES["C"]))
    add(first, C=c, S=draw(st.sampled_from(SIZES["S"])))
    more = draw(st.integers(0, 9))
    if more == 9:
        add(draw(st.sampled_from(("BCT", "BTC"))), C=draw(st.sampled_from(SIZES["C"])))
    elif more == 8:
        add("KC", K=draw(st.sampled_from((1, 2, 3))), C=c)
    return found


def _outputs(d: Draft) -> list[Value]:
    """The last value with all that must go into it, apart from the batch; a head for the clip, or a second output, now and then."""
    if d.chance(5):
        d.attempt(lambda: joints.head(d))
    last = d.values[-1]
    if not last.dims or last.dims == "KC" or last.merged or "B" not in last.dims or last.number < d.inputs:
        d.attempt(lambda: d.add("x * 1.25", d.values[0].dims, d.values[0]) if not last.merged else d.unmerged(last))
        last = d.values[-1]
        if last.merged or last.number < d.inputs:
            last = d.add("x * 1.25", d.values[0].dims, d.values[0])
    if "T" in last.dims and not last.dims.startswith("B"):
        d.attempt(lambda: d.permuted(last, "B" + last.dims.replace("B", "")))
        last = d.values[-1]
    others = [
        v
        for v in d.values[d.inputs : -1]
        if "T" in v.dims and v.dims[0] == "B" and "T" in last.dims and v.lengths == last.lengths
    ]
    if others and d.chance(8):
        return [last, others[d.number(0, len(others) - 1)]]
    return [last]
