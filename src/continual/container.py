"""Containers: the import path of continual-inference."""

from .containers import *  # noqa: F403
from .containers import __all__  # noqa: F401
