"""Words under which the search finds a page: those of a comment below its title, `<!-- search: delay, latency -->`.

They become main entries of the index, which the search ranks above words in the text.
"""

from __future__ import annotations

import re

from sphinx.application import Sphinx

COMMENT = re.compile(r"^<!-- search: (.*?) -->$", re.MULTILINE | re.DOTALL)


def entries(app: Sphinx, docname: str, source: list[str]) -> None:
    """Turn the comment into index entries."""

    def entry(comment: re.Match[str]) -> str:
        words = "".join(f"   ! single: {word.strip()}\n" for word in comment[1].split(","))
        return f"```{{eval-rst}}\n.. index::\n{words}```\n"

    source[0] = COMMENT.sub(entry, source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", entries)
    return {"parallel_read_safe": True}
