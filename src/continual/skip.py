"""`Skip`: the import path of continual-inference."""

from .layers.skip import Skip

__all__ = ["Skip"]
