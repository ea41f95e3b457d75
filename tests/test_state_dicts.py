"""State dicts: flat names both ways, checkpoints of `torch.nn` networks and of continual-inference 1.2.4."""

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
from continual import registry
from continual.local import LOCAL
from continual.names import flat_names
from tests.contract import assert_equal


def conv(kernel: int = 3, padding: int | None = None, stride: int = 1) -> co.Conv1d:
    """One parameter."""
    return co.Conv1d(2, 2, kernel, stride, kernel // 2 if padding is None else padding, bias=False)


def named(**modules: nn.Module) -> co.Sequential:
    return co.Sequential(OrderedDict(modules))


def block() -> co.Residual:
    return co.Residual(named(conv1=conv(), conv2=conv()))


def x3d_block() -> co.Sequential:
    """Two branches with names of their own."""
    short, long = named(branch1=conv(1)), named(branch2=named(a=conv(1), b=conv(), c=conv(1)))
    return co.Sequential(co.BroadcastReduce(short, long), nn.ReLU())


def names(state_dict: dict[str, Tensor]) -> list[str]:
    """All that these tests' networks hold are parameters called weight."""
    return [key.removesuffix("weight").removesuffix(".") for key in state_dict]


def filled(keys: Any, like: nn.Module) -> dict[str, Tensor]:
    """A checkpoint of these keys, in the order of the network's own, no two tensors alike."""
    return {key: torch.full_like(v, i + 1) for i, (key, v) in enumerate(zip(keys, like.state_dict().values(), strict=True))}


def check_filled(net: nn.Module) -> None:
    """The values of :func:`filled` have come to their places."""
    for i, value in enumerate(net.state_dict().values()):
        assert (value == i + 1).all()


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


# ---- checkpoints of torch.nn networks -------------------------------------------------------------------------------


class Block(nn.Module):
    """A residual block as it is written without this library."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(channels, out, 3, padding=1, bias=False), nn.BatchNorm1d(out)
        self.conv2, self.bn2 = nn.Conv1d(out, out, 3, padding=1), nn.BatchNorm1d(out)
        self.downsample = nn.Sequential(nn.Conv1d(channels, out, 1), nn.BatchNorm1d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.downsample(x)).relu()


class Published(nn.Module):
    """… and a network of such blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, 4, 5, padding=2)
        self.layer1 = nn.Sequential(Block(4, 4), Block(4, 6))
        self.layer2 = nn.Sequential(Block(6, 6))
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.stem(x)))
        return self.fc(x.movedim(1, 2)).movedim(2, 1)


def _streaming_block(channels: int, out: int) -> co.Sequential:
    long = named(
        conv1=nn.Conv1d(channels, out, 3, padding=1, bias=False), bn1=nn.BatchNorm1d(out), relu=nn.ReLU(),
        conv2=nn.Conv1d(out, out, 3, padding=1), bn2=nn.BatchNorm1d(out),
    )  # fmt: skip
    short = named(downsample=nn.Sequential(nn.Conv1d(channels, out, 1), nn.BatchNorm1d(out)))
    return co.Sequential(co.BroadcastReduce(long, short), nn.ReLU())


def test_a_published_checkpoint_loads_into_nested_containers():
    published = Published().eval()
    for tensor in published.state_dict().values():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.2, 1.0)
    net = named(
        stem=nn.Conv1d(2, 4, 5, padding=2),
        layer1=co.Sequential(_streaming_block(4, 4), _streaming_block(4, 6)),
        layer2=co.Sequential(nn.Identity(), nn.Sequential(_streaming_block(6, 6))),
        fc=co.Linear(6, 3, channel_dim=1),
    )
    checkpoint = {key.replace("layer2.0", "layer2"): value for key, value in published.state_dict().items()}
    co.load_state_dict(net.eval(), checkpoint, flatten=True)
    clip = torch.randn(2, 2, 40)
    assert_equal(net.forward_steps(clip, pad_end=True), published(clip))


# ---- one row per conversion: the checkpoint of the torch.nn module loads into the twin ------------------------------

