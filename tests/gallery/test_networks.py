"""Networks of the gallery, a few in each turn: those that need no package. The others on request: ``python -m gallery``."""

from __future__ import annotations

import pytest

from gallery.catalogue import everything
from gallery.measure import measure
from tests.long import by_turns

OWN = [name for name, network in everything().items() if not network.package]
SHARE = 20  # a turn stays within half a minute of CPU time


@pytest.mark.parametrize("name", by_turns(OWN, SHARE))
def test_the_result_is_the_expected_one(name: str):
    network = everything()[name]
    result = measure(network, timed=False)
    assert not result.changed(network), result.message or result.reason
