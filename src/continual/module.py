"""`CoModule`: a module that runs on clips, on chunks and on single steps, with the same result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from .calling import call_mode, call_with_hooks, checked_mode, current_mode, routed_forward
from .counting import Countable
from .edits import Guarded, compute_weights
from .errors import ContinualError, NotStreamable, ShapeMismatch, StateMismatch
from .inputs import check_lengths, frame_of, join, pieces, time_second
from .kernel import Kernel, chunk_of_one, only_frame
from .outside import eagerly, in_dispatch, in_graph, is_dynamo_compiling, is_tracing, leaves
from .padding_mode import PaddingMode
from .state import Call, Frame, Opening, State, Wire, frames, length, rewire
from .utils import FlatNames

__all__ = ["CoModule", "PaddingMode", "call_mode"]


_structure = [0]  # counts all changes of containers, so that a running stream notices one cheaply


def structure_changed() -> None:
    """Tell running streams that some container was changed."""
    _structure[0] += 1


class CoModule(FlatNames, Countable, Guarded, Kernel):
    """Base class of all streaming modules.

    One network, three ways to run it, one result. For a clip ``x`` of shape ``(B, C, T, *S)``:

    - ``forward(x)`` is the computation of the ``torch.nn`` module. It neither reads nor writes stream state.
    - ``forward_steps`` on any split of ``x`` into chunks, the last with ``pad_end=True``, gives outputs that concatenate to
      ``forward(x)``.
    - ``forward_step`` takes one step ``(B, C, *S)`` and returns the output that it completes, or ``None``.

    An output is returned by the call that brings the last input on which it depends: never later. The state belongs to the
    module on which the call is made. ``step``, ``steps`` and ``init_state`` are the same computation as pure functions.

    **Writing a layer** takes a :attr:`timing` and a kernel. Most layers are a :class:`~continual.window.SlidingWindow`
    or a :class:`~continual.local.Local`; otherwise override :meth:`open` (the cold state) and :meth:`advance` (the kernel,
    pure: it reads ``node.tensors`` and hands every change to ``call``), and :meth:`advance_step` where a step can be faster
    than a chunk of one. ``co.verify`` tells whether it is right.
    """

    runs_kernel = True  # for a class whose own forward_step(s) run its kernel, so that containers may do so too
    _stream: State | None = None
    _own_mode: str = "forward"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not getattr(cls.forward, "is_routed", False):
            cls.forward = routed_forward(cls.forward)  # type: ignore[method-assign]

    # ---- the three ways to run --------------------------------------------------------------------------------------

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

    def forward(self, input: Wire) -> Wire:
        """The clip computation, identical to the ``torch.nn`` module's.

        Args:
            input: the clip ``(B, C, T, *S)``.

        Returns:
            The outputs ``(B, C', T', *S')``.
        """
        raise NotStreamable(f"{type(self).__name__} defines no `forward`")

    def forward_step(self, input: Wire, update_state: bool = True) -> Wire | None:
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
        state = self._stream_for(input)
        if state.quick and state.clock >= state.quick_from and not torch.is_grad_enabled():
            state, call = state.taken(), Call()
            y = self.advance_step(input, state.node, call)
            if update_state:
                call.apply_in_place()
                state.clock += 1
                self.__dict__["_stream"] = state
            return y
        y = self._run(state, rewire(chunk_of_one, input), False, update_state)
        return y if y is None or state.bursts else rewire(only_frame, y)

    def forward_steps(self, input: Wire, pad_end: bool = False, update_state: bool = True) -> Wire | None:
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
        chunk = input if self.time_dim == 2 else rewire(lambda t: time_second(t, self.time_dim), input)
        y = self._chunk(chunk, pad_end, update_state)
        return y if y is None or self.time_dim == 2 else rewire(lambda t: t.movedim(2, self.time_dim), y)

    # ---- state ------------------------------------------------------------------------------------------------------

    def get_state(self) -> State | None:
        """An independent snapshot of the stream, at any phase; ``None`` if it is cold."""
        return None if self._stream is None else self._stream.clone()

    def set_state(self, state: State | None) -> None:
        """Continue from a snapshot, of any batch size; the next input must match it. ``None`` makes the stream cold.

        While a stream is running, the snapshot's steps must be like its steps but for the batch; from cold, any are taken that
        the network takes.

        Raises:
            StateMismatch: the snapshot belongs to another network. The module keeps its state.
        """
        if state is None:
            return self.clean_state()
        if not isinstance(state, State):
            raise StateMismatch(
                f"{type(self).__name__}.set_state takes a state from get_state or init_state, or None, not {type(state).__name__}"
            )
        fresh = self._twin(state)
        if self._stream is not None:  # a running stream has a dtype and a frame size, also where the module has not
            self._stream.check_twin(state, f"{type(self).__name__}, whose stream is running")
        self.__dict__["_stream"] = self._adopt(fresh, state.clone())

    def clean_state(self) -> None:
        """Forget the stream: the next input is its first."""
        self.__dict__["_stream"] = None

    def detach_state(self) -> None:
        """Cut the autograd graph of the stream (for truncated back-propagation through time)."""
        if self._stream is not None:
            self.__dict__["_stream"] = self._stream.detach()

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

    def init_state(self, step: Wire) -> State:
        """The cold state of a stream of steps like this one. Only the step's shape, dtype and device matter.

        Args:
            step: ``(B, C, *S)``.
        """
        state = self._open(Frame.of(step))
        state.owner = self
        return state

    def step(self, x: Wire, state: State) -> tuple[Wire | None, State]:
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
        self._check(x, state, chunk=False)
        y, new = self._pure(rewire(chunk_of_one, x), state, False)
        return (y if y is None or new.bursts else rewire(only_frame, y)), new

    def steps(self, x: Wire, state: State, pad_end: bool = False) -> tuple[Wire | None, State]:
        """A chunk as a pure function: ``(B, C, T, *S), state → outputs or None, new state``."""
        chunk = rewire(lambda t: time_second(t, self.time_dim), x)
        y, new = self._pure_chunk(chunk, state, pad_end)
        return (y if y is None or self.time_dim == 2 else rewire(lambda t: t.movedim(2, self.time_dim), y)), new

    # ---- building ---------------------------------------------------------------------------------------------------

    @staticmethod
    def build_from(module: nn.Module, *args: Any, **kwargs: Any) -> CoModule:
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

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _open(self, frame: Any) -> State:
        """A cold state for steps like ``frame``."""
        for f in frames(frame):
            if len(f.shape) < 2:
                raise ShapeMismatch(f"{type(self).__name__}: a step has the shape (B, C, *S), got {tuple(f.shape)}")
        node = self.open(frame, Opening())
        timing = self.timing
        plain = None if self.plan(node, 0) is None else timing.plain()
        bursts, quick_from = (timing.bursts, 0) if plain is None else (False, plain.after)
        quick, version = plain is not None, _structure[0]
        state = State(0, frame, node, quick=quick, quick_from=quick_from, bursts=bursts, steady=timing.steady, version=version)
        state.largest = max((f.nbytes for n in node.walk() if n.out is not None for f in frames(n.out)), default=0)
        return state

    def _twin(self, state: State) -> State:
        """A cold state of this network for the steps of a given one, which must be of the same network."""
        try:
            fresh = self._open(state.frame)
        except (ContinualError, RuntimeError) as error:
            raise StateMismatch(f"{type(self).__name__}: this state belongs to another network ({error})") from error
        fresh.check_twin(state, type(self).__name__)
        return fresh

    def _adopt(self, fresh: State, state: State) -> State:
        """Put a state's tensors and clock on a freshly opened tree."""
        given = state.tensors
        for node in fresh.node.walk():
            node.tensors = [given[f"{node.path}.{name}".lstrip(".")] for name in node.names]
        fresh.clock = state.clock
        if state.node.kind != STORED:
            for new, old in zip(fresh.node.walk(), state.node.walk(), strict=True):
                new.seen, new.sent = old.seen, old.sent
        else:
            self.recount(fresh.node, state.clock, state.clock)
        return fresh

    def _stream_for(self, input: Wire, chunk: bool = False) -> State:
        """The running stream if the input fits it, or a cold one."""
        if self._forward_pre_hooks:
            compute_weights(self)
        state = self._stream
        if state is None:
            frame = frame_of(input, chunk)
            check_lengths(type(self).__name__, input, chunk)
            return self._open(frame)
        if not (isinstance(input, Tensor) and isinstance(state.frame, Frame) and state.frame.fits(input, chunk)):
            self._check(input, state, chunk)
        if state.version != _structure[0]:
            self._open(state.frame).check_twin(state, f"{type(self).__name__} was changed while a stream ran")
            state.version = _structure[0]
        return state

    def _check(self, input: Wire, state: State, chunk: bool) -> None:
        """Refuse an input that does not fit the stream."""
        got = frame_of(input, chunk)
        check_lengths(type(self).__name__, input, chunk)
        if got != state.frame:
            shown = "; ".join(map(str, frames(got)))
            raise ShapeMismatch(
                f"{type(self).__name__}: this stream runs on steps {'; '.join(map(str, frames(state.frame)))}, got {shown}. "
                "Call clean_state() to start another stream, or set_state() to continue one of this shape"
            )

    def _chunk(self, chunk: Wire, pad_end: bool, update_state: bool) -> Wire | None:
        """Run a chunk whose time is dim 2."""
        state = self._stream_for(chunk, chunk=True)
        if self._stream is None and length(chunk) == 0:
            return None  # nothing has come: the stream stays cold
        return self._run(state, chunk, pad_end, update_state)

    def _pure_chunk(self, chunk: Wire, state: State, pad_end: bool) -> tuple[Wire | None, State]:
        """Run a chunk whose time is dim 2 as a pure function."""
        if in_graph():
            return eagerly(CoModule._pure_chunk, self, chunk, state, pad_end)
        self._check(chunk, state, chunk=True)
        return self._pure(chunk, state, pad_end)

    def _run(self, state: State, x: Wire, pad_end: bool, update_state: bool) -> Wire | None:
        """The general path: any chunk, any counts, gradients."""
        in_place = not torch.is_grad_enabled()
        parts = pieces(x, state.largest) if in_place else [x]
        if in_place:
            state = state.taken()
        if pad_end or len(parts) > 1:  # what comes after is computed from a state that becomes the stream's if all goes well
            state = state.clone() if in_place else state.forked()
        outputs = []
        for part in parts:
            call = Call(steady=state.steady, in_place=in_place)
            e = state.clock + length(part)
            outputs.append(self.advance(part if length(part) else None, state.node, e, call)[0])
            if update_state or pad_end or len(parts) > 1:
                call.apply_in_place() if in_place else call.apply_as_new()
                state.owned, state.clock = state.owned and in_place, e
        if pad_end:
            outputs.append(self.advance(None, state.node, state.clock, Call(final=True))[0])
        if update_state:
            self.__dict__["_stream"] = state
        return join(*outputs)

    def _pure(self, x: Wire, state: State, pad_end: bool) -> tuple[Wire | None, State]:
        if self._forward_pre_hooks:
            compute_weights(self)
        if state.node.kind == STORED:
            state = self._adopt(self._twin(state), state)
        elif state.owner is not self:
            self._twin(state)  # refuses the state of another network
        new = state.forked()
        new.owner = self
        call = Call(steady=state.steady)
        new.clock = state.clock + length(x)
        y, _ = self.advance(x if length(x) else None, new.node, new.clock, call)
        call.apply_as_new()
        if pad_end:
            y = join(y, self.advance(None, new.node, new.clock, Call(final=True))[0])
        return y, new

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CoModule:
        """``.to()``, ``.half()`` and their like move the stream too."""
        super()._apply(fn, recurse)
        if self._stream is not None:
            self.__dict__["_stream"] = self._stream.map(fn)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles carry a detached state, and nothing that kernels have prepared."""
        held = super().__getstate__() if hasattr(super(), "__getstate__") else self.__dict__
        held = {k: v for k, v in cast(dict[str, Any], held).items() if k not in self._prepared}
        if self._stream is not None:
            held["_stream"] = self._stream.detach()
        return held

    _prepared: frozenset[str] = frozenset()


STORED = "stored"  # the kind of a node that was read from a file: names and tensors, no counts
