"""Multiply-adds as others count them: torch's `FlopCounterMode` and `ptflops`, in all three call modes, beside `co.summary`."""

from __future__ import annotations

import copy
import io
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import continual as co
from tests.torchvision_ops import torchvision

LENGTH = 48  # of the clips
Row = tuple[Callable[[], nn.Module], tuple[int, ...]]

# Each keeps the length of the clip, but for its temporal stride: then a step at full overlap does the clip's work divided by its steps.
LAYERS: dict[str, Row] = {
    "conv 1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), ()),
    "conv 1d, dilated": (lambda: nn.Conv1d(4, 6, 3, padding=4, dilation=4, bias=False), ()),
    "conv 1d, grouped": (lambda: nn.Conv1d(4, 6, 3, padding=1, groups=2), ()),
    "conv 1d, depthwise": (lambda: nn.Conv1d(4, 4, 5, padding=2, groups=4), ()),
    "conv 1d, pointwise": (lambda: nn.Conv1d(4, 6, 1), ()),
    "conv 1d, strided": (lambda: nn.Conv1d(4, 6, 3, padding=1, stride=2), ()),
    "conv 1d, reflecting": (lambda: nn.Conv1d(4, 6, 3, padding=1, padding_mode="reflect"), ()),
    "conv 2d": (lambda: nn.Conv2d(4, 6, 3, padding=1), (5,)),
    "conv 2d over time alone": (lambda: nn.Conv2d(4, 6, (9, 1), padding=(4, 0)), (5,)),
    "conv 2d over time alone, no bias": (lambda: nn.Conv2d(4, 6, (9, 1), padding=(4, 0), bias=False), (5,)),
    "conv 2d, strided in space": (lambda: nn.Conv2d(4, 6, (3, 2), (1, 2), padding=(1, 0), dilation=(1, 2)), (7,)),
    "conv 2d, depthwise": (lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4), (5,)),
    "conv 3d": (lambda: nn.Conv3d(4, 6, 3, (3, 2, 1), padding=1), (6, 5)),
    "conv 3d over space alone": (lambda: nn.Conv3d(4, 6, (1, 3, 3)), (6, 5)),
    "conv 3d, depthwise": (lambda: nn.Conv3d(4, 4, 3, padding=1, groups=4), (6, 5)),
    "linear": (lambda: nn.Linear(5, 3, bias=False), (5,)),
    "linear with bias": (lambda: nn.Linear(5, 3), (5,)),
    "average pool": (lambda: nn.AvgPool2d((3, 2), (1, 2), (1, 0)), (6,)),
    "maximum pool": (lambda: nn.MaxPool3d(3, (1, 2, 2), 1), (6, 5)),
    "long pool": (lambda: nn.AvgPool1d(11, 1, 5), ()),
    "batch norm": (lambda: nn.BatchNorm2d(4), (5,)),
    "layer norm": (lambda: nn.LayerNorm(5), (5,)),
    "instance norm": (lambda: nn.InstanceNorm1d(4, track_running_stats=True), ()),
    "activations": (lambda: nn.Sequential(nn.ReLU(), nn.PReLU(4), nn.GELU(), nn.ELU(), nn.LeakyReLU(), nn.ReLU6()), (5,)),
    "pool over space": (lambda: nn.AdaptiveAvgPool2d((None, 1)), (5,)),
    "network": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 8, (3, 1), padding=(1, 0)), nn.BatchNorm2d(8), nn.ReLU(), nn.Sequential(nn.Linear(5, 3, bias=False), nn.Dropout()),
            nn.Conv2d(8, 8, (5, 1), padding=(2, 0), groups=8), nn.MaxPool2d((1, 3)), nn.Conv2d(8, 2, 1),
        ),
        (5,),
    ),
}  # fmt: skip
for _layers, _cell in ((nn.RNN, nn.RNNCell), (nn.GRU, nn.GRUCell), (nn.LSTM, nn.LSTMCell)):
    if hasattr(co, _layers.__name__):  # being written
        LAYERS[_layers.__name__] = (partial(_layers, 4, 6, 2, batch_first=True), ())
        LAYERS[_cell.__name__] = (partial(_cell, 4, 6), ())
RECURRENT = [name for name in LAYERS if name.startswith(("RNN", "GRU", "LSTM"))]


def of_nn(name: str, module: nn.Module, clip: Tensor) -> Tensor:
    """A clip in the layout that the `torch.nn` module takes."""
    if isinstance(module, nn.RNNBase):
        return clip.movedim(1, -1)
    return clip.movedim(1, -1).flatten(0, 1) if isinstance(module, nn.RNNCellBase) else clip


