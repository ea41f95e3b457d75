"""Products of small matrices: the kernel of this library against the products of torch (MKL's on x86) and of oneDNN on a packed weight."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from continual.layers import onednn
from continual.layers.native import product

from . import report
from .measure import Effort, require_equal
from .timing import Local, alternate, conditions

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
    line = argparse.ArgumentParser(prog="python -m benchmarks.products", description=__doc__)
    line.add_argument("--threads", type=int, default=1, metavar="N", help="of torch (default: 1)")
    line.add_argument("--quick", action="store_true", help="short blocks")
    line.add_argument("--markdown", type=Path, metavar="FILE", help="write the section 'products' of a page")
    args = line.parse_args(argv)
    if product.library() is None:
        print("no kernel: there is no compiler here, or it is turned off", file=sys.stderr)
        return 1
    effort = Effort(3, 0.002) if args.quick else Effort()
    with conditions(args.threads), torch.no_grad():
        rows = [row(*sizes, effort) for sizes in SIZES]
    text = (
        f"Measured: {report.Machine.here()}; {args.threads} thread{'s' * (args.threads > 1)}, medians of alternating blocks, calls from "
        f"Python included.\n\n{report.markdown_table(HEADER, rows)}"
    )
    print(text)
    if args.markdown:
        report.write_markdown(args.markdown, "products", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
