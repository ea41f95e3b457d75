"""Ends of streams that come with later steps of others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.programs.test_stream_batch import batch, network
from tests.programs.test_stream_rows import NETWORKS, present, streams_of


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "windows"])
@pytest.mark.parametrize("length", [0, 1, 2, 9, 10])
def test_an_end_comes_with_later_steps(name: str, length: int):
    net, clip = NETWORKS[name](), torch.randn(3, 24, dtype=torch.float64)
    streams, alone = streams_of(net, 4, shards=2), streams_of(net, 2)
    ids, other = [streams.open() for _ in range(3)], alone.open()
    got: dict[Any, list[Tensor]] = {i: [] for i in ids}
    for t in range(length):
        for i, y in streams.step({i: clip[:, t] for i in ids[:2]}).items():
            got[i] += [] if y is None else list(y.unbind(1)) if y.ndim > 1 else [y]
        alone.step({other: clip[:, t]})
    rest = alone.flush(other)
    want = [] if rest is None else list(rest.unbind(1))
    streams.finish(ids[0])
    assert streams.ending == [ids[0]]
    assert ids[0] not in streams
    calls, ends = streams.statistics.calls, list[Tensor]()
    for t in range(24):
        out = streams.step({ids[2]: clip[:, t]} if t % 2 else {})
        if ids[0] in out:
            ends += [] if out[ids[0]] is None else list(out[ids[0]].unbind(1))
    assert not streams.ending
    assert len(ends) == len(want)
    assert all(torch.equal(a, b) for a, b in zip(ends, want, strict=True))
    assert streams.statistics.calls - calls <= 24 + 12
    left = streams.flush(ids[1])  # of the second row: torch may sum it in another order than the first
    assert (left is None) == (rest is None)
    if rest is not None:
        assert_equal(left, rest, "another stream")
    assert len({int(streams.rows([streams.open()])[0]) for _ in range(2)}) == 2, "the row is free"


def test_a_stream_that_ends_takes_no_more():
    streams, clip = batch(1), torch.randn(3, 9, dtype=torch.float64)
    streams.open("a")
    row = streams.rows(["a"])
    streams.step_rows(row, clip[None, :, :4])
    streams.finish("a")
    for call in (lambda: streams.step({"a": clip[:, 4]}), lambda: streams.finish("a"), lambda: streams.snapshot("a")):
        with pytest.raises(KeyError, match="it was finished, and takes no more frames"):
            call()
    with pytest.raises(KeyError, match="of no open stream"):
        streams.step_rows(row, clip[None, :, 4])
    with pytest.raises(co.CapacityError, match="'a' is open already"):
        streams.open("a")
    with pytest.raises(co.CapacityError, match="all 1 streams are in use"):
        streams.open("b")
    streams.close("a")  # what is still to come is given up
    assert streams.open("b") == "b"
    found = present(*streams.step_rows(streams.rows(["b"]), clip[None]))[0]
    streams.finish("b")
    ends = []
    while "b" in streams.ending:
        streams.step_rows([], torch.zeros(0, 3, dtype=torch.float64))
        ends += streams.ended()
    assert [e.stream for e in ends] == ["b"] * len(ends)
    assert [e.done for e in ends] == [False] * (len(ends) - 1) + [True]
    found += [y for e in ends if e.y is not None for y in e.y.unbind(1)]
    assert_equal(torch.stack(found, 1), network()(clip[None])[0], "a row that was given up and used again")


def test_an_end_that_is_refused_leaves_the_stream_open():
    path = co.Sequential(co.Conv1d(2, 2, 3, stride=3), co.ConvTranspose1d(2, 2, 1, stride=3, output_padding=2))
    net = co.BroadcastReduce(nn.Identity(), path, reduce="concat").double().eval()
    streams = co.StreamBatch(net, torch.zeros(1, 2, dtype=torch.float64), backend="eager")
    stream, clip = streams.open(), torch.randn(2, 6).double()
    found = [streams.step({stream: clip[:, t]})[stream] for t in range(4)]
    with pytest.raises(co.ShapeMismatch, match="ends after 4 steps"):
        streams.finish(stream)
    assert not streams.ending
    found += [streams.step({stream: clip[:, t]})[stream] for t in (4, 5)]
    streams.finish(stream)
    while streams.ending:
        found += streams.step({}).values()
    assert_equal(torch.cat([y for y in found if y is not None], 1), net(clip[None])[0], "the stream")


def test_a_long_end_adds_one_call_to_each_step_of_others():
    """`flush` of a delay of 255 ran 255 calls while all others waited."""
    wide = co.Residual(co.Conv1d(3, 3, 257, padding=128)).double().eval()
    streams = streams_of(wide, 4)
    assert wide.delay == 128
    a, b = streams.open(), streams.open()
    for _ in range(3):
        streams.step({a: torch.randn(3).double(), b: torch.randn(3).double()})
    calls = streams.statistics.calls
    streams.finish(a)
    assert streams.statistics.calls == calls
    for n in range(1, 5):
        streams.step({b: torch.randn(3).double()})
        assert streams.statistics.calls == calls + n
