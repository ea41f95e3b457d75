"""The networks as their papers have them, in plain torch, written from the specifications. No tests are in this file.

Names of parameters are the published ones, so that one state dict fits both. Structure and arithmetic are other than the zoo's on
purpose: skeletons in the batch, links by einsum, whole clips.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from continual.models.skeleton_graphs import adjacency

WIDTHS = (64, 64, 64, 64, 128, 128, 128, 256, 256, 256)


class TemporalConv(nn.Module):
    def __init__(self, before: int, width: int, kernel: int, stride: int, padding: int):
        super().__init__()
        self.t_conv = nn.Conv2d(before, width, (kernel, 1), (stride, 1), (padding, 0))
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.t_conv(x))


class StGcn(nn.Module):
    """``(N, C, T, V)``, a skeleton per row."""

    def __init__(self, before: int, width: int, joints: int):
        super().__init__()
        self.A = nn.Parameter(adjacency(joints), requires_grad=False)
        self.graph_attn = nn.Parameter(torch.ones(3, joints, joints))
        self.g_conv = nn.ModuleList([nn.Conv2d(before, width, 1) for _ in range(3)])
        self.gcn_residual = (
            nn.Sequential(nn.Conv2d(before, width, 1), nn.BatchNorm2d(width)) if before != width else nn.Identity()
        )
        self.bn = nn.BatchNorm2d(width)

    def links(self, x: Tensor, i: int) -> Tensor:
        return (self.A[i] * self.graph_attn[i]).expand(x.shape[0], x.shape[2], -1, -1)

    def forward(self, x: Tensor) -> Tensor:
        y = sum(conv(torch.einsum("nctv,ntvw->nctw", x, self.links(x, i))) for i, conv in enumerate(self.g_conv))
        return F.relu(self.bn(y) + self.gcn_residual(x))


class AGcn(StGcn):
    def __init__(self, before: int, width: int, joints: int):
        super().__init__(before, width, joints)
        self.a_conv = nn.ModuleList([nn.Conv2d(before, width // 4, 1) for _ in range(3)])
        self.b_conv = nn.ModuleList([nn.Conv2d(before, width // 4, 1) for _ in range(3)])

    def links(self, x: Tensor, i: int) -> Tensor:
        theta, phi = self.a_conv[i](x), self.b_conv[i](x)
        own = torch.einsum("nctv,nctw->ntvw", theta, phi) / theta.shape[1]
        return self.A[i] + self.graph_attn[i] + own.softmax(2)


class STr(nn.Module):
    def __init__(self, before: int, width: int, joints: int):
        super().__init__()
        self.A = nn.Parameter(adjacency(joints))
        self.same = before == width
        self.data_bn = nn.BatchNorm1d(before * joints)
        self.attention_conv = nn.Module()
        self.attention_conv.qkv_conv = nn.Conv2d(before, width // 4 * 2 + width, 1)
        self.attention_conv.attn_out = nn.Conv2d(width, width, 1)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v = x.shape
        normed = self.data_bn(x.permute(0, 1, 3, 2).reshape(n, c * v, t)).reshape(n, c, v, t).permute(0, 1, 3, 2)
        qkv = self.attention_conv.qkv_conv(normed)
        width = self.attention_conv.attn_out.in_channels
        q, k, values = qkv.split([width // 4, width // 4, width], 1)
        q, k, values = (y.reshape(n, 8, -1, t, v) for y in (q, k, values))
        weights = torch.einsum("nhctv,nhctw->nhtvw", q * (width // 4 / 8) ** -0.5, k).softmax(-1)
        y = torch.einsum("nhtvw,nhctw->nhctv", weights, values).reshape(n, width, t, v)
        y = self.attention_conv.attn_out(y)
        return F.relu(self.bn(y + x if self.same else y))


class Block(nn.Module):
    def __init__(self, gcn: nn.Module, before: int, width: int, index: int, star: bool):
        super().__init__()
        stride, padding = (2 if index in (5, 8) and not star else 1), (0 if star else 4)
        self.index, self.star, self.gcn = index, star, gcn
        self.tcn = TemporalConv(width, width, 9, stride, padding)
        if index in (5, 8):
            self.residual = TemporalConv(before, width, 1, stride, 0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.tcn(self.gcn(x))
        if self.index == 1:
            return F.relu(y)
        around = self.residual(x) if self.index in (5, 8) else x
        return F.relu(y + (around[:, :, 4:-4] if self.star else around))


class Skeleton(nn.Module):
    """``(N, 3, T, V, 2)`` to the logits of every window: ``(N, classes, T')``."""

    def __init__(self, kind: str, star: bool, classes: int, joints: int):
        super().__init__()
        self.star = star
        self.data_bn = nn.BatchNorm1d(2 * joints * 3)
        self.layers = nn.Module()
        before = 3
        for i, width in enumerate(WIDTHS, 1):
            cls = {"st": StGcn, "a": AGcn, "tr": STr if i > 3 else StGcn}[kind]
            self.layers.add_module(f"layer{i}", Block(cls(before, width, joints), before, width, i, star))
            before = width
        self.fc = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        x = self.data_bn(x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t))
        x = x.reshape(n, m, v, c, t).permute(0, 1, 3, 4, 2).reshape(n * m, c, t, v)
        for layer in self.layers.children():
            x = layer(x)
        x = x.mean(3).reshape(n, m, -1, x.shape[2]).mean(1)
        x = F.avg_pool1d(x, 220, 1) if self.star else F.avg_pool1d(x, 75, 1, 19)
        return self.fc(x.transpose(1, 2)).transpose(1, 2)


class Encoder(nn.Module):
    """The newest token of ``nn.TransformerEncoder`` on a window ``(N, F, L)``: logits ``(N, classes)``."""

    def __init__(
        self, classes: int, size: int, width: int, heads: int, hidden: int, positions: int, depth: int, bare: bool = False
    ):
        super().__init__()
        self.embed = nn.Linear(size, width)
        self.positions = nn.Module()
        self.positions.pe = nn.Embedding(positions, width)
        layer = nn.TransformerEncoderLayer(width, heads, hidden, 0.1, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        for part in self.encoder.layers if bare else ():
            part.self_attn.in_proj_bias = None
            part.self_attn.out_proj.bias = None
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor, first: int = 0, mask: Tensor | None = None) -> Tensor:
        """``first``: index in the stream of the window's first token."""
        index = (first + torch.arange(x.shape[2])) % self.positions.pe.num_embeddings
        tokens = self.embed(x.transpose(1, 2)) + self.positions.pe(index)
        for layer in self.encoder.layers:  # the encoder's own call may take a path that ignores missing biases
            tokens = layer(tokens, src_mask=mask)
        return self.head(self.encoder.norm(tokens)).transpose(1, 2)
