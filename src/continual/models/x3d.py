"""CoX3D: X3D, frame by frame. A step is an RGB frame ``(B, 3, H, H)``.

| name | H | head's window | frames of 30 per second | receptive field | delay | Kinetics-400 top-1, window of 64 |
|---|---|---|---|---|---|---|
| ``cox3d_xs`` | 160 | 4 | every 12th | 60 | 31 | |
| ``cox3d_s`` | 160 | 13 | every 6th | 69 | 40 | 67.33 % |
| ``cox3d_m`` | 224 | 16 | every 5th | 72 | 43 | 71.03 % |
| ``cox3d_l`` | 312 | 16 | every 5th | 130 | 72 | 71.61 % |

The published accuracies are those of heads that average over 64 frames: ``net.head[3] = co.AvgPool3d((64, 5, 5), stride=1)`` for S.

>>> net = co.models.create("cox3d_s", input_size=32, classes=3)
>>> logits = net.forward_steps(torch.randn(2, 3, 42, 32, 32))  # the delay, and two frames
>>> logits.shape
torch.Size([2, 3, 2])

Source: Feichtenhofer, X3D: expanding architectures for efficient video recognition (2020); Hedegaard and Iosifidis, Continual 3D
convolutional neural networks for real-time processing of videos (2021).
"""

from __future__ import annotations

from functools import partial

from torch import nn

from ..containers.sequential import Sequential
from ..layers.conv import Conv3d
from ..layers.linear import Linear
from ..layers.pooling import AvgPool3d
from ..layers.shape import Reshape
from .blocks import Shortcut, SqueezeExcite, norm
from .zoo import ModelCard

WIDTHS = (24, 48, 96, 192)


def rounded(width: float, divisor: int = 8) -> int:
    """A width rounded to a multiple of 8 that is at least nine tenths of it."""
    near = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * width else near


def x3d(classes: int, size: int, *, frames: int, depths: tuple[int, int, int, int]) -> dict[str, nn.Module]:
    """The layers of CoX3D, with the names of the weights of PySlowFast.

    Squeeze-and-excitation sees one frame; that of X3D sees the clip.

    Args:
        classes: logits.
        size: height and width of a frame.
        frames: length of the window of the head.
        depths: residual blocks of the four stages.
    """
    if size < 32:
        raise ValueError(f"CoX3D halves frames five times: input_size is at least 32, got {size}")
    layers: dict[str, nn.Module] = {"s1": Sequential({"pathway0_stem": stem()})}
    before = WIDTHS[0]
    for i, (width, depth) in enumerate(zip(WIDTHS, depths)):
        blocks: dict[str, nn.Module] = {f"pathway0_res{j}": block(before if j == 0 else width, width, j) for j in range(depth)}
        layers[f"s{i + 2}"] = Sequential(blocks)
        before = width
    layers["head"] = head(before, frames, -(-size // 32), classes)
    for part in layers.values():
        part.apply(initialise)
    return layers


def initialise(module: nn.Module) -> None:
    """The initialisation of X3D: fan-out convolutions, a classifier near zero, and blocks that start as their shortcuts."""
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
    elif isinstance(module, Shortcut):
        nn.init.zeros_(module.branch2.c_bn.weight)  # type: ignore[union-attr, arg-type]


def stem() -> Sequential:
    """Convolutions over space, then depthwise over time."""
    width = WIDTHS[0]
    over_space = Conv3d(3, width, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False)
    over_time = Conv3d(width, width, (5, 1, 1), padding=(2, 0, 0), groups=width, bias=False)
    return Sequential({"conv_xy": over_space, "conv": over_time, "bn": norm(width), "relu": nn.ReLU()})


def block(before: int, width: int, index: int) -> Shortcut:
    """An inverted bottleneck; the first of a stage halves the frame, every second one has squeeze-and-excitation."""
    inner, stride = int(2.25 * width), 2 if index == 0 else 1
    layers: dict[str, nn.Module] = {
        "a": Conv3d(before, inner, 1, bias=False),
        "a_bn": norm(inner),
        "a_relu": nn.ReLU(),
        "b": Conv3d(inner, inner, 3, stride=(1, stride, stride), padding=1, groups=inner, bias=False),
        "b_bn": norm(inner),
    }
    if index % 2 == 0:
        layers["se"] = SqueezeExcite(inner, rounded(inner / 16))
    layers |= {"b_relu": nn.SiLU(), "c": Conv3d(inner, width, 1, bias=False), "c_bn": norm(width)}
    shortcut: dict[str, nn.Module] = {}
    if index == 0:
        shortcut = {"branch1": Conv3d(before, width, 1, stride=(1, 2, 2), bias=False), "branch1_bn": norm(width)}
    return Shortcut({"branch2": Sequential(layers)}, shortcut)


def head(before: int, frames: int, size: int, classes: int) -> Sequential:
    """The mean over window and frame, and a classifier with one hidden layer."""
    inner, hidden = int(2.25 * before), 2048
    return Sequential(
        {
            "conv_5": Conv3d(before, inner, 1, bias=False),
            "conv_5_bn": norm(inner),
            "conv_5_relu": nn.ReLU(),
            "avg_pool": AvgPool3d((frames, size, size), stride=1),
            "lin_5": Conv3d(inner, hidden, 1, bias=False),
            "lin_5_relu": nn.ReLU(),
            "flatten": Reshape(-1, hidden),
            "dropout": nn.Dropout(0.5),
            "projection": Linear(hidden, classes, channel_dim=1),
        }
    )


def card(letter: str, size: int, frames: int, every: int, depths: tuple[int, int, int, int], accuracy: str) -> ModelCard:
    """The card of CoX3D in one of its sizes."""
    return ModelCard(
        name=f"cox3d_{letter.lower()}",
        title=f"CoX3D-{letter}: 3D convolutions with inverted bottlenecks, for actions in video",
        paper="Hedegaard and Iosifidis, Continual 3D convolutional neural networks (2021), arXiv:2106.00050; X3D: arXiv:2004.04730",
        takes="an RGB frame",
        size="height and width",
        input_size=size,
        step=lambda size: (3, size, size),
        classes=400,
        dataset="Kinetics-400",
        accuracy=accuracy,
        build=partial(x3d, frames=frames, depths=depths),
        frames=frames,
        rate=30 / every,
        every=every,
        mean=0.45,
        std=0.225,
        formats=("own names", "pytorchvideo X3D"),
    )


SMALL = (3, 5, 11, 7)
CARDS = (
    card("XS", 160, 4, 12, SMALL, ""),
    card("S", 160, 13, 6, SMALL, "top-1 67.33 % with the head's window at 64 frames"),
    card("M", 224, 16, 5, SMALL, "top-1 71.03 % with the head's window at 64 frames"),
    card("L", 312, 16, 5, (5, 10, 25, 15), "top-1 71.61 % with the head's window at 64 frames"),
)
