"""A beat tracker, quantisers of codecs and the transformer blocks of small packages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..network import Network
from ..packages import cls


class First(nn.Module):
    """What a module returns first."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.module(x)[0]
        return y


class Beats(nn.Module):
    """The two curves of a beat tracker."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.module(x)
        return y["beat"], y["downbeat"]


def of(name: str, *sizes: Any, around: Callable[[nn.Module], nn.Module] | None = None, **more: Any) -> Callable[[], nn.Module]:
    """A builder of a class of a package."""

    def build() -> nn.Module:
        made: nn.Module = cls(name)(*sizes, **more)
        return made if around is None else around(made)

    return build


def decoder(name: str, source: str, **more: Any) -> Network:
    """A causal stack of x-transformers. It takes its softmax in float32."""
    build = of("x_transformers.Decoder", dim=16, depth=2, heads=2, attn_dim_head=8, **more)
    return Network(
        f"x_transformers/{name}", build, (2, 16, 16), "stream", source, package="x_transformers", time_dim=1, single=True
    )


def codes(name: str, build: Callable[[], nn.Module], source: str) -> Network:
    """A quantiser of ``(B, T, C)``."""
    package = "vector_quantize_pytorch"
    return Network(f"{package}/{name}", build, (2, 16, 6), "stream", source, package=package, time_dim=1)


NETWORKS = [
    Network(
        "beat_this/transformer",
        of(
            "beat_this.model.beat_tracker.BeatThis",
            spect_dim=32,
            transformer_dim=32,
            n_layers=2,
            head_dim=16,
            stem_dim=8,
            partial_transformers=False,
            around=Beats,
        ),
        (2, 30, 32),
        "windows",
        "Foscarin 2024, ISMIR",
        package="beat_this",
        time_dim=1,
        options={"output": -1},
    ),
    codes("finite scalars", of("vector_quantize_pytorch.FSQ", [4, 3, 3], dim=6), "Mentzer 2024, ICLR"),
    codes("without a table", of("vector_quantize_pytorch.LFQ", codebook_size=16, dim=6, around=First), "Yu 2024, ICLR"),
    decoder("decoder", "Vaswani 2017, NeurIPS"),
    decoder("rotary positions", "Su 2024, Neurocomputing", rotary_pos_emb=True),
    decoder("ALiBi, gated", "Press 2022, ICLR", alibi_pos_bias=True, use_rmsnorm=True, ff_glu=True),
    decoder("relative positions in buckets", "Raffel 2020, JMLR (T5)", rel_pos_bias=True),
    decoder("token shift", "Peng 2023, EMNLP", shift_tokens=1),
    decoder("soft limits", "Riviere 2024, arXiv:2408.00118", attn_softclamp_logits=True),
]
