"""What a type checker, and so an editor, says of the public calls: ``mypy --strict`` on a user's script, with the package as installed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import continual as co

USER = Path(__file__).parent / "typing" / "user.py"
CACHE = Path(__file__).parents[1] / ".mypy_cache" / "user"
OPEN = {  # what takes any keyword argument, and why
    "CoModule": "a base class, which has the constructor of nn.Module",
    "Identity": "as nn.Identity",
    "Recurrence": "a base class",
    "SlidingWindow": "a base class",
}
CALLABLE = sorted(name for name in co.__all__ if callable(getattr(co, name)))
Output = dict[tuple[str, int], list[str]]  # messages by file and line


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Output:
    """What one run of mypy says of the user's script, and of a call of each public name with a misspelt argument."""
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("typing")
    lines = ["import continual as co", *(f"co.{name}(misspelt=1)" for name in CALLABLE)]
    (folder / "misspelt.py").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(CACHE)]
    done = subprocess.run([*command, str(USER), "misspelt.py"], capture_output=True, text=True, cwd=folder)
    assert not done.stderr, done.stderr
    found: Output = {}
    for file, line, text in re.findall(r"^(.*?):(\d+): (.*)$", done.stdout, re.MULTILINE):
        found.setdefault((Path(file).name, int(line)), []).append(text)
    return found


def shown(message: str) -> str | None:
    """A revealed type without the names of modules; ``Wire`` is a tensor or a (nested) list."""
    if not (revealed := re.fullmatch(r'note: Revealed type is "(.*)"', message)):
        return None
    said = re.sub(r"(?:\w+\.)+(?=\w)", "", revealed[1])
    return re.sub(r"Tensor \| list\[(Tensor \| list\[\.\.\.\]|\.\.\.)\]", "Wire", said)


def test_types_of_public_calls(messages: Output):
    lines = USER.read_text().splitlines()
    expected = {i: line.split("# -> ")[1] for i, line in enumerate(lines, 1) if "reveal_type(" in line}
    found = {i: said for (file, i), texts in messages.items() if file == USER.name for t in texts if (said := shown(t))}
    wrong = [f"{lines[i - 1].strip()}, but it is {found.get(i)}" for i in expected if found.get(i) != expected[i]]
    assert not wrong, "\n".join(wrong)
    known = ("dict[str, Any]",)  # torch's own type of a state dict
    assert [lines[i - 1].strip() for i, said in found.items() if "Any" in said and said not in known] == []


def test_what_is_right_is_no_error_and_what_is_wrong_is_one(messages: Output):
    errors = [f"{i}: {t}" for (file, i), texts in messages.items() if file == USER.name for t in texts if "error" in t]
    assert not errors, "\n".join(errors)
    assert USER.read_text().count("# type: ignore[") >= 20


def test_misspelt_arguments_are_errors(messages: Output):
    accepted = [
        name
        for line, name in enumerate(CALLABLE, 2)
        if not any(re.match('error: .*"misspelt"', text) for text in messages.get(("misspelt.py", line), []))
    ]
    assert accepted == sorted(OPEN)


def test_the_package_says_that_it_is_typed():
    assert (Path(co.__file__).parent / "py.typed").is_file()
