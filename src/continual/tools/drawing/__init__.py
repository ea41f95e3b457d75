"""Explanations as diagrams (text of Graphviz and Mermaid, SVG) and as pages."""

from .diagram import dot, mermaid, svg
from .page import fragment, page

__all__ = ["dot", "fragment", "mermaid", "page", "svg"]
