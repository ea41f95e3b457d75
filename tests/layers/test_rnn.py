"""`RNN`, `GRU`, `LSTM` and their cells: every option, against `torch.nn` and the contract; conversion and refusals."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal, assert_same_state, check_contract, check_gradients, check_layer, fingerprint, forward_of
from tests.recurrent import CELL_LAYERS, CELLS, CLASSES, EVERY, EVERY_CLASS, LAYERS, ByClips, loop

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")

# ---- every option ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_layer(name: str):
    cls, inputs, hidden, options = EVERY[name]
    ours, theirs = EVERY_CLASS[cls]
    net = ours(inputs, hidden, **options)
    reference = theirs(inputs, hidden, **options)
    assert isinstance(net, theirs)
    assert [(n, p.shape) for n, p in net.named_parameters()] == [(n, p.shape) for n, p in reference.named_parameters()]
    check_layer(net, ByClips(reference), (3, inputs, 19))


@pytest.mark.parametrize("name", ["RNN relu, 3 layers", "GRU, 2 layers, dropout", "LSTM, projected, 3 layers", "LSTMCell"])
def test_verified_as_a_user_would(name: str):
    cls, inputs, hidden, options = EVERY[name]
    reference = EVERY_CLASS[cls][1](inputs, hidden, **options).double().eval()
    clip = torch.randn(2, inputs, 24, dtype=torch.float64)
    assert co.verify(co.continual(reference), clip, ByClips(reference)).passed


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_converted(name: str, batch_first: bool):
    """The layout of clips is (B, C, T), whatever that of the original."""
    cls, inputs, hidden, options = LAYERS[name]
    ours, theirs = CLASSES[cls]
    layer = theirs(inputs, hidden, **options, batch_first=batch_first).double().eval()
    before = dict(layer.__dict__)
    for net in (co.continual(layer), ours.build_from(layer)):
        assert type(net) is ours
        assert list(net.state_dict()) == list(layer.state_dict())
        assert not net.batch_first
        assert all(a is not b and torch.equal(a, b) for a, b in zip(net.parameters(), layer.parameters()))
        x = torch.randn(2, inputs, 9, dtype=torch.float64)
        assert_equal(net(x)[0], ByClips(layer)(x))
        assert_equal(torch.stack([net.forward_step(s) for s in x.unbind(2)], 2), ByClips(layer)(x))
    assert {**layer.__dict__, "_flat_weight_refs": 0} == {**before, "_flat_weight_refs": 0}


@pytest.mark.parametrize("make", [co.continual, co.forward_stepping], ids=["continual", "forward_stepping"])
@pytest.mark.parametrize("name", CELL_LAYERS)
def test_converted_cells(name: str, make: Any):
    cls, inputs, hidden, options = CELL_LAYERS[name]
    cell = CELLS[cls][1](inputs, hidden, **options).double()
    net = make(cell)
    assert type(net) is CELLS[cls][0]
    assert type(cell) is CELLS[cls][1]
    assert (net.weight_hh is cell.weight_hh) is (make is co.forward_stepping)
    clip = torch.randn(2, inputs, 9, dtype=torch.float64)
    assert_equal(net(clip), loop(cell, clip))
    check_contract(net, clip, ByClips(cell))


def test_forward_stepping_cells_over_another_dimension():
    """Clips (B, T, C), as `batch_first` has them."""
    cell = nn.GRUCell(4, 5).double()
    net = co.forward_stepping(cell, dim=1)
    x = torch.randn(2, 7, 4, dtype=torch.float64)
    expected = loop(cell, x.movedim(1, 2)).movedim(2, 1)
    assert_equal(net(x), expected)
    assert_equal(torch.stack([net.forward_step(s) for s in x.unbind(1)], 1), expected)
    net.clean_state()
    assert_equal(torch.cat([net.forward_steps(x[:, :3]), net.forward_steps(x[:, 3:])], 1), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", CLASSES)
def test_half_types(name: str, dtype: torch.dtype):
    check_contract(CLASSES[name][0](3, 4, num_layers=2).to(dtype).eval(), torch.randn(2, 3, 9).to(dtype))


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM, 2 layers, dropout", "LSTM, projected", "GRUCell", "LSTMCell"])
def test_under_autocast(name: str, grad: bool):
    """A step has the dtype of the clip's output too."""
    cls, inputs, hidden, options = EVERY[name]
    net, clip = EVERY_CLASS[cls][0](inputs, hidden, **options).eval(), torch.randn(2, inputs, 7)
    with torch.autocast("cpu", torch.bfloat16):
        expected = forward_of(net, clip)
        steps = torch.stack([net.forward_step(s) for s in clip.unbind(2)], 2)
    assert steps.dtype == expected.dtype
    torch.testing.assert_close(steps, expected, atol=2e-2, rtol=2e-2)


