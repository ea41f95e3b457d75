"""``python -m continual`` is the command line, as ``continual`` is."""

from __future__ import annotations

from .cli import main

main()
