"""Modules of `torch.nn` that are local in time, and the refusal of those that are not."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import continual as co
from tests.contract import assert_equal, check_contract, check_layer


def randomized(norm: Any) -> Any:
    """A normalisation whose statistics and weights tell all channels apart."""
    for value, low in ((norm.running_mean, -1), (norm.running_var, 0.5), (norm.weight, 0.5), (norm.bias, -1)):
        if value is not None:
            nn.init.uniform_(value, low, low + 1.5)
    return norm.eval()


C1, C2, C3 = (2, 4, 9), (3, 4, 9, 5), (2, 4, 9, 3, 5)
ACTIVATIONS = [
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.LogSigmoid, nn.Tanh,
    nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Hardshrink, nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanhshrink, nn.RReLU,
    nn.PReLU, nn.Identity, nn.Dropout, nn.AlphaDropout,
]  # fmt: skip
LOCAL = {
    "threshold": (lambda: nn.Threshold(0.1, -2), C1),
    "prelu of channels": (lambda: nn.PReLU(4), C2),
    "prelu of channels 1d": (lambda: nn.PReLU(4), C1),
    "gelu tanh": (lambda: nn.GELU("tanh"), C2),
    "batch norm 1d": (lambda: randomized(nn.BatchNorm1d(4)), C1),
    "batch norm 2d": (lambda: randomized(nn.BatchNorm2d(4)), C2),
    "batch norm 3d": (lambda: randomized(nn.BatchNorm3d(4, eps=0.1)), C3),
    "batch norm not affine": (lambda: randomized(nn.BatchNorm1d(4, affine=False)), C1),
    "instance norm 1d": (lambda: randomized(nn.InstanceNorm1d(4, affine=True, track_running_stats=True)), C1),
    "instance norm 2d": (lambda: randomized(nn.InstanceNorm2d(4, affine=True, track_running_stats=True)), C2),
    "instance norm 3d": (lambda: randomized(nn.InstanceNorm3d(4, track_running_stats=True)), C3),
    "layer norm of space": (lambda: nn.LayerNorm(5), C2),
    "layer norm of planes": (lambda: nn.LayerNorm((3, 5), elementwise_affine=False), C3),
    "rms norm of space": (lambda: nn.RMSNorm(5), C2),
    "local response norm": (lambda: nn.LocalResponseNorm(3, alpha=0.5), C1),
    "local response norm of a line": (lambda: nn.LocalResponseNorm(2, alpha=0.5, beta=0.5, k=2), C2),
    "local response norm of planes": (lambda: nn.LocalResponseNorm(5, alpha=0.5), C3),
    "cross map response norm": (lambda: nn.CrossMapLRN2d(3, alpha=0.5), C2),
    "softmax of channels": (lambda: nn.Softmax(dim=1), C1),
    "softmax of space": (lambda: nn.Softmax(dim=-1), C2),
    "softmin": (lambda: nn.Softmin(dim=1), C3),
    "log softmax": (lambda: nn.LogSoftmax(dim=1), C2),
    "softmax2d": (lambda: nn.Softmax2d(), C2),
    "glu": (lambda: nn.GLU(1), C1),
    "glu from the end": (lambda: nn.GLU(-3), C2),
    "dropout1d": (lambda: nn.Dropout1d(), C1),
    "dropout2d": (lambda: nn.Dropout2d(), C2),
    "dropout3d": (lambda: nn.Dropout3d(), C3),
    "feature alpha dropout": (lambda: nn.FeatureAlphaDropout(), C2),
    "flatten of space": (lambda: nn.Flatten(3), C3),
    "flatten of nothing": (lambda: nn.Flatten(3, 3), C2),
    "unflatten of space": (lambda: nn.Unflatten(3, (1, 5)), C2),
    "upsample of a line": (lambda: nn.Upsample(scale_factor=(1, 2)), C2),
    "upsample of planes": (lambda: nn.Upsample(scale_factor=(1, 2, 3)), C3),
    "upsample bilinear": (lambda: nn.Upsample(scale_factor=(1, 2, 2), mode="trilinear"), C3),
    "adaptive average of a line": (lambda: nn.AdaptiveAvgPool2d((None, 2)), C2),
    "adaptive average of planes": (lambda: nn.AdaptiveAvgPool3d((None, 1, 1)), C3),
    "adaptive maximum of a line": (lambda: nn.AdaptiveMaxPool2d((None, 1)), C2),
    "adaptive maximum of planes": (lambda: nn.AdaptiveMaxPool3d((None, 2, 3)), C3),
} | {cls.__name__: (cls, shape) for cls, shape in zip(ACTIVATIONS, [C1, C2, C3] * 9)}


@pytest.mark.parametrize("name", LOCAL)
def test_local(name: str):
    make, shape = LOCAL[name]
    module = make().eval()
    net = co.continual(module)
    assert isinstance(net, type(module))
    assert (net.delay, net.receptive_field, net.timing.stride) == (0, 1, 1)
    check_layer(net, module, shape)


@pytest.mark.parametrize("name", LOCAL)
def test_local_after_a_delay(name: str):
    """The same frames a little later: chunks and steps reach the module in other shapes."""
    make, shape = LOCAL[name]
    check_contract(co.Sequential(co.Delay(1), make().eval(), co.Trim(1)).double(), torch.randn(shape, dtype=torch.float64))


REFUSED = {
    "instance norm without statistics": (lambda: nn.InstanceNorm1d(4), C1, "without running statistics"),
    "softmax of time": (lambda: nn.Softmax(dim=2), C1, r"Softmax\(dim=2\) runs over time"),
    "softmax of time from the end": (lambda: nn.Softmax(dim=-1), C1, "runs over time"),
    "softmax by rank": (lambda: nn.Softmax(), C1, "without `dim`"),
    "glu of time": (lambda: nn.GLU(), C1, "runs over time"),
    "layer norm of time": (lambda: nn.LayerNorm(9), C1, "time among them, with a weight for each of 9 steps"),
    "layer norm of time and space": (lambda: nn.LayerNorm((9, 5)), C2, "a weight for each of 9 steps.*co.CumulativeLayerNorm"),
    "layer norm of channels and time": (lambda: nn.LayerNorm((4, 9)), C1, "a weight for each of 9 steps.*co.CumulativeLayerNorm"),
    "layer norm of all, no weights": (
        lambda: nn.LayerNorm((4, 9, 5), elementwise_affine=False),
        C2,
        r"(?s)time among them.*co.CumulativeLayerNorm\(C, affine=False\) \(or, .* co.CumulativeInstanceNorm3d\(C\)\) in its place",
    ),
    "layer norm of channels and time, no weights": (
        lambda: nn.LayerNorm((4, 9), elementwise_affine=False),
        C1,
        r"(?s)time among them.*or co.CumulativeLayerNorm\(C, affine=False\) in its place",
    ),
    "layer norm of all": (
        lambda: nn.LayerNorm((4, 9, 5)),
        C2,
        "a weight for each step of a clip, and a stream has more. Remedies",
    ),
    "layer norm of time, no weights": (
        lambda: nn.LayerNorm((9, 5), elementwise_affine=False),
        C2,
        r"(?s)time among them.*co.WindowedInstanceNorm2d\(C, window=N\)",
    ),
    "rms norm of time": (lambda: nn.RMSNorm(9), C1, "time among them, with a weight.*Remedies"),
    "rms norm of time, no weights": (lambda: nn.RMSNorm(9, elementwise_affine=False), C1, "time among them. Remedies"),
    "flatten": (lambda: nn.Flatten(), C1, "merges time.*Reshape"),
    "flatten of the batch": (lambda: nn.Flatten(0, 1), C2, "makes time dim 1.*Reshape"),
    "flatten of time and space": (lambda: nn.Flatten(2), C2, "merges time"),
    "unflatten of channels": (lambda: nn.Unflatten(1, (2, 2)), C1, "moves or splits time"),
    "softmax2d of volumes": (lambda: nn.Softmax2d(), C3, r"use Softmax\(dim=1\)"),
    "upsample to a size": (lambda: nn.Upsample(size=(18, 10)), C2, "the same number of frames"),
    "upsample of time by the caller's word": (
        lambda: co.forward_stepping(nn.Upsample(scale_factor=2)),
        C2,
        "changes the number of frames: .*co.Upsample",
    ),
    "adaptive pool of time": (lambda: nn.AdaptiveAvgPool3d(1), C3, "over the whole clip.*kernel_size"),
    "adaptive pool to a length": (lambda: nn.AdaptiveAvgPool2d((3, 1)), C2, "over the whole clip"),
    "linear over time": (lambda: nn.Linear(9, 2), C1, "channel_dim=1"),
}


@pytest.mark.parametrize("make, shape", [(nn.BatchNorm2d, (2, 4, 3, 1)), (nn.BatchNorm3d, (2, 4, 3, 1, 1))], ids=["2d", "3d"])
def test_gradients_of_norms_on_frames_of_one_value(make: Any, shape: tuple[int, ...]):
    """Of a chunk whose gradient comes laid out as channels-last. torch 2.13 gives wrong numbers for it on CPU (found by co.verify)."""
    torch.manual_seed(0)
    norm = randomized(make(4)).double()
    x, w = torch.randn(shape, dtype=torch.float64, requires_grad=True), torch.randn(shape, dtype=torch.float64)
    over = torch.ones(4, *[1] * (len(shape) - 2), dtype=torch.float64)
    want = w * (norm.weight / (norm.running_var + norm.eps).sqrt()).view_as(over)
    channels_last = torch.empty_strided(shape, (12, 1, 4, *[1] * (len(shape) - 3)), dtype=torch.float64).copy_(w)
    got = torch.autograd.grad(co.continual(norm).forward_steps(x), x, channels_last)[0]
    assert_equal(got, want)


@pytest.mark.parametrize("name", REFUSED)
def test_what_sees_time_is_refused(name: str):
    """At the latest when the rank of the steps is known; with the module's path, the reason and the remedy."""
    make, shape, message = REFUSED[name]
    step = torch.zeros(shape)[:, :, 0]
    with pytest.raises(co.NotStreamable, match=message) as caught:
        co.continual(nn.Sequential(nn.Sequential(nn.Identity(), make()))).forward_step(step)
    assert "0.1" in str(caught.value)


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d, lambda c: nn.InstanceNorm1d(c, track_running_stats=True)], ids=["batch", "instance"]
)
@pytest.mark.parametrize("wrap", [co.continual, co.forward_stepping], ids=["converted", "forward_stepping"])
@pytest.mark.parametrize("whole", [True, False], ids=["network", "norm alone"])
def test_norms_in_training_take_the_statistics_of_what_a_call_brings(norm: Any, wrap: Any, whole: bool):
    """As torch has it, with one warning that names the path; in eval mode the stream goes on as ever."""
    inner = wrap(nn.Sequential(nn.ReLU(), norm(4)).eval())
    net, clip = co.Sequential(nn.Tanh(), co.Residual(inner)).double().eval(), torch.randn(3, 4, 12, dtype=torch.float64)
    found = [net.forward_steps(clip[:, :, :5])]
    (net if whole else inner[1]).train()
    reference = copy.deepcopy(inner[1])
    part = clip[:, :, 5:9].tanh()
    with pytest.warns(UserWarning, match=r"1\.1\.1 \(.*Norm1d\) is in training mode.*net\.eval\(\)") as warned:
        found.append(net.forward_steps(clip[:, :, 5:9]))
    assert len(warned) == 1
    assert_equal(found[-1], part + reference(part.relu()))
    assert torch.equal(inner[1].running_mean, reference.running_mean)  # it has learned
    with torch.no_grad():
        assert net.forward_steps(clip[:, :, 5:9], pad_end=True, update_state=False).shape == part.shape  # no second warning
    net.eval()
    y = net(clip)
    assert_equal(net.forward_steps(clip[:, :, 9:], pad_end=True), y[:, :, 9:])
    assert_equal(torch.stack([net.forward_step(x) for x in clip[:, :, :2].unbind(2)], 2), y[:, :, :2])


