"""How long `import continual` takes beyond torch's own import."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

_CODE = "import time, torch; start = time.perf_counter(); import continual; print(time.perf_counter() - start)"


def import_seconds(rounds: int = 7) -> float:
    """The median over fresh processes; the first, which compiles byte code as an installation does, does not count."""
    keeping = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def once() -> float:
        command = [sys.executable, "-W", "ignore", "-c", _CODE]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=keeping)
        return float(done.stdout)

    return statistics.median([once() for _ in range(rounds + 1)][1:])