def warm(module: nn.Module, clip: Tensor) -> co.CoModule:
    """A stream that has come so far that every further step, or every further one of a stride, has an output."""
    net = co.continual(module).eval()
    with torch.no_grad():
        net.forward_steps(clip)
    return net


def run(net: co.CoModule, clip: Tensor, mode: str) -> None:
    with co.call_mode(mode):
        if mode == "forward_step":
            for step in clip.unbind(2):
                net(step)
        else:
            net(clip)


# ---- torch's FlopCounterMode ----------------------------------------------------------------------------------------


def flops(run: Callable[[], Any], gradients: bool = False) -> int:
    counter = FlopCounterMode(display=False, custom_mapping=co.counting.flop_formulas())
    with torch.set_grad_enabled(gradients), counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("gradients", [False, True], ids=["no gradients", "gradients"])
@pytest.mark.parametrize("mode", ["forward", "forward_steps", "forward_step"])
@pytest.mark.parametrize("name", LAYERS)
def test_flop_counter(name: str, mode: str, gradients: bool):
    make, space = LAYERS[name]
    module, clip = make().eval(), torch.randn(2, 4, LENGTH, *space)
    expected = flops(lambda: module(of_nn(name, module, clip)))
    net = warm(module, clip)
    assert flops(lambda: run(net, clip, mode), gradients) == expected


@pytest.mark.parametrize("name", LAYERS)
def test_summary(name: str):
    make, space = LAYERS[name]
    module, clip = make().eval(), torch.randn(1, 4, LENGTH, *space)
    expected = flops(lambda: module(of_nn(name, module, clip)))
    row = co.summary(co.continual(module), clip[:, :, 0], clip_length=LENGTH).rows[0]
    assert (2 * row.macs_clip, 2 * row.macs_step * LENGTH) == (expected, expected)


@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2}, {"bias": False, "bidirectional": True}, {"batch_first": True}], ids=str
)
def test_flops_of_lstms(options: dict[str, Any]):
    lstm = nn.LSTM(4, 6, **options)
    weights = sum(p.numel() for name, p in lstm.named_parameters() if "weight" in name)
    expected = 2 * 3 * 9 * weights  # batch 3, 9 steps
    assert flops(lambda: lstm(torch.randn((3, 9, 4) if lstm.batch_first else (9, 3, 4)))) == expected
    assert flops(lambda: lstm.double()(torch.randn((9, 3, 4), dtype=torch.float64))) == expected  # by torch's own formulas


@pytest.mark.parametrize("masked", [False, True])
def test_flops_of_attention(masked: bool):
    query, key, value = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)
    mask = torch.ones(5, 7, dtype=torch.bool) if masked else None
    attend = nn.functional.scaled_dot_product_attention
    assert flops(lambda: attend(query, key, value, attn_mask=mask)) == 2 * 2 * 3 * 5 * 7 * (8 + 8)


# ---- ptflops --------------------------------------------------------------------------------------------------------
# By default ptflops adds the calls of functions such as F.relu to the modules that it has counted, also in a network of
# torch.nn: activations and pools then count twice. "count_functional" leaves that out.

MODES = ["forward", "forward_steps", "forward_step"]


@pytest.fixture(scope="module")
def ptflops() -> Any:
    torchvision()  # which ptflops imports
    return pytest.importorskip("ptflops", reason="needs ptflops, of the extra `dev`")


def complexity(ptflops: Any, net: nn.Module, shape: tuple[int, ...], backend: str = "pytorch", gradients: bool = True) -> Any:
    """Multiply-adds and parameters by ptflops; without gradients as inside a user's `no_grad` block."""
    if backend == "aten" or not isinstance(net, co.CoModule):
        co.counting.register_with_ptflops(net)
    options = {"count_functional": False}
    with nullcontext() if gradients else torch.no_grad():
        return ptflops.get_model_complexity_info(
            net, tuple(shape), print_per_layer_stat=False, as_strings=False, backend=backend, backend_specific_config=options
        )


