"""The store of checkpoints for the replicas of a Ray Serve application: an actor, which holds them by value."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ..core.optional_packages import package
from .store import Checkpoint, MemoryStore

PATIENCE = 60.0  # seconds for an answer of the actor, which may have to start again
NAMESPACE = "continual"


class Keeper(MemoryStore):
    """The checkpoints, in the actor's memory. Objects of a replica would be lost with it; bytes in calls are copies."""

    def put(self, checkpoints: Sequence[Checkpoint]) -> set[str]:
        """As :class:`MemoryStore`. A restarted keeper accepts unknown streams from the replicas that serve them."""
        for c in checkpoints:
            epoch, _, kept = self._streams.get(c.token, (-1, 0.0, []))
            if c.epoch > epoch:
                self._streams[c.token] = c.epoch, time.time(), kept
        return super().put(checkpoints)


class KeeperStore:
    """The store of a replica.

    Args:
        name: of the keeper; it is started if there is none, and stays when the application ends.
    """

    waits = True

    def __init__(self, name: str):
        self._ray = package("ray", "ray", "co.serve.ray_app")
        options = {"name": name, "namespace": NAMESPACE, "get_if_exists": True, "lifetime": "detached"}
        # Calls that fail because a keeper dies are repeated with the next one.
        self._keeper = self._ray.remote(Keeper).options(**options, num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()

    def _call(self, method: str, *args: Any) -> Any:
        return self._ray.get(getattr(self._keeper, method).remote(*args), timeout=PATIENCE)

    def create(self, tokens: Sequence[str], model: str) -> None:
        """As of a store."""
        self._call("create", list(tokens), model)

    def put(self, checkpoints: Sequence[Checkpoint]) -> set[str]:
        """As of a store: all rows in one call."""
        found: set[str] = self._call("put", list(checkpoints))
        return found

    def get(self, token: str) -> list[Checkpoint]:
        """As of a store."""
        found: list[Checkpoint] = self._call("get", token)
        return found

    def claim(self, token: str, next: int) -> int:
        """As of a store."""
        return int(self._call("claim", token, next))

    def drop(self, tokens: Sequence[str]) -> None:
        """As of a store."""
        self._call("drop", list(tokens))

    def expire(self, seconds: float, open: Sequence[str]) -> int:
        """As of a store."""
        return int(self._call("expire", seconds, list(open)))

    def close(self) -> None:
        """The keeper stays: other replicas use it."""
