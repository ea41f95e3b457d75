"""Checkpoints load into streaming networks: of `torch.nn` networks, of every module that converts, of continual-inference 1.2.4."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.core import registry
from continual.layers.wrapped import LOCAL_CLASSES
from tests.contract import assert_equal
from tests.named_networks import block, check_filled, conv, filled, named, names, x3d_block

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
WITHOUT_ARGUMENTS = {cls for cls in LOCAL_CLASSES if cls not in CONVERSIONS}


def test_no_conversion_is_forgotten():
    """Whoever registers a conversion of a `torch.nn` class adds a row."""
    known = {*registry._classes, *registry._builders, *LOCAL_CLASSES}
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


# Of encoders: names here, and in 1.2.4 those of a layer that gives one token and of one that gives its whole window.
OF_A_LAYER = [
    ("self_attn.in_proj_weight", "0.self_attn.in_proj_weight", "0.self_attn.in_proj_weight"),
    ("self_attn.in_proj_bias", "0.self_attn.in_proj_bias", "0.self_attn.in_proj_bias"),
    ("self_attn.out_proj.weight", "0.self_attn.out_proj.weight", "0.self_attn.out_proj.weight"),
    ("self_attn.out_proj.bias", "0.self_attn.out_proj.bias", "0.self_attn.out_proj.bias"),
    ("norm1.weight", "1.norm1.fn.weight", "1.fn.norm1.weight"),
    ("norm1.bias", "1.norm1.fn.bias", "1.fn.norm1.bias"),
    ("linear1.weight", "1._ff_block.1.linear1.weight", "1.fn._ff_block.fn.linear1.weight"),
    ("linear1.bias", "1._ff_block.1.linear1.bias", "1.fn._ff_block.fn.linear1.bias"),
    ("linear2.weight", "1._ff_block.1.linear2.weight", "1.fn._ff_block.fn.linear2.weight"),
    ("linear2.bias", "1._ff_block.1.linear2.bias", "1.fn._ff_block.fn.linear2.bias"),
    ("norm2.weight", "1.norm2.fn.weight", "1.fn.norm2.weight"),
    ("norm2.bias", "1.norm2.fn.bias", "1.fn.norm2.bias"),
]
SINGLE = {own: single for own, single, _ in OF_A_LAYER}
RETRO = {own: retro for own, _, retro in OF_A_LAYER}


def factory() -> co.TransformerEncoderLayerFactory:
    return co.TransformerEncoderLayerFactory(d_model=8, nhead=2, dim_feedforward=12, sequence_len=5)


def of_layer(place: str, earlier_place: str, names: dict[str, str]) -> dict[str, str]:
    return {f"{place}{own}": f"{earlier_place}{name}" for own, name in names.items()}


def classifier() -> co.Sequential:
    return co.Sequential(
        OrderedDict(encoder=co.TransformerEncoder(factory(), 2, nn.LayerNorm(8)), head=co.Linear(8, 3, channel_dim=1))
    )


ENCODERS: dict[str, tuple[Callable[[], nn.Module], dict[str, str]]] = {
    "single output": (lambda: factory()("single_output"), SINGLE),
    "retroactive": (lambda: factory()("retroactive"), RETRO),
    "of one layer": (lambda: co.TransformerEncoder(factory(), 1), of_layer("layers.0.", "layers.0.", SINGLE)),
    "of two layers, in a network": (
        classifier,
        of_layer("encoder.layers.0.", "encoder.layers.0.", RETRO)
        | of_layer("encoder.layers.1.", "encoder.layers.1.fn.", SINGLE)
        | {f"encoder.norm.{k}": f"encoder.norm.fn.{k}" for k in ("weight", "bias")}
        | {f"head.{k}": f"head.{k}" for k in ("weight", "bias")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_of_continual_inference_load(name: str, flat: bool):
    make, earlier = ENCODERS[name]
    trained, net = make(), make()
    with torch.no_grad():
        for p in trained.parameters():
            p.normal_()
    assert trained.state_dict().keys() == earlier.keys()
    saved = {earlier[own]: value for own, value in reversed(trained.state_dict().items())}
    if flat:  # 1.2.4 leaves out all numbers
        saved = {".".join(part for part in key.split(".") if not part.isdigit()): value for key, value in saved.items()}
    assert not any(co.load_state_dict(net, saved, flatten=True))
    for own, value in trained.state_dict().items():
        assert torch.equal(net.state_dict()[own], value)
    assert not any(co.load_state_dict(make(), trained.state_dict(), flatten=True))
