"""A causal (2+1)D network in the style of MoViNet-A0-stream. A step is an RGB frame ``(B, 3, H, H)``, H = 172, every 6th of 30 per second.

A step sees past frames alone, so there is no delay (the receptive field of its convolutions is 31 steps). Means over the clip are means
over all frames so far, so there is no window. Published for MoViNet-A0-stream on Kinetics-600: 54 M operations per frame.

>>> net = co.models.create("movinet_a0_stream", input_size=32, classes=5)
>>> with torch.no_grad():
...     net.delay, net.forward_step(torch.randn(1, 3, 32, 32)).shape
(0, torch.Size([1, 5]))

Source: Kondratyuk et al., MoViNets: mobile video networks for efficient video recognition (2021), table of the A0 architecture.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..containers.parallel import BroadcastReduce, Residual
from ..containers.sequential import Sequential
from ..layers.closure import Identity
from ..layers.conv import Conv3d
from ..layers.cumulative import CumulativeMean
from ..layers.linear import Linear
from ..layers.padding import ZeroPad3d
from ..layers.shape import Reshape
from .blocks import norm
from .zoo import ModelCard

STEM, LAST, HIDDEN = 8, 480, 2048
# For each stage its width, and for each block its inner width, temporal kernel and spatial kernel. The first block halves frames.
STAGES: tuple[tuple[int, tuple[tuple[int, int, int], ...]], ...] = (
    (8, ((24, 1, 5),)),
    (32, ((80, 5, 3), (80, 3, 3), (80, 3, 3))),
    (56, ((184, 5, 3), (112, 3, 3), (184, 3, 3))),
    (56, ((184, 5, 3), (184, 3, 3), (184, 3, 3), (184, 3, 3))),
    (104, ((384, 5, 3), (280, 1, 5), (280, 1, 5), (344, 1, 5))),
)
SAME_SIZE = 3  # the stage that does not halve frames


def movinet(classes: int, size: int) -> dict[str, nn.Module]:
    """The layers.

    Args:
        classes: logits.
        size: height and width of a frame.
    """
    layers: dict[str, nn.Module] = {"stem": Sequential(*conv(3, STEM, (1, 3, 3), stride=2), nn.Hardswish())}
    before = STEM
    for i, (width, blocks) in enumerate(STAGES):
        made = []
        for j, (inner, over_time, over_space) in enumerate(blocks):
            made.append(block(before, inner, width, over_time, over_space, 2 if j == 0 and i != SAME_SIZE else 1))
            before = width
        layers[f"stage{i + 1}"] = Sequential(*made)
    layers["last"] = Sequential(*conv(before, LAST, (1, 1, 1)), nn.Hardswish())
    layers["mean"] = mean_up_to_now()
    layers["flatten"] = Reshape(-1, LAST)
    layers["hidden"] = Sequential(Linear(LAST, HIDDEN, channel_dim=1), nn.Hardswish(), nn.Dropout(0.2))
    layers["classifier"] = Linear(HIDDEN, classes, channel_dim=1)
    return layers


def conv(before: int, width: int, kernel: tuple[int, int, int], stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A causal convolution and batch norm."""
    over_time, *over_space = kernel
    around = [k // 2 for k in over_space]
    layer = Conv3d(before, width, kernel, (1, stride, stride), (0, *around), groups=groups, bias=False)
    past = [ZeroPad3d((0, 0, 0, 0, over_time - 1, 0))] if over_time > 1 else []
    return [*past, layer, norm(width)]


def block(before: int, inner: int, width: int, over_time: int, over_space: int, stride: int) -> nn.Module:
    """An inverted bottleneck: expansion, convolutions over space and time, squeeze-and-excitation, projection."""
    layers = [*conv(before, inner, (1, 1, 1)), nn.Hardswish()]
    layers += [*conv(inner, inner, (1, over_space, over_space), stride, groups=inner), nn.Hardswish()]
    if over_time > 1:
        layers += [*conv(inner, inner, (over_time, 1, 1), groups=inner), nn.Hardswish()]
    layers += [weighed(inner), *conv(inner, width, (1, 1, 1))]
    path = Sequential(*layers)
    return Residual(path) if stride == 1 and before == width else path


def mean_up_to_now() -> Sequential:
    """The mean over space and over all frames so far, ``(B, C, 1, 1)``."""
    return Sequential(nn.AdaptiveAvgPool3d((None, 1, 1)), CumulativeMean())


def weighed(channels: int) -> BroadcastReduce:
    """Squeeze-and-excitation by the frames so far."""
    hidden = -(-channels // 4 // 8) * 8
    weights = Sequential(
        mean_up_to_now(), Conv3d(channels, hidden, 1), nn.Hardswish(), Conv3d(hidden, channels, 1), nn.Hardsigmoid()
    )
    return BroadcastReduce({"frame": Identity(), "weights": weights}, reduce=product)


def product(parts: Sequence[Tensor]) -> Tensor:
    """A frame times one weight per channel."""
    frame, weights = parts
    return frame * weights


CARDS = (
    ModelCard(
        name="movinet_a0_stream",
        title="causal (2+1)D network in the style of MoViNet-A0-stream, for actions in video",
        paper="Kondratyuk et al., MoViNets: mobile video networks for efficient video recognition (2021), arXiv:2103.11511",
        takes="an RGB frame",
        size="height and width",
        input_size=172,
        step=lambda size: (3, size, size),
        classes=600,
        dataset="Kinetics-600",
        accuracy="",
        build=movinet,
        frames=50,
        rate=5.0,
        every=6,
    ),
)
