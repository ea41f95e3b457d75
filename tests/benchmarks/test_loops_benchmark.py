"""`python -m benchmarks.loops`: it compares equal computations, and its table holds them. Nothing here asserts how fast anything is."""

from __future__ import annotations

from pathlib import Path

from benchmarks import loops


def test_the_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- loops: begin -->\n<!-- loops: end -->\n")
    loops.main(["--only", "GRUCell 64", "--quick", "--markdown", str(page)])
    assert "| GRUCell 64 |" in page.read_text()
