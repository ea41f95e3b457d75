"""Networks for the tests of Triton repositories, and what their streams are asked and answered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import continual as co
from continual.export.metadata import Metadata
from continual.export.onnx import read


def conv() -> tuple[co.CoModule, Any]:
    net = co.Sequential(co.Conv1d(2, 8, 5, padding=2), nn.ReLU(), co.Conv1d(8, 3, 3, dilation=2))
    return net.eval(), torch.zeros(1, 2)


def gru() -> tuple[co.CoModule, Any]:
    return co.Sequential(co.GRU(4, 8, 2), co.Linear(8, 2, channel_dim=1)).eval(), torch.zeros(1, 4)


def strided() -> tuple[co.CoModule, Any]:
    net = co.Sequential(
        co.Conv2d(2, 4, 3, padding=1), nn.ReLU(), co.MaxPool2d((3, 2), stride=2, padding=1), co.Conv2d(4, 3, (3, 1))
    )
    return net.eval(), torch.zeros(1, 2, 6)


def attention() -> tuple[co.CoModule, Any]:
    factory = co.TransformerEncoderLayerFactory(d_model=8, nhead=2, dim_feedforward=16, sequence_len=6)
    return co.TransformerEncoder(factory, 1).eval(), torch.zeros(1, 8)


class TwoInputs(nn.Module):
    """Two inputs and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(2, 4, 3, padding=1), nn.Conv1d(3, 4, 5, padding=2)

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        y = self.a(x) + self.b(z).relu()
        return y, y[:, :1] * 2


def two_inputs() -> tuple[co.CoModule, Any]:
    net = co.continual(TwoInputs().eval(), (torch.randn(2, 2, 12), torch.randn(2, 3, 12)))
    return net, [torch.zeros(1, 2), torch.zeros(1, 3)]


def sensor() -> tuple[co.CoModule, Any]:
    """As in docs/triton.md."""
    net = nn.Sequential(nn.Conv1d(2, 8, 5, padding=2), nn.ReLU(), nn.Conv1d(8, 3, 3, padding=1))
    return co.continual(net).eval(), torch.zeros(1, 2)


NETWORKS: dict[str, Callable[[], tuple[co.CoModule, Any]]] = {
    "conv": conv,
    "gru": gru,
    "strided": strided,
    "attention": attention,
    "two_inputs": two_inputs,
}


def made(name: str) -> tuple[co.CoModule, Any]:
    """A network with the same weights in every test."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return sensor() if name == "sensor" else NETWORKS[name]()


def about(folder: Path) -> Metadata:
    """What the file in a model's folder says of itself."""
    return read(folder / "1" / "model.onnx", threads=1)[0]


def clips(step: Any, steps: int, seed: int) -> list[Tensor]:
    """A random clip for each input."""
    parts = list(step) if isinstance(step, list) else [step]
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, *p.shape[1:2], steps, *p.shape[2:], generator=generator) for p in parts]


def chunks(metadata: Metadata, clip: list[Tensor]) -> list[list[np.ndarray]]:
    """The clip as requests bring it: what is from before the stream, then chunks, of which the last one may be shorter."""
    before = [torch.full_like(x[:, :, :1], 7.0).repeat_interleave(-metadata.start, 2) for x in clip]
    whole = [torch.cat([b, x], 2) for b, x in zip(before, clip, strict=True)]
    return [[p.numpy() for p in parts] for parts in zip(*(x.split(metadata.chunk, 2) for x in whole), strict=True)]


def requests(metadata: Metadata, clip: list[Tensor], stream: int, end: bool = True) -> list[dict[str, Any]]:
    """A clip as the requests of a sequence."""
    found: list[dict[str, Any]] = [{"stream": stream, "x": x, "start": False, "end": False} for x in chunks(metadata, clip)]
    found[0]["start"], found[-1]["end"] = True, end
    return found


def outputs(metadata: Metadata, answers: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """The outputs that exist, of all answers of a sequence."""
    found = []
    for port in metadata.outputs:
        parts = [np.compress(a["valid"][0], a[port.name], port.time) for a in answers]
        found.append(np.concatenate(parts, port.time))
    return found


def solo(net: co.CoModule, clip: list[Tensor], end: bool = True) -> list[np.ndarray] | None:
    """The outputs of a stream that runs alone, by ``forward_steps``; ``None`` if there are none."""
    net.clean_state()
    with torch.no_grad():
        y = net.forward_steps(*clip, pad_end=end)
    net.clean_state()
    return None if y is None else [t.numpy() for t in (y if isinstance(y, (list, tuple)) else [y])]


def assert_close(found: list[np.ndarray], wanted: list[np.ndarray] | None, tolerance: float = 1e-5) -> None:
    """Equal up to rounding, and none missing."""
    if wanted is None:
        assert not any(f.size for f in found)
        return
    assert [f.shape for f in found] == [w.shape for w in wanted]
    for f, w in zip(found, wanted, strict=True):
        assert np.abs(f - w).max(initial=0) <= tolerance * max(1.0, np.abs(w).max(initial=0))
