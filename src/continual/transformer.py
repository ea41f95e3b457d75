"""Transformer encoders: the import path of continual-inference."""

from .containers.transformer_encoder import MhaType, TransformerEncoder, TransformerEncoderLayerFactory
from .layers.transformer.layers import (
    CausalTransformerEncoderLayer,
    RetroactiveTransformerEncoderLayer,
    SingleOutputTransformerEncoderLayer,
)

__all__ = [
    "CausalTransformerEncoderLayer",
    "MhaType",
    "RetroactiveTransformerEncoderLayer",
    "SingleOutputTransformerEncoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayerFactory",
]
