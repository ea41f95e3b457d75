"""Modules in which something fixes the length in the export (`len(range(T))` …): the clip's length stands there as a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import continual as co
from continual.convert.graph.capture import capture
from tests.convert.rows import Fn, Row, check_row, fn


def fixed(body: Callable[..., Tensor]) -> Any:
    """The same behind an addition of nothing that fixes the length."""

    def run(*given: Any) -> Tensor:
        return body(*given[:-1], given[-1] + 0 * len(range(given[-1].shape[2])))

    return run


ROWS = [
    fn("a cut", fixed(lambda x: x[:, :, : x.shape[2] - 2] + x[:, :, 2:]), delay=2),
    fn("a cut that is none", fixed(lambda x: x[:, :, : x.shape[2]] * x[:, :, 0 : x.size(2)]), delay=0),
    fn("arange", fixed(lambda x: x + torch.arange(x.shape[2])), delay=0),
    fn("sines of positions", fixed(lambda x: x + torch.sin(torch.arange(x.shape[2], dtype=x.dtype) / 9)[None, None]), delay=0),
    fn("a table", fixed(lambda m, x: x + m.p[:, :, : x.shape[2]]), params={"p": (1, 3, 150)}, delay=0),
    fn("an embedding of positions", fixed(lambda m, x: x + F.embedding(torch.arange(x.shape[2]), m.p).t()), params={"p": (150, 3)},
        delay=0),
    fn("zeros of the clip's shape", fixed(lambda x: x + torch.ones(x.shape[0], x.shape[1], x.shape[2], dtype=x.dtype)), delay=0),
    fn("new zeros of the clip's shape", fixed(lambda x: torch.cat((x, x.new_zeros(x.shape[0], 2, x.shape[2])), 1)), delay=0),
    fn("torch.zeros beside channels", fixed(lambda x: torch.cat((x, torch.zeros(x.shape[0], 2, x.shape[2], dtype=x.dtype)), 1)), delay=0),
    fn("zeros before", fixed(lambda x: torch.cat((x.new_zeros(x.shape[0], 3, 2), x[:, :, :-2]), 2)), delay=1),
    fn("a shift with zeros like the first frames", fixed(lambda x: torch.cat((torch.zeros_like(x[:, :, :3]), x[:, :, :-3]), 2))),
    fn("a shift of channels with ones like theirs", fixed(lambda x: torch.cat((torch.ones_like(x[:, :, :2][:, :1]), x[:, :1, :-2]), 2))),
    fn("a cut of more than is left", fixed(lambda x: x[:, :, : x.shape[2] - 7] + x[:, :, 7:]), delay=7),
    fn("zeros like all but the last frames", fixed(lambda x: torch.zeros_like(x[:, :, : x.shape[2] - 2]) + x[:, :, 2:]), delay=2),
    fn("merged and back", fixed(lambda x: x.transpose(1, 2).reshape(x.shape[0] * x.shape[2], 3).relu().view(x.shape[0], x.shape[2], 3)),
        delay=0),
    fn("expanded", fixed(lambda x: x * x.mean(1, keepdim=True).expand(x.shape[0], 3, x.shape[2])), delay=0),
    fn("down and up", fixed(lambda x: x + F.interpolate(F.max_pool1d(x, 2), size=x.shape[2])), shape=(2, 3, 12), other=4),
    fn("down by hand and up", fixed(lambda x: F.interpolate(x[:, :, ::3], size=x.shape[2], mode="nearest") - x), shape=(2, 3, 12),
        other=3),
    fn("a mean by hand", fixed(lambda x: x.sum(2) / x.shape[2]), windows=True, delay=12),
    fn("adaptive maxima of space", fixed(lambda x: F.adaptive_max_pool2d(x.unsqueeze(3).expand(-1, -1, -1, 4), (x.shape[2], 2))),
        delay=0),
    fn("flattened", fixed(lambda m, x: F.linear(x.reshape(x.shape[0], 3 * x.shape[2]), m.w)), params={"w": (4, 39)}, windows=True,
        delay=12),
    fn("causal attention", fixed(lambda x: (lambda y: F.scaled_dot_product_attention(y, y, y, torch.ones(y.shape[1],
        y.shape[1]).tril().bool()))(
       x.transpose(1, 2))), delay=0, field=13, other=0),
    fn("causal attention by hand", fixed(lambda x: (x.transpose(1, 2) @ x).masked_fill(torch.ones(x.shape[2], x.shape[2]).triu(1).bool(),
        -torch.inf)
       .softmax(-1) @ x.transpose(1, 2)), delay=0, field=13, other=0),
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_fixed_lengths(case: Row) -> None:
    module, clip = case.module(), case.clip()
    shape = next(n.meta["val"].shape for n in capture(module, clip, 2).program.graph.nodes if n.name in ("x", "inputs_0"))
    assert str(shape[2]) == str(clip.shape[2]), "the export has fixed the length"
    check_row(case)


def test_the_same_without_a_fixed_length() -> None:
    """A table of the example's length itself is one for clips of one length, fixed or not."""
    module = Fn(fixed(lambda m, x: x + m.p), p=(1, 3, 13)).eval()
    with pytest.raises(co.NotStreamable, match="a value for each of 13 frames"):
        co.continual(module, torch.randn(2, 3, 13))