@pytest.mark.parametrize("gradients", [False, True], ids=["no gradients", "gradients"])
@pytest.mark.parametrize("backend", ["pytorch", "aten"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [n for n in LAYERS if n not in RECURRENT])
def test_ptflops(ptflops: Any, name: str, mode: str, backend: str, gradients: bool):
    make, space = LAYERS[name]
    module, clip = make().eval(), torch.zeros(1, 4, LENGTH, *space)
    if backend == "aten" and name == "linear with bias":
        pytest.skip("ptflops counts no bias of nn.Linear on clips with this backend, and one on steps")
    expected, params = complexity(ptflops, module, clip.shape[1:], backend)
    net = warm(module, clip)
    stride = net.stride[0]
    with co.call_mode(mode):
        if mode != "forward_step":
            assert complexity(ptflops, net, clip.shape[1:], backend, gradients) == (expected, params)
            return
        for i in range(stride):  # as many steps came before as a multiple of the stride
            emits = i == net.delay % stride
            warns = not emits and backend == "pytorch"
            with pytest.warns(UserWarning, match="completes no output of Conv") if warns else nullcontext():
                found = complexity(ptflops, net, clip[:, :, 0].shape[1:], backend, gradients)
            assert found == (expected * stride // LENGTH if emits else 0, params)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", RECURRENT)
def test_ptflops_of_recurrent_layers(ptflops: Any, name: str, mode: str):
    make, _ = LAYERS[name]
    module, clip = make().eval(), torch.zeros(1, 4, LENGTH)
    counts = LENGTH if isinstance(module, nn.RNNCellBase) else 1  # a cell is counted on one step
    expected, params = complexity(ptflops, module, (4,) if counts > 1 else (LENGTH, 4))
    net = warm(module, clip)
    with co.call_mode(mode):
        if mode == "forward_step":
            assert complexity(ptflops, net, (4,)) == (expected * counts // LENGTH, params)
        else:
            assert complexity(ptflops, net, (4, LENGTH)) == (expected * counts, params)


class Plain(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def branching() -> co.Sequential:
    return co.Sequential(
        co.Residual(co.Sequential(nn.Conv1d(4, 4, 3, padding=1), nn.ReLU())),
        co.BroadcastReduce(co.Conv1d(4, 2, 1), co.Conv1d(4, 2, 5, padding=2), reduce="concat"),
        co.Linear(4, 3, channel_dim=1),
    )


BRANCHING_STEP = (4 * 4 * 3 + 4) + 4 + (4 * 2 + 2) + (4 * 2 * 5 + 2) + (4 * 3 + 3)  # with a multiply-add for each bias


def encoder(layers: int, **options: Any) -> Any:
    layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)
    return co.continual(nn.TransformerEncoder(layer, layers, enable_nested_tensor=False), sequence_len=5, **options).eval()


ATTENTION: dict[str, Callable[[], Any]] = {
    "band": lambda: co.MultiheadAttention(4, 2, sequence_len=5, embed_dim_second=True),
    "single output": lambda: co.SingleOutputMultiheadAttention(4, 2, sequence_len=5, embed_dim_second=True),
    "retroactive": lambda: co.RetroactiveMultiheadAttention(4, 2, sequence_len=5, embed_dim_second=True),
    "encoder of 1": lambda: encoder(1),
    "encoder of 3": lambda: encoder(3),
    "causal encoder of 2": lambda: encoder(2, causal=True),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_ptflops_of_attention(ptflops: Any, name: str):
    """A step, and as many in a chunk, count what `co.summary` says; a clip of one window what its projections and scores are."""
    net = ATTENTION[name]().eval()
    step = int(co.summary(net, torch.zeros(1, 4)).rows[0].macs_step)
    if net.delay:
        with co.call_mode("forward_step"), pytest.warns(UserWarning, match="completes no output"):
            assert complexity(ptflops, net, (4,))[0] == 48  # three projections, as FlopCounterMode counts
    for mode, shape, count in (("forward_step", (4,), 1), ("forward_steps", (4, LENGTH), LENGTH)):
        net.clean_state()
        net.warm_up((1, 4))
        with co.call_mode(mode):
            assert complexity(ptflops, net, shape)[0] == count * step
    net.clean_state()
    clip = complexity(ptflops, net, (4, 5))[0]
    if name == "retroactive":
        assert clip == 5 * (4 * 16 + 2 * 5 * 4)
    elif name == "single output":
        assert clip == 5 * 48 + 2 * 5 * 4 + 16
    else:
        assert clip >= step


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_ptflops_of_containers_and_of_plain_modules_around_them(ptflops: Any, mode: str, wrapped: bool):
    net = branching()
    net.warm_up((1, 4))
    net.call_mode = mode
    counted = Plain(net) if wrapped else net
    steps = 1 if mode == "forward_step" else LENGTH
    found, params = complexity(ptflops, counted, (4,) if mode == "forward_step" else (4, LENGTH))
    assert (found, params) == (steps * BRANCHING_STEP, sum(p.numel() for p in net.parameters()))
    assert not any(m._forward_hooks for m in net.modules())
    assert list(copy.deepcopy(net).state_dict()) == list(branching().state_dict())


def test_ptflops_prints_every_layer(ptflops: Any):
    net, text = branching(), io.StringIO()
    with co.call_mode("forward_step"):
        net.warm_up((1, 4))
        ptflops.get_model_complexity_info(net, (4,), ost=text, backend_specific_config={"count_functional": False})
    shown = text.getvalue()
    assert f"{100 * 52 / BRANCHING_STEP:.3f}% MACs, 4, 4, kernel_size=(3,)" in shown
    assert "100.000% MACs" in shown
    assert str(branching()) == str(copy.deepcopy(net))


def test_the_first_step_of_a_stream_is_said_to_be_too_little(ptflops: Any):
    net = co.Sequential(nn.Conv1d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv1d(4, 4, 1))
    with co.call_mode("forward_step"):
        with pytest.warns(
            UserWarning, match=r"this step completes no output of Conv1d.*net.warm_up\(step_shape\) before.*co.summary"
        ):
            assert complexity(ptflops, net, (4,))[0] == 0
        assert complexity(ptflops, net, (4,))[0] == (4 * 4 * 3 + 4) + 4 + (4 * 4 + 4)


def fresh() -> tuple[type[co.Conv1d], type[nn.ReLU]]:
    """Classes that ptflops does not know: its table is that of the process."""

    class Conv(co.Conv1d):
        pass

    class Plain(nn.ReLU):
        pass

    return Conv, Plain


def count(ptflops: Any, net: nn.Module) -> int:
    options: dict[str, Any] = {"as_strings": False, "backend_specific_config": {"count_functional": False}}
    return ptflops.get_model_complexity_info(net, (4, 10), print_per_layer_stat=False, **options)[0]


MACS = 8 * (4 * 4 * 3 + 4)


def test_ptflops_counts_a_streaming_network_that_it_takes(ptflops: Any):
    Conv, _ = fresh()
    net, table = co.Sequential(Conv(4, 4, 3)), ptflops.pytorch_ops.MODULES_MAPPING
    assert not hasattr(net, "start_flops_count")
    assert Conv not in table
    assert count(ptflops, net) == MACS
    assert Conv in table
    assert count(ptflops, copy.deepcopy(net)) == MACS


def test_entries_of_the_user_are_kept(ptflops: Any):
    Conv, _ = fresh()

    def own(module: Any, args: Any, output: Any) -> None:
        module.__flops__ += 5

    ptflops.pytorch_ops.MODULES_MAPPING[Conv] = own
    net = co.Sequential(Conv(4, 4, 3))
    assert count(ptflops, net) == 5
    co.counting.register_with_ptflops(net)
    assert ptflops.pytorch_ops.MODULES_MAPPING[Conv] is own


def test_a_plain_module_around_streaming_ones_registers_them(ptflops: Any):
    Conv, Plain = fresh()
    net = nn.Sequential(Conv(4, 4, 3), Plain())
    with pytest.warns(
        UserWarning, match=r"counts 0 for Conv, .* plain module .*Call co.counting.register_with_ptflops\(module\)"
    ):
        assert count(ptflops, net) == 0
    co.counting.register_with_ptflops(net)
    assert count(ptflops, net) == MACS
    assert Plain not in ptflops.pytorch_ops.MODULES_MAPPING  # what does not stream is left to ptflops


def test_copies_of_ptflops_in_other_packages_set_the_same_attribute(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "ptflops.aten_ops", raising=False)
    net = co.Conv1d(4, 4, 3)
    net.start_flops_count = 3  # type: ignore[assignment]
    assert net.start_flops_count == 3


def test_without_ptflops_the_call_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ptflops", None)
    with pytest.raises(ImportError, match=r"register_with_ptflops needs ptflops: pip install ptflops"):
        co.counting.register_with_ptflops(co.Conv1d(1, 1, 3))


@pytest.mark.parametrize("reuse", [False, True])
def test_steps_of_exact_windows_are_counted(reuse: bool):
    """A window that is computed again costs the module's own multiply-adds; one that takes over, less by the share that it reports."""
    module = nn.Sequential(nn.Conv1d(3, 8, 5, padding=2), nn.Conv1d(8, 4, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten()).eval()
    clip = torch.randn(2, 3, 21)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(clip[:1])
    net: Any = co.continual(module, clip, windows=co.WindowPlan(every=2, stride=None if reuse else 0))
    found = co.operations(net, torch.zeros(3, 3))
    share = 1 - net.windows.reuse if reuse else 1
    assert sorted(found.executed) == [0, round(share * counter.get_total_flops() / 2)]
    assert [p.path for p in found.parts] == [""]
