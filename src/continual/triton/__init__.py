"""Networks as models of NVIDIA's Triton Inference Server."""

from .repository import write_repository

__all__ = ["write_repository"]
