"""Positional encodings: the import path of continual-inference."""

from .layers.positions.encodings import RecyclingPositionalEncoding, RotaryPositionalEncoding, SinusoidalPositionalEncoding

__all__ = ["RecyclingPositionalEncoding", "RotaryPositionalEncoding", "SinusoidalPositionalEncoding"]
