"""CoST-GCN, CoAGCN, CoS-TR and their ``*`` variants: graph convolutions over joints, convolutions over time.

A step is ``(B, 3, V, 2)``: coordinates, joints, two skeletons. Inside, the joints of both skeletons are side by side in one axis,
``(channels, 2 * V)``: convolutions over time are not affected, and a graph convolution takes each skeleton alone.

| name | receptive field | delay | stride | NTU-60 cross-subject / cross-view |
|---|---|---|---|---|
| ``cost_gcn``, ``coa_gcn``, ``cos_tr`` | 449 (without the pool 153) | 296 | 4 | |
| ``cost_gcn_star`` | 300 | 299 | 1 | 86.3 / 93.8 % |
| ``coa_gcn_star`` | 300 | 299 | 1 | 84.1 / 92.6 % |
| ``cos_tr_star`` | 300 | 299 | 1 | 86.3 / 92.4 % |

>>> net = co.models.create("cost_gcn_star", input_size=18)  # Kinetics: the 18 joints of OpenPose, 400 classes
>>> net.step_shape, net.fc.out_features
((3, 18, 2), 400)

Source: Hedegaard, Heidari and Iosifidis, Continual spatio-temporal graph convolutional networks (2022); Yan et al., Spatial temporal
graph convolutional networks (2018); Shi et al., Two-stream adaptive graph convolutional networks (2019); Plizzari et al.,
Skeleton-based action recognition via spatial and temporal transformer networks (2021).
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from ..containers.sequential import Sequential
from ..layers.closure import Lambda
from ..layers.conv import Conv2d
from ..layers.delay import Trim
from ..layers.linear import Linear
from ..layers.pooling import AvgPool1d
from .blocks import Shortcut
from .graph_conv import AdaptiveGraphConv, GraphAttention, GraphConv
from .skeleton_graphs import SKELETONS
from .zoo import ModelCard

WIDTHS = (64, 64, 64, 64, 128, 128, 128, 256, 256, 256)
HALVES = (5, 8)  # blocks that halve time in the regular networks
PEOPLE = 2


def skeleton(classes: int, size: int, *, kind: str, star: bool) -> dict[str, nn.Module]:
    """The layers, with the names of the published weights of ST-GCN.

    Args:
        classes: logits.
        size: number of joints, which determines the skeleton.
        kind: ``"st"``, ``"a"`` (adaptive) or ``"tr"`` (attention across joints in blocks 4 to 10).
        star: no temporal stride and no padding of time: exact on every window of 300 frames.
    """
    if size not in SKELETONS:
        known = " or ".join(f"{joints} ({name})" for joints, name in ((25, "NTU RGB+D"), (18, "OpenPose, as in Kinetics")))
        raise ValueError(f"a skeleton of {size} joints is not known: input_size is {known}")
    blocks: dict[str, nn.Module] = {}
    before = 3
    for i, width in enumerate(WIDTHS, 1):
        gcn = graph_conv(kind if kind != "tr" or i > 3 else "st", before, width, size)
        blocks[f"layer{i}"] = block(gcn, before, width, i, star)
        before = width
    window, padding = (220, 0) if star else (75, 19)
    return {
        "features": Lambda(features, takes_time=True),
        "data_bn": nn.BatchNorm1d(3 * size * PEOPLE),
        "joints": Lambda(joints, takes_time=True),
        "layers": Sequential(blocks),
        "mean": Lambda(mean_of_joints, takes_time=True),
        "pool": AvgPool1d(window, stride=1, padding=padding),
        "fc": Linear(before, classes, channel_dim=1),
    }


def features(x: Tensor) -> Tensor:
    """``(B, 3, T, V, M)`` to ``(B, M * V * 3, T)``."""
    return x.permute(0, 4, 3, 1, 2).flatten(1, 3)


def joints(x: Tensor) -> Tensor:
    """``(B, M * V * 3, T)`` to ``(B, 3, T, M * V)``."""
    return x.unflatten(1, (-1, 3)).permute(0, 2, 3, 1)


def mean_of_joints(x: Tensor) -> Tensor:
    """``(B, C, T, M * V)`` to ``(B, C, T)``; all skeletons have the same number of joints."""
    return x.mean(-1)


def graph_conv(kind: str, before: int, width: int, joints: int) -> nn.Module:
    """The convolution across the joints of a frame."""
    return {"st": GraphConv, "a": AdaptiveGraphConv, "tr": GraphAttention}[kind](before, width, joints)


def block(gcn: nn.Module, before: int, width: int, index: int, star: bool) -> nn.Module:
    """Across joints, then over time, with a shortcut around both except in the first block."""
    halves = index in HALVES
    stride, padding = (1, 0) if star else (2 if halves else 1, 4)
    over_time = Conv2d(width, width, (9, 1), stride=(stride, 1), padding=(padding, 0))
    path: dict[str, nn.Module] = {"gcn": gcn, "tcn": Sequential({"t_conv": over_time, "bn": nn.BatchNorm2d(width)})}
    if index == 1:
        return Sequential({**path, "relu": nn.ReLU()})
    if not halves:
        return Shortcut(path, shrink=star)
    conv = Conv2d(before, width, 1, stride=(stride, 1))
    residual = Sequential({"t_conv": conv, "bn": nn.BatchNorm2d(width)})
    return Shortcut(path, {"crop": Trim(4, 4), "residual": residual} if star else {"residual": residual})


PAPER = "Hedegaard, Heidari and Iosifidis, Continual spatio-temporal graph convolutional networks (2022), arXiv:2203.11009"
KINDS = {
    "cost_gcn": ("CoST-GCN", "graph convolutions", "st", "ST-GCN: arXiv:1801.07455", "86.3 / 93.8 %"),
    "coa_gcn": ("CoAGCN", "adaptive graph convolutions", "a", "AGCN: arXiv:1805.07694", "84.1 / 92.6 %"),
    "cos_tr": ("CoS-TR", "attention across joints", "tr", "S-TR: arXiv:2008.07404", "86.3 / 92.4 %"),
}


def card(name: str, star: bool) -> ModelCard:
    """The card of a network in one of its two variants."""
    title, what, kind, paper, accuracy = KINDS[name]
    variant = "* (no strides, no padding)" if star else " (a prediction every 4 frames)"
    return ModelCard(
        name=f"{name}_star" if star else name,
        title=f"{title}{variant}: {what}, for actions of skeletons",
        paper=f"{PAPER}; {paper}",
        takes="coordinates (3), joints, two skeletons",
        size="joints: 25 for NTU RGB+D, 18 for OpenPose",
        input_size=25,
        step=lambda size: (3, size, PEOPLE),
        classes=60,
        also=((18, 400),),
        dataset="NTU RGB+D 60 (with 18 joints Kinetics-400)",
        accuracy=f"NTU-60 cross-subject / cross-view {accuracy}" if star else "",
        build=partial(skeleton, kind=kind, star=star),
        frames=300,
        rate=30.0,
        formats=("own names", "continual-skeletons"),
        clip_network=name if star else "",
    )


CARDS = tuple(card(name, star) for name in KINDS for star in (False, True))
