"""What a streaming layer defines: when its outputs come, its cold state, and its kernel."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ..errors import NotStreamable
from .io_layout import IDENTITY, IOLayout, MovedTime
from .program.context import KernelContext, Run
from .state import InitContext, StateNode, StateUpdates, StepSpec, Wire, rewire
from .step_spec import length
from .timing import Timing

T = TypeVar("T")


class derived(Generic[T]):
    """A read-only property that an instance attribute of the same name overrides (as ``stride`` of ``nn.Conv1d`` does)."""

    def __init__(self, get: Callable[[Any], T]):
        self.get, self.__doc__ = get, get.__doc__

    def __get__(self, instance: Any, owner: type) -> T:
        return self.get(instance) if instance is not None else self  # type: ignore[return-value]


class Kernel(nn.Module):
    """Timing and kernel of a module; :class:`~continual.module.CoModule` derives the three ways to run from them.

    A kernel is a pure function of the frames that arrive and of the node that holds this use's state: it reads
    ``node.tensors`` and hands every change to ``updates``.
    """

    time_dim = 2  # of the clips; inside the library time is always dim 2
    io_layout: IOLayout = IDENTITY  # between callers and the kernel
    _output_of_window: tuple[int, int | None] | None = (
        None  # (L, i): a stream's output is token i (None: all) of forward on L tokens
    )
    _clip_level: bool = False  # forward on a clip of one window gives the window's output without a dimension for time
    windows: Any = None  # of a converted classifier of clips: how the scores of windows are computed
    has_products: bool = True  # whether there may be convolutions or matrix products to count
    counts_inputs: bool = False  # papers count the values that enter, not those that leave: pooling
    _sees_call: bool = False  # outputs depend on which frames come in one call: those of norms in training mode
    _gives_more: bool = False  # forward returns a tuple (output, …); containers pass on the output alone

    def _set_time_dim(self, dim: int) -> None:
        """Say where time is in the clips that callers give and get."""
        self.__dict__.update(time_dim=dim, io_layout=IDENTITY if dim == 2 else MovedTime(dim))

    # ---- timing -----------------------------------------------------------------------------------------------------

    @property
    def timing(self) -> Timing:
        """When outputs come: :class:`~continual.core.timing.Timing`."""
        raise NotStreamable(
            f"{type(self).__name__} defines no `timing`: return a continual.core.timing.Window (or other Timing) there"
        )

    @derived
    def receptive_field(self) -> int:
        """Temporal receptive field, in input steps."""
        return self.timing.receptive_field

    @derived
    def delay(self) -> int:
        """Inputs to observe before the one that brings the first output."""
        return self.timing.delay

    @derived
    def stride(self) -> tuple[int | Fraction, ...]:
        """(Spatio)temporal stride, time first."""
        return (self.timing.stride,)

    @derived
    def padding(self) -> tuple[int | Fraction, ...]:
        """(Spatio)temporal padding, time first: what ``torch.nn`` calls padding."""
        return (self.timing.start,)

    @derived
    def step_size(self) -> int:
        """The fewest input steps that always complete the same number of outputs, one at least, once the stream runs: the chunk to feed."""
        return self.timing.pulse

    @derived
    def unbounded_memory(self) -> bool:
        """Whether an output depends on all that came before it (recurrent and cumulative modules); ``receptive_field`` is then 1."""
        return any(getattr(child, "unbounded_memory", False) for child in self.children())

    # ---- the kernel: what a layer defines ---------------------------------------------------------------------------

    def open(self, frame: Any, init: InitContext) -> StateNode:
        """The cold state for a step like ``frame``, and the frame that leaves.

        Raises:
            ShapeMismatch: if the module can't take such a frame.
            NotStreamable: if it can't be streamed on frames of this rank.
        """
        raise NotStreamable(f"{type(self).__name__} defines no `open`: return its cold state, a continual.core.state.StateNode")

    def advance(self, x: Any, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Wire | None, int]:
        """Run a chunk.

        Args:
            x: the frames ``(B, C, n, *S)`` that arrive, or ``None`` if there are none. ``node.n_in`` came before them.
            node: this use's state; to be read only.
            n_if_ended: how many frames the input wire would have had in all if the stream ended now.
            updates: takes the changes; with ``updates.final`` the stream ends here, and ``n_if_ended`` frames have come.

        Returns:
            The frames that leave (``None``: none), and the ``n_if_ended`` of the output wire.
        """
        raise NotStreamable(f"{type(self).__name__} defines no `advance`: the kernel of a chunk")

    def advance_step(self, x: Any, node: StateNode, updates: StateUpdates) -> Wire | None:
        """Run one step ``(B, C, *S)``, where the rate is constant and no gradients are wanted. Same result as a chunk of one."""
        y, _ = self.advance(rewire(chunk_of_one, x), node, node.n_in + 1, updates)
        return None if y is None else rewire(only_frame, y)

    def program(self, ctx: KernelContext) -> Run:
        """How the module runs in a step program: a function of the chunk of a call and of its rows.

        Args:
            ctx: where the module stands: which frames each call brings and takes, and what it keeps.

        Raises:
            NotStreamable: no program of static shapes computes the module.
        """
        name = type(self).__name__
        raise ctx.refuse(
            f"step programs have no kernel for the class {name}. Remedies: forward_step, which needs none; write it as a co.Recurrence "
            f"or a co.SlidingWindow, which run in programs; or define {name}.program(ctx)"
        )

    def plan(self, node: StateNode, lookahead: int | None) -> tuple[int, int, int | None] | None:
        """Set ``delay`` and ``stride`` of the node for the fast path; ``None`` if its rate never becomes constant."""
        rate = self.timing.eventually_constant(lookahead)
        if rate is None:
            return None
        node.delay, node.stride = rate.delay, rate.stride
        return rate[:3]

    @property
    def kind(self) -> str:
        """What the module is, for a network's signature: name and timing."""
        return f"{type(self).__name__} {self.timing}"

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> int | Fraction:
        """Multiply-adds for one output frame ``frame`` (the mean of several), convolutions and matrix products alone.

        By default they are counted while ``forward`` runs on a clip of one receptive field.
        """
        in_spec = node.kept_spec if node.in_spec is None else node.in_spec
        if not self.has_products or in_spec is None:
            return 0
        steps = int(self.timing.receptive_field)
        macs = counted_macs(lambda: self.forward(rewire(lambda f: f.zeros(steps), in_spec)))
        return Fraction(macs // frame.shape[0], max(1, self.timing.ended(steps)))

    def extra_ops(self, node: StateNode, frame: StepSpec) -> int:
        """What papers count for one output frame beside multiply-adds: biases, norms, activations."""
        return 0

    def macs_of_clip(self, node: StateNode, frame: StepSpec, n_in: int, n_out: int) -> int | Fraction:
        """Multiply-adds of ``forward`` on a clip of ``n_in`` frames, which has ``n_out`` output frames."""
        return self.macs_per_output(node, frame) * n_out

    def part(self, path: str) -> nn.Module:
        """The module at a path of this network's state."""
        head, _, rest = path.partition(".")
        below = self._modules.get(head)
        if not rest or not isinstance(below, Kernel):
            return self.get_submodule(path)
        return below.part(rest)

    def _ready_for(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Refuse a move (of ``.to()``, ``.half()`` and their like) that the module can't follow, before anything has moved."""

    def dummy_value(self) -> float:
        """What fills the dummy steps of :meth:`warm_up`."""
        return 0.0

    def count(self, x: Wire | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[int, int, int]:
        """Count a chunk: frames that have come with it, outputs that have left with it, and the
        ``n_if_ended`` of the output wire.
        """
        n = node.n_in + length(x)
        n_out, ended = self.timing.counts(n, n_if_ended)
        if updates.final:
            n_out = ended
        updates.tick(node, n, n_out)
        return n, n_out, ended

    def recount(self, node: StateNode, n: int, n_if_ended: int) -> tuple[int, int]:
        """Set the counts of a node, and of those below, to what they are when its input wire is at ``(n, n_if_ended)``."""
        node.n_in = n
        node.n_out, n_if_ended = self.timing.counts(n, n_if_ended)
        return node.n_out, n_if_ended


def counted_macs(run: Callable[[], Any]) -> int:
    """Multiply-adds of the convolutions and matrix products that a function runs."""
    from torch.utils.flop_counter import FlopCounterMode  # imports much that `import continual` does without

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2


def chunk_of_one(step: Tensor) -> Tensor:
    """A step as a chunk."""
    return step.unsqueeze(2)


def only_frame(chunk: Tensor) -> Tensor:
    """A chunk of one as a step."""
    return chunk.squeeze(2)
