"""`co.compile`: a network as a step program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ..core.module import CoModule
from ..core.step_spec import Inputs

if TYPE_CHECKING:
    from .step_program import StepProgram

Backend = Literal["inductor", "aot", "cudagraph", "onnxruntime", "openvino", "eager"]


def compile(net: CoModule, step: Inputs, *, chunk: int | None = None, backend: Backend = "inductor") -> StepProgram:
    """Compile a network to a step program: a static-shape pure function that serves many streams at once, each with its own clock.

    Args:
        net: a streaming network, in eval mode. Compiled backends take its weights as they are now; compile again after a change.
        step: a step like those to come, ``(B, C, *S)``, whose batch is the number of rows; several inputs as a list. Its values do not
            matter.
        chunk: steps per call, a multiple of what the strides need (``None``). More steps per call cost less each.
        backend: ``"inductor"`` (``torch.compile``), ``"aot"`` (an AOTInductor package: the least overhead per call), ``"cudagraph"`` (on
            a GPU), ``"onnxruntime"`` or ``"openvino"`` (those runtimes, on the CPU, without a compiler), or ``"eager"`` (torch's
            operations one by one). Code is compiled with the first call.

    Returns:
        ``program(x, state, active) → (y, valid, state)``; see :class:`~continual.StepProgram`.

    Raises:
        NotStreamable: the network is in training mode, or gives outputs at a rhythm that no static shape has: padding by more than the
            window, by repeated or mirrored frames before the window; a :class:`~continual.Conditional`.
        ValueError: an unknown backend, or a chunk that the strides do not divide.
        ExportError: there is no compiler, no package or no GPU for the backend, or an operation that it has not.

    Example:
        >>> net = co.continual(nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU())).eval()
        >>> program = co.compile(net, torch.zeros(1, 2), backend="eager")
        >>> clip = torch.randn(1, 2, 5)
        >>> [None if (y := program.step(clip[:, :, t])) is None else tuple(y.shape) for t in range(5)]
        [None, None, (1, 4), (1, 4), (1, 4)]
    """
    if not isinstance(net, CoModule):
        raise TypeError(
            f"co.compile takes a streaming network, not {type(net).__name__}: convert it by co.continual(module, clip) before"
        )
    from .step_program import StepProgram

    return StepProgram(net, step, chunk, backend)
