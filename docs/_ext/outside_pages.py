"""Pages that lie outside of docs/ belong to the site too: the README, the changelog, the examples.

They are copied into docs/_pages/. In every page a relative link that leads out of docs/ is turned to the copy of its target. A link to a
folder that has no page becomes plain text; a link to a file becomes a download.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

LINK = re.compile(r"\[([^\[\]]*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"(^ *```.*?^ *```)", re.DOTALL | re.MULTILINE)


def outside(root: Path) -> dict[Path, Path]:
    """The pages outside of docs/, and the names of their copies in docs/_pages/."""
    pages = {page: f"{page.stem.lower()}.md" for page in root.glob("*.md")}
    pages |= {page: f"example_{page.parent.name}.md" for page in root.glob("examples/*/README.md")}
    return {page: root / "docs" / "_pages" / name for page, name in pages.items()}


def relinked(text: str, page: Path, copy: Path, pages: dict[Path, Path]) -> str:
    """The text of a page, with links for the place of its copy."""

    def turn(link: re.Match[str]) -> str:
        words, target = link.groups()
        name, mark, anchor = target.partition("#")
        if not name or re.match(r"[a-z]+:", target):
            return link[0]
        place = (page.parent / name).resolve()
        place = place / "README.md" if (place / "README.md") in pages else place
        if place.is_dir():
            return words
        return f"[{words}]({os.path.relpath(pages.get(place, place), copy.parent)}{mark}{anchor})"

    parts = FENCE.split(text)
    return "".join(part if i % 2 else LINK.sub(turn, part) for i, part in enumerate(parts))


def copy_pages(app: Sphinx) -> None:
    """Write docs/_pages/, file by file where something changed."""
    pages = outside(Path(app.srcdir).parent)
    for page, copy in pages.items():
        text = relinked(page.read_text(encoding="utf-8"), page, copy, pages)
        copy.parent.mkdir(exist_ok=True)
        if not copy.exists() or copy.read_text(encoding="utf-8") != text:
            copy.write_text(text, encoding="utf-8")


def turn_links(app: Sphinx, docname: str, source: list[str]) -> None:
    """Turn the links of a page of docs/ that lead to pages outside."""
    page = Path(app.env.doc2path(docname))
    pages = outside(Path(app.srcdir).parent)
    if page.suffix == ".md" and page not in pages.values():
        source[0] = relinked(source[0], page, page, pages)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", copy_pages)
    app.connect("source-read", turn_links)
    return {"parallel_read_safe": True}
