"""Small videos that tests make, and what a network should be given of them, computed another way."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

av = pytest.importorskip("av")


def write(
    path: Path, frames: int, rate: Fraction | int = 30, size: tuple[int, int] = (64, 48), codec: str = "mpeg4", first: int = 0
) -> Path:
    """A video of noise that drifts and flickers, ``size`` wide and high; its time stamps begin at ``first`` frames."""
    wide, high = size
    noise = np.random.default_rng(0).integers(0, 256, (high // 4 + 1, wide // 4 + 1, 3), dtype=np.uint8)
    noise = noise.repeat(4, 0).repeat(4, 1)
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.bit_rate = wide, high, 2_000_000
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        for i in range(frames):
            light = 0.55 + 0.45 * np.sin(i / 3)
            rolled = np.ascontiguousarray((light * np.roll(noise, 5 * i, 1)).astype(np.uint8)[:high, :wide])
            frame = av.VideoFrame.from_ndarray(rolled, format="rgb24")
            frame.pts, frame.time_base = first + i, 1 / Fraction(rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def decoded(path: Path) -> list[np.ndarray]:
    """All frames as ``(H, W, 3)``."""
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def reference(pixels: np.ndarray, size: int, mean: float, std: float) -> Tensor:
    """The middle of an image as ``(3, size, size)``: the resizing written as two matrices of triangular filters."""
    high, wide, _ = pixels.shape
    short = min(high, wide)
    tall, broad = size * high // short, size * wide // short
    resized = np.einsum("yh,hwc,xw->cyx", triangles(high, tall), pixels / 255, triangles(wide, broad), optimize=True)
    top, left = (tall - size) // 2, (broad - size) // 2
    return torch.tensor((resized[:, top : top + size, left : left + size] - mean) / std, dtype=torch.float32)


def triangles(before: int, after: int) -> np.ndarray:
    """The matrix ``(after, before)`` that shrinks or grows a line."""
    scale = before / after
    width = max(scale, 1.0)
    centres = (np.arange(after)[:, None] + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(before)[None] + 0.5 - centres) / width)
    return weights / weights.sum(1, keepdims=True)
