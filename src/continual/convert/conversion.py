"""Conversion: from `torch.nn` modules to streaming ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict, Unpack

from torch import Tensor, nn

from ..core.module import CoModule
from ..core.registry import register, register_class, register_refusal, register_window, with_options
from ..core.step_spec import Inputs
from ..layers import spiking  # noqa: F401 (it registers its conversions)
from ..layers.conv import Conv1d, Conv2d, Conv3d
from ..layers.linear import Linear
from ..layers.linear_recurrent import hugging_face  # noqa: F401 (it registers its conversions)
from ..layers.pooling import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from ..layers.positions.encodings import RotaryPositionalEncoding
from ..layers.signals import cmn  # noqa: F401 (it registers its conversions)
from ..layers.wrapped import forward_stepping
from . import norm_choice  # noqa: F401 (it registers its conversions)
from .graph.windows.report import WindowPlan
from .torch_refusals import REASONS

__all__ = ["continual", "forward_stepping", "register"]

_LAYERS: tuple[tuple[type[nn.Module], type[CoModule]], ...] = (
    (nn.Conv1d, Conv1d),
    (nn.Conv2d, Conv2d),
    (nn.Conv3d, Conv3d),
    (nn.AvgPool1d, AvgPool1d),
    (nn.AvgPool2d, AvgPool2d),
    (nn.AvgPool3d, AvgPool3d),
    (nn.MaxPool1d, MaxPool1d),
    (nn.MaxPool2d, MaxPool2d),
    (nn.MaxPool3d, MaxPool3d),
    (nn.Linear, Linear),
)
_WINDOWS: tuple[tuple[type[nn.Module], type[CoModule]], ...] = (
    (nn.AdaptiveAvgPool1d, AdaptiveAvgPool1d),
    (nn.AdaptiveAvgPool2d, AdaptiveAvgPool2d),
    (nn.AdaptiveAvgPool3d, AdaptiveAvgPool3d),
    (nn.AdaptiveMaxPool1d, AdaptiveMaxPool1d),
    (nn.AdaptiveMaxPool2d, AdaptiveMaxPool2d),
    (nn.AdaptiveMaxPool3d, AdaptiveMaxPool3d),
)
for _torch, _co in _LAYERS:
    register_class(_torch, _co)
for _torch, _co in _WINDOWS:
    register_window(_torch, _co)

for _torch, _reason in REASONS.items():
    register_refusal(_torch, _reason)


class GraphOptions(TypedDict, total=False):
    """The arguments of :func:`continual` beside an example clip, for functions that pass them on."""

    time_dim: int | Sequence[int | None]
    time_pooling: Literal["window", "frame"] | None
    copy: bool
    progress: bool | None
    windows: Literal["exact", "stream"] | WindowPlan | None
    every: int | None
    output: int | None


class Options(TypedDict, total=False):
    """Options that some modules need in a conversion without a clip."""

    sequence_len: int
    causal: bool
    look_ahead: int
    positions: Literal["alibi", "rotary"] | RotaryPositionalEncoding | None
    mask: Tensor | None
    time_norm: Literal["cumulative", "window"] | None
    norm_window: int | None


def continual(
    module: nn.Module,
    clip: Inputs | None = None,
    *,
    time_dim: int | Sequence[int | None] = 2,
    time_pooling: Literal["window", "frame"] | None = None,
    copy: bool = False,
    progress: bool | None = None,
    windows: Literal["exact", "stream"] | WindowPlan | None = None,
    every: int | None = None,
    output: int | None = None,
    **options: Unpack[Options],
) -> CoModule:
    """The streaming version of a module: same weights, same function, step by step.

    **With an example clip** any module in eval mode is converted through its exported graph, which follows its own ``forward``:
    functions, residual sums, reshapes, merged ``b*t`` and more. The result has the module's names, parameters (shared, not copied) and
    layout. ``forward_steps`` takes chunks shaped as the module's input, ``forward_step`` the same without the dimension of time. What can't
    be
    streamed exactly is refused: one error lists all reasons, each with its line of code and a remedy.

    A module with an output for the whole clip (global pooling, flatten and linear, the last time step) becomes **exact windows**. Its
    stream gives the module's own output of the last frames, as many as the example has, every so many steps. ``net.windows`` says how
    they are computed.

    **Without a clip** modules of registered classes, and ``nn.Sequential`` of them, are converted layer by layer. Parameters are
    copied. In-place activations become ordinary ones.

    The module itself is not changed. Dtype, device, ``requires_grad`` and parametrisations (weight norm) are kept.

    Args:
        module: the module. A :class:`CoModule` is returned as it is.
        clip: an example input, or a tuple of them for a module with several inputs. Its length is that of the windows of clip-level
            outputs. Its batch is 2 or more where other inputs have rows too.
        time_dim: the dimension of time in the clip; for several inputs a tuple. ``None`` is for an input that is not a stream (an
            adjacency matrix, the embedding of a speaker), which every call takes.
        time_pooling: replaces a mean or maximum over the clip in the middle of the network, as in squeeze-and-excitation. ``None``
            refuses it. ``"window"`` pools over the last frames, as many as the example has there; at the start over those that exist.
            ``"frame"`` pools over each frame alone. The converted network then computes another function than the module, in ``forward``
            too; its ``notes`` say so.
        copy: copy the parameters, so that module and network do not share them. Only with a clip.
        windows: what becomes of a module with an output for the whole clip. ``"exact"`` (the default): each score is the module's own of
            its window, whatever padding, recurrent layers and position tables do at its edges. ``"stream"``: the network over the
            endless stream, with real neighbours in place of padding and states that run on: cheaper, and another function;
            ``net.notes`` gives the difference on the example. A :class:`~continual.WindowPlan`: exact windows, computed in the way that
            another conversion has chosen, so that states fit both. Only with a clip.
        every: steps from one exact window to the next; by default the stride of what windows have in common. Only with a clip.
        output: the frame of each window that is given, such as ``-1``. It is for a module with an output per frame that is not a stream
            (bidirectional layers, attention to the whole clip). Only with a clip.
        progress: report on stderr what takes more than 5 seconds; by default if stderr is a terminal. Only with a clip.
        options: options of some modules, without a clip, such as ``sequence_len`` for attention over a window. For norms over the whole
            clip (``nn.GroupNorm`` and its like): ``time_norm="cumulative"``, or ``time_norm="window", norm_window=frames`` (or first
            :func:`~continual.layers.norms.frozen.calibrate`).

    Raises:
        TypeError: an option that no module in it takes.
        NotStreamable: the module can't be streamed exactly, or (without a clip) contains an unknown class. ``refusals`` of the error
            lists the reasons.
        ValueError: options that have no meaning together, or for this module.
        ShapeMismatch: a clip without time where ``time_dim`` says, or streams of different lengths.

    Example:
        >>> class Block(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.conv = nn.Conv1d(4, 4, 3, padding=1)
        ...
        ...     def forward(self, x):
        ...         return F.relu(x + self.conv(x)).mean(2)
        >>> model, clip = Block().eval(), torch.randn(2, 4, 10)
        >>> net = co.continual(model, clip)
        >>> torch.allclose(net.forward_steps(clip)[:, :, -1], model(clip), atol=1e-6)
        True
        >>> stream = co.continual(nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU()))  # known classes: no clip needed
        >>> stream.delay
        1
    """
    if clip is None:
        if time_dim != 2 or time_pooling is not None or copy or any(v is not None for v in (progress, windows, every, output)):
            raise TypeError(
                "continual: time_dim, time_pooling, copy, windows, every, output and progress go with an example clip: "
                "co.continual(module, clip, …)"
            )
        return with_options(module, **options)
    if options:
        raise TypeError(
            f"continual: with a clip there is no option {', '.join(options)}. The options are time_dim, time_pooling, copy, windows, "
            "every, output and progress"
        )
    from .graph.conversion import convert_graph  # imported here, because torch.export is slow to import

    return convert_graph(
        module, clip, time_dim=time_dim, time_pooling=time_pooling, copy=copy, progress=progress, windows=windows or "exact",
        every=every, output=output,
    )  # fmt: skip
