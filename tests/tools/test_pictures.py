"""The style of figures: colours that colour-blind people tell apart, and one place for it."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from continual.tools import pictures

ROOT = Path(__file__).parents[2]
DRAWN_ELSEWHERE = {"suite_plot.py"}  # by the same palette; it has markers of its own

# How people without cones of one kind see linear red, green and blue (Viénot, Brettel and Mollon 1999).
BLINDNESS = {
    "protan": ((0.112, 0.888, 0.0), (0.112, 0.888, 0.0), (0.004, -0.004, 1.0)),
    "deutan": ((0.293, 0.707, 0.0), (0.293, 0.707, 0.0), (-0.021, 0.021, 1.0)),
}


def linear(colour: str) -> list[float]:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def lab(rgb: list[float]) -> tuple[float, float, float]:
    """CIELAB, in which distances are as large as they look."""
    matrix = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    xyz = [sum(a * b for a, b in zip(row, rgb, strict=True)) for row in matrix]
    f = [max(0.0, v / white) for v, white in zip(xyz, (0.9505, 1.0, 1.089), strict=True)]
    f = [v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in f]
    return 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])


def nearest(colours: tuple[str, ...], blindness: str) -> float:
    """The least distance of two colours as these people see them."""
    seen = [lab([sum(a * b for a, b in zip(row, linear(c), strict=True)) for row in BLINDNESS[blindness]]) for c in colours]
    return min(sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) ** 0.5 for a, b in itertools.combinations(seen, 2))


@pytest.mark.parametrize("blindness", list(BLINDNESS))
def test_colour_blind_people_tell_lines_apart(blindness: str) -> None:
    assert nearest(pictures.CYCLE[:5], blindness) > 15
    assert nearest((pictures.OURS, pictures.THEIRS), blindness) > 40
    assert nearest((pictures.OURS, pictures.MARK, pictures.INK), blindness) > 30


def test_others_are_found_too_near() -> None:
    assert nearest(("#d62728", "#2ca02c"), "deutan") < 40  # matplotlib's red and green


def test_axes_have_the_style() -> None:
    pytest.importorskip("matplotlib")
    drawn = pictures.figure("a test", 4, 3, "100 $ a $ title")
    above, below = drawn.subplots(2, 1)
    (line,) = above.plot([0, 1])
    assert line.get_color() == pictures.BLUE
    assert not below.spines["top"].get_visible()
    assert not pictures.legend(above, [line], ["a line"]).get_frame_on()


def test_scripts_that_draw_take_the_style() -> None:
    """A colour, a size or a figure of its own is a second style."""
    drawing = [
        path
        for folder in ("src/continual", "benchmarks", "examples", "gallery")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"matplotlib|pictures import|import pictures|\.savefig", path.read_text(encoding="utf-8"))
        and path.name not in {"pictures.py", *DRAWN_ELSEWHERE}
    ]
    assert len(drawing) > 6
    own = re.compile(r"""=\s*["']#[0-9a-f]{6}["']|color=["']|ax[ei]s\.grid\(|fontsize=\d|Figure\(figsize|pyplot|\.savefig\(""")
    found = {str(p.relative_to(ROOT)): own.findall(p.read_text(encoding="utf-8")) for p in drawing}
    assert {name: uses for name, uses in found.items() if uses} == {}
