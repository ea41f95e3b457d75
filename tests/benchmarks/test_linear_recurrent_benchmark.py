"""`python -m benchmarks.linear_recurrent`: it compares equal computations, and its table holds them. Nothing here asserts a speed."""

from __future__ import annotations

from pathlib import Path

from benchmarks import linear_recurrent


def test_the_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- linear recurrences: begin -->\n<!-- linear recurrences: end -->\n")
    linear_recurrent.main(["--only", "RWKV", "--quick", "--markdown", str(page)])
    assert "| RWKV, 64 channels |" in page.read_text()
