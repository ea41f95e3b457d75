"""Recurrent layers: `RNN`, `GRU` and `LSTM`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Never

from torch import Tensor, nn

from ...core.module import CoModule
from ...core.naming import named
from ...core.registry import register_class
from ...errors import NotStreamable
from ..wrapped import STEPPERS
from .base import Recurrent, refuse_backward, refuse_options


class _Layers(Recurrent):
    """What the three layers share. ``forward`` is the clip computation of ``torch.nn``, in the layout ``(B, C, T)``."""

    _gives_more = True
    batch_first: bool
    bidirectional: bool
    flatten_parameters: Any  # of nn.RNNBase
    _init_flat_weights: Any

    @classmethod
    def _before_copy(cls, module: nn.Module, memo: dict[int, Any]) -> None:
        """Exclude torch's list of the weights from the copy: with a parametrisation it holds tensors that can't be copied."""
        if "_flat_weights" in module.__dict__:
            memo[id(module.__dict__["_flat_weights"])] = []

    def configure(self) -> None:
        """Refuse bidirectional modules; the layout is ``(B, C, T)``, whatever it was."""
        if self.bidirectional:
            refuse_backward(type(self).__name__)
        self.batch_first = False
        self._init_flat_weights()  # torch's references to the weights; on GPUs they are laid side by side

    @property
    def _flat_weights(self) -> list[Any]:
        """The weights in the order of torch's functions.

        ``nn.RNNBase`` keeps such a list and has to keep it up to date (copies, moves, parametrisations, new parameters). Here
        it is computed, so that it can't be wrong; what ``nn.RNNBase`` assigns to it is not needed.
        """
        return [getattr(self, name, None) for name in self.__dict__.get("_flat_weights_names", ())]

    @_flat_weights.setter
    def _flat_weights(self, weights: Any) -> None:
        pass

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.flatten_parameters()  # on GPUs: copied parameters lie apart

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """The clip computation. It reads and writes no stream state.

        Args:
            input: the clip ``(B, C, T)``.
            hx: the hidden state to start from, ``(layers, B, H)``, for an LSTM ``(h, c)``; ``None`` for zeros.

        Returns:
            The outputs ``(B, H, T)``, and the hidden state after the last step, as ``hx``. Containers pass on the outputs.

        Raises:
            ShapeMismatch: an input or a hidden state of another rank, size, dtype or device.
        """
        y, hidden = self._from_hidden(input, hx)
        return y, hidden[0] if len(hidden) == 1 else tuple(hidden)


class RNN(_Layers, nn.RNN):
    """Elman recurrent layers, ``nn.RNN`` on clips ``(B, C, T)`` and on steps ``(B, C)``.

    Args:
        input_size, hidden_size, num_layers, nonlinearity, bias, dropout, device, dtype: as ``torch.nn.RNN``. There is no
            ``batch_first``: the layout is ``(B, C, T)`` always.
        bidirectional: ``False``; a stream runs forward only.

    Raises:
        NotStreamable: ``bidirectional=True``.
        ShapeMismatch: when run on an input of another shape or dtype.

    Example:
        >>> rnn = co.RNN(4, 8, nonlinearity="relu")
        >>> out, h = rnn(torch.randn(2, 4, 10))
        >>> out.shape, h.shape, rnn.forward_step(torch.randn(2, 4)).shape
        (torch.Size([2, 8, 10]), torch.Size([1, 2, 8]), torch.Size([2, 8]))
    """

    if TYPE_CHECKING:

        def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]: ...  # type: ignore[override]
        def __call__(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]: ...  # type: ignore[override]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        dropout: float = 0.0,
        device: Any = None,
        dtype: Any = None,
        *,
        bidirectional: bool = False,
        **unknown: Never,
    ):
        refuse_options(type(self).__name__, bidirectional, unknown)
        sizes: dict[str, Any] = {"num_layers": num_layers, "nonlinearity": nonlinearity, "bias": bias, "dropout": dropout}
        super().__init__(input_size, hidden_size, **sizes, device=device, dtype=dtype)
        self.configure()

    def extra_repr(self) -> str:
        return super().extra_repr() + (", nonlinearity=relu" if self.mode == "RNN_RELU" else "")


class GRU(_Layers, nn.GRU):
    """Gated recurrent layers, ``nn.GRU`` on clips ``(B, C, T)`` and on steps ``(B, C)``.

    Args:
        input_size, hidden_size, num_layers, bias, dropout, device, dtype: as ``torch.nn.GRU``. There is no ``batch_first``: the
            layout is ``(B, C, T)`` always, also of a converted ``nn.GRU(…, batch_first=True)``.
        bidirectional: ``False``; a stream runs forward only.

    Raises:
        NotStreamable: ``bidirectional=True``.
        ShapeMismatch: when run on an input of another shape or dtype.

    Example:
        >>> trained = nn.GRU(4, 8, batch_first=True)
        >>> gru, clip = co.continual(trained), torch.randn(2, 4, 10)
        >>> steps = [gru.forward_step(clip[:, :, t]) for t in range(10)]
        >>> torch.allclose(torch.stack(steps, 1), trained(clip.transpose(1, 2))[0], atol=1e-6)
        True
    """

    if TYPE_CHECKING:

        def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]: ...  # type: ignore[override]
        def __call__(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]: ...  # type: ignore[override]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        device: Any = None,
        dtype: Any = None,
        *,
        bidirectional: bool = False,
        **unknown: Never,
    ):
        refuse_options(type(self).__name__, bidirectional, unknown)
        sizes: dict[str, Any] = {"num_layers": num_layers, "bias": bias, "dropout": dropout}
        super().__init__(input_size, hidden_size, **sizes, device=device, dtype=dtype)
        self.configure()


class LSTM(_Layers, nn.LSTM):
    """Long short-term memory layers, ``nn.LSTM`` on clips ``(B, C, T)`` and on steps ``(B, C)``.

    Args:
        input_size, hidden_size, num_layers, bias, dropout, device, dtype, proj_size: as ``torch.nn.LSTM``. There is no
            ``batch_first``: the layout is ``(B, C, T)`` always.
        bidirectional: ``False``; a stream runs forward only.

    Raises:
        NotStreamable: ``bidirectional=True``.
        ShapeMismatch: when run on an input of another shape or dtype.

    Example:
        >>> net = co.Sequential(co.Conv1d(4, 8, 3, padding=1), co.LSTM(8, 16, num_layers=2), co.Conv1d(16, 2, 1))
        >>> net(torch.randn(2, 4, 10)).shape, net.delay
        (torch.Size([2, 2, 10]), 1)
        >>> out, (h, c) = co.LSTM(4, 8, proj_size=3)(torch.randn(2, 4, 10))
        >>> out.shape, h.shape, c.shape
        (torch.Size([2, 3, 10]), torch.Size([1, 2, 3]), torch.Size([1, 2, 8]))
    """

    if TYPE_CHECKING:

        def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]: ...  # type: ignore[override]
        def __call__(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]: ...  # type: ignore[override]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        device: Any = None,
        dtype: Any = None,
        proj_size: int = 0,
        *,
        bidirectional: bool = False,
        **unknown: Never,
    ):
        refuse_options(type(self).__name__, bidirectional, unknown)
        sizes: dict[str, Any] = {"num_layers": num_layers, "bias": bias, "dropout": dropout, "proj_size": proj_size}
        super().__init__(input_size, hidden_size, **sizes, device=device, dtype=dtype)
        self.configure()


def _not_local(module: nn.Module, dim: int) -> CoModule:
    raise NotStreamable(
        f"forward_stepping({named('', module)}): its outputs depend on all frames before, not on one alone. Use "
        f"co.continual(module), a co.{type(module).__name__} with the same weights on clips (B, C, T)"
    )


register_class(nn.RNN, RNN)
register_class(nn.GRU, GRU)
register_class(nn.LSTM, LSTM)
STEPPERS[nn.RNNBase] = _not_local
