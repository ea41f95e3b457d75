"""`CoModule`: a module that runs on clips, on chunks and on single steps, with the same result."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, overload

import torch
from torch import Tensor

from ..errors import NotStreamable
from .call_modes import call_mode, call_with_hooks, checked_mode, current_mode, routed_forward
from .edits import Guarded
from .io_layout import IDENTITY
from .kernel import chunk_of_one, only_frame
from .padding_mode import PaddingMode
from .state import State, StateUpdates, StepSpec, Wire, rewire
from .state_dicts import FlatNames
from .step_spec import Inputs
from .stream import StreamOwner
from .tracing_guard import eagerly, in_dispatch, in_graph, is_dynamo_compiling, is_tracing, leaves

__all__ = ["CoModule", "PaddingMode", "call_mode"]


class CoModule(FlatNames, Guarded, StreamOwner):
    """Base class of all streaming modules.

    One network, three ways to run it, one result. For a clip ``x`` of shape ``(B, C, T, *S)``:

    - ``forward(x)`` is the computation of the ``torch.nn`` module. It neither reads nor writes stream state.
    - ``forward_steps`` on any split of ``x`` into chunks, the last with ``pad_end=True``, gives outputs that concatenate to
      ``forward(x)``.
    - ``forward_step`` takes one step ``(B, C, *S)`` and returns the output that it completes, or ``None``.

    An output is returned by the call that brings the last input on which it depends: never later. The state belongs to the
    module on which the call is made. ``step``, ``steps`` and ``init_state`` are the same computation as pure functions.

    **Writing a layer** takes a :attr:`timing` and a kernel. Most layers are a :class:`~continual.layers.window.SlidingWindow` or a
    :class:`~continual.layers.local.LocalInTime`. Otherwise override :meth:`open` (the cold state) and :meth:`advance` (the kernel, pure:
    it reads ``node.tensors`` and hands every change to ``updates``). Override :meth:`advance_step` where a step can be faster than a
    chunk of one. ``co.verify`` tells whether it is right.
    """

    runs_kernel = True  # for a class whose own forward_step(s) run its kernel, so that containers may do so too
    _own_mode: str = "forward"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not getattr(cls.forward, "is_routed", False):
            cls.forward = routed_forward(cls.forward)  # type: ignore[method-assign]

    # ---- the three ways to run --------------------------------------------------------------------------------------

    @overload
    def __call__(self, input: Tensor, *more: Tensor, pad_end: bool = ..., update_state: bool = ...) -> Tensor: ...
    @overload
    def __call__(self, input: Sequence[Inputs], *, pad_end: bool = ..., update_state: bool = ...) -> Wire: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        mode = current_mode() or self._own_mode
        if mode == "forward":
            return super().__call__(*args, **kwargs)
        return call_with_hooks(self, getattr(self, mode), *args, **kwargs)

    @property
    def call_mode(self) -> str:
        """What ``net(x)`` runs: ``"forward"``, ``"forward_steps"`` or ``"forward_step"``. Setting it sets the children too."""
        return self._own_mode

    @call_mode.setter
    def call_mode(self, mode: str) -> None:
        mode = checked_mode(mode)
        for module in self.modules():
            if isinstance(module, CoModule):
                module.__dict__["_own_mode"] = mode

    def forward(self, input: Tensor) -> Tensor:
        """The clip computation, identical to the ``torch.nn`` module's.

        Args:
            input: the clip ``(B, C, T, *S)``.

        Returns:
            The outputs ``(B, C', T', *S')``.
        """
        raise NotStreamable(f"{type(self).__name__} defines no `forward`")

    @overload
    def forward_step(self, input: Tensor, update_state: bool = True) -> Tensor | None: ...
    @overload
    def forward_step(self, input: Sequence[Inputs], update_state: bool = True) -> Wire | None: ...
    @overload
    def forward_step(self, input: Tensor, second: Tensor, /, *more: Tensor, update_state: bool = True) -> Tensor | None: ...
    def forward_step(self, input: Inputs, update_state: bool = True) -> Wire | None:  # type: ignore[misc]  # several inputs: GraphModule
        """One step.

        Args:
            input: ``(B, C, *S)``.
            update_state: with ``False`` the stream stays where it is.

        Returns:
            The output ``(B, C', *S')`` that this step completes, or ``None`` if there is none yet (warming up, or between
            strided outputs). A module that can emit several outputs for one input (``net.timing.bursts``) returns them
            stacked on dim 2, always.

        Raises:
            ShapeMismatch: wrong rank, size, dtype or device. The stream is as before.

        Example:
            >>> net = co.Conv1d(1, 1, 3, padding=1)
            >>> clip = torch.randn(2, 1, 5)
            >>> steps = [net.forward_step(clip[:, :, t]) for t in range(5)]
            >>> [None if s is None else tuple(s.shape) for s in steps]
            [None, (2, 1), (2, 1), (2, 1), (2, 1)]
            >>> torch.allclose(torch.stack(steps[1:], 2), net(clip)[:, :, :4], atol=1e-6)
            True
        """
        if (is_dynamo_compiling() or in_dispatch() or is_tracing()) and leaves(self):
            return eagerly(CoModule.forward_step, self, input, update_state)
        layout = self.io_layout
        x: Any = input if layout is IDENTITY else layout.step_in(input)
        turn = self._take_turn()
        try:
            state = self._stream_for(x)
            if state.fast_path and state.clock >= state.fast_path_from and not torch.is_grad_enabled():
                state, call = state.as_owned(), StateUpdates()
                y = self.advance_step(x, state.node, call)
                if update_state:
                    call.apply_in_place()
                    state.clock += 1
                    self.__dict__["_stream"] = state
                if state.bursts and y is not None:
                    y = rewire(chunk_of_one, y)
            else:
                y = self._run(state, rewire(chunk_of_one, x), False, update_state)
                y = y if y is None or state.bursts else rewire(only_frame, y)
        finally:
            turn.append(None)
        return y if y is None or layout is IDENTITY else layout.step_out(y)

    @overload
    def forward_steps(self, input: Tensor, pad_end: bool = False, update_state: bool = True) -> Tensor | None: ...
    @overload
    def forward_steps(self, input: Sequence[Inputs], pad_end: bool = False, update_state: bool = True) -> Wire | None: ...
    @overload
    def forward_steps(
        self, input: Tensor, second: Tensor, /, *more: Tensor, pad_end: bool = False, update_state: bool = True
    ) -> Tensor | None: ...
    def forward_steps(self, input: Inputs, pad_end: bool = False, update_state: bool = True) -> Wire | None:  # type: ignore[misc]
        """A chunk of steps.

        Args:
            input: ``(B, C, T, *S)``, ``T`` from 0 up.
            pad_end: return also what the end of the stream after this chunk would bring: frames that wait, and outputs
                that see end padding. The stream itself goes on as if it had not been asked for.
            update_state: with ``False`` the stream stays where it is.

        Returns:
            The outputs that the chunk completes, stacked on dim 2, or ``None`` if there are none.

        Raises:
            ShapeMismatch: wrong rank, size, dtype or device. The stream is as before.

        Example:
            >>> net = co.Conv1d(1, 1, 3, padding=1)
            >>> clip = torch.randn(2, 1, 5)
            >>> a, b = net.forward_steps(clip[:, :, :2]), net.forward_steps(clip[:, :, 2:], pad_end=True)
            >>> torch.allclose(torch.cat((a, b), 2), net(clip), atol=1e-6)
            True
        """
        if (is_dynamo_compiling() or in_dispatch() or is_tracing()) and leaves(self):
            return eagerly(CoModule.forward_steps, self, input, pad_end, update_state)
        y = self._chunk(self.io_layout.chunk_in(input), pad_end, update_state)
        return None if y is None else self.io_layout.chunk_out(y)

    def warm_up(self, step_shape: Sequence[int]) -> None:
        """Run ``delay`` dummy steps, so that the next step has an output. The first outputs are then inexact.

        Args:
            step_shape: ``(B, C, *S)``.
        """
        like = next((t for t in self.parameters() if t.is_floating_point()), torch.empty(0))
        step = torch.full(tuple(step_shape), self.dummy_value(), dtype=like.dtype, device=like.device)
        with torch.no_grad():
            for _ in range(self.delay):
                self.forward_step(step)

    # ---- the same, as pure functions --------------------------------------------------------------------------------

    def init_state(self, step: Inputs) -> State:
        """The cold state of a stream of steps like this one. Only the step's shape, dtype and device matter.

        Args:
            step: ``(B, C, *S)``.
        """
        return replace(self._open(StepSpec.of(self.io_layout.step_in(step))), weights=self)

    @overload
    def step(self, x: Tensor, state: State) -> tuple[Tensor | None, State]: ...
    @overload
    def step(self, x: Sequence[Inputs], state: State) -> tuple[Wire | None, State]: ...
    def step(self, x: Inputs, state: State) -> tuple[Wire | None, State]:
        """One step as a pure function: ``(B, C, *S), state → output or None, new state``.

        Example:
            >>> net = co.Conv1d(1, 1, 3, padding=1)
            >>> x = torch.randn(2, 1)
            >>> state = net.init_state(x)
            >>> y, state = net.step(x, state)
            >>> y is None, state.clock
            (True, 1)
        """
        if in_graph():
            return eagerly(CoModule.step, self, x, state)
        step = self.io_layout.step_in(x)
        self._check(step, state, chunk=False)
        y, new = self._pure(rewire(chunk_of_one, step), state, False)
        return (None if y is None else self.io_layout.step_out(y if new.bursts else rewire(only_frame, y))), new

    @overload
    def steps(self, x: Tensor, state: State, pad_end: bool = False) -> tuple[Tensor | None, State]: ...
    @overload
    def steps(self, x: Sequence[Inputs], state: State, pad_end: bool = False) -> tuple[Wire | None, State]: ...
    def steps(self, x: Inputs, state: State, pad_end: bool = False) -> tuple[Wire | None, State]:
        """A chunk as a pure function: ``(B, C, T, *S), state → outputs or None, new state``."""
        y, new = self._pure_chunk(self.io_layout.chunk_in(x), state, pad_end)
        return (None if y is None else self.io_layout.chunk_out(y)), new

    def _forward_step(self, input: Any, prev_state: State | None = None) -> tuple[Any, State]:
        """:meth:`step` under its name in continual-inference; ``None`` is the state of a cold stream. Deprecated."""
        warnings.warn(
            f"{type(self).__name__}._forward_step is net.step under an earlier name: y, state = net.step(x, state), which begins with "
            "state = net.init_state(x)",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.step(input, self.init_state(input) if prev_state is None else prev_state)

    # ---- building ---------------------------------------------------------------------------------------------------

    @staticmethod
    def build_from(module: Any, *args: Any, **kwargs: Any) -> CoModule:
        """The continual version of a ``torch.nn`` module, with a copy of its parameters.

        Args:
            module: the module; it is not changed.
            kwargs: constructor arguments that override the module's, where the class has some.
        """
        raise NotStreamable(
            f"CoModule.build_from: call it on a layer's class, or use co.continual(module) for {type(module).__name__}"
        )

    @staticmethod
    def is_valid(module: object) -> bool:
        """Whether an object can be stepped: the three ``forward`` methods, the state methods and the timing are there."""
        methods = ("forward", "forward_step", "forward_steps", "get_state", "set_state", "clean_state")
        return all(callable(getattr(module, m, None)) for m in methods) and all(
            hasattr(module, a) for a in ("receptive_field", "delay", "stride", "padding")
        )
