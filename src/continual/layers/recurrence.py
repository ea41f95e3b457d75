"""`Recurrence`: the way to write a layer of one's own that carries a state from step to step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from ..core.inputs import time_second
from ..core.kernel import counted_macs
from ..core.module import CoModule
from ..core.naming import named
from ..core.program.context import CallRows, KernelContext, Run, carried
from ..core.state import InitContext, StateNode, StateUpdates, StepSpec, Wire, frames, rewire
from ..core.step_spec import by_frame, joined, length
from ..core.timing import IDENTITY, Timing
from ..errors import NotStreamable, ShapeMismatch, StateMismatch

States = dict[str, Tensor]


class Recurrence(CoModule):
    """Base class of layers that give one output for each input, and carry a state from step to step.

    A subclass defines :meth:`initial_state` and :meth:`recur`. All else follows from these: eager steps and chunks, the clip
    computation, containers, ``co.verify``, ``co.compile``, ``co.StreamBatch``, ``co.export``, ``co.summary``. Registered by
    ``co.convert.register(TheirLayer, MyLayer)``, with a static method ``build_from(module)``, the layer also replaces a
    ``torch.nn`` module inside others that are converted.

    ``forward`` is the recurrence over the clip ``(B, C, T, *S)``, from the initial state; ``(B, C', T, *S')`` leaves.

    Raises:
        ShapeMismatch: the layer can't take such a step.
        StateMismatch: ``recur`` returns a state with another key, shape or dtype than ``initial_state``.
        NotStreamable: ``initial_state`` depends on the values of the step, or on chance.

    Example:
        >>> class Leaky(co.Recurrence):
        ...     def initial_state(self, x):
        ...         return {"h": torch.zeros_like(x)}
        ...
        ...     def recur(self, x, state):
        ...         h = 0.5 * state["h"] + x
        ...         return h, {"h": h}
        >>> net = co.Sequential(Leaky(), nn.ReLU())
        >>> [net.forward_step(torch.ones(1, 1)).item() for _ in range(3)]
        [1.0, 1.5, 1.75]
        >>> net(torch.ones(1, 1, 3))
        tensor([[[1.0000, 1.5000, 1.7500]]])
    """

    unbounded_memory = True

    # ---- what a layer defines ---------------------------------------------------------------------------------------

    def initial_state(self, x: Tensor) -> States:
        """The state before the first step, by names: tensors with the batch in dim 0.

        Args:
            x: zeros like a step ``(B, C, *S)``: its shape, dtype and device are known here, its values are not.
        """
        raise NotStreamable(f"{type(self).__name__} defines no `initial_state`: return a dict of tensors, batch first")

    def recur(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        """One step ``(B, C, *S)``: the output ``(B, C', *S')`` and the new state. Neither ``x`` nor ``state`` is changed in place."""
        raise NotStreamable(f"{type(self).__name__} defines no `recur`: return (y, new state)")

    def recur_chunk(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        """The same for a chunk ``(B, C, T, *S)`` of one step at least. Override it where a chunk can be faster than its steps."""
        return one_by_one(x, state, lambda frame, state, _: self.recur(frame, state), 0)

    def macs(self, x: Tensor) -> int | Fraction:
        """Multiply-adds for one row of a step ``x``. By default those of convolutions and matrix products in ``recur``."""
        frame: StepSpec = StepSpec.of(x)
        return Fraction(counted_macs(lambda: self._recur_at(x, self._initial(frame, ""), 0)), frame.shape[0])

    # ---- what a layer of several tensors defines, or one that counts its steps ------------------------------------------

    def _recur_at(self, x: Any, state: States, index: int | Tensor) -> tuple[Any, States]:
        """Step number ``index``: an integer, or one for each row ``(B,)``."""
        return self.recur(x, state)

    def _chunk_from(self, x: Any, state: States, first: int) -> tuple[Any, States]:
        """A chunk whose first step has the number ``first``."""
        return self.recur_chunk(x, state)

    _fast_chunks = False  # whether chunks of programs run as chunks
    _wide = False  # whether the state is in the widest type, and stays so when the module moves to another
    _rests = False  # whether zeros before the first step leave the initial state as it is

    # ---- the three ways to run --------------------------------------------------------------------------------------

    @property
    def timing(self) -> Timing:
        return IDENTITY

    def forward(self, input: Tensor) -> Tensor:
        """The recurrence over a clip ``(B, C, T, *S)``, from the initial state. Time is in dim ``time_dim``, of the output too."""
        name, dim = type(self).__name__, self.time_dim
        x = input if dim == 2 else rewire(lambda t: time_second(t, dim), input)
        y: Tensor = self._chunk_of(x, self._initial(rewire(StepSpec.of_chunk, x), name), 0, name)[0]
        return y if dim == 2 else y.movedim(2, dim)

    def open(self, frame: Any, init: InitContext) -> StateNode:
        name = named(init.path, self)
        with torch.inference_mode(False):
            cold = {key: value.clone() for key, value in self._initial(frame, name).items()}
            self._check_repeats(frame, cold, name)
        run = self if not self.training else copy.deepcopy(self).eval()
        with torch.no_grad():
            try:
                y, new = run._recur_at(rewire(StepSpec.zeros, frame), {key: value.detach() for key, value in cold.items()}, 0)
            except (RuntimeError, ValueError, IndexError) as error:
                raise ShapeMismatch(f"{name}: can't take steps {frame}: {error}") from error
        _check_output(name, y, frames(frame)[0].shape[:1])
        _check_state(name, cold, new)
        return StateNode(init, self.kind, StepSpec.of(y), cold, kept_spec=frame, accumulator=self._wide)

    def advance(self, x: Any, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Any, int]:
        _, _, ended = self.count(x, node, n_if_ended, updates)
        if x is None:
            return None, ended
        y, new = self._chunk_of(x, dict(zip(node.names, node.tensors, strict=True)), node.n_in, node.path)
        storages = _memory(node.tensors)
        for index, name in enumerate(node.names):
            updates.put(node, index, _apart(storages, new[name]))
        return _apart(storages, y), ended

    def advance_step(self, x: Any, node: StateNode, updates: StateUpdates) -> Any:
        state = dict(zip(node.names, node.tensors, strict=True))
        y, new = self._recur_at(x, state, node.n_in)
        _check_state(node.path, state, new)
        return leaving(node, y, [new[name] for name in node.names], updates)

    def _initial(self, frame: Any, name: str) -> States:
        """The initial state for steps like ``frame``, checked."""
        state = self.initial_state(frame.zeros())
        if not isinstance(state, Mapping):
            raise StateMismatch(f"{name}: initial_state returns a dict of tensors, not {_shown(state)}")
        for key, value in state.items():
            if not isinstance(value, Tensor):
                raise StateMismatch(f"{name}: initial_state returns a dict of tensors: '{key}' is {_shown(value)}")
            if value.ndim < 1 or value.shape[0] != frame.shape[0]:
                raise StateMismatch(
                    f"{name}: initial_state: '{key}' has the batch of {frame.shape[0]} in dim 0, got {tuple(value.shape)}"
                )
        return dict(state)

    def _check_repeats(self, frame: Any, state: States, name: str) -> None:
        """Refuse an initial state that another step would change."""
        again = self.initial_state(rewire(lambda f: torch.ones_like(f.zeros()), frame))  # type: ignore[arg-type]
        for key, value in state.items():
            if not torch.equal(value, again[key]):
                raise NotStreamable(
                    f"{name}: initial_state depends on the values of the step, or on chance: '{key}' differs between two calls. "
                    "It is asked for before the first step has come. Remedy: start from torch.zeros_like(x), or keep a flag in the "
                    "state and let recur treat the first step otherwise"
                )

    def _chunk_of(self, x: Any, state: States, first: int, name: str) -> tuple[Any, States]:
        batch, _, steps = (x if isinstance(x, Tensor) else x[0]).shape[:3]
        if steps == 0:
            raise ShapeMismatch(f"{name}: a clip has one step at least, got none")
        y, new = self._chunk_from(x, state, first)
        _check_output(name, y, (batch, None, steps))
        _check_state(name, state, new)
        return y, new

    # ---- programs and counts ----------------------------------------------------------------------------------------

    def program(self, ctx: KernelContext) -> Run:
        fast = self._fast_chunks or type(self).recur_chunk is not Recurrence.recur_chunk
        return self._in_program(ctx, self._recur_at, self.recur_chunk if fast else None)

    def _in_program(
        self, ctx: KernelContext, recur: Callable[..., tuple[Any, States]], chunk: Callable[..., tuple[Any, States]] | None
    ) -> Run:
        """The layer in a program, by its functions of a step and, where that is faster, of a chunk."""
        names = ctx.node.names
        specs = [ctx.state_tensor(n, StepSpec.of(t), None, t.detach()) for n, t in zip(names, ctx.node.tensors, strict=True)]

        def step(frame: Any, values: list[Tensor], index: Tensor) -> tuple[Wire, list[Tensor]]:
            y, new = recur(frame, dict(zip(names, values, strict=True)), index)
            return y, [new[name] for name in names]

        def run(x: Any, rows: CallRows) -> Any:
            early = ctx.inside(rows, end=False) is not None
            if chunk is None or length(x) == 1 or (early and not self._rests):
                return carried(ctx, specs, x, rows, step)
            y, new = chunk(
                ctx.gated(rows, x, 0.0, end=False) if early else x,
                {name: rows.state[spec.index] for name, spec in zip(names, specs, strict=True)},
            )
            for name, spec in zip(names, specs, strict=True):
                rows.keep(spec, new[name])
            return y

        return run

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> int | Fraction:
        return self.macs(rewire(StepSpec.zeros, node.kept_spec))  # type: ignore[arg-type]


def one_by_one(x: Any, state: States, step: Callable[[Any, States, int], tuple[Any, States]], first: int) -> tuple[Any, States]:
    """The steps of a chunk one after another."""
    outs = []
    for i, frame in enumerate(by_frame(x)):
        y, state = step(frame, state, first + i)
        outs.append(y)
    return joined(outs), state


def _check_output(name: str, y: Any, sizes: tuple[int | None, ...]) -> None:
    """Refuse an output that is not a tensor, or that has other rows or another number of steps."""
    if isinstance(y, list):
        for part in y:
            _check_output(name, part, sizes)
        return
    expected = f"({', '.join('C' if n is None else str(n) for n in sizes)}, …)"
    if not isinstance(y, Tensor):
        raise ShapeMismatch(f"{name}: the output of recur is a tensor {expected}, not {_shown(y)}")
    if y.ndim < max(2, len(sizes)) or any(n is not None and n != own for n, own in zip(sizes, y.shape, strict=False)):
        raise ShapeMismatch(f"{name}: the output of recur has the shape {expected}, got {tuple(y.shape)}")


def _check_state(name: str, old: States, new: Any) -> None:
    """Refuse a new state whose keys, shapes or dtypes are not those of the initial one."""
    if not isinstance(new, Mapping) or new.keys() != old.keys():
        keys = sorted(new) if isinstance(new, Mapping) else _shown(new)
        raise StateMismatch(f"{name}: recur returns the state {sorted(old)} as initial_state does, got {keys}")
    for key, before in old.items():
        now = new[key]
        if now.shape != before.shape or now.dtype != before.dtype:
            raise StateMismatch(
                f"{name}: recur returns '{key}' as {tuple(now.shape)} {now.dtype}; initial_state says {tuple(before.shape)} {before.dtype}"
            )


def _shown(value: Any) -> str:
    return type(value).__name__


def leaving(node: StateNode, y: Any, new: list[Tensor], updates: StateUpdates) -> Any:
    """End a step: note the new state, in the order of the node, and give the output."""
    storages = node.memo
    if storages is None:
        storages = node.memo = _memory(node.tensors)
    for old, value in zip(node.tensors, new, strict=True):
        updates.slots.append((old, value.clone() if value.untyped_storage().data_ptr() in storages else value))
    updates.ticks.append((node, node.n_in + 1, node.n_out + 1))
    return _apart(storages, y)


def _memory(state: list[Tensor]) -> list[int]:
    """Where the tensors of a state lie in memory."""
    return [t.untyped_storage().data_ptr() for t in state]


def _apart(storages: list[int], value: Any) -> Any:
    """A value as it is, or a copy of one that lies in the memory of the state, into which new values are written."""
    if isinstance(value, list):
        return [_apart(storages, v) for v in value]
    return value.clone() if value.untyped_storage().data_ptr() in storages else value
