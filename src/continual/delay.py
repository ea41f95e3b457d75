"""`Delay` and `Trim`: the import path of continual-inference."""

from .layers.delay import Delay, Trim

__all__ = ["Delay", "Trim"]
