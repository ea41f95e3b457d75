"""Functions as modules: `Lambda`, `Add`, `Multiply`, `Constant`, `Zero`, `One`, `Identity`."""

import functools

import pytest
import torch
from torch import Tensor

import continual as co
from tests.contract import assert_equal, check_contract, check_gradients

SHAPES = {"1d": (2, 3, 9), "2d": (3, 2, 9, 5), "3d": (2, 3, 9, 3, 5)}
FUNCTIONS = {
    "add": (lambda: co.Add(0.5), lambda x: x + 0.5),
    "add a tensor": (lambda: co.Add(torch.tensor([2.0])), lambda x: x + 2),
    "multiply": (lambda: co.Multiply(-3), lambda x: x * -3),
    "constant": (lambda: co.Constant(1.5), lambda x: torch.full_like(x, 1.5)),
    "zero": (lambda: co.Zero(), torch.zeros_like),
    "one": (lambda: co.One(), torch.ones_like),
    "identity": (lambda: co.Identity(3, size="any"), lambda x: x),
    "lambda on steps": (lambda: co.Lambda(lambda step: step.flip(1)), lambda x: x.flip(1)),
    "lambda on steps, fewer dimensions": (lambda: co.Lambda(lambda step: step.sum(1, keepdim=True)), lambda x: x.sum(1, True)),
    "lambda on clips": (lambda: co.Lambda(lambda clip: clip.softmax(1), takes_time=True), lambda x: x.softmax(1)),
    "function": (lambda: co.Lambda(torch.relu), torch.relu),
    "module as a function": (lambda: co.Lambda(torch.nn.Tanh()), torch.tanh),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name: str, shape: str):
    make, reference = FUNCTIONS[name]
    for dtype in (torch.float64, torch.float32):
        net, clip = make(), torch.randn(SHAPES[shape]).to(dtype)
        assert_equal(net(clip), reference(clip))
        check_contract(net, clip)
        assert (net.delay, net.receptive_field, net.stride, net.padding) == (0, 1, (1,), (0,))
        check_contract(co.Sequential(net, co.Delay(2), make()), clip)
    if name not in ("zero", "one", "constant"):
        check_gradients(make(), torch.randn(SHAPES[shape], dtype=torch.float64))


def test_a_step_sees_no_other_frame():
    """A function that mixes what it is given sees one step at a time, on clips too."""
    net = co.Lambda(lambda step: step - step.mean((1, 2), keepdim=True))
    clip = torch.randn(2, 3, 9, 5, dtype=torch.float64)
    assert_equal(net(clip), clip - clip.mean((1, 3), keepdim=True))
    check_contract(net, clip)


@pytest.mark.parametrize("with_fn", [True, False])
@pytest.mark.parametrize("takes_time", [True, False])
def test_one_function_for_each_way_to_run(takes_time: bool, with_fn: bool, grad: bool):
    """Each is called with what the way to run has: `takes_time` concerns `fn` alone."""
    calls: list[tuple[str, int]] = []

    def function(name: str):
        def fn(x: Tensor) -> Tensor:
            calls.append((name, x.ndim))
            return 2 * x

        return fn

    fn = function("any") if with_fn else None
    net = co.Lambda(fn, function("clip"), function("step"), function("chunk"), takes_time=takes_time)
    clip = torch.randn(2, 3, 4)
    ways = {
        ("clip", 3): net.forward,
        ("chunk", 3): net.forward_steps,
        ("step", 2): lambda x: torch.stack([net.forward_step(frame) for frame in x.unbind(2)], 2),
    }
    net.forward_step(clip[:, :, 0])  # opens the stream, for which a step is tried on zeros
    for call, run in ways.items():
        calls.clear()
        assert_equal(run(clip), 2 * clip)
        assert set(calls) == {call}


def test_one_function_can_be_another():
    net = co.Lambda(torch.relu, forward_only_fn=torch.tanh)
    clip = -torch.rand(1, 2, 3)
    assert_equal(net(clip), clip.tanh())
    assert_equal(net.forward_steps(clip), clip.relu())


def test_a_missing_function():
    with pytest.raises(ValueError, match="takes a function `fn`, or all three"):
        co.Lambda(forward_only_fn=torch.relu)


def test_a_constant_of_several_numbers():
    with pytest.raises(
        ValueError, match=r"takes one number, got a tensor \(3,\)\. Use co\.Sequential\(co\.Zero\(\), co\.Add\(tensor\)\)"
    ):
        co.Constant(torch.ones(3))  # type: ignore[arg-type]


