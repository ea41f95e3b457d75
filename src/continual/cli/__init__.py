"""The command line: `continual`."""

from __future__ import annotations

import importlib.util
import sys

NEEDED = ("typer", "rich", "matplotlib", "numpy", "pywt", "soundfile")


def main() -> None:
    """Entry point of the console script."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        sys.stderr.write(f"continual: the command line needs {', '.join(missing)}: pip install 'continual[cli]'\n")
        raise SystemExit(2)
    from .app import app

    app()
