"""The compiled kernel for pooling: against torch's, and where torch pools instead of it."""

import random
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import continual as co
from continual.layers.native import pool
from continual.layers.native.build import found_compiler
from tests.layers.native.test_attention import GUARDED
from tests.long import one_in

pytestmark = pytest.mark.skipif(
    found_compiler() is None or pool.library() is None, reason="no C++ compiler, or a processor without AVX"
)


@pytest.fixture(autouse=True)
def small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LEAST", 1)


def by_torch(x: Tensor, kernel: Any, stride: Any, padding: Any, maximum: bool) -> Tensor:
    return F.max_pool2d(x, kernel, stride, padding) if maximum else F.avg_pool2d(x, kernel, stride, padding)


@torch.no_grad()
def test_pools_of_all_sizes() -> None:
    choose = random.Random(0)
    for i in range(150):
        kernel = [choose.randint(1, 5) for _ in range(2)]
        stride, padding = [choose.randint(1, 4) for _ in range(2)], [choose.randint(0, k // 2) for k in kernel]
        size = [choose.randint(k, k + 50) for k in kernel]
        x = torch.randn(choose.randint(1, 3), choose.randint(2, 35), 3, *size)[:, :, i % 3] - 2  # a frame of a clip
        if i % 3 == 0:
            x[0, 1, 0, -1], x[-1, 0, -1, 0] = torch.nan, -torch.inf
        y = pool.pooled_or_none(x, kernel, stride, padding, maximum=bool(i % 2))
        assert y is not None
        torch.testing.assert_close(y, by_torch(x, kernel, stride, padding, bool(i % 2)), rtol=1e-5, atol=1e-6, equal_nan=True)
        assert y.permute(0, 2, 3, 1).is_contiguous()


@torch.no_grad()
def test_two_threads_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    if pool.library().parallel is None:
        pytest.skip("torch has no OpenMP runtime of GCC's interface here")
    monkeypatch.setattr(pool, "ALONE", 1)
    x, found, before = torch.randn(2, 37, 21, 33), [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(pool.pooled_or_none(x, (3, 2), (2, 1), (1, 1), maximum=False))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


IMAGES = """
from continual.layers.native import pool
pool.LEAST = 1
with torch.no_grad():
    for height, width, channels in [(3, 3, 2), (9, 17, 5), (16, 33, 17), (5, 48, 3), (7, 15, 16)]:
        x = last_of_memory(torch.randn(2, channels, height, width))
        y = torch.nn.functional.max_pool2d(x, 3, (1, 2), 1)
        assert torch.equal(pool.pooled_or_none(x, (3, 3), (1, 2), (1, 1), maximum=True), y)
print("read nothing else")
"""


@one_in(3)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for memory that can't be read")
def test_nothing_is_read_behind_an_image() -> None:
    code = GUARDED[: GUARDED.index("with torch.no_grad()")] + IMAGES
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "read nothing else", (done.returncode, done.stderr[-2000:])


@pytest.mark.parametrize("what", ["channels last", "double", "gradients", "wide", "small", "no kernel"])
def test_where_torch_pools(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, kernel = torch.randn(2, 3, 11, 12), (3, 3)
    if what == "channels last":
        x = x.contiguous(memory_format=torch.channels_last)
    if what == "double":
        x = x.double()
    if what == "wide":
        x = torch.randn(1, 2, 4, 500)
    if what == "small":
        kernel = (12, 3)
    if what == "no kernel":
        monkeypatch.setattr(pool, "library", lambda: None)
    with torch.set_grad_enabled(what == "gradients"):
        assert pool.pooled_or_none(x, kernel, (2, 2), (0, 0), maximum=True) is None


@pytest.mark.parametrize(
    "layer",
    [
        co.MaxPool3d(3, (1, 2, 2), padding=1),
        co.AvgPool3d((2, 3, 3), (1, 2, 2), padding=(0, 1, 1)),
        co.AvgPool3d((2, 3, 3), (1, 2, 2), padding=(1, 1, 1), count_include_pad=False),
        co.AvgPool3d((3, 2, 2), ceil_mode=True),
        co.AvgPool3d((3, 2, 2), divisor_override=5),
        co.MaxPool3d((2, 2, 2), (1, 1, 1), dilation=(1, 2, 1)),
    ],
    ids=repr,
)
def test_layers_are_verified(layer: Any) -> None:
    assert co.verify(layer.eval(), torch.randn(2, 5, 9, 11, 13) - 1).passed
