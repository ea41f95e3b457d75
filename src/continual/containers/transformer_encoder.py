"""Transformer encoders on streams: `TransformerEncoder`, its layers and their factory."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from ..core.call_modes import call_with_hooks
from ..core.naming import named
from ..core.registry import option, register_builder, register_refusal, streaming_copy
from ..errors import NotStreamable, ShapeMismatch
from ..layers.attention.band import band_of
from ..layers.attention.base import refuse_unbounded
from ..layers.tokenwise import tokenwise
from ..layers.transformer.base import Activation, EncoderLayer
from ..layers.transformer.layers import (
    CausalTransformerEncoderLayer,
    RetroactiveTransformerEncoderLayer,
    SingleOutputTransformerEncoderLayer,
)
from .base import run_clip
from .sequential import Sequential

__all__ = [
    "CausalTransformerEncoderLayer",
    "MhaType",
    "RetroactiveTransformerEncoderLayer",
    "SingleOutputTransformerEncoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayerFactory",
]


class MhaType(str, Enum):  # noqa: UP042 (a StrEnum prints otherwise)
    """What a layer of an encoder attends with."""

    RETROACTIVE = "retroactive"
    SINGLE_OUTPUT = "single_output"
    SINGLE_OUTPUT_FORWARD = "single_output_forward"
    REGULAR = "regular"
    CAUSAL = "causal"


class TransformerEncoderLayerFactory:
    """Makes the layers of a :class:`TransformerEncoder`: call it with a kind (:class:`MhaType` or its name).

    ``"single_output"`` gives one token of a sliding window, and ``"single_output_forward"`` does so in ``forward`` too. ``"retroactive"``
    gives the whole window with every step, and ``"regular"`` the same of a window that comes as a whole. ``"causal"`` gives one token
    that attends to a band of tokens up to its own.

    Args:
        d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, device, dtype, norm_first, bias: as ``torch.nn``.
        sequence_len: tokens in the window, or in the band.
        causal: encoders made with this factory are causal: every layer is of the kind ``"causal"``.
        look_ahead: of causal layers.
        positions: of causal layers, as in :class:`~continual.MultiheadAttention`.

    Example:
        >>> factory = co.TransformerEncoderLayerFactory(d_model=8, nhead=2, dim_feedforward=16, sequence_len=4)
        >>> type(factory("retroactive")).__name__
        'RetroactiveTransformerEncoderLayer'
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        device: Any = None,
        dtype: Any = None,
        sequence_len: int | None = None,
        *,
        norm_first: bool = False,
        bias: bool = True,
        causal: bool = False,
        look_ahead: int = 0,
        positions: Any = None,
    ):
        if not causal and (look_ahead or positions is not None):
            raise ValueError("look_ahead and positions are for causal layers: give causal=True")
        self.causal = causal
        self._own = {"look_ahead": look_ahead, "positions": positions}
        self._common = {"layer_norm_eps": layer_norm_eps, "device": device, "dtype": dtype, "sequence_len": sequence_len}
        self._common |= {"norm_first": norm_first, "bias": bias}
        self._first = (d_model, nhead, dim_feedforward, dropout, activation)

    def __call__(self, kind: MhaType | str) -> EncoderLayer:
        """A new layer of this kind."""
        kind = MhaType(kind)
        more: dict[str, Any] = self._own if kind == MhaType.CAUSAL else {}
        if kind == MhaType.SINGLE_OUTPUT_FORWARD:
            more = {"single_output_forward": True}
        cls: Any = _CLASSES[kind]
        made: EncoderLayer = cls(*self._first, **self._common, **more)
        made.on_windows = kind == MhaType.REGULAR
        return made


