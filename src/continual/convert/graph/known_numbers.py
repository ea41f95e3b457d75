"""Small tensors whose values an export knows: lengths that a module computes through tensors, and the integers in its buffers.

An export runs on tensors without values. Code as ``torch.ceil((x.shape[-1] - self.kernel) / self.stride)`` with a buffer ``stride`` gives a
length all the same: it depends on sizes and constants alone. Beside such tensors this mode keeps the numbers, which are formulas of the
length, and gives them where the code asks for one: ``.item()``, ``if``, the sizes of ``F.pad``.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

MOST = 16  # elements of a tensor whose numbers are kept


def _down(value: Any) -> Any:
    """A number without its fraction."""
    return value if isinstance(value, (int, torch.SymInt)) else torch.sym_int(value)


def _real(value: Any) -> Any:
    return torch.sym_float(value)


def _same(value: Any) -> Any:
    return value


def _reversed(fn: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda a, b: fn(b, a)


TWO: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add, "sub": operator.sub, "subtract": operator.sub, "mul": operator.mul, "multiply": operator.mul,
    "div": operator.truediv, "truediv": operator.truediv, "divide": operator.truediv, "true_divide": operator.truediv,
    "floordiv": operator.floordiv, "floor_divide": operator.floordiv, "mod": operator.mod, "remainder": operator.mod,
    "maximum": torch.sym_max, "minimum": torch.sym_min, "max": torch.sym_max, "min": torch.sym_min,
    "gt": operator.gt, "lt": operator.lt, "ge": operator.ge, "le": operator.le, "eq": operator.eq, "ne": operator.ne,
}  # fmt: skip
TWO |= {f"r{name}": _reversed(TWO[name]) for name in ("add", "sub", "mul", "div", "truediv", "floordiv", "mod")}
ONE: dict[str, Callable[[Any], Any]] = {
    "neg": operator.neg, "negative": operator.neg, "ceil": math.ceil, "floor": math.floor, "trunc": _down, "fix": _down,
    "long": _down, "int": _down, "float": _real, "double": _real,
    "clone": _same, "detach": _same, "contiguous": _same, "cpu": _same, "squeeze": _same,
}  # fmt: skip
TAKES_NUMBERS = {
    "narrow", "arange", "zeros", "ones", "full", "empty", "expand", "view", "reshape", "repeat", "split", "chunk", "unfold", "roll",
    "select", "new_zeros", "new_ones", "new_full", "new_empty", "pad", "interpolate", "unflatten", "getitem",
}  # fmt: skip
ASKS = {"item", "tolist", "bool", "index"}
FILLS: dict[str, int] = {"full": 1, "full_like": 1, "new_full": 2}  # where the value stands among the arguments
LARGEST = {"max": torch.sym_max, "amax": torch.sym_max, "min": torch.sym_min, "amin": torch.sym_min}
CONCERNED = {
    *TWO, *ONE, *TAKES_NUMBERS, *ASKS, *FILLS, *LARGEST, "to", "type", "tensor", "as_tensor", "scalar_tensor", "stack", "unbind"
}  # fmt: skip


@dataclass(frozen=True)
class Known:
    """The numbers of a tensor.

    Attributes:
        numbers: a list of them, or one, which all elements are equal to.
        of: the buffers that they are computed from.
    """

    numbers: Any
    of: frozenset[str] = field(default_factory=frozenset)


class KnownNumbers(TorchFunctionMode):
    """Keeps the numbers of small tensors during an export.

    Args:
        module: the module, whose buffers of a few integers are constants.

    Attributes:
        read: the buffers whose values the module's code reads.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self._module, self._known = module, WeakIdKeyDictionary()
        self._values = {n: b.tolist() for n, b in module.named_buffers(remove_duplicate=False) if _is_small(b) and not b.is_meta}
        self.read: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "").strip("_")
        if name not in CONCERNED:
            return func(*args, **kwargs)
        known = self._of(args[0]) if args and isinstance(args[0], Tensor) else None
        if known is not None and name in ASKS and (not args[0].ndim or isinstance(known.numbers, (list, tuple))):
            self.read |= known.of
            return bool(known.numbers) if name == "bool" else known.numbers
        if name in TAKES_NUMBERS:
            args = tuple(self._plain(a) if i or not isinstance(a, Tensor) else a for i, a in enumerate(args))
            kwargs = {k: self._plain(v) for k, v in kwargs.items()}
        made = func(*args, **kwargs)
        if name == "unbind" and known is not None and isinstance(known.numbers, (list, tuple)):
            for part, number in zip(made, known.numbers, strict=True):
                self._known[part] = Known(number, known.of)
        if isinstance(made, Tensor):
            found = self._result(name, args, kwargs, made)
            if found is not None:
                self._known[made] = found
            elif made in self._known:
                del self._known[made]  # written into
        return made

    def _of(self, x: Tensor) -> Known | None:
        """What is known of a tensor."""
        found: Known | None = self._known.get(x)
        if found is None and self._values and _is_small(x):
            name = next((n for n, b in self._module.named_buffers(remove_duplicate=False) if b is x and n in self._values), None)
            if name is not None:
                found = self._known[x] = Known(self._values[name], frozenset((name,)))
        return found

    def _plain(self, value: Any) -> Any:
        """An argument with numbers in place of known tensors of one integer."""
        if isinstance(value, Tensor):
            found = None if value.ndim else self._of(value)
            if found is None or isinstance(found.numbers, (float, bool, torch.SymFloat, torch.SymBool)):
                return value
            self.read |= found.of
            return found.numbers
        if isinstance(value, slice):
            return slice(*(self._plain(v) for v in (value.start, value.stop, value.step)))
        if type(value) in (tuple, list):
            return type(value)(self._plain(v) for v in value)
        return value

    def _result(self, name: str, args: Any, kwargs: Any, made: Tensor) -> Known | None:
        """The numbers of a result."""
        if made.ndim > 1 or kwargs.get("rounding_mode") or kwargs.get("out") is not None:
            return None
        if name in ("tensor", "as_tensor", "scalar_tensor") and not isinstance(args[0], Tensor):
            return Known(args[0]) if _is_plain(args[0]) else None
        if name == "arange" and args and all(type(a) is int for a in args) and len(range(*args)) <= MOST:
            return Known(list(range(*args)))
        if name == "stack" and not any(t.ndim for t in args[0]):
            parts = [self._of(t) for t in args[0]]
            found = [k for k in parts if k is not None]
            return (
                Known([k.numbers for k in found], frozenset().union(*(k.of for k in found))) if len(found) == len(parts) else None
            )
        if name in FILLS:
            value = args[FILLS[name]] if len(args) > FILLS[name] else kwargs.get("fill_value")
            return Known(_real(value) if made.is_floating_point() else value) if _is_plain(value) else None
        known = [self._of(a) if isinstance(a, Tensor) else Known(a) if _is_plain(a) else None for a in args]
        if not known or known[0] is None:
            return None
        of = frozenset().union(*(k.of for k in known if k is not None))
        if name in ("to", "type", "as_tensor"):
            return Known(_each(_real if made.is_floating_point() else _down, known[0].numbers), of)
        if name in LARGEST and len(args) == 1 and not kwargs:
            many = known[0].numbers if isinstance(known[0].numbers, (list, tuple)) else [known[0].numbers]
            return Known(functools.reduce(LARGEST[name], many), of)
        if name in ONE and len(args) == 1:
            return Known(_each(ONE[name], known[0].numbers), of)
        if name in TWO and len(args) == 2 and known[1] is not None:
            return _combined(TWO[name], known[0].numbers, known[1].numbers, of)
        if name == "getitem" and isinstance(args[1], int) and isinstance(known[0].numbers, (list, tuple)):
            return Known(known[0].numbers[args[1]], of)
        return None


