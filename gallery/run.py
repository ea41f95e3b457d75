"""Each network in a process of its own, with limits of time and memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any

from .network import Network
from .result import Result

WALL = 5  # times the CPU seconds: on a busy machine a process gets a part of a core
GIB = 2**30


@dataclass(frozen=True)
class Limits:
    """What a network may take, and what is measured.

    Attributes:
        seconds: of CPU time.
        memory: GiB beside what the libraries take.
        timed: measure steps.
        compiled: measure compiled programs.
    """

    seconds: float = 120.0
    memory: float = 6.0
    timed: bool = True
    compiled: bool = False


class Job:
    """A process that measures one network.

    Args:
        context: how processes are started.
        network: its row.
        limits: what it may take.
    """

    def __init__(self, context: BaseContext, network: Network, limits: Limits):
        self.network, self.limits, self.start = network, limits, time.monotonic()
        self.answer, theirs = context.Pipe(duplex=False)
        self.process: Any = context.Process(target=_work, args=(theirs, network.name, limits), daemon=False)  # type: ignore[attr-defined]
        self.process.start()
        theirs.close()

    @property
    def late(self) -> bool:
        """Whether it has had its time on the wall, too."""
        return time.monotonic() - self.start > WALL * self.limits.seconds + 60

    def result(self) -> Result:
        """What it has found; why it has found nothing."""
        name = self.network.name
        late = self.late and self.process.is_alive()
        try:
            found: Result | None = self.answer.recv() if not late and self.answer.poll() else None
        except EOFError:
            found = None
        if late:
            self.process.kill()
        self.process.join()
        self.answer.close()
        if found is not None:
            return found
        if late or self.process.exitcode == -signal.SIGXCPU:
            return Result(name, "time", f"no result in {self.limits.seconds:g} seconds")
        return Result(name, "crash", f"the process ended with status {self.process.exitcode}")

    def stop(self) -> None:
        """End it without a result."""
        self.process.kill()
        self.process.join()


def run(
    networks: Sequence[Network], limits: Limits, jobs: int, started: Callable[[str], None], done: Callable[[Result], None]
) -> None:
    """Measure networks, some at a time.

    Args:
        networks: the rows.
        limits: of each process.
        jobs: how many processes at a time.
        started, done: called with the name and the result of each. An interrupt ends the processes that run.
    """
    context = _context(networks)
    waiting, running = deque(networks), list[Job]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(Job(context, waiting.popleft(), limits))
                started(running[-1].network.name)
            wait([job.answer for job in running] + [job.process.sentinel for job in running], timeout=1.0)
            for job in [j for j in running if j.answer.poll() or not j.process.is_alive() or j.late]:
                running.remove(job)
                done(job.result())
    finally:
        for job in running:
            job.stop()


def _context(networks: Sequence[Network]) -> BaseContext:
    """Processes are forked from one that has imported everything, where systems can fork."""
    from .warm import PACKAGES  # importing it imports torch, which takes its time

    packages = {n.package for n in networks if n.package}
    os.environ[PACKAGES] = " ".join(sorted(packages)) if len(networks) > len(packages) else ""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__package__}.warm"])
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")  # locks of packages, which end with their processes
    return context


def _work(answer: Connection, name: str, limits: Limits) -> None:
    """In the process: measure, and send what was found."""
    import torch

    from .catalogue import everything
    from .measure import measure

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    _limit(limits)
    try:
        found = measure(everything()[name], timed=limits.timed, compiled=limits.compiled)
        if _out_of_memory(found):
            found.outcome, found.reason = "memory", f"more than {limits.memory:g} GiB"
    except MemoryError:
        found = Result(name, "memory", f"more than {limits.memory:g} GiB")
    answer.send(found)
    answer.close()
    os._exit(0)  # threads of other packages would wait for each other


def _out_of_memory(found: Result) -> bool:
    return found.outcome in ("crash", "row") and ("can't allocate memory" in found.message or "MemoryError" in found.message)


def _limit(limits: Limits) -> None:
    """Limit this process, where the system can: its CPU time, and its memory beyond what it has now."""
    try:
        import resource
    except ImportError:  # Windows: the time on the wall is limited all the same
        return
    seconds = int(limits.seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (now + int(limits.memory * GIB),) * 2)
