"""Networks for sequences: temporal convolutions, recurrent layers, attention, skeletons. No tests are in this file."""

from __future__ import annotations

import importlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.convert.cases import Case, network, noise, seeded


def _tcn(frames: int, batch: int, inputs: int, channels: tuple[int, ...], **options: Any) -> Case:
    tcn = importlib.import_module("pytorch_tcn").TCN
    made = seeded(lambda: tcn(inputs, list(channels), kernel_size=3, dilations=[2**i for i in range(len(channels))], **options))
    return Case(made, noise(batch, inputs, frames))


@network
def tcn_causal(frames: int = 41, batch: int = 2, inputs: int = 5, channels: tuple[int, ...] = (8, 8, 6)) -> Case:
    """`pytorch_tcn.TCN` with causal convolutions and weight norm."""
    return _tcn(frames, batch, inputs, channels, causal=True)


@network
def tcn_centered(frames: int = 41, batch: int = 2, inputs: int = 5, channels: tuple[int, ...] = (8, 8, 6)) -> Case:
    """`pytorch_tcn.TCN` that looks ahead, with batch norm, gates and skip connections."""
    return _tcn(frames, batch, inputs, channels, causal=False, use_norm="batch_norm", use_gate=True, use_skip_connections=True)


class LastStep(nn.Module):
    """A GRU on ``(B, T, C)``; the scores of its last step."""

    def __init__(self, inputs: int, hidden: int, classes: int):
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.rnn = nn.GRU(inputs, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.rnn(self.norm(x))
        return self.head(out[:, -1])


@network
def gru_classifier(frames: int = 12, batch: int = 2, inputs: int = 6, hidden: int = 8, classes: int = 4) -> Case:
    """A recurrent classifier of whole clips."""
    module = seeded(lambda: LastStep(inputs, hidden, classes))
    return Case(module, noise(batch, frames, inputs), {"time_dim": 1}, out_time=None, any_length=False)


# ---- a causal transformer -----------------------------------------------------------------------------------------------


class DecoderBlock(nn.Module):
    """Attention to the past and a small network for every token, each behind a norm and around a residual connection."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def attend(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (part.view(b, t, self.heads, c // self.heads).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(b, t, c))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Decoder(nn.Module):
    """Learned positions and blocks on ``(B, T, C)``."""

    def __init__(self, channels: int, heads: int, depth: int, longest: int):
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(1, longest, channels))
        self.blocks = nn.ModuleList(DecoderBlock(channels, heads) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.positions[:, : x.size(1)]
        for block in self.blocks:
            x = block(x)
        return x


@network
def causal_transformer(
    frames: int = 11, batch: int = 2, channels: int = 12, heads: int = 3, depth: int = 2, longest: int = 4096
) -> Case:
    """Causal attention by ``scaled_dot_product_attention``. A stream sees a sliding window of the example's length."""
    module = seeded(lambda: Decoder(channels, heads, depth, longest))
    return Case(module, noise(batch, frames, channels), {"time_dim": 1}, out_time=1, any_length=False)


# ---- skeletons ----------------------------------------------------------------------------------------------------------


def skeleton(joints: int, subsets: int = 3) -> Tensor:
    """Adjacency ``(K, V, V)`` of a tree of joints: themselves, towards the root, and away from it, normalised by degree."""
    toward = torch.zeros(joints, joints)
    for joint in range(1, joints):
        toward[joint, (joint - 1) // 2] = 1.0
    parts = torch.stack([torch.eye(joints), toward, toward.t()])[:subsets]
    return parts / parts.sum(1, keepdim=True).clamp(min=1)


class GraphConv(nn.Module):
    """A convolution over the joints: one of size 1 for each subset of edges, and a sum over neighbours."""

    def __init__(self, inputs: int, outputs: int, subsets: int):
        super().__init__()
        self.subsets = subsets
        self.conv = nn.Conv2d(inputs, outputs * subsets, 1)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        y = self.conv(x)
        n, kc, t, v = y.size()
        y = y.view(n, self.subsets, kc // self.subsets, t, v)
        return torch.einsum("nkctv,kvw->nctw", y, adjacency).contiguous()


class SkeletonBlock(nn.Module):
    """Joints, then time: ``(9, 1)`` over ``(T, V)``; a residual connection that is strided too."""

    def __init__(self, inputs: int, outputs: int, subsets: int, stride: int):
        super().__init__()
        self.space = GraphConv(inputs, outputs, subsets)
        self.time = nn.Sequential(
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, (9, 1), (stride, 1), (4, 0)),
            nn.BatchNorm2d(outputs),
            nn.Dropout(0.5, inplace=True),
        )
        same = inputs == outputs and stride == 1
        shorter = nn.Sequential(nn.Conv2d(inputs, outputs, 1, (stride, 1)), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if same else shorter

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        return F.relu(self.time(self.space(x, adjacency)) + self.shortcut(x))


class SkeletonNet(nn.Module):
    """Joints ``(B, C, T, V)`` to scores of the clip."""

    def __init__(self, inputs: int, channels: int, joints: int, classes: int, stored: bool):
        super().__init__()
        adjacency = skeleton(joints)
        subsets = adjacency.shape[0]
        self.stored = stored
        if stored:
            self.register_buffer("adjacency", adjacency)
        self.norm = nn.BatchNorm1d(inputs * joints)
        sizes = ((inputs, channels, 1), (channels, channels, 1), (channels, 2 * channels, 2))
        self.blocks = nn.ModuleList(SkeletonBlock(i, o, subsets, stride) for i, o, stride in sizes)
        self.importance = nn.Parameter(torch.ones(len(sizes), *adjacency.shape))
        self.head = nn.Conv2d(2 * channels, classes, 1)

    def forward(self, x: Tensor, adjacency: Tensor | None = None) -> Tensor:
        n, c, t, v = x.size()
        y = x.permute(0, 3, 1, 2).contiguous().view(n, v * c, t)
        x = self.norm(y).view(n, v, c, t).permute(0, 2, 3, 1).contiguous()
        edges = self.get_buffer("adjacency") if self.stored else adjacency
        assert edges is not None
        for block, importance in zip(self.blocks, self.importance):
            x = block(x, edges * importance)
        x = F.avg_pool2d(x, x.size()[2:])
        return self.head(x).view(n, -1)


@network
def skeleton_graph(
    frames: int = 20, batch: int = 2, inputs: int = 3, channels: int = 6, joints: int = 7, classes: int = 4
) -> Case:
    """A skeleton network with the adjacency matrix in a buffer."""
    module = seeded(lambda: SkeletonNet(inputs, channels, joints, classes, True))
    return Case(module, noise(batch, inputs, frames, joints), out_time=None, any_length=False)


@network
def skeleton_graph_given(
    frames: int = 20, batch: int = 2, inputs: int = 3, channels: int = 6, joints: int = 7, classes: int = 4
) -> Case:
    """The same, with the adjacency matrix as a second input, which is not a stream."""
    module = seeded(lambda: SkeletonNet(inputs, channels, joints, classes, False))
    clip = (noise(batch, inputs, frames, joints), skeleton(joints))
    return Case(module, clip, {"time_dim": (2, None)}, out_time=None, any_length=False)


# ---- more than one output, more than one stream -------------------------------------------------------------------------


class TwoHeads(nn.Module):
    """What there is at each step and how strong it is: two outputs, of which one would be there earlier."""

    def __init__(self, inputs: int, channels: int):
        super().__init__()
        self.trunk = nn.Conv1d(inputs, channels, 3, padding=1)
        self.label = nn.Conv1d(channels, 4, 5, padding=2)
        self.strength = nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.tanh(self.trunk(x))
        return self.label(y).softmax(1), self.strength(y.transpose(1, 2)).squeeze(-1)


@network
def two_heads(frames: int = 18, batch: int = 2, inputs: int = 3, channels: int = 6) -> Case:
    """Two outputs, ``(B, 4, T)`` and ``(B, T)``."""
    return Case(seeded(lambda: TwoHeads(inputs, channels)), noise(batch, inputs, frames), out_time=(2, 1))


class TwoStreams(nn.Module):
    """Sound ``(B, F, T)`` and picture ``(B, T, C)``, joined frame by frame."""

    def __init__(self, bins: int, channels: int):
        super().__init__()
        self.sound = nn.Conv1d(bins, channels, 5, padding=2)
        self.picture = nn.GRU(channels, channels, batch_first=True)
        self.join = nn.Linear(2 * channels, channels)

    def forward(self, sound: Tensor, picture: Tensor) -> Tensor:
        heard = F.elu(self.sound(sound)).transpose(1, 2)
        seen, _ = self.picture(picture)
        return self.join(torch.cat((heard, seen), dim=-1)) + heard * seen


@network
def two_streams(frames: int = 14, batch: int = 2, bins: int = 5, channels: int = 4) -> Case:
    """Two streams in layouts of their own, with different delays."""
    module = seeded(lambda: TwoStreams(bins, channels))
    clip = (noise(batch, bins, frames), noise(batch, frames, channels, seed=2))
    return Case(module, clip, {"time_dim": (2, 1)}, out_time=1)


class UnluckyNames(nn.Module):
    """Children and parameters that are called what streaming modules have methods and properties for."""

    def __init__(self, channels: int):
        super().__init__()
        self.timing = nn.Conv1d(channels, channels, 3, padding=1)
        self.kind = nn.Linear(channels, channels)
        self.step = nn.Conv1d(channels, channels, 2)
        self.delay = nn.ConstantPad1d((1, 0), 0.5)
        self.name = nn.Parameter(torch.zeros(channels, 1))
        self.register_buffer("stride", torch.linspace(-1, 1, channels).view(-1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.step(self.delay(self.timing(x))) + self.name * self.get_buffer("stride")
        return self.kind(y.transpose(1, 2)).transpose(1, 2)


@network
def unlucky_names(frames: int = 13, batch: int = 2, channels: int = 3) -> Case:
    """A module whose names are ours."""
    return Case(seeded(lambda: UnluckyNames(channels)), noise(batch, channels, frames))
