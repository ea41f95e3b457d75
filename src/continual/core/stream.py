"""The stream of a module. The module on which a step is called opens it, runs the kernel on it and takes snapshots of it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from ..errors import ContinualError, ShapeMismatch, StateMismatch, StreamInUse
from .call_statistics import call_dependent, restored_buffers
from .edits import compute_weights
from .inputs import check_lengths, frame_of, join, pieces
from .kernel import Kernel
from .moves import moved_stream
from .precision import kept_complex
from .state import InitContext, State, StateUpdates, StepSpec, Structure, Wire, frames
from .step_spec import Inputs, length
from .stored_state import STORED, check_stored
from .tracing_guard import eagerly, in_graph
from .weights_digest import Weights

Self = TypeVar("Self", bound="StreamOwner")
_OF_THE_STREAM = frozenset({"_turn", "_structure", "_watchers"})  # what a copy of a module has again


def _is_causal(module: torch.nn.Module) -> bool:
    return not isinstance(module, Kernel) or bool(module._modules) or module.timing.causal_counts


class StreamOwner(Kernel):
    """A module with a stream of its own."""

    _stream: State | None = None
    _turn: list[None] | None = None  # holds one item, which a call takes while it runs
    _structure: Structure | None = None  # of this network as it was when the stream was opened
    _watchers: weakref.WeakSet[Structure] | None = None  # structures of networks that this module is part of
    _prepared: frozenset[str] = frozenset()  # names of attributes that a kernel has prepared

    def get_state(self) -> State | None:
        """An independent snapshot of the stream, at any phase; ``None`` if it is cold."""
        turn = self._take_turn()
        try:
            return None if self._stream is None else replace(self._stream.clone(), weights=Weights(self))
        finally:
            turn.append(None)

    def set_state(self, state: State | None) -> None:
        """Continue from a snapshot, of any batch size; the next input must match it. ``None`` makes the stream cold.

        While a stream is running, the snapshot's steps must be like its steps but for the batch; from cold, any are taken that
        the network takes.

        Raises:
            StateMismatch: the snapshot belongs to another network, or was read from a file (:func:`~continual.load_state`) and made with
                other weights. The module keeps its state.
        """
        if state is None:
            return self.clean_state()
        if not isinstance(state, State):
            raise StateMismatch(
                f"{type(self).__name__}.set_state takes a state from get_state or init_state, or None, not {type(state).__name__}"
            )
        turn = self._take_turn()
        try:
            self.__dict__["_stream"] = self._continued(state)
        finally:
            turn.append(None)

    def clean_state(self) -> None:
        """Forget the stream: the next input is its first."""
        turn = self._take_turn()
        self.__dict__["_stream"] = None
        turn.append(None)

    def detach_state(self) -> None:
        """Cut the autograd graph of the stream (for truncated back-propagation through time)."""
        turn = self._take_turn()
        try:
            if self._stream is not None:
                self.__dict__["_stream"] = self._stream.detach()
        finally:
            turn.append(None)

    def new_stream(self: Self) -> Self:
        """An independent stream of the same network: cold, and on the very same parameters, buffers and mode.

        A stream is for one caller at a time: a call that meets another one of the same stream raises
        :class:`~continual.StreamInUse`. So give each thread, or each source, a stream of its own. What it needs besides
        its state is small, whatever the size of the network. Parameters that change (training, ``load_state_dict``) change for all
        streams; ``.to()`` moves the shared parameters, so move the network before you take streams of it.

        Returns:
            A module of the same class. Hooks and notes are shared too.

        Example:
            >>> from concurrent.futures import ThreadPoolExecutor
            >>> net = co.Sequential(co.Conv1d(2, 4, 3), nn.ReLU()).eval()
            >>> clips = torch.randn(5, 1, 2, 20)  # five sources
            >>> def run(clip):
            ...     stream = net.new_stream()
            ...     with torch.inference_mode():
            ...         return [stream.forward_step(step) for step in clip.unbind(2)][-1]
            >>> with ThreadPoolExecutor(4) as pool:
            ...     last = list(pool.map(run, clips))
            >>> torch.allclose(torch.stack(last), net(clips.flatten(0, 1))[:, :, -1].unsqueeze(1), atol=1e-6)
            True
        """
        made = shallow(self._apart())
        made.__dict__.update(_stream=None, _structure=self._structure)
        made.__dict__.pop("_turn", None)
        return made

    def _apart(self: Self) -> Self:
        """This module for a stream that may run at the same time as others: itself, if its kernel keeps nothing outside of the state."""
        children = {n: m._apart() if isinstance(m, StreamOwner) else m for n, m in self._modules.items()}
        if all(child is self._modules[n] for n, child in children.items()):
            return self
        made = shallow(self)
        made.__dict__["_modules"] = children
        return made

    def _take_turn(self) -> list[None]:
        """Start a call on the stream, which ends by giving the turn back.

        Raises:
            StreamInUse: another call runs.
        """
        turn = self._turn
        if turn is None:
            turn = self.__dict__.setdefault("_turn", [None])  # of two threads that come first, one sets it for both
        try:
            turn.pop()
        except IndexError:
            raise StreamInUse(
                f"{type(self).__name__}: another call on this stream is running, in another thread or in a hook. A stream is for one "
                "caller at a time: give each thread its own by net.new_stream(), which shares the weights. The stream is unharmed"
            ) from None
        except BaseException:  # Ctrl-C may come between the turn and the caller's `try`
            turn.append(None)
            raise
        return turn

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _open(self, frame: Any) -> State:
        """A cold state for steps like ``frame``."""
        for f in frames(frame):
            if len(f.shape) < 2:
                raise ShapeMismatch(f"{type(self).__name__}: a step has the shape (B, C, *S), got {tuple(f.shape)}")
        node = self.open(frame, InitContext())
        timing = self.timing
        rate = None if self.plan(node, 0) is None else timing.eventually_constant()
        bursts = timing.bursts if rate is None or rate.bursts else False
        fast_path_from = 0 if rate is None else rate.after
        state = State(
            0,
            frame,
            node,
            fast_path=rate is not None,
            fast_path_from=fast_path_from,
            bursts=bursts,
            causal_counts=timing.causal_counts and self._is_causal_inside(),
        )
        state.owned = not any(t.requires_grad for n in node.walk() for t in n.tensors)
        state.structure = self._structure_now()
        state.largest = max((f.nbytes for n in node.walk() if n.out is not None for f in frames(n.out)), default=0)
        return state

    def _is_causal_inside(self) -> bool:
        """Whether what each layer has delivered follows from what has come. A network's timing does not show all that is cut off inside."""
        structure = self._structure_now()
        if structure.causal is None:  # asked once for all streams
            structure.causal = all(map(_is_causal, self.modules()))
        return structure.causal

    def _structure_now(self) -> Structure:
        """The identity of this network as it is now, which its states carry. Every module inside reports changes to it."""
        structure = self._structure
        if structure is None or structure.changed or structure.moved:
            structure = self.__dict__["_structure"] = Structure()
            for module in self.modules():
                if isinstance(module, StreamOwner):
                    module.__dict__.setdefault("_watchers", weakref.WeakSet()).add(structure)
        return structure

    def _changed(self) -> None:
        """Report to all networks that contain this module that its children have changed."""
        for structure in self._watchers or ():
            structure.changed = True

    def _owns(self, state: State) -> bool:
        """Whether a state is known to be one of this network as it is now."""
        known = state.structure
        return known is not None and known is self._structure and not known.changed and not known.moved

    def _continued(self, state: State) -> State:
        """A stream that goes on from a snapshot."""
        running = self._stream
        if self._owns(state) and (running is None or running.resembles(state)):
            return state.clone()
        fresh = self._fresh_like(state)
        if running is not None:  # a running stream has a dtype and a frame size, also where the module has not
            running.check_same_network(state, f"{type(self).__name__}, whose stream is running")
        return self._adopt(fresh, state.clone())

    def _fresh_like(self, state: State) -> State:
        """A cold state of this network for steps like those of `state`, which must be of the same network."""
        try:
            fresh = self._open(state.frame)
        except (ContinualError, RuntimeError) as error:
            raise StateMismatch(f"{type(self).__name__}: this state belongs to another network ({error})") from error
        fresh.check_same_network(state, type(self).__name__)
        check_stored(self, fresh, state)
        return fresh

    def _adopt(self, fresh: State, state: State) -> State:
        """Put a state's tensors and clock on a freshly opened tree."""
        tensors = state.tensors
        for node in fresh.node.walk():
            node.tensors = [tensors[f"{node.path}.{name}".lstrip(".")] for name in node.names]
        fresh.clock = state.clock
        if state.node.kind != STORED:
            for new, old in zip(fresh.node.walk(), state.node.walk(), strict=True):
                new.n_in, new.n_out = old.n_in, old.n_out
        else:
            self.recount(fresh.node, state.clock, state.clock)
        return fresh

    def _stream_for(self, input: Inputs, chunk: bool = False) -> State:
        """The running stream if the input fits it, or a cold one."""
        if self._forward_pre_hooks:
            compute_weights(self)
        state = self._stream
        if state is None:
            frame = frame_of(input, chunk)
            check_lengths(type(self).__name__, input, chunk)
            return self._open(frame)
        if not (isinstance(input, Tensor) and isinstance(state.frame, StepSpec) and state.frame.fits(input, chunk)):
            self._check(input, state, chunk)
        if state.structure is None or state.structure.changed:
            fresh = self._open(state.frame)
            fresh.check_same_network(state, f"{type(self).__name__} was changed while a stream ran")
            state.structure = fresh.structure
        return state

    def _check(self, input: Inputs, state: State, chunk: bool) -> None:
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
        turn = self._take_turn()
        try:
            state = self._stream_for(chunk, chunk=True)
            if self._stream is None and length(chunk) == 0:
                return None  # nothing has come: the stream stays cold
            return self._run(state, chunk, pad_end, update_state)
        finally:
            turn.append(None)

    def _pure_chunk(self, chunk: Wire, state: State, pad_end: bool) -> tuple[Wire | None, State]:
        """Run a chunk whose time is dim 2 as a pure function."""
        if in_graph():
            return cast("tuple[Wire | None, State]", eagerly(StreamOwner._pure_chunk, self, chunk, state, pad_end))
        self._check(chunk, state, chunk=True)
        return self._pure(chunk, state, pad_end)

    def _run(self, state: State, x: Wire, pad_end: bool, update_state: bool) -> Wire | None:
        """The general path: any chunk, any counts, gradients."""
        in_place = not torch.is_grad_enabled()
        parts = pieces(x, state.largest) if in_place else [x]
        if (pad_end or len(parts) > 1) and (around := call_dependent(self)):
            if pad_end:
                y = self._ended(x, state)
                if update_state:
                    with restored_buffers(around):
                        self._run(state, x, False, True)
                return y
            parts = [x]
        if in_place:
            state = state.as_owned()
        if pad_end or len(parts) > 1:  # the rest runs on a copy, which becomes the stream's state if all of it succeeds
            state = state.clone() if in_place else state.branched()
        outputs = []
        for part in parts:
            call = StateUpdates(causal_counts=state.causal_counts, in_place=in_place)
            e = state.clock + length(part)
            outputs.append(self.advance(part if length(part) else None, state.node, e, call)[0])
            if update_state or pad_end or len(parts) > 1:
                call.apply_in_place() if in_place else call.apply_as_new()
                state.owned, state.clock = state.owned and in_place, e
        if pad_end:
            outputs.append(self._ended(None, state))
        if update_state:
            self.__dict__["_stream"] = state
        return join(*outputs)

    def _ended(self, x: Wire | None, state: State) -> Wire | None:
        """What a chunk and the end of the stream after it bring. The state is only read."""
        n = length(x)
        return self.advance(x if n else None, state.node, state.clock + n, StateUpdates(final=True))[0]

    def _pure(self, x: Wire, state: State, pad_end: bool) -> tuple[Wire | None, State]:
        if self._forward_pre_hooks:
            compute_weights(self)
        if state.node.kind == STORED:
            state = self._adopt(self._fresh_like(state), state)
        elif not self._owns(state):
            state = replace(state, structure=self._fresh_like(state).structure)  # refuses the state of another network
        if pad_end and (around := call_dependent(self)):
            y = self._ended(x, state)
            with restored_buffers(around):
                return y, self._pure(x, state, False)[1]
        new = state.branched()
        new.weights = self
        call = StateUpdates(causal_counts=state.causal_counts)
        new.clock = state.clock + length(x)
        y, _ = self.advance(x if length(x) else None, new.node, new.clock, call)
        call.apply_as_new()
        if pad_end:
            y = join(y, self._ended(None, new))
        return y, new

    def _move_of_weights(self, fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """What a move does to parameters and buffers."""
        return kept_complex(fn)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """``.to()``, ``.half()`` and their like move the stream too; complex numbers stay complex."""
        for part in self.modules():
            if isinstance(part, StreamOwner):
                part._ready_for(fn)
        super()._apply(self._move_of_weights(fn), recurse)
        for structure in self._watchers or ():
            structure.moved = True
        if self._stream is not None:
            self.__dict__["_stream"] = moved_stream(self, self._stream, fn)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles carry a detached state, and nothing that kernels have prepared."""
        attributes = super().__getstate__() if hasattr(super(), "__getstate__") else self.__dict__
        attributes = {
            k: v for k, v in cast(dict[str, Any], attributes).items() if k not in self._prepared and k not in _OF_THE_STREAM
        }
        if self._stream is not None:
            attributes["_stream"] = replace(self._stream.detach(), structure=None)
        return attributes


def shallow(module: Self) -> Self:
    """Another module with the very same parameters, buffers and children."""
    made = type(module).__new__(type(module))
    made.__dict__.update(module.__dict__)
    return made