class TransformerEncoder(Sequential):
    """An encoder over a sliding window of tokens, or a causal one. Clips are ``(B, E, T)``, steps ``(B, E)``.

    *Over a window* (the default), a step gives what ``nn.TransformerEncoder`` gives for the newest token of the newest ``sequence_len``
    tokens, all of which attend to all. The first layer keeps queries, keys and values, and its whole window is updated with every step.
    So the layers after it run on whole windows, and the last for one token alone. ``forward`` on a clip of ``sequence_len`` tokens gives
    one token ``(B, E, 1)``; on a longer clip one for every window.

    *Causal* (a factory with ``causal=True``), every layer attends to a band of ``sequence_len`` tokens up to its own, as
    ``nn.TransformerEncoder`` does with that band for a mask. A step costs one token in every layer, and every token of a clip has
    an output. The receptive field grows by ``sequence_len - 1`` with each layer.

    Args:
        encoder_layer_factory: called with the kind of each layer, :class:`TransformerEncoderLayerFactory` or like it.
        num_layers: how many layers, from 1 up.
        norm: a norm over the channels of each token at the end.

    Example:
        >>> factory = co.TransformerEncoderLayerFactory(d_model=8, nhead=2, dim_feedforward=16, sequence_len=4)
        >>> encoder = co.TransformerEncoder(factory, num_layers=3, norm=nn.LayerNorm(8)).eval()
        >>> encoder.delay, encoder.forward_steps(torch.randn(2, 8, 10)).shape
        (3, torch.Size([2, 8, 7]))

    Source: Hedegaard, Bakhtiarnia and Iosifidis, Continual Transformers (2022), for two layers; Vaswani et al. (2017).
    """

    def __init__(self, encoder_layer_factory: Callable[[MhaType], EncoderLayer], num_layers: int, norm: nn.Module | None = None):
        if num_layers < 1:
            raise ValueError(f"TransformerEncoder has one layer or more, got num_layers={num_layers}")
        kinds = kinds_of(num_layers, bool(getattr(encoder_layer_factory, "causal", False)))
        self._assemble([encoder_layer_factory(kind) for kind in kinds], norm)

    def _assemble(self, layers: list[EncoderLayer], norm: nn.Module | None, memo: dict[int, Any] | None = None) -> None:
        super().__init__()
        self.add_module("layers", Sequential(*layers))
        for layer in layers[1:]:
            layer.on_windows = not isinstance(layer, CausalTransformerEncoderLayer)
        if norm is not None:
            self.add_module("norm", tokenwise(norm, memo))
        self._changed()

    @property
    def _earlier_names(self) -> dict[str, str]:
        """1.2.4 has the second of two layers, and the norm, in a function."""
        second = {"layers.1": "1.fn"} if len(self._modules["layers"]) == 2 else {}  # type: ignore[arg-type]
        return {"norm": "norm.fn"} | second

    @property
    def causal(self) -> bool:
        """Whether every layer attends to a band."""
        return isinstance(self._children[0][0], CausalTransformerEncoderLayer)  # type: ignore[index]

    def _like(self, modules: Any) -> Sequential:
        return Sequential(modules)

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        """The clip ``(B, E, T)``: a token for every window in it; causal: a token for each."""
        if self.causal:
            return super().forward(input)
        layers: Any = self._children[0]
        first = layers[0]
        if len(layers) == 1:
            x = call_with_hooks(first, first.single, input)
        else:
            if input.shape[2] < first.sequence_len:
                raise ShapeMismatch(
                    f"{type(self).__name__}: a clip of {input.shape[2]} tokens is shorter than its window of {first.sequence_len}"
                )
            x = input.unfold(2, first.sequence_len, 1)
            for layer in layers:
                x = call_with_hooks(layer, layer.on_frames, x)
        return cast(Tensor, run_clip(self._children[1], x) if len(self) == 2 else x)

    @staticmethod
    def build_from(
        module: nn.Module,
        sequence_len: int | None = None,
        *,
        causal: bool = False,
        look_ahead: int = 0,
        positions: Any = None,
        mask: Tensor | None = None,
        query_index: int = -1,
    ) -> TransformerEncoder:
        """The streaming version of an ``nn.TransformerEncoder``, with a copy of its parameters.

        Args:
            module: the encoder; ``batch_first`` or not, the clips of the streaming one are ``(B, E, T)``.
            sequence_len: tokens in the window, or in the band.
            causal: every layer attends to a band, as the module does with such a mask.
            look_ahead: tokens after its own that a token sees; causal alone.
            positions: of the causal layers, as in :class:`~continual.MultiheadAttention`.
            mask: for a window, what hides its tokens from each other, ``(sequence_len, sequence_len)``; for a causal encoder, the
                mask that the module was run with: its band is read from it.
            query_index: which token of the window leaves.

        Raises:
            TypeError: another kind of module.
            ValueError: without ``sequence_len``, where the mask does not tell it.
            NotStreamable: a mask that is not a band, in a causal encoder; layers that override ``forward``.

        Example:
            >>> layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            >>> encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
            >>> stream = co.TransformerEncoder.build_from(encoder, sequence_len=4)
            >>> clip = torch.randn(3, 4, 8)
            >>> torch.allclose(stream.forward_steps(clip.transpose(1, 2))[:, :, 0], encoder(clip)[:, -1], atol=1e-5)
            True
        """
        if not isinstance(module, nn.TransformerEncoder):
            raise TypeError(f"TransformerEncoder.build_from takes a TransformerEncoder, not {type(module).__name__}")
        if causal and mask is not None:
            sequence_len, look_ahead = band_of(mask, sequence_len)
        options: dict[str, Any] = {"sequence_len": sequence_len}
        if causal:
            options |= {"look_ahead": look_ahead, "positions": positions}
        elif look_ahead or positions is not None:
            raise ValueError("look_ahead and positions are for causal encoders: give causal=True")
        return _assembled(module, {}, "", causal, mask, query_index, options)


