"""Numbers that a module reads from tensors which depend on no input. They are found by running the module, and handed to torch.export.

An export runs on tensors without values, so `self.scale.item()` or `assert (self.window > 0).all()` stops it, although the value is the
same in every call. Runs of the module, on clips of other lengths and rows, show which numbers these are. An
`assert` about a tensor that is as long as the clip is answered too, if it held in all runs: the answer has no other effect.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from .export_errors import DependenceTracer
from .undone import quiet, restored

ITEMS = ("item", "__bool__", "__int__", "__float__", "__index__")
SILENT = ("CACHE", "NOT_TAKEN", "TO_BOOL", "PRECALL")  # instructions that do nothing with a truth value
JUMP = 2  # the jump is among so many instructions: it asks for the value itself, or the call before it does


@dataclass(frozen=True)
class ConstantNumber:
    """A number that a module reads from a tensor.

    Attributes:
        value: as the module gets it.
        of: the buffers that it is computed from.
    """

    value: Any
    of: frozenset[str]


class _Recorder(TorchFunctionMode):
    """Records the numbers that a module reads from tensors; ``None`` for a number that depends on an input or on a parameter."""

    def __init__(self, tracer: DependenceTracer, module: nn.Module):
        super().__init__()
        self._of, self.found = tracer._of, list[ConstantNumber | None]()
        for name, buffer in module.named_buffers():
            self._of[buffer] = frozenset((name,))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        value = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in (*ITEMS, "tolist"):
            of = self._of.get(args[0], frozenset())
            constant = all(isinstance(name, str) for name in of)
            for number in tree_leaves(value):  # of `tolist`, which torch.export makes of single items
                self.found.append(ConstantNumber(number, of) if constant else None)
        return value


def constant_numbers(module: nn.Module, clips: Iterable[Sequence[Tensor]]) -> list[ConstantNumber | None]:
    """The numbers that a module reads from tensors, in order; ``None`` for a number that differs between calls.

    Args:
        module: the module.
        clips: its inputs; the module may refuse any but the first.
    """
    runs = []
    for clip in clips:
        tracer = DependenceTracer(clip, module)
        recorder = _Recorder(tracer, module)
        with suppress(Exception), restored(module), quiet(), torch.no_grad(), recorder, tracer:
            module(*clip)
            runs.append(recorder.found)
    if not runs or any(len(run) != len(runs[0]) for run in runs):
        return []
    return [same[0] if all(found == same[0] for found in same) else None for same in zip(*runs, strict=True)]


class GivenNumbers(TorchFunctionMode):
    """Hands a module the numbers that are the same in all calls. An export runs it once or more, from the start to the end.

    A tensor that is made of sizes which are open in the export is not a constant, whatever it was in the runs. A number that is taken out
    of it reaches nothing but an `assert`, or an `if` around an error.

    Args:
        numbers: those of :func:`constant_numbers`.
    """

    def __init__(self, numbers: Sequence[ConstantNumber | None] = ()):
        super().__init__()
        self._numbers, self._count = numbers, 0
        self._sized: Any = WeakIdKeyDictionary()  # tensors that depend on an open size

    def __enter__(self) -> GivenNumbers:
        self._count = 0
        return super().__enter__()

    def __bool__(self) -> bool:
        return any(n is not None for n in self._numbers)

    @property
    def read(self) -> frozenset[str]:
        """The buffers that numbers are computed from."""
        return frozenset().union(*(n.of for n in self._numbers if n is not None))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self._numbers:
            return func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in ITEMS:
            number = self._numbers[self._count % len(self._numbers)]
            self._count += 1
            if number is not None and (
                args[0] not in self._sized or (isinstance(number.value, bool) and _is_checked(sys._getframe(1)))
            ):
                return number.value
        made = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves(made if made is not None else args[:1]) if isinstance(t, Tensor)]
        if any(map(self._is_sized, tree_leaves((args, kwargs)))) or any(map(self._is_sized, tensors)):
            for t in tensors:
                self._sized[t] = True
        return made

    def _is_sized(self, value: Any) -> bool:
        if isinstance(value, Tensor):
            return value in self._sized or any(isinstance(n, torch.SymInt) for n in value.shape)
        return isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))


def _is_checked(frame: FrameType | None) -> bool:
    """Whether the running line of a user's code jumps over an error by the value that it asks for: ``assert v``, ``if not v: raise``."""
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] == "torch":
        frame = frame.f_back
    if frame is None:
        return False
    last = frame.f_lasti
    code = [i for i in dis.get_instructions(frame.f_code) if i.offset >= last and i.opname not in SILENT]
    jump = next((n for n, i in enumerate(code[:JUMP]) if "JUMP" in i.opname), None)
    if jump is None:
        return False
    block = takewhile(lambda i: "JUMP" not in i.opname and not i.opname.startswith(("RETURN", "STORE")), code[jump + 1 :])
    return any(i.opname == "RAISE_VARARGS" for i in block)
