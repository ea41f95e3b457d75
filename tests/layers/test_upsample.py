"""`Upsample` over time: modes and factors, against `torch.nn` and the contract; and the refusals."""

from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import continual as co
from continual.core.resampling import Interpolation
from tests.contract import check_contract, check_gradients, check_layer, run

SPACE = {1: (), 2: (5,), 3: (4, 3)}

# (dimensions, scale factor, mode)
LAYERS: dict[str, tuple[int, Any, str]] = {
    "nearest ×2": (1, 2, "nearest"),
    "nearest ×3": (1, 3, "nearest"),
    "nearest ×1.5": (1, 1.5, "nearest"),
    "nearest ×1.25": (1, 1.25, "nearest"),
    "nearest ×0.5": (1, 0.5, "nearest"),
    "nearest ×1/3": (1, 1 / 3, "nearest"),
    "nearest ×0.75": (1, 0.75, "nearest"),
    "nearest-exact ×2": (1, 2, "nearest-exact"),
    "nearest-exact ×2.5": (1, 2.5, "nearest-exact"),
    "nearest-exact ×0.5": (1, 0.5, "nearest-exact"),
    "nearest-exact ×2/3": (1, 2 / 3, "nearest-exact"),
    "linear ×2": (1, 2, "linear"),
    "linear ×3": (1, 3, "linear"),
    "linear ×4": (1, 4, "linear"),
    "linear ×1.5": (1, 1.5, "linear"),
    "linear ×2.5": (1, 2.5, "linear"),
    "linear ×0.5": (1, 0.5, "linear"),
    "linear ×1/3": (1, 1 / 3, "linear"),
    "linear ×0.25": (1, 0.25, "linear"),
    "linear ×2/3": (1, 2 / 3, "linear"),
    "2d nearest": (2, 2, "nearest"),
    "2d nearest, time alone": (2, (2, 1), "nearest"),
    "2d nearest, both ways": (2, (0.5, 3), "nearest"),
    "2d bilinear": (2, 2, "bilinear"),
    "2d bilinear, both ways": (2, (1.5, 0.5), "bilinear"),
    "2d bilinear, time alone": (2, (3, 1), "bilinear"),
    "2d bicubic": (2, 2, "bicubic"),
    "2d bicubic, time alone": (2, (3, 1), "bicubic"),
    "2d bicubic, down": (2, (0.5, 2), "bicubic"),
    "2d bicubic ×1/3": (2, (1 / 3, 1), "bicubic"),
    "2d bicubic ×1.5": (2, (1.5, 0.5), "bicubic"),
    "3d nearest": (3, 2, "nearest"),
    "3d nearest-exact": (3, (1.5, 2, 3), "nearest-exact"),
    "3d trilinear": (3, 2, "trilinear"),
    "3d trilinear, all different": (3, (0.5, 2, 1.5), "trilinear"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name: str):
    dims, factor, mode = LAYERS[name]
    for steps in (13, 4):
        check_layer(co.Upsample(None, factor, mode), nn.Upsample(None, factor, mode), (3, 2, steps, *SPACE[dims]))


@pytest.mark.parametrize("name", LAYERS)
def test_layer_among_others(name: str):
    """After a layer whose end is known early, and before one that waits."""
    dims, factor, mode = LAYERS[name]
    net = co.Sequential(co.Trim(1), co.Delay(3), co.Upsample(None, factor, mode), co.Delay(2), co.Trim(1, 1)).double()
    check_contract(net, torch.randn(2, 2, 19, *SPACE[dims], dtype=torch.float64))


@pytest.mark.parametrize(
    "name", ["nearest ×1.5", "nearest-exact ×2/3", "linear ×3", "linear ×0.25", "2d bicubic", "3d trilinear"]
)
def test_verify(name: str):
    dims, factor, mode = LAYERS[name]
    reference = nn.Upsample(None, factor, mode)
    co.verify(co.continual(reference), torch.randn(2, 3, 16, *SPACE[dims]), reference=reference)


@pytest.mark.parametrize("cut_before", [0, 1])
@pytest.mark.parametrize(("factor", "first"), [(3, 1), (5 / 3, 2)])
def test_outputs_on_an_input_behind_a_crop_are_in_time(factor: float, first: int, cut_before: int):
    """Cubic: the first output that is left lies on an input, but the one before it waits for the next input."""
    net = co.Sequential(co.Trim(0, cut_before), co.Upsample(None, (factor, 1), "bicubic"), co.Trim(first)).double()
    co.verify(net, torch.randn(2, 3, 16, 4, dtype=torch.float64))


def test_a_neighbour_of_weight_0_counts_as_in_torch():
    net, clip = co.Upsample(None, (3, 1), "bicubic"), torch.randn(2, 2, 7, 3, dtype=torch.float64)
    clip[:, :, 3] = float("inf")
    torch.testing.assert_close(net(clip)[:, :, 7], F.interpolate(clip, None, (3, 1), "bicubic")[:, :, 7], equal_nan=True)


@pytest.mark.parametrize("name", [n for n in LAYERS if LAYERS[n][0] == 1])
def test_every_length(name: str):
    _, factor, mode = LAYERS[name]
    net, clip = co.Upsample(None, factor, mode), torch.randn(1, 1, 200, dtype=torch.float64)
    shortest = next(e for e in range(200) if net.timing.ended(e))
    for steps in range(shortest, 200):
        torch.testing.assert_close(
            net(clip[:, :, :steps]), F.interpolate(clip[:, :, :steps], None, factor, mode), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("factor", [2, 3, 5, 7, 10, 16, 100, 256, 300, 441, 480, 512])
def test_long_clips_of_repeated_frames(factor: int):
    """As a vocoder holds its pitch: single precision is enough for torch to find the right frame, or the factor is refused."""
    clip = torch.arange(2000.0).view(1, 1, -1)
    assert torch.equal(co.Upsample(scale_factor=factor)(clip), F.interpolate(clip, scale_factor=float(factor)))


@pytest.mark.parametrize(("make", "due"), [
    (lambda: co.Upsample(scale_factor=2), [2, 4, 6]),
    (lambda: co.Upsample(scale_factor=2, mode="linear"), [1, 3, 5]),
    (lambda: co.Upsample(scale_factor=3, mode="linear"), [2, 5, 8]),  # every third output lies on an input
    (lambda: co.Upsample(scale_factor=1.5), [1, 3, 4]),
    (lambda: co.Upsample(scale_factor=0.5), [0, 1, 1]),
])  # fmt: skip
def test_an_output_between_two_inputs_comes_with_the_second(make: Any, due: list[int]):
    assert [make().timing.delivered(n) for n in (1, 2, 3)] == due


def test_what_it_reports():
    net = co.Upsample(scale_factor=(2, 3), mode="bilinear")
    assert (net.receptive_field, net.delay, net.stride, net.timing.bursts) == (2, 0, (Fraction(1, 2),), True)
    assert net.timing == Interpolation(Fraction(2), "linear")
    assert "scale_factor=(2.0, 3.0), mode='bilinear'" in repr(net)
    down = co.Upsample(scale_factor=0.5, mode="linear")
    assert (down.receptive_field, down.delay, down.stride, down.timing.bursts) == (2, 1, (2,), False)
    assert down.forward_step(torch.zeros(1, 1)) is None
    assert down.forward_step(torch.ones(1, 1)).tolist() == [[0.5]]
    assert co.Upsample(scale_factor=(1, 2)).timing.receptive_field == 1


def test_space_alone():
    """A factor of 1 over time leaves it as it is, in every mode and with aligned corners."""
    for mode, corners in (("bilinear", True), ("bicubic", False), ("nearest", None), ("area", None)):
        net, reference = co.Upsample(None, (1, 1.5), mode, corners), nn.Upsample(None, (1, 1.5), mode, corners)
        check_layer(net, reference, (2, 3, 7, 5))


def test_conversion():
    net = co.continual(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv1d(2, 2, 3, padding=1)))
    assert isinstance(net[0], co.Upsample)
    assert not isinstance(co.continual(nn.Upsample(scale_factor=(1, 2))), co.Upsample)  # local in time, as any activation
    module = nn.UpsamplingNearest2d(scale_factor=2)
    check_contract(co.continual(module).double(), torch.randn(2, 3, 9, 4, dtype=torch.float64), module)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types(dtype: torch.dtype):
    check_contract(co.Upsample(scale_factor=2, mode="linear").to(dtype), torch.randn(2, 3, 9).to(dtype))


def test_whole_numbers_are_repeated():
    net, clip = co.Upsample(scale_factor=2), torch.arange(12).view(2, 1, 6)
    assert torch.equal(run(net, clip, [1, 2, 3, 0]), clip.repeat_interleave(2, 2))


def test_infinite_frames_stay_where_they_are():
    """No weight of zero is multiplied with a frame: neither beside an output that lies on an input, nor beyond the ends."""
    net, clip = co.Upsample(scale_factor=3, mode="linear"), torch.randn(1, 1, 5, dtype=torch.float64)
    clip[:, :, [2, 4]] = torch.inf
    for y in (net(clip), run(net, clip, [1, 1, 2, 1, 0])):
        assert y.isinf().flatten().nonzero().flatten().tolist() == [5, 6, 7, 8, 9, 11, 12, 13, 14]
        assert not y.isnan().any()


def test_positions_do_not_drift():
    """Ten million steps in, an output is what it would be at the start."""
    net = co.Upsample(scale_factor=1.5, mode="linear")
    net.forward_steps(torch.zeros(1, 1, 2))
    state = net.get_state()
    far = 10_000_000
    state.clock = far
    net.recount(state.node, far, far)
    early, late = co.Upsample(scale_factor=1.5, mode="linear"), net
    early.forward_steps(torch.zeros(1, 1, 2))
    late.set_state(state)
    frames = torch.randn(1, 1, 20)
    for t in range(20):
        a, b = early.forward_step(frames[:, :, t]), late.forward_step(frames[:, :, t])
        assert (a is None and b is None) or torch.equal(a, b)


def test_few_tables_are_kept():
    net = co.Upsample(scale_factor=2, mode="linear")
    for size in range(1, 200):
        net.forward_steps(torch.randn(1, 1, size))
    assert len(net._tables) <= 64
    assert "_tables" not in net.__getstate__()


def test_gradients_of_a_batch():
    net = co.Upsample(scale_factor=(2, 2), mode="bicubic").double()
    check_gradients(net, torch.randn(2, 2, 7, 4, dtype=torch.float64))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "size": ({"size": 20}, r"size=20.*length of the clip.*Remedy: scale_factor.*\(1, …\)"),
    "aligned corners": (
        {"scale_factor": 2, "mode": "linear", "align_corners": True},
        r"last output on the last input.*align_corners=False",
    ),
    "recomputed": (
        {"scale_factor": 1.5, "recompute_scale_factor": True},
        "with 3/2, clips of 2 and of 3 steps.*recompute_scale_factor=False",
    ),
    "area": ({"scale_factor": 2, "mode": "area"}, "averages over bins.*mode='nearest'.*AvgPool"),
    "no fraction": ({"scale_factor": 2**0.5}, r"1.414.* is not a fraction.*whole number"),
    "rounded lengths": (
        {"scale_factor": 0.29},
        r"0.29\) is not a fraction over time of which torch computes every length exactly",
    ),
    "rounded places": ({"scale_factor": 41}, r"41.*wrong frame for output 41, and"),
    "copied clips": ({"scale_factor": 1.25, "mode": "linear"}, r"copies clips.*up to 3 steps.*from 1.5 on"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str):
    options, message = REFUSED[name]
    with pytest.raises(co.NotStreamable, match=message):
        co.Upsample(**options)
    with pytest.raises(co.NotStreamable, match=rf"1 \(Upsample\): .*{message}"):
        co.continual(nn.Sequential(nn.ReLU(), nn.Upsample(**options)))


def test_why_they_are_refused():
    """What torch does there: it rounds a length, takes a wrong frame, copies a short clip."""
    assert F.interpolate(torch.zeros(1, 1, 100), scale_factor=0.29).shape[2] == 28
    assert F.interpolate(torch.arange(3.0).view(1, 1, 3), scale_factor=41.0)[0, 0, 41] == 0
    clip = torch.tensor([[[1.0, 2.0, 4.0, 8.0]]])
    assert F.interpolate(clip[:, :, :3], scale_factor=1.25, mode="linear")[0, 0, 1] == 2
    assert F.interpolate(clip, scale_factor=1.25, mode="linear")[0, 0, 1] != 2


def test_whole_factors_may_be_recomputed():
    options: dict[str, Any] = {"scale_factor": 3, "mode": "linear", "recompute_scale_factor": True}
    check_layer(co.Upsample(**options), nn.Upsample(**options), (2, 3, 11))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "scale_factor is a number above 0"),
        ({"scale_factor": -2}, "scale_factor is a number above 0"),
        ({"scale_factor": 2, "mode": "cubic"}, "mode is 'nearest', 'nearest-exact'"),
        ({"scale_factor": 2, "align_corners": True}, "align_corners is for the linear and cubic modes"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        co.Upsample(**options)


def test_wrong_clips():
    with pytest.raises(co.ShapeMismatch, match=r"mode 'linear' with scale_factor 2.0 does not take clips of 4 dimensions"):
        co.Upsample(scale_factor=2, mode="linear").forward_step(torch.zeros(1, 2, 3))
    with pytest.raises(co.ShapeMismatch, match="does not take clips of 3 dimensions"):
        co.Upsample(scale_factor=(2, 2))(torch.zeros(1, 2, 3))
    with pytest.raises(co.ShapeMismatch, match="can't take steps.*greater than 0"):
        co.Upsample(scale_factor=(2, 0.25)).forward_step(torch.zeros(1, 2, 3))
    net = co.Upsample(scale_factor=0.25, mode="linear")
    with pytest.raises(co.ShapeMismatch, match="a clip of 3 steps is too short for scale_factor 0.25"):
        net(torch.zeros(1, 2, 3))
    assert net.forward_steps(torch.zeros(1, 2, 3), pad_end=True) is None
