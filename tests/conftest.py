"""Settings for all tests: how many random examples, and a fixed seed."""

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.long import ASKED_FOR, WHY

_common = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
settings.register_profile("dev", max_examples=50, **_common)
settings.register_profile("ci", max_examples=80, derandomize=True, **_common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=[True, False], ids=["grad", "no grad"])
def grad(request: pytest.FixtureRequest) -> Iterator[bool]:
    """The test runs with gradients and without."""
    with torch.set_grad_enabled(request.param):
        yield request.param


@pytest.fixture
def long() -> None:
    """The test takes minutes: it is skipped unless it is asked for."""
    if not ASKED_FOR:
        pytest.skip(WHY)
