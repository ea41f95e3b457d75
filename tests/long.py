"""What takes long is run on request. No tests are in this file."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import Any
from zlib import crc32

import pytest

ASKED_FOR = bool(os.environ.get("CONTINUAL_LONG"))
WHY = "takes long: set CONTINUAL_LONG=1 to run it"
LONG = pytest.mark.skipif(not ASKED_FOR, reason=WHY)


def in_full(name: str, share: int = 3) -> bool:
    """Whether everything is checked of a row of a table: of one in ``share``, chosen by its name, and of all on request."""
    return ASKED_FOR or crc32(name.encode()) % share == 0


def some(values: Iterable[Any], long: Collection[Any]) -> list[Any]:
    """Parameters of a test of which some are run on request."""
    return [pytest.param(*(v if isinstance(v, tuple) else (v,)), marks=LONG) if v in long else v for v in values]
