"""`Sequential`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast, overload

from torch import Tensor, nn

from ..core.call_modes import hooks_on_all
from ..core.kernel import chunk_of_one
from ..core.module import CoModule
from ..core.program.context import CallRows, KernelContext, Run
from ..core.registry import register_builder, to_continual
from ..core.state import InitContext, StateNode, StateUpdates, Wire, rewire
from ..core.step_spec import Inputs
from ..core.timing import IDENTITY, Timing
from .base import OPEN, Container, children, is_frame, open_child, run_chunk, run_clip, run_step, runs_as_step
from .streams import Broadcast


class Sequential(Container, nn.Sequential):  # type: ignore[misc]
    """Modules one after another, as ``nn.Sequential``; ``torch.nn`` modules are converted (a copy is; they stay as they are).

    Args:
        modules: the modules, or one ``OrderedDict`` of them.

    Example:
        >>> net = co.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), co.AvgPool1d(2))
        >>> net.receptive_field, net.stride, net.padding, net.delay
        (4, (2,), (1,), 2)
        >>> type(net[:2]).__module__, len(net[:2] + net[2:])
        ('continual.containers.sequential', 3)
    """

    def __init__(self, *modules: nn.Module | dict[str, nn.Module]):
        CoModule.__init__(self)
        self._set(modules)

    def _like(self, modules: dict[str, nn.Module]) -> Any:  # a part of a subclass is a plain Sequential
        return Sequential(modules)

    if TYPE_CHECKING:

        @overload
        def __getitem__(self, index: int) -> CoModule: ...
        @overload
        def __getitem__(self, index: slice) -> Sequential: ...
        def __getitem__(self, index: int | slice) -> CoModule: ...
        def __add__(self, other: Iterable[nn.Module]) -> Sequential: ...
        def __mul__(self, times: int) -> Sequential: ...

    def _changed(self) -> None:
        super()._changed()
        modules = self._children  # a Broadcast without a number hands on as many streams as the next module takes
        for child, after in pairwise(modules):
            if isinstance(child, Broadcast):
                child.__dict__["inferred"] = getattr(after, "num_streams", None)

    @staticmethod
    def build_from(module: nn.Module, *args: Any, **kwargs: Any) -> Sequential:
        """The streaming version of an ``nn.Sequential``."""
        return cast(Sequential, to_continual(module))

    @property
    def timing(self) -> Timing:
        return Timing.sequence(*(child.timing for child in self._children))

    @overload
    def forward(self, input: Tensor) -> Tensor: ...
    @overload
    def forward(self, input: Sequence[Inputs]) -> Wire: ...
    def forward(self, input: Any) -> Wire:
        """The modules' clip computations one after another."""
        for child in self._modules.values():
            input = run_clip(child, input)
        return input

    def dummy_value(self) -> float:
        return self._children[0].dummy_value() if len(self) else 0.0

    def open(self, frame: Any, init: InitContext) -> StateNode:
        nodes: list[StateNode] = []
        before: Timing = IDENTITY
        for name, child in self._modules.items():
            child = cast(CoModule, child)
            nodes.append(open_child(child, frame, init.below(name, before)))
            frame, before = nodes[-1].out, before.then(child.timing)
        return StateNode(init, self.kind, frame, children=nodes)

    def plan(self, node: StateNode, lookahead: int | None) -> tuple[int, int, int | None] | None:
        delay, stride = 0, 1
        for child, child_node in zip(self._children, node.children, strict=True):
            rate = child.plan(child_node, lookahead)
            if rate is None:
                return None
            delay, stride, lookahead = delay + stride * rate[0], stride * rate[1], rate[2]
        node.delay, node.stride = delay, stride
        return delay, stride, lookahead

    def advance(self, x: Wire | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Wire | None, int]:
        frame: Any = None  # of a chunk of one, for children that run it as a step
        unlimited = updates.in_place and updates.causal_counts
        for child, child_node in zip(self._modules.values(), node.children, strict=True):
            own: Any = child
            if unlimited and (frame is not None or is_frame(x)) and runs_as_step(own, child_node):
                frame = x.squeeze(2) if frame is None else frame  # type: ignore[union-attr]
                frame, n_if_ended = own.advance_step(frame, child_node, updates), OPEN
                if frame is None:
                    return None, OPEN
                if not isinstance(frame, Tensor):
                    x, frame = rewire(chunk_of_one, frame), None
                continue
            if frame is not None:
                x, frame = chunk_of_one(frame), None
            x, n_if_ended = run_chunk(own, x, child_node, n_if_ended, updates)
            if x is None and updates.causal_counts:
                return None, OPEN
        return (x if frame is None else chunk_of_one(frame)), n_if_ended

    def advance_step(self, x: Any, node: StateNode, updates: StateUpdates) -> Wire | None:
        watched = hooks_on_all()
        for child, child_node in zip(self._modules.values(), node.children, strict=True):
            step: Any = child
            if watched or step._forward_hooks or step._forward_pre_hooks:
                x = run_step(step, x, child_node, updates)
            else:
                x = step.advance_step(x, child_node, updates)
            if x is None:
                return None
        return x

    def recount(self, node: StateNode, n: int, n_if_ended: int) -> tuple[int, int]:
        node.n_in = n
        for child, child_node in zip(self._children, node.children, strict=True):
            n, n_if_ended = child.recount(child_node, n, n_if_ended)
        node.n_out = n
        return n, n_if_ended

    def program(self, ctx: KernelContext) -> Run:
        """One after another."""
        runs = children(ctx)

        def run(x: Wire, rows: CallRows) -> Wire:
            for child in runs:
                x = child(x, rows)
            return x

        return run


def _build(module: nn.Module, memo: dict[int, Any], path: str) -> Sequential:
    made = Sequential()
    for name, child in module._modules.items():  # named_children() leaves out the second use of a module
        nn.Module.add_module(made, name, to_continual(cast(nn.Module, child), memo, f"{path}.{name}".lstrip(".")))
    made._changed()
    made.training = module.training
    return made


register_builder(nn.Sequential, _build)
