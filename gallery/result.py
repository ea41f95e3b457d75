"""What was found of a network, and the file in which results are kept."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from .network import Network

# what can be expected, and what can go wrong
GOOD = ("stream", "windows", "refused")
SAID = {
    "stream": "converts",
    "windows": "exact windows",
    "refused": "refused",
    "crash": "crash",
    "wrong": "wrong result",
    "remedy": "its remedy fails",
    "time": "out of time",
    "memory": "out of memory",
    "row": "the row is wrong",
    "skipped": "skipped",
}


@dataclass
class Result:
    """A network's result.

    Attributes:
        name: of the network.
        outcome: a key of :data:`SAID`.
        reason: of a refusal or a failure: the first line; of a skipped network what is missing.
        message: the whole text of it.
        seconds: CPU seconds of the conversion.
        delay: steps before the first output.
        length, every, reuse, recomputed: of exact windows.
        difference: the largest from the module's outputs, relative to the largest of these, in ``dtype``.
        dtype: in which the outputs were compared.
        frames: of the clip on which they were.
        step: seconds of a step, the mean over a period of outputs.
        window: seconds of the module on its window.
        ratio: how much faster steps are than recomputing a window for each output.
        compiled: the same of the compiled program and the compiled module.
        commit: of the library.
    """

    name: str
    outcome: str = "row"
    reason: str = ""
    message: str = ""
    seconds: float | None = None
    delay: int | None = None
    length: int | None = None
    every: int | None = None
    reuse: float | None = None
    recomputed: bool | None = None
    difference: float | None = None
    dtype: str = ""
    frames: int | None = None
    step: float | None = None
    window: float | None = None
    ratio: float | None = None
    compiled: float | None = None
    commit: str = ""

    def changed(self, network: Network) -> bool:
        """Whether the result is another than the table expects: with a gap, the expected one is. What was skipped says nothing."""
        if network.gap:
            return self.outcome not in {"skipped", *GOOD} - {network.expected}
        return self.outcome not in ("skipped", network.expected)


class Results:
    """A file with a line of JSON for each result; the last of a network counts.

    Args:
        path: of the file. It need not exist.
    """

    def __init__(self, path: Path):
        self.path = path
        self.found: dict[str, Result] = {}
        known = {field.name for field in fields(Result)}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = {k: v for k, v in json.loads(line).items() if k in known}
                self.found[entry["name"]] = Result(**entry)

    def add(self, result: Result) -> None:
        """Keep a result, at once."""
        self.found[result.name] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")

    def missing(self, networks: Iterable[Network]) -> list[Network]:
        """Those that have no result, or were skipped."""
        return [n for n in networks if n.name not in self.found or self.found[n.name].outcome == "skipped"]
