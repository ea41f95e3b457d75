"""Convolutions: the import path of continual-inference."""

from .layers.conv import Conv1d, Conv2d, Conv3d

__all__ = ["Conv1d", "Conv2d", "Conv3d"]
