"""Step programs of random networks, rows out of step, and the counter-examples that this has found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from torch import Tensor

import continual as co
from tests.pasting import of_network
from tests.programs.refusals import BURST, MIRROR, documented
from tests.programs.rows import check_rows
from tests.strategies import networks_and_clips

EXAMPLES = settings().max_examples // 2  # each runs twice, by itself and beside others
SLICES = 3  # one test each, so that workers share them


def check(net: Any, clip: Tensor, seed: int, chunks: int, fused: bool) -> None:
    """A network is refused for a documented reason, or its rows are as streams alone."""
    note(of_network(net, clip, f"check_rows(net, clip, seed={seed}, fused={fused})  # {chunks=}"))
    try:
        program = check_rows(net, clip, seed=seed, fused=fused)
        if chunks > 1:
            check_rows(net, clip, chunks * program.chunk, seed=seed, fused=fused)
    except co.NotStreamable as error:
        if not documented(error):
            raise


@pytest.mark.parametrize("part", range(SLICES))
@given(data=st.data(), chunks=st.integers(1, 4), fused=st.booleans())
@settings(max_examples=EXAMPLES)
def test_one_dimension(part: int, data: st.DataObject, chunks: int, fused: bool):
    check(*data.draw(networks_and_clips(depth=part)), part, chunks, fused)


@given(case=networks_and_clips(depth=3), seed=st.integers(0, 99), chunks=st.sampled_from((1, 1, 3)))
@settings(max_examples=EXAMPLES)
def test_deep(case: tuple[Any, Tensor], seed: int, chunks: int):
    check(*case, seed, chunks, fused=True)


@given(case=networks_and_clips(dtype=torch.float32))
@settings(max_examples=EXAMPLES // 2)
def test_single_precision(case: tuple[Any, Tensor]):
    check(*case, 1, 1, fused=False)


@given(case=networks_and_clips(dims=2), chunks=st.integers(1, 3), fused=st.booleans())
@settings(max_examples=EXAMPLES // 2)
def test_two_dimensions(case: tuple[Any, Tensor], chunks: int, fused: bool):
    check(*case, 2, chunks, fused)


@given(case=networks_and_clips(dims=3, depth=1), chunks=st.integers(1, 2))
@settings(max_examples=EXAMPLES // 4)
def test_three_dimensions(case: tuple[Any, Tensor], chunks: int):
    check(*case, 3, chunks, fused=False)


# ---- found by the above -------------------------------------------------------------------------------------------------------


def conv(kernel: int = 3, padding: int = 1) -> co.Conv1d:
    return co.Conv1d(2, 2, kernel, padding=padding)


FOUND = {
    "warmup calls, and nothing is kept": lambda: co.Sequential(co.Unfold(1, 1, 1, 1), co.Conv1d(2, 2, 1), co.Skip(1)),
    "a network that is a residual connection": lambda: co.Residual(conv()),
    "a network of branches": lambda: co.BroadcastReduce(conv(5, 2), conv(3, 1), reduce="concat"),
    "an output of padding alone is due before the wire has frames": lambda: co.Sequential(conv(6, 2), conv(1, 1)),
    "repeated frames behind a long delay": lambda: co.Sequential(
        conv(), conv(), conv(), conv(), co.ReplicationPad1d((1, 1)), conv(3, 0)
    ),
    "mirrored frames behind a long delay": lambda: co.Sequential(
        conv(), conv(), conv(), conv(), conv(), co.ReflectionPad1d((1, 0)), conv(3, 0)
    ),
    "behind repeated frames is nothing, where a mean looks further": lambda: co.Sequential(
        co.Conv1d(2, 2, 1), co.AvgPool1d(4, 2, 1, ceil_mode=True, temporal_fill="replicate")
    ),
    "behind mirrored frames is nothing, where a mean looks further": lambda: co.AvgPool1d(
        5, 3, 2, ceil_mode=True, temporal_fill="reflect"
    ),
    "behind mirrored frames is nothing, where a maximum looks further": lambda: co.Sequential(
        conv(), co.MaxPool1d(4, 3, 1, ceil_mode=True, temporal_fill="reflect")
    ),
}
REFUSED = {  # with a chunk; a longer one may bring at once what is refused for coming at once
    ("an output of padding alone is due before the wire has frames", 1): BURST,
    ("repeated frames behind a long delay", 1): MIRROR,
    ("mirrored frames behind a long delay", 1): MIRROR,
    ("mirrored frames behind a long delay", 3): MIRROR,
}


@pytest.mark.parametrize("fused", [False, True], ids=["", "fused"])
@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("name", FOUND)
def test_found(name: str, chunk: int, fused: bool):
    """What went wrong once."""
    net, clip = FOUND[name]().double().eval(), torch.randn(2, 2, 17, dtype=torch.float64)
    if (name, chunk) in REFUSED:
        with pytest.raises(co.NotStreamable, match=REFUSED[name, chunk]):
            check_rows(net, clip, chunk, fused=fused)
    else:
        check_rows(net, clip, chunk * net.timing.period, fused=fused, seed=chunk)
