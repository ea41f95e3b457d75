"""Triton's server, from the wheel of nvidia-pytriton, as a child process."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.triton.environment import Environment

CLIENT = Path(__file__).with_name("client.py")


class Server:
    """A running server with the models of a repository."""

    def __init__(self, environment: Environment, repository: Path, libraries: Sequence[Path] = (), **variables: str):
        """Each of the libraries is a backend more: ``libtriton_<name>.so``."""
        self.environment, self.repository, self.libraries, self.variables = environment, repository, libraries, variables
        self._folder = Path(tempfile.mkdtemp(prefix="triton-"))
        self.http, self.grpc = _free_ports(2)

    def __enter__(self) -> Server:
        packages = self.environment.packages
        assert packages is not None
        wheel, backends = packages / "pytriton" / "tritonserver", self._folder / "backends"
        shutil.copytree(wheel / "backends", backends)
        for library in self.libraries:
            folder = backends / library.stem.removeprefix("libtriton_")
            folder.mkdir()
            shutil.copy(library, folder)
        version = packages.parent.name.removeprefix("python")
        shutil.copy(wheel / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
        variables = (
            os.environ
            | self.variables
            | {
                "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
                "PATH": f"{self.environment.folder / 'bin'}:{os.environ['PATH']}",
                "VIRTUAL_ENV": str(self.environment.folder),
            }
        )
        variables.pop("PYTHONPATH", None)
        options = {
            "model-repository": self.repository,
            "backend-directory": backends,
            "http-address": "127.0.0.1",
            "http-port": self.http,
            "grpc-address": "127.0.0.1",
            "grpc-port": self.grpc,
            "allow-metrics": "false",
            # A name of its own for shared memory: servers of other tests may be running.
            "backend-config": f"python,shm-region-prefix-name=continual-{os.getpid()}-{self.grpc}-",
        }
        command = [str(wheel / "bin" / "tritonserver"), *(f"--{name}={value}" for name, value in options.items())]
        self._log = (self._folder / "log").open("wb")
        self._process = subprocess.Popen(command, env=variables, stdout=self._log, stderr=subprocess.STDOUT)
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/v2/health/ready", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        raise RuntimeError(f"the server did not start:\n{self.log()}")

    def log(self) -> str:
        """What it has printed."""
        return (self._folder / "log").read_text(errors="replace")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def ask(self, model: str, rounds: list[list[dict[str, Any]]]) -> list[dict[str, np.ndarray]]:
        """The answers to rounds of requests, in order; those of a round are sent together.

        A request is ``{"stream": 1, "x": array or arrays, "start": False, "end": False}``.
        """
        arrays: dict[str, np.ndarray] = {}
        plan = []
        for together in rounds:
            plan.append([])
            for request in together:
                x = request["x"] if isinstance(request["x"], list) else [request["x"]]
                names = [f"x{len(arrays) + i}" for i in range(len(x))]
                arrays.update(zip(names, x, strict=True))
                plan[-1].append({"start": False, "end": False} | request | {"x": names})
        asked, answered = self._folder / "asked.npz", self._folder / "answered.npz"
        np.savez(asked, plan=np.array(json.dumps(plan)), **arrays)
        command = [self.environment.python, CLIENT, f"127.0.0.1:{self.grpc}", model, asked, answered]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found: list[dict[str, np.ndarray]] = [{} for together in rounds for _ in together]
        with np.load(answered) as answers:
            for key in answers.files:
                number, _, name = key.partition(".")
                if name:
                    found[int(number)][name] = answers[key]
            self.executions, self.requests = int(answers["executions"]), int(answers["requests"])
        return found


def answers_of(
    server: Server, model: str, sequences: list[list[dict[str, Any]]], late: int = 0
) -> list[list[dict[str, np.ndarray]]]:
    """The answers to sequences whose requests are sent together, each sequence beginning so many rounds after the one before."""
    rows = [[None] * (late * k) + sequence for k, sequence in enumerate(sequences)]
    rounds = [[r for r in together if r is not None] for together in itertools.zip_longest(*rows)]
    found: list[list[dict[str, np.ndarray]]] = [[] for _ in sequences]
    answers = iter(server.ask(model, rounds))
    for together in itertools.zip_longest(*rows):
        for k, request in enumerate(together):
            if request is not None:
                found[k].append(next(answers))
    return found


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


if __name__ == "__main__":  # python -m tests.triton.server ENVIRONMENT REPOSITORY: see a repository load
    with Server(Environment(Path(sys.argv[1])), Path(sys.argv[2])) as server:
        print(server.log())