def test_several_norms_in_training_are_warned_of_once():
    net = co.Sequential(*(co.Sequential(co.Conv1d(2, 2, 3), nn.BatchNorm1d(2)) for _ in range(3))).train()
    with pytest.warns(UserWarning, match=r"0\.1 \(BatchNorm1d\) is in training mode") as warned:
        net.forward_steps(torch.randn(2, 2, 12))
    assert len(warned) == 1


# Layouts with time in another place: a module, a clip's shape and the dimension of time.
ELSEWHERE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "linear": (lambda: nn.Linear(5, 3), (2, 6, 5), 1),
    "linear, time first": (lambda: nn.Linear(5, 3), (6, 2, 5), 0),
    "layer norm": (lambda: nn.LayerNorm(5), (2, 6, 5), 1),
    "layer norm of two": (lambda: nn.LayerNorm([5, 4]), (2, 6, 5, 4), 1),
    "softmax": (lambda: nn.Softmax(-1), (2, 6, 5), 1),
    "gated": (lambda: nn.GLU(), (2, 6, 8), 1),
    "flatten": (lambda: nn.Flatten(2), (2, 6, 5, 4), 1),
    "unflatten": (lambda: nn.Unflatten(2, (2, 3)), (2, 7, 6), 1),
    "pool of images": (lambda: nn.AdaptiveAvgPool2d(2), (2, 6, 5, 4), 1),
    "upsampled images": (lambda: nn.Upsample(scale_factor=2), (2, 6, 5, 4), 1),
    "shuffled images": (lambda: nn.PixelUnshuffle(2), (2, 6, 3, 4, 8), 1),
}
SEES_TIME: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int, str]] = {
    "softmax": (lambda: nn.Softmax(1), (2, 6, 5), 1, r"Softmax\(dim=1\) runs over time"),
    "softmax, time first": (lambda: nn.Softmax(0), (6, 2, 5), 0, r"Softmax\(dim=0\) runs over time"),
    "softmax of images": (lambda: nn.Softmax2d(), (2, 6, 5, 4), 1, "got dim 1 of 4"),
    "layer norm": (lambda: nn.LayerNorm([6, 5]), (2, 6, 5), 1, "last 2 of 3 dimensions, time among them, with a weight for each of 6"),
    "flatten": (lambda: nn.Flatten(1), (2, 6, 5), 1, "merges time with other dimensions; start at dim 2"),
    "unflatten": (lambda: nn.Unflatten(1, (2, 3)), (2, 6, 5), 1, "moves or splits time"),
    "linear": (lambda: nn.Linear(6, 3), (2, 4, 5, 6), 3, "acts on the last dimension"),
}  # fmt: skip


