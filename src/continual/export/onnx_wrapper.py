"""One step as a pure function of tensors, for export by the user's own code: the `OnnxWrapper` of continual-inference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..core.module import CoModule
from ..core.step_spec import StepSpec
from ..errors import ExportError
from .api import check_net
from .flat_call import FlatCall

__all__ = ["OnnxWrapper"]


class OnnxWrapper(nn.Module):
    """A streaming network as a function ``(x, *state) → (y, *state)`` of one step, for ``torch.onnx.export`` and the like.

    A stream begins with ``y, *state = wrapper(x)``, or with a state of zeros. The first ``net.delay`` outputs have no meaning. The state is
    that of a program, with the number of calls first. Files by :func:`continual.export` say all this themselves.

    Args:
        model: a streaming network in eval mode, with one output for every step.

    Example:
        >>> net = co.Sequential(co.Conv1d(2, 4, 3), nn.ReLU()).eval()
        >>> wrapper, clip = co.onnx.OnnxWrapper(net), torch.randn(2, 2, 5)
        >>> y, *state = wrapper(clip[:, :, 0])
        >>> for x in clip[:, :, 1:].unbind(2):
        ...     y, *state = wrapper(x, *state)
        >>> torch.allclose(y, net(clip)[:, :, -1], atol=1e-6), wrapper.state_input_names
        (True, ['s0', 's1'])
    """

    def __init__(self, model: CoModule):
        super().__init__()
        check_net(model, "OnnxWrapper")
        self.model, self.training = model, model.training
        self._call: FlatCall | None = None
        self._frame: StepSpec | None = None

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One step.

        Args:
            x: ``(B, C, *S)``.
            state: what the call before has returned; nothing at the start of a stream.

        Returns:
            The output ``(B, C', *S')`` and the new state.

        Raises:
            NotStreamable: as :func:`~continual.compile`.
            ExportError: another number of state tensors.
        """
        call = self._call_for(x)
        if not state:
            _, *cold = call.example()
            state = tuple(t[:1].expand(x.shape[0], *t.shape[1:]) for t in cold)
        if len(state) != len(self.state_input_names):
            raise ExportError(
                f"OnnxWrapper: {type(self.model).__name__} has {len(self.state_input_names)} state tensors, got {len(state)}. They are "
                "what the call before has returned, y, *state = wrapper(x, *state); for the first step write wrapper(x). The state of "
                "net.step has another layout"
            )
        y, _, *new = call(x.unsqueeze(call.net.time_dim), *state)
        return (y.squeeze(call.net.time_dim), *new)

    def _call_for(self, x: Tensor) -> FlatCall:
        """The call for steps like this one. It is planned with the first step, before any tracing."""
        frame = StepSpec.of(x).resized(1, *x.shape[1:])
        if self._call is None or frame != self._frame:
            made = FlatCall(self.model, torch.zeros(1, *x.shape[1:], dtype=x.dtype, device=x.device), 1, None, flush=False)
            self.__dict__["_call"], self._frame = made, frame
        call: Any = self._call
        return call

    @property
    def state_input_names(self) -> list[str]:
        """Names for the state tensors that go in, once a step has run: ``["s0", "s1", …]``."""
        if self._call is None:
            raise ExportError("OnnxWrapper: run a step first, y, *state = wrapper(x): the state depends on the size of the steps")
        return [f"s{i}" for i in range(len(self._call.example()) - 1)]

    @property
    def state_output_names(self) -> list[str]:
        """Names for the state tensors that come out."""
        return [f"n{name}" for name in self.state_input_names]
