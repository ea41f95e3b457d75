"""`S4D`: a linear state space with diagonal complex dynamics in each channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...core.state import InitContext, StateNode
from ...core.tracing_guard import in_dispatch, is_tracing
from ..recurrence import States
from ..weight_cache import PackedWeight
from .base import LinearRecurrence
from .outer import without_nan

BLOCK = 32  # frames of a product; of many channels the matrices of longer ones do not stay in the processor's cache


class Powers(NamedTuple):
    """What ``L`` steps do, in real numbers. States are ``(B, C, 2N)``: real parts, then imaginary ones.

    Matrices are for rows on their left: torch multiplies rows by contiguous matrices 7 times as fast as these by columns.

    Attributes:
        read: from the state before and inputs to outputs, ``(C, 2N + L, L)``.
        write: from inputs to the state behind, ``(C, L, 2N)``.
        kept: powers of the dynamics, ``(C, N, L + 1)``, their real and imaginary parts.
    """

    read: Tensor
    write: Tensor
    kept: tuple[Tensor, Tensor]


class S4D(LinearRecurrence, PackedWeight):
    """A diagonal state space: ``h = exp(Δ A) h + x``, ``y = 2 Re(C' h) + D x`` with ``C' = C (exp(Δ A) - 1) / A`` in each channel.

    All numbers are kept as real and imaginary parts, so that programs and exports have them. A chunk is computed as products with the
    matrices of its length, which are made once for the weights. Names of parameters are those of the kernel of S4D's own code.

    Args:
        channels: of the steps ``(B, C)`` and clips ``(B, C, T)``, and of the outputs.
        state_size: numbers of state in each channel: half as many complex ones, for a real output.
        dt_min, dt_max: between which the time steps Δ begin.
        device, dtype: as in ``torch.nn``.

    Raises:
        ValueError: an odd ``state_size``.
        ShapeMismatch: steps of another shape or type.

    Example:
        >>> layer, clip = co.S4D(4, state_size=8), torch.randn(2, 4, 10)
        >>> steps = [layer.forward_step(clip[:, :, t]) for t in range(10)]
        >>> torch.allclose(torch.stack(steps, 2), layer(clip), atol=1e-6)
        True

    Source: Gu et al. (2022), On the Parameterization and Initialization of Diagonal State Space Models, sections 3 and 4 (S4D-Lin).
    """

    def __init__(
        self,
        channels: int,
        state_size: int = 64,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        if state_size % 2:
            raise ValueError(f"S4D: state_size={state_size} is odd; states are pairs of a real and an imaginary part")
        home, pairs = {"device": device, "dtype": dtype}, state_size // 2
        self.channels, self.pairs = channels, pairs
        self.log_dt = nn.Parameter(torch.empty(channels, **home).uniform_(math.log(dt_min), math.log(dt_max)))
        self.log_A_real = nn.Parameter(torch.full((channels, pairs), math.log(0.5), **home))
        self.A_imag = nn.Parameter(math.pi * torch.arange(pairs, **home).repeat(channels, 1))
        self.C = nn.Parameter(torch.randn(channels, pairs, 2, **home) * 0.5**0.5)
        self.D = nn.Parameter(torch.randn(channels, **home))

    def extra_repr(self) -> str:
        return f"{self.channels}, state_size={2 * self.pairs}"

    def states(self, x: Tensor) -> dict[str, tuple[int, ...]]:
        return {"state": (self.channels, 2 * self.pairs)}

    def mix(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        h = state["state"]
        u = x.to(h.dtype)
        if x.ndim == 2:
            (re, im), c = self._made(_one, h.dtype)
            real, imag = h.split(self.pairs, -1)
            h = torch.cat((torch.addcmul(u.unsqueeze(-1), re, real) - im * imag, re * imag + im * real), -1)
            y = (h * c).sum(-1)
        else:
            y, h = _over(self._made(_powers, h.dtype), u, h)
        return (y + u * self.D).to(x.dtype), {"state": h}

    def open(self, frame: Any, init: InitContext) -> StateNode:
        self._forget_layouts()
        return super().open(frame, init)

    def _made(self, make: Any, dtype: torch.dtype) -> Any:
        """What is made of the weights: once for their values, or with their graph."""
        weights = [self.log_dt, self.log_A_real, self.A_imag, self.C]
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or in_dispatch() or is_tracing():
            return make([w.to(dtype) for w in weights])
        return self._laid_out_together(f"{make.__name__} {dtype}", weights, lambda own: make([w.to(dtype) for w in own]))


def _dynamics(weights: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``Δ A`` and ``2 C'`` ``(C, N)``, real and imaginary parts."""
    log_dt, log_real, a_imag, c = weights
    a_real, dt = -log_real.exp(), log_dt.exp().unsqueeze(-1)
    re, im = a_real * dt, a_imag * dt
    up = torch.expm1(re) * im.cos() - 2 * (im / 2).sin().square()  # exp(Δ A) - 1, without cancellation where Δ A is small
    across = re.exp() * im.sin()
    size = a_real.square() + a_imag.square()
    p, q = (up * a_real + across * a_imag) / size, (across * a_real - up * a_imag) / size
    return re, im, 2 * (c[..., 0] * p - c[..., 1] * q), 2 * (c[..., 0] * q + c[..., 1] * p)


def _one(weights: Sequence[Tensor]) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """What a step does: the dynamics, and the weights of the output for real and imaginary parts."""
    re, im, c_real, c_imag = _dynamics(weights)
    return (re.exp() * im.cos(), re.exp() * im.sin()), torch.cat((c_real, -c_imag), -1)


def _over(powers: Powers, u: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs for inputs ``(B, T, C)``, and the state behind them, block after block."""
    broken, (finite,) = without_nan(u.unsqueeze(-1))  # (B, T, C, 1)
    outs, h = [], h.transpose(0, 1)
    for x in finite.squeeze(-1).permute(2, 0, 1).split(BLOCK, 2):  # (C, B, L)
        length, pairs = x.shape[2], h.shape[2] // 2
        rows = torch.cat((h, x), 2)
        outs.append(rows @ powers.read[:, : rows.shape[2], :length])
        (re, im), (real, imag) = (p[:, None, :, length] for p in powers.kept), h.split(pairs, -1)
        h = torch.cat((re * real - im * imag, re * imag + im * real), -1)
        h = torch.baddbmm(h, rows[..., 2 * pairs :].contiguous(), powers.write[:, BLOCK - length :])
    return torch.cat(outs, 2).permute(1, 2, 0) + broken.squeeze(-1), h.transpose(0, 1) + broken[:, -1]


def _powers(weights: Sequence[Tensor]) -> Powers:
    """What :data:`BLOCK` steps do; of fewer, parts of it."""
    re, im, c_real, c_imag = (t.unsqueeze(-1) for t in _dynamics(weights))
    count = torch.arange(BLOCK + 1, dtype=re.dtype, device=re.device)
    grown, angle = (re * count).exp(), im * count
    real, imag = grown * angle.cos(), grown * angle.sin()  # (C, N, L + 1)
    to_real, to_imag = c_real * real - c_imag * imag, -(c_real * imag + c_imag * real)
    impulse = to_real[..., :-1].sum(1)
    lag = torch.arange(BLOCK, device=re.device)
    lag = lag.unsqueeze(1) - lag
    kernel = impulse[:, lag.clamp(min=0)].masked_fill(lag < 0, 0.0)
    read = torch.cat((to_real[..., 1:], to_imag[..., 1:], kernel.transpose(1, 2)), 1)
    write = torch.cat((real, imag), 1)[..., :-1].flip(-1).transpose(1, 2)
    return Powers(read.contiguous(), write.contiguous(), (real, imag))
