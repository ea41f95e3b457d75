"""The metadata of an exported file: names, shapes, timing, versions. The file has them as JSON under the key ``continual``."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.program.frame_schedule import FrameSchedule
from ..errors import ArtefactMismatch
from ..programs.schedule import CallSchedule, OutputCount

KEY, DIGEST = "continual", "continual_digest"  # the file's digest has a key of its own
VERSION = 2
FIRST = 1  # without digests
CALLS, END, VALID, NEW = "state.calls", "end", "valid", "new_"


@dataclass(frozen=True)
class Port:
    """An input, output or state.

    Attributes:
        name: in the file.
        shape: sizes; ``None`` for rows.
        dtype: torch's name, such as ``"float32"``.
        time: the dimension of time; ``None`` if there is none.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    time: int | None = None

    @property
    def batch(self) -> int | None:
        """The dimension of rows."""
        return self.shape.index(None) if None in self.shape else None

    def sized(self, batch: int) -> tuple[int, ...]:
        """The shape for ``batch`` rows."""
        return tuple(batch if n is None else n for n in self.shape)

    def zeros(self, batch: int) -> Tensor:
        """Zeros for ``batch`` rows."""
        return torch.zeros(self.sized(batch), dtype=getattr(torch, self.dtype))

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join('B' if n is None else str(n) for n in self.shape)})"


@dataclass(frozen=True)
class Metadata:
    """The metadata of an exported file.

    Attributes:
        format: ``"onnx"``, ``"pt2"``, ``"executorch"`` or ``"openvino"``.
        network: the network's class.
        inputs, outputs: chunks as ``forward_steps`` takes and returns them, without ``end`` and ``valid``.
        states: tensors that go from call to call; the first one is the number of calls of each row. A stream starts with zeros.
        structure: how outputs are nested: lists and dictionaries of their numbers.
        receptive_field, delay, stride: of the network, in steps.
        chunk: steps per call and row.
        start: the index of the first step of a row's first call, at most 0: ``-start`` steps of that call precede the stream.
        first: the index of the first output of a row's first call; outputs with a negative index are not valid.
        per_call: outputs per call and row.
        totals: the number of outputs of a stream that ends (see :class:`~continual.programs.schedule.OutputCount`).
        flush: whether there is an input ``end``: the number of steps of each row's stream, 0 while it goes on.
        batch: rows per call; ``None``: any number.
        rate: steps per second, if known.
        converted: whether the network has the layout of a converted module.
        unbounded: whether outputs depend on all earlier steps.
        quantised: of an 8-bit network, its ``mode``, the tool (``by``), the ``share`` of 8-bit weights, and the cost: the ``largest``
            difference of an output relative to the largest output, the signal-to-noise ratio ``snr_db``, and the clip that these were
            measured ``on``; ``None`` for other networks.
        weights: the digest of the network's weights; empty in files of version 1.
        format_version, package_version: of the library that wrote the file.
    """

    format: str
    network: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: tuple[Port, ...]
    structure: Any
    receptive_field: int
    delay: int
    stride: int
    chunk: int
    start: int
    first: int
    per_call: int
    totals: OutputCount
    flush: bool
    batch: int | None
    rate: float | None
    converted: bool
    unbounded: bool
    package_version: str
    quantised: dict[str, Any] | None = None
    weights: str = ""
    format_version: int = VERSION

    @property
    def schedule(self) -> CallSchedule:
        """The calls of a stream, and their outputs."""
        return CallSchedule(self.chunk, self.start, FrameSchedule(self.per_call, self.first), self.totals)

    @property
    def input_names(self) -> list[str]:
        """All inputs of a call, in order."""
        return [p.name for p in self.inputs] + [END] * self.flush + [p.name for p in self.states]

    @property
    def output_names(self) -> list[str]:
        """All outputs of a call, in order."""
        return [p.name for p in self.outputs] + [VALID] + [NEW + p.name for p in self.states]

    def to_json(self) -> str:
        """The metadata as text."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(text: str, path: Any) -> Metadata:
        """The metadata of a text.

        Raises:
            ArtefactMismatch: the text has another version, or is damaged.
        """
        try:
            found = json.loads(text)
            version = found.get("format_version")
        except (ValueError, AttributeError) as error:
            raise ArtefactMismatch(f"co.load: the metadata of {str(path)!r} is damaged ({error})") from error
        if version not in (FIRST, VERSION):
            raise ArtefactMismatch(
                f"co.load: {str(path)!r} has format version {version}, written by continual {found.get('package_version', '?')}; this "
                f"library reads versions {FIRST} and {VERSION}. Update the library, or export the network again"
            )
        try:
            if ("weights" in found) == (version == FIRST):
                raise KeyError("weights")
            ports: dict[str, Any] = {key: tuple(_port(p) for p in found.pop(key)) for key in ("inputs", "outputs", "states")}
            totals = found.pop("totals")
            found["totals"] = OutputCount(tuple(totals["table"]), totals["period"], totals["more"])
            return Metadata(**ports, **found)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtefactMismatch(f"co.load: the metadata of {str(path)!r} is damaged ({error!r})") from error


def _port(found: dict[str, Any]) -> Port:
    return Port(found["name"], tuple(found["shape"]), found["dtype"], found["time"])
