"""The command of a benchmark of one native kernel: a table with a row for each size."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from . import report
from .measure import Effort
from .timing import conditions

Measure = Callable[[Effort], list[str]]  # a row of the table


def run(
    name: str, about: str | None, kernel: Any, header: Sequence[str], rows: Sequence[Measure], argv: Sequence[str] | None
) -> int:
    """Run the command and print the numbers in Markdown; return the exit status.

    Args:
        name: of the benchmark, and of its section in a page.
        about: what ``--help`` says.
        kernel: the compiled kernel; ``None`` where there is none.
        header: of the table.
        rows: measure its rows.
        argv: the command line.
    """
    line = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    line.add_argument("--threads", type=int, default=1, metavar="N", help="of torch (default: 1)")
    line.add_argument("--quick", action="store_true", help="short blocks")
    line.add_argument("--markdown", type=Path, metavar="FILE", help=f"write the section '{name}' of a page")
    args = line.parse_args(argv)
    if kernel is None:
        print("no kernel: there is no compiler here, or it is turned off", file=sys.stderr)
        return 1
    effort = Effort(3, 0.002) if args.quick else Effort()
    with conditions(args.threads), torch.no_grad():
        found = [measure(effort) for measure in rows]
    text = (
        f"Measured: {report.Machine.here()}; {args.threads} thread{'s' * (args.threads > 1)}, medians of alternating blocks, calls from "
        f"Python included.\n\n{report.markdown_table(header, found)}"
    )
    print(text)
    if args.markdown:
        report.write_markdown(args.markdown, name, text)
    return 0
