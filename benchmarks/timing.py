"""The runner: candidates take turns, in blocks that are long for the clock and short for the machine's moods."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Protocol

import torch

REST = 0.03  # seconds
ROUNDS = 3  # at least
MIN_BLOCK = 0.02  # seconds: six orders of magnitude above what perf_counter resolves


class Candidate(Protocol):
    """What can be timed."""

    name: str

    def block(self, count: int) -> float:
        """Seconds that ``count`` calls take, after one call that is not counted."""


@dataclass
class Local:
    """A call in this process."""

    name: str
    call: Callable[[], Any]

    def block(self, count: int) -> float:
        call = self.call
        call()  # another candidate had the caches
        start = time.perf_counter()
        for _ in repeat(None, count):
            call()
        return time.perf_counter() - start


@dataclass(frozen=True)
class Stats:
    """Median, 10th and 90th percentile over the rounds."""

    median: float
    p10: float
    p90: float

    @staticmethod
    def of(values: Sequence[float]) -> Stats:
        """Of at least one value."""
        if len(values) == 1:
            return Stats(values[0], values[0], values[0])
        tenths = statistics.quantiles(values, n=10, method="inclusive")
        return Stats(statistics.median(values), tenths[0], tenths[-1])


@dataclass(frozen=True)
class Timings:
    """Seconds per call of each candidate in each round."""

    rounds: dict[str, list[float]]

    def stats(self, name: str) -> Stats:
        """Seconds per call of one candidate."""
        return Stats.of(self.rounds[name])

    def ratio(self, name: str, to: str) -> Stats:
        """Time of one candidate over that of another.

        The ratio is taken within each round, where both ran under the same conditions; then come the percentiles.
        """
        return Stats.of([a / b for a, b in zip(self.rounds[name], self.rounds[to], strict=True)])

    def fastest(self, names: Sequence[str]) -> str:
        """The candidate with the lowest median."""
        return min(names, key=lambda name: self.stats(name).median)


def calibrate(candidate: Candidate, min_block: float = MIN_BLOCK) -> int:
    """The number of calls that fill a block. Running it is the warm-up, too."""
    count = 1
    while True:
        took = candidate.block(count)
        if took >= min_block:
            return count
        # Not by more than ten at once: the first calls are slower than those to come.
        count = max(count + 1, min(10 * count, int(1.2 * count * min_block / max(took, 1e-9))))


def rest() -> None:
    """Let the threads of whoever ran last go to sleep: onnxruntime's wait busily for tens of milliseconds, and on two cores the
    block after theirs took twice as long."""
    if torch.get_num_threads() > 1:
        time.sleep(REST)


def alternate(
    candidates: Sequence[Candidate], rounds: int, min_block: float = MIN_BLOCK, seconds: float = float("inf")
) -> Timings:
    """Time candidates in turns.

    Args:
        candidates: each gets one block a round. Every other round runs in the reverse order, so that nobody always comes
            after the same neighbour.
        rounds: rounds that count.
        min_block: seconds of a block, at least.
        seconds: no further round begins after so long, once there are :data:`ROUNDS`.
    """
    counts = {c.name: calibrate(c, min_block) for c in candidates}
    found: dict[str, list[float]] = {c.name: [] for c in candidates}
    if len(found) != len(candidates):
        raise ValueError(f"candidates need different names, got {[c.name for c in candidates]}")
    begun = time.perf_counter()
    for i in range(rounds):
        if i >= ROUNDS and time.perf_counter() - begun > seconds:
            break
        for candidate in candidates if i % 2 == 0 else reversed(candidates):
            count = counts[candidate.name]
            rest()
            found[candidate.name].append(candidate.block(count) / count)
    return Timings(found)


@contextmanager
def conditions(threads: int) -> Iterator[None]:
    """What every measurement runs under.

    ``threads`` intra-op threads, ``torch.inference_mode``, denormals flushed to zero (a stream of silence would otherwise
    cost many times a stream of sound, in every candidate) and no garbage collection. The other library's process is told
    to do the same.
    """
    before, collecting = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    gc.collect()
    gc.disable()
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)
        if collecting:
            gc.enable()
