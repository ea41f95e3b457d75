"""The longest sentences of the pages and of the docstrings of public names. No tests are in this file.

``python -m tests.sentences`` lists them, with the number of their words; ``python -m tests.sentences 30`` those of more than 30 words. A
name in code is one word, whatever is in it. Tables, code and examples have no sentences; an item of a list begins a new one.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import continual as co

ROOT = Path(__file__).parents[1]
LIMIT = 30  # words that a reader takes in at once


class Sentence(NamedTuple):
    """A sentence, how many words it has, and where it stands."""

    words: int
    place: str
    text: str


def pages() -> list[Path]:
    """All pages that people read."""
    return sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("docs/reference/*.md"), *ROOT.glob("*.md"), *ROOT.glob("examples/*/*.md")])


def paragraphs(text: str) -> list[str]:
    """The prose of a text of Markdown or of a docstring: an item of a list is a paragraph of its own."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"^( *)(```|~~~).*?^\1\2", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^ *(\||#|!\[|>>>|\.\.\. |:::).*$", "\n", text, flags=re.MULTILINE)
    text = re.sub(r"^ *([-*]|\d+\.) ", "\n", text, flags=re.MULTILINE)
    return [" ".join(block.split()) for block in re.split(r"\n\s*\n", text) if block.strip()]


def split(paragraph: str) -> list[str]:
    """The sentences of a paragraph, with their marks. Names in code and in emphasis may begin one."""
    whole = re.sub(r"(`+).*?\1", lambda code: code[0].replace(" ", "\0"), paragraph)
    return [sentence.replace("\0", " ") for sentence in re.split(r"(?<=[.!?])[)*]* (?=[A-Z“\"(`*\[])", whole)]


def words(sentence: str) -> int:
    """How many words: code is one, signs by themselves and targets of links are none."""
    bare = re.sub(r"(`+).*?\1", "code", sentence)
    bare = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", bare)
    return sum(any(sign.isalnum() for sign in word) for word in bare.split())


def prose(docstring: str) -> str:
    """A docstring without its example; each argument is a paragraph of its own."""
    text = inspect.cleandoc(docstring)
    text = re.split(r"^(?:Examples?|Source):", text, flags=re.MULTILINE)[0]
    text = re.sub(r"^[A-Z]\w+:$", "", text, flags=re.MULTILINE)
    return re.sub(r"^ {4}(?=\S)", "\n", text, flags=re.MULTILINE)


def docstrings() -> Iterator[tuple[str, str]]:
    """The docstrings of public names and of the methods that users call."""
    areas = {"": co, "serve.": co.serve, "models.": co.models, "onnx.": co.onnx}
    for prefix, area in areas.items():
        for name in area.__all__:
            value = getattr(area, name)
            if not inspect.isroutine(value) and not isinstance(value, type):
                continue
            yield f"co.{prefix}{name}", value.__doc__ or ""
            for inner, method in vars(value).items() if isinstance(value, type) else ():
                if not inner.startswith("_") and (isinstance(method, property | classmethod | staticmethod) or callable(method)):
                    yield f"co.{prefix}{name}.{inner}", inspect.getdoc(getattr(value, inner)) or ""


def sentences() -> list[Sentence]:
    """All sentences, the longest first."""
    texts = [(str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")) for page in pages()]
    texts += [(name, prose(text)) for name, text in docstrings()]
    found = {(sentence, place) for place, text in texts for block in paragraphs(text) for sentence in split(block)}
    return sorted((Sentence(words(sentence), place, sentence) for sentence, place in found), reverse=True)


def main() -> None:
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else None
    for count, place, text in [s for s in sentences() if limit is None or s.words > limit][: None if limit else 20]:
        print(f"{count:3} {place}: {text}")


if __name__ == "__main__":
    main()
