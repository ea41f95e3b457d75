"""The base class of recurrent modules: its kernel carries hidden states from step to step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.call_modes import current_mode
from ...core.naming import named
from ...core.program.context import KernelContext, Run, carried
from ...core.registry import TorchLayer
from ...core.state import InitContext, State, StateNode, StateUpdates, StepSpec
from ...core.timing import IDENTITY, Timing
from ...errors import ContinualError, NotStreamable, ShapeMismatch, StateMismatch
from ...layers.recurrent.fused_cells import FUSED_CELLS
from ..local import check_home

Hidden = Sequence[Tensor]  # the hidden state, or hidden and cell state


class CellKind(NamedTuple):
    """A recurrent cell by torch's own functions.

    Attributes:
        names: of its state tensors.
        over_clip: ``(B, T, C)``, hidden states ``(layers, B, H)``, weights, … to output ``(B, T, H)`` and hidden states.
        over_step: ``(B, C)``, hidden states ``(B, H)`` and one layer's weights to hidden states, of which the first is the output.
    """

    names: tuple[str, ...]
    over_clip: Callable[..., Hidden]
    over_step: Callable[..., Hidden]


def _with_one_state(over_clip: Callable[..., Hidden], over_step: Callable[..., Tensor]) -> CellKind:
    return CellKind(
        ("hidden",),
        lambda x, hidden, *options: over_clip(x, hidden[0], *options),
        lambda x, hidden, *weights: (over_step(x, hidden[0], *weights),),
    )


RECURRENCES: dict[str, CellKind] = {
    "RNN_TANH": _with_one_state(torch.rnn_tanh, torch.rnn_tanh_cell),
    "RNN_RELU": _with_one_state(torch.rnn_relu, torch.rnn_relu_cell),
    "GRU": _with_one_state(torch.gru, torch.gru_cell),
    "LSTM": CellKind(("hidden", "cell"), torch.lstm, torch.lstm_cell),
}


def _projected_step(x: Tensor, hidden: Hidden, w_ih: Tensor, w_hh: Tensor, *more: Tensor) -> Hidden:
    """A step of an LSTM whose hidden state is a projection, which ``torch.lstm_cell`` does not do."""
    *biases, w_hr = more
    gates = F.linear(x, w_ih, *biases[:1]) + F.linear(hidden[0], w_hh, *biases[1:])
    take, forget, new, give = gates.chunk(4, 1)
    cell = forget.sigmoid() * hidden[1] + take.sigmoid() * new.tanh()
    return F.linear(give.sigmoid() * cell.tanh(), w_hr), cell


class Recurrent(TorchLayer):
    """Base class of recurrent modules: clips ``(B, C, T)``, steps ``(B, C)``. A subclass is a ``torch.nn`` class too.

    A chunk is one call of torch's function for clips. A step calls the function for single cells instead, layer by layer: on
    CPUs it takes a fifth (LSTM) to a half (GRU) of the time of the other, which prepares itself for a clip each time.
    The weights are read where the parameters are, at each call, so that whatever replaces a parameter is noticed.
    """

    unbounded_memory = True
    mode: str  # the key in RECURRENCES
    input_size: int
    hidden_size: int
    bias: bool
    num_layers: int = 1
    proj_size: int = 0
    dropout: float = 0.0
    _all_weights: Any  # the parameters' names, for each layer

    @property
    def timing(self) -> Timing:
        return IDENTITY

    @property
    def kind(self) -> str:
        projected = f" projected to {self.proj_size}" if self.proj_size else ""
        return f"{self.mode} {self.input_size} to {self.hidden_size}{projected}, {self.num_layers} layers"

    # ---- the computation --------------------------------------------------------------------------------------------

    def weights(self, layer: int) -> list[Tensor]:
        """The weights of a layer: input, hidden, biases if it has some, projection if it has one."""
        own, names = self._parameters, self._all_weights[layer]
        return [w for n in names if (w := own[n] if n in own else getattr(self, n)) is not None]

    def over_clip(self, x: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """``(B, C, T)`` and hidden states ``(layers, B, H)`` to output ``(B, H, T)`` and hidden states."""
        flat = [w for layer in range(self.num_layers) for w in self.weights(layer)]
        start = [h.contiguous() for h in hidden]  # cuDNN asks for it
        options = (flat, self.bias, self.num_layers, self.dropout, self.training, False, True)
        y, *hidden = RECURRENCES[self.mode].over_clip(x.transpose(1, 2), start, *options)
        return y.transpose(1, 2), hidden

    def over_step(self, x: Tensor, hidden: Sequence[Hidden]) -> list[Hidden]:
        """``(B, C)`` and the hidden states ``(B, H)`` of each layer to new ones; the first of the last layer is the output."""
        step = _projected_step if self.proj_size else RECURRENCES[self.mode].over_step
        new: list[Hidden] = []
        for layer, old in enumerate(hidden):
            if layer and self.dropout and self.training:
                x = F.dropout(x, self.dropout)
            new.append(step(x, old, *self.weights(layer)))
            x = new[-1][0]
        return new

    # ---- the kernel -------------------------------------------------------------------------------------------------

    def open(self, frame: StepSpec, init: InitContext) -> StateNode:
        name = named(init.path, self)
        if len(frame.shape) != 2 or frame.shape[1] != self.input_size:
            raise ShapeMismatch(f"{name}: expects steps (B, {self.input_size}), got {tuple(frame.shape)}")
        self._check_home(frame, name)
        out = frame.resized(frame.shape[0], self.proj_size or self.hidden_size)
        with torch.inference_mode(False):
            cold = [h.transpose(0, 1) for h in self._cold(frame)]
        node = StateNode(init, self.kind, out, dict(zip(RECURRENCES[self.mode].names, cold, strict=True)))
        node.item = _with_layers_first if len(self._user_shapes("B")[0]) == 3 else _without_layers
        return node

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        if x is None:
            return None, n_if_ended
        hidden: Hidden = node.tensors
        if torch.is_grad_enabled():  # tensors from an earlier inference mode can't be saved for the backward pass
            hidden = [h.clone() if h.is_inference() else h for h in hidden]
        if x.shape[2] == 1 and not torch.is_autocast_enabled(x.device.type):  # autocast treats cells otherwise than clips
            new = self.over_step(x.squeeze(2), _by_layer(hidden))
            y, hidden = new[-1][0].unsqueeze(2), [torch.stack(h) for h in zip(*new, strict=True)]
        else:
            y, hidden = self.over_clip(x, [h.transpose(0, 1) for h in hidden])
        for index, h in enumerate(hidden):
            updates.put(node, index, h.transpose(0, 1))
        return y, n_if_ended

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor | None:
        if torch.is_autocast_enabled(x.device.type):
            return cast("Tensor | None", super().advance_step(x, node, updates))
        hidden = node.memo
        if hidden is None:
            hidden = node.memo = _by_layer(node.tensors)
        new = self.over_step(x, hidden)
        for old, now in zip(hidden, new, strict=True):
            updates.slots.extend(zip(old, now, strict=True))
        y: Tensor = new[-1][0]
        return y

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> int:
        return sum(w.numel() for layer in range(self.num_layers) for w in self.weights(layer) if w.ndim == 2)

    # ---- hidden states as the user has them -------------------------------------------------------------------------

    def __call__(self, input: Any, *options: Any, **named_options: Any) -> Any:
        mode = current_mode() or self.call_mode
        if mode != "forward" and options and not isinstance(options[0], bool):
            raise TypeError(
                f"{type(self).__name__}: in call mode {mode!r} the hidden state is the stream's: start it by set_state(hx), and "
                "call with the input alone"
            )
        return super().__call__(input, *options, **named_options)

    def set_state(self, state: State | Tensor | tuple[Tensor, ...] | None) -> None:
        """Continue from a snapshot, or start a stream from a hidden state.

        Args:
            state: a state from ``get_state`` or ``init_state``, or a hidden state as ``torch.nn`` has it: ``(layers, B, H)``,
                for an LSTM the pair ``(h, c)``; without the layers for a cell. ``tuple(net.get_state())`` is one. It is copied;
                gradients flow into it.
                ``None`` makes the stream cold: the hidden state is zero.

        Raises:
            StateMismatch: a snapshot of another network, or a hidden state of another shape, dtype or device. The module keeps
                its state.

        Example:
            >>> lstm, clip = co.LSTM(4, 8), torch.randn(2, 4, 10)
            >>> out, hidden = lstm(clip[:, :, :6])
            >>> lstm.set_state(hidden)
            >>> rest = lstm.forward_steps(clip[:, :, 6:])
            >>> torch.allclose(torch.cat((out, rest), 2), lstm(clip)[0], atol=1e-6)
            True
        """
        if isinstance(state, (Tensor, tuple, list)):
            self.__dict__["_stream"] = self._started(state)
        elif state is None or isinstance(state, State):
            super().set_state(state)
        else:
            raise StateMismatch(
                f"{type(self).__name__}.set_state takes a state from get_state or init_state, {self._described(None)}, or None; "
                f"got {type(state).__name__}"
            )

    def _started(self, hidden: Any) -> State:
        """A stream that starts from a hidden state."""
        hidden = self._checked_hidden(hidden, None, StateMismatch)
        weight, keep = self.weights(0)[0], torch.is_grad_enabled()
        state = self._open(StepSpec((hidden[0].shape[1], self.input_size), weight.dtype, weight.device))
        with torch.inference_mode(False):
            state.node.tensors = [(h if keep else h.detach()).transpose(0, 1).clone() for h in hidden]
        state.owned = not any(t.requires_grad for t in state.node.tensors)
        return state

    def _checked_hidden(self, state: Any, batch: int | None, error: type[ContinualError]) -> Hidden:
        """A user's hidden state as tensors ``(layers, B, H)``, checked; ``batch`` where it is known."""
        names, weight = RECURRENCES[self.mode].names, self.weights(0)[0]
        hidden = list(state) if isinstance(state, (tuple, list)) else [state]
        fits = len(hidden) == len(names) and all(isinstance(h, Tensor) for h in hidden)
        fits = fits and all(h.dtype == weight.dtype and h.device == weight.device for h in hidden)
        if fits:
            batch = hidden[0].shape[-2] if batch is None and hidden[0].ndim > 1 else batch
            fits = [tuple(h.shape) for h in hidden] == self._user_shapes(batch)
        if not fits:
            got = ", ".join(str(StepSpec.of(h)) if isinstance(h, Tensor) else type(h).__name__ for h in hidden)
            home = f"{str(weight.dtype).removeprefix('torch.')} on {weight.device}"
            raise error(f"{type(self).__name__}: takes {self._described(batch)}, {home}; got {got or 'nothing'}")
        return [h.reshape(self.num_layers, *h.shape[-2:]) for h in hidden]

    def _shapes(self, batch: Any) -> list[tuple[Any, ...]]:
        """The shapes of the hidden states, layers first."""
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)
        return [(self.num_layers, batch, size) for size in sizes[: len(RECURRENCES[self.mode].names)]]

    def _user_shapes(self, batch: Any) -> list[tuple[Any, ...]]:
        """The same as the user has them."""
        return self._shapes(batch)

    def _described(self, batch: int | None) -> str:
        shapes = [f"({', '.join(map(str, shape))})" for shape in self._user_shapes("B" if batch is None else batch)]
        return f"a hidden state {shapes[0]}" if len(shapes) == 1 else f"a pair (h, c) of {' and '.join(shapes)}"

    # ---- clips ------------------------------------------------------------------------------------------------------

    def _from_hidden(self, input: Tensor, hx: Any) -> tuple[Tensor, Hidden]:
        """The clip computation from a hidden state as the user has it, ``None`` for zeros.

        Raises:
            ShapeMismatch: an input or a hidden state of another rank, size, dtype or device.
        """
        name, size = type(self).__name__, self.input_size
        if not isinstance(input, Tensor):
            raise ShapeMismatch(
                f"{name}: a clip is a tensor (B, {size}, T), not {type(input).__name__}. Rows of different lengths: pad them and "
                "take of each output what belongs to it, or stream each row on its own"
            )
        shape = tuple(input.shape)
        if len(shape) != 3:
            raise ShapeMismatch(
                f"{name}: a clip is (B, {size}, T), got {shape}. Give one clip ({size}, T) a batch dimension, x.unsqueeze(0); "
                "a step (B, C) goes to forward_step"
            )
        if shape[1] != size:
            raise ShapeMismatch(
                f"{name}: expects {size} channels in dim 1 of (B, C, T), got {shape}. From (T, B, C), the layout of torch.nn, "
                "x.permute(1, 2, 0) leads there, and from (B, T, C), that of batch_first, x.transpose(1, 2)"
            )
        frame = StepSpec.of_chunk(input)
        self._check_home(frame, name)
        return self.over_clip(input, self._cold(frame) if hx is None else self._checked_hidden(hx, shape[0], ShapeMismatch))

    def _cold(self, frame: StepSpec) -> Hidden:
        return [torch.zeros(shape, dtype=frame.dtype, device=frame.device) for shape in self._shapes(frame.shape[0])]

    def _check_home(self, frame: StepSpec, name: str) -> None:
        weight = self.weights(0)[0]
        mixed = frame.dtype != weight.dtype and torch.is_autocast_enabled(frame.device.type)
        check_home(weight, frame, name, mixed)

    def program(self, ctx: KernelContext) -> Run:
        """RNN, GRU and LSTM, cell by cell; each self's state is a tensor of its own."""
        names = RECURRENCES[self.mode].names
        specs = [
            ctx.state_tensor(f"{name}{i or ''}", StepSpec.of(t[:, i]), None)
            for i in range(self.num_layers)
            for name, t in zip(names, ctx.node.tensors, strict=True)  # (B, layers, H)
        ]
        cell = FUSED_CELLS[self.mode] if ctx.target.compiler_fuses and not self.proj_size else None

        def step(x: Tensor, state: list[Tensor], index: Tensor) -> tuple[Tensor, list[Tensor]]:
            by_layer = [tuple(state[i : i + len(names)]) for i in range(0, len(state), len(names))]
            if cell is None:
                new = self.over_step(x, by_layer)
            else:
                new = []
                for i, old in enumerate(by_layer):
                    new.append(cell(x, old, *self.weights(i)))
                    x = new[-1][0]
            return new[-1][0], [t for parts in new for t in parts]

        return lambda x, rows: carried(ctx, specs, x, rows, step)


