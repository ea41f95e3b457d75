"""Where outputs go: files, pictures and connections. Each kind is a small file; :func:`opened` chooses."""

from .base import About, Result, Sink
from .open import GRAMMAR, opened, refuse_all

__all__ = ["GRAMMAR", "About", "Result", "Sink", "opened", "refuse_all"]
