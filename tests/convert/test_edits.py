"""Edits of a converted network: honoured, or refused when they are tried; never without a word."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import continual as co

CLIP = torch.randn(3, 4, 14, generator=torch.Generator().manual_seed(5))


class Net(nn.Module):
    """Its forward reads an attribute of the instance and one of the class, beside children of several kinds."""

    scale = 1.5

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3))
        self.named = nn.ModuleDict({"a": nn.Linear(6, 5)})
        self.some = nn.ModuleList([nn.Linear(5, 5)])
        self.head = nn.Linear(5, 5)
        self.merged = False
        nn.init.uniform_(self.layers[1].running_mean, -1, 1)

    def forward(self, x):
        y = self.head(self.some[0](self.named["a"](self.layers(x).transpose(1, 2)).relu())) * self.scale
        return (y if self.merged else y + 1).transpose(1, 2)


@pytest.fixture(scope="module")
def converted():
    torch.manual_seed(0)
    model = Net().eval()
    return model, co.continual(model, CLIP, copy=True)


@pytest.fixture
def pair():
    torch.manual_seed(0)
    model = Net().eval()
    return model, co.continual(model, CLIP)


@torch.no_grad()
def assert_streams_as(model, net):
    want = model(CLIP)
    net.clean_state()
    torch.testing.assert_close(net.forward_steps(CLIP), want, rtol=0, atol=2e-5)
    torch.testing.assert_close(net(CLIP), want, rtol=0, atol=2e-5)
    net.clean_state()
    steps = [net.forward_step(x) for x in CLIP.unbind(2)]
    torch.testing.assert_close(torch.stack([y for y in steps if y is not None], 2), want, rtol=0, atol=2e-5)


REFUSED = {
    "a child": (lambda net: setattr(net, "head", nn.Linear(5, 5)), "Net: its children can't be changed.*Change the module.*convert"),
    "a child by None": (lambda net: setattr(net, "head", None), "children can't be changed"),
    "a child is deleted": (lambda net: delattr(net, "head"), "children can't be changed"),
    "add_module": (lambda net: net.add_module("head", nn.Linear(5, 5)), "children can't be changed"),
    "register_module": (lambda net: net.register_module("more", nn.Linear(5, 5)), "children can't be changed"),
    "the table of children": (lambda net: net._modules.update(head=nn.Linear(5, 5)), "children can't be changed"),
    "set_submodule": (lambda net: net.set_submodule("layers.0", nn.Conv1d(4, 6, 3)), r"Net: layers \(Sequential\): its children"),
    "a Sequential's item": (lambda net: net.layers.__setitem__(2, nn.Tanh()), r"layers \(Sequential\): its children"),
    "a Sequential's item is deleted": (lambda net: net.layers.__delitem__(2), r"layers \(Sequential\): its children"),
    "append to a Sequential": (lambda net: net.layers.append(nn.Tanh()), r"layers \(Sequential\): its children"),
    "insert into a Sequential": (lambda net: net.layers.insert(0, nn.Tanh()), r"layers \(Sequential\): its children"),
    "pop from a ModuleList": (lambda net: net.some.pop(0), r"some \(ModuleList\): its children"),
    "a ModuleDict's item": (lambda net: net.named.__setitem__("a", nn.Tanh()), r"named \(ModuleDict\): its children"),
    "a ModuleDict's item is deleted": (lambda net: net.named.__delitem__("a"), r"named \(ModuleDict\): its children"),
    "a forward hook": (lambda net: net.head.register_forward_hook(lambda *a: None), r"head \(Linear\): a hook on a part.*another output"),
    "a pre-hook": (lambda net: net.head.register_forward_pre_hook(lambda *a: None), "a hook on a part"),
    "a backward hook": (lambda net: net.head.register_full_backward_hook(lambda *a: None), "a hook on a part"),
    "a backward pre-hook": (lambda net: net.head.register_full_backward_pre_hook(lambda *a: None), "a hook on a part"),
    "a part's forward": (lambda net: setattr(net.head, "forward", lambda x: x), r"head \(Linear\): 'forward' was read"),
    "a part's class": (lambda net: setattr(net.head, "__class__", nn.Linear), "'__class__' was read"),
    "a part's attribute": (lambda net: setattr(net.layers[3], "p", 0.9), r"layers.3 \(Dropout\): 'p' was read"),
    "a part's attribute is deleted": (lambda net: delattr(net.layers[3], "p"), "'p' belongs to the captured operations"),
    "an attribute": (lambda net: setattr(net, "merged", True), "Net: 'merged' was read"),
    "an attribute of the class": (lambda net: setattr(net, "scale", 2.0), "Net: 'scale' was read"),
    "a weight of another shape": (lambda net: setattr(net.head, "weight", nn.Parameter(torch.ones(7, 5))), r"\(5, 5\).*got \(7, 5\)"),
    "a bias by None": (lambda net: setattr(net.head, "bias", None), r"'bias' was of the shape \(5,\)"),
    "a weight is deleted": (lambda net: delattr(net.head, "weight"), "can't be taken away"),
    "the table of parameters": (lambda net: net.head._parameters.pop("weight"), "can't be taken away"),
    "another parameter": (lambda net: net.head.register_parameter("more", nn.Parameter(torch.ones(2))), "read no 'more'"),
    "another buffer": (lambda net: net.register_buffer("more", torch.ones(2)), "read no 'more'"),
    "pruning": (lambda net: prune.l1_unstructured(net.head, "weight", amount=0.5), "read no 'weight_orig'"),
    "weight_norm": (lambda net: parametrizations.weight_norm(net.head), "can't be taken away or computed again"),
    "spectral_norm": (lambda net: parametrizations.spectral_norm(net.head), "can't be taken away or computed again"),
    "the old spectral_norm": (lambda net: spectral_norm(net.head), "can't be taken away or computed again"),
    "a norm in training mode": (lambda net: net.layers[1].train(), r"layers.1 \(BatchNorm1d\).*captured in eval mode"),
    "a part that runs": (lambda net: net.head(torch.zeros(2, 5)), r"head \(Linear\): parts of a converted network do not run"),
}  # fmt: skip


@pytest.mark.parametrize("edit", REFUSED)
def test_what_would_have_no_effect_is_refused_when_it_is_tried(converted, edit):
    model, net = converted
    run, message = REFUSED[edit]
    keys = list(net.state_dict())
    with pytest.raises(co.NotStreamable, match=message):
        run(net)
    assert list(net.state_dict()) == keys == list(model.state_dict())
    assert_streams_as(model, net)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_the_old_weight_norm_is_refused_before_it_takes_the_weight(converted):
    model, net = converted
    with pytest.raises(co.NotStreamable, match="can't be taken away or computed again"):
        weight_norm(net.head)
    assert_streams_as(model, net)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.parametrize("inplace", [False, True])
def test_dynamic_quantisation_is_refused(converted, inplace):
    model, net = converted
    with pytest.raises(co.NotStreamable, match="torch.ao.quantization exchanges modules.*torchao.quantization.quantize_"):
        torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8, inplace=inplace)
    assert_streams_as(model, net)


HONOURED = {
    "a weight": lambda net: setattr(net.head, "weight", nn.Parameter(torch.randn(5, 5))),
    "the weight of a layer over time": lambda net: setattr(net.layers[0], "weight", nn.Parameter(torch.randn(6, 4, 3))),
    "a buffer": lambda net: setattr(net.layers[1], "running_mean", torch.randn(6)),
    "weights by class": lambda net: net.apply(lambda m: nn.init.normal_(m.weight) if isinstance(m, nn.Linear) else None),
    "reset_parameters": lambda net: net.layers[0].reset_parameters(),
    "a checkpoint that is assigned": lambda net: net.load_state_dict(
        {k: v * 2 if v.is_floating_point() else v for k, v in net.state_dict().items()}, assign=True
    ),
}


@pytest.mark.parametrize("edit", HONOURED)
def test_tensors_may_be_exchanged_and_the_module_has_them_too(pair, edit):
    model, net = pair
    before = model(CLIP)
    HONOURED[edit](net)
    assert not torch.allclose(model(CLIP), before, atol=1e-3)
    assert_streams_as(model, net)


def test_weights_quantised_by_torchao_are_followed(pair):
    torchao = pytest.importorskip("torchao.quantization")
    model, net = pair
    before = net(CLIP)
    torchao.quantize_(net, torchao.Int8WeightOnlyConfig())
    assert type(net.head.weight).__name__ != "Parameter"
    assert 1e-4 < (net(CLIP) - before).abs().max() < 0.5
    assert_streams_as(model, net)


def test_hooks_on_the_network_itself_work(pair):
    _, net = pair
    seen = []
    net.register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape)))
    net(CLIP)
    with co.call_mode("forward_steps"):
        net(CLIP[:, :, :5])
    assert seen == [(3, 5, 12), (3, 5, 3)]


def test_notes_that_tools_leave_on_parts_are_no_edits(pair):
    model, net = pair
    net.head.__flops__ = net.head.flops_seen = 3
    assert_streams_as(model, net)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_have_the_classes_of_torch_and_refuse_edits_too(pair, copied):
    model, net = pair
    other = copied(net)
    for part, cls in ((other.layers[0], nn.Conv1d), (other.head, nn.Linear), (other.some, nn.ModuleList)):
        assert isinstance(part, cls)
    assert repr(other.layers) == repr(model.layers)
    with pytest.raises(co.NotStreamable, match="children can't be changed"):
        other.head = nn.Linear(5, 5)
    assert_streams_as(model, other)
