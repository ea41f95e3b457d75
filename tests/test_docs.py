"""The Python examples in the documentation run, page by page, in order; lines are short, and links lead somewhere."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest

import continual
from tests.long import in_full, some

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(p.name for p in DOCS.glob("*.md") if "```python" in p.read_text(encoding="utf-8"))


SLOW = ["heartbeats.md", "keywords.md", "skeletons.md", "sleep.md"]  # train networks: 10 to 20 s each


@pytest.mark.parametrize("page", some(PAGES, [page for page in SLOW if not in_full(page, 8)]))
def test_the_examples_run(page: str):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def test_pages_with_examples_are_found():
    assert "training.md" in PAGES


REFERENCE = sorted(DOCS.glob("reference/*.md"))
ALL = sorted([*DOCS.glob("*.md"), *REFERENCE, *DOCS.parent.glob("*.md"), *DOCS.parent.glob("examples/*/*.md")])
WIDEST = 120  # characters of a line; a row of a table can't be broken


def too_wide(text: str) -> list[int]:
    """The numbers of the lines that are too long."""
    return [i for i, line in enumerate(text.splitlines(), 1) if len(line) > WIDEST and not line.startswith("|")]


@pytest.mark.parametrize("page", ALL, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_lines_are_short(page: Path):
    assert too_wide(page.read_text(encoding="utf-8")) == []


def test_long_lines_are_found():
    assert too_wide(f"{'a' * 120}\n{'b' * 121}\n| {'c' * 200} |\n") == [2]


def anchors(text: str) -> set[str]:
    """The names by which links reach the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_links_lead_somewhere(page: Path):
    bare = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", bare):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


def test_the_classes_of_the_glossary_are_there():
    """Classes are renamed; the page that explains them follows."""
    text = (DOCS / "glossary.md").read_text(encoding="utf-8").partition("## Classes of the code")[2]
    named = re.findall(r"`([A-Z]\w+)`", text)
    code = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS.parent / "src").rglob("*.py"))
    assert len(named) > 15
    assert [name for name in named if not re.search(rf"^class {name}\b", code, re.MULTILINE)] == []


def test_files_and_modules_of_the_package_are_where_the_pages_say():
    package = DOCS.parent / "src" / "continual"
    missing = []
    for page in (page for page in ALL if "examples" not in page.parts):
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py|(?:[a-z_]+/)+)`", text):
            missing += [] if (package / name).exists() or (DOCS.parent / name).exists() else [f"{page.name}: {name}"]
        for name in re.findall(r"`continual((?:\.[a-z_]+)+)", text):
            place = package.joinpath(*name[1:].split("."))
            missing += [] if place.exists() or place.with_suffix(".py").exists() else [f"{page.name}: continual{name}"]
    assert missing == []


def test_every_page_is_in_a_table_of_contents():
    """Pages that lie outside of docs/ are copied into docs/_pages by docs/_ext/outside_pages.py."""
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    entries = set(
        re.findall(r"^(?:[^<\n]+ <)?([\w/]+)>?$", "\n".join(re.findall(r"```{toctree}(.*?)```", index, re.DOTALL)), re.MULTILINE)
    )
    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in [*DOCS.glob("*.md"), *REFERENCE]} - {"index"}
    pages |= {f"_pages/{page.stem.lower()}" for page in DOCS.parent.glob("*.md")}
    pages |= {f"_pages/example_{page.parent.name}" for page in DOCS.parent.glob("examples/*/README.md")}
    assert pages == entries


def test_every_public_name_is_in_the_reference():
    """Once, and each name of the reference is there."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE)
    listed = re.findall(r"^   ([A-Za-z][\w.]*)$", text, re.MULTILINE)
    assert [name for name in listed if listed.count(name) > 1] == []
    public = {name for name in continual.__all__ if not isinstance(getattr(continual, name), ModuleType)}
    public |= {f"{area}.{name}" for area in ("serve", "models", "onnx") for name in getattr(continual, area).__all__}
    assert public - set(listed) == set()
    unknown = [name for name in listed if name not in public and pkgutil.resolve_name(f"continual:{name}") is None]
    assert unknown == []
