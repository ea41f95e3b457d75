"""Attention of heads: the kernel of this library against torch's."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F

from continual.layers.native import attention

from . import kernel_table
from .measure import Effort, require_equal
from .timing import Local, alternate

HEADER = ("heads × queries × keys × size", "kernel, µs", "torch, µs", "torch", "GFLOP/s")
SIZES = [
    (4, 32, 32, 32), (4, 128, 128, 32), (8, 64, 64, 128), (8, 128, 128, 64), (8, 512, 512, 64), (4, 1, 128, 32), (4, 16, 128, 32),
    (16, 100, 100, 20),
]  # fmt: skip


def row(heads: int, rows: int, keys: int, size: int, effort: Effort) -> list[str]:
    """Measure a size, of heads that lie beside each other as projections leave them."""
    torch.manual_seed(0)
    q, k, v = torch.randn(1, max(rows, keys), 3, heads, size).permute(2, 0, 3, 1, 4)
    q, k, v = q[:, :, :rows], k[:, :, :keys], v[:, :, :keys]
    ways = {
        "kernel": lambda: attention.attend(q, k, v, None, False, None).transpose(1, 2),
        "torch": lambda: F.scaled_dot_product_attention(q, k, v),
    }
    require_equal("kernel", ways["kernel"](), ways["torch"]())
    found = alternate([Local(name, way) for name, way in ways.items()], effort.rounds, effort.min_block)
    ours, theirs = (found.stats(name).median for name in ways)
    speed = 4e-9 * heads * rows * keys * size / ours
    ratio = found.ratio("torch", "kernel").median
    return [f"{heads} × {rows} × {keys} × {size}", f"{1e6 * ours:.1f}", f"{1e6 * theirs:.1f}", f"{ratio:.2f}×", f"{speed:.0f}"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and print the numbers in Markdown."""
    rows = [partial(row, *sizes) for sizes in SIZES]
    return kernel_table.run("attention", __doc__, attention.library(), HEADER, rows, argv)


if __name__ == "__main__":
    sys.exit(main())
