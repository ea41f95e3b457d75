"""Counter-examples as code: how a random module was made, as a test that can be pasted into a file. No tests are in this file."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

_CODE: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # of what `new` has made
_PACKAGES = {"continual": "co.", "tests": ""}


def new(make: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """``make(*args, **options)``, of which :func:`source` knows how it was made. It may change a module that was made so."""
    given = ", ".join([*map(source, args), *(f"{k}={source(v)}" for k, v in options.items())])
    made = make(*args, **options)
    _CODE[made] = f"{source(make)}({given})"
    return made


def source(value: Any) -> str:
    """The code of a module that :func:`new` made, and of what it was made with: numbers, tensors, classes and functions by name."""
    if isinstance(value, Tensor):
        return f"torch.randn({tuple(value.shape)}, dtype={value.dtype})"
    if isinstance(value, (list, tuple)):
        inside = ", ".join(map(source, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    if isinstance(value, float) and math.isinf(value):
        return f'float("{value}")'
    if isinstance(value, (type(None), bool, int, float, str)):
        return repr(value)
    if not isinstance(value, type) and value in _CODE:
        return _CODE[value]
    if isinstance(value, nn.Module):  # made otherwise: what it prints is often its code
        return f"nn.{value!r}"
    module = value.__module__
    name = module.split(".")[0]
    return f"{'nn.' if module.startswith('torch.nn.modules') else _PACKAGES.get(name, f'{module}.')}{value.__name__}"


class Test:
    """A test of a counter-example, for hypothesis's ``note``, which writes it only of what it shows.

    Args:
        name: of the test, after ``test_``.
        write: gives the lines of its body.
    """

    __test__ = False  # for pytest

    def __init__(self, name: str, write: Callable[[], list[str]]):
        self.name, self.write = name, write

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        body = "\n".join(f"    {line}" for line in ("torch.manual_seed(0)  # other weights than the example's", *self.write()))
        printer.text(f"\n# ---- as a test ----\ndef test_{self.name}():\n{body}\n")


def of_network(net: nn.Module, clip: Tensor, check: str) -> Test:
    """The test of a network of containers on a clip; ``check`` is a call with ``net`` and ``clip``."""

    def write() -> list[str]:
        made = f"clip = torch.randn({tuple(clip.shape)}, dtype={clip.dtype})"
        return [f"net = {source(net)}.to({clip.dtype}).eval()", made, check]

    return Test("found_by_random_networks", write)


def of_module(m: Any, check: str) -> Test:
    """The test of a module of ordinary operations (``RandomModule``); ``check`` is a call with ``m`` and its twin ``net``."""

    def write() -> list[str]:
        ops = []
        for op in m.module.lines:
            parts = [*op.named_children(), *op.named_parameters(recurse=False)]
            ops.append(
                f"    Op({', '.join([repr(op.code), repr(list(op.inputs)), *(f'{n}={source(part)}' for n, part in parts)])}),"
            )
        return [
            "ops = [",
            *ops,
            "]",
            f"module = Program(ops, {m.module.inputs}, {list(m.module.outputs)}).double().eval()",
            f"m = RandomModule(module, {source(m.inputs)}, {m.dims}, {m.any_length})",
            "net = converted(m)",
            check,
        ]

    return Test("found_by_random_modules", write)
