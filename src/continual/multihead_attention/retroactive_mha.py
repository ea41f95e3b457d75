"""`RetroactiveMultiheadAttention`: the import path of continual-inference."""

from ..layers.attention.multihead import RetroactiveMultiheadAttention

__all__ = ["RetroactiveMultiheadAttention"]
