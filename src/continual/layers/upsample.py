"""`Upsample`: interpolation over time and space, by factors that leave every frame's place independent of the clip's length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.kernel import chunk_of_one
from ..core.module import CoModule
from ..core.naming import named
from ..core.program.context import CallRows, KernelContext, Run, frames_at
from ..core.registry import TorchLayer, register_builder, register_class, streaming_copy
from ..core.resampling import Interpolation
from ..core.ring_buffer import one_piece, ring_zeros, wire_frames
from ..core.state import InitContext, StateNode, StateUpdates, StepSpec
from ..core.timing import IDENTITY, Timing
from ..errors import NotStreamable, ShapeMismatch
from .wrapped import wrap

# For each mode: its kind over time, what it is over one or two dimensions of space, and the number of dimensions it takes.
_MODES: dict[str, tuple[str, tuple[str, ...], tuple[int, ...]]] = {
    "nearest": ("nearest", ("nearest", "nearest"), (1, 2, 3)),
    "nearest-exact": ("nearest-exact", ("nearest-exact", "nearest-exact"), (1, 2, 3)),
    "linear": ("linear", (), (1,)),
    "bilinear": ("linear", ("linear",), (2,)),
    "trilinear": ("linear", ("", "bilinear"), (3,)),
    "bicubic": ("cubic", ("bicubic",), (2,)),
    "area": ("", ("area", "area"), (1, 2, 3)),
}
_TABLES = 64  # how many index tensors are kept at most


class _Sources(NamedTuple):
    """Of which frames ``first … stop - 1`` (counted from a base) outputs are made: for each tap, indices and weights."""

    first: int
    stop: int
    indices: list[Tensor]
    weights: list[Tensor]


class Upsample(TorchLayer, nn.Upsample):
    """Interpolation, ``nn.Upsample`` on clips ``(B, C, T, *S)``, whose first size is time.

    A step returns its outputs stacked on dim 2 if there can be several. An output that lies between two inputs comes with the second.
    Positions are computed exactly. ``torch.nn`` rounds them to single precision for float32 clips, which shows for factors that are no
    powers of two. The error is 1e-5 of the step from frame to frame after 100 frames, and 1e-4 after 1,000.

    Args:
        size: refused, since it would make the speed depend on the length of the clip.
        scale_factor: outputs per input, one number for time and space or one number each. Over time a whole number or a fraction
            (2, 1.5, 0.5, 1/3).
        mode: ``"nearest"``, ``"nearest-exact"``, ``"linear"`` (clips ``(B, C, T)``), ``"bilinear"`` or ``"bicubic"``
            (``(B, C, T, S)``), ``"trilinear"`` (``(B, C, T, H, W)``); ``"area"`` where time is left as it is.
        align_corners: ``True`` only where time is left as it is.
        recompute_scale_factor: ``True`` only with a whole factor over time.

    Raises:
        NotStreamable: a choice that makes frames depend on the length of the clip, or a factor that torch rounds wrongly.

    Example:
        >>> up = co.Upsample(scale_factor=2, mode="linear", align_corners=False)
        >>> [up.forward_step(torch.full((1, 1), float(t))).flatten().tolist() for t in (0, 1)]
        [[0.0], [0.25, 0.75]]
    """

    has_products = False
    _prepared = frozenset({"_tables"})
    _tables: dict[Any, _Sources]

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ):
        init: Any = super().__init__  # of the torch.nn class
        init(size, scale_factor if scale_factor is None or isinstance(scale_factor, (int, float)) else tuple(scale_factor), mode,
             align_corners, recompute_scale_factor)  # fmt: skip
        self.configure()

    def configure(self) -> None:
        """Derive the temporal geometry from the attributes of ``nn.Upsample``."""
        if self.mode not in _MODES:
            raise ValueError(f"Upsample: mode is {', '.join(map(repr, _MODES))}, not {self.mode!r}")
        if self.align_corners is not None and _MODES[self.mode][0] not in ("linear", "cubic"):
            raise ValueError(f"Upsample: align_corners is for the linear and cubic modes, not for {self.mode!r}")
        factors = self.scale_factor if isinstance(self.scale_factor, tuple) else (self.scale_factor,)
        if self.size is None and (not factors or any(f is None or not f > 0 for f in factors)):
            raise ValueError(f"Upsample: scale_factor is a number above 0, or one for each dimension, got {self.scale_factor}")
        self._interpolation = None if self.size is None and factors[0] == 1 else self._over_time(factors[0])
        self._resamples = self._interpolation is not None
        if self._interpolation is not None:
            period = [self._interpolation.taps(j) for j in range(self._interpolation.factor.numerator)]
            most = max(map(len, period))
            filled = [_filled(taps, most) for taps in period]
            self._indices = [[i for i, _ in taps] for taps in filled]
            self._weights = [[float(w) for _, w in taps] for taps in filled]

    def _over_time(self, scale: Any) -> Interpolation:
        """How time is interpolated. Refuses what depends on the clip's length."""
        kind, identity = _MODES[self.mode][0], "Over space alone give scale_factor=(1, …)"
        if self.size is not None:
            raise NotStreamable(
                f"Upsample(size={self.size}) gives every clip the same number of frames, so a frame's place depends on the length of the "
                f"clip, which a stream has not seen. Remedy: scale_factor. {identity}"
            )
        if not kind:
            raise NotStreamable(
                f"Upsample(mode={self.mode!r}) averages over bins that the length of the clip divides. Remedies: mode='nearest', or "
                f"co.AvgPool1d | 2d | 3d to go down. {identity}"
            )
        factor = _rational(scale)
        if self.align_corners:
            raise NotStreamable(
                f"Upsample(align_corners=True) puts the last output on the last input, so with {scale} frames for one all places depend "
                f"on the length of the clip, which a stream has not seen. Remedy: align_corners=False. {identity}"
            )
        if self.recompute_scale_factor and factor.denominator > 1:
            raise NotStreamable(
                f"Upsample(recompute_scale_factor=True) computes the factor from the length of the clip: with {factor}, clips of "
                f"{factor.denominator} and of {factor.denominator + 1} steps have different factors. Remedy: recompute_scale_factor=False"
            )
        if kind == "linear" and 1 < factor < Fraction(3, 2):
            raise NotStreamable(
                f"Upsample(scale_factor={scale}, mode={self.mode!r}): torch.nn copies clips whose length stays what it is, those of up to "
                f"{math.ceil(1 / (factor - 1)) - 1} steps, and interpolates longer ones, so the first outputs depend on the clip's "
                "length. Remedies: a factor from 1.5 on, or mode='nearest'"
            )
        made = Interpolation(factor, kind)
        single = float(torch.tensor(1 / scale, dtype=torch.float32))
        hits = kind == "nearest" or (
            kind == "nearest-exact" and factor.denominator % 2 == 0
        )  # positions on the border of two frames
        if hits and not _stays_whole(single, 1 / factor, 24):
            first = _first_wrong(single, factor, kind)
            raise NotStreamable(
                f"Upsample(scale_factor={scale}, mode={self.mode!r}): torch.nn rounds its places in single precision and takes a wrong "
                f"frame for output {first}, and for others. Remedies: another factor, or two steps whose factors multiply to it"
            )
        return made

    @property
    def timing(self) -> Timing:
        return self._interpolation or IDENTITY

    # ---- clip -------------------------------------------------------------------------------------------------------

    def forward(self, input: Tensor) -> Tensor:
        """The clip computation: that of ``nn.Upsample``, with exact positions.

        Raises:
            ShapeMismatch: a clip so short that no output is left of it, or of other dimensions than the mode takes.
        """
        frame = StepSpec.of_chunk(input)
        self.check(frame, type(self).__name__)
        entered = self.enter(input)
        if self._interpolation is None:
            return entered
        steps = input.shape[2]
        ended = self._interpolation.ended(steps)
        if ended == 0:
            raise ShapeMismatch(
                f"Upsample: a clip of {steps} steps is too short for scale_factor {self.scale_factor}: it leaves none"
            )
        base, sources = self._sources(0, ended, steps, entered)
        return _mixed(entered[:, :, base + sources.first : base + sources.stop], sources)

    # ---- kernel -----------------------------------------------------------------------------------------------------

    def check(self, frame: StepSpec, name: str) -> None:
        """Refuse frames of another rank than the mode takes."""
        dims, factor = len(frame.shape) - 1, self.scale_factor
        if dims not in _MODES[self.mode][2] or (isinstance(factor, tuple) and len(factor) != dims):
            raise ShapeMismatch(
                f"{name}: mode {self.mode!r} with scale_factor {factor} does not take clips of {dims + 2} dimensions (steps "
                f"{tuple(frame.shape)}); time is the first size that is scaled"
            )

    def enter(self, x: Tensor) -> Tensor:
        """Frames ``(B, C, n, *S)`` interpolated over space, each on its own."""
        dims, factor = x.ndim - 3, self.scale_factor
        space: Any = list(factor[1:]) if isinstance(factor, tuple) else [factor] * dims
        if all(s == 1 for s in space):
            return x
        mode = _MODES[self.mode][1][dims - 1]
        corners, recompute = self.align_corners, self.recompute_scale_factor
        flat = x.flatten(1, 2)
        if mode == "bicubic":  # torch has it for planes alone: a line is a plane of height 1
            y = F.interpolate(flat.unsqueeze(2), None, [1.0, *space], mode, corners, recompute).squeeze(2)
        else:
            y = F.interpolate(flat, None, space, mode, corners, recompute)
        return y.unflatten(1, x.shape[1:3])

    def open(self, frame: StepSpec, init: InitContext) -> StateNode:
        name = named(init.path, self)
        self.check(frame, name)
        try:
            kept_spec = StepSpec.of_chunk(self.enter(frame.zeros(1)))
        except RuntimeError as error:
            raise ShapeMismatch(f"{name}: can't take steps {frame}: {error}") from error
        kept = 0 if self._interpolation is None else self._interpolation.kept
        return StateNode(
            init, self.kind, kept_spec, {"frames": ring_zeros(kept_spec, kept)} if kept else None, kept_spec=kept_spec
        )

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        if self._interpolation is None:
            return (None if x is None else self.enter(x)), n_if_ended
        _, n_out, ended = self.count(x, node, n_if_ended, updates)
        return self._outputs(x, node, n_out, n_if_ended if updates.final else None, updates), ended

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor | None:
        """One output at most per step, so the factor is 1 or less."""
        if self._interpolation is None:
            return self.enter(chunk_of_one(x)).squeeze(2)
        late = node.n_in - node.delay
        n_out = node.n_out + (late >= 0 and late % node.stride == 0)
        updates.tick(node, node.n_in + 1, n_out)
        y = self._outputs(chunk_of_one(x), node, n_out, None, updates)
        return None if y is None else y.squeeze(2)

    def _outputs(
        self, x: Tensor | None, node: StateNode, n_out: int, n_if_ended: int | None, updates: StateUpdates
    ) -> Tensor | None:
        """Outputs ``node.n_out … n_out - 1``, of the frames kept and of those that arrive."""
        entered, n_in = None if x is None else self.enter(x), node.n_in
        if entered is not None and node.tensors:
            updates.ring(node, 0, n_in, entered)
        if n_out <= node.n_out:
            return None
        base, sources = self._sources(node.n_out, n_out, n_if_ended, node.tensors[0] if entered is None else entered)
        first, stop = base + sources.first, base + sources.stop
        return _mixed(one_piece(wire_frames(node, 0, entered, n_in, first, stop)), sources)

    def _sources(self, first: int, stop: int, n_if_ended: int | None, like: Tensor) -> tuple[int, _Sources]:
        """Of which frames, counted from a base, outputs ``first … stop - 1`` are made; ``e`` is the clip's length if it ends."""
        interpolation: Any = self._interpolation
        periods, phase = divmod(first, interpolation.factor.numerator)
        base = periods * interpolation.period
        low = max(-base, -2)  # no output of a period sees more than two frames before it
        key = (
            phase,
            stop - first,
            low,
            None if n_if_ended is None else n_if_ended - 1 - base,
            like.dtype,
            like.device,
            like.ndim,
        )
        tables = self.__dict__.setdefault("_tables", {})
        if key not in tables:
            while len(tables) >= _TABLES:
                tables.pop(next(iter(tables)))
            tables[key] = self._made(*key)
        return base, tables[key]

    def _made(
        self, phase: int, count: int, low: int, high: int | None, dtype: torch.dtype, device: torch.device, ndim: int
    ) -> _Sources:
        interpolation: Any = self._interpolation
        with torch.inference_mode(False):
            outputs = torch.arange(phase, phase + count)
            period, place = outputs // interpolation.factor.numerator, outputs % interpolation.factor.numerator
            indices = torch.tensor(self._indices)[place] + interpolation.period * period.unsqueeze(1)
            indices = indices.clamp(low, high)
            first = int(indices.min())
            weights: list[Tensor] = []
            if indices.shape[1] > 1:
                found = torch.tensor(self._weights, dtype=torch.float64)[place].to(device, dtype)
                weights = [w.contiguous().view(-1, *[1] * (ndim - 3)) for w in found.unbind(1)]
            by_tap = [i.contiguous() for i in (indices - first).to(device).unbind(1)]
            return _Sources(first, int(indices.max()) + 1, by_tap, weights)

    def program(self, ctx: KernelContext) -> Run:
        """Weighted sums of frames. Beyond the ends the first and the last frame are repeated."""
        interpolation: Interpolation | None = self._interpolation
        if interpolation is None:
            return lambda x, rows: self.enter(x)
        period, inputs = interpolation.factor.numerator, interpolation.factor.denominator
        outputs = range(ctx.out_schedule.first, ctx.out_schedule.first + ctx.out_schedule.frames)
        sources = torch.tensor([[i + j // period * inputs for i in self._indices[j % period]] for j in outputs])
        weights = torch.tensor([self._weights[j % period] for j in outputs], dtype=torch.float64)
        low = int(sources.min())
        past = ctx.history("frames", ctx.node.out, low - ctx.in_schedule.first)
        clamps = interpolation.kind in ("linear", "cubic")

        def run(x: Tensor, rows: CallRows) -> Tensor:
            frames = past.extend(rows, self.enter(x))
            first, *others = (
                _clamped(frames, tap.to(x.device), rows) if clamps else frames.index_select(2, (tap - low).to(x.device))
                for tap in sources.unbind(1)
            )
            if not others:
                return first
            own, *shares = (w.to(x.device, x.dtype).view(-1, *(1,) * (x.ndim - 3)) for w in weights.unbind(1))
            y = first * own
            for found, share in zip(others, shares, strict=True):
                y = torch.addcmul(y, found, share)
            return y

        def _clamped(frames: Tensor, tap: Tensor, rows: CallRows) -> Tensor:
            first_index = rows.index(ctx.in_schedule)[:, :1] + (
                low - ctx.in_schedule.first
            )  # the index of the first frame at hand
            index = (first_index - low + tap).clamp(min=0)
            index = index.minimum(rows.ended(ctx.before).unsqueeze(1) - 1) if ctx.plan.flush else index
            return frames_at(frames, (index - first_index).clamp(0, frames.shape[2] - 1))

        return run


def _mixed(frames: Tensor, sources: _Sources) -> Tensor:
    """Outputs, as weighted sums of frames ``(B, C, n, *S)``."""
    if not sources.weights:
        return frames.index_select(2, sources.indices[0])
    y = frames.index_select(2, sources.indices[0]) * sources.weights[0]
    for index, weight in zip(sources.indices[1:], sources.weights[1:], strict=True):
        y = torch.addcmul(y, frames.index_select(2, index), weight)
    return y


def _filled(taps: list[tuple[int, Fraction]], size: int) -> list[tuple[int, Fraction]]:
    """As many taps as others have. A weight is shared out: a tap of weight 0 would turn infinite frames into NaN."""
    (i, weight), parts = taps[0], size - len(taps) + 1
    return [(i, weight / parts)] * parts + taps[1:]


# ---- factors ---------------------------------------------------------------------------------------------------------


def _rational(scale: float) -> Fraction:
    """The fraction that a factor stands for. Refuses one with which torch would round the length of some clip wrongly."""
    factor = Fraction(scale).limit_denominator(1000)
    if factor == 0 or float(factor) != scale or not _stays_whole(scale, factor, 53):
        raise NotStreamable(
            f"Upsample(scale_factor={scale}) is not a fraction over time of which torch computes every length exactly. Remedies: a whole "
            "number, a number of quarters, eighths …, or 1/3, 2/3 …"
        )
    return factor


def _stays_whole(factor: float, exact: Fraction, bits: int) -> bool:
    """Whether ``n * factor``, rounded to so many bits, is never below a whole number ``n * exact``."""
    return exact - Fraction(factor) <= exact / 2 ** (bits + 1)


def _first_wrong(scale: float, factor: Fraction, kind: str) -> int:
    """The first output for which torch takes the frame before the right one."""
    exact = Interpolation(factor, kind)
    outputs = torch.arange(1 << 16, dtype=torch.float32) + (0 if kind == "nearest" else 0.5)
    found = (outputs * torch.tensor(scale, dtype=torch.float32)).floor()
    wrong = (j for j, i in enumerate(found.tolist()) if i < exact.position(j).__floor__())
    return next(wrong, len(found))


def _build(module: nn.Module, memo: dict[int, Any], path: str) -> CoModule:
    source: Any = module
    if source.size is None and isinstance(source.scale_factor, tuple) and source.scale_factor[0] == 1:
        return wrap(module, memo=memo)  # over space alone
    try:
        made: CoModule = streaming_copy(module, memo, Upsample)
    except NotStreamable as error:
        raise NotStreamable(f"{named(path, module)}: {error}") from None
    return made


register_class(nn.Upsample, Upsample)
register_builder(nn.Upsample, _build)
