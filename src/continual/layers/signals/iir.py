"""`IIRFilter`: a recursive filter by its two polynomials, `scipy.signal.lfilter` on streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.program.context import KernelContext
from ...errors import NotStreamable
from .blocks import poison_of
from .linear_filter import Filter, LinearFilter
from .sos import Sections

BLOCK = 128  # samples
REACH = 1 << 14  # samples over which the rounding of a recursion is followed
MOST = 1e-7  # of the samples, that it may reach


@dataclass(frozen=True)
class Direct:
    """A filter in the transposed direct form, block by block.

    The outputs of a block solve a triangular system of equations: what enters, less what the outputs before have sent on. Solving it has
    the rounding of the recursion itself; powers of its matrix, or its inverse, would lose all digits where many poles lie close together.

    Attributes:
        b, a: the polynomials, ``(N + 1,)``, with ``a[0] = 1``.
        system: ``(L, L)``, from outputs to what enters.
        entering: ``(L, L)``, from samples to what enters with them.
        sent: ``(2, L, N)``, what samples and outputs of a block send on to the next one.
    """

    b: Tensor
    a: Tensor
    system: Tensor
    entering: Tensor
    sent: Tensor

    @staticmethod
    def of(b: Tensor, a: Tensor) -> Direct:
        """Of polynomials of the same length, ``a[0] = 1``."""
        sent = torch.stack((_sent(b, BLOCK), -_sent(a, BLOCK)))
        return Direct(b, a, _shifted(a, BLOCK).T.contiguous(), _shifted(b, BLOCK).T.contiguous(), sent)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One sample."""
        x = x.unsqueeze(-1)
        y = x * self.b[:1] + state[..., :1]
        return y.squeeze(-1), F.pad(state[..., 1:], (0, 1)) + x * self.b[1:] - y * self.a[1:]

    def run(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """A chunk of samples. What is not finite poisons what comes after it, not what came before it in its block."""
        poison = poison_of(x)
        outs = []
        for block in x.nan_to_num(0.0, 0.0, 0.0).split(BLOCK, -1):
            y, state = self._block(block, state)
            outs.append(y)
        y = outs[0] if len(outs) == 1 else torch.cat(outs, -1)
        return y + poison, state + poison[..., -1:]

    def _block(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        size, order = x.shape[-1], state.shape[-1]
        entered = x @ self.entering[:size, :size]
        now = min(size, order)
        entered = entered + F.pad(state[..., :now], (0, size - now))
        system, flat = self.system[:size, :size], entered.reshape(-1, size)
        y = torch.linalg.solve_triangular(system, flat, upper=True, left=False, unitriangular=True).view_as(entered)
        sent, last = self.sent[:, BLOCK - size :], F.pad(state[..., now:], (0, now))
        return y, last + x @ sent[0] + y @ sent[1]


def _shifted(values: Tensor, size: int) -> Tensor:
    """The matrix ``(size, size)`` by which a column of samples is filtered by these taps."""
    later = torch.arange(size, device=values.device).unsqueeze(1) - torch.arange(size, device=values.device)
    inside = (later >= 0) & (later < len(values))
    return torch.where(inside, values[later.clamp(0, len(values) - 1)], torch.zeros((), dtype=values.dtype, device=values.device))


def _sent(values: Tensor, size: int) -> Tensor:
    """What the samples of a block send on: ``(size, N)``, tap ``k`` of the sample ``i`` before the end goes to place ``k - i``."""
    order = len(values) - 1
    before = torch.arange(size, 0, -1, device=values.device).unsqueeze(1)  # 1 for the last sample
    tap = before + torch.arange(order, device=values.device)
    return torch.where(tap <= order, values[tap.clamp(max=order)], torch.zeros((), dtype=values.dtype, device=values.device))


class IIRFilter(LinearFilter):
    """A recursive filter: ``scipy.signal.lfilter(b, a, x)`` along the time of ``(B, C, T, *S)``, for ever.

    ``a[0]·y_t = b[0]·x_t + b[1]·x_{t-1} + … - a[1]·y_{t-1} - …``. Each channel and place is filtered apart. The state is float64 whatever
    the dtype of the module; outputs have the dtype of the inputs. A filter of order 1 or 2 is a section of :class:`SOSFilter`. Those of
    higher order solve a system of equations for 128 samples at a time (and run sample by sample in runtimes without that operation). They
    are better given as sections, since rounding of these coefficients moves poles that lie close together.

    Args:
        b, a: the polynomials, numbers, arrays or tensors. They are buffers, or parameters where ``nn.Parameter`` are given.
        zi: the initial state ``(max(len(a), len(b)) - 1,)``, as ``scipy.signal.lfilter`` takes it; by default zeros.

    Raises:
        ValueError: other shapes, or an ``a[0]`` of zero.
        NotStreamable: the rounding of the recursion would grow beyond what a stream may differ by.
        ShapeMismatch: samples that are not floating point.

    Example:
        >>> smooth = co.IIRFilter([0.5], [1.0, -0.5])
        >>> smooth(torch.ones(1, 1, 4))
        tensor([[[0.5000, 0.7500, 0.8750, 0.9375]]])
        >>> [smooth.forward_step(torch.ones(1, 1)).item() for _ in range(3)]
        [0.5, 0.75, 0.875]

    Source: Oppenheim and Schafer, Discrete-Time Signal Processing, chapter 6, on the transposed direct form II.
    """

    b: Tensor
    a: Tensor

    def __init__(self, b: Any, a: Any, zi: Any = None):
        super().__init__()
        self._keep("b", b)
        self._keep("a", a)
        if self.a.ndim != 1 or self.b.ndim != 1 or not len(self.a) or not len(self.b):
            raise ValueError(f"IIRFilter: b and a are rows of numbers, got {tuple(self.b.shape)} and {tuple(self.a.shape)}")
        if not bool(self.a[0] != 0):
            raise ValueError("IIRFilter: a[0] is not zero: all other coefficients are divided by it")
        self._length = max(len(self.a), len(self.b)) - 1
        self.order = max(2, self._length)  # that of the state
        self._keep_initial(zi, (self._length,))
        if self._length > 2 and not self.a.is_meta:
            self._check_rounding()

    def _check_rounding(self) -> None:
        """Refuse a filter whose recursion would lose the digits of its outputs."""
        own = cast(Direct, self._plain(self.coefficients()))  # of this order
        poles = Direct.of(F.pad(own.a[:1], (0, self.order)), own.a)
        impulse = F.pad(own.a.new_ones(1), (0, REACH - 1))
        rings, _ = poles.run(impulse, impulse.new_zeros(self.order))
        lost = (rings.norm() * own.a.norm(1)).item() * torch.finfo(torch.float64).eps / 2
        if not lost < MOST:
            raise NotStreamable(
                f"IIRFilter: the rounding of this recursion of order {self._length} grows to {lost:.1g} of the samples, in float64, and "
                "steps would differ from chunks by that. Remedy: co.SOSFilter(sos), with the sections of its design (scipy: "
                "output='sos'), whose rounding stays small"
            )

    def coefficients(self) -> Sequence[Tensor]:
        return self.b, self.a

    def made(self, coefficients: Sequence[Tensor]) -> Filter:
        b, a = coefficients
        b, a = (F.pad(t / a[0], (0, self.order + 1 - len(t))) for t in (b, a))
        return Direct.of(b, a) if self._length > 2 else Sections.of(torch.cat((b, a)).unsqueeze(0))

    def first_state(self, zi: Tensor) -> Tensor:
        zi = F.pad(zi, (0, self.order - len(zi)))
        if self._length > 2:
            return zi
        middle = -F.pad(self.a, (0, 2))[1] / self.a[0] / 2
        return torch.stack((zi[0], zi[1] + middle * zi[0]))

    def in_blocks(self, ctx: KernelContext) -> bool:
        return self._length <= 2 or not ctx.target.real

    def macs(self, x: Tensor) -> int:
        return x[0].numel() * (len(self.b) + len(self.a) - 1)

    def extra_repr(self) -> str:
        return f"{len(self.b)} and {len(self.a)} coefficients"
