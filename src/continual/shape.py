"""`Reshape`: the import path of continual-inference."""

from .layers.shape import Reshape

__all__ = ["Reshape"]
