"""The rules of a stream for frames that are missing, late or between the steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal, TypeAlias, TypedDict, get_args

from torch import Tensor

Gaps: TypeAlias = Literal["error", "hold", "zero", "value", "interpolate", "reset"]
Number: TypeAlias = "int | float | Fraction"
GAPS: tuple[str, ...] = get_args(Gaps)
APART = 1.5  # two frames that are further apart than so many of the source's frames have missing frames between them


class Rules(TypedDict, total=False):
    """Arguments of a :class:`Policy`, for calls that take some of them."""

    gaps: Gaps
    rate: float | None
    source_rate: float | None
    lateness: float
    jitter: float
    reset_after: float | None
    value: Tensor | float | None


@dataclass(frozen=True)
class Policy:
    """The rules of one stream. The arguments are those of :class:`~continual.Stream`.

    Raises:
        ValueError: arguments that contradict each other.
    """

    gaps: Gaps = "error"
    rate: float | None = None
    source_rate: float | None = None
    lateness: float = 0.0
    jitter: float = 0.02
    reset_after: float | None = None
    value: Tensor | float | None = None

    def __post_init__(self) -> None:
        if self.gaps not in GAPS:
            raise ValueError(f"Stream: gaps is one of {', '.join(map(repr, GAPS))}, not {self.gaps!r}")
        for name in ("rate", "source_rate", "reset_after"):
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf):
                raise ValueError(f"Stream: {name} is above 0, got {value!r}")
        if self.source_rate is not None and self.rate is None:
            raise ValueError("Stream: source_rate is the rate of the frames, which needs rate, that of the network's steps")
        if not 0 <= self.lateness < math.inf:
            raise ValueError(f"Stream: lateness is 0 or more, got {self.lateness!r}")
        if not 0 <= self.jitter <= 0.5:
            raise ValueError(f"Stream: jitter is a share of a step from 0 to 0.5, got {self.jitter!r}")
        if (self.value is None) == (self.gaps == "value"):
            wrong = "gaps='value' needs value=…" if self.value is None else f"value=… is for gaps='value', not gaps={self.gaps!r}"
            raise ValueError(f"Stream: {wrong}")

    @cached_property
    def steps_per_second(self) -> float:
        """The rate of the network; without one, a step is the unit of time."""
        return 1.0 if self.rate is None else float(self.rate)

    @cached_property
    def spacing(self) -> int | Fraction:
        """Steps from one frame of the source to the next."""
        if self.source_rate is None:
            return 1
        found = Fraction(self.steps_per_second) / Fraction(self.source_rate)
        return found.numerator if found.denominator == 1 else found

    @cached_property
    def patience(self) -> float:
        """Steps that missing frames are waited for."""
        return float(self.lateness * self.steps_per_second)

    @cached_property
    def longest(self) -> float:
        """The longest distance of two frames, in steps, without a restart."""
        return math.inf if self.reset_after is None else float(self.reset_after * self.steps_per_second)
