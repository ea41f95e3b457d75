"""A small network with a head for the whole clip, and what tests do with it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Net(nn.Module):
    """A residual block with a head for the whole clip."""

    def __init__(self, head: bool = True):
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm1d(4)
        self.wide = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 5, padding=2))
        self.head = nn.Linear(4, 2) if head else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu_(self.norm(self.conv(x)))
        y = y + self.wide(y)
        return y if self.head is None else self.head(y.mean(2))


def made(module: nn.Module) -> Any:
    """In eval mode, with statistics and biases of its own."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point():
            with torch.no_grad():
                tensor.uniform_(0.5, 1.5) if "var" in name else tensor.normal_(0, 0.4)
    return module.eval()


def steps(net: Any, clip: Tensor, dim: int = 2) -> list[Any]:
    """The outputs of single steps."""
    net.clean_state()
    return [net.forward_step(clip.select(dim, t)) for t in range(clip.shape[dim])]


CLIP = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(1))
