"""The command line: `continual`."""

from __future__ import annotations

import os
import shutil
import sys

from ..core.optional_packages import absent

NARROW = 60  # columns of a terminal, below which what is drawn becomes slivers
NEEDED = ("typer", "rich", "matplotlib", "numpy", "pywt", "soundfile")


def main() -> None:
    """Entry point of the console script."""
    if missing := absent(*NEEDED):
        sys.stderr.write(f"continual: the command line needs {', '.join(missing)}: pip install {' '.join(missing)}\n")
        raise SystemExit(2)
    if not sys.stdout.isatty() or shutil.get_terminal_size().columns < NARROW:
        os.environ.setdefault("TYPER_USE_RICH", "0")  # help is plain text, as tables are
    from .app import app

    app(prog_name="continual")
