"""Edits of the module that a network was converted from: its tensors are shared, its operations are as they were."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import continual as co

from .test_edits import CLIP, assert_streams_as, pair  # noqa: F401 (a fixture)


class Adapter(nn.Module):
    """A low-rank adapter beside a layer, as people write them: merging it changes the layer's weight in place, and a flag."""

    def __init__(self, base: nn.Linear, rank: int = 2):
        super().__init__()
        self.base, self.merged, self.names = base, False, []
        self.a, self.b = nn.Parameter(torch.randn(rank, base.in_features)), nn.Parameter(torch.randn(base.out_features, rank))

    def merge(self):
        with torch.no_grad():
            self.base.weight += self.b @ self.a
        self.merged = True

    def forward(self, x):
        y = self.base(x)
        return y if self.merged or "off" in self.names else y + x @ self.a.T @ self.b.T


class Adapted(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv1d(4, 6, 3), Adapter(nn.Linear(6, 5))

    def forward(self, x):
        return self.head(self.conv(x).relu().transpose(1, 2)).transpose(1, 2)


@pytest.fixture
def adapted():
    torch.manual_seed(0)
    model = Adapted().eval()
    return model, co.continual(model, CLIP)


def assert_refused(net, message):
    net.clean_state()
    with pytest.raises(co.NotStreamable, match=message):
        net.forward_step(CLIP[:, :, 0])
    with pytest.raises(co.NotStreamable, match=message):
        net(CLIP)


def test_an_adapter_may_be_trained_and_is_refused_once_it_is_merged(adapted):
    model, net = adapted
    with torch.no_grad():
        model.head.a += 1.0
    assert_streams_as(model, net)
    model.head.merge()
    assert_refused(net, r"Adapted: head \(Adapter\): 'merged' was False when it was converted, and is True now.*Convert it again")
    assert_streams_as(model, co.continual(model, CLIP))


def test_an_adapter_that_is_switched_off_by_a_list_of_names_is_seen(adapted):
    model, net = adapted
    model.head.names.append("off")
    assert_refused(net, r"'names' was \(\) when it was converted, and is \('off',\) now")


def test_an_adapter_that_is_taken_out_is_seen(adapted):
    model, net = adapted
    model.head = model.head.base
    assert_refused(net, "Adapted: has other children than when it was converted")


def test_what_was_set_back_is_no_change(adapted):
    model, net = adapted
    model.head.merged = True
    model.head.merged = False
    assert_streams_as(model, net)


def test_a_copy_has_weights_of_its_own_and_its_operations_stay(adapted):
    model, net = adapted
    other, apart = copy.deepcopy(net), co.continual(model, CLIP, copy=True)
    before = copy.deepcopy(model)
    model.head.merge()
    assert_streams_as(before, other)
    assert_streams_as(before, apart)


def test_what_a_module_notes_as_it_runs_is_no_change():
    class Noting(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.ready, self.last, self.calls = nn.Conv1d(4, 4, 3), False, "", 0

        def forward(self, x):
            self.ready, self.last, self.calls = True, f"{tuple(x.shape)}", self.calls + 1
            return self.conv(x)

    model = Noting().eval()
    net = co.continual(model, CLIP)
    for frames in (9, 40):
        model(torch.zeros(1, 4, frames))
    assert_streams_as(model, net)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda m: prune.l1_unstructured(m.head, "weight", amount=0.5),
            "'head.weight' was of the shape .5, 5. .* is gone .pruned",
        ),
        (lambda m: parametrizations.weight_norm(m.head), r"head \(ParametrizedLinear\): has other children"),
        (lambda m: m.head._parameters.pop("weight"), "'head.weight' .* is gone"),
        (lambda m: setattr(m.head, "weight", nn.Parameter(torch.ones(7, 5))), r"and 'weight' is of the shape \(7, 5\) now"),
        (lambda m: setattr(m.head, "bias", None), r"'head.bias' .* is None now"),
    ],
)
def test_a_weight_that_is_missing_is_named_with_its_path(pair, edit, message):  # noqa: F811
    model, net = pair
    edit(model)
    assert_refused(net, message)


def test_a_weight_that_the_module_is_given_is_followed_by_a_running_stream(pair):  # noqa: F811
    model, net = pair
    with torch.no_grad():
        for x in CLIP[:, :, :6].unbind(2):
            net.forward_step(x)
        model.head.weight = nn.Parameter(torch.randn(5, 5))
        y = net.forward_step(CLIP[:, :, 6])
        torch.testing.assert_close(y, model(CLIP)[:, :, 4], rtol=0, atol=2e-5)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x.transpose(1, 2)).relu()).transpose(1, 2)


def test_a_weight_with_two_names_stays_one():
    torch.manual_seed(0)
    model = Tied().eval()
    net = co.continual(model, CLIP)
    net.a.weight = nn.Parameter(torch.randn(4, 4))
    with pytest.raises(co.NotStreamable, match=r"'a.weight' and 'b.weight' were one parameter .* are several now"):
        net.forward_step(CLIP[:, :, 0])
    net.b.weight = net.a.weight
    assert_streams_as(model, net)
    fused = co.fuse(net)
    assert_streams_as(model, fused)
