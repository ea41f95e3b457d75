"""Our ONNX export in runtimes, each at its best: bound to fixed memory, with states that change places or stay inside.

onnxruntime and OpenVINO read the same file, for one row. What they give is compared with the network's own outputs before anything is
timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import continual as co
from continual.export.metadata import KEY, VALID, Metadata, Port
from continual.programs.backends.onnxruntime import bound, opened
from continual.programs.backends.openvino import compiled

Call = Callable[[], Any]


@dataclass(frozen=True)
class Memory:
    """What the calls of a file read and write; the states twice."""

    x: Tensor
    y: Tensor
    valid: Tensor
    states: tuple[list[Tensor], list[Tensor]]

    @staticmethod
    def of(file: Metadata) -> Memory:
        """Zeros: the start of a stream."""
        rows = file.batch or 1
        old, new = ([p.zeros(rows) for p in file.states] for _ in range(2))
        valid = Port(VALID, (None, file.per_call), "bool").zeros(rows)
        return Memory(file.inputs[0].zeros(rows), file.outputs[0].zeros(rows), valid, (old, new))

    def named(self, file: Metadata, turn: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Inputs and outputs by name, of the calls of every other turn."""
        old, new = self.states if turn == 0 else self.states[::-1]
        names = [p.name for p in file.states]
        given = {file.inputs[0].name: self.x, **dict(zip(names, old, strict=True))}
        return given, {
            file.outputs[0].name: self.y,
            VALID: self.valid,
            **{f"new_{n}": t for n, t in zip(names, new, strict=True)},
        }


@dataclass(frozen=True)
class Bound:
    """A file in a runtime: ``call`` makes ``file.chunk`` steps on ``memory``, which has to live as long as it is called."""

    file: Metadata
    memory: Memory
    call: Call

    def outputs(self, clip: Tensor) -> Tensor:
        """The outputs of a clip ``(B, C, T, *S)`` from a cold start, by whole calls."""
        file, own = self.file, self.memory
        before = clip.new_zeros(*clip.shape[:2], -file.start, *clip.shape[3:])
        found = []
        for chunk in torch.cat((before, clip), 2).split(file.chunk, 2):
            if chunk.shape[2] == file.chunk:
                own.x.copy_(chunk)
                self.call()
                found.append(own.y[:, :, own.valid[0]].clone())
        return torch.cat(found, 2)


def written(net: Any, frame: Tensor, path: Path, **options: Any) -> Path:
    """Our export for as many rows as the frame has, of streams that do not end."""
    return co.export(net, frame, path, format="onnx", flush=False, batch=frame.shape[0], **options)


def described(path: Path) -> Metadata:
    """The metadata of a file."""
    import onnx

    entries = {p.key: p.value for p in onnx.load(str(path), load_external_data=False).metadata_props}
    return Metadata.from_json(entries[KEY], path)


def in_onnxruntime(path: Path, threads: int) -> dict[str, Bound]:
    """By IO binding: two bindings take turns, each with the states that the other writes."""
    import onnxruntime

    file = described(path)
    session, own = opened(onnxruntime, path, threads), Memory.of(file)
    pairs = (own.named(file, turn) for turn in (0, 1))
    turns = cycle([bound(session, given.items(), made.items()) for given, made in pairs])
    return {"": Bound(file, own, lambda: session.run_with_iobinding(next(turns)))}


def in_openvino(path: Path, threads: int) -> dict[str, Bound]:
    """With the states as variables of the model, and with two requests that take turns: those of these that OpenVINO compiles."""
    ways, failed = {}, []
    for name, make in {"states inside": _stateful, "two requests": _requests}.items():
        try:
            ways[name] = make(path, threads)
        except RuntimeError as error:  # variables of 8-bit networks: an error in its passes
            failed.append(error)
    if not ways:
        raise failed[0]
    return ways


def _stateful(path: Path, threads: int) -> Bound:
    import openvino as ov
    from openvino._offline_transformations import apply_make_stateful_transformation

    file, model = described(path), ov.Core().read_model(str(path))
    apply_make_stateful_transformation(model, {p.name: f"new_{p.name}" for p in file.states})
    own, request = Memory.of(file), compiled(ov, model, threads).create_infer_request()
    for name, t in ((file.inputs[0].name, own.x), (file.outputs[0].name, own.y), (VALID, own.valid)):
        request.set_tensor(name, ov.Tensor(t.numpy(), shared_memory=True))
    return Bound(file, own, lambda: request.infer(share_outputs=True))


def _requests(path: Path, threads: int) -> Bound:
    import openvino as ov

    file = described(path)
    code, own, requests = compiled(ov, ov.Core().read_model(str(path)), threads), Memory.of(file), []
    for turn in (0, 1):
        request = code.create_infer_request()
        for named in own.named(file, turn):
            for name, t in named.items():
                request.set_tensor(name, ov.Tensor(t.numpy(), shared_memory=True))
        requests.append(request)
    turns = cycle(requests)
    return Bound(file, own, lambda: next(turns).infer(share_outputs=True))
