"""Attention without a softmax: products of queries and keys, weighed by distance. For ever where the weights decay, or over a band."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ...core.module import CoModule
from ...core.precision import widest
from ...core.program.context import KernelContext, Run, carried
from ...core.state import InitContext, StateNode, StateUpdates, StepSpec
from ...core.timing import IDENTITY, Timing
from .projected import BandAttention

BLOCK = 64  # frames whose pairs are computed at once


class Retention(CoModule):
    """Every query times all keys up to now, times values: ``y_t = gain · Σ_{j ≤ t} decay^(t-j) (q_t · k_j) v_j``.

    Takes queries, keys and values side by side, ``(B, H, n, 2E + V)``; gives ``(B, H, n, V)``. The state is one matrix for each head,
    ``Σ_j decay^(t-j) k_j v_jᵀ``, in the widest type: it knows the whole past, and work per frame is the same for ever.

    Args:
        size: of a head's queries and keys, ``E``.
        value_size: of its values, ``V``.
        scale: of the products.

    Attributes:
        decay, gain: of each head, ``(1 or H,)``.

    Source: Sun et al., Retentive network: a successor to transformer for large language models (2023), equations 5 and 6.
    """

    unbounded_memory = True
    decay: Tensor
    gain: Tensor

    def __init__(self, size: int, value_size: int, scale: float):
        super().__init__()
        self.size, self.value_size, self.scale = size, value_size, scale
        self.register_parameter("decay", None)
        self.register_parameter("gain", None)

    @property
    def timing(self) -> Timing:
        return IDENTITY

    def _cold(self, frame: StepSpec) -> Tensor:
        batch, heads, _ = frame.shape
        with torch.inference_mode(False):
            return torch.zeros(batch, heads, self.size, self.value_size, dtype=widest(frame.device), device=frame.device)

    def open(self, frame: StepSpec, init: InitContext) -> StateNode:
        batch, heads, _ = frame.shape
        out = frame.resized(batch, heads, self.value_size)
        return StateNode(init, self.kind, out, {"memory": self._cold(frame)}, accumulator=True)

    def forward(self, input: Tensor) -> Tensor:
        """All tokens of a clip ``(B, H, T, 2E + V)``."""
        return self._several(input, self._cold(StepSpec.of_chunk(input)))[0]

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        _, _, ended = self.count(x, node, n_if_ended, updates)
        if x is None:
            return None, ended
        y, memory = self._several(x, node.tensors[0])
        updates.put(node, 0, memory)
        return y, ended

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor:
        y, now = self._frame(x, node.tensors[0])
        updates.ticks.append((node, node.n_in + 1, node.n_in + 1))
        updates.slots.append((node.tensors[0], now))
        return y

    def _parts(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys, values, and the decay, in the type of the state."""
        q, k, v = x.to(memory.dtype).split((self.size, self.size, self.value_size), -1)
        return (
            q * (self.gain.to(q.dtype) * self.scale).view(-1, *(1,) * (q.ndim - 2)),
            k,
            v,
            self.decay.to(q.dtype).view(-1, 1, 1),
        )

    def _frame(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """One frame ``(B, H, 2E + V)``, and the state after it."""
        q, k, v, decay = self._parts(x, memory)
        memory = decay * memory + k.unsqueeze(-1) * v.unsqueeze(-2)
        return (q.unsqueeze(-2) @ memory).squeeze(-2).to(x.dtype), memory

    def _several(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """A chunk ``(B, H, n, 2E + V)``, and the state after it: pairs of frames in blocks, and the past by the state."""
        found = []
        for part in x.split(BLOCK, 2):
            q, k, v, decay = self._parts(part, memory)
            i = torch.arange(part.shape[2], device=x.device)
            distance = i.unsqueeze(1) - i
            weights = torch.where(distance >= 0, decay ** distance.clamp(min=0), 0.0)
            past = decay ** (i + 1).unsqueeze(1) * (q @ memory)
            found.append((torch.tril(q @ k.mT) * weights) @ v + past)
            left = decay ** (part.shape[2] - 1 - i).unsqueeze(1)
            memory = decay ** part.shape[2] * memory + (left * k).mT @ v
        return torch.cat(found, 2).to(x.dtype), memory

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> int:
        return 2 * frame.shape[1] * self.size * self.value_size

    def program(self, ctx: KernelContext) -> Run:
        """Frame by frame: the state holds the whole past."""
        specs = [ctx.state_tensor("memory", StepSpec.of(ctx.node.tensors[0]), None, 0.0)]

        def step(x: Tensor, state: list[Tensor], index: Tensor) -> tuple[Tensor, list[Tensor]]:
            y, memory = self._frame(x, state[0])
            return y, [memory]

        return lambda x, rows: carried(ctx, specs, x, rows, step)


class BandProduct(BandAttention):
    """Every query times the keys of its band, weighed by :attr:`bias` for each distance, times their values: no softmax."""

    nothing = 0.0

    def weigh(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return (q @ k.mT * cast(float, self.scale) * cast(Tensor, mask)) @ v

    def weigh_one(self, q: Tensor, k: Tensor, v: Tensor, added: Tensor) -> Tensor:
        return self.weigh(q, k, v, added)
