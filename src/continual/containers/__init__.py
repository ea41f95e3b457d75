"""Containers: streaming modules that hold others."""

from .base import Container
from .conditional import Conditional
from .parallel import BroadcastReduce, Parallel, Residual
from .sequential import Sequential
from .streams import Broadcast, ParallelDispatch, Reduce

__all__ = [
    "Broadcast", "BroadcastReduce", "Conditional", "Container", "Parallel", "ParallelDispatch", "Reduce", "Residual", "Sequential",
]  # fmt: skip
