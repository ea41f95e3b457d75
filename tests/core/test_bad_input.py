"""Bad input is refused with the module's path and both shapes, and the stream goes on as if the call had not been made."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal, assert_same_state, fingerprint, join


def flat() -> Any:
    block = co.Residual(co.Sequential(nn.Conv1d(4, 4, 3, padding=1), nn.ReLU()))
    return co.Sequential(nn.Conv1d(2, 4, 3, padding=1), block, co.AvgPool1d(2, 1))


def planes() -> Any:
    return co.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.BatchNorm3d(3), co.MaxPool3d((2, 2, 2), (1, 2, 2)), co.Delay(1)).eval()


def leaf() -> Any:
    return co.Conv2d(2, 3, (3, 2), padding=(1, 0))


def without_weights() -> Any:
    return co.Sequential(co.Delay(2), co.MaxPool1d(3, 1), nn.ReLU())


NETS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "flat": (flat, (2, 2)),
    "planes": (planes, (2, 2, 5, 7)),
    "leaf": (leaf, (2, 2, 5)),
    "without weights": (without_weights, (2, 2)),
}


def changed(step: tuple[int, ...], kind: str) -> Tensor | None:
    """A step that does not fit a stream of such steps; ``None`` where this can't go wrong in that way."""
    batch, channels, *space = step
    match kind:
        case "fewer rows":
            return torch.randn(batch - 1, channels, *space)
        case "more rows":
            return torch.randn(batch + 1, channels, *space)
        case "channels":
            return torch.randn(batch, channels + 1, *space)
        case "rank + 1":
            return torch.randn(*step, 1)
        case "rank - 1":
            return torch.randn(step[:-1])
        case "space":
            return torch.randn(batch, channels, *(s + 1 for s in space)) if space else None
        case "dtype":
            return torch.randn(step, dtype=torch.float64)
        case "whole numbers":
            return torch.ones(step, dtype=torch.int64)
    raise AssertionError(kind)


KINDS = ["fewer rows", "more rows", "channels", "rank + 1", "rank - 1", "space", "dtype", "whole numbers"]
CALLS = {
    "step": lambda net, x: net.forward_step(x),
    "step, dry": lambda net, x: net.forward_step(x, update_state=False),
    "chunk": lambda net, x: net.forward_steps(torch.stack((x, x, x), 2) if x.ndim > 1 else x),
    "chunk, flush": lambda net, x: net.forward_steps(torch.stack((x, x, x), 2) if x.ndim > 1 else x, pad_end=True),
    "pure step": lambda net, x: net.step(x, net.get_state()),
    "pure chunk": lambda net, x: net.steps(x.unsqueeze(-1) if x.ndim == 1 else x.unsqueeze(2), net.get_state()),
}


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no grad"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NETS)
def test_a_stream_refuses_what_does_not_fit_and_goes_on(name: str, kind: str, grad: bool):
    make, step = NETS[name]
    net, bad = make(), changed(step, kind)
    clip = torch.randn(*step[:2], 18, *step[2:])
    if bad is None:
        return
    expected, outs = net(clip), []
    with torch.set_grad_enabled(grad):
        for t in range(18):
            if t in (1, 2, 5, 11):
                before = fingerprint(net._stream)
                for call in CALLS.values():
                    with pytest.raises(co.ContinualError) as caught:
                        call(net, bad)
                    assert_same_state(fingerprint(net._stream), before, "the state after a refusal")
                    if kind in ("fewer rows", "more rows", "channels", "space"):
                        assert str(tuple(step)) in str(caught.value)
                        assert str(tuple(bad.shape)) in str(caught.value)
                    if kind == "dtype":
                        assert all(dtype in str(caught.value) for dtype in ("float32", "float64"))
            outs.append(net.forward_steps(clip[:, :, t : t + 1], pad_end=t == 17))
    assert_equal(join(outs), expected)


