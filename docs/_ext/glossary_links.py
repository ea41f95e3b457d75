"""The first use of a term on a page is a link to the glossary, and shows the meaning under the pointer. Pages need no marks for it.

Headings, code, links, and the heads of tables have none. A term that no page uses is a warning, so that the glossary stays true.
"""

from __future__ import annotations

from pathlib import Path

import terms
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging

PAGE = "glossary"
NOWHERE = (
    nodes.title,
    nodes.rubric,
    nodes.thead,
    nodes.literal,
    nodes.FixedTextElement,
    nodes.reference,
    nodes.Invisible,
    nodes.raw,
    nodes.image,
    addnodes.desc_signature,
    addnodes.literal_strong,
    addnodes.literal_emphasis,
    addnodes.index,
    addnodes.toctree,
)


class Links:
    """The terms of a site, and those that its pages have used so far."""

    def __init__(self) -> None:
        self.terms: dict[str, terms.Term] = {}
        self.used: set[str] = set()
        self.places: set[str] = set()

    def read(self, app: Sphinx) -> None:
        self.terms = terms.linked((Path(app.srcdir) / f"{PAGE}.md").read_text(encoding="utf-8"))
        self.pattern = terms.pattern(self.terms)

    def link(self, app: Sphinx, doctree: nodes.document, page: str) -> None:
        """Put the links into a page that is about to be written."""
        if page == PAGE:
            return
        seen: set[str] = set()
        for text in [node for node in doctree.findall(nodes.Text) if not inside(node, NOWHERE) and not names_a_parameter(node)]:
            uses = terms.first_uses(str(text), self.terms, self.pattern, seen)
            if uses:
                text.parent.replace(text, with_links(str(text), uses, app.builder.get_relative_uri(page, PAGE)))
        self.used |= seen

    def mark(self, app: Sphinx, doctree: nodes.document) -> None:
        """Give the terms of the glossary their places."""
        if app.env.docname != PAGE:
            return
        for body in doctree.findall(nodes.tbody):
            for cell in [row[0] for row in body.findall(nodes.row)]:
                if not any(cell.findall(nodes.literal)):  # names of classes stand in code, and are no terms
                    cell["ids"] += [terms.anchor(name) for name in terms.names(cell.astext())]
                    self.places |= set(cell["ids"])

    def check(self, app: Sphinx, error: Exception | None) -> None:
        """Each term is used somewhere, and each link leads to a place."""
        if error is not None:
            return
        log = logging.getLogger(__name__)
        for name, term in sorted(self.terms.items()):
            if name not in self.used:
                log.warning("glossary.md: no page uses the term %r", name)
            if self.places and term.anchor not in self.places:
                log.warning("glossary.md: links lead to the term %r, which has no place on the page", name)


def inside(node: nodes.Node, kinds: tuple[type, ...]) -> bool:
    while node is not None:
        if isinstance(node, kinds):
            return True
        node = node.parent
    return False


def names_a_parameter(text: nodes.Text) -> bool:
    """Whether a text is the name of a parameter, or of several: bold, at the start of an entry of a list of fields."""
    strong = text.parent
    return isinstance(strong, nodes.strong) and strong.parent[0] is strong and inside(strong, (nodes.field,))


def with_links(text: str, uses: list[terms.Use], page: str) -> list[nodes.Node]:
    """A text, cut at the uses of terms."""
    parts: list[nodes.Node] = []
    at = 0
    for start, end, term in uses:
        parts.append(nodes.Text(text[at:start]))
        link = nodes.reference("", text[start:end], internal=True, refuri=f"{page}#{term.anchor}", reftitle=term.meaning)
        link["classes"].append("term")
        parts.append(link)
        at = end
    return [*parts, nodes.Text(text[at:])]


def setup(app: Sphinx) -> dict[str, bool]:
    links = Links()
    app.connect("builder-inited", links.read)
    app.connect("doctree-read", links.mark)
    app.connect("doctree-resolved", links.link)
    app.connect("build-finished", links.check)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
