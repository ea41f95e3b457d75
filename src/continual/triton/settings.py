"""The checked arguments of a model repository."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

BACKENDS = ("onnxruntime", "python")
BATCHERS = ("oldest", "direct")


@dataclass(frozen=True)
class Settings:
    """The arguments of :func:`continual.triton.write_repository`."""

    name: str = "model"
    backend: str = "onnxruntime"
    batcher: str = "oldest"
    max_streams: int = 64
    max_batch: int | None = None
    preferred_batches: Sequence[int] = ()
    queue_delay: float = 0.0
    idle: float = 60.0
    threads: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"\w[\w.-]*", self.name, re.ASCII):
            self._refuse(
                f"name is the name of a folder and of a model, of letters, digits, '_', '-' and '.', not {self.name!r}. The folder that it "
                f"comes into is `directory`"
            )
        for what, value, choices in (("backend", self.backend, BACKENDS), ("batcher", self.batcher, BATCHERS)):
            if value not in choices:
                self._refuse(f"{what} is one of {', '.join(map(repr, choices))}, not {value!r}")
        for what, number in (("max_streams", self.max_streams), ("max_batch", self.max_batch), ("threads", self.threads)):
            if number is not None and number < 1:
                self._refuse(f"{what} is at least 1, got {number}")
        if self.idle <= 0 or self.queue_delay < 0:
            self._refuse(f"idle and queue_delay are seconds, got idle={self.idle} and queue_delay={self.queue_delay}")
        if self.batcher == "direct":
            self._check_direct()
        elif self.rows > self.max_streams:
            self._refuse(f"max_batch={self.rows} rows are never full with max_streams={self.max_streams}")
        if any(not 1 <= size <= self.rows for size in self.preferred_batches):
            self._refuse(f"preferred_batches are from 1 to {self.rows} rows, got {list(self.preferred_batches)}")

    def _check_direct(self) -> None:
        if self.max_batch not in (None, self.max_streams):
            self._refuse(
                f"with batcher='direct' each stream has a row of its own in every batch, so max_batch is max_streams={self.max_streams}, "
                f"not {self.max_batch}. Leave it out, or take batcher='oldest'"
            )
        if self.preferred_batches:
            self._refuse("preferred_batches are for batcher='oldest'")

    @staticmethod
    def _refuse(message: str) -> None:
        raise ValueError(f"co.triton.write_repository: {message}")

    @property
    def rows(self) -> int:
        """The largest number of rows in a batch."""
        return self.max_streams if self.max_batch is None else self.max_batch

    @property
    def candidates(self) -> int:
        """Sequences that the server admits at a time, with ``"oldest"``; further ones wait.

        The Python backend itself answers streams without a slot, so the server admits twice as many streams as there are slots.
        """
        return self.max_streams * (2 if self.backend == "python" else 1)