COLD = {
    "channels": (flat, (2, 3), r"0 \(Conv1d\).*\(B, 2\), got \(2, 3\)"),
    "rank": (flat, (2, 2, 5), r"0 \(Conv1d\).*got \(2, 2, 5\)"),
    "no channels": (flat, (2,), r"\(B, C, \*S\), got \(2,\)"),
    "small frame": (planes, (2, 2, 1, 1), r"2 \(MaxPool3d\).*\(2, 3, 1, 1\)"),
    "small frame for a leaf": (leaf, (2, 2, 1), r"Conv2d.*frame of \(1,\) is too small.*\(2,\)"),
    "rank of a leaf": (leaf, (2, 2), r"Conv2d: expects steps \(B, 2, \w\), got \(2, 2\)"),
    "deep inside": (lambda: co.Sequential(flat(), flat()), (2, 2), r"1\.0 \(Conv1d\).*\(B, 2\), got \(2, 4\)"),
}


@pytest.mark.parametrize("name", COLD)
def test_a_cold_module_names_the_path_and_both_shapes(name: str):
    make, shape, message = COLD[name]
    net = make()
    for run in (net.forward_step, net.init_state):
        with pytest.raises(co.ShapeMismatch, match=message):
            run(torch.randn(shape))
    assert net.get_state() is None


def test_a_cold_module_names_both_dtypes():
    with pytest.raises(co.ShapeMismatch, match=r"0 \(Conv1d\).*float32.*float64.*\.to\(\)"):
        flat().forward_step(torch.zeros(2, 2, dtype=torch.float64))


@pytest.mark.parametrize("bad", [None, 3, "x", [], (), {}], ids=repr)
def test_what_is_no_tensor(bad: Any):
    net = flat()
    net.forward_step(torch.zeros(1, 2))
    for module in (net, flat()):
        for run in (module.forward_step, module.forward_steps):
            with pytest.raises(co.ContinualError):
                run(bad)


def test_a_step_in_the_place_of_a_chunk():
    net = leaf()
    with pytest.raises(co.ShapeMismatch, match=r"\(B, C, T, \*S\), got \(2, 2\); forward_step takes a single step"):
        net.forward_steps(torch.zeros(2, 2))


@pytest.mark.parametrize("name", NETS)
def test_an_empty_chunk_gives_nothing_and_still_flushes(name: str):
    make, step = NETS[name]
    net = make()
    clip = torch.randn(*step[:2], 12, *step[2:])
    none = clip[:, :, :0]
    assert net.forward_steps(none) is None
    assert net.forward_steps(none, pad_end=True) is None
    outs = [net.forward_steps(clip[:, :, :7])]
    before = fingerprint(net._stream)
    assert net.forward_steps(none) is None
    assert_same_state(fingerprint(net._stream), before, "the state after an empty chunk")
    outs.append(net.forward_steps(clip[:, :, 7:]))
    first = net.forward_steps(none, pad_end=True)
    assert_equal(first, net.forward_steps(none, pad_end=True), "a second flush")
    assert_equal(join([*outs, first]), net(clip))


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no grad"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", NETS)
def test_a_bad_frame_in_one_row_stays_in_its_row_and_leaves_with_its_window(name: str, value: float, grad: bool):
    make, step = NETS[name]
    net = make()
    clip = torch.randn(*step[:2], 30, *step[2:])
    expected = net(clip)
    clip[1, :, 4] = value
    with torch.set_grad_enabled(grad):
        y = join([net.forward_steps(chunk) for chunk in clip.split([3, 1, 1, 1, 10, 14], 2)])
    assert_equal(y[:1], expected[:1, :, : y.shape[2]], "the other row")
    late = 4 + net.receptive_field
    assert_equal(y[1:, :, late:], expected[1:, :, late : y.shape[2]], "the row, afterwards")


def test_an_error_inside_leaves_the_stream_as_it_was():
    def sometimes(x: Tensor) -> Tensor:
        if fail[0]:
            raise RuntimeError("no")
        return x

    fail = [False]
    net = co.Sequential(flat(), co.Lambda(sometimes), nn.Conv1d(4, 2, 3, padding=1))
    clip, outs = torch.randn(2, 2, 14), []
    for t in range(14):
        fail[0] = t > 4
        if fail[0]:
            before = fingerprint(net._stream)
            for call in (lambda x: net.forward_step(x), lambda x: net.forward_steps(x.unsqueeze(2), pad_end=True)):
                with pytest.raises(RuntimeError, match="no"):
                    call(clip[:, :, t])
                assert_same_state(fingerprint(net._stream), before, "the state after an error")
        fail[0] = False
        outs.append(net.forward_steps(clip[:, :, t : t + 1], pad_end=t == 13))
    assert_equal(join(outs), net(clip))
