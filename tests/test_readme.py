"""The README's Python examples run, in order, in one session; its claims about imports hold."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_examples_run(capsys: pytest.CaptureFixture[str]):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    printed = capsys.readouterr().out
    assert "passed" in printed
    assert "receptive field" in printed


def test_importing_needs_torch_alone():
    optional = ("safetensors", "typer", "rich", "matplotlib", "pywt", "soundfile", "hypothesis")
    code = f"import sys, continual; print([m for m in {optional!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["torch>=2.11"])
def test_the_package_does_not_pin(name: str):
    assert f'dependencies = ["{name}"]' in (README.parent / "pyproject.toml").read_text(encoding="utf-8")
