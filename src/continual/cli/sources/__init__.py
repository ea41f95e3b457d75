"""Where frames come from: files, devices and connections. Each kind is a small file; :func:`opened` chooses."""

from .open import GRAMMAR, check, opened

__all__ = ["GRAMMAR", "check", "opened"]
