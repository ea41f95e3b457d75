"""The Python examples of README and docs run, in order, in one session; the claims about imports hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_import_paths import PATHS

README = Path(__file__).parents[1] / "README.md"
MIGRATING = README.parent / "docs" / "migrating.md"


def run_examples(page: Path) -> int:
    """Run a page's Python blocks; return how many there are."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {"__name__": page.stem}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)
    return len(blocks)


def test_the_examples_run(capsys: pytest.CaptureFixture[str]):
    assert run_examples(README) >= 2
    printed = capsys.readouterr().out
    assert "passed" in printed
    assert "receptive field" in printed


def test_the_examples_of_the_migration_page_run(capsys: pytest.CaptureFixture[str]):
    assert run_examples(MIGRATING) == 6
    printed = capsys.readouterr().out
    for part in (
        "tolerance 1e-05: passed",
        "GroupNorm",
        "<All keys matched",
        "layer1.0.1.conv1.weight\nlayer1.0.conv1.weight\n",
        f"\n{2 * (96 + 80)}\n",
    ):
        assert part in printed


def test_the_migration_page_has_every_name():
    """What users of continual-inference 1.2.4 can have in their code."""
    text = MIGRATING.read_text(encoding="utf-8")
    text = re.sub(r"`(\w+)1d/2d/3d`", r"`\g<1>1d`, `\g<1>2d`, `\g<1>3d`", text)
    text = re.sub(r"`(\w+)2d/3d`", r"`\g<1>2d`, `\g<1>3d`", text)
    table = text[text.index("## Name by name") : text.index("## Before and after")]
    names = {name for path in PATHS.values() for name in path.split()}
    assert [n for n in sorted(names) if not re.search(rf"`[^`\n]*\b{n}\b[^`\n]*`", table)] == []
    assert [n for n in ("warm_up", "build_from", "is_valid", "onnx.export", "ptflops") if n not in table] == []


@pytest.mark.parametrize("name", ["torch>=2.11"])
def test_the_package_does_not_pin(name: str):
    assert f'dependencies = ["{name}"]' in (README.parent / "pyproject.toml").read_text(encoding="utf-8")
