"""`Conditional`: one of two modules, both of them fed."""

import pytest
import torch
from torch import Tensor

import continual as co
from tests.contract import assert_equal, check_contract, check_gradients, join

A, B = (lambda: co.Conv1d(2, 2, 3, padding=1)), (lambda: co.Conv1d(2, 2, 5, padding=2))


@pytest.mark.parametrize("choice", [True, False])
@pytest.mark.parametrize("other", [None, B, lambda: co.Sequential(B(), A())], ids=["identity", "layer", "network"])
def test_constant_choice(choice: bool, other):
    net = co.Conditional(lambda module, x: choice, A(), None if other is None else other()).double()
    clip = torch.randn(2, 2, 17, dtype=torch.float64)
    check_contract(net, clip, net[0] if choice else net[1])
    check_gradients(net[0 if choice else 1], clip)
    check_contract(co.Sequential(A(), net, A()).double(), clip)
    check_contract(net.float(), clip.float())


def test_it_reports_the_larger_of_the_two():
    net = co.Conditional(lambda module, x: True, A(), B())
    assert (net.receptive_field, net.delay, net.padding) == (5, 2, (2,))


@pytest.mark.parametrize("grad", [False, True])
def test_switching_in_mid_stream_is_seamless(grad: bool):
    """The branch that is not chosen stays fed, so each output is that of a stream which had always been on this branch."""
    net = co.Conditional(lambda module, x: module.on, A(), B()).double()
    clip = torch.randn(2, 2, 24, dtype=torch.float64)
    clips, outs = (net[1](clip), net[0](clip)), []
    pattern = [1, 1, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1]
    with torch.set_grad_enabled(grad):
        for t, on in enumerate(pattern):
            net.on = bool(on)
            outs.append(net.forward_step(clip[:, :, t]))
    for t, (on, y) in enumerate(zip(pattern, outs)):
        if t < net.delay:
            assert y is None
        else:
            assert_equal(y, clips[on][:, :, t - net.delay], f"step {t}")


def test_switching_between_chunks():
    net = co.Conditional(lambda module, x: module.on, A(), B()).double()
    clip, outs = torch.randn(2, 2, 20, dtype=torch.float64), []
    for i, chunk in enumerate(clip.split(5, 2)):
        net.on = i % 2 == 0
        outs.append(net.forward_steps(chunk, pad_end=i == 3))
    a, b = net[0](clip), net[1](clip)
    assert_equal(join(outs), torch.cat((a[:, :, :3], b[:, :, 3:8], a[:, :, 8:13], b[:, :, 13:]), 2))


@pytest.mark.parametrize("grad", [False, True])
def test_a_predicate_that_raises_leaves_the_stream_as_it_was(grad: bool):
    def predicate(module: co.CoModule, x: Tensor) -> bool:
        if bad[0]:
            raise RuntimeError("no answer")
        return True

    bad = [False]
    net = co.Sequential(co.Conditional(predicate, A(), B()), A()).double()
    clip, outs = torch.randn(2, 2, 12, dtype=torch.float64), []
    with torch.set_grad_enabled(grad):
        for t in range(12):
            bad[0] = True
            for call in (
                lambda t=t: net.forward_step(clip[:, :, t]),
                lambda t=t: net.forward_steps(clip[:, :, t:], pad_end=True),
            ):
                with pytest.raises(RuntimeError, match="no answer"):
                    call()
            bad[0] = False
            y = net.forward_step(clip[:, :, t])
            outs += [] if y is None else [y]
    assert_equal(torch.stack(outs, 2), net.forward(clip)[:, :, : len(outs)])
    assert len(outs) == 12 - net.delay


def test_the_predicate_sees_the_module_and_the_input():
    seen = []
    net = co.Conditional(lambda module, x: seen.append((module is net, tuple(x.shape))) or True, A())
    net(torch.zeros(3, 2, 5))
    net.forward_steps(torch.zeros(3, 2, 5))
    net.forward_step(torch.zeros(3, 2))
    assert all(same for same, _ in seen)
    assert (3, 2, 5) in [shape for _, shape in seen]


def test_branches_must_be_alike():
    with pytest.raises(co.ShapeMismatch, match="must be alike"):
        co.Conditional(lambda module, x: True, co.Conv1d(2, 3, 1)).forward_step(torch.zeros(1, 2))
    with pytest.raises(co.ShapeMismatch, match="strides"):
        co.Conditional(lambda module, x: True, co.AvgPool1d(2))


@pytest.mark.parametrize("change", [lambda net: net.append(A()), lambda net: net[:1], lambda net: net.insert(0, A())])
def test_it_has_exactly_two_modules(change):
    with pytest.raises(co.NotStreamable, match="exactly two"):
        change(co.Conditional(lambda module, x: True, A(), B()))


def test_a_predicate_is_a_function():
    with pytest.raises(TypeError, match="predicate"):
        co.Conditional(True, A())


@pytest.mark.parametrize("choice", [True, False])
def test_a_branch_that_delivers_before_its_first_frame(choice: bool):
    """Found by a random network: its output exists as soon as the wire has one to come, and was lost."""
    for early in (co.ConstantPad1d((1, -1), 0.5), co.Sequential(co.Conv1d(2, 2, 1, padding=1), co.Trim(0, 2))):
        net = co.Sequential(
            co.Conv1d(2, 2, 3, padding=1), co.Conditional(lambda module, x: choice, co.Identity(), early)
        ).double()
        check_contract(net, torch.randn(2, 2, 9, dtype=torch.float64))


def is_on(module: co.CoModule, x: object) -> bool:
    return False


def test_it_prints_its_predicate():
    assert repr(co.Conditional(is_on, co.Add(2))) == "Conditional(\n  predicate=is_on\n  (0): Add(2)\n  (1): Identity()\n)"
    assert "\n  predicate=lambda a, b: True\n" in repr(co.Conditional(lambda a, b: True, co.Add(2)))


@pytest.mark.parametrize("size", [(2, 3, 7), (2, 3, 7, 5), (2, 3, 7, 5, 4)])
def test_a_softmax_that_leaves_its_dimension_open(size: tuple[int, ...]):
    """torch would take the batch on clips (B, C, T), and the channels on all others."""
    softmax = torch.nn.Softmax()
    with pytest.warns(UserWarning, match=r"Softmax\(\) without dim is taken as Softmax\(dim=1\), over the channels") as warned:
        net = co.Conditional(is_on, co.Delay(2), softmax)
    assert warned[0].filename == __file__
    assert repr(net[1]) == "Softmax(dim=None)"
    assert isinstance(net[1], torch.nn.Softmax)
    assert type(softmax) is torch.nn.Softmax
    clip = torch.randn(size, dtype=torch.float64)
    check_contract(net, clip, torch.nn.Softmax(1))
    assert_equal(net(clip), clip.softmax(1))
