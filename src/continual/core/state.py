"""The state of a stream: a tree of nodes that mirrors the network, and the writes that a call wants to make to it.

A kernel never changes state. It reads the tensors of its node, and puts what should change into the :class:`StateUpdates`. Only when
the whole network has run without an error does the root apply these changes: in place, to the tensors that the root owns, or
as new tensors (pure steps, and whenever gradients are enabled). This one rule gives purity (``update_state=False`` drops the
changes), exception safety and the in-place speed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import torch
from torch import Tensor

from ..errors import StateMismatch
from .precision import kept_kind, kept_wide
from .step_spec import StepSpec, Wire, frames, rewire  # noqa: F401 (kernels take them from here)
from .timing import IDENTITY, Timing
from .weights_digest import fingerprint_of

SHOWN = 20  # tensors of a state that its repr lists


@dataclass(frozen=True)
class InitContext:
    """Where a module stands while a stream is opened: its path, the timing of all that is before it, and what has been warned of."""

    path: str = ""
    before: Timing = IDENTITY
    warned: set[str] = field(default_factory=set, compare=False)

    def below(self, name: str, before: Timing = IDENTITY) -> InitContext:
        """The place of a child, after ``before`` within this module."""
        return InitContext(f"{self.path}.{name}".lstrip("."), self.before.then(before), self.warned)


_COPIED = (  # what a copy of a node has in common with it
    "path", "before", "kind", "out", "in_spec", "kept_spec", "names", "n_in", "n_out", "delay", "stride", "accumulator", "item", "steps",
    "plan",
)  # fmt: skip


class StateNode:
    """The state of one use of a module in a network.

    Attributes:
        path: where in the network, in the names of ``named_modules``.
        before: the timing of all that is before it, from the network's input on.
        kind: what stands there, in words; part of the network's signature.
        out: the frame that leaves here (or a list of them).
        in_spec: the frame that arrives, where a container knows it.
        kept_spec: the frame that is kept in the state, where the kernel needs to know it.
        tensors: the state tensors, batch in dim 0, named by ``names``.
        n_in: frames delivered to this module so far.
        n_out: frames it has returned so far.
        delay, stride: the counts as far as the fast path needs them (:class:`~continual.core.constant_rate.ConstantRate`).
        memo: what a kernel prepared for these very tensors; dropped when they are replaced.
        accumulator: the tensors are sums over time, kept in the widest type of their device whatever the dtype of the module.
        item: what a tensor is as an item of a :class:`State`, where ``torch.nn`` has another layout. ``None``: the tensor itself.
        steps: whether a chunk of one may run as a step: its rate is constant, whatever is known of the end. ``None``: not known yet.
        plan: how its module computes, as code, where it can in several ways with other states; ``""`` for all others.
    """

    __slots__ = (*_COPIED, "children", "memo", "tensors")

    def __init__(
        self,
        init: InitContext,
        kind: str,
        out: Any,
        tensors: Mapping[str, Tensor] | None = None,
        children: list[StateNode] | None = None,
        kept_spec: Any = None,
        accumulator: bool = False,
    ):
        self.path, self.before = init.path, init.before
        self.kind, self.out, self.kept_spec = kind, out, kept_spec
        self.in_spec: Any = None
        self.names = tuple(tensors or ())
        self.tensors: list[Tensor] = list((tensors or {}).values())
        self.children = children or []
        self.n_in = self.n_out = self.delay = 0
        self.stride = 1
        self.memo: Any = None
        self.accumulator = accumulator
        self.item: Callable[[Tensor], Tensor] | None = None
        self.steps: bool | None = None
        self.plan = ""

    def walk(self) -> Iterator[StateNode]:
        """This node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()

    def map(self, fn: Callable[[Tensor], Tensor]) -> StateNode:
        """A copy of the tree with ``fn`` applied to every tensor."""
        node = StateNode.__new__(StateNode)
        for name in _COPIED:
            setattr(node, name, getattr(self, name))
        node.memo = None
        node.tensors = [kept_wide(fn, t) if self.accumulator else fn(t) for t in self.tensors]
        node.children = [child.map(fn) for child in self.children]
        return node