def _with_layers_first(hidden: Tensor) -> Tensor:
    """A state tensor ``(B, layers, H)`` as ``torch.nn`` has it."""
    return hidden.transpose(0, 1)


def _without_layers(hidden: Tensor) -> Tensor:
    """The same for a cell, ``(B, H)``."""
    return hidden.squeeze(1)


ITEM_LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {  # as files of states name them
    "layers first": _with_layers_first,
    "no layers": _without_layers,
}


def _by_layer(tensors: Hidden) -> list[Hidden]:
    """Views of the state tensors: for each layer its hidden states ``(B, H)``."""
    return list(zip(*(t.unbind(1) for t in tensors), strict=True))


def refuse_options(name: str, bidirectional: bool, unknown: dict[str, Any]) -> None:
    """Refuse keyword arguments that a recurrent layer does not take.

    Raises:
        NotStreamable: ``bidirectional``.
        TypeError: any unknown one.
    """
    if bidirectional:
        refuse_backward(name)
    for option, value in unknown.items():
        why = "there is no such argument"
        if option == "batch_first":
            why = "input and output are (B, C, T) always, as in all modules of this library: leave it out, and transpose what is not"
        raise TypeError(f"{name}({option}={value!r}): {why}")


def refuse_backward(name: str) -> NoReturn:
    """Refuse a bidirectional module."""
    raise NotStreamable(
        f"{name}(bidirectional=True) reads the clip from its end, which a stream has not seen: its first output would come with "
        "the last step. Remedies: train it with bidirectional=False; or split it, stream the forward half and run the backward "
        "half on clips of the past"
    )
