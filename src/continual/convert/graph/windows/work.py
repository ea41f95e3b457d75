"""The work of an operation: multiply-adds, and how many numbers of weights it reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..values import Const, leaves
from .window_call import Call

Shape = tuple[int, ...]


def macs_of(call: Call, shape: Callable[[Any], Shape], result: Callable[[int | None], Shape], rows: int) -> int:
    """Multiply-adds of an operation on a window, for one row; 0 for operations without products.

    Args:
        shape: of an argument.
        result: of what it gives (of several results, by their numbers).
        rows: for how many rows these shapes are.
    """
    op, operands = call.op, list(call.args.values())
    total = 0
    if op.startswith(("conv1d", "conv2d", "conv3d", "convolution")) and not call.get("transposed", False):
        total = math.prod(result(None)) * math.prod(shape(operands[1])[1:])
    elif op.startswith(("conv_transpose", "convolution")):
        total = math.prod(shape(operands[0])) * math.prod(shape(operands[1])[1:])
    elif op == "linear":
        total = math.prod(result(None)) * shape(operands[1])[-1]
    elif op in ("matmul", "mm", "bmm", "mv"):
        total = math.prod(result(None)) * shape(operands[0])[-1]
    elif op in ("addmm", "baddbmm"):
        total = math.prod(result(None)) * shape(operands[1])[-1]
    elif op == "einsum":
        total = _einsum(call, shape)
    elif op.startswith("scaled_dot_product"):
        q, k, v = (shape(operands[i]) for i in range(3))
        total = math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])
    elif op in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        x = shape(operands[0])
        total = x[0] * x[1] * sum(math.prod(s) for s in map(shape, operands[2]) if len(s) == 2)
    return total // rows


def _einsum(call: Call, shape: Callable[[Any], Shape]) -> int:
    equation, tensors = str(call["equation"]).replace(" ", ""), call["tensors"]
    sizes: dict[str, int] = {}
    for letters, x in zip(equation.split("->")[0].split(","), tensors, strict=True):
        if "." in letters:
            return 0
        sizes.update(zip(letters, shape(x), strict=True))
    return math.prod(sizes.values())


def weight_of(call: Call) -> int:
    """How many numbers the constants of an operation hold."""
    return sum(v.value.numel() for v in leaves(list(call.args.values())) if isinstance(v, Const))
