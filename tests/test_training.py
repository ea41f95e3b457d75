"""Training on streams: truncated back-propagation through time, for as long as one likes."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import nn

import continual as co
from tests.long import by_turns

NETWORKS: dict[str, Any] = {
    "convolutions": lambda: co.Sequential(co.Conv1d(2, 4, 3), nn.ReLU(), co.Residual(co.Conv1d(4, 4, 3, padding=1)), co.MaxPool1d(2, 1)),
    "recurrent": lambda: co.Sequential(co.Conv1d(2, 4, 3), co.LSTM(4, 4, num_layers=2)),
    "attention": lambda: co.Sequential(
        co.Conv1d(2, 4, 1),
        co.SinusoidalPositionalEncoding(4),
        co.CausalTransformerEncoderLayer(4, 2, 8, dropout=0.0, sequence_len=4, look_ahead=1),
        co.SingleOutputMultiheadAttention(4, 2, sequence_len=3, embed_dim_second=True),
    ),
    "U-Net": lambda: co.BroadcastReduce(
        co.Conv1d(2, 4, 1), co.Sequential(co.Conv1d(2, 4, 2, stride=2), co.CumulativeGroupNorm(2, 4), co.ConvTranspose1d(4, 4, 2, stride=2))
    ),
}  # fmt: skip


def live_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())


@pytest.mark.parametrize("name", by_turns(NETWORKS, 3))
def test_a_thousand_online_steps_in_flat_memory(name: str):
    """An update every eighth step, the graph cut after it: as many tensors live at the end as near the start, and it learns."""
    torch.manual_seed(1)
    net = NETWORKS[name]()
    head = nn.Linear(4, 1)
    optimiser = torch.optim.Adam([*net.parameters(), *head.parameters()], lr=0.01)
    signal = torch.stack((torch.sin(torch.arange(1001) * 0.7), torch.cos(torch.arange(1001) * 0.7))).unsqueeze(0)
    losses: list[float] = []
    counts: dict[int, int] = {}
    waiting = torch.zeros(())
    for t in range(1000):
        y = net.forward_step(signal[:, :, t])
        if y is not None:
            newest = y[:, :, -1] if y.ndim == 3 else y
            waiting = waiting + (head(newest) - signal[:, :1, t + 1]).square().mean()
        if t % 8 == 7 and waiting.requires_grad:
            optimiser.zero_grad()
            waiting.backward()
            optimiser.step()
            net.detach_state()
            losses.append(waiting.item())
            waiting = torch.zeros(())
            if t in (199, 999):
                counts[t] = live_tensors()
    assert counts[999] <= counts[199]
    assert sum(losses[-10:]) < 0.5 * sum(losses[1:11])
    assert not any(t.requires_grad for t in net.get_state().tensors.values())


def test_without_the_cut_the_graph_grows():
    """What the test above would see without ``detach_state``: the second backward reaches into the first one's graph."""
    net = NETWORKS["recurrent"]()
    clip = torch.randn(1, 2, 8)
    net.forward_steps(clip).sum().backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        net.forward_steps(clip).sum().backward()
