"""Small networks of most kinds of layers, and programs of them. No tests are in this file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import continual as co

F64 = torch.float64


def residual() -> co.CoModule:
    return co.Sequential(co.Residual(co.Conv1d(3, 3, 3, padding=1)), nn.ReLU(), co.Conv1d(3, 2, 3, dilation=2))


def strided() -> co.CoModule:
    return co.Sequential(co.Conv1d(3, 4, 3, 2, 1), nn.Tanh(), co.AvgPool1d(2, 2), co.Conv1d(4, 2, 3, padding=1))


def unet() -> co.CoModule:
    inner = co.Sequential(co.Conv1d(3, 4, 4, 2, 1), nn.ReLU(), co.ConvTranspose1d(4, 3, 4, 2, 1))
    return co.Sequential(co.BroadcastReduce(co.Identity(), inner, reduce="concat"), co.Conv1d(6, 2, 3, padding=1))


def recurrent() -> co.CoModule:
    return co.Sequential(co.Conv1d(3, 4, 3), co.GRU(4, 4, num_layers=2), co.LSTM(4, 2))


def attention() -> co.CoModule:
    return co.Sequential(
        co.Linear(3, 4, channel_dim=1),
        co.SinusoidalPositionalEncoding(4),
        co.CausalTransformerEncoderLayer(4, 2, 8, sequence_len=5, look_ahead=1),
    )


def up() -> co.CoModule:
    return co.Sequential(co.Conv1d(3, 3, 3, padding=1), co.Upsample(None, 2, "linear"), co.CumulativeMean())


def image() -> co.CoModule:
    return co.Sequential(co.Conv3d(3, 4, 3, padding=1), nn.ReLU(), co.MaxPool3d((2, 2, 2), (2, 2, 2)))


MAKERS: dict[str, Callable[[], co.CoModule]] = {f.__name__: f for f in (residual, strided, unet, recurrent, attention, up, image)}


def made(name: str, dtype: torch.dtype = F64, frames: int = 23, batch: int = 2) -> tuple[Any, Tensor]:
    """A network and a clip."""
    space = (5, 4) if name == "image" else ()
    net = MAKERS[name]().eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.rand_like(p))
    return net.to(dtype), torch.randn(batch, 3, frames, *space, dtype=F64).to(dtype)


def compiled(net: Any, clip: Tensor, chunk: int | None = None) -> Any:
    return co.compile(net, clip[:, :, 0], chunk=chunk, backend="eager")
