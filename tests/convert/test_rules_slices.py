"""Parts of tensors in graphs, and tensors put together, of time and of other dimensions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.convert.rows import No, Row, check_refused, check_row, fn, no

ROWS = [
    fn("first frames off", lambda x: x[:, :, 2:], delay=2),
    fn("last frames off", lambda x: x[:, :, :-3], delay=3),
    fn("both off", lambda x: x[:, :, 1:-2], delay=3),
    fn("last frames off, by the length", lambda x: x[:, :, : x.shape[2] - 2], delay=2),
    fn("narrow by the length", lambda x: x.narrow(2, 1, x.shape[2] - 3), delay=3),
    fn("every other frame", lambda x: x[:, :, ::2], delay=0),
    fn("every third frame from the second on", lambda x: x[:, :, 1::3], delay=1),
    fn("every other frame without the last", lambda x: x[:, :, :-1:2], delay=1),
    fn("the whole clip", lambda x: x[:, :, :] * 2 + x[:, :, 0:] + x[..., : x.shape[2]], delay=0),
    fn("causal convolution: padded on both sides and cut", lambda m, x: F.conv1d(x, m.w, padding=4)[:, :, :-4], params={"w": (4, 3, 5)},
        delay=0),
    fn("cut by a negative pad", lambda x: F.pad(x, (-1, -2)), delay=3),
    fn("channels", lambda x: x[:, 1:] * x[:, :2] + x[:, ::2], delay=0),
    fn("channels from the end", lambda x: x[:, -2:] + x[:, :-1], delay=0),
    fn("one channel", lambda x: x[:, 1] - x[:, -1], delay=0),
    fn("space", lambda x: x[:, :, :, 1:3, ::2] + x[:, :, :, 1:3, -1:], shape=(2, 3, 7, 4, 5), delay=0),
    fn("select and narrow of channels", lambda x: x.select(1, -1).unsqueeze(1) + x.narrow(1, 0, 2), delay=0),
    fn("chunks of channels", lambda x: (lambda a, b: a * b.sigmoid())(*x.chunk(2, 1)), shape=(2, 6, 9), delay=0),
    fn("split of channels", lambda x: (lambda a, b, c: a + b * c)(*torch.split(x, 2, 1)), shape=(2, 6, 9), delay=0),
    fn("split by sizes", lambda x: (lambda a, b: torch.cat((b, a), 1))(*x.split([1, 2], 1)), delay=0),
    fn("split, channels last", lambda x: (lambda a, b: a * b)(*x.split(3, -1)), shape=(2, 8, 6), time=1, delay=0),
    fn("tensor_split, by number and by places", lambda x: x.tensor_split(2, 1)[0] + x.tensor_split((1, 3), 1)[1], delay=0),
    fn("hsplit of channels", lambda x: torch.hsplit(x, 3)[2], delay=0),
    fn("dsplit of space", lambda x: x.movedim(2, -1).dsplit(2)[1].movedim(-1, 2), shape=(2, 3, 8, 4), delay=0),
    fn("unbind of channels", lambda x: (lambda a, b, c: a * b + c)(*x.unbind(1)), delay=0),
    fn("for c in channels", lambda x: sum(c * i for i, c in enumerate(x.unbind(1), 1)), delay=0),
    fn("a frame minus the one before", lambda x: x[:, :, 1:] - x[:, :, :-1], delay=1),
    fn("second differences", lambda x: x[:, :, 2:] - 2 * x[:, :, 1:-1] + x[:, :, :-2], delay=2),
    fn("torch.diff over time", lambda x: torch.diff(x, dim=2), delay=1),
    fn("torch.diff twice", lambda x: torch.diff(x, 2, dim=2), delay=2),
    fn("torch.diff of channels", lambda x: torch.diff(x, dim=1), delay=0),
    fn("residual of a valid convolution", lambda m, x: x[:, :, 1:-1] + F.conv1d(x, m.w), params={"w": (3, 3, 3)}, delay=2),
    fn("residual cut at the start", lambda m, x: x[:, :, -F.conv1d(x, m.w).shape[2] :] + F.conv1d(x, m.w), params={"w": (3, 3, 4)},
        delay=3),
    fn("rows of an index", lambda x: x[:, [2, 0, 0]], delay=0),
    fn("index_select of channels", lambda x: x.index_select(1, torch.tensor([2, 1])), delay=0),
    fn("gather of space", lambda x: x.gather(3, torch.tensor([1, 0, 3]).expand(x.shape[0], 3, x.shape[2], 3)), shape=(2, 3, 7, 4),
        delay=0),
    fn("take_along_dim by the stream", lambda x: torch.take_along_dim(x, x.argsort(1), 1), delay=0, verify=False),
    fn("index of space by a buffer", lambda m, x: x[:, :, :, m.i], buffers=lambda: {"i": torch.tensor([3, 1])}, shape=(2, 3, 7, 4),
        delay=0),
    fn("index of two dimensions of space", lambda m, x: x[:, :, :, m.i, m.i], buffers=lambda: {"i": torch.tensor([3, 1, 0])}, shape=(2,
        3, 7, 4, 5),
       delay=0),
    fn("index by a mask of channels", lambda m, x: x[:, m.i], buffers=lambda: {"i": torch.tensor([True, False, True])}, delay=0),
    fn("index_add of channels", lambda x: torch.zeros_like(x).index_add(1, torch.tensor([2, 0, 2]), x), delay=0),
    fn("scatter_add of channels", lambda x: torch.zeros_like(x).scatter_add(1, torch.tensor([2, 0, 2])[None, :, None].expand_as(x), x),
        delay=0,
       verify=False),
    fn("masked select by where", lambda m, x: torch.where(m.i[:, None], x, -x), buffers=lambda: {"i": torch.tensor([True, False, True])},
        delay=0),
    fn("top k of channels", lambda x: x.topk(2, 1).values, delay=0),
    fn("sorted channels", lambda x: x.sort(1, descending=True)[0] + x.sort(dim=1).values, delay=0),
    fn("median of channels", lambda x: x.median(1).values + x.kthvalue(2, 1).values, delay=0),
    fn("quantile of channels", lambda x: x.quantile(0.3, dim=1), delay=0, verify=False),
]  # fmt: skip

LAST = [
    fn("the last frame", lambda x: x[:, :, -1], windows=True, delay=12),
    fn("the last frame, kept", lambda x: x[:, :, -1:], windows=True, delay=12),
    fn("the last frame by its number", lambda x: x.select(2, x.shape[2] - 1), windows=True, delay=12),
    fn("the first frame", lambda x: x[:, :, 0], windows=True, delay=12),
    fn("the frame in the middle", lambda x: x[:, :, x.shape[2] // 2], windows=True, delay=12),
    fn("the third from the end", lambda x: x[:, :, -3] * 2, windows=True, delay=12),
    fn("the first and the last", lambda x: x[:, :, 0] - x[:, :, -1], windows=True, delay=12),
    fn("the last step of (B, T, C)", lambda x: x[:, -1], shape=(2, 8, 5), time=1, windows=True, delay=7),
    fn("the last step of (T, B, C)", lambda x: x[-1], shape=(8, 2, 5), time=0, windows=True, delay=7),
    fn("the last frame of features", lambda m, x: F.relu(F.conv1d(x, m.w))[:, :, -1], params={"w": (4, 3, 3)}, windows=True, delay=12),
]  # fmt: skip

JOINS = [
    fn("channels", lambda x: torch.cat((x, x * 2, x[:, :1]), 1), delay=0),
    fn("channels, aligned", lambda m, x: torch.cat((x[:, :, :-2], F.conv1d(x, m.w)), 1), params={"w": (4, 3, 3)}, delay=2),
    fn("channels with a constant", lambda m, x: torch.cat((x, m.p.expand(x.shape[0], -1, x.shape[2])), 1), params={"p": (1, 2, 1)},
        delay=0),
    fn("channels with zeros", lambda x: torch.cat((x, x.new_zeros(x.shape[0], 2, x.shape[2])), 1), delay=0),
    fn("channels with torch.ones", lambda x: torch.cat((x, torch.ones(x.shape[0], 2, x.shape[2], dtype=x.dtype)), 1), delay=0),
    fn("space", lambda x: torch.cat((x, x.flip(3)), 3), shape=(2, 3, 7, 4), delay=0),
    fn("concat, concatenate, hstack", lambda x: torch.concat((x, torch.concatenate((x, torch.hstack((x, x))), 1)), 1), delay=0),
    fn("stack", lambda x: torch.stack((x, x.exp(), x.sin()), 1), delay=0),
    fn("stack at the end, aligned", lambda x: torch.stack((x[:, :, 1:], x[:, :, :-1]), -1), delay=1),
    fn("stack with a constant", lambda m, x: torch.stack((x, m.p.expand_as(x)), 2), params={"p": (3, 1)}, delay=0),
    fn("column_stack", lambda x: torch.column_stack((x, x * 2)), delay=0),
    fn("zeros before", lambda x: torch.cat((torch.zeros_like(x[:, :, :2]), x), 2), delay=0),
    fn("zeros behind", lambda x: torch.cat((x, x.new_zeros(x.shape[0], 3, 2)), 2), delay=0),
    fn("ones before", lambda x: torch.cat((x.new_ones(x.shape[0], x.shape[1], 1), x), 2), delay=0),
    fn("torch.zeros before", lambda x: torch.cat((torch.zeros(x.shape[0], 3, 2, dtype=x.dtype), x), 2), delay=0),
    fn("a constant before and behind", lambda m, x: torch.cat((m.p.expand(x.shape[0], -1, -1), x, m.q.expand(x.shape[0], -1, -1)), 2),
       params={"p": (1, 3, 2), "q": (1, 3, 1)}, delay=0),
    fn("a learned first token", lambda m, x: torch.cat((m.p.expand(x.shape[0], -1, -1), x), 1), params={"p": (1, 1, 5)}, shape=(2, 8, 5),
        time=1,
       delay=0),
    fn("a learned first token by repeat", lambda m, x: torch.cat((m.p.repeat(x.shape[0], 1, 1), x), 1), params={"p": (1, 1, 5)},
        shape=(2, 8, 5),
       time=1, delay=0),
    fn("zeros before (T, B, C)", lambda x: torch.cat((x.new_zeros(1, *x.shape[1:]), x)), shape=(8, 2, 5), time=0, delay=0),
    fn("a shift by one frame", lambda x: torch.cat((torch.zeros_like(x[:, :, :1]), x[:, :, :-1]), 2), delay=0),
    fn("a temporal shift with zeros of the first frames' channels", lambda x: torch.cat((
        torch.cat((torch.zeros_like(x[:, :2, :1]), x[:, :-2, :1]), 1), torch.cat((x[:, 1:, 1:3], torch.zeros_like(x[:, :1, 1:3])), 1),
        x[:, :, 3:]), 2), shape=(2, 9, 5), time=1),
    fn("ones of the first frames' space", lambda x: torch.cat((torch.ones_like(x[:, :, :2].narrow(3, 1, 2)), x[:, :, :-2, 1:3]), 2),
        shape=(2, 3, 9, 5)),
    fn("a shift into the past", lambda x: torch.cat((x[:, :, 1:], x.new_zeros(x.shape[0], 3, 1)), 2), delay=1),
    fn("a learned token and a shift", lambda m, x: torch.cat((m.p.expand(x.shape[0], -1, -1), x[:, :, :-1]), 2), params={"p": (1, 3, 1)},
        delay=0),
    fn("a temporal shift module", lambda x: torch.cat((F.pad(x[:, :2, 1:], (0, 1)), F.pad(x[:, 2:3, :-1], (1, 0)), x[:, 3:]), 1),
        shape=(2, 6, 9),
       delay=1),
    fn("meshgrid of space", lambda x: x + torch.meshgrid(torch.arange(4, dtype=x.dtype), torch.arange(5, dtype=x.dtype),
        indexing="ij")[1],
       shape=(2, 3, 7, 4, 5), delay=0),
]  # fmt: skip

REFUSED = [
    no("the first frames alone, used", lambda x: x[:, :, :4] * 2, "takes the first 4 frames of the clip alone", "zeros before"),
    no("the last three frames", lambda x: x[:, :, -3:], "takes the last 3 frames", "the last one alone.*window", op="slice"),
    no("the last frames, more than there are", lambda x: x[:, :, -1000:] * 2, "takes the last 1000 frames", "window"),
    no("a cut at the start by the length", lambda x: x[:, :, x.shape[2] // 2 :], "cuts 6 of 13 frames off the start", "fixed number"),
    no("split in time", lambda x: x.chunk(2, 2)[0], "splits the clip in time", "windows", shape=(2, 3, 12)),
    no("frames one behind the other", lambda x: torch.cat((x, x * 2), 2), "one stream behind the other in time", "over channels"),
    no("mirrored by hand", lambda x: torch.cat((x.flip(2), x), 2), "flips the clip|behind the other", "", shape=(2, 3, 13)),
    no("rows joined", lambda x: torch.cat((x, x), 0), "rows", "reshape|batch"),
    no("a frame by its number twice", lambda x: x[:, :, [0, 3]], "chooses frames of the clip by their number", "slices"),
    no("frames chosen", lambda x: x.index_select(2, torch.tensor([0, 5])), "chooses frames of the clip", "slices, or pooling"),
    no("sorted frames", lambda x: x.sort(2).values, "orders the frames", "order channels|maxima"),
    no("top k frames", lambda x: x.topk(3, 2).values, "orders the frames", "order channels|maxima"),
    no("a row of the batch", lambda x: x[1:], "rows of the batch", "keep the batch"),
    no("a boolean mask of the stream", lambda x: x * x[x > 0].mean(), "values of the stream", "torch.where"),
    no("the clip backwards by an index", lambda x: x[:, :, torch.arange(x.shape[2] - 1, -1, -1)], "frames of the clip by their number",
        "slices"),
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_parts(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", LAST)
def test_single_frames(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", JOINS)
def test_joins(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)
