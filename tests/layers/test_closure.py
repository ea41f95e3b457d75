"""Functions as modules: `Lambda`, `Add`, `Multiply`, `Constant`, `Zero`, `One`, `Identity`."""

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


@pytest.mark.parametrize("takes_time", [True, False])
def test_one_function_for_each_way_to_run(takes_time: bool):
    names: list[str] = []

    def function(name: str, rank: int):
        def fn(x: Tensor) -> Tensor:
            assert x.ndim == rank
            names.append(name)
            return 2 * x

        return fn

    net = co.Lambda(
        forward_only_fn=function("clip", 2 + takes_time),
        forward_step_only_fn=function("step", 2 + takes_time),
        forward_steps_only_fn=function("chunk", 2 + takes_time),
        takes_time=takes_time,
    )
    clip = torch.randn(2, 3, 2)
    expected = 2 * clip
    with torch.no_grad():
        for name, y in (
            ("clip", net.forward(clip)),
            ("chunk", net.forward_steps(clip)),
            ("step", torch.stack([net.forward_step(x) for x in clip.unbind(2)], 2)),
        ):
            assert_equal(y, expected)
            assert name in names
    assert sorted(set(names)) == ["chunk", "clip", "step"]


def test_one_function_can_be_another():
    net = co.Lambda(torch.relu, forward_only_fn=torch.tanh)
    clip = -torch.rand(1, 2, 3)
    assert_equal(net(clip), clip.tanh())
    assert_equal(net.forward_steps(clip), clip.relu())


def test_a_missing_function():
    with pytest.raises(ValueError, match="takes a function `fn`, or all three"):
        co.Lambda(forward_only_fn=torch.relu)


@pytest.mark.parametrize("cls", [co.Add, co.Multiply, co.Constant])
def test_a_tensor_of_several_numbers(cls: type):
    with pytest.raises(ValueError, match="takes one number, got a tensor \\(3,\\)"):
        cls(torch.ones(3))
