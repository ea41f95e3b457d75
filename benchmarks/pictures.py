"""The pictures of the pages that need no measurement, drawn again: ``python -m benchmarks.pictures docs``, ``make pictures``.

Those of times are drawn where the times are measured: ``benchmarks.suite``, ``benchmarks.growth``, ``benchmarks.serving``, and
``benchmarks.streams`` for the pictures of ``co.bench``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNS = {  # name of the picture, and the command of docs/running.md
    "tone": ("nets.py:low_pass", "--clip", "1,1,400", "--source", "tone.wav"),
    "ball": ("nets.py:movement", "--clip", "1,3,16,72,128", "--source", "ball.mp4", "--labels", "thirds.txt", "--top", "3"),
    "ecg": ("nets.py:beats", "--clip", "1,1,400", "--source", "ecg.edf"),
    "room": ("nets.py:trend", "--clip", "1,1,400", "--source", "room.csv"),
}


def _run(*command: str, folder: Path = ROOT, **environment: str) -> None:
    """Run Python, with this checkout first, as the caller's own Python does."""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, *command], cwd=folder, env=os.environ | {"PYTHONPATH": paths} | environment, check=True)


def demo(docs: Path) -> None:
    _run("-m", "continual", "demo", "--out", str(docs / "ecg_stream.png"))


def windows(docs: Path) -> None:
    from .windows import picture

    picture(docs / "windows.png")


def streams(docs: Path) -> None:
    _run("-m", "benchmarks.streams", "--markdown", str(docs / "streams.md"), "--only", "gaps", "--only", "plot")


def running(docs: Path) -> None:
    """Those of ``continual run``, in a folder with the inputs of examples/running."""
    example = ROOT / "examples" / "running"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "nets.py").write_text((example / "nets.py").read_text(encoding="utf-8"), encoding="utf-8")
        _run(str(example / "make_inputs.py"), str(folder), folder=folder, PYTHONPATH=os.pathsep.join([str(ROOT / "src"), name]))
        for run, command in RUNS.items():
            _run("-m", "continual", "run", *command, "--sink", str(docs / f"running_{run}.png"), folder=folder)


def pages(docs: Path) -> None:
    """Those that pages draw by their own code."""
    _run("-m", "benchmarks.pages", str(docs))


PARTS: dict[str, Callable[[Path], None]] = {
    "demo": demo,
    "windows": windows,
    "streams": streams,
    "running": running,
    "pages": pages,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the pictures of all parts, or of some."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description="Draw the pictures of the pages again.")
    parser.add_argument("docs", type=Path, help="the folder of the pages, beside which pictures lie")
    parser.add_argument("--only", choices=list(PARTS), action="append", help="these parts alone")
    asked = parser.parse_args(argv)
    for name in asked.only or PARTS:
        PARTS[name](asked.docs.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
