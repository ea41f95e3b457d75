"""`python -m benchmarks.depthwise`: it compares equal computations, and its table holds them. Nothing here asserts how fast anything is."""

from __future__ import annotations

from pathlib import Path

import continual as co
from benchmarks import depthwise


def test_the_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- depthwise: begin -->\n<!-- depthwise: end -->\n")
    depthwise.main(["--only", "432 × 5²", "--quick", "--threads", "1", "--markdown", str(page)])
    (row,) = [line for line in page.read_text().splitlines() if line.startswith("| 432")]
    assert row.count("×)") == 4


def test_the_copy_does_without_the_kernel() -> None:
    net = co.Sequential(co.Conv3d(32, 32, 3, groups=32), co.Conv3d(32, 8, 1))
    assert [m._geometry for m in depthwise.by_torch(net)] == [None, None]
    assert net[0]._geometry is not None
