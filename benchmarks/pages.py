"""Pictures that pages of the documentation draw themselves: run the Python code of these pages, and keep their pictures.

python -m benchmarks.pages docs [heartbeats.md …]

A page draws into the folder of the environment variable ``PICTURES``, and elsewhere into a temporary one.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

DRAWS = re.compile(r'os\.environ\.get\("PICTURES", \w+\), "([\w.]+)"')


def drawing(folder: Path) -> dict[Path, list[str]]:
    """The pages that draw, and the names of their pictures."""
    found = {page: DRAWS.findall(page.read_text(encoding="utf-8")) for page in sorted(folder.glob("*.md"))}
    return {page: pictures for page, pictures in found.items() if pictures}


def draw(page: Path, folder: Path) -> None:
    """Run the code of a page, block after block, so that its pictures are in the folder."""
    names: dict[str, Any] = {}
    with patch.dict(os.environ, PICTURES=str(folder.resolve())):
        for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            exec(compile(block, page.name, "exec"), names)


def main() -> None:
    """The command."""
    folder, *only = sys.argv[1:]
    for page, pictures in drawing(Path(folder)).items():
        if not only or page.name in only:
            draw(page, Path(folder))
            print(page.name, *pictures)


if __name__ == "__main__":
    main()
