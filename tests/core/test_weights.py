"""Weights that change while a stream runs: the next step uses the new ones, whatever a kernel has laid out for itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.models.graph_conv import GraphConv
from tests.contract import assert_equal

LAYERS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "conv 1d": (lambda: co.Conv1d(4, 4, 3, padding=1), ()),
    "dilated": (lambda: co.Conv1d(4, 4, 3, padding=2, dilation=2), ()),
    "depthwise 1d": (lambda: co.Conv1d(4, 4, 3, padding=1, groups=4), ()),
    "time alone 2d": (lambda: co.Conv2d(4, 4, (3, 1), padding=(1, 0)), (5,)),
    "conv 2d": (lambda: co.Conv2d(4, 4, 3, padding=1), (5,)),
    "conv 3d": (lambda: co.Conv3d(4, 4, 3, padding=1), (5, 6)),
    "depthwise 3d": (lambda: co.Conv3d(4, 4, 3, padding=1, groups=4), (5, 6)),
    "depthwise over time": (lambda: co.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0), groups=4), (5, 6)),
    "many channels, single": (lambda: co.Conv3d(8, 4, 3, padding=1), (5, 6)),
    "large images, single": (lambda: co.Conv3d(8, 4, 3, padding=1), (5, 6)),
    "joints": (lambda: GraphConv(8, 4, 18), (18,)),
}


def in_place(net: nn.Module) -> None:
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(-1.5)


def load(net: nn.Module) -> None:
    net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()})


def optimise(net: nn.Module) -> None:
    with torch.enable_grad():
        sum(p.square().sum() for p in net.parameters()).backward()
    torch.optim.SGD(net.parameters(), lr=0.3).step()


def new_data(net: nn.Module) -> None:
    for p in net.parameters():
        p.data = p.data.clone() * 2


def new_parameter(net: nn.Module) -> None:
    for name, p in list(net.named_parameters()):
        path, _, own = name.rpartition(".")
        setattr(net.get_submodule(path), own, nn.Parameter(p.detach() - 1))


CHANGES = {f.__name__: f for f in (in_place, load, optimise, new_data, new_parameter)}


def expected(net: Any, clip: Tensor) -> Tensor:
    """Of the frames alone, so with the new weights throughout; with gradients, for which nothing is laid out."""
    with torch.enable_grad():
        y: Tensor = net.forward(clip)
    return y.detach()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", LAYERS)
def test_the_next_step_uses_the_new_weights(name: str, change: str, monkeypatch: pytest.MonkeyPatch):
    if "large" in name:
        monkeypatch.setattr("continual.layers.conv.LARGE", 1)
    make, space = LAYERS[name]
    dtype = torch.float32 if "single" in name else torch.float64
    net = make().to(dtype).eval()
    clip = torch.randn(2, net.in_channels, 14, *space, dtype=dtype)
    with torch.no_grad():
        for t in range(9):
            net.forward_step(clip[:, :, t])
        before = net.forward_step(clip[:, :, 9], update_state=False)
        CHANGES[change](net)
        after = net.forward_step(clip[:, :, 9])
        window = clip[:, :, : 9 + 1]
        assert not torch.allclose(before, after)
        assert_equal(after, expected(net, window)[:, :, 9 - net.delay])
        assert_equal(net.forward_steps(clip[:, :, 10:], pad_end=True), expected(net, clip)[:, :, 10 - net.delay :])


def test_writing_to_data_is_noticed_when_a_stream_starts():
    """torch's version counter does not see it; the documentation says so."""
    net, clip = co.Conv1d(4, 4, 3, padding=1).double(), torch.randn(2, 4, 9, dtype=torch.float64)
    with torch.no_grad():
        for t in range(5):
            net.forward_step(clip[:, :, t])
        net.weight.data.mul_(2)
        net.clean_state()
        outs = [net.forward_step(clip[:, :, t]) for t in range(9)]
    assert_equal(torch.stack([y for y in outs if y is not None], 2), net(clip)[:, :, :8])
