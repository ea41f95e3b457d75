"""A plugin of pytest that says what each folder of tests costs: CPU seconds, those of child processes too. No tests are in this file.

    make test PYTEST_ARGS="-p tests.cpu_times"

Unlike the wall clock of ``--durations``, it tells the same on a machine that others use, but for what shared caches cost.
With ``--write-costs`` it puts them into ``tests/costs.csv``.
"""

from __future__ import annotations

import resource
from collections import defaultdict
from collections.abc import Generator
from typing import Any

import pytest

from tests import costs

_WHEN_IT_BEGAN = pytest.StashKey[float]()
_FOUND: dict[str, list[float]] = defaultdict(list)


def spent() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def folder(nodeid: str) -> str:
    """Under which a test is listed."""
    parts = nodeid.split("::")[0].split("/")
    return "src (docstrings)" if parts[0] == "src" else "/".join(parts[: 2 if len(parts) > 2 else 1])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-costs", action="store_true", help="keep what was measured in tests/costs.csv")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    item.stash[_WHEN_IT_BEGAN] = spent()
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
    if call.when == "teardown" and _WHEN_IT_BEGAN in item.stash:
        item.user_properties.append(("cpu", spent() - item.stash[_WHEN_IT_BEGAN]))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        _FOUND[costs.function(report.nodeid)].extend(value for name, value in report.user_properties if name == "cpu")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.option.write_costs:
        costs.write(_FOUND)
    folders: dict[str, list[float]] = defaultdict(list)
    for name, found in _FOUND.items():
        folders[folder(name)].extend(found)
    rows = sorted(folders.items(), key=lambda row: -sum(row[1]))
    terminalreporter.write_line("\n| folder | tests | CPU seconds |\n|---|--:|--:|")
    for name, found in [*rows, ("**sum**", [v for _, values in rows for v in values])]:
        terminalreporter.write_line(f"| {name} | {len(found):,} | {sum(found):.0f} |")
