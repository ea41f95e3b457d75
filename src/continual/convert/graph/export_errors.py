"""Explains errors of `torch.export`: which number a module reads from a tensor, and what that tensor depends on."""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from ...errors import NotStreamable
from .filled_ops import VALUE_FREE
from .undone import restored

WEIGHTS = -1  # in the place of the index of an input
NUMBERS = ("aten._local_scalar_dense.default", "aten.equal.default", "aten.is_nonzero.default")
INTERNAL = (AssertionError, AttributeError, IndexError, KeyError, TypeError)


@dataclass(frozen=True)
class NumberRead:
    """A number that a module reads from a tensor.

    Attributes:
        of: what it depends on: the indices of inputs, and ``WEIGHTS``.
        place: file and line of the user's code, ``"model.py:12"``.
        path: of the module whose code it is.
    """

    of: frozenset[int]
    place: str
    path: str


class DependenceTracer(TorchDispatchMode):
    """Tracks what tensors depend on, and records where numbers are read from them."""

    def __init__(self, inputs: Sequence[Tensor], module: nn.Module):
        super().__init__()
        self._of: Any = WeakIdKeyDictionary()
        self._paths = {id(m): path for path, m in module.named_modules()}
        self.asked: list[NumberRead] = []
        for t in (*module.parameters(), *module.buffers()):
            self._of[t] = frozenset((WEIGHTS,))
        for i, x in enumerate(inputs):
            self._of[x] = frozenset((i,))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        of = frozenset().union(*(self._of.get(t, frozenset()) for t in tensors))
        if str(func) in NUMBERS:
            self.note(tensors)
        if str(func).split(".")[1] in VALUE_FREE:
            of = frozenset()
        for t in tree_leaves(out):
            if isinstance(t, Tensor):
                self._of[t] = self._of.get(t, frozenset()) | of
        return out

    def note(self, tensors: Sequence[Tensor]) -> None:
        """Record a number that is read from tensors, at the innermost line outside of torch and of this file."""
        of = frozenset().union(*(self._of.get(t, frozenset()) for t in tensors))
        mine = [(f, line) for f, line in traceback.walk_stack(None) if f.f_code.co_filename != __file__]
        users = [(f, line) for f, line in mine if f"{'torch'}/" not in f.f_code.co_filename]
        paths = [path for f, _ in mine if (path := self._paths.get(id(f.f_locals.get("self")))) is not None]
        if users:
            frame, line = users[0]
            self.asked.append(NumberRead(of, _short(frame.f_code.co_filename, line), paths[0] if paths else ""))


class ListTracer(TorchFunctionMode):
    """Records where tensors become lists or arrays, which no operation shows."""

    def __init__(self, tracer: DependenceTracer):
        super().__init__()
        self._tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("tolist", "numpy"):
            self._tracer.note(list(args[:1]))
        return func(*args, **(kwargs or {}))


def _short(file: str, line: Any) -> str:
    return f"{file.rpartition('/')[2]}:{line}"


def takes_number(error: Exception) -> bool:
    """Whether an export has failed because the module reads a number from a tensor."""
    return "data-dependent" in str(error).lower() or "DataDependent" in type(error).__name__


def why(module: nn.Module, inputs: Sequence[Tensor], times: Sequence[int | None], error: Exception) -> str:
    """An error of `torch.export`, in terms of the user's module.

    Args:
        module: the module that could not be exported.
        inputs: the example.
        times: the dimension of time in each input; ``None`` for an input that is not a stream.
        error: the error.
    """
    name, text = type(module).__name__, str(error)
    line = re.search(r'File "([^"]+)", line (\d+), in (\w+)\n\s*(.+)', text)
    user = f" (at {_short(line.group(1), line.group(2))}: {line.group(4).strip()})" if line else ""
    if takes_number(error):
        place = _short(line.group(1), line.group(2)) if line else ""
        asked = _asked(module, inputs, place)
        where = f"{name}.{asked.path}" if asked is not None and asked.path else name
        return f"{where}: {_asks(asked, times, user)}"
    if "fake tensor in the exported program constant" in text:
        return (
            f"{name}: forward writes through the `.data` of a parameter, or keeps a tensor of the call outside of it, which torch.export "
            "can't follow. Remedy: take that out of forward; a bound on a parameter (`p.data.clamp_`) belongs in the training loop"
        )
    own = raised(module, inputs)
    if own:
        return own
    if isinstance(error, INTERNAL) and _packs(module, inputs):
        return (
            f"{name}: it packs rows by their lengths (pack_padded_sequence), and what it does next depends on these values. Remedy: give "
            "the recurrent layer the frames as they are, self.rnn(x): a row of a stream has no padding, and ends when its frames end"
        )
    said = "it fails in torch.export itself" if isinstance(error, INTERNAL) else f"{type(error).__name__}: {_first(error)}"
    return (
        f"{name}: torch.export can't follow it{user}: {said}. Remedies: see that module(clip) runs; rewrite what "
        "the message names; or convert its parts by co.continual and join them in co.Sequential"
    )


