"""Steps of converted networks run on frames: which slots hold one, and that the results are the chunks'."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co

CONVS = nn.Sequential(
    nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 6, 3, dilation=2), nn.BatchNorm1d(6), nn.GELU()
)


class Residual(nn.Module):
    """Branches that wait for each other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(4, 4, 5, padding=2), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + torch.tanh(self.norm(self.conv(x)))) * torch.sigmoid(x)


class ChannelsLast(nn.Module):
    """Linear maps and norms over the last dimension, with a convolution in between."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.conv, self.b = nn.Linear(4, 6), nn.LayerNorm(6), nn.Conv1d(6, 6, 3, padding=1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C)
        h = F.silu(self.norm(self.a(x)))
        return self.b(F.relu(self.conv(h.transpose(1, 2)).transpose(1, 2)) + h)


class NormOfTime(nn.Module):
    """A norm whose channels are where a frame has others: ``(B, T, C)`` of which the frames are the channels' places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(4, 4, 3, padding=1), nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T)
        h = self.conv(x).unsqueeze(1).expand(-1, 5, -1, -1)  # (B, 5, C, T)
        return F.relu(self.norm(h)).sum(1)


def trained(module: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
            part.running_mean, part.running_var = torch.randn(part.num_features), torch.rand(part.num_features) + 0.5
    return module.double().eval()


@pytest.mark.parametrize(
    "module, shape, time",
    [(CONVS, (2, 4, 31), 2), (Residual(), (2, 4, 31), 2), (ChannelsLast(), (2, 31, 4), 1), (NormOfTime(), (2, 4, 31), 2)],
    ids=["convolutions", "residual", "channels last", "norm of another dimension"],
)
def test_steps_are_the_clip(module: nn.Module, shape: tuple[int, ...], time: int) -> None:
    clip = torch.randn(*shape, dtype=torch.float64)
    net: Any = co.continual(trained(module), clip, time_dim=time)
    with torch.inference_mode():
        found = [y for y in map(net.forward_step, clip.unbind(time)) if y is not None]
    assert len(found) == shape[time] - net.delay
    wanted = module(clip)
    first = wanted.shape[time] - len(found) if net.padding[0] == 0 else 0
    torch.testing.assert_close(torch.stack(found, time), wanted.narrow(time, first, len(found)))


def test_a_chain_of_convolutions_norms_and_activations_holds_frames_throughout() -> None:
    net: Any = co.continual(trained(CONVS), torch.randn(2, 4, 31, dtype=torch.float64))
    made = {slot for i in net._program.instructions for slot in i.outs}
    assert made <= net._program.framed, "no change of layout between operations"


def test_a_copy_steps_by_its_own_weights() -> None:
    clip = torch.randn(2, 4, 31, dtype=torch.float64)
    net: Any = co.continual(trained(CONVS), clip)
    with torch.no_grad():
        net.forward_step(clip[:, :, 0])
        other = copy.deepcopy(net)
        net.clean_state()
        other.clean_state()
        for p in other.parameters():
            p.mul_(0.5)
        ours, theirs = [torch.stack([y for y in map(n.forward_step, clip.unbind(2)) if y is not None], 2) for n in (net, other)]
        torch.testing.assert_close(theirs, other(clip))
    torch.testing.assert_close(ours, net(clip))
    assert not torch.allclose(ours, theirs)
