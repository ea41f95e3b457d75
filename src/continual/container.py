"""Containers: the import path of continual-inference."""

from .containers import *  # noqa: F403
from .containers import __all__ as _containers
from .containers.streams import reduce_concat, reduce_max, reduce_mul, reduce_sum

__all__ = [*_containers, "reduce_concat", "reduce_max", "reduce_mul", "reduce_sum"]
