"""Products of small matrices: the kernel of this library against the products of torch (MKL's on x86) and of oneDNN on a packed weight."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

import torch
from torch.nn import functional as F

from continual.layers import onednn
from continual.layers.native import product

from . import kernel_table
from .measure import Effort, require_equal
from .timing import Local, alternate

HEADER = ("rows × sum → outputs", "panels, µs", "as it lies, µs", "from the left, µs", "torch", "oneDNN", "GFLOP/s")
SIZES = [
    (1, 192, 64), (1, 2304, 256), (1, 128, 384), (4, 256, 256), (8, 512, 512), (25, 64, 128), (25, 576, 64), (32, 256, 1024),
    (128, 512, 512), (784, 64, 128), (3136, 54, 24),
]  # fmt: skip


def row(rows: int, size: int, features: int, effort: Effort) -> list[str]:
    """Measure a size: times of the kernel's three forms, and those of others over that of its fastest."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(rows, size), torch.randn(features, size), torch.randn(features)
    panels, packed, columns = product.packed(weight), onednn.pack_linear(weight), x.t().contiguous().unsqueeze(0)
    ways = {
        "panels": lambda: product.by_panels(x, panels, bias, features),
        "lies": lambda: product.linear(x, weight, bias),
        "left": lambda: product.multiply(weight, columns, bias)[0].t(),
        "torch": lambda: F.linear(x, weight, bias),
        "oneDNN": lambda: onednn.linear(x, packed, bias),
    }
    for name, way in ways.items():
        require_equal(name, way(), ways["torch"]())
    found = alternate([Local(name, way) for name, way in ways.items()], effort.rounds, effort.min_block)
    ours = [found.stats(name).median for name in ("panels", "lies", "left")]
    best = ("panels", "lies", "left")[ours.index(min(ours))]
    others = [f"{found.ratio(name, best).median:.2f}×" for name in ("torch", "oneDNN")]
    speed = 2e-9 * rows * size * features / min(ours)
    return [f"{rows} × {size} → {features}", *(f"{1e6 * t:.1f}" for t in ours), *others, f"{speed:.0f}"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and print the numbers in Markdown."""
    rows = [partial(row, *sizes) for sizes in SIZES]
    return kernel_table.run("products", __doc__, product.library(), HEADER, rows, argv)


if __name__ == "__main__":
    sys.exit(main())
