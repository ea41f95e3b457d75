"""The command line: `continual`."""

from __future__ import annotations

import sys

from ..core.optional_packages import absent

NEEDED = ("typer", "rich", "matplotlib", "numpy", "pywt", "soundfile")


def main() -> None:
    """Entry point of the console script."""
    if missing := absent(*NEEDED):
        sys.stderr.write(f"continual: the command line needs {', '.join(missing)}: pip install {' '.join(missing)}\n")
        raise SystemExit(2)
    from .app import app

    app(prog_name="continual")
