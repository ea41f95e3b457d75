"""`co.continual`, `register` and `forward_stepping`."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import continual as co
from tests.contract import assert_equal, check_contract, check_gradients


def clip(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


# ---- what is converted ----------------------------------------------------------------------------------------------

REGISTERED = [
    (nn.Conv1d(2, 3, 3), co.Conv1d, (2, 2, 9)),
    (nn.Conv2d(2, 3, 3, padding=1), co.Conv2d, (2, 2, 9, 5)),
    (nn.Conv3d(2, 3, 3, padding=1), co.Conv3d, (2, 2, 9, 3, 5)),
    (nn.AvgPool1d(3), co.AvgPool1d, (2, 2, 9)),
    (nn.AvgPool2d(3, 1, 1), co.AvgPool2d, (2, 2, 9, 5)),
    (nn.AvgPool3d(2), co.AvgPool3d, (2, 2, 9, 3, 5)),
    (nn.MaxPool1d(3), co.MaxPool1d, (2, 2, 9)),
    (nn.MaxPool2d(3, 1, 1), co.MaxPool2d, (2, 2, 9, 5)),
    (nn.MaxPool3d(2), co.MaxPool3d, (2, 2, 9, 3, 5)),
    (nn.Linear(5, 2), co.Linear, (2, 2, 9, 5)),
    (nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU()), co.Sequential, (2, 2, 9)),
]


@pytest.mark.parametrize("module, cls, shape", REGISTERED, ids=[type(m).__name__ for m, _, _ in REGISTERED])
def test_registered(module: nn.Module, cls: type, shape: tuple[int, ...]):
    module = module.double()
    net = co.continual(module)
    assert type(net) is cls
    assert list(net.state_dict()) == list(module.state_dict())
    check_contract(net, clip(*shape), module)
    assert not isinstance(module, co.CoModule)
    assert type(cls.build_from(module)) is cls


class Renamed(nn.Conv1d):
    """Another constructor, the same computation."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, padding=1)
        self.note = "mine"


class Scaled(nn.Conv1d):
    """Another computation."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Standardized(nn.Conv1d):
    """Another computation, in the method that torch's `forward` calls."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight / weight.std(), bias)


class MyReLU(nn.ReLU):
    """Nothing changed."""


class Odd(nn.ReLU):
    """Another computation."""

    def forward(self, input: Tensor) -> Tensor:
        return input.cumsum(2)


class MySequential(nn.Sequential):
    """Nothing changed."""


def test_subclasses_with_the_same_forward_are_converted():
    module = MySequential(Renamed(2), MyReLU()).double()
    net = co.continual(module)
    assert isinstance(net[0], Renamed)
    assert isinstance(net[1], MyReLU)
    assert net[0].note == "mine"
    check_contract(net, clip(2, 2, 9), module)
    twin = copy.deepcopy(net)
    assert_equal(twin(x := clip(2, 2, 9)), net(x))


@pytest.mark.parametrize("module", [Scaled(2, 2, 3), Standardized(2, 2, 3), Odd()], ids=lambda m: type(m).__name__)
def test_subclasses_with_another_forward_are_refused(module: nn.Module):
    name = type(module).__name__
    with pytest.raises(co.NotStreamable, match=f"1.0 \\({name}\\) can't be converted.*forward of (Conv1d|ReLU)") as caught:
        co.continual(nn.Sequential(nn.ReLU(), nn.Sequential(module)))
    assert f"co.convert.register({name}" in str(caught.value)


def test_nested_sequentials_keep_their_names():
    inner = nn.Sequential()
    inner.add_module("conv", nn.Conv1d(2, 4, 3, padding=1))
    inner.add_module("norm", nn.BatchNorm1d(4))
    module = nn.Sequential(inner, nn.GLU(1), nn.Sequential(nn.MaxPool1d(2), nn.Sequential())).double().eval()
    net = co.continual(module)
    assert list(net.state_dict()) == list(module.state_dict())
    check_contract(net, clip(2, 2, 12), module)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_weight_norm(dims: int):
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    module = nn.Sequential(weight_norm(conv(2, 3, 3, padding=1)), nn.ELU(), weight_norm(conv(3, 2, 1))).double()
    net = co.continual(module)
    assert list(net.state_dict()) == list(module.state_dict())
    x = clip(2, 2, 11, *(5, 4)[: dims - 1])
    check_contract(net, x, module)
    check_gradients(net, x)
    with torch.no_grad():
        net[0].parametrizations.weight.original0.mul_(3)
    check_contract(net, x)
    nn.utils.parametrize.remove_parametrizations(net[0], "weight")
    check_contract(net, x)


# ---- what is kept ---------------------------------------------------------------------------------------------------


def test_shared_weights_stay_shared():
    conv, tied = nn.Conv1d(2, 2, 3, padding=1), nn.Conv1d(2, 2, 3, padding=1)
    tied.weight = conv.weight
    module = nn.Sequential(conv, nn.ReLU(), nn.Sequential(conv, tied)).double()
    net = co.continual(module)
    assert net[0] is net[2][0]
    assert net[0].weight is net[2][1].weight
    assert net[0].weight is not conv.weight
    check_contract(net, clip(2, 2, 15), module)