# ---- tensors ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 3, 1, 5), (3, 1, 1), (5,), (1, 1, 1, 5), (1, 3, 1, 1)])
@pytest.mark.parametrize("cls", [co.Add, co.Multiply])
def test_a_tensor_that_broadcasts(cls: type, size: tuple[int, ...]):
    constant, clip = torch.randn(size, dtype=torch.float64), torch.randn(2, 3, 9, 5, dtype=torch.float64)
    expected = clip + constant if cls is co.Add else clip * constant
    net = co.Sequential(co.Conv2d(3, 3, 1), cls(constant), co.Delay(2)).double()
    check_contract(net, clip)
    net = cls(constant)
    assert_equal(net(clip), expected)
    assert_equal(torch.stack([net.forward_step(x) for x in clip.unbind(2)], 2), expected)
    assert (net.float()(clip.float()).dtype, list(net.state_dict())) == (torch.float32, [])
    assert repr(net) == f"{cls.__name__}(size={size})"


def test_a_tensor_may_widen_the_channels():
    net, clip = co.Add(torch.randn(1, 4, 1)), torch.randn(2, 1, 7)
    assert net(clip).shape == (2, 4, 7)
    check_contract(net, clip)


def test_a_tensor_that_is_a_parameter():
    net = co.Multiply(torch.nn.Parameter(torch.randn(1, 3, 1)))
    assert list(net.state_dict()) == ["number"]
    check_gradients(net.double(), torch.randn(2, 3, 6, dtype=torch.float64))


@pytest.mark.parametrize("size", [(2, 1, 1), (1, 3, 9), (9,), (1, 1, 1, 2)])
def test_a_tensor_that_differs_between_rows_or_moments(size: tuple[int, ...]):
    net = co.Sequential(co.Add(torch.ones(size)))
    with pytest.raises(co.ShapeMismatch, match=r"0 \(Add\): a constant of size .* clips of 3 dimensions.*size \(1, C, 1\)"):
        net.forward_step(torch.zeros(2, 3))
    with pytest.raises(co.ShapeMismatch, match="the same for all rows and all moments"):
        net(torch.zeros(2, 3, 9))


# ---- repr, and other ways to build ------------------------------------------------------------------------------------------


def twice(x: Tensor) -> Tensor:
    return 2 * x


class Functor:
    def __call__(self, x: Tensor) -> Tensor:
        return 2 * x


@pytest.mark.parametrize(
    ("net", "text"),
    [
        (co.Lambda(lambda x: x + 1), "Lambda(lambda x: x + 1)"),
        (co.Lambda(lambda x: x.view(x.shape[0], -1), takes_time=True), "Lambda(lambda x: x.view(x.shape[0], -1), takes_time=True)"),
        (co.Lambda(lambda x, k=(1, 2): (x + k[0]) * (x != "é)")), 'Lambda(lambda x, k=(1, 2): (x + k[0]) * (x != "é)"))'),
        (co.Lambda(twice), "Lambda(twice)"),
        (co.Lambda(functools.partial(twice)), "Lambda(twice)"),
        (co.Lambda(Functor()), "Lambda(Functor)"),
        (co.Lambda(torch.nn.Softmax(1)), "Lambda(Softmax(dim=1))"),
        (co.Lambda(twice, forward_step_only_fn=lambda x: x + x), "Lambda(twice, lambda x: x + x)"),
        (co.Lambda(eval("lambda x: x")), "Lambda(<lambda>)"),
        (co.Lambda(lambda x: (
            x + 1  # in several lines
        )), "Lambda(lambda x: ( x + 1 # in several lines ))"),
    ],
)  # fmt: skip
def test_what_a_lambda_prints(net: co.Lambda, text: str):
    assert repr(net) == text


def test_lambdas_by_build_from():
    net, clip = co.Lambda.build_from(lambda x: x.softmax(1), takes_time=True), torch.randn(2, 3, 7)
    assert_equal(net(clip), clip.softmax(1))
    assert net.takes_time
    check_contract(net, clip)


def test_a_module_as_a_function_keeps_its_parameters():
    net = co.Lambda(torch.nn.Linear(5, 4))
    assert list(net.state_dict()) == ["fn.weight", "fn.bias"]
    check_contract(net, torch.randn(2, 3, 7, 5))