class _Packing(TorchDispatchMode):
    """Sees whether rows are packed by their lengths."""

    seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen |= str(func).startswith("aten._pack_padded_sequence")
        return func(*args, **(kwargs or {}))


def _packs(module: nn.Module, inputs: Sequence[Tensor]) -> bool:
    """Whether a module, which runs on the example, packs rows by their lengths."""
    packing = _Packing()
    with restored(module), torch.no_grad(), packing:
        module(*(x.clone() for x in inputs))
    return packing.seen


def raised(module: nn.Module, inputs: Sequence[Tensor]) -> str:
    """The error of a module itself on the example; empty if it runs."""
    try:
        with restored(module), torch.no_grad():
            module(*(x.clone() for x in inputs))
    except Exception as own:
        return (
            f"{type(module).__name__}: module(clip) raises {type(own).__name__}: {_first(own)}. Remedy: a clip, and time_dim, with which "
            "the module runs"
        )
    return ""


def one_row(module: nn.Module, example: Sequence[Tensor]) -> NotStreamable:
    """The refusal of a module that takes only a batch of one."""
    kept = [n for m in module.modules() for n, v in vars(m).items() if isinstance(v, Tensor) and n not in ("weight", "bias")]
    state = f" It keeps tensors as attributes ({', '.join(kept[:3])}), a state perhaps: a stream has its own." if kept else ""
    return NotStreamable(
        f"{type(module).__name__}: it takes clips of one row alone, such as {tuple(example[0].shape)}: a tensor in it is made for a batch "
        f"of 1.{state} Remedies: expand such tensors, h0.expand(-1, x.shape[0], -1); leave out initial states of zeros; keep no state in "
        "attributes"
    )


def _first(error: Exception) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).strip().splitlines()), "").rstrip(".")


def _asked(module: nn.Module, inputs: Sequence[Tensor], place: str) -> NumberRead | None:
    """The number that the module reads on a line of code; otherwise the first number that it reads."""
    tracer = DependenceTracer(inputs, module)
    with suppress(Exception), torch.no_grad(), ListTracer(tracer), tracer:  # it may fail after the reads that count
        module(*inputs)
    return next((a for a in tracer.asked if a.place == place), next(iter(tracer.asked), None))


def _asks(asked: NumberRead | None, times: Sequence[int | None], user: str) -> str:
    """The reason and the remedies, by what the number depends on."""
    of = frozenset() if asked is None else asked.of
    if asked is not None and not user:
        user = f" (at {asked.place})"
    others = sorted(i for i in of if i != WEIGHTS and times[i] is None)
    if asked is None or any(i != WEIGHTS and times[i] is not None for i in of):
        return (
            f"what it does next depends on values of its input{user}, so its operations differ from clip to clip. Remedies: "
            "torch.where instead of `if`; or co.Conditional around the branches"
        )
    if others:
        which = " and ".join(f"input {i}" for i in others)
        return (
            f"what it does next depends on the values of {which}, which is not a stream{user}: its operations differ with them. "
            "Remedies: keep the number in the module as a plain int, set in __init__; or compare tensors, as in "
            "torch.arange(x.shape[time]) < lengths[:, None], and multiply by the mask"
        )
    if of:
        return (
            f"it takes a number out of a parameter or a buffer{user}, whose values torch.export does not look at. Remedy: keep it as a "
            "plain int, float or list of such, set in __init__"
        )
    return (
        f"it takes a number out of a tensor that it has made of constants and sizes{user}, whose values torch.export does not look at. "
        "Remedy: compute it of plain numbers: x.shape[time] instead of a tensor that holds the length"
    )
