"""Steps under torch's tracers: they run outside of the graphs of `torch.compile`, and refuse tools that would freeze their state.

`forward_step` and `forward_steps` keep the state of the stream in the module, which no graph can hold. Graphs of steps are made of pure
functions, by `co.compile` and `co.export`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.compiler import is_compiling, is_dynamo_compiling, is_exporting
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from ..errors import ExportError

__all__ = ["eagerly", "in_dispatch", "in_graph", "is_dynamo_compiling", "is_tracing", "leaves"]

# Asked at every step, and so the cheapest that there are: is_dynamo_compiling is true inside of graphs only. Together 70 ns.
in_dispatch: Callable[[], int] = torch._C._len_torch_dispatch_stack
is_tracing: Callable[[], bool] = torch._C._is_tracing
_TRACERS = ("ProxyTorchDispatchMode", "FakeTensorMode")


def leaves(net: Any) -> bool:
    """Whether a call has to leave the graph that `torch.compile` makes of it.

    Raises:
        ExportError: a tool traces the call to make a program of it.
    """
    if is_compiling() and not is_exporting():
        return True
    if is_exporting() or is_tracing() or any(type(mode).__name__ in _TRACERS for mode in _get_current_dispatch_mode_stack()):
        raise ExportError(_frozen(type(net).__name__))
    return False


def in_graph() -> bool:
    """Whether `torch.compile` traces a pure function of this library. A graph would hold the clock as a constant, and be one of many."""
    return is_dynamo_compiling() and not is_exporting()


@torch._disable_dynamo
def eagerly(run: Callable[..., Any], net: Any, *args: Any) -> Any:
    """Run a method outside of the graph. `torch.compiler.disable` would import the compiler with this library."""
    if is_compiling():  # a tool traces this call too
        raise ExportError(_frozen(type(net).__name__))
    return run(net, *args)


def _frozen(name: str) -> str:
    return (
        f"{name}: a tool of torch (torch.export, torch.onnx, torch.jit, make_fx) traces forward_step or forward_steps, whose state would "
        "become a constant of the program: it would answer every step as if it were the same. Write a program with explicit state by "
        'co.export(net, step, "net.onnx") (or ".pt2", ".xml", ".pte"), or compile one by co.compile(net, step); for clips trace '
        "net.forward"
    )