def test_what_it_reports():
    net = co.LSTM(3, 4)
    assert (net.receptive_field, net.delay, net.stride, net.padding, net.unbounded_memory) == (1, 0, (1,), (0,), True)
    assert co.Sequential(co.Conv1d(3, 3, 3), net).unbounded_memory
    assert not co.Sequential(co.Conv1d(3, 3, 3)).unbounded_memory
    assert net.warm_up((2, 3)) is None
    assert net.get_state() is None


@pytest.mark.parametrize("name", EVERY)
def test_multiply_adds(name: str):
    """Those of all matrix products in a step."""
    cls, inputs, hidden, options = EVERY[name]
    net = EVERY_CLASS[cls][0](inputs, hidden, **options)
    expected = sum(p.numel() for n, p in net.named_parameters() if "weight" in n)
    found = co.summary(net, torch.zeros(2, inputs), clip_length=7).rows[0]
    assert (found.macs_step, found.macs_clip) == (expected, 7 * expected)
    layers, out = options.get("num_layers", 1), options.get("proj_size") or hidden
    assert found.state_bytes == 2 * 4 * layers * (out + (hidden if "LSTM" in cls else 0))


# ---- in containers --------------------------------------------------------------------------------------------------

NETWORKS = {
    "between convolutions": lambda: co.Sequential(co.Conv1d(3, 4, 3, padding=1), co.LSTM(4, 5, 2), co.Conv1d(5, 3, 4, 2, 2)),
    "after a stride": lambda: co.Sequential(co.Conv1d(3, 3, 3, 2), nn.GRU(3, 3), nn.ReLU()),
    "residual": lambda: co.Residual(co.GRU(3, 3)),
    "residual with a delay": lambda: co.Residual(co.Sequential(co.Conv1d(3, 3, 5, padding=2), co.LSTMCell(3, 3))),
    "branches": lambda: co.BroadcastReduce(co.LSTM(3, 4), co.Conv1d(3, 4, 5, padding=2), co.RNN(3, 4, 3), reduce="concat"),
    "two streams": lambda: co.Sequential(co.Broadcast(2), co.Parallel(co.GRUCell(3, 3), co.Delay(2)), co.Reduce("sum")),
    "conditional": lambda: co.Conditional(lambda module, x: True, co.LSTM(3, 3), co.Conv1d(3, 3, 3, padding=2)),
    "conditional, kept fed": lambda: co.Sequential(co.Conditional(lambda module, x: False, co.GRU(3, 3)), co.LSTM(3, 2)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_in_containers(name: str):
    net, clip = NETWORKS[name]().double(), torch.randn(2, 3, 21, dtype=torch.float64)
    check_contract(net, clip)
    check_gradients(net, clip)
    if name == "between convolutions":
        assert co.verify(net, clip).passed


def test_hooks_see_outputs_in_streams():
    net, seen = co.Sequential(co.LSTM(3, 4), nn.ReLU()), []
    net[0].register_forward_hook(lambda m, args, y: seen.append(tuple(y.shape)))
    with torch.no_grad():
        net.forward_step(torch.zeros(2, 3))
        net.forward_steps(torch.zeros(2, 3, 5))
    assert seen == [(2, 4), (2, 4, 5)]


def test_call_mode():
    net, clip = co.LSTM(3, 4), torch.randn(2, 3, 6)
    out, hidden = net(clip)
    with co.call_mode("forward_steps"):
        assert_equal(net(clip[:, :, :4]), out[:, :, :4])
    with co.call_mode("forward_step"):
        assert_equal(net(clip[:, :, 4]), out[:, :, 4])
        assert_equal(net(clip[:, :, 5]), out[:, :, 5])
    net.call_mode = "forward_step"
    net.clean_state()
    assert_equal(net(clip[:, :, 0]), out[:, :, 0])
    assert_equal(net.get_state().tensors["hidden"].squeeze(1), out[:, :, 0])
    with pytest.raises(
        TypeError, match=r"call mode 'forward_step' the hidden state is the stream's: start it by set_state\(hx\)"
    ):
        net(clip[:, :, 1], hidden)
    assert_equal(net(clip[:, :, 1], False), net(clip[:, :, 1]))
    assert_equal(net(clip[:, :, 2], update_state=False), out[:, :, 2])


# ---- subclasses and sharing -------------------------------------------------------------------------------------------


class Mine(nn.LSTM):
    """Another constructor, the same computation."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, batch_first=True)
        self.note = "mine"


class Doubled(nn.GRU):
    """Another computation."""

    def forward(self, x: Tensor, hx: Any = None) -> Any:  # type: ignore[override]
        return super().forward(2 * x, hx)


class DoubledCell(nn.GRUCell):
    """Another computation."""

    def forward(self, x: Tensor, hx: Any = None) -> Any:  # type: ignore[override]
        return super().forward(2 * x, hx)


def test_subclasses():
    layer = Mine(3).double()
    net = co.continual(nn.Sequential(layer))
    assert isinstance(net[0], (Mine, co.LSTM))
    assert net[0].note == "mine"
    clip = torch.randn(2, 3, 9, dtype=torch.float64)
    check_contract(net, clip, ByClips(layer))
    net.forward_step(clip[:, :, 0])
    twin = pickle.loads(pickle.dumps(net))
    assert_equal(twin.forward_step(clip[:, :, 1]), net.forward_step(clip[:, :, 1]))
    for other in (Doubled(3, 3), DoubledCell(3, 3)):
        with pytest.raises(co.NotStreamable, match="overrides the forward of GRU"):
            co.continual(other)
    with pytest.raises(co.NotStreamable, match="overrides the forward of GRUCell"):
        co.forward_stepping(DoubledCell(3, 3))


def test_weights_may_be_shared():
    first, second = nn.GRU(3, 3), nn.GRU(3, 3)
    for name, p in first.named_parameters():
        setattr(second, name, p)
    layer = nn.Sequential(first, nn.ReLU(), second, first).double()
    net = co.continual(layer)
    assert net[0] is net[3]
    assert all(a is b for a, b in zip(net[0]._flat_weights, net[2]._flat_weights, strict=True))
    assert net[0].weight_hh_l0 is not first.weight_hh_l0
    clip = torch.randn(2, 3, 9, dtype=torch.float64)

    def expected(x: Tensor) -> Tensor:
        return ByClips(first)(ByClips(second)(ByClips(first)(x).relu()))

    assert_equal(net(clip), expected(clip))
    check_contract(net, clip)


def test_training_flag_and_requires_grad_are_kept():
    layer = nn.LSTM(3, 4, 2, dropout=0.25).train()
    layer.weight_ih_l1.requires_grad_(False)
    net = co.continual(layer)
    assert (net.training, net.dropout) == (True, 0.25)
    assert [p.requires_grad for p in net.parameters()] == [p.requires_grad for p in layer.parameters()]


# ---- refusals -------------------------------------------------------------------------------------------------------

REFUSED_ARGUMENTS = {
    "batch_first": ({"batch_first": True}, TypeError, r"\(batch_first=True\): input and output are \(B, C, T\) always"),
    "batch_first, False": ({"batch_first": False}, TypeError, r"\(batch_first=False\): input and output"),
    "bidirectional": (
        {"bidirectional": True},
        co.NotStreamable,
        r"not seen.*Remedies: train it with bidirectional=False.*backward",
    ),
    "unknown": ({"hidden_dim": 3}, TypeError, r"\(hidden_dim=3\): there is no such argument"),
    "several": ({"batch_first": True, "bidirectional": True}, co.NotStreamable, "Remedies"),
}


@pytest.mark.parametrize("cls", [co.RNN, co.GRU, co.LSTM])
@pytest.mark.parametrize("name", REFUSED_ARGUMENTS)
def test_arguments_that_are_refused(name: str, cls: Any):
    options, error, message = REFUSED_ARGUMENTS[name]
    with pytest.raises(error, match=f"{cls.__name__}.*{message}"):
        cls(3, 4, **options)


def test_a_layer_that_runs_forward_may_be_said_to():
    for cls in (co.RNN, co.GRU, co.LSTM):
        assert cls(3, 4, bidirectional=False).bidirectional is False


def test_arguments_of_other_classes_are_refused():
    for cls in (co.RNN, co.GRU):
        with pytest.raises(TypeError, match="proj_size=2.*no such argument"):
            cls(3, 4, proj_size=2)
    for cls in (co.GRU, co.LSTM):
        with pytest.raises(TypeError, match="nonlinearity='relu'.*no such argument"):
            cls(3, 4, nonlinearity="relu")
    with pytest.raises(ValueError, match="nonlinearity"):
        co.RNN(3, 4, nonlinearity="gelu")
    with pytest.raises(TypeError):
        co.LSTMCell(3, 4, num_layers=2)
    with pytest.raises(TypeError, match="unknown argument 'stride'"):
        co.LSTM.build_from(nn.LSTM(3, 4), stride=2)


@pytest.mark.parametrize("cls", [nn.RNN, nn.GRU, nn.LSTM])
def test_bidirectional_modules_are_refused(cls: Any):
    name = cls.__name__
    with pytest.raises(co.NotStreamable, match=rf"1 \({name}\): {name}\(bidirectional=True\).*Remedies"):
        co.continual(nn.Sequential(nn.ReLU(), cls(3, 4, bidirectional=True)))
    with pytest.raises(co.NotStreamable, match="Remedies"):
        getattr(co, name).build_from(cls(3, 4, bidirectional=True))
    with pytest.raises(co.NotStreamable, match=rf"forward_stepping\({name}\): its outputs depend on all.*co.continual\(module\)"):
        co.forward_stepping(cls(3, 4))


BAD_INPUT = {
    "unbatched": (torch.zeros(3, 9), r"a clip is \(B, 3, T\), got \(3, 9\).*x.unsqueeze\(0\)"),
    "channels": (
        torch.zeros(2, 9, 3),
        r"expects 3 channels in dim 1.*got \(2, 9, 3\).*x.permute\(1, 2, 0\).*x.transpose\(1, 2\)",
    ),
    "space": (torch.zeros(2, 3, 9, 4), r"a clip is \(B, 3, T\), got \(2, 3, 9, 4\)"),
    "dtype": (torch.zeros(2, 3, 9).double(), "weights are torch.float32, the step is torch.float64"),
    "device": (torch.zeros(2, 3, 9, device="meta"), "weights are on cpu, the step is on meta"),
    "packed": (nn.utils.rnn.pack_sequence([torch.zeros(9, 3)]), ".*not PackedSequence.*pad them"),
}


@pytest.mark.parametrize("cls", [co.GRU, co.LSTMCell])
@pytest.mark.parametrize("name", BAD_INPUT)
def test_inputs_that_are_refused(name: str, cls: Any):
    clip, message = BAD_INPUT[name]
    net = cls(3, 4)
    with pytest.raises(co.ShapeMismatch, match=f"{cls.__name__}: {message}"):
        net(clip)
    before = net.get_state()
    if isinstance(clip, Tensor):
        with pytest.raises(co.ShapeMismatch):
            net.forward_steps(clip)
        with pytest.raises(co.ShapeMismatch):
            net.forward_step(clip[:, 0] if clip.ndim == 2 else clip[:, :, 0])
    assert net.get_state() is before is None


def test_a_refused_step_leaves_the_stream_as_it_was():
    net = co.LSTM(3, 4)
    net.forward_steps(torch.randn(2, 3, 5))
    before = fingerprint(net._stream)
    for bad in (torch.zeros(1, 3), torch.zeros(2, 4), torch.zeros(2, 3).double(), torch.zeros(3)):
        with pytest.raises(co.ShapeMismatch):
            net.forward_step(bad)
    assert_same_state(fingerprint(net._stream), before, "a refused step")
