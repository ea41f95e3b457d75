"""`CoModule`: the import path of continual-inference."""

from .core.module import CoModule, PaddingMode, call_mode

__all__ = ["CoModule", "PaddingMode", "call_mode"]
