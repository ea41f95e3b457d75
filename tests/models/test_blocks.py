"""The zoo's own modules: paths with a shortcut, squeeze-and-excitation, convolutions across joints."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.models.blocks import Shortcut, SqueezeExcite
from continual.models.graph_conv import AdaptiveGraphConv, GraphAttention, GraphConv
from continual.models.skeleton_graphs import adjacency
from tests.contract import assert_equal
from tests.models.zoo import alive


def block(shrink: bool = False, shortcut: bool = True) -> Shortcut:
    path = {
        "a": co.Conv1d(3, 3, 3, padding=0 if shrink else 1),
        "act": nn.Sigmoid(),
        "b": co.Conv1d(3, 3, 5, padding=0 if shrink else 2),
    }
    return Shortcut(path, {"c": nn.Conv1d(3, 3, 1), "n": nn.BatchNorm1d(3)} if shortcut else None, shrink)


@pytest.mark.parametrize("shrink, shortcut", [(False, True), (False, False), (True, False)])
def test_shortcuts(shrink: bool, shortcut: bool):
    net = alive(block(shrink, shortcut))

    def plain(x: Tensor) -> Tensor:
        y = net.b(torch.sigmoid(net.a(x)))
        around = net.n(net.c(x)) if shortcut else x[:, :, 3:-3] if shrink else x
        return torch.relu(y + around)

    co.verify(net, torch.randn(3, 3, 21), reference=plain)
    assert net.delay == (6 if shrink else 3)


def test_names_are_those_of_the_modules():
    net = co.Sequential({"first": block(), "second": block()}).eval()
    names = [name for name, _ in net.named_parameters()]
    assert {"first.a.weight", "second.n.bias"} <= set(names)
    assert all(len(name.split(".")) == 3 for name in names)
    net.forward_step(torch.randn(2, 3))
    with pytest.raises(co.ShapeMismatch, match=r"first\.(path|shortcut)\.[ac] \(Conv1d\): expects steps \(B, 3\)"):
        co.Sequential({"first": block()}).eval().forward_step(torch.randn(2, 4))
    assert {row.path for row in co.summary(net, torch.randn(1, 3)).rows} >= {"first.path.a", "second.shortcut.n"}


@torch.no_grad()
def test_a_replaced_module_runs_in_its_path():
    net, clip = alive(block()), torch.randn(2, 3, 12)
    other = co.Conv1d(3, 3, 3, padding=1)
    want = torch.relu(net.b(torch.sigmoid(other(clip))) + net.n(net.c(clip)))
    for way in (lambda m: setattr(m, "a", other), lambda m: m.add_module("a", other), lambda m: m.register_module("a", other)):
        changed = copy.deepcopy(net)
        way(changed)
        assert_equal(changed(clip), want)
        assert_equal(changed.forward_steps(clip, pad_end=True), want)


@torch.no_grad()
def test_copies_have_modules_of_their_own():
    net, clip = alive(block()), torch.randn(2, 3, 12)
    want = net(clip)
    for made in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        net.a.weight.mul_(2)
        assert_equal(made(clip), want)
        net.a.weight.div_(2)
        made.double()
        assert made(clip.double()).dtype == torch.float64
        made.train()
        assert all(m.training for child in made._children for m in child.modules())


def test_modules_of_two_paths_are_no_list():
    with pytest.raises(TypeError, match="belong to two paths"):
        block().append(nn.ReLU())


def test_squeeze_and_excitation():
    net = SqueezeExcite(6, 4)

    def plain(x: Tensor) -> Tensor:
        return x * torch.sigmoid(net.fc2(torch.relu(net.fc1(x.mean((3, 4), keepdim=True)))))

    co.verify(net, torch.randn(2, 6, 5, 3, 4), reference=plain)
    with pytest.raises(co.ShapeMismatch, match=r"SqueezeExcite: expects steps \(B, 6, H, W\), got \(2, 5, 3, 4\)"):
        net.forward_step(torch.randn(2, 5, 3, 4))


@pytest.mark.parametrize("cls", [GraphConv, AdaptiveGraphConv, GraphAttention])
@pytest.mark.parametrize("before", [32, 3])
def test_across_joints(cls: type, before: int):
    net = alive(cls(before, 32, 18))
    clip = torch.randn(2, before, 6, 36)
    co.verify(net, clip)
    with torch.no_grad():  # a skeleton is not changed by the other one
        alone = torch.cat([net(clip[..., :18]), net(clip[..., 18:])], 3)
        assert_equal(net(clip), alone)
    with pytest.raises(
        co.ShapeMismatch, match=rf"expects steps \(B, {before}, joints\), the joints a multiple of 18, got \(2, {before}, 25\)"
    ):
        net.forward_step(torch.randn(2, before, 25))


@pytest.mark.parametrize("joints", [25, 18])
def test_adjacency(joints: int):
    itself, inward, outward = adjacency(joints)
    assert torch.equal(itself, torch.eye(joints))
    assert torch.equal(inward > 0, (outward > 0).t())
    assert int((inward > 0).sum()) == joints - 1  # a tree
    for links in (inward, outward):
        sums = links.sum(0)
        assert torch.equal(sums[sums > 0], torch.ones(int((sums > 0).sum())))
    assert torch.linalg.matrix_power((inward + outward > 0).double() + itself.double(), joints).min() > 0  # all are connected
