"""Conversion of `torch.nn` modules to streaming modules."""

from .conversion import continual, forward_stepping, register

__all__ = ["continual", "forward_stepping", "register"]
