"""Settings for all tests: how many random examples, and a fixed seed."""

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

_common = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
settings.register_profile("dev", max_examples=50, **_common)
settings.register_profile("ci", max_examples=400, derandomize=True, **_common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
