"""`Embedding`: streams of tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.registry import TorchLayer, register_class
from ..core.state import StepSpec
from ..errors import NotStreamable, ShapeMismatch
from .local import LocalInTime


class Embedding(TorchLayer, LocalInTime, nn.Embedding):
    """Tokens to vectors: ``nn.Embedding`` on clips ``(B, 1, T, *S)`` and on steps ``(B, 1, *S)`` of integers.

    As everywhere in this library time is dim 2 and what is embedded stands in the channels: a clip of tokens ``(B, 1, T)`` becomes
    ``(B, E, T)``, where ``nn.Embedding`` makes ``(B, T, E)`` of ``(B, T)``. Give ``tokens.unsqueeze(1)``. Several tokens a step are
    a dimension of space: ``(B, 1, T, N)`` becomes ``(B, E, T, N)``.

    Args:
        num_embeddings, embedding_dim, padding_idx, sparse, device, dtype: as ``torch.nn.Embedding``.
        max_norm, norm_type, scale_grad_by_freq: as ``torch.nn.Embedding``; with ``max_norm`` or ``scale_grad_by_freq`` it is refused.

    Raises:
        NotStreamable: ``max_norm``, which rewrites the weights whenever it reads them; ``scale_grad_by_freq``, which counts the
            tokens of a call, so that gradients would depend on the chunks.
        ShapeMismatch: other shapes, or numbers that are not integers.
        IndexError: a token outside ``0 … num_embeddings - 1``. The stream is as before.

    Example:
        >>> net = co.Sequential(co.Embedding(100, 8), co.Conv1d(8, 4, kernel_size=3))
        >>> tokens = torch.randint(100, (2, 20))
        >>> net(tokens.unsqueeze(1)).shape, net.forward_step(tokens[:, :1]) is None
        (torch.Size([2, 4, 18]), True)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            _weight,
            _freeze,
            device=device,
            dtype=dtype,
        )
        self.configure()

    def configure(self) -> None:
        if self.max_norm is not None:
            raise NotStreamable(
                f"Embedding(max_norm={self.max_norm}) rewrites its weights whenever it reads them, in a stream too. Remedy, for the "
                "same outputs: rewrite all of them once, embedding(torch.arange(embedding.num_embeddings)), and set "
                "embedding.max_norm = None"
            )
        if self.scale_grad_by_freq:
            raise NotStreamable(
                "Embedding(scale_grad_by_freq=True) divides gradients by the count of a token in the call, which in a stream depends "
                "on the chunks. Remedy: embedding.scale_grad_by_freq = False (outputs do not change)"
            )

    def forward(self, input: Tensor) -> Tensor:
        """``(B, 1, T, *S)`` to ``(B, E, T, *S)``."""
        if input.ndim < 3:
            raise ShapeMismatch(
                f"Embedding takes clips of tokens (B, 1, T, *S), got {tuple(input.shape)}: give tokens.unsqueeze(1) for (B, T)"
            )
        self.check(StepSpec.of_chunk(input), "Embedding")
        return self._embed(input)

    def clip(self, x: Tensor) -> Tensor:
        return self._embed(x)

    def local_step(self, x: Tensor) -> Tensor:
        return self._embed(x)

    def _embed(self, tokens: Tensor) -> Tensor:
        """A clip or a step, both with a channel dimension of 1."""
        try:
            found = F.embedding(tokens.squeeze(1), self.weight, self.padding_idx, sparse=self.sparse)
        except IndexError as error:
            low, high = (int(t) for t in tokens.aminmax())
            raise IndexError(f"Embedding: tokens are 0 … {self.num_embeddings - 1}, got {low} … {high}") from error
        return found.movedim(-1, 1)

    def check(self, frame: StepSpec, path: str) -> None:
        if frame.dtype not in (torch.int64, torch.int32):
            raise ShapeMismatch(f"{path}: tokens are int64 or int32, got {frame.dtype}")
        if frame.shape[1] != 1:
            raise ShapeMismatch(
                f"{path}: takes one token a step (B, 1, *S), got {tuple(frame.shape)}. Several tokens a step are a dimension of "
                "space, (B, 1, N); a step of a clip (B, T) is tokens[:, t : t + 1]"
            )
        if frame.device != self.weight.device:
            raise ShapeMismatch(
                f"{path}: weights are on {self.weight.device}, the step is on {frame.device}; move one with .to()"
            )

    def out(self, frame: StepSpec) -> StepSpec:
        shape = (frame.shape[0], self.embedding_dim, *frame.shape[2:])
        return replace(frame, shape=shape, dtype=self.weight.dtype)


register_class(nn.Embedding, Embedding)
