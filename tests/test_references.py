"""Files that documents, docstrings and comments name are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "tests", "benchmarks", "gallery", "examples", "docs")
SUFFIXES = (".py", ".md", ".js", ".html", ".cpp")
# What comes before tells a path of this repository from a part of another one, or of an address.
PATH = re.compile(rf"(?<![\w/.:<{{-])((?:{'|'.join(FOLDERS)})/[\w./-]*\w)")
DOCUMENT = re.compile(r"(?<![\w/.-])([A-Z]{3,}\.md)\b")
LONGEST = 400  # lines of a file of Python
MADE = {"examples/web/assets", "docs/_build", "docs/_pages", "docs/reference/generated"}  # by scripts, and not kept
OTHERS = {"node_modules", "_build", "_pages", "generated"}  # folders with files of others, or made by scripts


def texts() -> list[Path]:
    """All files that people read."""
    found = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.suffix in SUFFIXES and not OTHERS & set(p.parts)]
    return [ROOT / "Makefile", *ROOT.glob(".ci/*"), *ROOT.glob("*.md"), *found]


def named_in(text: str) -> set[str]:
    """Files and folders of this repository that a text names."""
    return {m[1] for pattern in (PATH, DOCUMENT) for m in pattern.finditer(text)}


def test_files_that_are_named_are_there():
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in texts()
        if path != Path(__file__)
        for name in named_in(path.read_text(encoding="utf-8"))
        if not (ROOT / name).exists() and not any(name.startswith(m) for m in MADE)
    }
    assert not missing


def test_names_are_found():
    assert named_in("as in DESIGN.md, tests/no_such.py -x and docs/design.md.") == {
        "DESIGN.md",
        "tests/no_such.py",
        "docs/design.md",
    }
    assert named_in("https://host/docs/a.md, other/tests/b.py") == set()


def test_no_file_of_python_is_long():
    lengths = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files()}
    assert len(lengths) > 400
    assert {str(path): n for path, n in lengths.items() if n > LONGEST} == {}


def python_files() -> list[Path]:
    """The code of the repository, without what scripts put into its folders."""
    found = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")]
    return [ROOT / "conftest.py", *(p for p in found if not {"node_modules", "build"} & set(p.parts))]
