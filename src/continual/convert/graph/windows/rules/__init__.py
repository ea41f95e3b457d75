"""What each operation does to positions. Importing this registers all rules."""

from . import (
    convolution,
    joins,
    loops,
    norms,
    pointwise,
    pooling,
    products,
    recurrent,
    reduce,
    registered,
    shape,
    slices,
    spectra,
    upsampling,
)

__all__ = [
    "convolution",
    "joins",
    "loops",
    "norms",
    "pointwise",
    "pooling",
    "products",
    "recurrent",
    "reduce",
    "registered",
    "shape",
    "slices",
    "spectra",
    "upsampling",
]
