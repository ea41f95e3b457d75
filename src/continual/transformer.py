"""Transformer encoders: the import path of continual-inference."""

from .containers.transformer_encoder import TransformerEncoder, TransformerEncoderLayerFactory
from .layers.transformer.layers import (
    CausalTransformerEncoderLayer,
    RetroactiveTransformerEncoderLayer,
    SingleOutputTransformerEncoderLayer,
)

__all__ = [
    "CausalTransformerEncoderLayer",
    "RetroactiveTransformerEncoderLayer",
    "SingleOutputTransformerEncoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayerFactory",
]
