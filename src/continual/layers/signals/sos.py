"""`SOSFilter`: a cascade of second-order sections, `scipy.signal.sosfilt` on streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .blocks import Blocks, poison_of
from .linear_filter import LinearFilter, signal_package


@dataclass(frozen=True)
class Sections:
    """Sections one after another.

    Attributes:
        blocks: of each section.
        whole: ``(1 + N, 1 + N)``: a sample and the state side by side to the output and the next state.
    """

    blocks: list[Blocks]
    whole: Tensor

    @staticmethod
    def of(sos: Tensor) -> Sections:
        """Of sections ``(n, 6)``."""
        parts = [section(row) for row in sos.unbind()]
        return Sections([Blocks.of(*part) for part in parts], cascade(parts))

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One sample."""
        found = torch.cat((x.unsqueeze(-1), state), -1) @ self.whole
        return found[..., 0], found[..., 1:]

    def run(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """A chunk of samples."""
        states, poison = [], poison_of(x)
        x = x.nan_to_num(0.0, 0.0, 0.0)
        for blocks, before in zip(self.blocks, state.unflatten(-1, (-1, 2)).unbind(-2), strict=True):
            x, after = blocks.respond(x, before)
            states.append(after)
        return x + poison, torch.cat(states, -1) + poison[..., -1:]


def section(row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A section ``(b0, b1, b2, a0, a1, a2)`` as a recurrence: its matrix ``(2, 2)``, its vector and its direct part.

    The matrix ``[[m, 1], [q, m]]`` has the poles ``m ± √q``, a pair of conjugates or of real numbers; its powers grow no more than those of
    the poles, while those of the direct form ``[[-a1, 1], [-a2, 0]]`` cancel where poles lie close together, as those of low frequencies
    do near 1. Coefficients enter by their distance from that place, which keeps the digits: ``a1 = -s·(2 - u)``, ``a2 = 1 - v``.
    """
    b0, b1, b2, _, a1, a2 = (row / row[3]).unbind()
    s = torch.where(a1 <= 0, 1.0, -1.0).to(row.dtype)
    u, v = 2 + s * a1, 1 - a2
    middle, square = s * (1 - u / 2), (v - u) + u.square() / 4
    first = (b1 + 2 * s * b0) - s * u * b0  # b1 - a1·b0
    second = (b2 - b0) + v * b0  # b2 - a2·b0
    last = (second + s * first) - s * first * u / 2
    matrix = torch.stack((torch.stack((middle, torch.ones_like(middle))), torch.stack((square, middle))))
    return matrix, torch.stack((first, last)), b0


def cascade(parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """All sections as one matrix, from ``(x, state)`` to ``(y, state)``, row vectors."""
    size = 1 + 2 * len(parts)
    like = parts[0][1]
    flow = torch.eye(size, dtype=like.dtype, device=like.device)[:, :1]  # what reaches the section, of x and the state
    columns = []
    for i, (matrix, vector, direct) in enumerate(parts):
        own = torch.eye(size, dtype=like.dtype, device=like.device)[:, 1 + 2 * i : 3 + 2 * i]
        columns.append(own @ matrix.T + flow @ vector.unsqueeze(0))
        flow = own[:, :1] + flow * direct
    return torch.cat((flow, *columns), 1)


class SOSFilter(LinearFilter):
    """A filter of second-order sections: ``scipy.signal.sosfilt`` along the time of ``(B, C, T, *S)``, for ever.

    Each channel and place is filtered apart. A step costs one small matrix product, a chunk a few. The state is float64 whatever the dtype
    of the module, so that the outputs of a stream stay those of a clip; they have the dtype of the inputs.

    Args:
        sos: sections ``(n, 6)``, as scipy's ``output="sos"`` gives them: numbers, an array or a tensor. They are a buffer, or a
            parameter if a ``nn.Parameter`` is given.
        zi: the initial state ``(n, 2)``, as ``scipy.signal.sosfilt`` takes it; by default zeros.

    Raises:
        ValueError: other shapes, or an ``a0`` of zero.
        ShapeMismatch: samples that are not floating point.

    Example:
        >>> smooth = co.SOSFilter([[0.25, 0.5, 0.25, 1.0, 0.0, 0.0], [0.5, 0.0, 0.0, 1.0, -0.5, 0.0]])
        >>> smooth(torch.ones(1, 1, 5))
        tensor([[[0.1250, 0.4375, 0.7188, 0.8594, 0.9297]]])
        >>> [round(smooth.forward_step(torch.ones(1, 1)).item(), 4) for _ in range(3)]
        [0.1250, 0.4375, 0.7188]

    Source: Oppenheim and Schafer, Discrete-Time Signal Processing, chapter 6, on sections and on coupled forms of poles.
    """

    sos: Tensor

    def __init__(self, sos: Any, zi: Any = None):
        super().__init__()
        self._keep("sos", sos)
        if self.sos.ndim != 2 or self.sos.shape[1] != 6 or not len(self.sos):
            raise ValueError(f"SOSFilter: sos has the shape (sections, 6), got {tuple(self.sos.shape)}")
        if not bool((self.sos[:, 3] != 0).all()):
            raise ValueError("SOSFilter: the fourth number of a section, a0, is not zero")
        self.order = 2 * len(self.sos)
        self._keep_initial(zi, (len(self.sos), 2))

    def coefficients(self) -> Sequence[Tensor]:
        return (self.sos,)

    def made(self, coefficients: Sequence[Tensor]) -> Sections:
        return Sections.of(coefficients[0])

    def first_state(self, zi: Tensor) -> Tensor:
        middle = -self.sos[:, 4] / self.sos[:, 3] / 2
        return torch.stack((zi[:, 0], zi[:, 1] + middle * zi[:, 0]), 1).flatten()

    def macs(self, x: Tensor) -> int:
        return x[0].numel() * 5 * len(self.sos)

    @staticmethod
    def design(
        kind: str,
        frequencies: float | Sequence[float],
        sample_rate: float,
        order: int = 4,
        family: str = "butter",
        ripple: float | None = None,
        attenuation: float | None = None,
    ) -> SOSFilter:
        """A filter of ``scipy.signal.iirfilter``.

        Args:
            kind: ``"bandpass"``, ``"lowpass"``, ``"highpass"`` or ``"bandstop"``.
            frequencies: the edge, or both, in Hz.
            sample_rate: Hz.
            order: of the prototype: a band of order 4 has four sections.
            family: ``"butter"``, ``"cheby1"``, ``"cheby2"``, ``"ellip"`` or ``"bessel"``.
            ripple: largest ripple in the band, dB (Chebyshev 1 and elliptic).
            attenuation: least attenuation outside of it, dB (Chebyshev 2 and elliptic).

        Raises:
            ImportError: scipy is not installed.

        Example:
            >>> heart = co.SOSFilter.design("bandpass", (0.5, 40.0), sample_rate=250)
            >>> heart.sos.shape
            torch.Size([4, 6])
        """
        signal = signal_package("SOSFilter.design")
        options = {"rp": ripple, "rs": attenuation, "btype": kind, "ftype": family, "output": "sos", "fs": sample_rate}
        return SOSFilter(signal.iirfilter(order, frequencies, **options))

    def extra_repr(self) -> str:
        return f"{len(self.sos)} sections"
