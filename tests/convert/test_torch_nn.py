"""All of `torch.nn`: each layer class is converted and keeps the contract, or is refused with its own reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.long import by_turns
from tests.recurrent import ByClips

C1, C2, C3 = (2, 4, 13), (2, 4, 13, 5), (2, 4, 11, 3, 6)
IMAGES = (2, 16, 9, 3, 6)
CONTAINERS = {"Container", "Module", "LinearCrossEntropyOptions"}  # "Sequential" and the lists are below
BASES = {"RNNBase", "RNNCellBase"}  # of layers; nothing by themselves


def frame_by_frame(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """What a module of images does on the frames of a clip."""
    return lambda x: torch.stack([module(frame) for frame in x.unbind(2)], 2)


def embedded(module: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: module(x[:, 0]).movedim(-1, 1)


def newest_of_windows(module: Any) -> Callable[[Tensor], Tensor]:
    """What attends to all, on every window of 4 tokens: its newest token."""

    def newest(window: Tensor) -> Tensor:
        y = module(window, window, window)[0] if isinstance(module, nn.MultiheadAttention) else module(window)
        return y[:, -1]

    return lambda x: torch.stack([newest(x[:, :, j : j + 4].transpose(1, 2)) for j in range(x.shape[2] - 3)], 2)


def up_to_now(module: nn.GroupNorm) -> Callable[[Tensor], Tensor]:
    """A norm, at each step by the frames until then."""
    return lambda x: torch.stack([module(x[:, :, : t + 1])[:, :, t] for t in range(x.shape[2])], 2)


def activation(name: str, *args: Any) -> tuple[Callable[[], nn.Module], tuple[int, ...]]:
    return (lambda: getattr(nn, name)(*args)), (C1, C2, C3)[len(name) % 3]


ACTIVATIONS = (
    "AlphaDropout", "CELU", "Dropout", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU",
    "LogSigmoid", "Mish", "PReLU", "RReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softshrink", "Softsign", "Tanh",
    "Tanhshrink",
)  # fmt: skip
WORKS: dict[str, Any] = {name: activation(name) for name in ACTIVATIONS} | {
    "Threshold": activation("Threshold", 0.1, -2.0),
    "GLU": activation("GLU", 1),
    "Softmax": activation("Softmax", 1),
    "Softmin": activation("Softmin", 1),
    "LogSoftmax": activation("LogSoftmax", 1),
    "Softmax2d": (lambda: nn.Softmax2d(), C2),
    "Dropout1d": (lambda: nn.Dropout1d(), C1),
    "Dropout2d": (lambda: nn.Dropout2d(), C2),
    "Dropout3d": (lambda: nn.Dropout3d(), C3),
    "FeatureAlphaDropout": (lambda: nn.FeatureAlphaDropout(), C3),
    "ChannelShuffle": (lambda: nn.ChannelShuffle(2), C2),
    "Flatten": (lambda: nn.Flatten(3), C3),
    "Unflatten": (lambda: nn.Unflatten(-1, (2, 3)), C3),
    "PixelShuffle": (lambda: nn.PixelShuffle(2), IMAGES),
    "PixelUnshuffle": (lambda: nn.PixelUnshuffle(3), IMAGES),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(4), C1),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(4), C2),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(4), C3),
    "SyncBatchNorm": (lambda: nn.SyncBatchNorm(4), C2),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(4, track_running_stats=True), C1),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(4, track_running_stats=True), C2),
    "InstanceNorm3d": (lambda: nn.InstanceNorm3d(4, track_running_stats=True), C3),
    "LayerNorm": (lambda: nn.LayerNorm((3, 6)), C3),
    "RMSNorm": (lambda: nn.RMSNorm(5), C2),
    "LocalResponseNorm": (lambda: nn.LocalResponseNorm(3, 0.5), C1),
    "CrossMapLRN2d": (lambda: nn.CrossMapLRN2d(3, 0.5), C2),
    "Linear": (lambda: nn.Linear(5, 3), C2),
    "Embedding": (lambda: nn.Embedding(20, 3), (2, 1, 13)),
    "Conv1d": (lambda: nn.Conv1d(4, 3, 3, 2, 1), C1),
    "Conv2d": (lambda: nn.Conv2d(4, 3, 3, padding=1), C2),
    "Conv3d": (lambda: nn.Conv3d(4, 3, (3, 1, 2)), C3),
    "AvgPool1d": (lambda: nn.AvgPool1d(3, 2), C1),
    "AvgPool2d": (lambda: nn.AvgPool2d(3, 1, 1), C2),
    "AvgPool3d": (lambda: nn.AvgPool3d(2), C3),
    "MaxPool1d": (lambda: nn.MaxPool1d(3, 2), C1),
    "MaxPool2d": (lambda: nn.MaxPool2d(3, 1, 1), C2),
    "MaxPool3d": (lambda: nn.MaxPool3d(2), C3),
    "LPPool1d": (lambda: nn.LPPool1d(2, 3, 1), C1),
    "LPPool2d": (lambda: nn.LPPool2d(2, 3, 1), C2),
    "LPPool3d": (lambda: nn.LPPool3d(2, 2), C3),
    "AdaptiveAvgPool2d": (lambda: nn.AdaptiveAvgPool2d((None, 2)), C2),
    "AdaptiveAvgPool3d": (lambda: nn.AdaptiveAvgPool3d((None, 1, 2)), C3),
    "AdaptiveMaxPool2d": (lambda: nn.AdaptiveMaxPool2d((None, 2)), C2),
    "AdaptiveMaxPool3d": (lambda: nn.AdaptiveMaxPool3d((None, 1, 2)), C3),
    "Upsample": (lambda: nn.Upsample(scale_factor=(1, 2, 3)), C3),
    "UpsamplingNearest2d": (lambda: nn.UpsamplingNearest2d(scale_factor=(1, 2)), C2),
    "UpsamplingBilinear2d": (lambda: nn.UpsamplingBilinear2d(scale_factor=(1, 2)), C2),
    "CircularPad1d": (lambda: nn.CircularPad1d(0), C1),
    "CircularPad2d": (lambda: nn.CircularPad2d((1, 2, 0, 0)), C2),
    "CircularPad3d": (lambda: nn.CircularPad3d((1, 2, 2, 1, 0, 0)), C3),
    "Sequential": (lambda: nn.Sequential(nn.Conv1d(4, 3, 3), nn.ReLU()), C1),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 3, 4, 2, 1), C1),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 3, 3, (2, 1)), C2),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(4, 3, 2, 2), C3),
    "RNN": (lambda: nn.RNN(4, 3), C1),
    "GRU": (lambda: nn.GRU(4, 3, 2), C1),
    "LSTM": (lambda: nn.LSTM(4, 3), C1),
    "RNNCell": (lambda: nn.RNNCell(4, 3), C1),
    "GRUCell": (lambda: nn.GRUCell(4, 3), C1),
    "LSTMCell": (lambda: nn.LSTMCell(4, 3), C1),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), C2),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(4, 2, batch_first=True), C1),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), C1),
    "TransformerEncoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), 2, enable_nested_tensor=False),
        C1,
    ),
}
WINDOW = {"sequence_len": 4}
OPTIONS = {"GroupNorm": {"time_norm": "cumulative"}, "MultiheadAttention": WINDOW, "TransformerEncoderLayer": WINDOW,
           "TransformerEncoder": WINDOW}  # fmt: skip
for _kind in ("ZeroPad", "ReplicationPad", "ReflectionPad", "ConstantPad"):
    for _dims, _shape in (1, C1), (2, C2), (3, C3):
        _args = ((1, 0) * (_dims - 1) + (2, 1),) + ((3.0,) if _kind == "ConstantPad" else ())
        WORKS[f"{_kind}{_dims}d"] = (lambda name=f"{_kind}{_dims}d", args=_args: getattr(nn, name)(*args)), _shape
REFERENCE = {"PixelShuffle": frame_by_frame, "PixelUnshuffle": frame_by_frame, "Embedding": embedded} | {
    **dict.fromkeys(("RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"), ByClips),
    **dict.fromkeys(("MultiheadAttention", "TransformerEncoderLayer", "TransformerEncoder"), newest_of_windows),
    "GroupNorm": up_to_now,
}

REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "AdaptiveAvgPool1d": (lambda: nn.AdaptiveAvgPool1d(1), "over the whole clip.*co.AdaptiveAvgPool1d.1, kernel_size=steps"),
    "AdaptiveMaxPool1d": (lambda: nn.AdaptiveMaxPool1d(1), "over the whole clip.*co.AdaptiveMaxPool1d.1, kernel_size=steps"),
    "FractionalMaxPool2d": (lambda: nn.FractionalMaxPool2d(2, output_size=3), "random regions.*nn.MaxPool2d"),
    "FractionalMaxPool3d": (lambda: nn.FractionalMaxPool3d(2, output_size=3), "random regions.*nn.MaxPool3d"),
    "MaxUnpool1d": (lambda: nn.MaxUnpool1d(2), "second input.*return_indices.*nn.Upsample"),
    "MaxUnpool2d": (lambda: nn.MaxUnpool2d(2), "second input.*return_indices.*nn.Upsample"),
    "MaxUnpool3d": (lambda: nn.MaxUnpool3d(2), "second input.*return_indices.*nn.Upsample"),
    "Unfold": (lambda: nn.Unfold(2), "windows over time and space in one dimension.*co.Unfold"),
    "Fold": (lambda: nn.Fold((4, 4), 2), "windows over time and space in one dimension.*ConvTranspose"),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(9, 3), "sum over a clip of tokens.*co.Embedding"),
    "Bilinear": (lambda: nn.Bilinear(4, 4, 2), "takes two inputs.*co.Reduce"),
    "CosineSimilarity": (lambda: nn.CosineSimilarity(), "takes two inputs.*co.Reduce.*cosine_similarity"),
    "PairwiseDistance": (lambda: nn.PairwiseDistance(), r"takes two inputs.*co.Reduce.*norm\("),
    "AdaptiveLogSoftmaxWithLoss": (lambda: nn.AdaptiveLogSoftmaxWithLoss(8, 8, [2, 4], div_value=2), "takes targets.*log_prob"),
    "ModuleList": (lambda: nn.ModuleList([nn.ReLU()]), r"holds modules.*co.Sequential"),
    "ModuleDict": (lambda: nn.ModuleDict({"a": nn.ReLU()}), r"holds modules.*co.Sequential"),
    "ParameterList": (lambda: nn.ParameterList(), "holds parameters.*convert the module that uses them"),
    "ParameterDict": (lambda: nn.ParameterDict(), "holds parameters.*convert the module that uses them"),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(4), "whole clip.*track_running_stats"),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), 'time_norm="cumulative"'),
    "LSTM": (lambda: nn.LSTM(4, 3, bidirectional=True), "reads the clip from its end.*bidirectional=False"),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(4, 2), "attends to all tokens.*sequence_len"),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(4, 2), "attends to all tokens.*sequence_len"),
    "TransformerDecoderLayer": (lambda: nn.TransformerDecoderLayer(4, 2), "attends to a memory.*Remedies"),
    "TransformerDecoder": (lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2), 1), "attends to a memory.*Remedies"),
    "Transformer": (lambda: nn.Transformer(4, 2, 1, 1, 8, batch_first=True), "attends to a memory.*Remedies"),
    "Softmax": (lambda: nn.Softmax(), "give dim=1"),
    "Upsample": (lambda: nn.Upsample(size=9), "length"),
    "CircularPad1d": (lambda: nn.CircularPad1d(2), "other end of the clip.*Remedies"),
    "Conv1d": (lambda: nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"), "other end of the clip.*Remedies"),
    "MaxPool1d": (lambda: nn.MaxPool1d(2, return_indices=True), "return_indices"),
    "Embedding": (lambda: nn.Embedding(9, 3, max_norm=1.0), "rewrites its weights.*Remedy"),
}
LOSS_ARGUMENTS: dict[str, dict[str, Any]] = {"LinearCrossEntropyLoss": {"in_features": 4, "num_classes": 3}}
LAZY_ARGUMENTS: dict[str, tuple[int, ...]] = {"LazyLinear": (3,)} | {
    f"Lazy{kind}{dims}d": (3, 2) for kind in ("Conv", "ConvTranspose") for dims in (1, 2, 3)
}


def classes(base: type) -> list[str]:
    """The public classes of torch.nn below one."""
    return [n for n in nn.modules.__all__ if isinstance(getattr(nn, n), type) and issubclass(getattr(nn, n), base)]


LOSSES = classes(nn.modules.loss._Loss)
LAZY = classes(nn.modules.lazy.LazyModuleMixin)


def test_no_class_of_torch_is_forgotten():
    known = {*WORKS, *REFUSED, *LOSSES, *LAZY, *CONTAINERS, *BASES}
    assert set(nn.modules.__all__) - known == set()
    assert known - set(nn.modules.__all__) == set()


@pytest.mark.parametrize("name", by_turns(WORKS, 2))
def test_works(name: str):
    make, shape = WORKS[name]
    module = make().eval()
    for norm in module.modules():
        if getattr(norm, "running_mean", None) is not None:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    for p in module.parameters():
        nn.init.uniform_(p, 0.2, 1.0)
    clip = torch.randint(20, shape) if name == "Embedding" else torch.randn(shape)
    net = co.continual(module, **OPTIONS.get(name, {}))
    assert type(module) is getattr(nn, name)
    report = co.verify(net, clip, REFERENCE.get(name, lambda module: module)(module), splits=3)
    assert report.passed
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in module.state_dict().items()}


def streamed(module: nn.Module) -> None:
    co.continual(module).forward_step(torch.zeros(2, 4))


def refused(module: nn.Module) -> str:
    """What is said when a module within others is converted, or else when a stream starts."""
    with pytest.raises(co.NotStreamable) as caught:
        streamed(nn.Sequential(nn.ReLU(), nn.Sequential(module)))
    message = str(caught.value)
    assert message.startswith(f"1.0 ({type(module).__name__})")
    assert "no streaming version of this class is known" not in message
    return message


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
def test_refused(name: str):
    make, fragment = REFUSED[name]
    assert re.search(fragment, refused(make()), re.DOTALL)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_losses_are_refused(name: str):
    loss = getattr(nn, name)(**LOSS_ARGUMENTS.get(name, {}))
    assert re.search("a loss compares outputs with targets.*Remedy", refused(loss))


@pytest.mark.parametrize("name", LAZY)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning", "ignore:Lazy modules:UserWarning")
def test_lazy_modules_are_refused_until_they_have_weights(name: str):
    module = getattr(nn, name)(*LAZY_ARGUMENTS.get(name, ()))
    assert re.search(r"it is lazy.*Remedy: run a clip through the network first, module\(clip\)", refused(module))


@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning", "ignore:Initializing zero-element tensors:UserWarning")
def test_lazy_modules_once_they_have_weights():
    module = nn.Sequential(nn.LazyConv1d(3, 3, padding=1), nn.LazyBatchNorm1d())
    clip = torch.randn(C1)
    module(clip)
    assert co.verify(co.continual(module.eval()), clip, module).passed


class OfAList(nn.Module):
    """A module of two inputs as a module of a list."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, streams: list[Tensor]) -> Tensor:
        return self.module(*streams)


TWO_INPUTS = {
    "CosineSimilarity": (nn.CosineSimilarity(dim=1), lambda s: nn.functional.cosine_similarity(*s, dim=1).unsqueeze(1)),
    "PairwiseDistance": (
        lambda a, b: (a - b).norm(dim=1),
        lambda s: (s[0] - s[1]).norm(dim=1, keepdim=True),
    ),
    "Bilinear": (bilinear := nn.Bilinear(5, 5, 3), OfAList(bilinear)),
}


@pytest.mark.parametrize("name", TWO_INPUTS)
def test_the_remedy_for_two_inputs(name: str):
    """Two branches of one stream, compared."""
    torch_way, join = TWO_INPUTS[name]
    a, b = nn.Conv2d(4, 3, 3, padding=1), nn.Conv2d(4, 3, (5, 1), padding=(2, 0))
    net = co.Sequential(co.Broadcast(2), co.Parallel(a, b), co.Reduce(join)).eval()

    def reference(clip: Tensor) -> Tensor:
        y: Tensor = torch_way(a(clip), b(clip))
        return y if name == "Bilinear" else y.unsqueeze(1)

    assert co.verify(net, torch.randn(C2), reference).passed
