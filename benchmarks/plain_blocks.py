"""Frame-wise blocks in plain torch, for a library that has none of them. Run with torch alone, in both libraries' processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """``(B, C, T, H, W)``: channels weighed frame by frame."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv3d(channels, hidden, 1), nn.Conv3d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((3, 4), keepdim=True)))))


class GraphConv(nn.Module):
    """``(B, C, T, M * V)``: three groups of neighbours of each joint."""

    def __init__(self, before: int, width: int, joints: int):
        super().__init__()
        self.graph_attn = nn.Parameter(torch.ones(3, joints, joints))
        self.A = nn.Parameter(torch.ones(3, joints, joints), requires_grad=False)
        self.bn = nn.BatchNorm2d(width)
        self.g_conv = nn.ModuleList([nn.Conv2d(before, width, 1) for _ in range(3)])
        if before != width:
            self.gcn_residual = nn.Sequential(nn.Conv2d(before, width, 1), nn.BatchNorm2d(width))
        self.joints, self.same = joints, before == width

    def forward(self, x: Tensor) -> Tensor:
        links, by_skeleton = self.A * self.graph_attn, x.unflatten(3, (-1, self.joints))
        y = sum(conv((by_skeleton @ links[i]).flatten(3)) for i, conv in enumerate(self.g_conv))
        return torch.relu(self.bn(y) + (x if self.same else self.gcn_residual(x)))


def features(x: Tensor) -> Tensor:
    """``(B, 3, T, V, M)`` to ``(B, M * V * 3, T)``."""
    return x.permute(0, 4, 3, 1, 2).flatten(1, 3)


def joints(x: Tensor) -> Tensor:
    """``(B, M * V * 3, T)`` to ``(B, 3, T, M * V)``."""
    return x.unflatten(1, (-1, 3)).permute(0, 2, 3, 1)


def mean_of_joints(x: Tensor) -> Tensor:
    """``(B, C, T, M * V)`` to ``(B, C, T)``."""
    return x.mean(-1)


class ChannelNorm(nn.LayerNorm):
    """``(B, C, T)``: a norm over channels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)
