"""Explanations to draw."""

from __future__ import annotations

from fractions import Fraction

from continual.tools.explanation import Explanation, Refusal, Row

ONE, HALF = Fraction(1), Fraction(1, 2)


def net(**more: object) -> Explanation:
    rows = (
        Row("stem.conv", "Conv1d k5 s2 p2", (-1,), (0,), HALF, 5, 2, 1600, source="net.py:7  x = self.stem(x)"),
        Row("stem.norm", "BatchNorm1d", (0,), (0,), HALF, 5, 2, 0),
        Row("stem.act", "ReLU", (1,), (0,), HALF, 5, 2, 0),
        Row("body", "Conv1d k7 p3", (2,), (0,), HALF, 17, 8, 3200),
        Row("add", "add", (3, 2), (0, 3), HALF, 17, 8, 480, note="its shortcut waits"),
        Row("flat", "flatten", (4,), (0,), HALF, 17, 8, 0),
    )
    given: dict = {"notes": ("random weights",), "inputs": ("x (2, 3, T)",), **more}
    return Explanation("Net", rows, (5,), **given)


NET = net()
REFUSED = net(
    refusals=(
        Refusal("body", "Conv1d k7 p3", "net.py:9  self.body(x)", "it pads in circles.", 'padding_mode="zeros"'),
        Refusal("flip", "flip 2", "", "the last frame comes first.", "leave it out"),
    )
)


def of_text(name: str) -> Explanation:
    """Everything that can hold a text holds this one."""
    row = Row(name, name, (-1,), (0,), ONE, 1, 0, 0, source=name, note=name)
    return Explanation(name, (row,), (0,), (name,), (Refusal(name, name, name, name, name),), (name,))
