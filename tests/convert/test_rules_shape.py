"""Dimensions that are merged, split and moved in graphs, with batch and time in them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.convert.rows import No, Row, check_refused, check_row, fn, no, row

VIDEO: dict = {"shape": (2, 3, 7, 4, 5), "delay": 0, "field": 1}
ROWS = [
    fn("permute", lambda x: x.permute(0, 2, 1).contiguous() * 2, delay=0),
    fn("permute and back", lambda x: x.permute(2, 0, 1).relu().permute(1, 2, 0), delay=0),
    fn("time to the last dimension", lambda x: x.movedim(2, -1), **VIDEO),
    fn("movedim of several", lambda x: x.movedim((3, 4), (1, 2)), **VIDEO),
    fn("moveaxis, swapaxes, swapdims", lambda x: x.moveaxis(1, 4).swapaxes(1, 2).swapdims(-1, 1), **VIDEO),
    fn("transposes", lambda x: x.mT + x.transpose(-1, -2) + x.swapaxes(3, 4), **VIDEO),
    fn("adjoint", lambda x: x.adjoint(), **VIDEO),
    fn("unsqueeze and squeeze", lambda x: x[:, None].unsqueeze(-1).squeeze(1).squeeze(-1), delay=0),
    fn("squeeze of all ones", lambda x: x.mean(1, keepdim=True).squeeze(), delay=0),
    fn("squeeze of several", lambda x: x.mean((1, 3), keepdim=True).squeeze((1, 3)), **VIDEO),
    fn("flatten space", lambda x: x.flatten(3), **VIDEO),
    fn("flatten channels and space", lambda x: x.transpose(1, 2).flatten(2), **VIDEO),
    fn("b*t and back", lambda x: x.transpose(1, 2).reshape(-1, 3, 4, 5).relu().view(x.shape[0], -1, 3, 4, 5).transpose(1, 2), **VIDEO),
    fn("t*b and back", lambda x: x.permute(2, 0, 1, 3, 4).flatten(0, 1).relu().unflatten(0, (x.shape[2], x.shape[0])).movedim(0, 2),
        **VIDEO),
    fn("b*v, c, t and back", lambda x: x.flatten(3).permute(0, 3, 1, 2).flatten(0, 1).relu().unflatten(0, (-1, 20)).permute(0, 2, 3, 1),
        **VIDEO),
    fn("b, c*v, t and back", lambda x: x.permute(0, 1, 3, 4, 2).reshape(x.shape[0], 60, -1).relu().view(-1, 3, 4, 5, x.shape[2]),
        **VIDEO),
    fn("b*t*v rows", lambda x: x.movedim(1, -1).reshape(-1, 3).softmax(-1).reshape(x.shape[0], x.shape[2], 4, 5, 3), **VIDEO),
    fn("heads", lambda x: x.unflatten(2, (2, 3)).transpose(1, 2).reshape(-1, x.shape[1], 3).view(x.shape[0], 2, -1, 3).transpose(1,
        2).flatten(2),
       shape=(2, 8, 6), time=1, delay=0),
    fn("a view of the length", lambda x: x.view(x.shape[0], 3, x.shape[2], -1), **VIDEO),
    fn("view_as and reshape_as", lambda x: x.flatten(3).view_as(x) + x.flatten(1).reshape_as(x), **VIDEO),
    fn("channels in groups", lambda x: x.view(x.shape[0], 2, 3, -1).transpose(1, 2).reshape(x.shape[0], 6, -1), shape=(2, 6, 9), delay=0),
    row("channel shuffle", lambda: nn.ChannelShuffle(2), shape=(2, 6, 9, 3), delay=0),
    row("pixel shuffle per frame", lambda: nn.Sequential(nn.Flatten(0, 1), nn.PixelShuffle(2), nn.Unflatten(0, (2, 7))), shape=(2, 7, 8,
        3, 5), time=1,
        other=0, delay=0),
    fn("pixel shuffle behind time", lambda x: torch.pixel_shuffle(x, 2), shape=(2, 7, 4, 3, 5), time=1, delay=0),
    fn("pixel unshuffle behind time", lambda x: torch.pixel_unshuffle(x, 2), shape=(2, 7, 3, 4, 6), time=1, delay=0),
    fn("unflatten and flatten", lambda x: x.unflatten(1, (3, 2)).flatten(1, 2).unflatten(1, (2, -1)), shape=(2, 6, 9), delay=0),
    fn("expand", lambda x: x.unsqueeze(1).expand(-1, 4, -1, -1) * 1.0, delay=0),
    fn("expand of rows and time", lambda m, x: x + m.p.expand(x.shape[0], -1, x.shape[2]), params={"p": (1, 3, 1)}, delay=0),
    fn("expand_as", lambda x: x.mean(1, keepdim=True).expand_as(x) - x, delay=0),
    fn("broadcast_to", lambda x: x.mean(1, keepdim=True).broadcast_to(x.shape) - x, delay=0),
    fn("broadcast tensors", lambda m, x: torch.stack(torch.broadcast_tensors(x, m.p), 1), params={"p": (3, 1)}, delay=0),
    fn("repeat", lambda x: x.repeat(1, 2, 1), delay=0),
    fn("repeat in front", lambda x: x.repeat(1, 1, 1, 1).repeat(3, 1, 1, 1).transpose(0, 1).contiguous(), delay=0),
    fn("tile", lambda x: x.tile(1, 3, 1).tile(1), delay=0),
    fn("repeat_interleave of channels", lambda x: x.repeat_interleave(2, 1), delay=0),
    fn("repeat_interleave of time", lambda x: x.repeat_interleave(3, 2), delay=0),
    fn("repeat_interleave of b*t", lambda x: (x.movedim(1, 2).reshape(-1, 3).repeat_interleave(2, 0) * x.movedim(1,
        2).reshape(-1, 3).topk(2).values.reshape(-1, 1)).view(x.shape[0], -1, 2, 3)[:, :, 0].tanh().mT, delay=0),
    fn("repeat_interleave of t*b", lambda m, x: (x.permute(2, 0, 1).flatten(0, 1).repeat_interleave(2, 0).view(x.shape[2], -1, 2, 3)
        * m.p).sum(2).permute(1, 2, 0), params={"p": (2, 3)}, delay=0),
    fn("repeat_interleave of rows", lambda m, x: F.conv1d(x.repeat_interleave(2, 0), m.p).view(x.shape[0], -1, x.shape[2] - 2),
        params={"p": (4, 3, 3)}, delay=2),
    fn("repeat_interleave by a list", lambda x: x.repeat_interleave(torch.tensor([1, 0, 2]), 1, output_size=3), delay=0),
    fn("flips of space", lambda x: x.flip(3).flip((1, 4)) + torch.fliplr(x) + x.flip(-1), **VIDEO),
    fn("roll of channels", lambda x: x.roll(1, 1) + x.roll((1, 2), (3, 4)), **VIDEO),
    fn("rot90 of space", lambda x: torch.rot90(x, 1, (3, 4)), **VIDEO),
    fn("diagonal of space", lambda x: x.diagonal(dim1=3, dim2=4), **VIDEO),
    fn("diagonal of space, shifted", lambda x: torch.diagonal(x, 1, 3, 4).sum(-1), **VIDEO),
    fn("diag_embed of channels", lambda x: torch.diag_embed(x.transpose(1, 2)), delay=0),
    fn("lower triangle over channels and time, by positions", lambda x: x.tril(4) + x.triu(3), delay=0),
    fn("lower triangle of space", lambda x: x.tril() + x.triu(1), **VIDEO),
    fn("as complex numbers", lambda x: torch.view_as_complex(x.transpose(1, 2).unflatten(2, (-1, 2)).contiguous()).abs(), shape=(2, 4,
        9), delay=0),
    fn("tensor.T of one row's frame", lambda m, x: x.transpose(1, 2) @ m.w.T, params={"w": (4, 3)}, delay=0),
    fn("atleast_3d, ravel of a constant", lambda m, x: torch.atleast_3d(x) + m.w.ravel()[0], params={"w": (2, 2)}, delay=0),
    fn("hstack, vstack, dstack", lambda x: torch.dstack((torch.hstack((x, x * 2)),)) if False else torch.hstack((x, x * 2)), delay=0),
    fn("sizes of space in arithmetic", lambda x: x * (x.shape[3] / 4) + x.size(1) // 2, shape=(2, 3, 9, 5), delay=0),
    fn("space to channels", lambda x: x.unflatten(4, (-1, 5)).permute(0, 1, 5, 2, 3, 4).flatten(1, 2).squeeze(-1), shape=(2, 3, 7, 4, 5),
        delay=0),
    fn("the rest of a shape", lambda x: x.reshape(*x.shape[:3], -1), **VIDEO),
]  # fmt: skip

MERGED = [
    fn("frames merged with space at the end", lambda x: x.flatten(2).mean(-1), shape=(2, 3, 7, 4), windows=True, delay=6),
    fn("everything merged", lambda x: x.flatten(1).sum(1), shape=(2, 3, 7, 4), windows=True, delay=6),
    fn("maximum of merged dimensions", lambda x: x.flatten(2).amax(-1, keepdim=True), shape=(2, 3, 7, 4), windows=True, delay=6),
]  # fmt: skip

REFUSED = [
    no("segments of the clip", lambda x: x.reshape(x.shape[0], 3, 2, -1), "splits time", "unfold|strided", shape=(2, 3, 12)),
    no("mixed up", lambda x: x.reshape(x.shape[0], x.shape[2], 3), "splits time, or mixes", "permute first"),
    no("time over channels without a permute", lambda x: x.reshape(-1, 3).reshape(x.shape), "mixes it with other dimensions|splits",
        "permute"),
    no("flip of time", lambda x: x.flip(2), "flips the clip in time", "backward branches", op="flip"),
    no("flip of everything", lambda x: torch.flip(x, (0, 1, 2)), "flips the clip|mixes the rows", "backward|other"),
    no("roll of time", lambda x: x.roll(1, 2), "rolls the clip in time", r"torch.cat\(\(zeros"),
    no("roll of the flattened clip", lambda x: x.roll(1), "rolls|mixes", "shift|other"),
    no("rows rolled", lambda x: x.roll(1, 0), "mixes the rows", "other dimensions"),
    no("clip repeated", lambda x: x.repeat(1, 1, 2), "repeats the clip", "repeat_interleave"),
    no("tiled", lambda x: x.tile(2), "repeats the clip", "repeat_interleave"),
    no("diagonal of time", lambda x: x.diagonal(dim1=1, dim2=2), "frames of the clip", "of space or channels"),
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_shapes(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", MERGED)
def test_merged_with_time(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)
