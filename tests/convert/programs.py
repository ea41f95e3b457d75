"""Modules whose forward runs a program: lines of ordinary code, each a child with the weights it needs. No tests are in this file.

For `torch.export` they are modules like any other; a counter-example prints as the code that it is.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NAMES = "xyz"


# ---- what lines may call ------------------------------------------------------------------------------------------------


def heads(x: Tensor, count: int) -> Tensor:
    """``(B, T, C)`` to ``(B, heads, T, C / heads)``."""
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def band(x: Tensor, behind: int) -> Tensor:
    """Which of the tokens of ``(B, T, C)`` see which: themselves and some before."""
    age = torch.arange(x.shape[1]).unsqueeze(1) - torch.arange(x.shape[1])
    return (age >= 0) & (age <= behind)


SCOPE: dict[str, Any] = {"torch": torch, "F": F, "heads": heads, "band": band}


# ---- modules ------------------------------------------------------------------------------------------------------------


class Op(nn.Module):
    """One line.

    Args:
        code: an expression, or statements with a ``return``, of the inputs ``x``, ``y`` and ``z`` and of ``self``.
        inputs: numbers of the values that it takes.
        parts: modules, and tensors that become parameters, by the names that the code has for them.
    """

    _run: Callable[..., Tensor]

    def __init__(self, code: str, inputs: Sequence[int], **parts: nn.Module | Tensor):
        super().__init__()
        self.code, self.inputs = code, tuple(inputs)
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)
        self._compile()

    def _compile(self) -> None:
        lines = self.code.splitlines()
        body = lines if len(lines) > 1 else [f"return {self.code}"]
        source = "\n    ".join([f"def forward(self, {', '.join(NAMES[: len(self.inputs)])}):", *body])
        file, scope = f"<{self.code}>", dict(SCOPE)
        linecache.cache[file] = (len(source), None, source.splitlines(True), file)  # so that tracebacks show it
        exec(compile(source, file, "exec"), scope)
        self.__dict__["_run"] = scope["forward"]

    def forward(self, *values: Tensor) -> Tensor:
        return self._run(self, *values)

    def __getstate__(self) -> dict[str, Any]:
        return {name: v for name, v in self.__dict__.items() if name != "_run"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._compile()

    def line(self, number: int) -> str:
        """The code with the values' numbers, and the modules in it."""
        named = dict(zip(NAMES, self.inputs))
        code = re.sub(r"\b([xyz])\b(?!\()", lambda m: f"x{named[m[1]]}" if m[1] in named else m[1], self.code)
        parts = ", ".join(f"{name}: {part}" for name, part in self.named_children())
        code = code.replace("\n", "; ")
        return f"x{number} = {code}" + (f"    # {parts}" if parts else "")


class Program(nn.Module):
    """A module whose forward runs lines in turn.

    Args:
        ops: the lines; the value of line ``i`` has the number ``inputs + i``.
        inputs: how many tensors the module takes, 1 or 2.
        outputs: numbers of the values that it returns: one tensor, or a tuple.
    """

    def __init__(self, ops: Sequence[Op], inputs: int, outputs: Sequence[int]):
        super().__init__()
        self.ops = nn.ModuleList(ops)
        self.inputs, self.outputs = inputs, tuple(outputs)

    def forward(self, x0: Tensor, x1: Tensor | None = None) -> Any:
        values = [x0] if x1 is None else [x0, x1]
        for op in self.lines:
            values.append(op(*(values[i] for i in op.inputs)))
        found = tuple(values[i] for i in self.outputs)
        return found if len(found) > 1 else found[0]

    @property
    def lines(self) -> list[Op]:
        """The lines, in turn."""
        return [op for op in self.get_submodule("ops").children() if isinstance(op, Op)]

    def values(self, *inputs: Tensor) -> list[Tensor | None]:
        """All values on other inputs; ``None`` for what a line refuses, and for all that is made of it."""
        values: list[Tensor | None] = list(inputs)
        for op in self.lines:
            given = [values[i] for i in op.inputs]
            try:
                values.append(None if any(v is None for v in given) else op(*given))
            except (RuntimeError, ValueError, IndexError):
                values.append(None)
        return values

    def __repr__(self) -> str:
        lines = [op.line(self.inputs + i) for i, op in enumerate(self.lines)]
        returned = ", ".join(f"x{i}" for i in self.outputs)
        return "\n".join([f"def forward({', '.join(f'x{i}' for i in range(self.inputs))}):", *lines, f"return {returned}"])


def pruned(ops: Sequence[Op], inputs: int, outputs: Sequence[int]) -> tuple[Program, dict[int, int]]:
    """A program of the lines that the outputs need, and the new numbers of their values by the old ones."""
    needed = set(outputs)
    for i in reversed(range(len(ops))):
        if inputs + i in needed:
            needed |= set(ops[i].inputs)
    kept = [i for i in range(len(ops)) if inputs + i in needed]
    numbers = {i: i for i in range(inputs)} | {inputs + i: inputs + at for at, i in enumerate(kept)}
    for i in kept:
        ops[i].inputs = tuple(numbers[j] for j in ops[i].inputs)
    return Program([ops[i] for i in kept], inputs, [numbers[i] for i in outputs]), numbers
