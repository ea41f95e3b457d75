"""Pools: the import path of continual-inference."""

from .layers.pooling import *  # noqa: F403
from .layers.pooling import __all__  # noqa: F401
