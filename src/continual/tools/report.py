"""The result of `co.verify`: a list of checks that prints as a table."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field

POINTS = {
    1: "clip",
    2: "any chunking",
    3: "no output held back",
    4: "purity",
    5: "snapshots",
    6: "independent rows",
    7: "bounded",
    8: "gradients",
    9: "weights",
    11: "exception safety",
}
_MARKS = {"passed": "ok", "skipped": "--", "failed": "FAIL"}


@dataclass(frozen=True)
class Check:
    """One check of one point of the contract.

    Attributes:
        point: number of the contract's point.
        name: the name of the check.
        outcome: ``"passed"``, ``"skipped"`` or ``"failed"``.
        detail: numbers; for a failure the first counter-example, for a skipped check the reason.
    """

    point: int
    name: str
    outcome: str
    detail: str = ""

    def __str__(self) -> str:
        return f"contract point {self.point} ({POINTS[self.point]}), {self.name}: {self.detail or self.outcome}"


@dataclass
class Report:
    """The checks of :func:`continual.verify`.

    Attributes:
        subject: a description of the module and the clip.
        checks: in the order of the contract.
        notes: changes of the clip, and reductions to save memory.

    Example:
        >>> report = co.verify(co.Conv1d(2, 3, 3, padding=1), torch.randn(2, 2, 12))
        >>> report.passed, report.failures
        (True, [])
        >>> print(report)
        co.verify: Conv1d on a clip (2, 2, 12) float32, tolerance 1e-05: passed
          1  clip                 ...
    """

    subject: str
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> list[Check]:
        """The checks that failed."""
        return [c for c in self.checks if c.outcome == "failed"]

    @property
    def skipped(self) -> list[Check]:
        """The checks that were not applicable, with their reasons."""
        return [c for c in self.checks if c.outcome == "skipped"]

    def __str__(self) -> str:
        title = f"co.verify: {self.subject}: {'passed' if self.passed else f'{len(self.failures)} checks failed'}"
        wide = max((len(c.name) for c in self.checks), default=0)
        lines = [title, *(f"  note: {note}" for note in self.notes)]
        for check in self.checks:
            head = f"  {check.point:<2} {POINTS[check.point]:<20} {check.name:<{wide}}  {_MARKS[check.outcome]:<4}  "
            text = textwrap.wrap(check.detail, max(50, 150 - len(head))) or [""]
            lines += [(head + text[0]).rstrip(), *(" " * len(head) + more for more in text[1:])]
        return "\n".join(lines)
