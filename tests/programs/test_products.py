"""Products with constant weights in compiled programs: which become operations of the kernel, and what they give."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.layers.native import product
from continual.programs.backends.native_code import join_relus
from continual.programs.backends.products import use_products
from tests.long import one_in

pytestmark = pytest.mark.skipif(product.library() is None, reason="no kernel: no compiler, or a processor without AVX")


class Products(nn.Module):
    """One of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.plain = nn.Linear(19, 33), nn.Linear(33, 5, bias=False)
        self.joints, self.links = nn.Parameter(torch.randn(7, 5)), nn.Parameter(torch.randn(4, 7, 3))
        self.square = nn.Parameter(torch.randn(6, 11))
        self.pixels, self.strided = nn.Conv2d(6, 5, 1), nn.Conv2d(5, 3, 1, stride=2)
        self.padded = nn.Conv2d(5, 3, 1, padding=1)
        self.register_buffer("mixing", torch.randn(11, 2, 3))

    def forward(self, x: Tensor) -> Tensor:  # (2, 3, 19)
        y = self.plain(self.linear(x).relu()) @ self.joints.t()  # (2, 3, 7)
        y = y[0] @ self.links  # (4, 3, 3)
        y = self.mixing[:, 1] @ y.transpose(1, 2)  # (4, 11, 3)
        y = torch.bmm(self.square.expand(4, -1, -1), y)  # (4, 6, 3)
        y = torch.baddbmm(self.square[:, :1], self.square[:, :6].expand(4, -1, -1), y)  # (4, 6, 3)
        y = y @ y.transpose(1, 2)  # (4, 6, 6); of two streams: torch's
        images = self.pixels(y.unsqueeze(0).transpose(1, 2))  # (1, 5, 4, 6)
        return self.strided(images) + self.padded(images)[..., :2, :3]


def test_which_products_the_kernel_computes() -> None:
    module, x = Products(), torch.randn(2, 3, 19)
    program = torch.export.export(module, (x,))
    with torch.no_grad():
        expected = program.module()(x)
        use_products(program)
        program.graph_module.recompile()
        used = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
        assert used.count("continual.linear.default") == 4
        assert used.count("continual.multiply.default") == 4
        assert used.count("aten.conv2d.default") == 2
        assert used.count("aten.matmul.default") == 1
        torch.testing.assert_close(program.module()(x), expected, rtol=1e-4, atol=1e-4)


class Rectified(nn.Module):
    """Products with a ReLU behind them, of which the kernel may take two."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.pixels = nn.Linear(6, 9), nn.Conv2d(9, 5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:  # (1, 7, 3, 6)
        y = self.linear(x).relu()
        y = self.pixels(y.permute(0, 3, 1, 2)).relu()
        z = self.linear(x)
        turned = z.permute(0, 2, 3, 1)
        return y, z.relu(), z, turned.relu(), turned, x.relu()


def test_a_relu_joins_the_product_before_it() -> None:
    module, x = Rectified().eval(), torch.randn(1, 7, 3, 6)
    program = torch.export.export(module, (x,))
    with torch.no_grad():
        use_products(program)
        join_relus(program)
        program.graph_module.recompile()
        assert [str(n.target) for n in program.graph.nodes].count("aten.relu.default") == 3
        for found, wanted in zip(program.module()(x), module(x), strict=True):
            torch.testing.assert_close(found, wanted)


def test_other_dtypes_are_torchs() -> None:
    module, x = nn.Linear(19, 33).double(), torch.randn(2, 19).double()
    program = torch.export.export(module, (x,))
    use_products(program)
    assert "aten.linear.default" in [str(n.target) for n in program.graph.nodes]


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler on this machine")
@pytest.mark.parametrize("backend, threads", [("aot", 2), ("inductor", 1)])
def test_compiled_programs_compute_with_it(backend: str, threads: int) -> None:
    net = co.Sequential(
        co.Conv2d(33, 70, (5, 1)),  # a weight from the left, on frames of seven joints
        co.Conv2d(70, 65, (1, 1)),
        nn.ReLU(),
        co.Lambda(lambda x: x.mean(-1)),
        co.Conv1d(65, 401, 3),  # rows, and an odd number of outputs
        co.Linear(401, 259, channel_dim=1),
    ).eval()
    clip, before = torch.randn(2, 33, 12, 7), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        program = co.compile(net, clip[:, :, 0], backend=backend)
        steps = [y for y in map(program.step, clip.unbind(2)) if y is not None]
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(torch.stack(steps, 2), net(clip), rtol=1e-4, atol=1e-5)


@one_in(3)
@pytest.mark.skipif(not shutil.which("g++"), reason="no GCC on this machine")
@torch.no_grad()
def test_a_program_rounds_as_the_kernel_does() -> None:
    net, x = co.Linear(131, 67, channel_dim=1).eval(), torch.randn(9, 131)
    y = co.compile(net, x, backend="aot").step(x)
    assert torch.equal(y, product.by_panels(x, product.packed(net.weight), net.bias, 67))
