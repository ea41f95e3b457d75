"""`Delay`, `Skip`, `Trim`: the same frames, later or fewer."""

from typing import Any

import pytest
import torch
from torch import Tensor

import continual as co
from tests.contract import check_contract, check_gradients

# (module, delay, frames cut at the start, at the end)
CASES = {
    "delay 0": (lambda: co.Delay(0), 0, 0, 0),
    "delay 1": (lambda: co.Delay(1), 1, 0, 0),
    "delay 5": (lambda: co.Delay(5), 5, 0, 0),
    "shrink": (lambda: co.Delay(2, auto_shrink=True), 4, 2, 2),
    "shrink centered": (lambda: co.Delay(3, auto_shrink="centered"), 6, 3, 3),
    "shrink lagging": (lambda: co.Delay(3, auto_shrink="lagging"), 3, 0, 3),
    "shrink by nothing": (lambda: co.Delay(0, auto_shrink=True), 0, 0, 0),
    "skip": (lambda: co.Skip(3), 3, 3, 0),
    "skip nothing": (lambda: co.Skip(0), 0, 0, 0),
    "trim": (lambda: co.Trim(1, 2), 3, 1, 2),
    "trim the end": (lambda: co.Trim(0, 4), 4, 0, 4),
    "trim nothing": (lambda: co.Trim(), 0, 0, 0),
}


@pytest.mark.parametrize("shape", [(2, 3, 13), (3, 2, 13, 5), (2, 1, 13, 3, 5)], ids=["1d", "2d", "3d"])
@pytest.mark.parametrize("name", CASES)
def test_shifts(name: str, shape: tuple[int, ...]):
    make, delay, first, last = CASES[name]
    for dtype in (torch.float64, torch.float32, torch.float16, torch.int64):
        net: Any = make()
        clip = torch.randn(shape).mul(9).to(dtype)
        assert net.delay == delay
        assert torch.equal(net(clip), clip[:, :, first : 13 - last])
        if dtype.is_floating_point:
            check_contract(net, clip)
    check_gradients(make(), torch.randn(shape, dtype=torch.float64))


@pytest.mark.parametrize("name", ["delay 5", "shrink", "trim", "trim the end", "skip"])
def test_every_frame_is_the_one_it_should_be(name: str):
    """Whole numbers, far beyond the ring's size: frame ``t`` brings frame ``t - last``, exactly."""
    make, _, first, last = CASES[name]
    net: Any = make()
    late = last if first or last else 5
    with torch.no_grad():
        for t in range(50):
            y = net.forward_step(torch.full((2, 1), float(t)))
            if t - late < first:
                assert y is None
            else:
                assert y.tolist() == [[t - late]] * 2


def test_the_output_of_a_delay_is_no_view_of_its_ring():
    net, kept = co.Delay(2), []
    with torch.no_grad():
        for t in range(12):
            kept.append(net.forward_step(torch.full((1, 1), float(t))))
    assert [int(y) for y in kept[2:]] == list(range(10))


def test_the_input_may_be_overwritten_after_the_call():
    net, frame = co.Delay(1), torch.zeros(1, 1)
    found = []
    with torch.no_grad():
        for t in range(5):
            found.append(net.forward_step(frame.fill_(t)))
    assert [int(y) for y in found[1:]] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["shrink", "skip", "trim"])
def test_a_clip_that_is_cut_to_nothing_is_refused(name: str):
    make, _, first, last = CASES[name]
    net: Any = make()
    short: Tensor = torch.zeros(1, 1, first + last)
    with pytest.raises(co.ShapeMismatch, match=f"cuts {first} \\+ {last} frames, but the clip has {first + last}"):
        net(short)
    assert net.forward_steps(short, pad_end=True) is None


BAD = {
    "negative delay": (lambda: co.Delay(-1), "from 0 up, got -1"),
    "unknown shrink": (lambda: co.Delay(1, auto_shrink="leading"), "auto_shrink is"),
    "unknown fill": (lambda: co.Delay(1, temporal_fill="ones"), "temporal_fill is"),
    "negative skip": (lambda: co.Skip(-1), "Skip cuts 0 frames or more"),
    "negative trim": (lambda: co.Trim(0, -2), "Trim cuts 0 frames or more"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name: str):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()


def test_what_a_delay_prints():
    """What differs from the defaults."""
    shown = {
        "Delay(2)": co.Delay(2),
        "Delay(3, temporal_fill='neg_inf')": co.Delay(3, "neg_inf"),
        "Delay(1, auto_shrink=True)": co.Delay(1, auto_shrink="centered"),
        "Delay(1, temporal_fill='replicate', auto_shrink='lagging')": co.Delay(1, co.PaddingMode.REPLICATE, "lagging"),
    }
    assert {repr(delay) for delay in (*shown.values(), co.Delay(2, "zeros"))} == set(shown)
