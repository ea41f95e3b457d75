"""What every test and doctest runs under: names that examples use, which tests run, the seed of random examples, skip of GPU tests."""

from typing import Any

import pytest
import torch

import continual as co
from continual.convert.graph import window_choice
from tests import costs, long

# These run under the Python of Triton's server, where other packages are.
collect_ignore = ["src/continual/triton/server", "tests/triton/client.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--by-cost", action="store_true", help="run expensive tests in turns, drawn by lot (tests/costs.py)")


@pytest.hookimpl(tryfirst=True)  # before hypothesis takes the option
def pytest_configure(config: pytest.Config) -> None:
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = long.SEED
    window_choice.ENOUGH = 0.0  # a few runs of each way to compute windows: tests hold for any of them


def pytest_report_header(config: pytest.Config) -> str:
    return f"continual: {long.again()}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.write_line(f"continual: {long.again()}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not long.ASKED_FOR:
        known = costs.read() if config.option.by_cost else {}
        now = [not item.get_closest_marker("long") and costs.drawn(item.nodeid, known) for item in items]
        config.hook.pytest_deselected(items=[item for item, runs in zip(items, now, strict=True) if not runs])
        items[:] = [item for item, runs in zip(items, now, strict=True) if runs]
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _names_and_seed(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace.update(co=co, torch=torch, nn=torch.nn, F=torch.nn.functional)
    torch.manual_seed(0)
