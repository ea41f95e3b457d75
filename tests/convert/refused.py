"""Modules that can't be streamed exactly, and why. No tests are in this file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.convert.cases import noise, seeded

CHANNELS, FRAMES = 4, 12


@dataclass(frozen=True)
class Refused:
    """A module with one fault, in the middle of what can be streamed.

    Attributes:
        fault: makes the part that is at fault; it is the child ``middle.fault`` of :attr:`module`.
        reason: a pattern that the reason has to match, whatever its words.
        line: the code that is to be named, as it stands in this file.
        path: of the module in which it stands.
        remedy: a pattern for what to do.
        clip: the example.
        options: of the conversion.
    """

    fault: Callable[[], nn.Module]
    reason: str
    line: str
    path: str = "middle.fault"
    remedy: str = ""
    clip: Tensor = field(default_factory=lambda: noise(2, CHANNELS, FRAMES))
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def module(self) -> nn.Module:
        """The whole module, in eval mode."""
        return seeded(lambda: Outer(self.fault(), self.clip.shape[1]))


class Middle(nn.Module):
    """One level of nesting, so that paths have parts."""

    def __init__(self, fault: nn.Module):
        super().__init__()
        self.fault = fault

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.fault(x))


class Outer(nn.Module):
    """What can be streamed around what can't."""

    def __init__(self, fault: nn.Module, channels: int):
        super().__init__()
        self.first = nn.Conv1d(channels, channels, 1)
        self.middle = Middle(fault)

    def forward(self, x: Tensor) -> Tensor:
        return self.middle(self.first(x))


# ---- the faults: x is (B, C, T) -----------------------------------------------------------------------------------------


class BothWays(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(CHANNELS, CHANNELS, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.rnn(x.transpose(1, 2))
        return out.transpose(1, 2)


class FullAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(CHANNELS, 3 * CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x.transpose(1, 2)).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


class TorchAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(CHANNELS, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        y, _ = self.attention(x, x, x)
        return y.transpose(1, 2)


class WrittenAttention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(x.transpose(1, 2) @ x, dim=-1)
        return (weights @ x.transpose(1, 2)).transpose(1, 2)


class GroupNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class InstanceNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm1d(CHANNELS, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class TimeLayerNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(FRAMES)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class Flip(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x.flip(2)


class Centre(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(2, keepdim=True)


class CircularConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1, padding_mode="circular")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class CircularPad(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (2, 1), mode="circular")


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return 2 * x
        return -x


class SoftmaxOverTime(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(-1) * x


class Roll(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.roll(x, 1, dims=2) * x


class Sort(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sort(dim=2).values


class RowMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True)


class RowNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(CHANNELS, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class BackwardSum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(2, keepdim=True) - x.cumsum(2)


class TimeMixing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(FRAMES, FRAMES)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(x)


class EveryFrameItsOwn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(FRAMES))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Unfolded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        b, c, t = x.shape
        return x.reshape(b, t, c).transpose(1, 2).contiguous()


class Halves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        early, late = x.chunk(2, dim=2)
        return early + late


WHOLE = r"(?i)clip|last frame|future|end of|has not seen"

REFUSED: dict[str, Refused] = {
    "bidirectional LSTM": Refused(
        BothWays, r"(?i)bidirectional|backward", "self.rnn(x.transpose(1, 2))", "middle.fault.rnn", r"(?i)bidirectional=False"
    ),
    "full attention": Refused(FullAttention, WHOLE, "F.scaled_dot_product_attention(q, k, v)", remedy=r"causal"),
    "nn.MultiheadAttention": Refused(
        TorchAttention, WHOLE, "self.attention(x, x, x)", "middle.fault.attention", r"(?i)causal|window"
    ),
    "attention by matmul": Refused(
        WrittenAttention, r"(?i)time|frames|clip", "weights @ x.transpose(1, 2)", remedy=r"(?i)causal"
    ),
    "GroupNorm over time": Refused(
        GroupNorm, r"(?i)statistics|norm", "self.norm(x)", "middle.fault.norm", r"(?i)BatchNorm|Cumulative|cumulative|calibrate"
    ),
    "InstanceNorm without statistics": Refused(
        InstanceNorm, r"(?i)statistics|norm", "self.norm(x)", "middle.fault.norm", r"(?i)track_running_stats|Cumulative|calibrate"
    ),
    "LayerNorm over time": Refused(
        TimeLayerNorm, r"(?i)time|frames|clip", "self.norm(x)", "middle.fault.norm", r"(?i)channels|Cumulative"
    ),
    "flip": Refused(Flip, r"(?i)flip|reverse|last frame|backward", "x.flip(2)"),
    "x - mean over time": Refused(Centre, r"(?i)mean", "x.mean(2, keepdim=True)", remedy="time_pooling"),
    "circular convolution": Refused(
        CircularConv, r"(?i)circular|other end", "self.conv(x)", "middle.fault.conv", r"(?i)zeros|replicate"
    ),
    "circular padding": Refused(
        CircularPad, r"(?i)circular|other end", 'F.pad(x, (2, 1), mode="circular")', remedy=r"(?i)zeros|replicate"
    ),
    "branch on values": Refused(Branch, r"(?i)values|data", "if x.sum() > 0", "", r"(?i)torch\.where|Conditional"),
    "softmax over time": Refused(SoftmaxOverTime, r"(?i)softmax|time|frames", "x.softmax(-1)"),
    "roll": Refused(Roll, r"(?i)roll|other end|wrap", "torch.roll(x, 1, dims=2)", remedy=r"(?i)pad|cat|slice|shift"),
    "sort": Refused(Sort, r"(?i)sort|order", "x.sort(dim=2)"),
    "mean over the batch": Refused(RowMean, r"(?i)batch|rows", "x.mean(0, keepdim=True)"),
    "BatchNorm without statistics": Refused(
        RowNorm, r"(?i)batch|rows|statistics", "self.norm(x)", "middle.fault.norm", r"(?i)track_running_stats"
    ),
    "sum of what is to come": Refused(BackwardSum, WHOLE, "x.sum(2, keepdim=True)"),
    "linear over time": Refused(TimeMixing, r"(?i)time|frames", "x + self.mix(x)", "middle.fault.mix"),
    "a weight for every frame": Refused(EveryFrameItsOwn, r"(?i)frames|length", "x * self.scale"),
    "reshape that mixes time and channels": Refused(
        Unfolded, r"(?i)time|mixes", "x.reshape(b, t, c)", remedy=r"(?i)permute|transpose"
    ),
    "halves of the clip": Refused(Halves, r"(?i)splits|half|halves|chunk|length", "x.chunk(2, dim=2)"),
}


# ---- several at once ----------------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(x))


class Reverse(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.flip(x, [2])


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2 * CHANNELS, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).sort(-1).values


class ThreeFaults(nn.Module):
    """Three submodules with a fault each, two of them behind others; what is between can be streamed."""

    FAULTS = (("encoder.norm", "self.norm(x)"), ("branches.1", "torch.flip(x, [2])"), ("head", ".sort(-1)"))

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.branches = nn.ModuleList([nn.Conv1d(CHANNELS, CHANNELS, 5, padding=2), Reverse()])
        self.head = Head()

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x)
        return self.head(torch.cat([branch(x) for branch in self.branches], dim=1))
