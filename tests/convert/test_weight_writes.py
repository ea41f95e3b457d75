"""Modules that write into their weights in forward through `.data`: bounds and norms that weights are kept to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal


class Bounded(nn.Module):
    """Weights that forward keeps to a norm, and a gain that it keeps above a bound."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gain = nn.Conv1d(3, 4, 3), nn.Parameter(torch.tensor([-0.5, 2.0, 0.1, -1.0])[:, None])

    def forward(self, x: Tensor) -> Tensor:
        self.conv.weight.data = torch.renorm(self.conv.weight.data, p=2, dim=0, maxnorm=0.5)
        self.gain.data.clamp_(min=0.25)
        return self.conv(x) * self.gain


class Pooled(Bounded):
    """The same with a mean over the clip."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean(-1)


@pytest.mark.parametrize("cls", [Bounded, Pooled])
def test_writes_are_part_of_the_network(cls: type[Bounded]) -> None:
    torch.manual_seed(0)
    module = cls().double().eval()
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    x = torch.randn(2, 3, 17, dtype=torch.float64)
    net: Any = co.continual(module, x[:, :, :9])
    assert all(torch.equal(p, before[n]) for n, p in module.named_parameters()), "conversion has changed the module"
    found = net.forward_steps(x)
    want = module(x) if cls is Bounded else torch.stack([module(x[:, :, i : i + 9]) for i in range(9)], 2)
    assert_equal(found, want.detach(), "outputs")
    assert not torch.equal(module.gain, before["gain"]), "the module itself does write"


class Unfollowed(Bounded):
    """The value of a frame decides."""

    def forward(self, x: Tensor) -> Tensor:
        self.gain.data = self.gain * 2
        return self.conv(x) if x[0, 0, 0] > 0 else self.conv(x) * self.gain


def test_a_refused_conversion_leaves_the_weights() -> None:
    module = Unfollowed().eval()
    before, place = module.gain.detach().clone(), module.gain.data_ptr()
    with pytest.raises(co.NotStreamable, match="depends on"):
        co.continual(module, torch.randn(2, 3, 9))
    assert torch.equal(module.gain, before)
    assert module.gain.data_ptr() == place
