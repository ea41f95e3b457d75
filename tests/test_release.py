"""What a release says in several places agrees: its version, its date, and the versions of the packages it is tested with."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import continual as co

ROOT = Path(__file__).parents[1]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def newest_release(changelog: str) -> tuple[str, str]:
    """The version and the date of the first section that has a date: one of changes to come may stand above it."""
    found = re.search(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert found, "CHANGELOG.md has no section of a release"
    return found[1], found[2]


def test_the_section_of_changes_to_come_is_no_release():
    assert newest_release("## [Unreleased]\n- x\n## [1.2.3] - 2026-01-02\n## [1.2.2] - 2025-01-02\n") == ("1.2.3", "2026-01-02")


def test_the_version_is_one():
    cited = dict(re.findall(r"^(version|date-released): (.+)$", text("CITATION.cff"), re.MULTILINE))
    assert newest_release(text("CHANGELOG.md")) == (cited["version"], cited["date-released"])
    assert cited["version"] == co.__version__


def test_the_package_takes_its_version_from_the_code():
    settings = tomllib.loads(text("pyproject.toml"))
    path = ROOT / settings["tool"]["hatch"]["version"]["path"]
    assert "version" in settings["project"]["dynamic"]
    assert f'__version__ = "{co.__version__}"' in path.read_text(encoding="utf-8")


def plain(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def extras() -> dict[str, list[str]]:
    """The packages that each extra names, without those of this library."""
    listed = tomllib.loads(text("pyproject.toml"))["project"]["optional-dependencies"]
    names = {extra: [re.split(r"[\[<>=;~ ]", need)[0] for need in needs] for extra, needs in listed.items()}
    return {extra: [plain(name) for name in needs if name != "continual-streams"] for extra, needs in names.items()}


def test_the_support_page_has_the_versions_that_are_tested():
    """Every extra has its place, and every pinned package of one is there with its pin."""
    page = text("docs/support.md")
    rows = {
        extra: row for row in re.findall(r"^\| `.*$", page, re.MULTILINE) for extra in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    pins = {
        plain(name): (name, version) for name, version in re.findall(r"^([\w.-]+)==(\S+)$", text("constraints.txt"), re.MULTILINE)
    }
    assert set(extras()) - set(rows) == set()
    needed = {name for extra, names in extras().items() if extra != "gallery" for name in names}
    stated = {plain(name): version for name, version in re.findall(r"([\w-]+) (\d+(?:\.\d+)+)", "\n".join(rows.values()))}
    assert needed - set(pins) == set(), "constraints.txt pins what is tested"
    assert {name: stated.get(name) for name in needed} == {name: pins[name][1] for name in needed}
