"""`co.compile`: a network as a step program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ..core.module import CoModule
from ..core.step_spec import Inputs

if TYPE_CHECKING:
    from .step_program import StepProgram

Backend = Literal["inductor", "aot", "cudagraph", "onnxruntime", "openvino", "eager"]


def compile(net: CoModule, step: Inputs, *, chunk: int | None = None, backend: Backend = "inductor") -> StepProgram:
    """Compile a network to a step program: a pure function of static shapes that serves many streams, each with its own clock.

    Args:
        net: a streaming network, in eval mode. Compiled backends use its present weights; compile again after a change.
        step: an example step ``(B, C, *S)``, whose batch size is the number of rows; several inputs as a list. Its values do not matter.
        chunk: steps per call, a multiple of what the strides need; ``None``: the fewest. With more steps per call, each step costs less.
        backend: ``"inductor"`` (``torch.compile``), ``"aot"`` (an AOTInductor package: the least overhead per call), ``"cudagraph"`` (on
            a GPU). Without a compiler: ``"onnxruntime"`` or ``"openvino"`` (these runtimes, on the CPU), or ``"eager"`` (torch operations
            one by one). The first call compiles.

    Returns:
        ``program(x, state, active) → (y, valid, state)``; see :class:`~continual.StepProgram`.

    Raises:
        NotStreamable: the network is in training mode, or it contains a :class:`~continual.Conditional`. Or its calls can't have a fixed
            number of outputs: padding by more than the window, or by repeated or mirrored frames before the window.
        ValueError: an unknown backend, or a chunk that does not fit the strides.
        ExportError: the compiler, the package or the GPU of the backend is missing, or the backend lacks an operation.

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
    from .step_program import StepProgram  # here: `import continual` loads no backend

    return StepProgram(net, step, chunk, backend)
