"""The environment with Triton's server and client, where there is one: `make triton-venv` makes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "CONTINUAL_TRITON_VENV"
BESIDE = Path(__file__).parents[2] / ".venv-triton"


class Environment:
    """A virtual environment with nvidia-pytriton, tritonclient and onnxruntime."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.packages = next(iter(folder.glob("lib/python3.*/site-packages")), None)

    @property
    def missing(self) -> str | None:
        """Why it can't be used."""
        if not self.python.exists() or self.packages is None:
            return f"no Triton environment at {self.folder}: make triton-venv, or set {VARIABLE}"
        absent = [
            p
            for p in ("pytriton/tritonserver/bin/tritonserver", "onnxruntime", "tritonclient")
            if not (self.packages / p).exists()
        ]
        return f"the environment {self.folder} has no {', '.join(absent)}" if absent else None


def environment() -> Environment:
    """The environment. Skips the test where there is none."""
    found = Environment(Path(os.environ.get(VARIABLE) or BESIDE))
    if found.missing:
        pytest.skip(found.missing)
    return found
