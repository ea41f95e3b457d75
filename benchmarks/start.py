"""How long `import continual` takes beyond torch's own import."""

from __future__ import annotations

import statistics
import subprocess
import sys

_CODE = "import time, torch; start = time.perf_counter(); import continual; print(time.perf_counter() - start)"


def import_seconds(rounds: int = 7) -> float:
    """The median over fresh processes; the first, which may compile byte code, does not count."""

    def once() -> float:
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", _CODE], capture_output=True, text=True, check=True)
        return float(done.stdout)

    return statistics.median([once() for _ in range(rounds + 1)][1:])
