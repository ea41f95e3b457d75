"""Angles that grow with the clock, exact for ever: for sinusoidal and rotary positions.

The angle at position ``t`` is ``t * frequency``. In floats it loses digits as ``t`` grows: in float32 a rotation of one radian a
step is off by 0.5 at ten million steps. Here a frequency is a whole number of ``2**-64`` turns, and positions are multiplied by it
in int64, whose overflow drops full turns and nothing else. The frequency itself is rounded by at most ``2**-65`` turns, so that
angles are right to 1e-12 at ten million steps, and the angle *between* two positions never drifts at all.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import torch
from torch import Tensor

from ...core.precision import widest

_PI = Decimal("3.14159265358979323846264338327950288419716939937510582")


def geometric(channels: int, base: float) -> Tensor:
    """The frequencies ``base ** (-2i / channels)`` radians a step, one for two channels, in ``2**-64`` turns: int64 ``(pairs,)``.

    Source: Vaswani et al., Attention is all you need (2017), section 3.5.
    """
    with localcontext() as context:
        context.prec = 50
        log = Decimal(base).ln()
        radians = [(-log * 2 * i / channels).exp() for i in range((channels + 1) // 2)]
        turns = [int((r / (2 * _PI) * 2**64).to_integral_value()) for r in radians]
    return torch.tensor([_signed(t) for t in turns], dtype=torch.int64)


def angles(frequencies: Tensor, first: int, count: int) -> Tensor:
    """The angles at positions ``first … first + count - 1``, in radians from -π to π: ``(count, pairs)``, float64.

    On devices without float64 (MPS) they are float32.
    """
    return angles_at(frequencies, torch.arange(count, device=frequencies.device) + _signed(first))


def angles_at(frequencies: Tensor, positions: Tensor) -> Tensor:
    """The angles at positions ``(…)``, whole numbers: ``(…, pairs)``."""
    return (positions.unsqueeze(-1) * frequencies).to(widest(frequencies.device)) * (2 * math.pi / 2**64)


def limbs(frequencies: Tensor) -> Tensor:
    """Frequencies for :func:`angles_in_32_bits`: times 1, 1024 and 1024², each as three limbs of 12 bits of a turn: ``(3, 3, pairs)``."""
    fractions = torch.stack([(frequencies * 1024**k) >> 28 for k in range(3)])  # whole turns are dropped by the overflow
    return torch.stack([(fractions >> shift) & 4095 for shift in (24, 12, 0)], 1)


def angles_in_32_bits(limbs: Tensor, positions: Tensor) -> Tensor:
    """The angles at positions below ``2**30``, float32 ``(…, pairs)``, right to 3e-6, where whole numbers have 32 bits alone.

    Each digit of a position (there are three, of 10 bits) is multiplied by each limb of a frequency: no product overflows, and only
    fractions of a turn are added.
    """
    turns = torch.zeros((), device=positions.device)
    for k in range(3):
        digit = positions.div(1024**k, rounding_mode="floor").remainder(1024).unsqueeze(-1)
        whole = (digit * limbs[k, 0]).remainder(4096).float() / 4096
        turns = turns + (whole + (digit * limbs[k, 1]).float() / 2**24 + (digit * limbs[k, 2]).float() / 2**36)
    return (turns - turns.round()) * (2 * math.pi)


def _signed(value: int) -> int:
    """A whole number modulo ``2**64``, as int64 holds it."""
    return (value + 2**63) % 2**64 - 2**63
