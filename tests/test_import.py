"""``import continual``: what it imports, and what it leaves behind. Counts stand for times, which depend on the machine."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from continual.core.collector import without_collections

MOST_MODULES = 170  # of the library; 161 when this was written. Each takes about 0.2 ms
OF_PYTHON = {"_decimal", "_pydecimal", "decimal", "fractions", "numbers", "shlex"}  # beyond what torch imports


# An import that fails, and one that does not. What each prints is a line.
CODE = """
import gc, sys, torch
before, collections = set(sys.modules), []
sys.modules["continual.layers.unfold"] = None
try:
    import continual
except ImportError as error:
    print("unfold" in str(error), gc.isenabled())
for name in set(sys.modules) - before:
    if name.split(".")[0] == "continual":
        del sys.modules[name]
gc.callbacks.append(lambda phase, info: collections.append(info["generation"]))
import continual
gc.disable()
print(*collections)
print(*sorted(set(sys.modules) - before))
"""


@pytest.fixture(scope="module")
def printed() -> list[list[str]]:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    return [line.split() for line in done.stdout.splitlines()]


def test_an_import_that_fails_leaves_the_collector_on(printed: list[list[str]]):
    assert printed[0] == ["True", "True"]


def test_importing_collects_nothing_old(printed: list[list[str]]):
    """Before the collector is held back, and after it, new objects may be looked at; never all objects of torch."""
    assert set(printed[1]) <= {"0"}
    assert len(printed[1]) <= 6  # a collection is two: its start and its end


def test_importing_needs_torch_alone_and_few_modules(printed: list[list[str]]):
    ours = [name for name in printed[2] if name.split(".")[0] == "continual"]
    assert 100 < len(ours) <= MOST_MODULES
    assert set(printed[2]) - set(ours) <= OF_PYTHON


def _failing() -> None:
    with without_collections():
        assert not gc.isenabled()
        raise ZeroDivisionError


@pytest.mark.parametrize("runs", [True, False])
def test_the_collector_is_as_it_was(runs: bool):
    ran = gc.isenabled()
    try:
        (gc.enable if runs else gc.disable)()
        with pytest.raises(ZeroDivisionError):
            _failing()
        assert gc.isenabled() is runs
    finally:
        (gc.enable if ran else gc.disable)()
