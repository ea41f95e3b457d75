"""Tests that need a process of their own. No tests are in this file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def check_in_own_process(file: Path, **environment: str) -> None:
    """Run a file of tests in a new process, as OpenVINO's, which has crashed in long ones."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(file)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=os.environ | environment)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