class StateUpdates:
    """What one call on a network wants to change, collected while the kernels run.

    Attributes:
        final: whether the stream ends with this call, so that what waits is flushed and end padding is added.
        causal_counts: whether nothing can leave where nothing comes, so that empty wires need not be followed.
        in_place: whether the changes will be made in place, so that :attr:`slots` may be used.
    """

    __slots__ = ("final", "in_place", "puts", "rings", "slots", "causal_counts", "ticks")

    def __init__(self, final: bool = False, causal_counts: bool = False, in_place: bool = False):
        self.final, self.causal_counts, self.in_place = final, causal_counts, in_place
        self.slots: list[tuple[Tensor, Tensor]] = []
        self.ticks: list[tuple[StateNode, int, int]] = []
        self.rings: list[tuple[StateNode, int, int, Tensor]] = []
        self.puts: list[tuple[StateNode, int, Tensor]] = []

    def tick(self, node: StateNode, n_in: int, n_out: int) -> None:
        """Count the frames that came and left."""
        self.ticks.append((node, n_in, n_out))

    def put(self, node: StateNode, index: int, value: Tensor) -> None:
        """Replace the state tensor ``index`` of a node by ``value``."""
        self.puts.append((node, index, value))

    def ring(self, node: StateNode, index: int, first: int, chunk: Tensor) -> None:
        """Write frames ``first, first + 1, …`` of a wire, ``(B, C, n, *S)``, into a ring ``(B, L, C, *S)``.

        Frame ``i`` goes to slot ``i % L``. Frames that would be overwritten at once are left out.
        """
        size, count = node.tensors[index].shape[1], chunk.shape[2]
        if size and count:
            if count > size:
                first, chunk = first + count - size, chunk.narrow(2, count - size, size)
            self.rings.append((node, index, first % size, chunk))

    def apply_in_place(self) -> None:
        """Make the changes in the tensors themselves."""
        for slot, frame in self.slots:
            slot.copy_(frame)
        for node, index, position, chunk in self.rings:
            ring = node.tensors[index]
            fit = min(chunk.shape[2], ring.shape[1] - position)
            by_time = chunk.transpose(1, 2)
            left = chunk.shape[2] - fit
            if left == 0:
                ring.narrow(1, position, fit).copy_(by_time)
            else:
                ring.narrow(1, position, fit).copy_(by_time.narrow(1, 0, fit))
                ring.narrow(1, 0, left).copy_(by_time.narrow(1, fit, left))
        for node, index, value in self.puts:
            node.tensors[index].copy_(value)
        for node, n_in, n_out in self.ticks:
            node.n_in, node.n_out = n_in, n_out

    def apply_as_new(self) -> None:
        """Make the changes as new tensors, through which gradients flow."""
        changed: list[tuple[StateNode, int, Tensor]] = []
        for node, index, position, chunk in self.rings:
            ring, by_time = node.tensors[index], chunk.transpose(1, 2)
            fit = min(chunk.shape[2], ring.shape[1] - position)
            left = chunk.shape[2] - fit
            parts = (by_time[:, fit:], ring[:, left:position], by_time[:, :fit], ring[:, position + fit :])
            changed.append((node, index, torch.cat(parts, 1).to(ring.dtype)))
        for node, index, value in self.puts:
            changed.append((node, index, value.to(node.tensors[index].dtype, copy=True)))
        for node, index, value in changed:
            node.tensors[index], node.memo = value, None
        for node, n_in, n_out in self.ticks:
            node.n_in, node.n_out = n_in, n_out


class Structure:
    """The identity of a network. All of its streams and their snapshots share one, until the network changes.

    Attributes:
        changed: whether some container in the network has other children since.
        moved: whether some module was moved to another dtype or device since.
        causal: whether what each module has delivered follows from what has come; ``None``: not asked yet.
    """

    __slots__ = ("__weakref__", "causal", "changed", "moved")

    def __init__(self) -> None:
        self.changed = self.moved = False
        self.causal: bool | None = None


