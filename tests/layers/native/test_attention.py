"""The compiled kernel for attention: against torch's in double precision, and where torch computes instead of it."""

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
from continual.layers.native import attention
from continual.layers.native.build import found_compiler
from tests.long import one_in

pytestmark = pytest.mark.skipif(
    found_compiler() is None or attention.library() is None, reason="no C++ compiler, or a processor without AVX"
)


def by_kernel(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    return attention.attend(q, k, v, mask, causal, None).transpose(1, 2)


def by_torch(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    added = mask.double() if mask is not None and mask.dtype != torch.bool else mask
    return F.scaled_dot_product_attention(q.double(), k.double(), v.double(), added, is_causal=causal).float()


def heads(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Tokens whose heads lie beside each other, as projections leave them."""
    return [torch.randn(b, n, h, d).transpose(1, 2) for b, h, n, d in shapes]


@torch.no_grad()
def test_attention_of_all_sizes() -> None:
    choose = random.Random(0)
    for i in range(90):
        b, h, n, m = (choose.randint(1, top) for top in (3, 3, 40, 75))
        size, features = choose.choice((1, 3, 16, 31, 64, 128)), choose.choice((1, 2, 16, 33, 64, 70))
        q, k, v = heads((b, h, n, size), (b, h, m, size), (b, h, m, features))
        mask = torch.randn([(b, h, n, m), (n, m), (b, 1, 1, m), (h, n, 1)][i % 4])
        mask[torch.rand_like(mask) < 0.3] = -torch.inf
        kind = choose.choice(("none", "causal", "added", "seen"))
        given = {"added": mask, "seen": mask > 0}.get(kind)
        args: Any = (2 * q, k, v, given, kind == "causal")
        torch.testing.assert_close(by_kernel(*args), by_torch(*args), rtol=2e-5, atol=5e-6)


@torch.no_grad()
def test_large_scores_and_many_keys() -> None:
    q, k, v = heads((1, 2, 13, 24), (1, 2, 1031, 24), (1, 2, 1031, 24))
    torch.testing.assert_close(by_kernel(30 * q, k, v), by_torch(30 * q, k, v), rtol=1e-4, atol=1e-4)
    q[:, :, 3] = 1e20  # scores that differ by more than numbers hold
    assert by_kernel(q, k, v).isfinite().all()


@torch.no_grad()
def test_what_is_no_number_and_what_sees_nothing() -> None:
    q, k, v = heads((2, 3, 17, 20), (2, 3, 21, 20), (2, 3, 21, 20))
    q[1, 0, 5, 3] = torch.nan
    mask = torch.zeros(17, 21)
    mask[7] = -torch.inf
    mask[9, :20] = -torch.inf
    y = by_kernel(q, k, v, mask)
    torch.testing.assert_close(y, F.scaled_dot_product_attention(q, k, v, mask), rtol=1e-5, atol=1e-6, equal_nan=True)
    assert y[1, 0, 5].isnan().all()
    assert y.isnan().sum() == 20
    assert not y[:, :, 7].any()
    torch.testing.assert_close(y[:, :, 9], v[:, :, 20])


@torch.no_grad()
def test_rows_have_the_same_bits_beside_any_others() -> None:
    q, k, v = heads((3, 2, 41, 36), (3, 2, 50, 36), (3, 2, 50, 36))
    together = by_kernel(q, k, v)
    for rows in (1, 5, 12, 25):
        assert torch.equal(by_kernel(q[:, :, 7 : 7 + rows], k, v), together[:, :, 7 : 7 + rows])
    assert torch.equal(by_kernel(q[1:2], k[1:2], v[1:2]), together[1:2])


@torch.no_grad()
def test_two_threads_compute_the_same() -> None:
    if attention.library().parallel is None:
        pytest.skip("torch has no OpenMP runtime of GCC's interface here")
    q, k, v = heads((1, 3, 90, 40), (1, 3, 90, 40), (1, 3, 90, 40))  # three heads of two threads: blocks of rows
    assert attention.ALONE < 3 * 90 * 90 * 80
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(by_kernel(q, k, v, causal=True))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


GUARDED = """
import ctypes, mmap, torch
from continual.layers.native import attention
libc, page, rooms = ctypes.CDLL(None), mmap.PAGESIZE, []

def last_of_memory(t):  # a copy that ends where no memory is
    pages = -(-t.numel() * 4 // page) + 1
    room = mmap.mmap(-1, pages * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(room))
    assert libc.mprotect(ctypes.c_void_p(start + (pages - 1) * page), page, 0) == 0
    numbers = torch.frombuffer(room, dtype=torch.float32, count=t.numel(), offset=(pages - 1) * page - 4 * t.numel())
    rooms.append(room)
    return numbers.copy_(t.flatten()).view(t.shape)

with torch.no_grad():
    for n, m, size, features in [(1, 1, 1, 1), (5, 33, 7, 17), (13, 17, 33, 16), (12, 31, 4, 3), (30, 50, 16, 50)]:
        shapes = (2, 3, n, size), (2, 3, m, size), (2, 3, m, features), (n, m)
        q, k, v, mask = (last_of_memory(torch.randn(s)) for s in shapes)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
        assert torch.allclose(attention.attend(q, k, v, mask, False, None).transpose(1, 2), y, atol=1e-5)
print("read nothing else")
"""


@one_in(3)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for memory that can't be read")
def test_nothing_is_read_behind_a_tensor() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", GUARDED], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "read nothing else", (done.returncode, done.stderr[-2000:])


@pytest.mark.parametrize("what", ["nothing", "double", "gradients", "watched", "dropout", "groups", "few", "no kernel", "empty"])
def test_where_torch_computes(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = heads((2, 4, 64, 16), (2, 4, 64, 16), (2, 4, 64, 16))
    assert attention.LEAST <= 2 * 4 * 64 * 64 * 32
    more: dict[str, Any] = {"scale": 0.3}
    if what == "double":
        q, k, v = q.double(), k.double(), v.double()
    if what == "dropout":
        more["dropout_p"] = 1.0
    if what == "groups":
        k, v, more["enable_gqa"] = k[:, :2], v[:, :2], True
    if what == "few":
        q, k, v = q[:, :1], k[:, :1], v[:, :1]
    if what == "empty":
        q = q[:, :, :0]
    if what == "no kernel":
        monkeypatch.setattr(attention, "library", lambda: None)
    computed: list[Any] = []
    real = attention.attend
    monkeypatch.setattr(attention, "attend", lambda *args: computed.append(args) or real(*args))
    with torch.set_grad_enabled(what == "gradients"):
        if what == "watched":
            with FlopCounterMode(display=False):
                y = attention.scaled_dot_product_attention(q, k, v, **more)
        else:
            y = attention.scaled_dot_product_attention(q, k, v, **more)
        torch.testing.assert_close(y, F.scaled_dot_product_attention(q, k, v, **more), rtol=1e-4, atol=1e-5)
    assert bool(computed) == (what == "nothing")


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "torch"])
def test_layers_are_verified_both_ways(kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernel:
        monkeypatch.setattr(attention, "library", lambda: None)
    monkeypatch.setattr(attention, "LEAST", 0)
    layer = nn.TransformerEncoderLayer(12, 3, 17, batch_first=True)
    net = co.TransformerEncoder.build_from(nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), sequence_len=7).eval()
    assert co.verify(net, torch.randn(2, 12, 23)).passed
