"""A colon in the first sentence of a property's docstring is a colon.

Napoleon reads what stands before it as the type of the property, in the first line alone. So a line that renders as nothing comes first:
a backslash, which takes away the end of the line after it.
"""

from __future__ import annotations

from sphinx.application import Sphinx


def no_type(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Begin the docstring of an attribute or a property with a line that renders as nothing."""
    if what in ("attribute", "data", "property"):
        lines.insert(0, "\\")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", no_type, priority=100)  # before Napoleon
    return {"parallel_read_safe": True}