@dataclass(repr=False, eq=False)
class State(Sequence[Tensor]):
    """A stream's whole state: the number of steps seen, and named tensors. Take it as a value: steps never change it.

    It is a sequence of its tensors, in the order of :attr:`tensors`. Hidden states of recurrent layers are ``(layers, B, H)`` there, as
    ``torch.nn`` has them. A state that was read from a file has them so once it has been given to its network: ``net.set_state``,
    ``net.get_state``.

    Attributes:
        clock: steps that the stream has seen.
        frame: the step that it runs on.
        node: the tree of tensors.

    Example:
        >>> net = co.Sequential(co.Conv1d(2, 4, 3, padding=1), co.Delay(2))
        >>> state = net.init_state(torch.zeros(1, 2))
        >>> {name: tuple(t.shape) for name, t in state.tensors.items()}
        {'0.window': (1, 2, 2), '1.frames': (1, 2, 4)}
        >>> state.clock, state.nbytes
        (0, 48)
        >>> len(state), state[1].shape
        (2, torch.Size([1, 2, 4]))
        >>> state
        State(after 0 steps of (1, 2) float32 on cpu; 2 tensors, 48 bytes:
          0.window (1, 2, 2) float32
          1.frames (1, 2, 4) float32)
    """

    clock: int
    frame: Any
    node: StateNode
    owned: bool = field(default=True, repr=False)
    fast_path: bool = field(default=False, repr=False)  # whether single steps take the fast path,
    fast_path_from: int = field(default=0, repr=False)  # and from which clock on
    bursts: bool = field(default=False, repr=False)
    causal_counts: bool = field(default=False, repr=False)
    largest: int = field(default=0, repr=False)  # bytes of the largest frame inside, on the CPU
    structure: Structure | None = field(default=None, repr=False, compare=False)  # of the network whose state it is known to be
    stored_signature: str = field(default="", repr=False)
    stored_parts: tuple[str, ...] = field(default=(), repr=False)  # what a file says of the network, part by part
    weights: Any = field(default="", repr=False, compare=False)  # that it was made with, or their digest

    def __len__(self) -> int:
        return sum(len(node.tensors) for node in self.node.walk())

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        return [t if node.item is None else node.item(t) for node in self.node.walk() for t in node.tensors][index]

    def __bool__(self) -> bool:
        return True  # a stream of a network without state has a state too

    def __repr__(self) -> str:
        tensors = self.tensors
        steps = "; ".join(map(str, frames(self.frame)))
        head = f"State(after {self.clock:,} step{'s' * (self.clock != 1)} of {steps}; "
        head += f"{len(tensors)} tensor{'s' * (len(tensors) != 1)}, {self.nbytes:,} bytes"
        rows = [f"\n  {name} {tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for name, t in tensors.items()]
        if len(rows) > SHOWN:
            rows[SHOWN:] = [f"\n  … and {len(rows) - SHOWN} more"]
        return head + ":" * bool(rows) + "".join(rows) + ")"

    def resembles(self, other: State) -> bool:
        """Whether two states are of equal steps, apart from the batch size."""
        mine, theirs = frames(self.frame), frames(other.frame)
        return len(mine) == len(theirs) and all(
            a.shape[1:] == b.shape[1:] and a.dtype == b.dtype and a.device == b.device for a, b in zip(mine, theirs, strict=True)
        )

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The state tensors by name: the module's path and the tensor's own name."""
        return {
            f"{node.path}.{name}".lstrip("."): tensor
            for node in self.node.walk()
            for name, tensor in zip(node.names, node.tensors, strict=True)
        }

    @property
    def plan(self) -> str:
        """A code for the way in which the network computes, if it has several ways with different states; otherwise ``""``."""
        return next((node.plan for node in self.node.walk() if node.plan), "")

    @property
    def nbytes(self) -> int:
        """Bytes of all state tensors, for the whole batch."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values())

    @property
    def signature(self) -> str:
        """A digest of the network's structure and of all shapes but the batch's: equal for copies of the same network alone."""
        if self.stored_signature:
            return self.stored_signature
        lines = [str([(f.shape[1:], str(f.dtype)) for f in frames(self.frame)])]
        for node in self.node.walk():
            outs = [(f.shape[1:], str(f.dtype)) for f in frames(node.out)]
            tensors = [(n, tuple(t.shape[1:]), str(t.dtype)) for n, t in zip(node.names, node.tensors, strict=True)]
            lines.append(f"{node.path} {node.kind} {outs} {tensors}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]

    @property
    def parts(self) -> list[str]:
        """A description of the network: its steps, and the kind and the tensors of each module."""
        if self.stored_signature:
            return list(self.stored_parts) or [f"{sorted(self.tensors)} in a file"]
        steps = [f"a step (*, {', '.join(map(str, f.shape[1:]))}) {f.dtype}" for f in frames(self.frame)]
        return steps + [
            f"'{node.path}' {node.kind} → {[tuple(f.shape[1:]) for f in frames(node.out)]}"
            + (f" holding {[tuple(t.shape[1:]) for t in node.tensors]}" if node.tensors else "")
            for node in self.node.walk()
        ]

    @property
    def fingerprint(self) -> str:
        """The digest of the weights that it was made with; empty where that is not known."""
        return fingerprint_of(self.weights)

    def map(self, fn: Callable[[Tensor], Tensor]) -> State:
        """A copy with ``fn`` applied to every tensor; all frames follow its change of dtype or device.

        Whole numbers keep their dtype, and complex ones stay complex.
        """
        fn = kept_kind(fn)

        def moved(f: StepSpec) -> StepSpec:
            like = fn(torch.empty(0, dtype=f.dtype, device=f.device))
            return replace(f, dtype=like.dtype, device=like.device)

        state = replace(self, node=self.node.map(fn), frame=rewire(moved, self.frame))
        for node in state.node.walk():
            node.out = None if node.out is None else rewire(moved, node.out)
            node.kept_spec = None if node.kept_spec is None else rewire(moved, node.kept_spec)
            node.in_spec = None if node.in_spec is None else rewire(moved, node.in_spec)
        return state

    def clone(self) -> State:
        """An independent copy, with ordinary tensors also under ``torch.inference_mode``."""
        with torch.inference_mode(False):
            return replace(self, node=self.node.map(torch.clone))

    def detach(self) -> State:
        """An independent copy without an autograd graph."""
        with torch.inference_mode(False):
            return replace(self, node=self.node.map(lambda t: t.detach().clone()))

    def as_owned(self) -> State:
        """The same stream without a graph, in tensors that may be changed in place."""
        if self.owned:
            return self
        state = self.detach()
        state.owned = True
        return state

    def branched(self) -> State:
        """A copy of the tree with the same tensors: what a pure step builds its new state in."""
        return replace(self, node=self.node.map(lambda t: t), owned=False)

    def __getstate__(self) -> dict[str, Any]:
        state = self.detach() if any(t.requires_grad for t in self.tensors.values()) else self
        return {**state.__dict__, "structure": None, "weights": state.fingerprint}

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        return self.detach()

    def check_same_network(self, other: State, name: str) -> None:
        """Refuse a state whose network is not this one's."""
        if self.signature == other.signature:
            return
        first = next(
            (f"{a or 'nothing'} here, {b or 'nothing'} in the state" for a, b in _zip(self.parts, other.parts) if a != b), ""
        )
        raise StateMismatch(
            f"{name}: this state belongs to another network ({first}). A state fits the network it was taken from: the same "
            "modules, shapes (the batch size aside) and dtype"
        )


def _zip(a: list[str], b: list[str]) -> Iterator[tuple[str, str]]:
    size = max(len(a), len(b))
    yield from zip(a + [""] * (size - len(a)), b + [""] * (size - len(b)), strict=True)
