"""CoSlow and CoI3D: 3D ResNet-50, frame by frame. A step is an RGB frame ``(B, 3, H, H)``, every 8th of 30 per second.

| name | H | clip | receptive field | delay | stride | Kinetics-400 top-1, window of 64 |
|---|---|---|---|---|---|---|
| ``coslow`` | 256 | 8 | 26 | 16 | 1 | 73.05 % |
| ``coi3d`` | 224 | 8 | 42 | 24 | 2 | 56.86 % |

>>> net = co.models.create("coi3d", input_size=32, classes=3)
>>> net.stride, net.delay  # a prediction with every second step
((2,), 24)

Source: Feichtenhofer et al., SlowFast networks (2019), its slow path; Carreira and Zisserman, Quo vadis, action recognition? (2017);
Hedegaard and Iosifidis, Continual 3D convolutional neural networks for real-time processing of videos (2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from ..containers.sequential import Sequential
from ..layers.conv import Conv3d
from ..layers.linear import Linear
from ..layers.pooling import AvgPool3d, MaxPool3d
from ..layers.shape import Reshape
from .blocks import Shortcut, norm
from .zoo import ModelCard

INNER = (64, 128, 256, 512)
SLOW = ((1,) * 3, (1,) * 4, (3,) * 6, (3,) * 3)  # temporal kernels of the blocks
I3D = ((3,) * 3, (3, 1) * 2, (3, 1) * 3, (1, 3, 1))


def resnet(
    classes: int, size: int, *, frames: int, first: int, kernels: Sequence[Sequence[int]], halve: bool = False
) -> dict[str, nn.Module]:
    """The layers of a 3D ResNet-50, with the names of the weights of pytorchvideo.

    Args:
        classes: logits.
        size: height and width of a frame.
        frames: length of the window of the head.
        first: temporal kernel of the stem.
        kernels: temporal kernels of the blocks, stage by stage.
        halve: maximum of every two frames after the first stage.
    """
    if size < 32:
        raise ValueError(f"a ResNet halves frames five times: input_size is at least 32, got {size}")
    parts: list[nn.Module] = [stem(first)]
    before = INNER[0]
    for i, (inner, sizes) in enumerate(zip(INNER, kernels)):
        blocks = [
            bottleneck(before if j == 0 else 4 * inner, inner, k, (2 if i else 1) if j == 0 else 0) for j, k in enumerate(sizes)
        ]
        parts.append(Sequential({"res_blocks": Sequential(*blocks)}))
        if halve and i == 0:
            parts.append(MaxPool3d((2, 1, 1)))
        before = 4 * inner
    parts.append(head(before, frames // 2 if halve else frames, -(-size // 32), classes))
    return {"blocks": Sequential(*parts)}


def stem(kernel: int) -> Sequential:
    """A wide convolution and a maximum pool of 3 × 3."""
    conv = Conv3d(3, 64, (kernel, 7, 7), stride=(1, 2, 2), padding=(kernel // 2, 3, 3), bias=False)
    pool = MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
    return Sequential({"conv": conv, "norm": norm(64), "activation": nn.ReLU(), "pool": pool})


def bottleneck(before: int, inner: int, kernel: int, stride: int) -> Shortcut:
    """A bottleneck: few channels over time, convolution over space, many channels; the first of a stage has a stride."""
    layers: dict[str, nn.Module] = {
        "conv_a": Conv3d(before, inner, (kernel, 1, 1), padding=(kernel // 2, 0, 0), bias=False),
        "norm_a": norm(inner),
        "act_a": nn.ReLU(),
        "conv_b": Conv3d(inner, inner, (1, 3, 3), stride=(1, stride or 1, stride or 1), padding=(0, 1, 1), bias=False),
        "norm_b": norm(inner),
        "act_b": nn.ReLU(),
        "conv_c": Conv3d(inner, 4 * inner, 1, bias=False),
        "norm_c": norm(4 * inner),
    }
    shortcut: dict[str, nn.Module] = {}
    if stride:
        conv = Conv3d(before, 4 * inner, 1, stride=(1, stride, stride), bias=False)
        shortcut = {"branch1_conv": conv, "branch1_norm": norm(4 * inner)}
    return Shortcut({"branch2": Sequential(layers)}, shortcut)


def head(before: int, frames: int, size: int, classes: int) -> Sequential:
    """The mean over window and frame, and a linear classifier."""
    return Sequential(
        {
            "pool": AvgPool3d((frames, size, size), stride=1),
            "flatten": Reshape(-1, before),
            "dropout": nn.Dropout(0.5),
            "proj": Linear(before, classes, channel_dim=1),
        }
    )


PAPER = "Hedegaard and Iosifidis, Continual 3D convolutional neural networks (2021), arXiv:2106.00050"
VIDEO: dict[str, Any] = {
    "takes": "an RGB frame",
    "size": "height and width",
    "classes": 400,
    "dataset": "Kinetics-400",
    "mean": 0.45,
    "std": 0.225,
}

CARDS = (
    ModelCard(
        name="coslow",
        title="CoSlow: the slow path of SlowFast, ResNet-50, for actions in video",
        paper=f"{PAPER}; SlowFast: arXiv:1812.03982",
        input_size=256,
        step=lambda size: (3, size, size),
        accuracy="top-1 73.05 % with the head's window at 64 frames",
        build=partial(resnet, frames=8, first=1, kernels=SLOW),
        frames=8,
        rate=30 / 8,
        every=8,
        **VIDEO,
    ),
    ModelCard(
        name="coi3d",
        title="CoI3D: inflated 3D ResNet-50, for actions in video; a prediction every second frame",
        paper=f"{PAPER}; I3D: arXiv:1705.07750",
        input_size=224,
        step=lambda size: (3, size, size),
        accuracy="top-1 56.86 % with the head's window at 64 frames",
        build=partial(resnet, frames=8, first=5, kernels=I3D, halve=True),
        frames=8,
        rate=30 / 8,
        every=8,
        formats=("own names", "Caffe2 I3D"),
        **VIDEO,
    ),
)
