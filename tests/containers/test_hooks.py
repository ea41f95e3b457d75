"""Forward hooks: on the root and on children, in all three call modes."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal, check_contract, run

MODES = {
    "forward": lambda net, clip: [net(clip)],
    "forward_steps": lambda net, clip: [net(chunk) for chunk in clip.split(4, 2)],
    "forward_step": lambda net, clip: [net(step) for step in clip.unbind(2)],
}


def network(kind: str) -> tuple[Any, Any]:
    """A network and its child that gets hooks."""
    conv, twin = co.Conv1d(2, 2, 3, padding=1), co.Conv1d(2, 2, 3, padding=1)
    net = {
        "sequential": lambda: co.Sequential(conv, nn.ReLU(), twin),
        "residual": lambda: co.Residual(conv),
        "branches": lambda: co.BroadcastReduce(co.Sequential(conv, twin), twin),
        "conditional": lambda: co.Conditional(lambda module, x: True, conv, twin),
        "parallel": lambda: co.Sequential(co.Broadcast(2), co.Parallel(conv, twin), co.Reduce()),
    }[kind]()
    return net, conv


KINDS = ["sequential", "residual", "branches", "conditional", "parallel"]


@pytest.fixture(params=[True, False], ids=["grad", "no grad"], autouse=True)
def _grad(request: pytest.FixtureRequest):
    with torch.set_grad_enabled(request.param):
        yield


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_a_hook_sees_what_comes_and_leaves(mode: str, kind: str):
    net, child = network(kind)
    clip, seen, roots = torch.randn(2, 2, 12), [], []
    child.register_forward_hook(lambda module, args, output: seen.append((args[0].detach().clone(), output)))
    net.register_forward_hook(lambda module, args, output: roots.append(output))
    with co.call_mode(mode):
        outs = MODES[mode](net, clip)
    assert len(seen) == len(roots) == len(outs)
    assert all(a is b for a, b in zip(roots, outs))
    if mode == "forward_step":  # with gradients a step runs as a chunk of one
        assert seen[0][1] is None
        assert_equal(torch.stack([x.view(2, 2) for x, _ in seen], 2), clip)
    else:
        assert_equal(torch.cat([x for x, _ in seen], 2), clip)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_changes_the_output(kind: str):
    """The changed output is what the next module gets, at the end of the stream too, so all three modes agree with `forward`."""
    net, child = network(kind)
    child.register_forward_hook(lambda module, args, output: None if output is None else output * 2 + 1)
    check_contract(net.double(), torch.randn(2, 2, 14, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_a_pre_hook_that_changes_the_input(kind: str):
    net, child = network(kind)
    plain = run(net, clip := torch.randn(2, 2, 14), [3, 11])
    child.register_forward_pre_hook(lambda module, args: (args[0] * 3,))
    assert not torch.allclose(run(net, clip, [3, 11]), plain)
    check_contract(net.double(), clip.double())


@pytest.mark.parametrize("mode", MODES)
def test_hooks_with_keyword_arguments(mode: str):
    net, child = network("sequential")
    given: list[Any] = []

    def before(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        given.append(("pre", dict(kwargs)))
        return tuple(a * 2 for a in args), kwargs

    def after(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        given.append(("post", dict(kwargs)))

    for module in (net, child):
        module.register_forward_pre_hook(before, with_kwargs=True)
        module.register_forward_hook(after, with_kwargs=True)
    clip = torch.randn(2, 2, 8)
    with co.call_mode(mode):
        keywords = {} if mode == "forward" else {"update_state": False}
        y = net(clip if mode != "forward_step" else clip[:, :, 0], **keywords)
    assert [name for name, _ in given] == ["pre", "pre", "post", "post"]
    assert given[0][1] == given[-1][1] == keywords
    if mode != "forward_step":
        del net._forward_pre_hooks, net._forward_hooks
        net._forward_pre_hooks, net._forward_hooks = {}, {}
        wanted = net(2 * clip)
        assert_equal(y, wanted[:, :, : y.shape[2]])


@pytest.mark.parametrize("mode", MODES)
def test_a_pre_hook_on_the_root_changes_the_input(mode: str):
    net, _ = network("sequential")
    clip = torch.randn(2, 2, 8)
    expected = net(clip * 2)
    net.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    with co.call_mode(mode):
        outs = [y if mode != "forward_step" else y.unsqueeze(2) for y in MODES[mode](net, clip) if y is not None]
    found = torch.cat(outs, 2)
    assert_equal(found, expected[:, :, : found.shape[2]])


def test_hooks_may_be_added_and_removed_in_mid_stream():
    net, child = network("sequential")
    clip, count = torch.randn(2, 2, 12), [0]
    outs: list[Tensor] = []
    for t in range(12):
        if t % 4 == 2:
            handle = child.register_forward_hook(lambda *_: count.__setitem__(0, count[0] + 1))
        y = net.forward_step(clip[:, :, t])
        if t % 4 == 2:
            handle.remove()
        outs += [] if y is None else [y]
    assert count == [3]
    assert_equal(torch.stack(outs, 2), net(clip)[:, :, :10])


def test_a_hook_that_raises_leaves_the_stream_as_it_was():
    net, child = network("residual")
    clip = torch.randn(2, 2, 12)
    outs = [net.forward_steps(clip[:, :, :5])]

    def refuse(*_: Any) -> None:
        raise RuntimeError("refused")

    handle = child.register_forward_hook(refuse)
    for call in (lambda: net.forward_steps(clip[:, :, 5:]), lambda: net.forward_step(clip[:, :, 5])):
        with pytest.raises(RuntimeError, match="refused"):
            call()
    handle.remove()
    outs.append(net.forward_steps(clip[:, :, 5:], pad_end=True))
    assert_equal(torch.cat(outs, 2), net(clip))


def test_hooks_on_all_modules_see_the_children():
    net, _ = network("sequential")
    seen: list[str] = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: seen.append(type(module).__name__))
    try:
        net.forward_steps(torch.randn(2, 2, 6))
        assert seen == ["Conv1d", "ReLU", "Conv1d"]
    finally:
        handle.remove()
