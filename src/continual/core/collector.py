"""Python's collector of unreachable objects, held back while the package is imported."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """Hold Python's collector back, and let it run again afterwards: also where the block raises, and only if it ran before.

    The import of torch leaves 166,000 objects and the counters of the collector just below a pass over all of them. The objects that
    another import makes set it off: it would take two thirds of the CPU time of ``import continual``.

    Example:
        >>> import gc
        >>> with without_collections():
        ...     gc.isenabled()
        False
        >>> gc.isenabled()
        True
    """
    ran = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if ran:
            gc.enable()