def test_a_module_that_comes_twice_runs_twice():
    """`named_children` leaves the second one out, and the network was one layer short."""
    conv, act = nn.Conv1d(2, 2, 3, padding=1), nn.Tanh()
    module = nn.Sequential(conv, act, conv, act).double()
    net = co.continual(module)
    assert len(net) == 4
    assert net[0] is net[2]
    assert list(net.state_dict()) == list(module.state_dict())
    check_contract(net, clip(2, 2, 15), module)


def test_dtype_and_requires_grad_are_kept():
    module = nn.Sequential(nn.Conv1d(2, 2, 3), nn.Dropout(), nn.Sequential(nn.Conv1d(2, 2, 1))).half()
    module[0].bias.requires_grad_(False)
    net = co.continual(module)
    assert {p.dtype for p in net.parameters()} == {torch.float16}
    assert [p.requires_grad for p in net.parameters()] == [p.requires_grad for p in module.parameters()]


@pytest.mark.parametrize("outer", [True, False])
def test_every_module_keeps_its_own_training_flag(outer: bool):
    """A frozen part (normalisation in eval mode) of a network in training stays frozen, and the other way round."""
    module = nn.Sequential(nn.Conv1d(2, 2, 3), nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.ReLU())).train(outer)
    module[2].train(not outer)
    assert [m.training for m in co.continual(module).modules()] == [m.training for m in module.modules()]


def test_hooks_are_kept():
    module, seen = nn.Sequential(nn.Conv1d(2, 2, 3), nn.ReLU()), []
    module[0].register_forward_hook(lambda m, args, y: seen.append(type(m)))
    co.continual(module).forward_steps(torch.zeros(1, 2, 5))
    assert seen == [co.Conv1d]


def test_the_original_is_not_changed():
    module = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.BatchNorm1d(2), nn.ReLU(inplace=True)).double().eval()
    before, attributes = copy.deepcopy(module), [dict(m.__dict__) for m in module.modules()]
    net = co.continual(module)
    net.forward_steps(clip(2, 2, 9))
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    assert [dict(m.__dict__) for m in module.modules()] == attributes
    assert [type(m) for m in module.modules()] == [type(m) for m in before.modules()]
    assert module[2].inplace
    for a, b in zip(module.state_dict().values(), before.state_dict().values()):
        assert torch.equal(a, b)
    assert not net[2].inplace


def test_a_module_that_is_used_twice_is_so_in_its_twin():
    """And runs twice."""
    conv = nn.Conv1d(2, 2, 3).double()
    module = nn.Sequential(conv, nn.ReLU(), conv, nn.Sequential(conv))
    net = co.continual(module)
    assert len(net) == 4
    assert net[0] is net[2] is net[3][0]
    check_contract(net, clip(2, 2, 14), module)


def test_a_streaming_module_is_returned_as_it_is():
    net = co.Conv1d(2, 2, 3)
    assert co.continual(net) is net
    assert co.continual(nn.Sequential(net))[0] is net


# ---- refusals -------------------------------------------------------------------------------------------------------


class Unknown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(2)