CONVERSIONS: dict[type[nn.Module], Callable[[], nn.Module]] = {
    nn.Conv1d: lambda: nn.Conv1d(4, 6, 3, groups=2),
    nn.Conv2d: lambda: nn.Conv2d(4, 6, 3),
    nn.Conv3d: lambda: nn.Conv3d(4, 6, 3, bias=False),
    nn.Linear: lambda: nn.Linear(4, 6),
    nn.AvgPool1d: lambda: nn.AvgPool1d(2),
    nn.AvgPool2d: lambda: nn.AvgPool2d(2),
    nn.AvgPool3d: lambda: nn.AvgPool3d(2),
    nn.MaxPool1d: lambda: nn.MaxPool1d(2),
    nn.MaxPool2d: lambda: nn.MaxPool2d(2),
    nn.MaxPool3d: lambda: nn.MaxPool3d(2),
    nn.Sequential: lambda: nn.Sequential(nn.Conv1d(4, 6, 3), nn.Sequential(nn.PReLU(), nn.BatchNorm1d(6))),
    nn.BatchNorm1d: lambda: nn.BatchNorm1d(4),
    nn.SyncBatchNorm: lambda: nn.SyncBatchNorm(4),
    nn.BatchNorm2d: lambda: nn.BatchNorm2d(4, affine=False),
    nn.BatchNorm3d: lambda: nn.BatchNorm3d(4),
    nn.InstanceNorm1d: lambda: nn.InstanceNorm1d(4, affine=True, track_running_stats=True),
    nn.InstanceNorm2d: lambda: nn.InstanceNorm2d(4, track_running_stats=True),
    nn.InstanceNorm3d: lambda: nn.InstanceNorm3d(4, affine=True, track_running_stats=True),
    nn.LayerNorm: lambda: nn.LayerNorm(4),
    nn.RMSNorm: lambda: nn.RMSNorm(4),
    nn.PReLU: lambda: nn.PReLU(4),
    nn.LocalResponseNorm: lambda: nn.LocalResponseNorm(3),
    nn.CrossMapLRN2d: lambda: nn.CrossMapLRN2d(3),
    nn.Softmax: lambda: nn.Softmax(1),
    nn.Softmin: lambda: nn.Softmin(1),
    nn.LogSoftmax: lambda: nn.LogSoftmax(1),
    nn.GLU: lambda: nn.GLU(1),
    nn.Threshold: lambda: nn.Threshold(0.1, 0.0),
    nn.ChannelShuffle: lambda: nn.ChannelShuffle(2),
    nn.PixelShuffle: lambda: nn.PixelShuffle(2),
    nn.PixelUnshuffle: lambda: nn.PixelUnshuffle(2),
    nn.Flatten: lambda: nn.Flatten(3),
    nn.Unflatten: lambda: nn.Unflatten(3, (2, 2)),
    nn.Upsample: lambda: nn.Upsample(scale_factor=(1, 2)),
    nn.RNN: lambda: nn.RNN(4, 6, nonlinearity="relu"),
    nn.GRU: lambda: nn.GRU(4, 6, num_layers=2),
    nn.LSTM: lambda: nn.LSTM(4, 6, proj_size=3),
    **{cell: lambda cell=cell: cell(4, 6) for cell in (nn.RNNCell, nn.GRUCell, nn.LSTMCell)},
    nn.ConvTranspose1d: lambda: nn.ConvTranspose1d(4, 6, 4, stride=2),
    nn.ConvTranspose2d: lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
    nn.ConvTranspose3d: lambda: nn.ConvTranspose3d(4, 6, 3, bias=False),
    nn.GroupNorm: lambda: nn.GroupNorm(2, 4),
    nn.MultiheadAttention: lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True, kdim=3),
    nn.TransformerEncoderLayer: lambda: nn.TransformerEncoderLayer(4, 2, 8),
    nn.TransformerEncoder: lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 3, nn.LayerNorm(4), enable_nested_tensor=False
    ),
    **{pool: lambda pool=pool: pool((None, 1)) for pool in (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)},
    **{pool: lambda pool=pool: pool((None, 1, 1)) for pool in (nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d)},
}
CONVERSIONS |= {
    nn.Embedding: lambda: nn.Embedding(9, 3),
    **{getattr(nn, f"LPPool{d}d"): lambda d=d: getattr(nn, f"LPPool{d}d")(2, 3) for d in (1, 2, 3)},
}
for _dims in (1, 2, 3):
    for _kind in ("Zero", "Replication", "Reflection", "Constant", "Circular"):
        _args = ((0,) * 2 * _dims, *([1.0] if _kind == "Constant" else []))
        CONVERSIONS[getattr(nn, f"{_kind}Pad{_dims}d")] = lambda name=f"{_kind}Pad{_dims}d", args=_args: getattr(nn, name)(*args)
OPTIONS: dict[type[nn.Module], dict[str, Any]] = {
    nn.GroupNorm: {"time_norm": "cumulative"},
    **{cls: {"sequence_len": 5} for cls in (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)},
}
WITHOUT_ARGUMENTS = {cls for cls in LOCAL if cls not in CONVERSIONS}


def test_no_conversion_is_forgotten():
    """Whoever registers a conversion of a `torch.nn` class adds a row."""
    known = {*registry._classes, *registry._builders, *LOCAL}
    assert {cls for cls in known if cls.__module__.startswith("torch.nn")} == {*CONVERSIONS, *WITHOUT_ARGUMENTS}


@pytest.mark.parametrize("cls", [*CONVERSIONS, *sorted(WITHOUT_ARGUMENTS, key=lambda c: c.__name__)], ids=lambda c: c.__name__)
def test_the_checkpoint_of_a_module_loads_into_its_twin(cls: type[nn.Module]):
    module = CONVERSIONS.get(cls, cls)().eval()
    net = co.continual(module, **OPTIONS.get(cls, {}))
    for value in module.state_dict().values():  # the twin has copies, so what it gets now can only come from the checkpoint
        value.copy_(torch.randn(value.shape) * 5)
    checkpoint = module.state_dict()
    assert str(net.load_state_dict(checkpoint, strict=True)) == "<All keys matched successfully>"
    assert list(net.state_dict()) == list(checkpoint)
    for key, value in net.state_dict().items():
        assert torch.equal(value, checkpoint[key])
    module.load_state_dict(net.state_dict(), strict=True)  # and back
    for key in checkpoint:
        short = {k: v for k, v in checkpoint.items() if k != key}
        short["other"] = torch.zeros(1)
        found = net.load_state_dict(short, strict=False)
        if not key.endswith("num_batches_tracked"):  # torch makes that one up for dictionaries without versions
            assert found.missing_keys == [key]
        assert found.unexpected_keys == ["other"]
        with pytest.raises(RuntimeError, match=f"size mismatch for {key}"):
            net.load_state_dict({**checkpoint, key: torch.zeros(9, 9)})


