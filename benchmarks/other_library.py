"""continual-inference in an environment of its own, timed in turns with ours.

The two libraries share an import name, so this one lives in ``.venv-bench-ci`` and runs as a process that stays alive. The
parent asks it for one block at a time: both see the same minutes of the same machine. It is a black box here: its public
names are called, and that is all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from .workloads import Workload

REPOSITORY = Path(__file__).resolve().parents[1]
ENVIRONMENT = REPOSITORY / ".venv-bench-ci"
PACKAGES = ("torch==2.13.0", "numpy", "continual-inference==1.2.4")
WORKER = Path(__file__).with_name("worker.py")


class CantRun(RuntimeError):
    """The other library can't be installed, can't run a workload, or gets it wrong. The message says which."""


def install(say: Callable[[str], None] = lambda text: None, environment: Path = ENVIRONMENT) -> Path:
    """The interpreter of the other library's environment, which is created at the first call.

    Raises:
        CantRun: if it can't be installed.
    """
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    stamp = environment / ".installed"
    wanted = "\n".join(PACKAGES)
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    say(f"installing {PACKAGES[-1]} into {environment.name} (once)")
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", str(environment)],
        [*pip, "-c", str(REPOSITORY / "constraints.txt"), *PACKAGES],
    ):
        done = subprocess.run(command, capture_output=True, text=True, env=_clean(os.environ))
        if done.returncode:
            raise CantRun("installation failed: " + brief(done.stderr or done.stdout))
    stamp.write_text(wanted)
    return python


def brief(text: str, size: int = 120) -> str:
    """The last line of an error, without the places of files."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    words = [Path(w).name if os.sep in w and Path(w).is_absolute() else w for w in (lines[-1] if lines else "no message").split()]
    line = " ".join(words)
    return line if len(line) <= size else line[: size - 1] + "…"


def _clean(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment in which Python finds its own packages only: PYTHONPATH may lead to ours, of the same name."""
    return {k: v for k, v in environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")}


class OtherLibrary:
    """The process. Use it in a ``with`` block.

    Args:
        python: the interpreter.
        extra: environment variables to add.
    """

    def __init__(self, python: str | Path, extra: Mapping[str, str] | None = None):
        self._files = tempfile.TemporaryDirectory(prefix="benchmarks-")
        self._errors = open(Path(self._files.name, "errors"), "w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [str(python), "-P", str(WORKER)],  # -P: the folder of the script is not searched for packages
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**_clean(os.environ), **(extra or {})},
        )
        try:
            self.version: str = self._ask("version")
        except BaseException:
            self.close()
            raise

    def conditions(self, threads: int) -> None:
        """Threads and denormals as in :func:`benchmarks.timing.conditions`."""
        self._ask("threads", count=threads)

    def build(self, workload: Workload, plain: nn.Module, clip: Tensor) -> Tensor:
        """Build a workload's network there, with the weights of ``constant_rate``, and return its step outputs on a clip.

        Args:
            workload: what to build.
            plain: the ``torch.nn`` module.
            clip: ``(B, C, T, *S)``.

        Returns:
            The outputs, stacked on dim 2.

        Raises:
            CantRun: with the library's own error.
        """
        weights, frames = Path(self._files.name, "weights"), Path(self._files.name, "clip")
        torch.save(plain.state_dict(), weights)
        torch.save(clip, frames)
        self._ask("build", layers=workload.spec(), weights=str(weights), clip=str(frames))
        found: Tensor = torch.load(frames, weights_only=True)
        return found

    def candidate(self, name: str) -> Remote:
        """The network that was built last, to be timed."""
        return Remote(name, self)

    def _ask(self, do: str, **what: Any) -> Any:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"do": do, **what}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._errors.seek(0)
            raise CantRun("its process ended: " + brief(self._errors.read()))
        answer = json.loads(line)
        if "error" in answer:
            raise CantRun(brief(answer["error"]))
        return answer["value"]

    def close(self) -> None:
        """End the process."""
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._errors.close()
        self._files.cleanup()

    def __enter__(self) -> OtherLibrary:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Remote:
    """A candidate that runs over there."""

    def __init__(self, name: str, library: OtherLibrary):
        self.name, self._library = name, library

    def block(self, count: int) -> float:
        """Seconds that ``count`` steps took by its own clock."""
        seconds: float = self._library._ask("block", count=count)
        return seconds
