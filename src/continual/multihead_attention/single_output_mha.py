"""`SingleOutputMultiheadAttention`: the import path of continual-inference."""

from ..layers.attention.multihead import SingleOutputMultiheadAttention

__all__ = ["SingleOutputMultiheadAttention"]
