"""Linear recurrences with constant coefficients, block by block: ``s_{t+1} = A s_t + B x_t``, ``y_t = s_t[0] + d x_t``.

A block of samples is a matrix product: of its samples with the impulse response, and of the state at its start with what that rings
on to. States at the starts of blocks follow from each other by ``A`` to the power of the block's length; a scan that doubles its reach
finds all of them in as many passes as their number has binary digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 160  # samples: 10 ms at 16 kHz are one block; longer ones need more products for a sample, shorter ones more operations


@dataclass(frozen=True)
class Blocks:
    """The matrices of a recurrence of order ``N``.

    Attributes:
        response: ``(L, L)``, from the samples of a block to its outputs.
        ringing: ``(N, L)``, from the state at the start to the outputs.
        entering: ``(L, N)``, from the samples to the state at the end.
        powers: ``(L + 1, N, N)``, of ``A``, transposed: ``s @ powers[k]`` is the state ``k`` samples later without input.
    """

    response: Tensor
    ringing: Tensor
    entering: Tensor
    powers: Tensor

    @staticmethod
    def of(a: Tensor, b: Tensor, d: Tensor) -> Blocks:
        """Of the matrix ``(N, N)``, the vector ``(N,)`` and the number."""
        powers = _powers(a.T, BLOCK)
        ringing = powers[:BLOCK, :, 0]  # (L, N)
        entered = b @ powers[:BLOCK]  # (L, N): k samples after a one
        impulse = torch.cat((d.reshape(1), entered[:-1, 0]))
        later = torch.arange(BLOCK, device=b.device) - torch.arange(BLOCK, device=b.device).unsqueeze(1)
        response = torch.where(later >= 0, impulse[later.clamp(min=0)], torch.zeros((), dtype=b.dtype, device=b.device))
        return Blocks(response, ringing.T, entered.flip(0), powers)

    def run(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs ``(…, n)`` of samples ``(…, n)`` after a state ``(…, N)``, and the state behind them.

        What is not finite poisons what comes after it, not what came before it in its block.
        """
        poison = poison_of(x)
        y, state = self.respond(x.nan_to_num(0.0, 0.0, 0.0), state)
        return y + poison, state + poison[..., -1:]

    def respond(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The same of finite samples."""
        first = x.shape[-1] if x.shape[-1] <= BLOCK else x.shape[-1] % BLOCK
        outs = []
        if first:
            head = x[..., :first]
            outs.append(head @ self.response[:first, :first] + state @ self.ringing[:, :first])
            state = state @ self.powers[first] + head @ self.entering[BLOCK - first :]
        if x.shape[-1] > first:
            blocks = x[..., first:].unflatten(-1, (-1, BLOCK))  # (…, k, L)
            after = self._states(blocks @ self.entering, state)
            before = torch.cat((state.unsqueeze(-2), after[..., :-1, :]), -2)
            outs.append((blocks @ self.response + before @ self.ringing).flatten(-2))
            state = after[..., -1, :]
        return (outs[0] if len(outs) == 1 else torch.cat(outs, -1)), state

    def _states(self, entered: Tensor, state: Tensor) -> Tensor:
        """The states after all blocks, ``(…, k, N)``, from what enters in each."""
        power, reach, count = self.powers[BLOCK], 1, entered.shape[-2]
        first = entered[..., :1, :] + (state @ power).unsqueeze(-2)
        found = torch.cat((first, entered[..., 1:, :]), -2)
        while reach < count:
            found = found + F.pad(found[..., :-reach, :] @ power, (0, 0, reach, 0))
            power, reach = power @ power, 2 * reach
        return found


def poison_of(x: Tensor) -> Tensor:
    """Zeros ``(…, n)`` before the first sample that is not finite, and NaN from there on."""
    return (x * 0).cumsum(-1)


def _powers(a: Tensor, most: int) -> Tensor:
    """Powers 0 … ``most`` of a matrix; with each product there are twice as many."""
    found, power = torch.eye(a.shape[0], dtype=a.dtype, device=a.device).unsqueeze(0), a
    while found.shape[0] <= most:
        found, power = torch.cat((found, found @ power)), power @ power
    return found[: most + 1]
