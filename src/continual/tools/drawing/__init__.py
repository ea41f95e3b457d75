"""Explanations as pictures: the graph as SVG, and a page around it."""

from .page import fragment, page
from .picture import draw

__all__ = ["draw", "fragment", "page"]
