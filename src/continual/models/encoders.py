"""Transformer encoders on streams of features: CoOadTR, the GTZAN audio transformer, and a deep causal encoder.

A step is ``(B, F)``.

| name | F | layers | receptive field | delay | published |
|---|---|---|---|---|---|
| ``cooadtr_b1`` | 3072 (ActivityNet) or 4096 (Kinetics) | 1 | 64 | 63 | THUMOS14 mAP 64.5 % with F = 4096 |
| ``cooadtr_b2`` | the same | 2 | 64 | 63 | 64.4 % |
| ``gtzan_b1``, ``gtzan_b2`` | 128 | 1, 2 | 120 | 119 | |
| ``deepcot`` | 3072 | 6, causal | 379 | 0 | |

>>> net = co.models.create("cooadtr_b2", input_size=16)
>>> net.forward_steps(torch.randn(1, 16, 65)).shape  # 22 classes for tokens 64 and 65
torch.Size([1, 22, 2])

Source: Hedegaard, Bakhtiarnia and Iosifidis, Continual transformers: redundancy-free attention for online inference (2022); Wang et
al., OadTR: online action detection with transformers (2021); for ``deepcot``, DeepCoT (2025), arXiv:2511.17693.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from ..containers.transformer_encoder import MhaType, TransformerEncoder, TransformerEncoderLayerFactory
from ..layers.linear import Linear
from ..layers.positions.encodings import RecyclingPositionalEncoding
from ..layers.transformer.base import EncoderLayer
from .zoo import ModelCard


def encoder(
    classes: int,
    size: int,
    *,
    width: int,
    heads: int,
    hidden: int,
    window: int,
    positions: int,
    depth: int,
    causal: bool = False,
    bare: bool = False,
) -> dict[str, nn.Module]:
    """The layers: they map features to tokens, add positions, attend to a window, and classify.

    Args:
        classes: logits.
        size: features of a step.
        width: of a token.
        heads: of the attention.
        hidden: width of the feed-forward layers.
        window: tokens that each layer sees.
        positions: number of learned position vectors, which recur.
        depth: layers.
        causal: each layer sees the tokens up to its own, so that a step costs one token in every layer. Otherwise all tokens of the
            window attend to all, and a step updates them all in every layer but the last.
        bare: no biases in the attention.
    """
    options: dict[str, Any] = {"activation": "gelu", "sequence_len": window, "causal": causal}
    made = (_Bare if bare else TransformerEncoderLayerFactory)(width, heads, hidden, 0.1, **options)
    return {
        "embed": Linear(size, width, channel_dim=1),
        "positions": RecyclingPositionalEncoding(width, positions),
        "encoder": TransformerEncoder(made, depth, norm=nn.LayerNorm(width)),
        "head": Linear(width, classes, channel_dim=1),
    }


class _Bare(TransformerEncoderLayerFactory):
    """Layers whose attention has no biases; their other parts have."""

    def __call__(self, kind: MhaType | str) -> EncoderLayer:
        layer = super().__call__(kind)
        layer.heads.register_parameter("in_proj_bias", None)
        layer.heads.out_proj.register_parameter("bias", None)
        return layer


PAPER = "Hedegaard, Bakhtiarnia and Iosifidis, Continual transformers (2022), arXiv:2201.06268"
OAD: dict[str, Any] = {"width": 1024, "heads": 8, "hidden": 1024, "window": 64, "positions": 127, "bare": True}
GTZAN: dict[str, Any] = {"width": 192, "heads": 16, "hidden": 192, "window": 120, "positions": 192}
DEEP: dict[str, Any] = {"width": 512, "heads": 8, "hidden": 2048, "window": 64, "positions": 127, "causal": True}
FEATURES: dict[str, Any] = {"size": "features", "step": lambda size: (size,)}
TSN: dict[str, Any] = {
    **FEATURES,
    "takes": "TSN features: 3072 of a network trained on ActivityNet, or 4096 of one trained on Kinetics",
    "input_size": 3072,
    "classes": 22,
    "dataset": "THUMOS14",
    "also": ((4096, 22),),
    "rate": 4.0,
    "frames": 64,
}

CARDS = (
    ModelCard(
        name="cooadtr_b1",
        title="CoOadTR-b1: one layer of attention over 64 tokens, for online action detection",
        paper=f"{PAPER}; OadTR: arXiv:2106.11149",
        accuracy="mAP 64.5 % with Kinetics features",
        build=partial(encoder, **OAD, depth=1),
        **TSN,
    ),
    ModelCard(
        name="cooadtr_b2",
        title="CoOadTR-b2: two layers, of which the first updates all 64 tokens with every step",
        paper=f"{PAPER}; OadTR: arXiv:2106.11149",
        accuracy="mAP 64.4 % with Kinetics features",
        build=partial(encoder, **OAD, depth=2),
        **TSN,
    ),
    *(
        ModelCard(
            name=f"gtzan_b{depth}",
            title=f"audio transformer with {depth} layer{'s' * (depth > 1)} over 120 tokens, for genres of music",
            paper=PAPER,
            takes="128 VGGish features of one second of sound",
            input_size=128,
            classes=10,
            dataset="GTZAN",
            accuracy="",
            build=partial(encoder, **GTZAN, depth=depth),
            frames=120,
            **FEATURES,
        )
        for depth in (1, 2)
    ),
    ModelCard(
        name="deepcot",
        title="deep continual transformer: six causal layers, a step costs one token in each",
        paper="in the style of DeepCoT (2025), arXiv:2511.17693: attention of every layer over its own window of the past",
        accuracy="",
        build=partial(encoder, **DEEP, depth=6),
        **{**TSN, "frames": 6 * 63 + 1},
    ),
)
