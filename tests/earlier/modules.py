"""Rows of the table: what every module has, conversion, state dicts and tools. No tests are in this file."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.earlier.table import clip, conv, exact, row
from tests.torchvision_ops import torchvision

# ---- every module -----------------------------------------------------------------------------------------------------------


@row("`net.receptive_field`, `net.delay`, `net.stride`, `net.padding`", "same")
def _() -> None:
    net = co.Sequential(co.Conv1d(1, 1, 3, stride=2, padding=2), co.Conv1d(1, 1, 3))
    assert (net.receptive_field, net.delay, net.stride, net.padding) == (7, 4, (2,), (2,))


@row("`forward`, `forward_step`, `forward_steps`, `update_state=False`, `pad_end=True`", "same")
def _() -> None:
    net, x = co.Sequential(conv(3), conv(3)), clip()
    y = net(x)
    firsts = net.forward_steps(x[:, :, :9], pad_end=True, update_state=False)
    assert_equal(net.forward_steps(x[:, :, :9], pad_end=True), firsts)
    assert_equal(net.forward_step(x[:, :, 9], update_state=False), y[:, :, 7])
    assert_equal(net.forward_step(x[:, :, 9]), y[:, :, 7])


@row("`CoModule`, `CoModule.is_valid`, `CoModule.build_from`", "same")
def _() -> None:
    assert isinstance(conv(3), co.CoModule)
    assert [co.CoModule.is_valid(m) for m in (conv(3), nn.ReLU(), 3)] == [True, False, False]
    exact(co.GRU.build_from(nn.GRU(4, 3, batch_first=True)), clip())


@row("`class Layer(nn.Module, co.CoModule)`", "refused")
def _() -> None:
    assert co.CoModule.is_valid(type("Layer", (co.CoModule, nn.Module), {})) is True
    type("Layer", (nn.Module, co.CoModule), {})


class OwnStep(co.CoModule):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * input

    def forward_step(self, input: Any, update_state: bool = True) -> Any:
        return 2 * input


@row("a subclass of `CoModule` with a `forward_step` of its own, in a container", "refused")
def _() -> None:
    assert_equal(OwnStep().forward_step(torch.ones(2, 3)), torch.full((2, 3), 2.0))
    co.Sequential(OwnStep())


@row("`net.get_state()`, `net.set_state(state)`, `net.clean_state()`", "corrected")
def _() -> None:
    net, x = co.Sequential(co.Residual(conv(3)), co.AvgPool1d(2), co.GRU(4, 3)), clip()
    assert net.get_state() is None
    net.forward_steps(x[:, :, :7])
    state = net.get_state()
    assert all(isinstance(t, Tensor) for t in state)
    y = net.forward_steps(x[:, :, 7:])
    net.set_state(state)
    assert torch.equal(net.forward_steps(x[:, :, 7:]), y)
    net.clean_state()
    assert net.get_state() is None


@row("`net._forward_step(x, state)`", "same")
def _() -> None:
    net, x, state = co.Sequential(conv(3), conv(3)), clip(), None
    for t in range(4):
        with pytest.warns(DeprecationWarning, match="net.step under an earlier name"):
            y, state = net._forward_step(x[:, :, t], state)
    assert_equal(y, net(x)[:, :, 1])
    assert len(co.utils.flatten(state)) == 2


@row("`net._state_shape`, `net._dynamic_state_inds`", "refused")
def _() -> None:
    net: Any = conv(3)
    assert [t.shape[1:] for t in net.init_state(clip()[:, :, 0])] == [(2, 4)]
    _ = net._state_shape


@row("`net.warm_up(step_shape)`", "corrected")
def _() -> None:
    net = conv(5).double()
    net.warm_up((2, 4))
    assert net.forward_step(clip()[:, :, 0].double()) is not None


@row('`net.call_mode = "forward_step"`, `with call_mode("forward_step"):`', "same")
def _() -> None:
    net, x = co.Sequential(conv(1)), clip()
    net.call_mode = "forward_step"
    assert net(x[:, :, 0]).shape == (2, 4)
    with co.call_mode("forward_steps"):
        assert net(x, pad_end=True).shape == x.shape
        with co.module.call_mode("forward"):
            assert_equal(net(x), net.forward(x))
        assert net(x).shape == x.shape
    assert (net.call_mode, net[0].call_mode) == ("forward_step", "forward_step")


@row("`PaddingMode`", "same")
def _() -> None:
    assert {mode.name: mode.value for mode in co.PaddingMode} == {
        "REPLICATE": "replicate",
        "ZEROS": "zeros",
        "NEG_INF": "neg_inf",
    }
    exact(co.Conv1d(4, 4, 3, padding=1, temporal_fill=co.PaddingMode.REPLICATE), clip())


@row("`net.train()`, then steps of a norm", "same")
def _() -> None:
    net, x = co.Sequential(co.Conv3d(3, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU()).train(), clip(2, 3, 7, 5, 5)
    y = net(x)
    with pytest.warns(UserWarning, match="in training mode"):
        assert_equal(net.forward_steps(x, pad_end=True), y)
    assert net.forward_step(x[:, :, 0]) is not None
    exact(net, x)


@row("another batch size in mid-stream", "refused")
def _() -> None:
    net = conv(3)
    net.forward_step(clip()[:, :, 0])
    net.forward_step(clip()[:1, :, 0])


@row("`torch.jit.script(net)`", "refused")
def _() -> None:
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        torch.jit.script(conv(3))


# ---- conversion -------------------------------------------------------------------------------------------------------------


@row("`continual(module)`, `convert.register`", "same")
def _() -> None:
    module = nn.Sequential(nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.AvgPool1d(2)).double().eval()
    net = co.continual(module)
    exact(net, clip().double(), module)
    assert net[1] is not module[1]
    assert next(net.parameters()) is not next(module.parameters())
    assert callable(co.convert.register)  # its effect lasts for the process: tests/convert/test_convert.py


@row('`continual("no module")`', "refused")
def _() -> None:
    co.continual("no module")  # type: ignore[arg-type]


@row("`continual(nn.GroupNorm(2, 4))`, `nn.Softmax(-1)` on `(B, C, T)`", "refused")
def _() -> None:
    with contextlib.suppress(co.NotStreamable):
        co.continual(nn.Sequential(nn.Softmax(-1))).forward_step(clip()[:, :, 0])
        raise AssertionError("it runs")
    co.continual(nn.GroupNorm(2, 4))


@row("`forward_stepping`", "corrected")
def _() -> None:
    module = nn.Conv3d(4, 2, 1)
    net = co.forward_stepping(module)
    exact(net, clip(2, 4, 5, 3, 3), module)
    assert net is not module
    assert type(module) is nn.Conv3d
    assert net.weight is module.weight


# ---- state dicts and tools --------------------------------------------------------------------------------------------------


def nested() -> co.BroadcastReduce:
    return co.BroadcastReduce(co.Sequential(nn.Conv1d(1, 1, 3)), co.Sequential(OrderedDict(c1=nn.Conv1d(1, 1, 3))))


FLAT = {"weight", "bias", "c1.weight", "c1.bias"}


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@row("`flat_state_dict`, `state_dict(net, flatten=True)`, `load_state_dict(net, saved, flatten=True)`", "same")
def _() -> None:
    a, b = nested(), nested()
    assert set(co.state_dict(a, flatten=True)) == FLAT
    co.load_state_dict(b, co.state_dict(a, flatten=True), flatten=True)
    assert same_weights(a, b)
    b = nested()
    with co.utils.flat_state_dict:
        assert set(a.state_dict()) == FLAT
        b.load_state_dict(a.state_dict())
    assert same_weights(a, b)


@row("`net.state_dict(flatten=True)`, `net.load_state_dict(saved, flatten=True)`", "same")
def _() -> None:
    a, b = nested(), nested()
    assert set(a.state_dict(flatten=True)) == FLAT
    b.load_state_dict(a.state_dict(flatten=True), flatten=True)
    assert same_weights(a, b)


@row("`onnx.export(net, step, path, input_names=…, output_names=…)`", "corrected")
def _() -> None:
    assert co.onnx.export.__name__ == "export"  # written and run in tests/export/test_files.py
    net, x = conv(3), clip()[:, :, 0]
    with pytest.raises(co.ExportError, match="does not take 2 inputs.*the step alone"):
        co.onnx.export(net.eval(), (x, *net.init_state(x)), "nowhere.onnx")


@row("`onnx.export(…, verbose=True)`", "refused")
def _() -> None:
    co.onnx.export(conv(3).eval(), clip()[:, :, 0], "nowhere.onnx", verbose=True)


@row("`onnx.OnnxWrapper(net)`", "corrected")
def _() -> None:
    net, x = co.Sequential(co.Residual(conv(3)), co.GRU(4, 3)).eval(), clip()
    step, state = co.onnx.OnnxWrapper(net), []
    for frame in x.unbind(2):
        y, *state = step(frame, *state)
    assert_equal(y, net(x)[:, :, -2])
    assert len(step.state_input_names) == len(step.state_output_names) == len(state)


@row("`ptflops.get_model_complexity_info(net, …)`", "same")
def _() -> None:
    torchvision()  # which ptflops imports
    ptflops = pytest.importorskip("ptflops", reason="needs ptflops, of the extra `dev`")
    net = co.Conv1d(4, 5, 3)
    assert ptflops.get_model_complexity_info(net, (4, 9), as_strings=False) == (7 * (4 * 5 * 3 + 5), 65)
    net.warm_up((1, 4))
    net.call_mode = "forward_step"
    assert ptflops.get_model_complexity_info(net, (4,), as_strings=False) == (4 * 5 * 3 + 5, 65)


@row("`logging.getLogger(name, log_once=True)`", "same")
def _() -> None:
    logger, seen = co.logging.getLogger("earlier code", log_once=True), []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    for text in ("Hey", "There", "Hey"):
        logger.warning(text)
    assert seen == ["Hey", "There"]


@row("`utils.temporary_parameter`, `utils.flatten`", "same")
def _() -> None:
    net: Any = conv(3)
    with co.utils.temporary_parameter(net, "note", 42):
        assert net.note == 42
    assert not hasattr(net, "note")
    assert co.utils.flatten([1, [2, (3, None)]]) == [1, 2, 3]


@row("`utils.rsetattr`, `utils.rgetattr`, `utils.num_from`, `utils.function_repr`", "refused")
def _() -> None:
    utils: Any = co.utils
    names = ("rsetattr", "rgetattr", "num_from", "function_repr")
    assert not any(hasattr(utils, name) for name in names)
    _ = utils.rgetattr


@row(
    "`__about__`: `__version__`, `__author__`, `__author_email__`, `__license__`, `__copyright__`, `__homepage__`, `__docs__`",
    "same",
)
def _() -> None:
    about = importlib.import_module("continual.__about__")
    assert about.__version__ == co.__version__
    assert all(type(value) is str for name, value in vars(about).items() if name in about.__all__)
