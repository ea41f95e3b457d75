"""Times of single calls of several candidates, which take turns: whatever else the machine does meets all of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

LEAST = 3  # calls of a block


@contextmanager
def conditions(threads: int) -> Iterator[None]:
    """What measurements run under: so many threads, no gradients, denormal numbers as zeros (silence would cost more), no garbage
    collection."""
    before, collecting = torch.get_num_threads(), gc.isenabled()
    gc.collect()
    gc.disable()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)
        if collecting:
            gc.enable()


def block(call: Callable[[], Any], count: int, wait: Callable[[], Any] | None) -> list[float]:
    """Seconds of each of so many calls, after one that is not counted: another candidate had the caches.

    Args:
        call: the candidate.
        count: of calls.
        wait: waits for the device.
    """
    now, found = time.perf_counter, []
    call()
    for _ in range(count):
        if wait is not None:
            wait()
        start = now()
        call()
        if wait is not None:
            wait()
        found.append(now() - start)
    return found


def alternate(
    calls: Sequence[Callable[[], Any]],
    multiples: Sequence[int],
    rounds: int,
    seconds: float,
    wait: Callable[[], Any] | None,
    say: Callable[[int], None],
) -> list[list[list[float]]]:
    """Measure candidates in turns; every other round in the reverse order.

    Args:
        calls: the candidates.
        multiples: a block of a candidate has a multiple of so many calls, which have different work in turns.
        rounds: blocks of each.
        seconds: of all blocks together, about.
        wait: waits for the device.
        say: is told how many rounds are done.

    Returns:
        For each candidate the blocks, and for each of them the seconds of each call.
    """
    share = seconds / (rounds * len(calls))
    counts = []
    for call, multiple in zip(calls, multiples, strict=True):
        once = min(sum(block(call, multiple, wait)) for _ in range(2))
        counts.append(multiple * max(-(-LEAST // multiple), round(share / max(once, 1e-9))))
    found: list[list[list[float]]] = [[] for _ in calls]
    for turn in range(rounds):
        say(turn)
        order = range(len(calls)) if turn % 2 == 0 else reversed(range(len(calls)))
        for i in order:
            found[i].append(block(calls[i], counts[i], wait))
    return found