def _is_small(x: Tensor) -> bool:
    """Whether a tensor has a few integers, or booleans."""
    shape = tuple(x.shape)
    integers = not (x.is_floating_point() or x.is_complex()) and not x.is_sparse
    return len(shape) <= 1 and all(isinstance(n, int) and n <= MOST for n in shape) and integers


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, or a list of some."""
    if isinstance(value, (list, tuple)):
        return len(value) <= MOST and all(_is_plain(v) and not isinstance(v, (list, tuple)) for v in value)
    return isinstance(value, (bool, int, float, torch.SymInt, torch.SymFloat))


def _each(fn: Callable[[Any], Any], numbers: Any) -> Any:
    return [fn(n) for n in numbers] if isinstance(numbers, (list, tuple)) else fn(numbers)


def _combined(fn: Callable[[Any, Any], Any], a: Any, b: Any, of: frozenset[str]) -> Known | None:
    """A function of the numbers of two tensors, one of which may be a single number."""
    many = [isinstance(v, (list, tuple)) for v in (a, b)]
    if not any(many):
        return Known(fn(a, b), of)
    if all(many):
        return Known([fn(x, y) for x, y in zip(a, b, strict=True)], of) if len(a) == len(b) else None
    return Known([fn(x, b) for x in a] if many[0] else [fn(a, y) for y in b], of)
