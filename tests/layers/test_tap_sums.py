"""Convolutions and pools as sums over taps: all taps at once or one after another, each by its own sizes, and both give the clip's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.layers import tap_sums
from continual.layers.pooling import base

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "plain": (nn.Conv1d(3, 5, 4, padding=2), ()),
    "strided": (nn.Conv1d(3, 5, 5, stride=3, padding=1), ()),
    "dilated": (nn.Conv1d(3, 5, 3, dilation=2, bias=False), ()),
    "depthwise": (nn.Conv1d(3, 3, 4, groups=3, padding=1), ()),
    "depthwise beside space": (nn.Conv2d(4, 4, (5, 1), groups=4, padding=(2, 0), dilation=(2, 1)), (3,)),
    "depthwise with a stride": (nn.Conv2d(4, 4, (3, 1), groups=4, stride=(2, 1), bias=False), (3,)),
    "all of space": (nn.Conv2d(4, 6, (1, 7)), (7,)),
    "all of space, in groups": (nn.Conv2d(4, 8, (1, 7), groups=2, bias=False), (7,)),
    "all of an image, in groups": (nn.Conv3d(4, 8, (1, 3, 2), groups=4), (3, 2)),
    "average": (nn.AvgPool1d(5, stride=2, padding=1), ()),
    "maximum": (nn.MaxPool1d(4, stride=1, dilation=2), ()),
}


@pytest.mark.parametrize("limit", [None, 0, 1 << 40], ids=["by size", "none is small", "all are small"])
@pytest.mark.parametrize("name", LAYERS)
def test_steps_and_chunks_are_the_clip(name: str, limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if limit is not None:
        for holder, size in ((tap_sums, "FEW_WINDOWS"), (tap_sums, "SMALL"), (tap_sums, "LARGE"), (base, "SMALL")):
            monkeypatch.setattr(holder, size, limit)
    module, space = LAYERS[name]
    module = module.double().eval()
    net: Any = co.continual(module)
    channels = 3 if isinstance(module, (nn.AvgPool1d, nn.MaxPool1d)) else module.in_channels
    rows = 1 if limit is None else 2  # of one row, light weights go to torch's own convolution
    clip = torch.randn(rows, channels, 29, *space, dtype=torch.float64)
    with torch.inference_mode():
        wanted = module(clip)
        torch.testing.assert_close(_joined([net.forward_steps(clip, pad_end=True)]), wanted)
        for size in (1, 2, 5, 13):
            net.clean_state()
            *chunks, last = clip.split(size, 2)
            found = [net.forward_steps(chunk) for chunk in chunks] + [net.forward_steps(last, pad_end=True)]
            torch.testing.assert_close(_joined(found), wanted)
        net.clean_state()
        steps = [net.forward_step(frame) for frame in clip.unbind(2)]
        found = _joined([None if y is None else y.unsqueeze(2) for y in steps])
        torch.testing.assert_close(found, wanted[:, :, : found.shape[2]])


def _joined(chunks: list[Tensor | None]) -> Tensor:
    return torch.cat([y for y in chunks if y is not None], 2)


def test_few_windows_lie_as_a_convolution_leaves_them() -> None:
    conv: Any = co.Conv1d(3, 5, 3)
    with torch.no_grad():
        conv.forward_steps(torch.randn(1, 3, 4))
        assert conv.forward_steps(torch.randn(1, 3, 4)).is_contiguous()
