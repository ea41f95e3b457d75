"""Matrix products in graphs, with time among their rows; and linear maps of whole clips."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.convert.rows import Fn, No, Row, check_refused, check_row, fn, no, row

TOKENS: dict = {"shape": (2, 8, 5), "time": 1, "delay": 0, "field": 1}
ROWS = [
    row("linear", lambda: nn.Linear(5, 4), **TOKENS),
    row("linear without bias", lambda: nn.Linear(5, 1, bias=False), **TOKENS),
    row("linear over space", lambda: nn.Linear(4, 6), shape=(2, 3, 8, 4), delay=0),
    row("linear, time first", lambda: nn.Linear(5, 4), shape=(8, 2, 5), time=0, delay=0),
    row("bilinear", lambda: Fn(lambda m, x: F.bilinear(x, x * 2, m.w, m.b), w=(4, 5, 5), b=(4,)), **TOKENS),
    fn("x @ W", lambda m, x: x @ m.w + m.b, params={"w": (5, 4), "b": (4,)}, **TOKENS),
    fn("W @ x", lambda m, x: m.w @ x, params={"w": (4, 3)}, delay=0),
    fn("x @ vector", lambda m, x: x @ m.w, params={"w": (5,)}, **TOKENS),
    fn("matmul of 4 dimensions", lambda m, x: torch.matmul(x.unsqueeze(-2), m.w), params={"w": (3, 4, 6)}, shape=(2, 7, 3, 4), time=1,
        delay=0),
    fn("matmul of two streams, per frame", lambda x: x.transpose(2, 3) @ x, shape=(2, 7, 3, 4), time=1, delay=0),
    fn("mm of merged rows", lambda m, x: torch.mm(x.flatten(0, 1), m.w).unflatten(0, (x.shape[0], -1)), params={"w": (5, 4)}, **TOKENS),
    fn("addmm", lambda m, x: torch.addmm(m.b, x.reshape(-1, 5), m.w, beta=0.5, alpha=2).reshape(x.shape[0], x.shape[1], 4),
       params={"w": (5, 4), "b": (4,)}, **TOKENS),
    fn("bmm", lambda x: torch.bmm(x.flatten(0, 1), x.flatten(0, 1).transpose(1, 2)).unflatten(0, (x.shape[0], -1)), shape=(2, 7, 3, 4),
        time=1,
       delay=0),
    fn("bmm with rows of a batch", lambda m, x: torch.bmm(m.w.expand(x.shape[0], -1, -1), x), params={"w": (1, 4, 3)}, delay=0),
    fn("baddbmm", lambda m, x: torch.baddbmm(m.b, x, m.w.expand(x.shape[0], -1, -1)), params={"w": (1, 5, 4), "b": (1, 1, 4)}, **TOKENS),
    fn("mv", lambda m, x: torch.mv(x.flatten(0, 1), m.w).unflatten(0, (x.shape[0], -1)), params={"w": (5,)}, **TOKENS),
    fn("outer product of channels", lambda x: x.unsqueeze(-1) * x.unsqueeze(-2), **TOKENS),
    fn("graph convolution: nctv,vw", lambda m, x: torch.einsum("nctv,vw->nctw", x, m.a), params={"a": (4, 4)}, shape=(2, 3, 7, 4),
        delay=0),
    fn("graph convolution: nkctv,kvw", lambda m, x: torch.einsum("nkctv,kvw->nctw", x.unflatten(1, (2, 3)), m.a), params={"a": (2, 4, 4)},
       shape=(2, 6, 7, 4), delay=0),
    fn("einsum with an ellipsis", lambda m, x: torch.einsum("...c,cd->...d", x, m.w), params={"w": (5, 4)}, **TOKENS),
    fn("einsum with an ellipsis in the middle", lambda m, x: torch.einsum("b...c,c...->b...", x, m.w), params={"w": (5, 1)}, **TOKENS),
    fn("einsum without an arrow", lambda m, x: torch.einsum("bct,cd", x, m.w), params={"w": (3, 4)}, delay=0),
    fn("einsum of two streams", lambda x: torch.einsum("btc,btd->btcd", x, x.exp()), **TOKENS),
    fn("einsum: norms of frames", lambda x: torch.einsum("btc,btc->bt", x, x), **TOKENS),
    fn("einsum: a diagonal of space", lambda x: torch.einsum("bctvv->bctv", x), shape=(2, 3, 7, 4, 4), delay=0),
    fn("einsum: three operands", lambda m, x: torch.einsum("bct,cd,d->bdt", x, m.w, m.g), params={"w": (3, 4), "g": (4,)}, delay=0),
    fn("tensordot", lambda m, x: torch.tensordot(x, m.w, dims=([2], [0])), params={"w": (5, 4)}, **TOKENS),
    fn("kron of channels", lambda m, x: torch.kron(x, m.w), params={"w": (1, 1, 2)}, **TOKENS),
    fn("inner", lambda m, x: torch.inner(x, m.w), params={"w": (4, 5)}, **TOKENS),
    fn("chain of parameters", lambda m, x: x @ (m.u @ m.v), params={"u": (5, 2), "v": (2, 4)}, **TOKENS),
    fn("low rank addition", lambda m, x: F.linear(x, m.w + m.u @ m.v), params={"w": (4, 5), "u": (4, 2), "v": (2, 5)}, **TOKENS),
    fn("distances to a code book", lambda m, x: torch.cdist(x, m.w.expand(x.shape[0], -1, -1)), params={"w": (1, 6, 5)}, **TOKENS),
    fn("nearest code", lambda m, x: m.w[torch.cdist(x, m.w.unsqueeze(0)).argmin(-1)], params={"w": (6, 5)}, verify=False, **TOKENS),
    row("embedding", lambda: nn.Embedding(7, 4), shape=(2, 8), time=1, classes=7, delay=0),
    fn("embedding of counts, as position ids are made of masks", lambda m, x: x
       + F.embedding(x.new_ones(x.shape[0], x.shape[2]).long().cumsum(1) - 1, m.p).mT, params={"p": (150, 3)}, delay=0),
    row("embedding with padding", lambda: nn.Embedding(7, 4, padding_idx=0), shape=(2, 3, 8), classes=7, delay=0),
    row("embedding, width 1", lambda: nn.Embedding(7, 1), shape=(2, 8), time=1, classes=7, delay=0),
    fn("one hot and a product", lambda m, x: F.one_hot(x, 7).to(m.w.dtype) @ m.w, params={"w": (7, 4)}, shape=(2, 8), time=1, classes=7,
        delay=0),
    fn("rows of a table", lambda m, x: m.w[x], params={"w": (7, 4)}, shape=(2, 8), time=1, classes=7, delay=0),
    fn("cross product", lambda m, x: torch.linalg.cross(x, m.w, dim=1), params={"w": (1, 3, 1)}, delay=0),
    fn("cross product with the frame before", lambda x: torch.cross(x[:, :, 1:], x[:, :, :-1], dim=1), delay=1),
]  # fmt: skip

WINDOWS = [
    row("linear over time", lambda: nn.Linear(13, 4), windows=True, delay=12, field=13),
    row("flatten and linear", lambda: nn.Sequential(nn.Flatten(), nn.Linear(39, 4)), windows=True, delay=12),
    row("flatten and linear, video", lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 7 * 4, 4)), shape=(2, 3, 7, 4), windows=True,
        delay=6),
    row("flatten and linear, channels last", lambda: nn.Sequential(nn.Flatten(), nn.Linear(40, 4, bias=False)), shape=(2, 8, 5), time=1,
        windows=True, delay=7),
    row("linear over time of (B, T)", lambda: nn.Linear(9, 3), shape=(2, 9), time=1, windows=True, delay=8),
    row("one output of (B, T)", lambda: nn.Linear(9, 1), shape=(2, 9), time=1, windows=True, delay=8),
    row("linear over time, time last", lambda: nn.Linear(9, 3), shape=(2, 4, 2, 9), time=3, windows=True, delay=8),
    fn("view and linear", lambda m, x: F.relu(F.linear(x.reshape(x.shape[0], -1), m.w, m.b)), params={"w": (4, 39), "b": (4,)},
        windows=True),
    fn("a linear head behind a linear over time", lambda m, x: F.linear(F.relu(F.linear(x.flatten(1), m.w)), m.v), params={"w": (4, 39),
        "v": (2, 4)},
       windows=True, delay=12),
    fn("matmul over time", lambda m, x: x @ m.w, params={"w": (13, 4)}, windows=True, delay=12),
    fn("matmul over time, parameters first", lambda m, x: m.w @ x, params={"w": (4, 8)}, shape=(2, 8, 5), time=1, windows=True, delay=7),
    fn("einsum over time", lambda m, x: torch.einsum("bct,t->bc", x, m.w), params={"w": (13,)}, windows=True, delay=12),
    fn("mean of features that a linear gave", lambda m, x: F.linear(x, m.w).mean(1), params={"w": (4, 5)}, shape=(2, 8, 5), time=1,
        windows=True,
       delay=7),
]  # fmt: skip

REFUSED = [
    no("gram matrix over time", lambda x: x @ x.transpose(1, 2), "sums over the frames of the clip", "scaled_dot_product_attention"),
    no("all frames with each other", lambda x: x.transpose(1, 2) @ x, "compares all frames of the clip with each other",
        "is_causal=True.*mask"),
    no("distances between frames", lambda x: torch.cdist(x, x), "compares all frames of the clip with each other", "is_causal", shape=(2,
        8, 5),
       time=1),
    no("einsum over time", lambda x: torch.einsum("bct,bdt->bcd", x, x), "sums over the frames of the clip", "mean over time|attention"),
    no("einsum over rows", lambda x: torch.einsum("bct->ct", x), "rows of the batch", "batch among the results"),
    no("rows with each other", lambda x: x.flatten(1) @ x.flatten(1).t(), "mixes the rows|sums over", "batch|attention"),
    no("a weight of the stream", lambda x: F.linear(x, x[0, :4]), "depends on the stream|rows", "matmul|batch|select", shape=(2, 9, 9),
        time=1),
    no("learned weights of frames", lambda: Fn(lambda m, x: (x * m.w.softmax(0)).sum(2), w=(13,)), "a value for each of 13 frames",
        "einsum"),
    no("determinants of the clip", lambda x: torch.linalg.det(x), "for the rows of a matrix", "a matrix for each frame", shape=(2, 8, 8)),
    no("inverse", lambda x: torch.linalg.inv(x + 5 * torch.eye(8, dtype=x.dtype)), "for the rows of a matrix|one length alone", "",
        shape=(2, 8, 8)),
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_products(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", WINDOWS)
def test_linear_maps_of_the_clip(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)
