"""Conversion: from `torch.nn` modules to streaming ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict, Unpack

from torch import Tensor, nn

from ..core.module import CoModule
from ..core.registry import register, register_refusal, register_twin, register_window, with_options
from ..core.step_spec import Inputs
from ..layers.conv import Conv1d, Conv2d, Conv3d
from ..layers.linear import Linear
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
from ..layers.wrapped import forward_stepping
from . import norm_choice  # noqa: F401 (it registers its conversions)
from .torch_refusals import REASONS

__all__ = ["continual", "forward_stepping", "register"]

_TWINS: tuple[tuple[type[nn.Module], type[CoModule]], ...] = (
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
for _torch, _co in _TWINS:
    register_twin(_torch, _co)
for _torch, _co in _WINDOWS:
    register_window(_torch, _co)

for _torch, _reason in REASONS.items():
    register_refusal(_torch, _reason)


class GraphOptions(TypedDict, total=False):
    """What :func:`continual` takes beside an example clip, for functions that hand it on."""

    time_dim: int | Sequence[int | None]
    time_pooling: Literal["window", "frame"] | None
    copy: bool
    progress: bool | None
    windows: Literal["exact", "stream"] | None
    every: int | None
    output: int | None


class Options(TypedDict, total=False):
    """Choices that some modules need, for a conversion without a clip."""

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
    windows: Literal["exact", "stream"] | None = None,
    every: int | None = None,
    output: int | None = None,
    **options: Unpack[Options],
) -> CoModule:
    """The streaming version of a module: same weights, same function, step by step.

    **With an example clip** any module in eval mode is converted, through its exported graph: its own ``forward``, functions, residual
    sums, reshapes, merged ``b*t`` … are followed from the input on. The result has the module's names, parameters (shared, not copied)
    and layout: ``forward_steps`` takes chunks shaped as the module's input, ``forward_step`` the same without the dimension of time.
    What can't be streamed exactly is refused, all at once, with the line of code and what to do.

    A module with an output for the whole clip (global pooling, flatten and linear, a last time step) becomes **exact windows**: every so
    many steps its own output of the last frames, as many as the example has. ``net.windows`` says how they are computed.

    **Without a clip** modules of registered classes and ``nn.Sequential`` of them are converted, layer by layer. Parameters are copied.
    In-place activations become ordinary ones.

    The module itself is not changed. Dtype, device, ``requires_grad`` and parametrisations (weight norm) are kept.

    Args:
        module: the module. A :class:`CoModule` is returned as it is.
        clip: an example input, or a tuple of them for a module with several inputs. Its length is that of the windows for outputs of
            a whole clip. Give it a batch of 2 or more where other inputs have rows too.
        time_dim: which dimension of the clip is time; a tuple with one entry for each input, ``None`` for an input that is no stream
            (an adjacency matrix, the embedding of a speaker) and goes along with every call.
        time_pooling: what becomes of a mean (or maximum) over the clip in the middle of the network, as in squeeze-and-excitation:
            ``None`` refuses it, ``"window"`` takes the last frames, as many as the example has there, those present at the start, and
            ``"frame"`` each frame alone. The twin is then another function than the module, in ``forward`` too, and says so in ``notes``.
        copy: separate the parameters from the module's. Only with a clip.
        windows: what becomes of a module with an output for the whole clip. ``"exact"`` (the default): each score is the module's own of
            its window, whatever padding, recurrent layers and tables of positions do at its edges. ``"stream"``: the network over the
            endless stream, with real neighbours in place of padding and states that run on: cheaper, and another function, whose
            difference on the example ``net.notes`` tells. Only with a clip.
        every: steps from one exact window to the next; by default the stride of what windows have in common. Only with a clip.
        output: for a module with an output per frame that is no stream (bidirectional layers, attention to the whole clip): which frame
            of each window is given, such as ``-1``. Only with a clip.
        progress: say on stderr what takes so long, once it has taken 5 seconds; by default if stderr is a terminal. Only with a clip.
        options: without a clip, choices that some modules need, such as ``sequence_len`` for attention over a window. For norms over the
            whole clip (``nn.GroupNorm`` and its like): ``time_norm="cumulative"``, or ``time_norm="window", norm_window=frames`` (or first
            :func:`~continual.layers.norms.frozen.calibrate`).

    Raises:
        TypeError: an option that no module in it takes.
        NotStreamable: what can't be streamed exactly, or (without a clip) a class that is not known, with its path and what you can do.
            ``refusals`` of the error holds them one by one.
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
            f"continual: with a clip there is no option {', '.join(options)}; time_dim, time_pooling, copy, windows, every, output and "
            "progress are"
        )
    from .graph.conversion import convert_graph  # here: torch.export takes its time to import

    return convert_graph(
        module, clip, time_dim=time_dim, time_pooling=time_pooling, copy=copy, progress=progress, windows=windows or "exact",
        every=every, output=output,
    )  # fmt: skip