WHEN_CONVERTED = {
    "group norm": (lambda: nn.GroupNorm(1, 4), r"GroupNorm.*whole clip.*Remedies"),
    "unknown": (lambda: Unknown(), r"Unknown.*can't be converted.*no streaming version.*forward_stepping\(Unknown"),
    "circular": (lambda: nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"), "other end of the clip"),
    "indices": (lambda: nn.MaxPool1d(2, return_indices=True), "return_indices"),
    "backward rnn": (lambda: nn.GRU(4, 4, bidirectional=True), r"GRU\)?.*bidirectional=True.*not seen.*Remedies"),
}
WHEN_RUN = {
    "adaptive pool": (lambda: nn.AdaptiveAvgPool3d(1), (2, 4, 3, 5), "over the whole clip"),
    "adaptive pool 1d": (lambda: nn.AdaptiveAvgPool1d(1), (2, 4), "whole clip|can't be converted"),
    "linear on time": (lambda: nn.Linear(4, 4), (2, 4), "channel_dim=1"),
    "flatten": (lambda: nn.Flatten(), (2, 4), "merges time"),
}


@pytest.mark.parametrize("name", WHEN_CONVERTED)
def test_refused_when_converted(name: str):
    """With the module's path, the reason and the remedies."""
    make, message = WHEN_CONVERTED[name]
    with pytest.raises(co.NotStreamable, match=f"(?s){message}") as caught:
        co.continual(nn.Sequential(nn.ReLU(), nn.Sequential(make())))
    assert "1.0" in str(caught.value)


@pytest.mark.parametrize("name", WHEN_RUN)
def test_refused_at_the_latest_when_a_stream_starts(name: str):
    make, step, message = WHEN_RUN[name]
    with pytest.raises(co.NotStreamable, match=f"(?s){message}") as caught:
        co.continual(nn.Sequential(nn.ReLU(), nn.Sequential(make()))).forward_step(torch.zeros(step))
    assert "1.0" in str(caught.value)


@pytest.mark.parametrize("bad", [None, 3, torch.relu, nn.ReLU], ids=["none", "number", "function", "class"])
def test_what_is_no_module(bad: Any):
    with pytest.raises(co.NotStreamable, match="takes an nn.Module"):
        co.continual(bad)


# ---- register -------------------------------------------------------------------------------------------------------


def test_register():
    class Halve(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, ::2]

    class SubHalve(Halve):
        pass

    class CoHalve(co.AvgPool1d):
        @staticmethod
        def build_from(module: nn.Module, *args: Any, **kwargs: Any) -> co.CoModule:
            return CoHalve(1, 2)

    with pytest.raises(co.NotStreamable, match="Halve"):
        co.continual(Halve())
    co.convert.register(Halve, CoHalve)
    module = nn.Sequential(nn.Conv1d(2, 2, 3), SubHalve()).double()
    net = co.continual(module)
    assert type(net[1]) is CoHalve
    check_contract(net, clip(2, 2, 12), module)
    assert type(co.Sequential(Halve())[0]) is CoHalve


@pytest.mark.parametrize("pair", [(nn.ReLU(), co.Identity), ("ReLU", co.Identity), (nn.ReLU, nn.ReLU), (nn.ReLU, co.Identity())])
def test_register_takes_classes(pair: Any):
    with pytest.raises(TypeError, match="register\\(TorchClass, CoClass\\)"):
        co.convert.register(*pair)


# ---- forward_stepping -----------------------------------------------------------------------------------------------


class LastDimTime(nn.Module):
    """Clips (B, T, F), local in time."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).tanh()


def test_forward_stepping():
    module = nn.Sequential(nn.Conv3d(2, 3, (1, 3, 3), (1, 2, 1)), nn.ReLU()).double()
    net = co.forward_stepping(module)
    assert isinstance(net, nn.Sequential)
    assert net[0].weight is module[0].weight
    assert type(module) is nn.Sequential
    check_contract(net, clip(2, 2, 7, 5, 6), module)
    check_contract(co.Sequential(co.Delay(2), net, co.Conv3d(3, 2, 3, padding=1)).double(), clip(2, 2, 11, 5, 6))


@pytest.mark.parametrize("dim", [1, 3])
def test_forward_stepping_over_another_dimension(dim: int):
    """Time is dim 1 of (B, T, F), or the last of (B, C, S, T)."""
    module: Any = LastDimTime() if dim == 1 else nn.Conv2d(2, 3, (2, 1))
    module = module.double()
    net = co.forward_stepping(module, dim)
    x = clip(2, 7, 4) if dim == 1 else clip(2, 2, 5, 7)
    expected = module(x)
    assert_equal(net(x), expected)
    assert_equal(torch.stack([net.forward_step(s) for s in x.unbind(dim)], dim), expected)
    net.clean_state()
    first, second = x.split([3, 4], dim)
    assert_equal(torch.cat((net.forward_steps(first), net.forward_steps(second, pad_end=True)), dim), expected)
    state = net.init_state(x.select(dim, 0))
    y, state = net.steps(first, state)
    assert_equal(torch.cat((y, net.steps(second, state)[0]), dim), expected)
    with pytest.raises(co.NotStreamable, match=f"dim {dim} of its clips"):
        co.Sequential(net)


def test_a_bias_may_be_parametrised_too():
    class Double(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    module = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.ReLU()).eval()
    for name in ("weight", "bias"):
        torch.nn.utils.parametrize.register_parametrization(module[0], name, Double())
        torch.nn.utils.parametrize.register_parametrization(module[1], name, Double())
    check_contract(co.continual(module.double()), torch.randn(2, 2, 15, dtype=torch.float64), module)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
def test_hooks_that_leave_a_weight_that_can_not_be_copied_are_refused():
    with pytest.raises(co.NotStreamable, match=r"1 \(Conv1d\): .*Use torch.nn.utils.parametrizations"):
        co.continual(nn.Sequential(nn.ReLU(), torch.nn.utils.weight_norm(nn.Conv1d(2, 2, 3))))


@pytest.mark.parametrize(
    "make",
    [lambda: co.Conv1d(2, 4, 3, padding=1), lambda: co.ConvTranspose1d(2, 4, 3), lambda: co.LSTM(2, 4), lambda: co.MaxPool1d(2)],
)
def test_build_from_a_streaming_module_copies_it(make):
    module = make()
    built = type(module).build_from(module)
    assert type(built) is type(module)
    assert built is not module
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.zero_()
    clip = torch.randn(2, 2, 9)
    before = module(clip)
    assert co.verify(module, clip).passed
    assert all((a == b).all() for a, b in zip(module(clip), before, strict=True) if isinstance(a, torch.Tensor))