# ---- continual-inference 1.2.4 --------------------------------------------------------------------------------------
# Of each network: the names of its weights as 1.2.4 saved them, and its flat ones (the same where it can't drop all numbers). It
# wraps a branch that waits for a slower one, which adds a number. Found by running it.

EARLIER: dict[str, tuple[Callable[[], nn.Module], list[str], list[str] | None]] = {
    "x3d block": (x3d_block, ["0.0.0.branch1", "0.1.branch2.a", "0.1.branch2.b", "0.1.branch2.c"],
                  ["branch1", "branch2.a", "branch2.b", "branch2.c"]),
    "residual blocks": (lambda: named(stem=conv(), layer=co.Sequential(block(), block())),
                        ["stem", "layer.0.1.conv1", "layer.0.1.conv2", "layer.1.1.conv1", "layer.1.1.conv2"], None),
    "inception": (lambda: named(mixed=co.BroadcastReduce(conv(1), conv(3), co.Sequential(co.MaxPool1d(3, 1, 1), conv(1))), fc=conv(1)),
                  ["mixed.0.0", "mixed.1", "mixed.2.1", "fc"], None),
    "parallel": (lambda: co.Sequential(co.Broadcast(2), co.Parallel(named(fast=conv()), named(slow=conv(5))), co.Reduce()),
                 ["1.0.0.fast", "1.1.slow"], ["fast", "slow"]),
    "numbered": (lambda: co.Sequential(conv(), nn.ReLU(), conv()), ["0", "2"], None),
    "one": (lambda: co.Sequential(co.Sequential(nn.ReLU(), co.Residual(conv()))), ["0.1.1"], [""]),
    "conditional": (lambda: co.Conditional(bool, named(on=conv()), named(off=conv(1))), ["0.on", "1.1.off"], ["on", "off"]),
    "conditional, numbered": (lambda: co.Conditional(bool, conv(1), conv(3)), ["0.1", "1"], None),
    "named branches": (lambda: co.BroadcastReduce(OrderedDict(a=conv(1), b=conv(5), d=conv(3))), ["a.0", "b", "d.0"], ["a", "b", "d"]),
    "branches of one delay": (lambda: co.BroadcastReduce(conv(), conv()), ["0", "1"], None),
    "no alignment": (lambda: co.BroadcastReduce(conv(), conv(), auto_delay=False), ["0", "1"], None),
    "nested": (lambda: co.BroadcastReduce(co.BroadcastReduce(conv(1), conv(3)), co.Sequential(conv(), conv())),
               ["0.0.0.0", "0.0.1", "1.0", "1.1"], None),
    "strided": (lambda: co.BroadcastReduce(co.Sequential(conv(3, 1, 2), conv()), conv(1, 0, 2)), ["0.0", "0.1", "1.0"], None),
    "residuals in branches": (lambda: co.BroadcastReduce(co.Residual(conv()), co.Residual(conv(5))), ["0.0.1", "1.1"], None),
    "other paddings": (lambda: co.BroadcastReduce(conv(3, 2), conv(3, 0), conv(5, 2)), ["0.0", "1", "2"], None),
    "a number for another": (lambda: co.BroadcastReduce(co.Sequential(co.Sequential(conv(), conv()), conv()), conv(9)),
                             ["0.0.0.0", "0.0.0.1", "0.0.1", "1"], None),
}  # fmt: skip


@pytest.mark.parametrize("which", ["full", "flat"])
@pytest.mark.parametrize("name", EARLIER)
def test_checkpoints_of_continual_inference_load(name: str, which: str):
    make, full, flat = EARLIER[name]
    net = make()
    saved = filled([f"{k}.weight".lstrip(".") for k in (flat if which == "flat" and flat is not None else full)], net)
    if flat is not None:
        assert names(co.state_dict(net, flatten=True)) == flat
    assert not any(co.load_state_dict(net, saved, flatten=True))
    check_filled(net)
    other = make()
    with co.flat_state_dict:
        other.load_state_dict(saved)
    check_filled(other)


def test_part_of_such_a_checkpoint_is_not_guessed_at():
    """`0.0.1` is the third convolution there and the second here."""
    make, full, _ = EARLIER["a number for another"]
    net = make()
    saved = filled([f"{k}.weight" for k in full], net)
    del saved["1.weight"]
    with pytest.raises(RuntimeError, match="(?s)Missing key.*Unexpected key"):
        co.load_state_dict(net, saved, flatten=True)
