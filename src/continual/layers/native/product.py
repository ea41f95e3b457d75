"""Products of float32 matrices of the sizes that steps have: weights in panels, as torch keeps them, or on the left of frames.

torch's own products (MKL's) run these at 60 to 110 GFLOP/s on an AMD processor where this kernel runs at 120 to 260 (measured in
docs/performance.md).
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, baddbmm, bmm  # by name: ptflops counts what is called as torch.bmm, beside the layer itself

from ...core.tracing_guard import is_tracing
from . import build
from .build import LONG, POINTER
from .conditions import usable

SOURCE = Path(__file__).with_suffix(".cpp")
MOST_VECTORS = 3  # of a panel
ALONE = 1 << 20  # products, below which a second thread costs more than it does
FEWEST_ROWS = 8  # that the products of fewer rows are counted as: these wait for the weight
LEAST_SUM = 128  # products in a sum, below which to add the lanes of vectors costs more than is gained
LEAST_ROWS = 4  # from which reading a weight as it lies, and the call, cost less than torch's product
LEAST_COLUMNS = 8  # of a matrix on the right, below which a vector of them is mostly empty
COLUMNS = -1  # the layout of weights as torch keeps them


@functools.cache
def library() -> build.Kernel | None:
    """The kernel; ``None`` where there is no compiler, or with ``CONTINUAL_NATIVE=0``."""
    return build.kernel(SOURCE, [POINTER] * 4 + [LONG] * 7 + [POINTER, LONG])


def computes_products(x: Tensor) -> bool:
    """Whether compiled programs compute products with such a tensor by the kernel."""
    return x.dtype == torch.float32 and x.is_cpu and library() is not None


def panel_vectors(features: int, lanes: int) -> int:
    """Vectors of a panel for so many outputs: the number that wastes least, the largest of these."""
    return min(range(MOST_VECTORS, 0, -1), key=lambda v: -(-features // (v * lanes)) * v)


def packed(weight: Tensor) -> Tensor:
    """A weight ``(O, I)`` in panels ``(n, I, width)``, its last outputs filled up by zeros."""
    features, size = weight.shape
    kernel = library()
    width = 1 if kernel is None else panel_vectors(features, kernel.lanes) * kernel.lanes
    return F.pad(weight, (0, 0, 0, -features % width)).view(-1, width, size).transpose(1, 2).contiguous()


def by_panels(x: Tensor, panels: Tensor, bias: Tensor | None, features: int, relu: bool = False) -> Tensor:
    """The linear map of ``(…, I)`` to ``(…, features)``, by a weight in panels. With ``relu`` what is below 0 becomes 0."""
    x, size = x.contiguous(), panels.shape[1]
    y = torch.empty((*x.shape[:-1], features), dtype=torch.float32, device="cpu")
    _run(x, panels, bias, y, x.numel() // size, size, features, panels.shape[2], relu=relu)
    return y


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear``, by the kernel where that is the faster one. The weight is read as it lies."""
    y = linear_or_none(x, weight, bias)
    return F.linear(x, weight, bias) if y is None else y


def linear_or_none(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
    """The linear map by the kernel; ``None`` where torch's is the faster one, or the only one."""
    if torch.is_grad_enabled() or is_tracing() or weight.ndim != 2:
        return None
    features, size = weight.shape
    if size < LEAST_SUM or x.numel() < LEAST_ROWS * size or x.shape[-1] != size or not runs(x, weight, bias):
        return None
    x = x.contiguous()
    y = torch.empty((*x.shape[:-1], features), dtype=torch.float32, device="cpu")
    _run(x, weight.contiguous(), bias, y, x.numel() // size, size, features, COLUMNS)
    return y


def multiply(weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """The products of a weight ``(O, I)`` with matrices ``(B, I, n)``: ``(B, O, n)``. A bias ``(O)`` is added."""
    if torch.is_grad_enabled() or is_tracing() or x.shape[2] < LEAST_COLUMNS or not runs(x, weight, bias):
        return by_torch(weight, x, bias)
    x, (batch, size, columns), features = x.contiguous(), x.shape, len(weight)
    y = torch.empty((batch, features, columns), dtype=torch.float32, device="cpu")
    _run(weight.contiguous(), x, bias, y, features, size, columns, 0, batch)
    return y


def runs(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the kernel computes a product with a weight ``(O, I)``, on as many threads as torch would."""
    kernel = library() if usable(x, weight, bias) else None
    if kernel is None:
        return False
    return kernel.parallel is not None or torch.get_num_threads() == 1 or x.numel() * len(weight) < ALONE


def by_torch(weight: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    """As :func:`multiply`."""
    many = weight.expand(x.shape[0], -1, -1)
    return bmm(many, x) if bias is None else baddbmm(bias.unsqueeze(1), many, x)


def _run(
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    y: Tensor,
    rows: int,
    size: int,
    columns: int,
    layout: int,
    batch: int = 1,
    relu: bool = False,
) -> None:
    """Call the kernel: ``layout`` is the width of panels, 0 for rows, or ``COLUMNS``. Of a batch, a bias is that of a row."""
    kernel = library()
    if kernel is None or not size:
        raise AssertionError("asked for before")
    run, lanes, parallel = kernel
    threads = torch.get_num_threads()
    if threads > 1 and batch * max(rows, FEWEST_ROWS) * size * columns < ALONE:
        threads = 1
    bias_at = None if bias is None else bias.data_ptr()
    panel = layout // lanes if layout > 0 else layout
    where = a.data_ptr(), b.data_ptr(), bias_at, y.data_ptr()
    run(*where, rows, size, columns, panel, int(layout == 0), batch, int(relu), parallel, threads)