@pytest.mark.parametrize("name", ELSEWHERE)
def test_time_in_another_dimension(name: str):
    make, shape, dim = ELSEWHERE[name]
    module, clip = make().eval(), torch.randn(shape)
    net = co.forward_stepping(module, dim=dim)
    assert torch.equal(net(clip), module(clip))
    co.verify(net, clip)


@pytest.mark.parametrize("name", SEES_TIME)
def test_what_sees_time_in_another_dimension_is_refused(name: str):
    make, shape, dim, message = SEES_TIME[name]
    net, clip = co.forward_stepping(make(), dim=dim), torch.randn(shape)
    for method, x in ((net.forward_steps, clip), (net.forward_step, clip.select(dim, 0))):
        with pytest.raises(co.NotStreamable, match=message):
            method(x)


def in_training() -> co.CoModule:
    """Norms behind convolutions with padding, in branches of different delays."""
    branches = [co.Sequential(co.Conv1d(4, 4, k, padding=k // 2), nn.BatchNorm1d(4), nn.ReLU()) for k in (1, 3, 7)]
    net = co.Sequential(co.BroadcastReduce(*branches, reduce="concat"), co.Conv1d(12, 3, 5, padding=2), nn.BatchNorm1d(3))
    return net.double().train()


@pytest.mark.filterwarnings("ignore:.*is in training mode")
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("pure", [False, True])
def test_a_whole_clip_in_training_is_normalised_as_one(grad: bool, pure: bool):
    net, clip = in_training(), torch.randn(3, 4, 19, dtype=torch.float64)
    reference = copy.deepcopy(net)
    y = reference(clip)
    with torch.set_grad_enabled(grad):
        if pure:
            found, state = net.steps(clip, net.init_state(clip[:, :, 0]), pad_end=True)
        else:
            assert_equal(copy.deepcopy(net).forward_steps(clip, pad_end=True, update_state=False), y)
            found = net.forward_steps(clip, pad_end=True)
            state = net.get_state()
    assert_equal(found, y)
    assert found.requires_grad == grad
    learned = [[b.double() for b in module.buffers()] for module in (net, reference)]
    assert_equal(*learned)  # once, also where the state needs another pass
    without = in_training()
    without.load_state_dict(net.state_dict())
    without.forward_steps(clip)  # the stream goes on as if the end had not been asked for
    if grad:
        found.sum().backward()
    assert_equal(list(state), list(without.get_state()))


@pytest.mark.filterwarnings("ignore:.*is in training mode")
def test_a_chunk_in_training_is_not_split(monkeypatch: pytest.MonkeyPatch):
    """What a call brings is normalised as one, also where a long chunk runs in pieces otherwise."""
    net, clip = in_training(), torch.randn(3, 4, 40, dtype=torch.float64)
    with torch.no_grad():
        found = copy.deepcopy(net).forward_steps(clip)
        monkeypatch.setattr("continual.core.stream.pieces", lambda x, largest: list(x.split(7, 2)))
        assert_equal(net.forward_steps(clip), found)


@pytest.mark.parametrize("grad", [False, True])
def test_a_step_in_training_is_normalised_by_its_own_statistics(grad: bool):
    net, x = co.Sequential(co.Delay(1), nn.BatchNorm2d(3)).double().train(), torch.randn(2, 2, 3, 5, dtype=torch.float64)
    reference = copy.deepcopy(net[1])
    with torch.set_grad_enabled(grad):
        with pytest.warns(UserWarning, match=r"1 \(BatchNorm2d\) is in training mode"):
            assert net.forward_step(x[0]) is None
        y = net.forward_step(x[1])
    assert_equal(y, reference.forward(x[0].unsqueeze(2)).squeeze(2))
    assert copy.deepcopy(net)[1].__dict__.get("_warned") is None  # a copy warns for itself


def test_a_norm_of_single_frames_may_be_in_training():
    """Without running statistics, and with time in the batch, there is nothing that a stream has not seen."""

    class Frames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.InstanceNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x.movedim(2, 1).flatten(0, 1)).unflatten(0, (len(x), -1)).movedim(1, 2)

    check_contract(co.forward_stepping(Frames().train()), torch.randn(2, 3, 7, 4, 5))


def test_cross_map_response_norm_takes_lines_only():
    with pytest.raises(co.ShapeMismatch, match=r"0 \(CrossMapLRN2d\): can't take steps .*4D"):
        co.continual(nn.Sequential(nn.CrossMapLRN2d(3))).forward_step(torch.zeros(2, 4, 3, 5))


def test_inplace_modules_do_not_change_what_the_layer_before_keeps():
    """An in-place activation after a delay would overwrite the frames that wait."""
    net = co.continual(nn.Sequential(co.Delay(2), nn.ReLU(inplace=True)))
    check_contract(net, torch.randn(2, 3, 9))
    clip = torch.randn(2, 3, 9)
    before = clip.clone()
    co.continual(nn.ReLU(inplace=True)).forward_steps(clip)
    assert torch.equal(clip, before)


def test_steps_that_a_module_can_not_take():
    """Whatever torch raises for them."""
    for module in (nn.Upsample(scale_factor=(1, 2)), nn.UpsamplingNearest2d(scale_factor=(1, 2)), nn.Unflatten(3, (2, 3))):
        net = co.continual(nn.Sequential(module))
        with pytest.raises(co.ShapeMismatch, match=rf"0 \({type(module).__name__}\): can't take steps"):
            net.forward_step(torch.zeros(2, 4, 5, 5) if not isinstance(module, nn.Unflatten) else torch.zeros(2, 4, 5))
        assert net.get_state() is None


def test_pixel_shuffle_works_on_every_frame():
    """torch.nn would take the time of a clip for its channels."""
    shuffle, clip = nn.PixelShuffle(2), torch.randn(2, 8, 9, 3, 5, dtype=torch.float64)
    net = co.continual(shuffle)
    assert torch.equal(net(clip), torch.stack([shuffle(f) for f in clip.unbind(2)], 2))
    check_contract(net, clip)
    check_contract(co.Sequential(nn.PixelUnshuffle(3), nn.ChannelShuffle(2)), torch.randn(2, 2, 9, 3, 6, dtype=torch.float64))
    with pytest.raises(co.ShapeMismatch, match=r"takes steps \(B, C, H, W\)"):
        net.forward_step(torch.zeros(2, 8, 3))


def test_batch_norm_that_takes_the_clips_statistics_is_refused():
    with pytest.raises(co.NotStreamable, match="track_running_stats=False"):
        co.continual(nn.BatchNorm1d(3, track_running_stats=False))
    for module in (nn.BatchNorm1d(3), nn.Sequential(nn.Identity(), nn.BatchNorm1d(3))):
        net = co.forward_stepping(module)
        with pytest.warns(UserWarning, match="training mode"):
            net.forward_steps(torch.randn(2, 3, 5))
        net.eval()
        assert net.forward_steps(torch.randn(2, 3, 5)).shape == (2, 3, 5)
        net.train()
        assert net(torch.randn(2, 3, 5)).shape == (2, 3, 5)  # training on clips goes on as ever
