"""Makes what keywords.html streams: the network of the tutorial docs/keywords.md, trained and exported by the code on that page.

python examples/web/make_keywords.py
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

HERE = Path(__file__).parent
TUTORIAL = HERE.parents[1] / "docs" / "keywords.md"


def make(folder: Path) -> dict[str, Any]:
    """Run the code of the tutorial, which writes ``keywords.onnx`` and ``keywords.json`` to a folder. Returns its variables."""
    blocks = re.findall(r"```python\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    with patch.dict(os.environ, ASSETS=str(folder)):
        for block in blocks:
            exec(compile(block, TUTORIAL.name, "exec"), names)
    return names


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Run the tutorial on key words, and write its network for the page.")
    parser.add_argument("--out", type=Path, default=HERE / "assets", help="folder (default: assets/ beside the page)")
    make(parser.parse_args().out)


if __name__ == "__main__":
    main()
