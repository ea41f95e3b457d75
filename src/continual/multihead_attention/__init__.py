"""Attention layers: the import path of continual-inference."""

from ..layers.attention.multihead import MultiheadAttention, RetroactiveMultiheadAttention, SingleOutputMultiheadAttention

__all__ = ["MultiheadAttention", "RetroactiveMultiheadAttention", "SingleOutputMultiheadAttention"]
