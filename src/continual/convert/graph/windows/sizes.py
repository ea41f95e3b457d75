"""Sizes of an export whose rows are a symbol."""

from __future__ import annotations

from typing import Any

from ..exec_context import Count
from ..row_sizes import Unfollowed as Unfollowed
from ..row_sizes import known as known
from ..row_sizes import sizes_of as sizes_of
from ..row_sizes import value_of as value_of
from ..values import leaves
from .tasks import Task

ROWS = 10_007  # the rows for which layouts are worked out: a prime, so that no other size is taken for them


def number(size: int | Count) -> int:
    """A size for :data:`ROWS` rows."""
    return size.rate * ROWS + size.more if isinstance(size, Count) else size


def tasks_in(value: Any) -> list[Task]:
    """The tasks among values."""
    found: list[Any] = leaves(value)  # tasks stand among the values of a graph here
    return [v for v in found if isinstance(v, Task)]
