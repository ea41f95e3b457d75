"""Transposed convolutions over time: `ConvTranspose1d`, `ConvTranspose2d`, `ConvTranspose3d`. They return several frames per input.

The state is input frames, as many as one output sees, less the one that arrives. A tail of partial sums, which the next input
completes, would be the alternative; it took 1.5 to 3 times as long per step, because the frames fold into one product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.kernel import chunk_of_one
from ..core.naming import named
from ..core.program.context import CallRows, KernelContext, Run
from ..core.registry import TorchLayer, register_class
from ..core.resampling import Upsampling
from ..core.ring_buffer import one_piece, ring_frames, ring_zeros, wire_frames
from ..core.state import InitContext, StateNode, StateUpdates, StepSpec
from ..core.timing import Timing
from ..errors import NotStreamable, ShapeMismatch
from .folds_norms import FoldsNorms
from .local import parameter
from .native import product
from .weight_cache import FoldedWeight, check_images
from .window import per_dim

_CONV: Any = (None, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


class _ConvTranspose(TorchLayer, FoldedWeight, FoldsNorms):
    """What the three transposed convolutions share; their number of dimensions is data.

    Tap ``k`` of input ``i`` falls on position ``i*rate + k*dilation``; output ``j`` is position ``j + padding``.
    """

    dims: int
    in_channels: int
    out_channels: int
    kernel_size: Any
    stride: Any
    padding: Any
    output_padding: Any
    dilation: Any
    groups: int
    bias: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Sequence[int] = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ):
        init: Any = super().__init__  # of the torch.nn class
        init(
            in_channels,
            out_channels,
            per_dim(kernel_size, self.dims, "kernel_size"),
            per_dim(stride, self.dims, "stride"),
            per_dim(padding, self.dims, "padding"),
            per_dim(output_padding, self.dims, "output_padding"),
            groups,
            bias,
            per_dim(dilation, self.dims, "dilation"),
            padding_mode,
            device=device,
            dtype=dtype,
        )
        self.configure()

    def configure(self) -> None:
        """Derive the temporal geometry from the attributes of the ``torch.nn`` transposed convolution."""
        (rate, *space), taps, dilation = self.stride, self.kernel_size[0], self.dilation[0]
        padding, beyond = self.padding[0], self.output_padding[0]
        if min(rate, taps, dilation) < 1 or min(padding, beyond) < 0:
            raise ValueError(
                f"{type(self).__name__}: kernel_size, stride and dilation are at least 1 and padding and output_padding at least 0 "
                f"over time, got {taps}, {rate}, {dilation}, {padding} and {beyond}"
            )
        for extra, s, d in zip(self.output_padding, (rate, *space), self.dilation, strict=True):
            if extra >= max(s, d):
                raise ValueError(
                    f"{type(self).__name__}: output_padding must be smaller than stride or dilation, got output_padding "
                    f"{self.output_padding}, stride {(rate, *space)}, dilation {self.dilation}"
                )
        self.rate, self._steps = rate, (rate, *space)
        self.stride = (Fraction(1, rate) if rate > 1 else 1, *space)  # of a stream: inputs per output
        self._extent = dilation * (taps - 1) + 1
        self._timing = Upsampling(rate, self._extent, padding, beyond)
        # Where the crop at the end is larger than what one input adds, or no tap falls on a position, outputs come late.
        late = max(0, rate + padding - self._extent - beyond)
        self._kept = max((self._extent - 1 + late) // rate, -(-late // rate))
        if self._extent - rate + beyond - padding > 0:
            self._kept = max(1, self._kept)  # the end of the stream brings outputs, on the last frame
        self._folds = self.groups == 1 and dilation == 1 and late == 0 and taps >= rate
        self._over_time_alone = all(
            (k, s, p, o) == (1, 1, 0, 0)
            for k, s, p, o in zip(self.kernel_size[1:], space, self.padding[1:], self.output_padding[1:], strict=True)
        )

    @property
    def timing(self) -> Timing:
        return self._timing

    # ---- clip -------------------------------------------------------------------------------------------------------

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """The clip computation: that of the ``torch.nn`` transposed convolution.

        Args:
            input: the clip ``(B, C, T, *S)``.
            output_size: the size that ``output_padding`` gives; another one would need another ``output_padding``.

        Raises:
            ShapeMismatch: the padding cuts off all that the clip gives.
            NotStreamable: an ``output_size`` that is not the one of ``output_padding``.
        """
        if output_size is not None:
            self._check_size(input, list(output_size))
        steps = input.shape[-self.dims]
        if not self._timing.ended(steps):
            raise ShapeMismatch(
                f"{type(self).__name__}: a clip of {steps} steps is too short: padding cuts {self.padding[0]} frames at both ends of "
                f"{max(0, (steps - 1) * self.rate + self._extent)} over time"
            )
        return self._transposed(input, self.padding[0], self.output_padding[0])

    def _check_size(self, input: Tensor, size: list[int]) -> None:
        """Refuse an ``output_size`` for which ``torch.nn`` would use another ``output_padding`` than this module's."""
        module: Any = self
        chosen = tuple(module._output_padding(input, size, self._steps, self.padding, self.kernel_size, self.dims, self.dilation))
        if chosen != tuple(self.output_padding):
            raise NotStreamable(
                f"{type(self).__name__}: output_size={tuple(size)} asks for output_padding={chosen}, but a stream, whose length is not "
                f"known, runs with output_padding={tuple(self.output_padding)}. Build the layer with output_padding={chosen}"
            )

    def _transposed(self, x: Tensor, padding: int, beyond: int) -> Tensor:
        """The operation of torch, with another crop over time than the layer's."""
        y: Tensor = _CONV[self.dims](
            x,
            self.weight,
            self.bias,
            self._steps,
            (padding, *self.padding[1:]),
            (beyond, *self.output_padding[1:]),
            self.groups,
            self.dilation,
        )
        return y

    # ---- kernel -----------------------------------------------------------------------------------------------------

    def open(self, frame: StepSpec, init: InitContext) -> StateNode:
        out = self.check(frame, named(init.path, self))
        self._forget_layouts()
        ring = {"frames": ring_zeros(frame, self._kept)} if self._kept else None
        return StateNode(init, self.kind, out, ring, kept_spec=frame)

    def check(self, frame: StepSpec, name: str) -> StepSpec:
        """Refuse a frame that the layer can't take; return the frame that leaves."""
        check_images(self, frame, name)
        space = frame.shape[2:]
        options = (self._steps, self.padding, self.kernel_size, self.dilation, self.output_padding)
        out = [
            (size - 1) * s - 2 * p + d * (k - 1) + o + 1
            for size, s, p, k, d, o in zip(space, *(option[1:] for option in options), strict=True)
        ]
        if min(out, default=1) < 1:
            raise ShapeMismatch(f"{name}: padding {tuple(self.padding[1:])} cuts off all of a frame of {tuple(space)}")
        return frame.resized(frame.shape[0], self.out_channels, *out)

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        _, n_out, ended = self.count(x, node, n_if_ended, updates)
        return self._outputs(x, node, n_out, updates), ended

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor | None:
        """One output at most per step, so the rate is 1: a sliding window."""
        n_out = node.n_out + (node.n_in >= node.delay)
        updates.tick(node, node.n_in + 1, n_out)
        y = self._outputs(chunk_of_one(x), node, n_out, updates)
        return None if y is None else y.squeeze(2)

    def _outputs(self, x: Tensor | None, node: StateNode, n_out: int, updates: StateUpdates) -> Tensor | None:
        """Outputs ``node.n_out … n_out - 1``, of the frames kept and of those that arrive."""
        n_in, arrived = node.n_in, 0 if x is None else x.shape[2]
        if x is not None and self._kept:
            updates.ring(node, 0, n_in, x)
        if n_out <= node.n_out:
            return None
        start, stop = node.n_out + self.padding[0], n_out + self.padding[0]  # positions before the crop
        if x is not None and arrived == 1 and self._folds and not updates.final and not torch.is_grad_enabled():
            return self._folded_step(x, node)[:, :, start - n_in * self.rate :]
        last = min(n_in + arrived - 1, (stop - 1) // self.rate)
        first = min(last, start // self.rate, max(0, -((self._extent - 1 - start) // self.rate)))
        frames = one_piece(wire_frames(node, 0, x, n_in, first, last + 1))
        beyond = max(0, stop - last * self.rate - self._extent)  # positions that no tap reaches: they hold the bias
        return self._transposed(frames, 0, beyond).narrow(2, start - first * self.rate, stop - start)

    def _folded_step(self, x: Tensor, node: StateNode) -> Tensor:
        """The ``rate`` positions that one frame completes. Those that see equally many frames fold into one product."""
        window, older = x.squeeze(2), (self._extent - 1) // self.rate
        if older:
            kept = ring_frames(node.tensors[0], node.n_in - older, node.n_in)
            window = torch.cat([f for piece in kept for f in piece.unbind(2)] + [window], 1)
        parts = []
        for taps, weight in self._folded():
            unseen = (older + 1 - taps) * self.in_channels
            parts.append(self._product(window[:, unseen:] if unseen else window, weight))
        return one_piece(parts)

    def _product(self, window: Tensor, weight: Tensor) -> Tensor:
        """Frames stacked in the channels, ``(B, taps*I, *S)``, to positions ``(B, O, n, *S')``."""
        bias = parameter(self, "bias")
        by_channel = (self.out_channels, -1)
        if bias is not None:
            bias = bias.unsqueeze(1).expand(-1, weight.shape[0 if self._over_time_alone else 1] // self.out_channels).flatten()
        if self.dims == 1:
            return product.linear(window, weight, bias).unflatten(1, by_channel)
        if self._over_time_alone:
            return product.multiply(weight, window.flatten(2), bias).unflatten(2, window.shape[2:]).unflatten(1, by_channel)
        space = (self._steps[1:], self.padding[1:], self.output_padding[1:], 1, self.dilation[1:])
        folded: Tensor = _CONV[self.dims - 1](window, weight, bias, *space)
        return folded.unflatten(1, by_channel)

    def _fold(self, weight: Tensor) -> list[tuple[int, Tensor]]:
        """For positions of equally many taps, so that no frame is multiplied by zero: how many, and their weight.

        The weight is ``(taps*I, O*positions, *K)``, oldest frame first, transposed where it is a matrix.
        """
        most, full = (self._extent - 1) // self.rate + 1, (self._extent - 1) % self.rate + 1
        found = []
        for taps, start, stop in ((most, 0, full), (most - 1, full, self.rate)):
            if start < stop:
                by_frame = [weight[:, :, start + m * self.rate : stop + m * self.rate] for m in reversed(range(taps))]
                folded = torch.cat(by_frame).flatten(1, 2)
                if self._over_time_alone:
                    folded = folded.flatten(1).t()
                layout = torch.channels_last if folded.ndim == 4 else torch.contiguous_format
                found.append((taps, folded.contiguous(memory_format=layout)))
        return found

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> Fraction:
        return Fraction(math.prod(node.kept_spec.shape[2:]) * self.weight.numel(), self.rate)

    def scaled_weight(self, weight: Tensor, factor: Tensor) -> Tensor:
        """A weight ``(I, O / groups, *K)`` times a factor ``(O,)`` of each output channel."""
        by_group, factors = weight.unflatten(0, (self.groups, -1)), factor.view(self.groups, 1, -1, *(1,) * self.dims)
        return (by_group * factors).reshape(weight.shape)

    def extra_repr(self) -> str:
        return super().extra_repr().replace(f"stride={self.stride}", f"stride={self._steps}")

    def program(self, ctx: KernelContext) -> Run:
        """All frames that the outputs of a call see, in one operation; frames outside the stream are zeros."""
        rate, extent, in_schedule, out_schedule = self.rate, self._extent, ctx.in_schedule, ctx.out_schedule
        start = out_schedule.first + self.padding[0]  # positions before the crop, of call 0
        stop = start + out_schedule.frames
        last = min(in_schedule.first + in_schedule.frames - 1, (stop - 1) // rate)
        first = min(last, start // rate, -((extent - 1 - start) // rate))
        beyond = max(0, stop - last * rate - extent)
        past = ctx.history("frames", ctx.node.in_spec, first - in_schedule.first)
        apart = ctx.target.compiler_fuses and self._over_time_alone and self.groups == 1 and self.kernel_size[0] == extent == rate

        def run(x: Tensor, rows: CallRows) -> Tensor:
            frames = past.extend(rows, ctx.gated(rows, x, 0.0))[:, :, : last - first + 1]
            y: Tensor = _apart(self, frames) if apart else self._transposed(frames, 0, beyond)
            return y.narrow(2, start - first * rate, out_schedule.frames)

        return run


def _apart(layer: Any, frames: Tensor) -> Tensor:
    """Outputs that see one frame each, as one product for all of them."""
    rows = frames.flatten(2).transpose(1, 2)  # (B, n * S, I)
    y = torch.matmul(rows, layer.weight.flatten(1)).unflatten(2, (layer.out_channels, -1))  # (B, n * S, O, k)
    y = y.unflatten(1, frames.shape[2:]).movedim((-2, -1), (1, 3)).flatten(2, 3)
    return y if layer.bias is None else y + layer.bias.view(-1, *(1,) * layer.dims)


class ConvTranspose1d(_ConvTranspose, nn.ConvTranspose1d):
    """1D transposed convolution over time, ``nn.ConvTranspose1d`` on clips ``(B, C, T)``; steps are ``(B, C)``.

    With a temporal stride of 2 or more a step returns its outputs stacked, ``(B, C', n)``, and ``stride`` is a fraction.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode, device, dtype:
            as ``torch.nn.ConvTranspose1d``. ``padding`` cuts frames off at both ends of the output.

    Example:
        >>> up = co.ConvTranspose1d(2, 4, kernel_size=4, stride=2, padding=1)
        >>> up.stride, [tuple(up.forward_step(torch.randn(1, 2)).shape) for _ in range(3)]
        ((Fraction(1, 2),), [(1, 4, 1), (1, 4, 2), (1, 4, 2)])
    """

    dims = 1


class ConvTranspose2d(_ConvTranspose, nn.ConvTranspose2d):
    """2D transposed convolution over time and one spatial dimension: clips ``(B, C, T, S)``, steps ``(B, C, S)``.

    With a temporal stride of 2 or more a step returns its outputs stacked, ``(B, C', n, S')``, and ``stride`` begins with a fraction.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode, device, dtype:
            as ``torch.nn.ConvTranspose2d``; the first of each is time.

    Example:
        >>> up = co.ConvTranspose2d(3, 8, kernel_size=(2, 3), stride=(2, 1), padding=(0, 1))
        >>> up.forward_steps(torch.randn(2, 3, 10, 25)).shape
        torch.Size([2, 8, 20, 25])
    """

    dims = 2


class ConvTranspose3d(_ConvTranspose, nn.ConvTranspose3d):
    """3D transposed convolution over time and space: clips ``(B, C, T, H, W)``, steps ``(B, C, H, W)``.

    With a temporal stride of 2 or more a step returns its outputs stacked, ``(B, C', n, H', W')``, and ``stride`` begins with a
    fraction.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode, device, dtype:
            as ``torch.nn.ConvTranspose3d``; the first of each is time.

    Example:
        >>> up = co.ConvTranspose3d(3, 8, kernel_size=2, stride=2)
        >>> up.forward_step(torch.randn(1, 3, 8, 8)).shape
        torch.Size([1, 8, 2, 16, 16])
    """

    dims = 3


for _torch, _co in (
    (nn.ConvTranspose1d, ConvTranspose1d),
    (nn.ConvTranspose2d, ConvTranspose2d),
    (nn.ConvTranspose3d, ConvTranspose3d),
):
    register_class(_torch, _co)
