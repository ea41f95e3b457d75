"""Settings for all tests: how many random examples, and a fixed seed."""

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

from tests.long import ASKED_FOR

# Time limits per example say more about the machine than about the code.
EXAMPLES = int(os.environ.get("CONTINUAL_EXAMPLES") or (80 if ASKED_FOR else 40))
# Rounds of tests/fuzz.py would else stop at what they have found before.
PHASES = [phase for phase in Phase if phase != Phase.explain and (phase != Phase.reuse or not os.environ.get("CONTINUAL_FUZZ"))]
settings.register_profile(
    "continual", max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES, print_blob=True,
    derandomize=False,
)  # fmt: skip
settings.load_profile("continual")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=[True, False], ids=["grad", "no grad"])
def grad(request: pytest.FixtureRequest) -> Iterator[bool]:
    """The test runs with gradients and without."""
    with torch.set_grad_enabled(request.param):
        yield request.param
