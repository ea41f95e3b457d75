"""Our export in the runtimes that the suite times."""

from __future__ import annotations

from pathlib import Path

from tests.export.artefacts import needs
from tests.long import one_in
from tests.own_process import check_in_own_process


@one_in(3)
def test_the_export_in_runtimes():
    needs("openvino")
    check_in_own_process(Path(__file__).with_name("runtime_checks.py"))
