"""Functions as modules: the import path of continual-inference."""

from .layers.closure import Add, Constant, Identity, Lambda, Multiply, One, Zero

__all__ = ["Add", "Constant", "Identity", "Lambda", "Multiply", "One", "Zero"]
