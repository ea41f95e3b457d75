"""Edits of networks that were built by hand, or converted by class: weights, children, hooks and what tools do to them."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import continual as co

CLIP = torch.randn(3, 4, 14, generator=torch.Generator().manual_seed(7))


def forward(net):
    """The clip computation, between hooks."""
    y = net(CLIP)
    return y[0] if isinstance(y, tuple) else y


@torch.no_grad()
def streamed(net):
    """By steps, and in one chunk."""
    net.clean_state()
    steps = [y for x in CLIP.unbind(2) if (y := net.forward_step(x)) is not None]
    net.clean_state()
    return torch.stack(steps, 2), net.forward_steps(CLIP)


def assert_streams(net, want):
    for y in streamed(net):
        torch.testing.assert_close(y, want, rtol=0, atol=1e-5)


LAYERS = {
    "Conv1d": (lambda: co.Conv1d(4, 6, 3), "weight"),
    "a depthwise Conv1d": (lambda: co.Conv1d(4, 4, 3, groups=4), "weight"),
    "Linear": (lambda: co.Linear(4, 6, channel_dim=1), "weight"),
    "BatchNorm1d": (lambda: co.continual(nn.BatchNorm1d(4)), "weight"),
    "LSTM": (lambda: co.LSTM(4, 6), "weight_ih_l0"),
    "GRU": (lambda: co.GRU(4, 6), "weight_hh_l0"),
}
COMPUTED = {
    "pruning": lambda layer, name: prune.l1_unstructured(layer, name, amount=0.5),
    "parametrised weight_norm": parametrizations.weight_norm,
    "parametrised spectral_norm": parametrizations.spectral_norm,
    "weight_norm": weight_norm,
    "spectral_norm": spectral_norm,
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("edit", COMPUTED)
@pytest.mark.parametrize("layer", LAYERS)
def test_weights_computed_by_torch_after_the_stream_ran_are_followed_as_they_change(layer, edit, inside):
    torch.manual_seed(0)
    make, name = LAYERS[layer]
    own = make()
    net = (co.Sequential(own) if inside else own).eval()
    own = net[0] if inside else net
    before = streamed(net)[1]  # it has laid its weights out
    COMPUTED[edit](own, name)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.mul_(1.5)
    found = streamed(net)  # before any call of forward, which would compute the weight
    for y in found:
        torch.testing.assert_close(y, forward(net), rtol=0, atol=1e-5)
    assert not torch.allclose(found[1], before, atol=1e-3)


def test_a_pure_step_has_the_computed_weight_too():
    net = co.Conv1d(4, 6, 3).eval()
    prune.l1_unstructured(net, "weight", amount=0.5)
    with torch.no_grad():
        net.weight_orig.mul_(3)
        y, _ = net.steps(CLIP, net.init_state(CLIP[:, :, 0]))
        torch.testing.assert_close(y, net(CLIP), rtol=0, atol=1e-5)


def network():
    torch.manual_seed(0)
    return co.Sequential(co.Conv1d(4, 4, 3), nn.ReLU(), co.Residual(co.Conv1d(4, 4, 3, padding=1))).eval()


EXCHANGES = {
    "item": lambda net, new: net.__setitem__(0, new),
    "attribute": lambda net, new: setattr(net, "0", new),
    "add_module": lambda net, new: net.add_module("0", new),
    "register_module": lambda net, new: net.register_module("0", new),
    "set_submodule": lambda net, new: net.set_submodule("0", new),
    "attribute inside": lambda net, new: setattr(net[2], "1", new),
}


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_child_is_exchanged_by_every_way_of_torch_and_converted(exchange):
    net = network()
    with torch.no_grad():
        for x in CLIP[:, :, :6].unbind(2):
            net.forward_step(x)
    new = nn.Conv1d(4, 4, 3, padding=1 if exchange == "attribute inside" else 0)
    EXCHANGES[exchange](net, new)
    with torch.no_grad():
        net.forward_step(CLIP[:, :, 6])  # a state that is alike goes on
    assert new.weight is not net[0].weight
    want = forward(net)
    got = streamed(net)[1]
    torch.testing.assert_close(got, want[:, :, : got.shape[2]], rtol=0, atol=1e-5)
    own = net[2][1] if exchange == "attribute inside" else net[0]
    torch.testing.assert_close(own.weight, new.weight)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_running_stream_does_not_go_on_with_another_structure(exchange):
    net = network()
    with torch.no_grad():
        for x in CLIP[:, :, :6].unbind(2):
            net.forward_step(x)
        EXCHANGES[exchange](net, nn.Conv1d(4, 4, 5, padding=2 if exchange == "attribute inside" else 0))
        with pytest.raises(co.StateMismatch, match="changed while a stream ran"):
            net.forward_step(CLIP[:, :, 6])
        net.clean_state()
        y = net.forward_steps(CLIP)
        torch.testing.assert_close(y, forward(net)[:, :, : y.shape[2]], rtol=0, atol=1e-5)


def test_a_child_that_is_deleted_is_noticed_and_none_is_no_child():
    net = network()
    with torch.no_grad():
        net.forward_steps(CLIP[:, :, :6])
        delattr(net, "1")
        with pytest.raises(co.StateMismatch, match="changed while a stream ran"):
            net.forward_step(CLIP[:, :, 6])
    with pytest.raises(co.NotStreamable, match="takes an nn.Module, not NoneType"):
        setattr(net, "0", None)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.parametrize(
    "net", [co.Sequential(co.Linear(4, 4)), co.LSTM(4, 4), nn.Sequential(co.Conv1d(4, 4, 3), nn.Linear(4, 4))]
)
def test_dynamic_quantisation_is_refused(net):
    with pytest.raises(
        co.NotStreamable, match="torch.ao.quantization exchanges modules.*torchao.quantization.quantize_.*co.export"
    ):
        torch.ao.quantization.quantize_dynamic(net.eval(), {nn.Linear, nn.LSTM}, dtype=torch.qint8)
    assert not hasattr(net, "qconfig")


def test_weights_quantised_by_torchao_are_followed():
    torchao = pytest.importorskip("torchao.quantization")
    torch.manual_seed(0)
    net = co.Sequential(co.Conv1d(4, 16, 3), co.Linear(16, 16, channel_dim=1), nn.ReLU()).eval()
    before = streamed(net)[1]
    torchao.quantize_(net, torchao.Int8WeightOnlyConfig())
    assert 1e-4 < (net(CLIP) - before).abs().max() < 0.1
    assert_streams(net, net(CLIP))