_CLASSES: dict[MhaType, type[EncoderLayer]] = {
    MhaType.RETROACTIVE: RetroactiveTransformerEncoderLayer,
    MhaType.REGULAR: RetroactiveTransformerEncoderLayer,
    MhaType.SINGLE_OUTPUT: SingleOutputTransformerEncoderLayer,
    MhaType.SINGLE_OUTPUT_FORWARD: SingleOutputTransformerEncoderLayer,
    MhaType.CAUSAL: CausalTransformerEncoderLayer,
}


def kinds_of(num_layers: int, causal: bool) -> list[MhaType]:
    """The kinds of an encoder's layers."""
    if causal:
        return [MhaType.CAUSAL] * num_layers
    if num_layers == 1:
        return [MhaType.SINGLE_OUTPUT]
    return [MhaType.RETROACTIVE, *[MhaType.REGULAR] * (num_layers - 2), MhaType.SINGLE_OUTPUT]


def _assembled(
    module: nn.TransformerEncoder,
    memo: dict[int, Any],
    path: str,
    causal: bool,
    mask: Tensor | None,
    query_index: int,
    options: dict[str, Any],
) -> TransformerEncoder:
    if type(module).forward is not nn.TransformerEncoder.forward:
        raise NotStreamable(
            f"{named(path, module)} overrides the forward of TransformerEncoder: build it from co.TransformerEncoder"
        )
    if len({id(layer) for layer in module.layers}) < len(module.layers) and not causal:
        raise NotStreamable(
            f"{named(path, module)} uses one layer object several times; over a window, its layers do different things in a stream. "
            "Give each place a layer of its own, or convert with causal=True"
        )
    kinds = kinds_of(len(module.layers), causal)
    layers: list[EncoderLayer] = []
    for i, (layer, kind) in enumerate(zip(module.layers, kinds, strict=True)):
        more: dict[str, Any] = {} if causal else {"mask": mask}
        if kind == MhaType.SINGLE_OUTPUT:
            more["query_index"] = query_index
        layers.append(layer_of(layer, memo, f"{path}.layers.{i}".lstrip("."), _CLASSES[kind], **options, **more))
    encoder = TransformerEncoder.__new__(TransformerEncoder)
    encoder._assemble(layers, module.norm, memo)
    encoder.train(module.training)
    return encoder


def layer_of(module: Any, memo: dict[int, Any], path: str, cls: type[EncoderLayer], **options: Any) -> EncoderLayer:
    """A copy of an ``nn.TransformerEncoderLayer`` as a streaming layer."""
    plain = isinstance(module, nn.TransformerEncoderLayer) and type(module).forward is nn.TransformerEncoderLayer.forward
    if not plain or type(module.self_attn).forward is not nn.MultiheadAttention.forward:
        raise NotStreamable(
            f"{named(path, module)} is not an nn.TransformerEncoderLayer as torch has it: its own forward, or its attention's, can't be "
            "followed. Build it from co.Residual, co.MultiheadAttention and co.Linear"
        )
    made: EncoderLayer = streaming_copy(module, memo, cls, **options)
    return made


def _options(memo: dict[int, Any], name: str) -> tuple[bool, dict[str, Any]]:
    """What was asked for in :func:`continual.continual`."""
    causal, length = bool(option(memo, "causal", False)), option(memo, "sequence_len")
    if length is None:
        raise refuse_unbounded(name)
    more = {key: option(memo, key, default) for key, default in (("look_ahead", 0), ("positions", None))} if causal else {}
    return causal, {"sequence_len": length, **more}


def _build_encoder(module: Any, memo: dict[int, Any], path: str) -> TransformerEncoder:
    causal, options = _options(memo, named(path, module))
    return _assembled(module, memo, path, causal, None if causal else option(memo, "mask"), -1, options)


def _build_layer(module: Any, memo: dict[int, Any], path: str) -> EncoderLayer:
    causal, options = _options(memo, named(path, module))
    if causal:
        return layer_of(module, memo, path, CausalTransformerEncoderLayer, **options)
    single: dict[str, Any] = {"single_output_forward": True, "mask": option(memo, "mask")}
    return layer_of(module, memo, path, SingleOutputTransformerEncoderLayer, **options, **single)


register_builder(nn.TransformerEncoder, _build_encoder)
register_builder(nn.TransformerEncoderLayer, _build_layer)
_DECODING = (
    "a decoder attends to a memory that is given with every call. Remedies: co.TransformerEncoder for the encoder; for a decoder "
    "without memory (a language model) an nn.TransformerEncoder with a causal mask, converted with sequence_len=…, causal=True"
)
for _class in (nn.TransformerDecoder, nn.TransformerDecoderLayer, nn.Transformer):
    register_refusal(_class, _DECODING)
