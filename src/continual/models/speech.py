"""Keyword spotting in speech: a depthwise-separable network on 10 cepstral coefficients every 20 ms. A step is ``(B, 1, F)``.

The receptive field is 48 steps, the delay 47 (0.94 s); then every second step gives a prediction, every 40 ms. Time is not padded:
every prediction equals that of the clip of the last 48 steps.

>>> net = co.models.create("kws_ds_cnn")
>>> net.forward_steps(torch.randn(1, 1, 50, 10)).shape
torch.Size([1, 12, 2])

Source: Zhang et al., Hello edge: keyword spotting on microcontrollers (2017), the small DS-CNN; here without padding of time.
"""

from __future__ import annotations

from torch import nn

from ..containers.sequential import Sequential
from ..layers.conv import Conv2d
from ..layers.linear import Linear
from ..layers.pooling import AvgPool2d
from ..layers.shape import Reshape
from .zoo import ModelCard

WIDTH, WINDOW = 64, 49


def ds_cnn(classes: int, size: int) -> dict[str, nn.Module]:
    """The layers. The window of 49 steps is about a second; every second step gives a prediction.

    Args:
        classes: logits.
        size: cepstral coefficients of a step.
    """
    if size < 4:
        raise ValueError(f"the first convolution spans 4 coefficients: input_size is at least 4, got {size}")
    layers: dict[str, nn.Module] = {"conv": Sequential(*conv(1, WIDTH, (10, 4), (2, 2), (0, 1)))}
    left, across = (WINDOW - 10) // 2 + 1, (size + 2 - 4) // 2 + 1
    for i in range(4):
        over_time = conv(WIDTH, WIDTH, (3, 3), padding=(0, 1), groups=WIDTH)
        layers[f"block{i + 1}"] = Sequential(*over_time, *conv(WIDTH, WIDTH, (1, 1)))
        left -= 2
    layers["pool"] = AvgPool2d((left, across), stride=1)
    layers["flatten"] = Reshape(-1, WIDTH)
    layers["dropout"] = nn.Dropout(0.2)
    layers["fc"] = Linear(WIDTH, classes, channel_dim=1)
    return layers


def conv(
    before: int,
    width: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> list[nn.Module]:
    """A convolution, batch norm and ReLU."""
    return [Conv2d(before, width, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


CARDS = (
    ModelCard(
        name="kws_ds_cnn",
        title="keyword spotting: depthwise-separable convolutions over one second, a prediction every 40 ms",
        paper="Zhang et al., Hello edge: keyword spotting on microcontrollers (2017), arXiv:1711.07128, the small DS-CNN",
        takes="10 cepstral coefficients (MFCC) of 40 ms of speech, every 20 ms",
        size="cepstral coefficients",
        input_size=10,
        step=lambda size: (1, size),
        classes=12,
        dataset="Google Speech Commands (10 words, silence, unknown)",
        accuracy="",
        build=ds_cnn,
        frames=WINDOW,
        rate=50.0,
    ),
)
