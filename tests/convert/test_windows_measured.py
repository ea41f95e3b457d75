"""The networks on which exact windows are measured: each score is the module's own, and windows share what the table says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import continual as co
from benchmarks.window_networks import NETWORKS, Network
from continual.convert.graph.window_check import assembled, window_of
from tests.convert.windows import close
from tests.long import by_turns

NAMES = {network.name: network for network in NETWORKS}
LITTLE = {  # what windows have in common, where that is less than a third
    "patches and a table of positions, 12×1000": 0.05,
    "transformer, table of positions, 6×100": 0.01,
    "TimeSformer-like, 8×32²": 0.1,
    "CNN and GRU with a vector, 6×256": 0.3,
    "ST-GCN-like, 64×25 joints": 0.2,
}


def inputs_of(network: Network, steps: int, given: tuple[Tensor, ...], dims: tuple[int | None, ...]) -> list[Tensor]:
    """Streams of so many steps, and inputs that are none."""
    generator = torch.Generator().manual_seed(3)
    shapes = [[steps if d == t else s for d, s in enumerate(x.shape)] for x, t in zip(given, dims, strict=True)]
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


@pytest.mark.parametrize("name", by_turns(NAMES, 12))
def test_scores_are_the_modules_own(name):
    network = NAMES[name]
    module, clip = network.made(2)
    module, given = module.double(), tuple(x.double() for x in (clip if isinstance(clip, tuple) else (clip,)))
    dims: tuple[Any, ...] = network.dim if isinstance(network.dim, tuple) else (network.dim,)
    window = window_of(module, given if len(given) > 1 else given[0], network.dim, None)
    assert not window.walk.unexpected
    assert window.walk.rows is None
    every, length = window.every(), window.length
    assert window.reuse(every) >= LITTLE.get(name, 1 / 3)
    net = assembled(window, module, window.complete(co.WindowPlan()))
    long = inputs_of(network, length + 2 * every + 1, given, dims)
    with torch.no_grad():
        state = net.init_state(*(x if t is None else x.select(t, 0) for x, t in zip(long, dims, strict=True)))
        scores: Any = net.steps(*long, state)[0]
        for i in range(3):
            own = [x if t is None else x.narrow(t, i * every, length) for x, t in zip(long, dims, strict=True)]
            close(scores[:, :, i], module(*own))
