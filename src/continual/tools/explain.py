"""`explain`: how a network streams, operation by operation, or why it does not."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn

from ..convert.conversion import GraphOptions, continual
from ..core.inputs import frame_of, time_second
from ..core.module import CoModule
from ..core.op_rows import Refusal
from ..core.state import StepSpec, frames, rewire
from ..core.step_spec import Inputs
from ..errors import NotStreamable
from .explanation import Explanation

_convert: Any = continual


def explain(net: nn.Module, clip: Inputs | None = None, **options: Unpack[GraphOptions]) -> Explanation:
    """How a network streams: for every operation its rate, receptive field, delay and state, and where frames wait.

    A plain module is converted with :func:`~continual.convert.continual` first. The explanation of a module that can't be streamed exactly
    holds every refusal: where, why, and what to do.

    Args:
        net: a :class:`~continual.CoModule`, or any module.
        clip: an example, ``(B, C, T, *S)``, or a tuple of such for several inputs. For a streaming module only its shape
            matters; a module with a running stream needs no clip.
        options: as for ``co.continual``, of a plain module.

    Returns:
        The explanation: ``print`` shows a table, ``.svg()`` and ``.html()`` draw the graph, ``.save(path)`` writes a file, and
        notebooks display it.

    Raises:
        TypeError: a clip is missing, or the options are for a module that is streaming already.

    Example:
        >>> net = co.Sequential(co.Residual(nn.Conv1d(2, 2, 5, padding=2)), nn.ReLU(), nn.AvgPool1d(2))
        >>> print(co.explain(net, torch.zeros(1, 2, 16)))
        Sequential  ←  x (1, 2, T)
           path  op               takes           rate  receptive field  delay  state bytes
        ───────────────────────────────────────────────────────────────────────────────────
        0  0.1   Conv1d k5 p2     x                  1                5      2           32
        1  0     add              x (waits 2), 0     1                5      2           16
        2  1     ReLU             1                  1                5      2            0
        3  2     AvgPool1d k2 s2  2                1/2                6      3            8
        ───────────────────────────────────────────────────────────────────────────────────
        →  2                                       1/2                6      3           56
    """
    name = type(net).__name__
    try:
        if not isinstance(net, CoModule):
            if clip is None:
                raise TypeError(f"co.explain({name}) converts the module by an example: give a clip, co.explain(module, clip)")
            return explain(_convert(net, clip, **options), clip)
        if options:
            raise TypeError(
                f"co.explain: options are for plain modules, and {name} is streaming already; got {', '.join(options)}"
            )
        own: Any = getattr(net, "operation_graph", None)
        if own is not None:
            return Explanation(**vars(own(clip)))
        return _by_structure(net, clip)
    except NotStreamable as error:
        found = tuple(getattr(error, "refusals", ())) or (Refusal("", "", "", str(error), ""),)
        return Explanation(name, tuple(getattr(error, "rows", ())), (), refusals=found, inputs=_inputs(clip))


def _by_structure(net: CoModule, clip: Any) -> Explanation:
    from .structure import rows_of  # here: it is not needed at import

    name = type(net).__name__
    if clip is None:
        running = net.get_state()
        if running is None:
            raise TypeError(f"co.explain({name}) needs the shapes of a stream: give a clip, co.explain(net, clip)")
        frame = running.frame
    else:
        wire = list(clip) if isinstance(clip, (list, tuple)) else clip
        frame = frame_of(rewire(lambda t: time_second(t, net.time_dim), wire), chunk=True)
    state = net.init_state(rewire(lambda f: f.zeros(), frame))
    rows, outputs = rows_of(net, state)
    found = frames(state.frame)
    inputs = (f"{'x' if len(found) == 1 else f'x{k}'} {_clip_shape(f, net.time_dim)}" for k, f in enumerate(found))
    return Explanation(name, rows, outputs, inputs=tuple(inputs))


def _clip_shape(frame: StepSpec, time_dim: int) -> str:
    sizes = [str(n) for n in frame.shape]
    return f"({', '.join([*sizes[:time_dim], 'T', *sizes[time_dim:]])})"


def _inputs(clip: Any) -> tuple[str, ...]:
    """The shapes of the example, for a module that could not be followed."""
    clips = clip if isinstance(clip, (list, tuple)) else [clip]
    return tuple(f"{'x' if len(clips) == 1 else f'x{k}'} {tuple(t.shape)}" for k, t in enumerate(clips) if isinstance(t, Tensor))
