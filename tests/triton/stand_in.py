"""The other end of the stand-in for Triton's onnxruntime backend: it runs the model files of a repository in onnxruntime."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SOURCE = Path(__file__).with_name("stand_in.cc")
TYPES = [
    "invalid",
    "bool",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
]


def library(folder: Path) -> Path:
    """The stand-in, compiled. Skips the test where there is no compiler."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    path = folder / "libtriton_onnxruntime.so"
    subprocess.run([compiler, "-std=c++17", "-O1", "-shared", "-fPIC", "-o", path, SOURCE], check=True)
    return path


class StandIn:
    """Answers the batches of a server.

    Attributes:
        path: of the socket.
        batches: rows of each batch, so far.
        problems: what could not be answered.
    """

    def __init__(self, repository: Path):
        import onnxruntime

        self._sessions = {
            p.parents[1].name: onnxruntime.InferenceSession(str(p), providers=["CPUExecutionProvider"])
            for p in repository.glob("*/1/model.onnx")
        }
        self._folder = tempfile.mkdtemp(prefix="stand-in-")
        self.path, self.batches = f"{self._folder}/socket", list[int]()
        self.problems: list[str] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> StandIn:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # the thread that waits in accept() goes on
        self._listener.close()
        self._thread.join(30)
        shutil.rmtree(self._folder)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            try:
                with connection, connection.makefile("rwb") as stream:
                    self._answer(stream)
            except Exception as problem:  # the request is answered by an error, as the connection ends
                self.problems.append(repr(problem))

    def _answer(self, stream: Any) -> None:
        session = self._sessions[_bytes(stream).decode()]
        asked = [dict(_tensor(stream) for _ in range(_number(stream))) for _ in range(_number(stream))]
        self.batches.append(len(asked))
        names = [o.name for o in session.get_outputs()]
        values = session.run(names, {name: np.concatenate([a[name] for a in asked]) for name in asked[0]})
        for row in range(len(asked)):
            stream.write(struct.pack("<q", len(names)))
            for name, value in zip(names, values, strict=True):
                _put(stream, name, np.ascontiguousarray(value[row : row + 1]))


def _number(stream: Any) -> int:
    return int(struct.unpack("<q", stream.read(8))[0])


def _bytes(stream: Any) -> bytes:
    found: bytes = stream.read(_number(stream))
    return found


def _tensor(stream: Any) -> tuple[str, np.ndarray]:
    name, dtype = _bytes(stream).decode(), TYPES[_number(stream)]
    shape, data = np.frombuffer(_bytes(stream), np.int64), _bytes(stream)
    return name, np.frombuffer(data, dtype).reshape(shape)


def _put(stream: Any, name: str, value: np.ndarray) -> None:
    stream.write(struct.pack("<q", len(name)) + name.encode() + struct.pack("<q", TYPES.index(str(value.dtype))))
    for data in (np.array(value.shape, np.int64).tobytes(), value.tobytes()):
        stream.write(struct.pack("<q", len(data)) + data)
