"""What `nn.TransformerEncoder` makes of windows, and of clips with a band for a mask. No tests are in this file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.reference import Reference

EMBED, HEADS = 8, 2


def encoder(layers: int, norm: bool = True, **options: Any) -> nn.TransformerEncoder:
    """A plain encoder with no weight or bias at zero."""
    layer = nn.TransformerEncoderLayer(EMBED, HEADS, 16, **{"batch_first": True, **options})
    made = nn.TransformerEncoder(layer, layers, nn.LayerNorm(EMBED) if norm else None, enable_nested_tensor=False)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4)
    return made.eval()


class EncoderReference(Reference):
    """A plain encoder on clips ``(B, E, T)``, as ``run`` calls it."""

    def __init__(self, inner: Any, run: Any):
        super().__init__(inner)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.inner[0], x)


def plain(inner: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """``torch.nn`` on a clip ``(B, E, T)``, whatever its layout is."""
    first = inner.layers[0] if isinstance(inner, nn.TransformerEncoder) else inner
    lay = (1, 2) if first.self_attn.batch_first else (0, 2)
    if lay == (1, 2):
        return inner(x.transpose(1, 2), mask).transpose(1, 2)
    return inner(x.permute(2, 0, 1), mask).permute(1, 2, 0)


def of_windows(length: int, query: int = -1, mask: Tensor | None = None) -> Any:
    """The query's token of every window."""

    def run(inner: Any, x: Tensor) -> Tensor:
        if x.shape[2] < length:
            raise ValueError("shorter than a window")
        windows = [plain(inner, x[:, :, j : j + length], mask)[:, :, query] for j in range(x.shape[2] - length + 1)]
        return torch.stack(windows, 2)

    return run


def banded(length: int, ahead: int = 0) -> Any:
    """Every token attends to a band."""

    def run(inner: Any, x: Tensor) -> Tensor:
        later = torch.arange(x.shape[2]) - torch.arange(x.shape[2]).unsqueeze(1)
        return plain(inner, x, (later > ahead) | (later <= ahead - length))

    return run
