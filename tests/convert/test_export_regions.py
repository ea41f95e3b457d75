"""Code under autocast, under other modes of gradients and in vmap, within a module's forward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import continual as co


class Region(nn.Module):
    """A linear layer, a table and a function of them on ``(B, T, 6)``."""

    def __init__(self, run: Callable[[Region, Tensor], Tensor]):
        super().__init__()
        torch.manual_seed(3)
        self.mix, self.run = nn.Linear(6, 6), run
        self.register_buffer("rates", torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


@torch.amp.autocast("cuda", enabled=False)
def turned(m: Region, x: Tensor) -> Tensor:
    """Rotary positions as packages write them: the function as a whole is outside autocast."""
    return x * torch.outer(torch.arange(x.shape[1]).to(x.dtype), m.rates).sin() + x


def blocks(m: Region, x: Tensor) -> Tensor:
    with torch.autocast("cuda", enabled=False):
        a, b = m.mix(x).cumsum(1).chunk(2, -1)
    with torch.autocast("cpu", enabled=False), torch.enable_grad():
        y = a * m.mix(x)[..., :3]
    return y - b


def other_device(m: Region, x: Tensor) -> Tensor:
    with torch.autocast("xpu", dtype=torch.bfloat16):
        return m.mix(x).tanh()


def loop(m: Region, x: Tensor) -> Tensor:
    h, ys = x.new_zeros(x.shape[0], 6), []
    for t in range(x.shape[1]):
        with torch.autocast("cpu", enabled=False):
            h = torch.tanh(m.mix(x[:, t]) + h)
        ys.append(h)
    return torch.stack(ys, 1)


def scores(m: Region, x: Tensor) -> Tensor:
    with torch.autocast("cuda", enabled=False):
        y = m.mix(x).relu()
    with torch.autocast("cpu", enabled=False):
        return y.std(1)


def lower(m: Region, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = m.mix(x)
    return y.float().cumsum(1)


def of_rows(m: Region, x: Tensor) -> Tensor:
    return torch.vmap(lambda row, rate: m.mix(row).cumsum(0) * rate, (0, None))(x, m.rates)


def masked(m: Region, x: Tensor) -> Tensor:
    """A mask as transformers write it: a function of two positions."""
    i = torch.arange(x.shape[1])
    mask = torch.vmap(torch.vmap(lambda q, k: (k <= q) & (k > q - 4), (None, 0)), (0, None))(i, i)
    y = m.mix(x)
    return nn.functional.scaled_dot_product_attention(y, x, y, attn_mask=mask)


@pytest.mark.parametrize("run", [of_rows, masked])
def test_vmap_streams(run: Callable[[Region, Tensor], Tensor]):
    module = Region(run).double().eval()
    net = co.continual(module, torch.randn(2, 9, 6).double(), time_dim=1)
    co.verify(net, torch.randn(3, 23, 6).double(), reference=module, effort="quick")


@pytest.mark.parametrize("run", [turned, blocks, loop, pytest.param(other_device, marks=pytest.mark.filterwarnings("ignore"))])
def test_what_autocast_leaves_as_it_is_streams(run: Callable[[Region, Tensor], Tensor]):
    module = Region(run).double().eval()
    net = co.continual(module, torch.randn(2, 9, 6).double(), time_dim=1)
    co.verify(net, torch.randn(3, 23, 6).double(), reference=module, effort="quick")


def test_windows_of_such_code():
    module, clip = Region(scores).double().eval(), torch.randn(2, 14, 6).double()
    net = co.continual(module, clip[:, :9], time_dim=1)
    assert net.windows is not None
    with torch.no_grad():
        want = torch.stack([module(clip[:, i : i + 9]) for i in range(6)], 2)
        assert torch.allclose(net.forward_steps(clip), want, atol=1e-12)


def test_autocast_that_is_on_is_refused_and_the_dtype_itself_is_the_remedy():
    clip = torch.randn(2, 9, 6)
    with pytest.raises(co.NotStreamable, match=r"switches autocast to torch\.bfloat16 on") as refusal:
        co.continual(Region(lower).eval(), clip, time_dim=1)
    assert "module.to(torch.bfloat16)" in str(refusal.value)
    module = Region(lambda m, x: m.mix(x).float().cumsum(1)).eval().to(torch.bfloat16)
    net = co.continual(module, clip.bfloat16(), time_dim=1)
    with torch.no_grad():
        got = net.forward_steps(clip.bfloat16())
        assert torch.allclose(got, module(clip.bfloat16()), atol=1e-3)
        assert torch.allclose(got, Region(lower).eval()(clip), atol=0.1)
