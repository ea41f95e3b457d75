"""Recurrent cells as streaming modules: `RNNCell`, `GRUCell` and `LSTMCell`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ...core.inputs import time_second
from ...core.module import CoModule
from ...core.registry import register_class, to_continual
from ..wrapped import STEPPERS
from .base import Recurrent


class _Cell(Recurrent):
    """What the three cells share: a layer whose hidden state has no dimension for layers.

    A cell of ``torch.nn`` knows no time: the caller loops, and carries the hidden state. Here the stream's state is that hidden
    state, and ``forward`` on a clip is the loop.
    """

    _all_weights = (("weight_ih", "weight_hh", "bias_ih", "bias_hh"),)

    def _user_shapes(self, batch: Any) -> list[tuple[Any, ...]]:
        return [shape[1:] for shape in self._shapes(batch)]

    if TYPE_CHECKING:

        def __call__(self, input: Tensor, hx: Any = None) -> Tensor: ...  # type: ignore[override]

    def forward(self, input: Tensor, hx: Any = None) -> Tensor:
        """The cell on each frame in turn: the result of a loop over time that carries the hidden state.

        Args:
            input: the clip ``(B, C, T)``.
            hx: the hidden state to start from, ``(B, H)``, for an LSTM ``(h, c)``; ``None`` for zeros.

        Returns:
            The hidden states after each step, ``(B, H, T)``.

        Raises:
            ShapeMismatch: an input or a hidden state of another rank, size, dtype or device.
        """
        dim = self.time_dim
        if dim == 2 or not isinstance(input, Tensor) or input.ndim != 3:
            return self._from_hidden(input, hx)[0]
        return self._from_hidden(time_second(input, dim), hx)[0].movedim(2, dim)


class RNNCell(_Cell, nn.RNNCell):
    """An Elman cell, ``nn.RNNCell`` on clips ``(B, C, T)`` and on steps ``(B, C)``; the stream carries the hidden state.

    Args:
        input_size, hidden_size, bias, nonlinearity, device, dtype: as ``torch.nn.RNNCell``.

    Raises:
        ShapeMismatch: when run on an input of another shape or dtype.

    Example:
        >>> cell, clip = nn.RNNCell(4, 8), torch.randn(2, 4, 10)
        >>> net, h = co.continual(cell), None
        >>> for t in range(10):
        ...     h = cell(clip[:, :, t], h)
        ...     y = net.forward_step(clip[:, :, t])
        >>> torch.allclose(y, h, atol=1e-6)
        True
    """

    @property
    def mode(self) -> str:  # type: ignore[override]
        """Which of the two recurrences."""
        return f"RNN_{self.nonlinearity.upper()}"


class GRUCell(_Cell, nn.GRUCell):
    """A gated cell, ``nn.GRUCell`` on clips ``(B, C, T)`` and on steps ``(B, C)``; the stream carries the hidden state.

    Args:
        input_size, hidden_size, bias, device, dtype: as ``torch.nn.GRUCell``.

    Raises:
        ShapeMismatch: when run on an input of another shape or dtype.

    Example:
        >>> cell = co.GRUCell(4, 8)
        >>> cell(torch.randn(2, 4, 10)).shape, cell.forward_step(torch.randn(2, 4)).shape
        (torch.Size([2, 8, 10]), torch.Size([2, 8]))
    """

    mode = "GRU"


class LSTMCell(_Cell, nn.LSTMCell):  # type: ignore[misc]
    """A cell with long short-term memory, ``nn.LSTMCell`` on clips ``(B, C, T)`` and on steps ``(B, C)``.

    The stream carries ``(h, c)``; the output is ``h``.

    Args:
        input_size, hidden_size, bias, device, dtype: as ``torch.nn.LSTMCell``.

    Raises:
        ShapeMismatch: when run on an input of another shape or dtype.

    Example:
        >>> cell = co.LSTMCell(4, 8)
        >>> cell.set_state((torch.randn(2, 8), torch.randn(2, 8)))
        >>> cell.forward_steps(torch.randn(2, 4, 10)).shape
        torch.Size([2, 8, 10])
    """

    mode = "LSTM"


def _stepping(module: nn.Module, dim: int) -> CoModule:
    """A cell for :func:`continual.forward_stepping`, which shares parameters."""
    made = to_continual(module)
    made._parameters, made._modules = module._parameters.copy(), module._modules.copy()  # a parametrisation is a module
    made._set_time_dim(dim)
    return made


for _torch, _co in ((nn.RNNCell, RNNCell), (nn.GRUCell, GRUCell), (nn.LSTMCell, LSTMCell)):
    register_class(_torch, _co)
    STEPPERS[_torch] = _stepping
