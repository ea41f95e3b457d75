"""Attention in compiled programs: which becomes the operation of the kernel, and what it gives."""

from __future__ import annotations

import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from continual.layers.native import attention
from continual.programs.backends.attentions import use_attention
from tests.long import one_in

pytestmark = pytest.mark.skipif(attention.library() is None, reason="no kernel: no compiler, or a processor without AVX")


class Attentions(nn.Module):
    """One of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.rand(6, 6) < 0.7)
        self.register_buffer("added", torch.randn(2, 1, 1, 6))
        self.register_buffer("by_row", torch.randn(6, 1))

    def forward(self, x: Tensor) -> Tensor:  # (2, 6, 12)
        q, k, v = (t.unflatten(2, (3, 4)).transpose(1, 2) for t in (x, x.sin(), x.cos()))
        y = F.scaled_dot_product_attention(q, k, v) + F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.7)
        y = y + F.scaled_dot_product_attention(q, k, v, self.seen) + F.scaled_dot_product_attention(q, k, v, self.added)
        y = y + F.scaled_dot_product_attention(q, k, v, self.by_row)
        y = y + ((q @ k.transpose(-2, -1)) / 3 + self.added).softmax(-1) @ v
        y = y + (q @ k.mT).softmax(dim=3) @ v
        turned = F.scaled_dot_product_attention(q.mT, k.mT, v.mT).mT  # numbers of a row lie apart
        return (y + turned).transpose(1, 2).flatten(2) + F.scaled_dot_product_attention(x, x.sin(), x)


class Others(nn.Module):
    """What is left as it is."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        q = x.unflatten(2, (3, 4)).transpose(1, 2)
        weights = (q @ q.mT).softmax(-1)
        across = (q @ q.mT).softmax(-2) @ q
        grouped = F.scaled_dot_product_attention(q, q[:, :1], q[:, :1], enable_gqa=True)
        shared = F.scaled_dot_product_attention(q, q[:1], q[:1])
        return weights, weights @ q, across, grouped, shared, (q @ q.mT * q[..., :1]).softmax(-1) @ q


def rewritten(module: nn.Module, x: Tensor) -> list[str]:
    program = torch.export.export(module.eval(), (x,))
    with torch.no_grad():
        expected = program.module()(x)
        use_attention(program)
        program.graph_module.recompile()
        program.graph.lint()
        torch.testing.assert_close(program.module()(x), expected, rtol=1e-5, atol=1e-5)
    return [str(n.target) for n in program.graph.nodes]


def test_which_attention_the_kernel_computes() -> None:
    used = rewritten(Attentions(), torch.randn(2, 6, 12))
    assert used.count("continual.attention.default") == 9
    assert "aten.scaled_dot_product_attention.default" not in used
    assert "continual.attention.default" not in rewritten(Others(), torch.randn(2, 6, 12))
    assert "continual.attention.default" not in rewritten(Attentions().double(), torch.randn(2, 6, 12).double())


@one_in(3)
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler on this machine")
def test_compiled_programs_compute_with_it() -> None:
    module = Attentions().eval()
    net = co.Sequential(co.Lambda(module, takes_time=False), co.Delay(1)).eval()
    x, before = torch.randn(3, 2, 6, 12), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        program = co.compile(net, x[0], backend="aot")
        assert program.step(x[0]) is None
        y = program.step(x[1])
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(y, module(x[0]), rtol=1e-5, atol=1e-5)
