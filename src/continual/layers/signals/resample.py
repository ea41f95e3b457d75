"""`Resample`: another sample rate, by a windowed sinc filter in polyphase form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from ...core.kernel import chunk_of_one
from ...core.module import CoModule
from ...core.naming import named
from ...core.polyphase import Polyphase
from ...core.program.context import CallRows, KernelContext, Run
from ...core.ring_buffer import one_piece, ring_zeros, wire_frames
from ...core.state import InitContext, StateNode, StateUpdates, StepSpec
from ...core.timing import IDENTITY, Timing
from ...errors import ShapeMismatch

METHODS = ("sinc_interp_hann", "sinc_interp_kaiser")
KAISER_BETA = 14.769656459379492  # of torchaudio
TABLES = 32  # tables of which samples outputs are made, that are kept


@dataclass(frozen=True)
class _Sources:
    """Of which samples outputs are made: places ``(outputs·K,)`` from the sample ``first`` on, and their weights ``(outputs, K)``."""

    first: int
    stop: int
    places: Tensor
    weights: Tensor

    def mixed(self, frames: Tensor) -> Tensor:
        """Outputs of the samples ``first … stop - 1``, ``(B, C, n, *S)``."""
        found = frames.index_select(2, self.places).unflatten(2, self.weights.shape)
        return (found * self.weights.view(*self.weights.shape, *(1,) * (frames.ndim - 3))).sum(3)


class Resample(CoModule):
    """Another sample rate: ``torchaudio.transforms.Resample`` along the time of ``(B, C, T, *S)``, for every ratio.

    A windowed sinc filter: output ``j`` is a weighted sum of the samples around ``j·orig_freq/new_freq``, as many on both sides as the
    filter reaches: that is the delay. With the frequencies in lowest terms, ``orig_freq`` samples (``step_size``) bring ``new_freq``
    outputs; a step that can bring several returns them stacked. A clip of ``T`` samples has ``ceil(T·new_freq/orig_freq)`` outputs.

    Args:
        orig_freq, new_freq: the sample rates; their ratio counts.
        resampling_method: the window of the filter, ``"sinc_interp_hann"`` or ``"sinc_interp_kaiser"``.
        lowpass_filter_width: zero crossings of the filter on a side.
        rolloff: the edge of the filter, as a share of half of the lower rate.
        beta: of the Kaiser window; by default that of torchaudio.

    Raises:
        ValueError: a number that is not above 0, or another method.
        ShapeMismatch: samples that are not floating point.

    Example:
        >>> half = co.Resample(16_000, 8_000)
        >>> half(torch.randn(2, 1, 400)).shape, half.stride, half.delay
        (torch.Size([2, 1, 200]), (2,), 12)
        >>> co.Resample(44_100, 16_000).step_size
        441

    Source: Smith, Digital Audio Resampling (ccrma.stanford.edu/~jos/resample); torchaudio.
    """

    has_products = False
    _prepared = frozenset({"_tables"})

    def __init__(
        self,
        orig_freq: int = 16000,
        new_freq: int = 16000,
        resampling_method: str = "sinc_interp_hann",
        lowpass_filter_width: int = 6,
        rolloff: float = 0.99,
        beta: float | None = None,
    ):
        super().__init__()
        if min(orig_freq, new_freq) < 1 or orig_freq != int(orig_freq) or new_freq != int(new_freq):
            raise ValueError(f"Resample: frequencies are whole numbers above 0, got {orig_freq} and {new_freq}")
        if resampling_method not in METHODS:
            raise ValueError(f"Resample: resampling_method is {' or '.join(map(repr, METHODS))}, not {resampling_method!r}")
        if lowpass_filter_width < 1 or not rolloff > 0:
            raise ValueError(
                f"Resample: lowpass_filter_width is at least 1 and rolloff above 0, got {lowpass_filter_width} and {rolloff}"
            )
        if beta is not None and resampling_method != "sinc_interp_kaiser":
            raise ValueError("Resample: beta is for resampling_method='sinc_interp_kaiser' alone")
        self.orig_freq, self.new_freq, self.resampling_method = int(orig_freq), int(new_freq), resampling_method
        self.lowpass_filter_width, self.rolloff, self.beta = lowpass_filter_width, rolloff, beta
        common = math.gcd(self.orig_freq, self.new_freq)
        down, up = self.orig_freq // common, self.new_freq // common
        edge = min(down, up) * Fraction(rolloff).limit_denominator(10**6)
        self._polyphase = None if down == up else Polyphase(down, up, lowpass_filter_width * down / edge)

    @property
    def timing(self) -> Timing:
        return self._polyphase or IDENTITY

    # ---- the filter -----------------------------------------------------------------------------------------------------

    def _taps(self, polyphase: Polyphase, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """The samples that outputs see, ``(outputs, K)``, and their weights in float64; those beyond what one sees have weight 0."""
        down, up, reach = polyphase.down, polyphase.up, polyphase.reach
        period, phase = outputs // up, outputs % up
        firsts, lasts = torch.tensor([polyphase.sees(p) for p in range(up)]).unbind(1)
        taps = torch.arange(int((lasts - firsts).max()) + 1)
        places = firsts[phase].unsqueeze(1) + taps
        inside = places <= lasts[phase].unsqueeze(1)
        apart = (places * up - phase.unsqueeze(1) * down).double() / up  # in samples
        width = self.lowpass_filter_width
        t = (apart * (width / float(reach))).clamp(-width, width)  # in zero crossings
        if self.resampling_method == METHODS[0]:
            window = torch.cos(t * (math.pi / width / 2)).square()
        else:
            beta = torch.tensor(KAISER_BETA if self.beta is None else self.beta, dtype=torch.float64)
            window = torch.i0(beta * (1 - (t / width).square()).sqrt()) / torch.i0(beta)
        weights = torch.sinc(t) * window * (width / float(reach))
        places = torch.where(inside, places, firsts[phase].unsqueeze(1))
        return places + (period * down).unsqueeze(1), torch.where(inside, weights, 0.0)

    def _sources(self, first: int, stop: int, like: Tensor) -> tuple[int, _Sources]:
        """Of which samples, counted from a base, outputs ``first … stop - 1`` are made."""
        polyphase: Any = self._polyphase
        period, phase = divmod(first, polyphase.up)
        key = phase, stop - first, like.dtype, like.device
        tables = self.__dict__.setdefault("_tables", {})
        found = tables.get(key)
        if found is None:
            while len(tables) >= TABLES:
                tables.pop(next(iter(tables)))
            with torch.inference_mode(False), torch.no_grad():
                places, weights = self._taps(polyphase, torch.arange(phase, phase + stop - first))
                low = int(places.min())
                flat = (places - low).flatten().to(like.device)
                found = _Sources(low, int(places.max()) + 1, flat, weights.to(like.device, like.dtype))
            tables[key] = found
        return period * polyphase.down, found

    # ---- clip and stream --------------------------------------------------------------------------------------------

    def forward(self, input: Tensor) -> Tensor:
        """The clip at the other rate."""
        frame = StepSpec.of_chunk(input)
        self.check(frame, type(self).__name__)
        if self._polyphase is None:
            return input
        node = StateNode(InitContext(), "", None, None, kept_spec=frame)
        return self._made(input, node, self._polyphase.ended(input.shape[2]), input.shape[2])

    def check(self, frame: StepSpec, name: str) -> None:
        if not frame.dtype.is_floating_point:
            raise ShapeMismatch(f"{name}: takes samples in floating point, got steps of {frame.dtype}")

    def open(self, frame: StepSpec, init: InitContext) -> StateNode:
        self.check(frame, named(init.path, self))
        kept = self._polyphase.kept if self._polyphase else 0
        ring = {"samples": ring_zeros(frame, kept)} if kept else None
        return StateNode(init, self.kind, frame, ring, kept_spec=frame)

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        if self._polyphase is None:
            return x, n_if_ended
        n, n_out, ended = self.count(x, node, n_if_ended, updates)
        return self._outputs(x, node, n_out, n, updates), ended

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor | None:
        """One output at most per step, so the rate goes down by a whole number."""
        if self._polyphase is None:
            return x
        late = node.n_in - node.delay
        n_out = node.n_out + (late >= 0 and late % node.stride == 0)
        updates.tick(node, node.n_in + 1, n_out)
        y = self._outputs(chunk_of_one(x), node, n_out, node.n_in + 1, updates)
        return None if y is None else y.squeeze(2)

    def _outputs(self, x: Tensor | None, node: StateNode, n_out: int, n: int, updates: StateUpdates) -> Tensor | None:
        """Outputs ``node.n_out … n_out - 1``, after ``n`` samples."""
        if x is not None and node.tensors:
            updates.ring(node, 0, node.n_in, x)
        return self._made(x, node, n_out, n) if n_out > node.n_out else None

    def _made(self, x: Tensor | None, node: StateNode, n_out: int, n: int) -> Tensor:
        base, sources = self._sources(node.n_out, n_out, node.tensors[0] if x is None else x)
        first, stop = base + sources.first, base + sources.stop
        pieces = wire_frames(node, 0, x, node.n_in, max(0, first), min(n, stop))
        spec = node.kept_spec
        before, behind = (spec.zeros(max(0, count)) for count in (-first, stop - max(n, first)))
        return sources.mixed(one_piece([p for p in (before, *pieces, behind) if p.shape[2]]))

    def program(self, ctx: KernelContext) -> Run:
        """Weighted sums of samples; outside of the stream there are zeros."""
        polyphase = self._polyphase
        if polyphase is None:
            return lambda x, rows: x
        outputs = torch.arange(ctx.out_schedule.first, ctx.out_schedule.first + ctx.out_schedule.frames)
        places, weights = self._taps(polyphase, outputs)
        low = int(places.min())
        past = ctx.history("samples", ctx.node.kept_spec, low - ctx.in_schedule.first)
        like = ctx.node.kept_spec
        flat, own = (places - low).flatten().to(like.device), weights.to(like.device, like.dtype)
        sources = _Sources(low, int(places.max()) + 1, flat, own)

        def run(x: Tensor, rows: CallRows) -> Tensor:
            return sources.mixed(past.extend(rows, ctx.gated(rows, x, 0.0)))

        return run

    def extra_repr(self) -> str:
        return f"{self.orig_freq}, {self.new_freq}"
