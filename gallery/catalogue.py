"""All networks: those that the files of ``gallery/networks`` list."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from functools import cache
from zlib import crc32

from . import networks
from .gaps import GAPS
from .network import Network


@cache
def everything() -> dict[str, Network]:
    """All rows by name, in the order of the files.

    Raises:
        ValueError: two rows of one name, a refused row without a sentence, or a gap without a row.
    """
    found: dict[str, Network] = {}
    for info in sorted(pkgutil.iter_modules(networks.__path__), key=lambda info: info.name):
        for network in getattr(importlib.import_module(f"{networks.__name__}.{info.name}"), "NETWORKS", ()):
            if network.name in found:
                raise ValueError(f"gallery: two rows are named {network.name!r}")
            if (network.expected == "refused") != bool(network.why):
                raise ValueError(f"gallery: {network.name}: a refused row has why=, and no other row has")
            found[network.name] = replace(network, gap=GAPS.get(network.name, ""))
    if unknown := [name for name in GAPS if name not in found or found[name].why]:
        raise ValueError(f"gallery: gaps.py names no row that should convert: {', '.join(unknown)}")
    return found


def tenth(rows: Sequence[Network], turn: int, share: int = 10) -> list[Network]:
    """One row in ``share`` of those that need no package: others with each turn, and all in ``share`` turns."""
    mixed = sorted((n for n in rows if not n.package), key=lambda n: crc32(n.name.encode()))
    return [n for i, n in enumerate(mixed) if (i + turn) % share == 0]


def choose(pattern: str | None) -> list[Network]:
    """Rows by a part of the name, a shell pattern, an expected class, or several of these with commas between."""
    rows = list(everything().values())
    if not pattern:
        return rows
    return [n for n in rows if any(_fits(n, part.strip()) for part in pattern.split(",") if part.strip())]


def _fits(network: Network, pattern: str) -> bool:
    return pattern.lower() in network.name.lower() or fnmatch(network.name, pattern) or pattern == network.expected
