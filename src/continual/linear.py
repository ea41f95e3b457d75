"""`Linear`: the import path of continual-inference."""

from .layers.linear import Linear

__all__ = ["Linear"]
