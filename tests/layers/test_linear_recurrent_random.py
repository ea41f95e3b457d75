"""Linear-recurrent layers of random sizes, on random chunks, against the formulas of their papers."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

import continual as co
from tests.layers.linear_recurrences import FORMULAS, as_trained

SIZE = st.integers(1, 4)


@st.composite
def layers(draw: Any) -> Any:
    """A layer and its channels."""
    name, heads = draw(st.sampled_from(sorted(FORMULAS))), draw(st.integers(1, 3))
    channels, kernel = heads * draw(SIZE), draw(SIZE)
    if name == "minGRU":
        return co.minGRU(channels, draw(SIZE), bias=draw(st.booleans()))
    if name == "RGLRU":
        return co.RGLRU(channels, num_blocks=heads)
    if name == "S4D":
        return co.S4D(channels, 2 * draw(SIZE), dt_min=draw(st.sampled_from([1e-3, 0.1])), dt_max=1.0)
    if name == "Mamba":
        norm, flags = draw(st.sampled_from([None, 1e-5])), draw(st.tuples(st.booleans(), st.booleans()))
        return co.Mamba(channels, draw(SIZE), kernel, draw(st.sampled_from([1, 2])), draw(SIZE), *flags, norm)
    if name == "Mamba2":
        return co.Mamba2(channels, 2 * heads, draw(SIZE), draw(SIZE), draw(st.sampled_from([1, 2, heads])), kernel)
    if name == "GatedLinearAttention":
        return co.GatedLinearAttention(channels, heads, draw(SIZE), draw(SIZE), draw(SIZE), draw(st.sampled_from([0.5, 16.0])))
    if name == "DeltaNet":
        return co.DeltaNet(channels, heads, draw(SIZE), draw(SIZE), kernel)
    return co.RWKV(channels, draw(SIZE))


@given(
    layer=layers(), sizes=st.lists(st.integers(0, 19), min_size=1, max_size=4), rows=st.integers(1, 3), seed=st.integers(0, 99)
)
def test_sizes_and_chunks(layer: Any, sizes: list[int], rows: int, seed: int):
    torch.manual_seed(seed)
    net, clip = as_trained(layer.double()), torch.randn(rows, layer.channels, 1 + sum(sizes), dtype=torch.float64)
    with torch.no_grad():
        want = FORMULAS[type(net).__name__](net, clip)
        found, at = [net.forward_step(clip[:, :, 0]).unsqueeze(2)], 1
        for size in sizes:
            y = net.forward_steps(clip[:, :, at : at + size])
            assert (y is None) == (size == 0)
            found += [] if y is None else [y]
            at += size
    got = torch.cat(found, 2)
    assert (got - want).abs().max() <= 1e-10 * max(1.0, float(want.abs().max()))
