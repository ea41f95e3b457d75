"""Random networks of containers, taken apart by their exported graphs, against themselves: two implementations of one thing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, note, settings
from torch import Tensor, nn

import continual as co
from tests.strategies import module_is, networks_and_clips

EXAMPLES = settings().max_examples // 4
# What this library computes with its own kernels on clips too, and not with torch's operations alone.
OWN = (co.Conditional, co.Lambda, co.Unfold, co.LPPool1d, co.MultiheadAttention, co.TransformerEncoder)
OWN += (co.CumulativeGroupNorm, co.CumulativeLayerNorm, co.WindowedGroupNorm, co.Upsample)


def own_code(net: nn.Module) -> bool:
    """Whether a network's clip computation is written with kernels of this library."""
    own = any(getattr(m, "_plain_forward", True) is False or getattr(m, "_native", True) is False for m in net.modules())
    own |= any(type(m) is co.Delay and not m.auto_shrink for m in net.modules())  # on clips it is the identity, and no delay
    named = ("Encoder", "Attention", "Cumulative", "Windowed", "Rotary", "Positional")
    return own or module_is(net, *OWN) or any(word in type(m).__name__ for m in net.modules() for word in named)


class Foreign(nn.Module):
    """Somebody else's module: its forward is all that is known of it."""

    def __init__(self, net: co.CoModule):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.forward(x)


def streamed(net: Any, clip: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor | None, list[int]]:
    """All outputs of a stream, and how many had come after each chunk."""
    net.clean_state()
    found, counts, at = [], [], 0
    while at < clip.shape[2]:
        n = sizes[len(counts) % len(sizes)]
        y = net.forward_steps(clip[:, :, at : at + n])
        at += n
        found += [] if y is None else [y]
        counts.append(sum(f.shape[2] for f in found))
    y = net.forward_steps(clip[:, :, :0], pad_end=True)
    found += [] if y is None else [y]
    return (torch.cat(found, 2) if found else None), counts


@given(case=networks_and_clips(depth=2))
@settings(max_examples=EXAMPLES)
@torch.no_grad()
def test_graph_is_the_network(case: tuple[Any, Tensor]):
    net, clip = case
    net.eval()
    note(f"{net}\nclip {tuple(clip.shape)}")
    assume(not own_code(net) and clip.shape[2] > net.receptive_field)
    try:
        want = net.forward(clip)
    except (co.ShapeMismatch, RuntimeError):
        assume(False)
    twin = co.continual(Foreign(net).eval(), clip)
    assert torch.allclose(twin.forward(clip), want, rtol=0, atol=1e-12 * max(1.0, float(want.abs().max())))
    for sizes in ((1,), (2, 1, 3), (clip.shape[2],)):
        (mine, counts), (theirs, due) = streamed(twin, clip, sizes), streamed(net, clip, sizes)
        assert counts == due, "outputs come at other times"
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            assert mine.shape == theirs.shape
            assert float((mine - theirs).abs().max()) <= 1e-12 * max(1.0, float(theirs.abs().max()))
    assert twin.delay == net.delay


def test_this_test_can_fail():
    net = co.Sequential(co.Conv1d(2, 2, 3, padding=1)).eval()
    clip = torch.randn(2, 2, 9)
    other = co.Sequential(co.Conv1d(2, 2, 3, padding=1)).eval()
    assert not torch.allclose(streamed(net, clip, (1,))[0], streamed(other, clip, (1,))[0])
    with pytest.raises(AssertionError):
        assert streamed(net, clip, (1,))[1] == streamed(co.Delay(3), clip, (1,))[1]
