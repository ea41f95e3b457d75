"""OpenVINO's tests, in a process of their own: it has crashed in long ones."""

from __future__ import annotations

from pathlib import Path

from tests.export.artefacts import needs
from tests.long import LONG
from tests.own_process import check_in_own_process


@LONG
def test_openvino():
    needs("openvino")
    check_in_own_process(Path(__file__).with_name("openvino_checks.py"))
