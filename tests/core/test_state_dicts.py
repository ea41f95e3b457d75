"""State dicts: flat names both ways, and what does not fit."""

from __future__ import annotations

import random
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import continual as co
from continual.core.flat_names import flat_names
from tests.named_networks import block, check_filled, conv, filled, named, names, x3d_block

# ---- flat names -----------------------------------------------------------------------------------------------------

FLAT: dict[str, tuple[Callable[[], nn.Module], list[str], list[str]]] = {
    # network, full names, flat names
    "a layer": (conv, [""], [""]),
    "one in a container": (lambda: co.Sequential(nn.ReLU(), conv()), ["1"], [""]),
    "one in many": (lambda: co.Sequential(co.Sequential(co.Residual(conv()))), ["0.0.1"], [""]),
    "two would be equal": (lambda: co.Sequential(conv(), conv()), ["0", "1"], ["0", "1"]),
    "two further in": (lambda: co.Sequential(co.Sequential(conv(), conv()), nn.ReLU()), ["0.0", "0.1"], ["0.0", "0.1"]),
    "names stay": (lambda: named(a=conv(), b=conv()), ["a", "b"], ["a", "b"]),
    "names in numbers": (
        lambda: co.Sequential(named(a=conv(), b=conv()), named(c=conv())),
        ["0.a", "0.b", "1.c"],
        ["a", "b", "c"],
    ),
    "numbers in names": (lambda: named(a=co.Sequential(conv(), conv()), b=conv()), ["a.0", "a.1", "b"], ["a.0", "a.1", "b"]),
    "residual": (block, ["1.conv1", "1.conv2"], ["conv1", "conv2"]),
    "residual blocks": (
        lambda: named(stem=conv(), layer=co.Sequential(block(), block()), head=co.Sequential(block())),
        ["stem", "layer.0.1.conv1", "layer.0.1.conv2", "layer.1.1.conv1", "layer.1.1.conv2", "head.0.1.conv1", "head.0.1.conv2"],
        ["stem", "layer.0.conv1", "layer.0.conv2", "layer.1.conv1", "layer.1.conv2", "head.conv1", "head.conv2"],
    ),
    "branches": (lambda: co.BroadcastReduce(conv(1), conv(3)), ["0", "1"], ["0", "1"]),
    "named branches": (x3d_block, ["0.0.branch1", "0.1.branch2.a", "0.1.branch2.b", "0.1.branch2.c"],
                       ["branch1", "branch2.a", "branch2.b", "branch2.c"]),
    "parallel": (lambda: co.Parallel(named(fast=conv(1)), named(slow=conv())), ["0.fast", "1.slow"], ["fast", "slow"]),
    "conditional": (lambda: co.Conditional(bool, named(on=conv()), named(off=conv())), ["0.on", "1.off"], ["on", "off"]),
    "one kept for two": (
        lambda: co.Sequential(named(a=conv(), b=conv()), named(a=conv())),
        ["0.a", "0.b", "1.a"],
        ["0.a", "0.b", "1.a"],
    ),
    "whose number": (lambda: co.Sequential(co.Sequential(conv(), conv()), conv()), ["0.0", "0.1", "1"], ["0.0", "0.1", "1"]),
    "used twice": (lambda: co.Sequential(*[named(a=conv())] * 2), ["0.a", "1.a"], ["0.a", "1.a"]),
    "the full name of another": (
        lambda: named(a=co.Sequential(conv()), **{"5": co.Sequential(named(a=co.Sequential(conv(), conv())))}),
        ["a.0", "5.0.a.0", "5.0.a.1"],
        ["a", "5.0.a.0", "a.1"],
    ),
    "torch.nn inside": (
        lambda: named(x=nn.Sequential(nn.Sequential(OrderedDict(z=nn.Conv1d(2, 2, 1, bias=False))))),
        ["x.0.z"],
        ["x.z"],
    ),
    "torch.nn without steps of its own": (
        lambda: co.forward_stepping(nn.Sequential(nn.ReLU(), nn.Conv1d(2, 2, 1, bias=False))),
        ["1"],
        [""],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FLAT)
def test_flat_names(name: str):
    make, full, flat = FLAT[name]
    net = make()
    assert names(net.state_dict()) == full
    assert names(co.state_dict(net)) == full
    assert names(co.state_dict(net, flatten=True)) == flat
    with co.flat_state_dict:
        assert names(net.state_dict()) == flat
        assert names(co.state_dict(net, flatten=True)) == flat
    for value, own in zip(co.state_dict(net, flatten=True).values(), net.state_dict().values(), strict=True):
        assert value is own or torch.equal(value, own)


@pytest.mark.parametrize("order", [1, -1], ids=["as saved", "reversed"])
@pytest.mark.parametrize("which", ["full", "flat", "mixed"])
@pytest.mark.parametrize("name", [n for n in FLAT if n != "used twice"])
def test_loading_takes_flat_and_full_names(name: str, which: str, order: int):
    make, _, _ = FLAT[name]
    net = make()
    full, flat = list(net.state_dict()), list(co.state_dict(net, flatten=True))
    keys = {"full": full, "flat": flat, "mixed": [random.Random(0).choice(pair) for pair in zip(full, flat)]}[which]
    checkpoint = dict(list(filled(keys, net).items())[::order])
    assert str(co.load_state_dict(net, checkpoint, flatten=True)) == "<All keys matched successfully>"
    check_filled(net)
    other = make()
    with co.flat_state_dict:
        other.load_state_dict(checkpoint)
    check_filled(other)
    assert list(checkpoint) == keys[::order]


def test_flat_names_are_refused_without_flatten():
    net = block()
    flat = co.state_dict(net, flatten=True)
    for load in (net.load_state_dict, lambda sd: co.load_state_dict(net, sd)):
        with pytest.raises(RuntimeError, match="(?s)Missing key.*1.conv1.*Unexpected key.*conv1"):
            load(flat)


KEYS = st.lists(
    st.lists(st.sampled_from(["0", "1", "2", "a", "b"]), max_size=4).map(".".join), min_size=1, max_size=9, unique=True
)


@given(KEYS, st.randoms(use_true_random=False))
def test_every_flat_name_stands_for_one_parameter_whatever_the_order(paths: list[str], rng: random.Random):
    keys = [f"net.{path}.{name}".replace("..", ".") for path in paths for name in ("weight", "bias")]
    flat = flat_names(keys, "net.")
    assert len(set(flat.values())) == len(keys)
    for full, name in flat.items():
        assert name == full or name not in flat
        assert [p for p in name.split(".") if not p.isdecimal()] == [p for p in full.split(".") if not p.isdecimal()]
    rng.shuffle(keys)
    assert flat_names(keys, "net.") == flat
    bare = {".".join(p for p in key.split(".") if not p.isdecimal()) for key in keys}
    if len(bare) == len(keys):  # then no number is needed
        assert set(flat.values()) == bare


# ---- the block ------------------------------------------------------------------------------------------------------


def test_blocks_nest():
    net = block()
    with co.flat_state_dict:
        with co.flat_state_dict:
            assert names(net.state_dict()) == ["conv1", "conv2"]
        assert names(net.state_dict()) == ["conv1", "conv2"]
    assert names(net.state_dict()) == ["1.conv1", "1.conv2"]


def test_a_block_that_raises_is_left():
    net = block()
    with pytest.raises(KeyError), co.flat_state_dict:
        raise KeyError
    assert names(net.state_dict()) == ["1.conv1", "1.conv2"]


def test_a_state_dict_that_raises_leaves_the_block_open():
    class Broken(nn.Module):
        def state_dict(self, *args: Any, **kwargs: Any) -> Any:
            raise KeyError

    net = co.forward_stepping(nn.Sequential(Broken()))
    with co.flat_state_dict:
        with pytest.raises(KeyError):
            net.state_dict()
        assert names(block().state_dict()) == ["conv1", "conv2"]


def test_a_block_is_that_of_its_thread():
    net, found = block(), []
    with co.flat_state_dict:
        thread = threading.Thread(target=lambda: found.extend(names(net.state_dict())))
        thread.start()
        thread.join()
    assert found == ["1.conv1", "1.conv2"]


class Plain(nn.Module):
    """A module of the user's around continual ones."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([block(), nn.ModuleDict({"head": block()})])
        self.scale = nn.Parameter(torch.zeros(1))


PLAIN_FULL = ["scale", "layers.0.1.conv1", "layers.0.1.conv2", "layers.1.head.1.conv1", "layers.1.head.1.conv2"]
PLAIN_BLOCK = ["scale", "layers.0.conv1", "layers.0.conv2", "layers.1.head.conv1", "layers.1.head.conv2"]
PLAIN_FLAT = ["scale", "layers.conv1", "layers.conv2", "layers.head.conv1", "layers.head.conv2"]


def test_inside_a_plain_module():
    """The block names what continual modules hold; the function all that is below the module."""
    net = Plain()
    assert names(net.state_dict()) == PLAIN_FULL
    assert names(co.state_dict(net, flatten=True)) == PLAIN_FLAT
    with co.flat_state_dict:
        assert names(net.state_dict()) == PLAIN_BLOCK
    for keys in (PLAIN_FULL, PLAIN_BLOCK, PLAIN_FLAT):
        net = Plain()
        assert not any(co.load_state_dict(net, filled([f"{k}.weight" if k != "scale" else k for k in keys], net), flatten=True))
        check_filled(net)
    net = Plain()
    with co.flat_state_dict:
        net.load_state_dict(filled(net.state_dict(), net))
    check_filled(net)


def test_destination_prefix_and_keep_vars():
    net, other = block(), co.Sequential(conv())
    for flat in (lambda m, **o: co.state_dict(m, flatten=True, **o), lambda m, **o: m.state_dict(**o)):
        with co.flat_state_dict:
            into: OrderedDict[str, Tensor] = OrderedDict({"0.kept": torch.zeros(1)})
            assert flat(net, destination=into, prefix="a.0.", keep_vars=True) is into
            flat(other, destination=into, prefix="b.")
        assert list(into) == ["0.kept", "a.0.conv1.weight", "a.0.conv2.weight", "b.weight"]
        assert into["a.0.conv1.weight"] is net[1].conv1.weight
        assert not into["b.weight"].requires_grad


def test_versions_of_modules_are_kept():
    """`BatchNorm` asks for the version that a state dict was saved by: without it a missing counter would be made up."""
    net = co.Sequential(co.Sequential(OrderedDict(norm=nn.BatchNorm1d(2))))
    assert co.state_dict(net, flatten=True)._metadata["0.norm"] == {"version": 2}
    for make in (lambda: net.state_dict(), lambda: co.state_dict(net, flatten=True)):
        checkpoint = make()
        del checkpoint[next(k for k in checkpoint if k.endswith("num_batches_tracked"))]
        with pytest.raises(RuntimeError, match="Missing key.*0.norm.num_batches_tracked"):
            co.load_state_dict(net, checkpoint, flatten=True)


# ---- what does not fit ----------------------------------------------------------------------------------------------


def test_missing_and_unexpected_names_are_listed():
    net = co.Sequential(block(), nn.ReLU())
    checkpoint = co.state_dict(net, flatten=True)
    checkpoint["conv3.weight"] = checkpoint.pop("conv2.weight")
    checkpoint["9.bias"] = torch.zeros(2)
    found = co.load_state_dict(net, checkpoint, strict=False, flatten=True)
    assert found.missing_keys == ["0.1.conv2.weight"]
    assert sorted(found.unexpected_keys) == ["9.bias", "conv3.weight"]
    with pytest.raises(RuntimeError) as caught:
        co.load_state_dict(net, checkpoint, flatten=True)
    for part in (
        'Missing key(s) in state_dict: "0.1.conv2.weight"',
        "Unexpected key(s) in state_dict",
        '"conv3.weight"',
        '"9.bias"',
    ):
        assert part in str(caught.value)
    with co.flat_state_dict, pytest.raises(RuntimeError, match='Missing key.*"0.1.conv2.weight"'):
        net.load_state_dict(checkpoint)


def test_other_sizes_are_listed():
    net = co.Sequential(block(), nn.ReLU())
    checkpoint = {key: torch.zeros(5) for key in co.state_dict(net, flatten=True)}
    with pytest.raises(RuntimeError) as caught:
        co.load_state_dict(net, checkpoint, flatten=True)
    for name in ("0.1.conv1.weight", "0.1.conv2.weight"):
        assert f"size mismatch for {name}: copying a param with shape torch.Size([5])" in str(caught.value)


def test_a_flat_name_beside_the_full_one_is_unexpected():
    net = block()
    checkpoint = {**filled(net.state_dict(), net), "conv1.weight": torch.zeros(2, 2, 3)}
    with pytest.raises(RuntimeError, match='Unexpected key.*"conv1.weight"'):
        co.load_state_dict(net, checkpoint, flatten=True)
    assert co.load_state_dict(net, checkpoint, strict=False, flatten=True).unexpected_keys == ["conv1.weight"]
    check_filled(net)


def test_what_is_no_dictionary():
    with pytest.raises(TypeError):
        co.load_state_dict(block(), 3, flatten=True)


def test_methods_with_flat_names():
    """`net.state_dict(flatten=True)` and `net.load_state_dict(…, flatten=True)`, as functions and in a block."""
    net, twin = (co.Sequential(co.Residual(co.Sequential({"conv": co.Conv1d(2, 2, 3, padding=1)})), nn.ReLU()) for _ in range(2))
    flat = net.state_dict(flatten=True)
    assert list(flat) == ["conv.weight", "conv.bias"] == list(co.state_dict(net, flatten=True))
    assert list(net.state_dict(prefix="net.", flatten=True)) == ["net.conv.weight", "net.conv.bias"]
    assert list(net.state_dict()) == ["0.1.conv.weight", "0.1.conv.bias"]
    for saved in (flat, net.state_dict()):
        for weight in twin.parameters():
            nn.init.zeros_(weight)
        assert twin.load_state_dict(saved, flatten=True) == ([], [])
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))
    with pytest.raises(RuntimeError, match="Unexpected key"):
        twin.load_state_dict(flat)
    assert twin.load_state_dict({"conv.bias": torch.ones(2)}, False, flatten=True).missing_keys == ["0.1.conv.weight"]
    doubled = {name: t.double() for name, t in flat.items()}
    twin.load_state_dict(doubled, assign=True, flatten=True)
    assert next(twin.parameters()).dtype == torch.float64
