"""Attention in chunks: each frame sees its whole chunk and some chunks before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.convert.cases import noise
from tests.convert.rows import Fn, No, Row, check_refused, check_row, fn, in_turns, no
from tests.export.artefacts import needs
from tests.long import LONG
from tests.programs.rows import check_rows

WEIGHTS = {"qkv": (18, 6), "b": (18,), "out": (6, 6), "conv": (6, 6, 3)}


def chunks(frames: int, size: int, behind: int) -> Tensor:
    """Which keys each query sees, ``(T, T)``."""
    i = torch.arange(frames)
    own = i // size
    first = (own - behind).clamp(min=0) * size
    return (i[None] < (own[:, None] + 1) * size) & (i[None] >= first[:, None])


def split(m: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = F.linear(x, m.qkv, m.b).view(x.shape[0], x.shape[1], 3, 2, 3).permute(2, 0, 3, 1, 4)
    return q, k, v


def joined(m: nn.Module, y: Tensor) -> Tensor:
    return F.linear(y.transpose(1, 2).flatten(2), m.out)


def of(size: int, behind: int) -> Any:
    """Attention with a boolean mask."""
    return lambda m, x: joined(
        m, F.scaled_dot_product_attention(*split(m, x), attn_mask=chunks(x.shape[1], size, behind), scale=0.5)
    )


def by_hand(m: nn.Module, x: Tensor) -> Tensor:
    """As WeNet writes it."""
    q, k, v = split(m, x)
    hidden = chunks(x.shape[1], 4, 2)[None, None].eq(0)
    scores = (q @ k.transpose(-2, -1) / 3**0.5).masked_fill(hidden, -torch.inf)
    return joined(m, torch.softmax(scores, -1).masked_fill(hidden, 0.0) @ v)


def by_distance(m: nn.Module, x: Tensor) -> Tensor:
    """With a bias by the distance for each head."""
    i = torch.arange(x.shape[1])
    bias = (i[None] - i[:, None]).abs() * -torch.tensor([0.5, 0.25])[:, None, None]
    mask = bias.masked_fill(~chunks(x.shape[1], 3, 1), -torch.inf).to(x.dtype)
    return joined(m, F.scaled_dot_product_attention(*split(m, x), attn_mask=mask))


def strided(m: nn.Module, x: Tensor) -> Tensor:
    y = F.conv1d(x.mT, m.conv, stride=2, padding=1).mT
    return joined(m, F.scaled_dot_product_attention(*split(m, y), attn_mask=chunks(y.shape[1], 3, 1)))


KNOWN: dict = {"shape": (2, 22, 6), "time": 1, "params": WEIGHTS}
ROWS = [
    fn("its chunk alone", of(4, 0), delay=3, **KNOWN),
    fn("the chunk before", of(4, 1), delay=3, **KNOWN),
    fn("by hand", by_hand, delay=3, **KNOWN),
    fn("a bias by distance", by_distance, delay=2, **KNOWN),
    fn("behind a stride", strided, delay=5, **KNOWN),
]


@pytest.mark.parametrize("case", in_turns(ROWS, 3))
def test_chunks(case: Row) -> None:
    """They were refused, since the mask is another one for each place in a chunk. Clips end within a chunk."""
    check_row(case)


class Padded(nn.Module):
    """Rows of several lengths, as batches of a recogniser have them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Fn(lambda m, x: m, **WEIGHTS)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        keep = torch.arange(x.shape[1]) < lengths[:, None]
        mask = chunks(x.shape[1], 3, 1)[None, None] & keep[:, None, None]
        return joined(self.inner, F.scaled_dot_product_attention(*split(self.inner, x), attn_mask=mask))


def test_lengths_of_rows() -> None:
    torch.manual_seed(0)
    module = Padded().eval()
    net = co.continual(module, (noise(2, 14, 6), torch.tensor([11, 14])), time_dim=(1, None))
    x, lengths = noise(3, 20, 6), torch.tensor([13, 16, 20])
    want = module(x, lengths)
    got = torch.cat([net.forward_steps(x[:, :8], lengths), net.forward_steps(x[:, 8:], lengths, pad_end=True)], 1)
    for b, n in enumerate(lengths):  # behind the end of a row nothing is seen
        assert_equal(got[b, :n], want[b, :n])


def test_programs_and_all_chunks_before() -> None:
    torch.manual_seed(0)
    net = co.continual(Fn(of(3, 1), **WEIGHTS).eval(), noise(2, 14, 6), time_dim=1)
    check_rows(net, noise(2, 20, 6))
    module = Fn(of(3, 1 << 20), **WEIGHTS).eval()
    whole = co.continual(module, noise(2, 14, 6), time_dim=1, windows="stream")
    assert "all chunks of 3 frames" in str(whole.notes)
    x = noise(2, 14, 6)
    assert_equal(torch.cat([whole.forward_steps(x[:, :5]), whole.forward_steps(x[:, 5:], pad_end=True)], 1), module(x))


@LONG
def test_in_onnx(tmp_path: Path) -> None:
    """Its attention has four dimensions, as exporters know it."""
    needs("onnx")
    torch.manual_seed(0)
    net = co.continual(Fn(of(3, 1), **WEIGHTS).eval(), noise(2, 14, 6), time_dim=1)
    file = co.export(net, noise(2, 6), tmp_path / "chunks.onnx", format="onnx")
    assert co.verify(co.load(file, threads=1), noise(2, 20, 6), reference=net, splits=1).passed


def uneven(m: nn.Module, x: Tensor) -> Tensor:
    """Frame 5 of every clip sees one frame less."""
    mask = chunks(x.shape[1], 4, 1)
    i = torch.arange(x.shape[1])
    return joined(m, F.scaled_dot_product_attention(*split(m, x), attn_mask=mask & ((i != 5)[:, None] | (i != 2))))


REFUSED = [
    no("another frame", lambda: Fn(uneven, **WEIGHTS), "not the same for every frame", "causal", shape=(2, 22, 6), time=1),
]


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)
