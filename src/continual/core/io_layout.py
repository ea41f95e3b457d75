"""The layout of the inputs and outputs of callers. Inside the library a chunk is ``(B, C, n, *S)`` and a step ``(B, C, *S)``."""

from __future__ import annotations

from typing import Any, cast

from .inputs import time_second
from .state import Wire, rewire
from .step_spec import Inputs


class IOLayout:
    """The layout of the library itself: nothing is changed. Modules with another layout have an object of a subclass."""

    def step_in(self, x: Inputs) -> Wire:
        """A caller's step, as a step ``(B, C, *S)``."""
        return cast(Wire, x)

    def chunk_in(self, x: Inputs) -> Wire:
        """A caller's chunk, as a chunk ``(B, C, n, *S)``."""
        return cast(Wire, x)

    def step_out(self, y: Wire) -> Wire:
        """A step for the caller; of a module that emits bursts, a chunk."""
        return y

    def chunk_out(self, y: Wire) -> Wire:
        """A chunk for the caller."""
        return y

    def step_batch_dim(self, index: int) -> int | None:
        """The batch dimension in the steps of an input; ``None`` for an input without one."""
        return 0

    def chunk_batch_dim(self, index: int) -> int | None:
        """The batch dimension in the chunks of an input; ``None`` for an input without one."""
        return 0

    def output_batch_dim(self, chunk: bool) -> int:
        """The batch dimension in what the caller gets."""
        return 0

    def rows(self, y: Wire, chunk: bool) -> Any:
        """The outputs of some rows, ``(n, C, …)``, a chunk or a step, for the caller and with the batch first."""
        batch, found = self.output_batch_dim(chunk), self.chunk_out(y) if chunk else self.step_out(y)
        return rewire(lambda t: t.movedim(batch, 0), found) if batch else found


class MovedTime(IOLayout):
    """Clips in which time is another dimension than 2. Steps have no time.

    Args:
        dim: the dimension of time.
    """

    def __init__(self, dim: int):
        self.dim = dim

    def chunk_in(self, x: Inputs) -> Wire:
        return rewire(lambda t: time_second(t, self.dim), cast(Wire, x))

    def chunk_out(self, y: Wire) -> Wire:
        return rewire(lambda t: t.movedim(2, self.dim), y)

    def chunk_batch_dim(self, index: int) -> int | None:
        return 1 if self.dim == 0 else 0

    def output_batch_dim(self, chunk: bool) -> int:
        return 1 if chunk and self.dim == 0 else 0


IDENTITY = IOLayout()
