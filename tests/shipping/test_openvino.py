"""OpenVINO's tests, in a process of their own: it has crashed in long ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.shipping.artefacts import needs


def test_openvino(long: None):
    needs("openvino")
    checks = Path(__file__).with_name("openvino_checks.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(checks)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=checks.parents[2])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
