"""Constants that the module repeats for every frame, and what it computes of them and of positions over time: folds, filters, sums."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.convert.rows import Fn, Row, check_row, fn, in_turns, row
from tests.convert.speech import Synthesis
from tests.long import LONG


def tokens(m: nn.Module, x: Tensor) -> Tensor:
    """A learned token for every frame, beside the channels."""
    return torch.cat((x, m.token.expand(x.shape[0], -1, x.shape[2])), 1)


def checked(x: Tensor) -> Tensor:
    """Counts of frames in a window, of which the module sees that none is 0."""
    counts = F.conv1d(torch.ones(1, 1, x.shape[2], dtype=x.dtype), torch.ones(1, 1, 3, dtype=x.dtype), padding=1)
    if not bool((counts > 0).all()):
        raise ValueError("an empty window")
    if (counts > 3).any():
        raise ValueError(f"more than {3} frames")
    return x / counts


def chosen(x: Tensor) -> Tensor:
    """Another function for clips of more than 100 frames."""
    return x * 2 if (torch.arange(x.shape[2]) > 100).any() else x


ROWS = [
    fn("what is checked for clips of all lengths", checked),
    row("an inverse of spectra by hand", Synthesis, shape=(2, 5, 11)),
    row("another hop", lambda: Synthesis(5, False), shape=(2, 5, 11)),
    fn("a token of every frame", tokens, params={"token": (1, 2, 1)}, delay=0),
    fn("a token of every frame, filtered", lambda m, x: x * F.conv1d(m.token.expand(1, -1, x.shape[2]), m.w, padding=2),
        params={"token": (1, 2, 1), "w": (3, 2, 5)}),
    fn("its running sum", lambda m, x: x * m.token.expand(1, 3, x.shape[2]).cumsum(2), params={"token": (1, 1, 1)}, delay=0),
    fn("ones cumulated", lambda x: x + torch.ones(x.shape[2], dtype=x.dtype).cumsum(0), delay=0),
    fn("ones cumulated for each channel", lambda x: x + torch.ones(1, 3, x.shape[2], dtype=x.dtype).cumsum(-1), delay=0),
    fn("how many frames lie in a window", lambda x: F.avg_pool1d(x, 5, 1, 2) * F.conv1d(torch.ones(1, 1, x.shape[2], dtype=x.dtype),
        torch.ones(1, 1, 5, dtype=x.dtype), padding=2)),
    fn("twice as many positions", lambda x: x + torch.arange(2 * x.shape[2])[::2], delay=0),
    fn("positions of another rate", lambda x: F.avg_pool1d(x, 2) * torch.arange(x.shape[2])[1::2][: x.shape[2] // 2], shape=(2, 3, 14),
        other=6),
    fn("positions that are repeated", lambda x: x.repeat_interleave(3, 2) * torch.arange(x.shape[2],
        dtype=x.dtype).repeat_interleave(3), delay=0),
    fn("windows of positions", lambda x: x.unfold(2, 3, 1) * torch.arange(x.shape[2], dtype=x.dtype).unfold(0, 3, 1)),
    fn("sums of positions in groups", lambda x: x.unflatten(2, (-1, 3)) * torch.arange(x.shape[2]).cumsum(0).view(-1, 3), shape=(2, 3, 12),
        other=6),
]  # fmt: skip


@pytest.mark.parametrize("case", in_turns(ROWS, 2))
def test_values_by_frame(case: Row) -> None:
    check_row(case)


def test_a_choice_by_the_length_is_refused() -> None:
    with pytest.raises(co.NotStreamable, match="takes a number out of a tensor that it has made of constants and sizes"):
        co.continual(Fn(chosen).eval(), torch.randn(2, 3, 13))


@LONG
def test_exported(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    module, clip = Synthesis().eval(), torch.randn(2, 5, 19)
    net = co.continual(module, clip[:, :, :11])
    file = co.load(co.export(net, clip[:, :, 0], tmp_path / "net.onnx"))
    with torch.no_grad():
        assert_equal(torch.as_tensor(file.forward_steps(clip, pad_end=True)), module(clip), "a file")
