"""Which tests run: what takes long on request, and of rows that take turns those whose turn it is. No tests are in this file.

``make test-all`` runs everything. ``make test`` leaves out what is marked ``long``, and runs rows that test much the same thing in turns.
The turn, and the seed of hypothesis's random examples, come from the commit: each commit has others, and each run of a commit the same.
``make test TURN=… SEED=…`` runs another commit's again; pytest's first lines say which they are.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

import pytest

Test = TypeVar("Test", bound=Callable[..., None])
ROOT = Path(__file__).parents[1]
TURNS = 840  # a multiple of the shares that are in use: all rows of a table have as many turns
ASKED_FOR = bool(os.environ.get("CONTINUAL_LONG"))
LONG = pytest.mark.long


def head() -> str | None:
    """The commit's hash; ``None`` in a folder that is no clone."""
    if not (ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:  # no git on this machine
        return None
    return done.stdout.strip() or None


COMMIT = head()
TURN = int(os.environ.get("CONTINUAL_TURN") or int((COMMIT or "0")[:8], 16)) % TURNS
SEED = int(os.environ.get("CONTINUAL_SEED") or int((COMMIT or "0")[-8:], 16))


def again() -> str:
    """What the run depends on, and how to run the same again."""
    given = os.environ.get("CONTINUAL_TURN") or os.environ.get("CONTINUAL_SEED")
    where = "as given" if given else f"of commit {COMMIT[:10]}" if COMMIT else "fixed, as git knows no commit here"
    what = "test-all" if ASKED_FOR else "test"
    return f"turn {TURN}, seed {SEED} ({where}); again: make {what} TURN={TURN} SEED={SEED}"


def in_full(name: str, share: int = 3) -> bool:
    """Whether everything is checked of a row of a table: of one in ``share``, whose turn it is, and of all on request."""
    return ASKED_FOR or (crc32(name.encode()) + TURN) % share == 0


def whose_turn(names: Iterable[str], share: int) -> set[str]:
    """Those rows of a table that run now: about as many in each turn, mixed, and all on request."""
    mixed = sorted(names, key=lambda name: crc32(name.encode()))
    return {name for i, name in enumerate(mixed) if ASKED_FOR or (i + TURN) % share == 0}


def one_in(share: int) -> Callable[[Test], Test]:
    """A decorator: the test runs in one of so many turns."""
    return lambda test: test if in_full(test.__qualname__, share) else LONG(test)


def some(values: Iterable[Any], long: Collection[Any]) -> list[Any]:
    """Parameters of a test of which some are run on request."""
    return [pytest.param(*(v if isinstance(v, tuple) else (v,)), marks=LONG) if v in long else v for v in values]


def by_turns(values: Iterable[Any], share: int, always: Collection[Any] = (), of: str = "") -> list[Any]:
    """Parameters of a test of which one in ``share`` runs, whose turn it is, beside those that always do.

    Args:
        values: all of them.
        share: how many turns there are.
        always: those that run in every turn.
        of: the test: with another name rows have other turns, so that a network is not in all tests in one turn and in none in the next.
    """
    made = list(values)
    now = whose_turn([f"{of}{v}" for v in made if v not in always], share)
    return some(made, [v for v in made if v not in always and f"{of}{v}" not in now])
