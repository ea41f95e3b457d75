"""What `nn.MultiheadAttention` makes of bands and of windows. No tests are in this file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.reference import Reference

EMBED, HEADS = 8, 2


def randomised(module: Any) -> Any:
    """Weights and biases none of which is zero."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.eval()


class AttentionReference(Reference):
    """``nn.MultiheadAttention`` on clips ``(B, E, T)``."""

    def __init__(self, sequence_len: int, ahead: int = 0, alibi: bool = False, **options: Any):
        super().__init__(randomised(nn.MultiheadAttention(EMBED, HEADS, batch_first=True, **options)))
        self.length, self.ahead, self.alibi = sequence_len, ahead, alibi

    def run(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.inner[0](*(t.transpose(1, 2) for t in (query, key, value)), attn_mask=mask)[0].transpose(1, 2)


class Banded(AttentionReference):
    """Every token attends to a band."""

    def forward(self, x: Any) -> Tensor:
        query, key, value = x if isinstance(x, list) else (x, x, x)
        steps = torch.arange(query.shape[2])
        later = steps - steps.unsqueeze(1)
        hidden = (later > self.ahead) | (later <= self.ahead - self.length)
        if not self.alibi:
            return self.run(query, key, value, hidden)
        slopes = torch.tensor([2.0**-4, 2.0**-8], dtype=query.dtype).view(-1, 1, 1)  # of two heads
        scores = (-slopes * later.abs()).masked_fill(hidden, -torch.inf)
        return self.run(query, key, value, scores.repeat(query.shape[0], 1, 1))


class LastOfWindow(AttentionReference):
    """The token ``ahead`` from the end of every window attends to all of it."""

    def forward(self, x: Any) -> Tensor:
        parts = x if isinstance(x, list) else [x] * 3
        windows = [[t[:, :, j : j + self.length] for t in parts] for j in range(parts[0].shape[2] - self.length + 1)]
        if not windows:
            raise ValueError("shorter than a window")
        return torch.stack([self.run(*w)[:, :, self.length - 1 - self.ahead] for w in windows], 2)
