"""The compiled kernel for products: against sums in double precision, in its three layouts, and where torch computes instead of it."""

import mmap
import random
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import continual as co
from continual.layers.native import product
from continual.layers.native.build import found_compiler

pytestmark = pytest.mark.skipif(found_compiler() is None, reason="no C++ compiler on this machine")


def by_panels(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return product.by_panels(x, product.packed(weight), bias, len(weight))


def by_columns(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = product.linear_or_none(x, weight, bias)
    return F.linear(x, weight, bias) if y is None else y


def by_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return product.multiply(weight, x.flatten(0, -2).t().unsqueeze(0), bias)[0].t().reshape(*x.shape[:-1], -1)


WAYS = [by_panels, by_columns, by_rows]


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_products_of_all_sizes(way: Any) -> None:
    choose = random.Random(0)
    for _ in range(120):
        rows, size, features = choose.randint(1, 60), choose.choice((1, 3, 16, 64, 128, 130, 177)), choose.randint(1, 150)
        x, weight, bias = torch.randn(rows, size), torch.randn(features, size), torch.randn(features)
        given = bias if choose.random() < 0.7 else None
        expected = F.linear(x.double(), weight.double(), None if given is None else given.double())
        torch.testing.assert_close(way(x, weight, given).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_many_rows_and_long_sums(way: Any) -> None:
    x, weight, bias = torch.randn(3, 301, 521), torch.randn(67, 521), torch.randn(67)
    torch.testing.assert_close(
        way(x, weight, bias).double(), F.linear(x.double(), weight.double(), bias.double()), rtol=1e-4, atol=5e-4
    )


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_a_row_has_the_same_bits_beside_any_others(way: Any) -> None:
    x, weight, bias = torch.randn(41, 183), torch.randn(71, 183), torch.randn(71)
    together = way(x, weight, bias)
    for rows in (8, 9, 11, 12, 25):
        assert torch.equal(way(x[5 : 5 + rows].contiguous(), weight, bias), together[5 : 5 + rows])


@torch.no_grad()
def test_two_threads_compute_the_same() -> None:
    if product.library().parallel is None:
        pytest.skip("torch has no OpenMP runtime of GCC's interface here")
    x, weight, bias, before = torch.randn(35, 259), torch.randn(173, 259), torch.randn(173), torch.get_num_threads()
    assert product.ALONE < 35 * 259 * 173
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append([way(x, weight, bias) for way in WAYS])
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_what_is_no_number_stays_in_its_row(way: Any) -> None:
    x, weight = torch.randn(9, 133), torch.randn(37, 133)
    x[3, 50], x[5, 2] = torch.nan, torch.inf
    y = way(x, weight, None)
    assert y[3].isnan().all()
    assert not y[5].isfinite().any()
    assert y[[0, 1, 2, 4, 6, 7, 8]].isfinite().all()


@torch.no_grad()
def test_what_is_below_zero_becomes_zero() -> None:
    x, weight, bias = torch.randn(13, 33), torch.randn(37, 33), torch.randn(37)
    x[3, 5] = torch.nan
    y = product.by_panels(x, product.packed(weight), bias, 37, relu=True)
    assert y[3].isnan().all()
    assert torch.equal(y.nan_to_num(), by_panels(x, weight, bias).relu().nan_to_num())


@torch.no_grad()
def test_several_matrices_with_one_weight() -> None:
    weight, x, bias = torch.randn(29, 65), torch.randn(4, 65, 25), torch.randn(29)
    expected = (weight.double() @ x.double() + bias.double().unsqueeze(1)).float()
    torch.testing.assert_close(product.multiply(weight, x, bias), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(product.by_torch(weight, x, bias), expected, rtol=1e-4, atol=1e-4)
    strided = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(product.multiply(weight, strided, bias), product.multiply(weight, x, bias))


GUARDED = """
import ctypes, mmap, sys, torch
from continual.layers.native import product
libc, page = ctypes.CDLL(None), mmap.PAGESIZE

def last_of_memory(t):  # a copy that ends where no memory is
    pages = -(-t.numel() * 4 // page) + 1
    room = mmap.mmap(-1, pages * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(room))
    assert libc.mprotect(ctypes.c_void_p(start + (pages - 1) * page), page, 0) == 0
    numbers = torch.frombuffer(room, dtype=torch.float32, count=t.numel(), offset=(pages - 1) * page - 4 * t.numel())
    rooms.append(room)
    return numbers.copy_(t.flatten()).view(t.shape)

rooms = []
with torch.no_grad():
    for rows, size, features in [(1, 50, 5), (5, 167, 33), (25, 149, 64), (13, 1, 17), (8, 128, 16), (9, 130, 1)]:
        x, weight, bias = (last_of_memory(torch.randn(s)) for s in ((rows, size), (features, size), (features,)))
        panels = last_of_memory(product.packed(weight))
        y = torch.nn.functional.linear(x, weight, bias)
        columns = last_of_memory(x.t().contiguous().unsqueeze(0))
        assert torch.allclose(product.by_panels(x, panels, bias, features), y, atol=1e-4)
        assert torch.allclose(product.linear(x, weight, bias), y, atol=1e-4)
        assert torch.allclose(product.multiply(weight, columns, bias)[0].t(), y, atol=1e-4)
print("read nothing else")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for memory that can't be read")
def test_nothing_is_read_behind_a_matrix() -> None:
    assert mmap.PAGESIZE % 4 == 0
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", GUARDED], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "read nothing else", (done.returncode, done.stderr[-2000:])


class Scaled(Tensor):
    """A weight that is no plain tensor, as quantised ones are."""


@pytest.mark.parametrize("what", ["double", "gradients", "a subclass", "watched", "no kernel", "empty", "few rows", "short sums"])
def test_where_torch_computes(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = torch.randn(4, 128), nn.Parameter(torch.randn(5, 128)), torch.randn(5)
    if what == "double":
        x, weight, bias = x.double(), nn.Parameter(weight.double()), bias.double()
    if what == "a subclass":
        weight = weight.detach().as_subclass(Scaled)  # type: ignore[assignment]
    if what == "no kernel":
        monkeypatch.setattr(product, "library", lambda: None)
    if what == "empty":
        x = x[:0]
    if what == "few rows":
        x = x[:3]
    if what == "short sums":
        x, weight = x[:, :127], nn.Parameter(weight.detach()[:, :127])
    counter = FlopCounterMode(display=False)
    with torch.set_grad_enabled(what == "gradients"):
        if what == "watched":
            with counter:
                assert product.linear_or_none(x, weight, bias) is None
                product.linear(x, weight, bias)
            assert counter.get_total_flops() == 2 * 4 * 128 * 5
        assert what == "watched" or product.linear_or_none(x, weight, bias) is None
        torch.testing.assert_close(product.linear(x, weight, bias), F.linear(x, weight, bias))
    if what == "gradients":
        product.linear(x, weight, bias).sum().backward()
        assert weight.grad is not None


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "torch"])
def test_layers_are_verified_both_ways(kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernel:
        monkeypatch.setattr(product, "library", lambda: None)
    net: Any = co.Sequential(
        co.Conv2d(5, 33, (3, 1), padding=(1, 0)),
        co.Conv2d(33, 17, (5, 1), dilation=(2, 1)),
        co.ConvTranspose2d(17, 3, (4, 1), stride=(2, 1)),
    )
    assert co.verify(net, torch.randn(2, 5, 23, 9)).passed
    net = co.Sequential(co.Conv1d(5, 129, 3), co.Linear(129, 49, channel_dim=1), co.Conv1d(49, 6, 4, stride=2))
    assert co.verify(net, torch.randn(5, 5, 23)).passed


@torch.no_grad()
def test_a_weight_that_changes_is_seen_at_once() -> None:
    net = co.Linear(128, 7, channel_dim=1).eval()
    x = torch.randn(4, 128)
    assert product.linear_or_none(x, net.weight, net.bias) is not None
    before = net.forward_step(x)
    net.weight.data *= 2  # torch does not count it as a change
    net.bias.data *= 2
    assert torch.equal(net.forward_step(x), 2 * before)
