"""What every test and doctest runs under: names that examples use, hypothesis profile, seed, skip of GPU tests."""

import os
from typing import Any

import pytest
import torch
from hypothesis import settings

import continual as co

# These run under the Python of Triton's server, where other packages are.
collect_ignore = ["src/continual/triton/server", "tests/triton/client.py"]

# Time limits per example say more about the machine than about the code. "ci" is hypothesis's own: fixed examples.
settings.register_profile("default", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _names_and_seed(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace.update(co=co, torch=torch, nn=torch.nn, F=torch.nn.functional)
    torch.manual_seed(0)
