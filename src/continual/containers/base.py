"""What all containers share: children that are streaming modules, run between their forward hooks, and kept as a list."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self, TypeGuard, cast, overload

from torch import Tensor, nn

from ..core.call_modes import call_with_hooks, has_hooks, hooks_on_all
from ..core.kernel import chunk_of_one
from ..core.module import CoModule
from ..core.program.context import KernelContext, Run, built
from ..core.registry import to_continual
from ..core.state import InitContext, StateNode, StateUpdates, Wire, rewire
from ..errors import NotStreamable

OPEN = 1 << 62  # the `e` of a wire that was not followed, since how it ends has no effect: no count may be limited by it


def run_clip(child: nn.Module, x: Wire) -> Wire:
    """A child's clip computation, hooks included, whatever the call mode. Of ``(output, hidden)`` the output alone."""
    module: Any = child
    y = nn.Module.__call__(child, x)
    if module._clip_level and y.ndim < module._output_rank:
        return y.unsqueeze(2)
    return y[0] if module._gives_more else y


def run_chunk(
    child: CoModule, x: Wire | None, node: StateNode, n_if_ended: int, updates: StateUpdates
) -> tuple[Wire | None, int]:
    """A child's kernel on a chunk, between its forward hooks if it has some and if there is something to see."""
    if x is None and updates.causal_counts:
        return None, OPEN
    if not has_hooks(child):
        if updates.in_place and updates.causal_counts and is_frame(x) and runs_as_step(child, node):
            _, end = child.timing.counts(node.n_in + 1, n_if_ended)
            y = child.advance_step(x.squeeze(2), node, updates)
            return (None if y is None else rewire(chunk_of_one, y)), end
        return child.advance(x, node, n_if_ended, updates)
    if x is None:  # what waits leaves at the end of the stream: hooks see an empty chunk come and it leave
        y, n_if_ended = child.advance(x, node, n_if_ended, updates)
        if y is None:
            return None, n_if_ended
        return call_with_hooks(child, lambda _: y, rewire(lambda f: f.zeros(0), node.in_spec)), n_if_ended
    ended = [0]

    def kernel(x: Wire) -> Wire | None:
        y, ended[0] = child.advance(x, node, n_if_ended, updates)
        return y

    y = call_with_hooks(child, kernel, x)
    return y, ended[0]


def is_frame(x: Any) -> TypeGuard[Tensor]:
    """Whether this is a chunk of one."""
    return isinstance(x, Tensor) and x.shape[2] == 1


def runs_as_step(child: CoModule, node: StateNode) -> bool:
    """Whether a child may run a chunk of one as a step, which can be much faster: its rate is constant, and no hook observes it."""
    steps = node.steps
    if steps is None:
        constant = not node.children and child.timing.constant_rate(None) is not None
        steps = node.steps = constant and child.plan(node, None) is not None
    return steps and not has_hooks(child)


def open_child(child: CoModule, frame: Any, init: InitContext) -> StateNode:
    """A child's cold state."""
    node = child.open(frame, init)
    node.in_spec = frame
    return node


def run_step(child: CoModule, x: Wire, node: StateNode, updates: StateUpdates) -> Wire | None:
    """A child's kernel on a step, between its forward hooks if it has some."""
    if child._forward_hooks or child._forward_pre_hooks or hooks_on_all():
        return call_with_hooks(child, lambda x: child.advance_step(x, node, updates), x)
    return child.advance_step(x, node, updates)


class Container(CoModule):
    """A list of streaming modules under names. ``torch.nn`` modules are converted when they come in."""

    has_products = False

    def _set(self, modules: Sequence[Any]) -> None:
        """Take the constructor's modules: several, or one dictionary of them."""
        named = modules[0].items() if len(modules) == 1 and isinstance(modules[0], dict) else enumerate(modules)
        memo: dict[int, Any] = {}
        for name, module in named:
            nn.Module.add_module(self, str(name), self._converted(module, str(name), memo))
        self._changed()

    def _converted(self, module: Any, name: str, memo: dict[int, Any] | None = None) -> CoModule:
        child = to_continual(module, memo, name)
        if child.time_dim != 2:
            raise NotStreamable(
                f"{type(self).__name__}: the time of '{name}' is dim {child.time_dim} of its clips, in a container it is dim 2"
            )
        if (outs := getattr(child, "output_time_dims", (2,))) != (2,) or len(getattr(child, "time_dims", (2,))) > 1:
            raise NotStreamable(
                f"{type(self).__name__}: '{name}' takes or gives several tensors, or has time in dim {outs} of its outputs; in a container "
                "there is one, with time in dim 2"
            )
        own = next((c for c in type(child).__mro__ if "forward_step" in c.__dict__ or "forward_steps" in c.__dict__), CoModule)
        if not own.__dict__.get("runs_kernel", False):
            raise NotStreamable(
                f"{type(self).__name__}: '{name}' ({type(child).__name__}) brings its own forward_step(s). Containers run the kernel, "
                "so define open and advance instead, and all three forward modes follow"
            )
        return child

    def _like(self, modules: dict[str, nn.Module]) -> Any:
        """A container of the same type and options with other children."""
        return type(self)(cast(Any, modules))

    @property
    def _children(self) -> list[CoModule]:
        """The children."""
        return cast(list[CoModule], list(self._modules.values()))

    @property
    def kind(self) -> str:
        return type(self).__name__

    # ---- a list of modules ------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[CoModule]:
        return iter(self._children)

    def _name_at(self, index: int) -> str:
        names = list(self._modules)
        if not -len(names) <= index < len(names):
            raise IndexError(f"{type(self).__name__} has {len(names)} modules, there is none at {index}")
        return names[index]

    @overload
    def __getitem__(self, index: int) -> CoModule: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> CoModule | Self:
        if isinstance(index, slice):
            return self._like(OrderedDict(list(self._modules.items())[index]))  # type: ignore[arg-type]
        return cast(CoModule, self._modules[self._name_at(index)])

    def _replace(self, modules: dict[str, nn.Module | None]) -> Self:
        """Take other children; if they don't fit, the old ones stay."""
        before, self._modules = self._modules, modules
        try:
            self._changed()
        except Exception:
            self._modules = before
            raise
        return self

    def _exchange(self, name: str, module: Any) -> None:
        """Take a module under a name."""
        self._replace({**self._modules, name: self._converted(module, name)})

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """As ``torch.nn.Module.add_module``; a running stream goes on where the new module's state is alike."""
        self._exchange(name, module)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Module) or name in self.__dict__.get("_modules", ()):
            self._exchange(name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in self._modules:
            self._replace({n: m for n, m in self._modules.items() if n != name})
        else:
            super().__delattr__(name)

    def __setitem__(self, index: int, module: nn.Module) -> None:
        name = self._name_at(index)
        self._replace({**self._modules, name: self._converted(module, name)})

    def __delitem__(self, index: int | slice) -> None:
        gone = list(self._modules)[index] if isinstance(index, slice) else [self._name_at(index)]
        left = [(name, m) for name, m in self._modules.items() if name not in gone]
        numbered = all(name.isdigit() for name in self._modules)
        self._replace({str(i) if numbered else name: m for i, (name, m) in enumerate(left)})

    def append(self, module: nn.Module) -> Self:
        """Add a module at the end."""
        name = str(len(self))
        return self._replace({**self._modules, name: self._converted(module, name)})

    def extend(self, modules: Iterable[nn.Module]) -> Self:
        """Add modules at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: nn.Module) -> Self:
        """Put a module before the one at ``index``. The children are numbered again."""
        if not -len(self) <= index <= len(self):
            raise IndexError(f"{type(self).__name__} has {len(self)} modules, nothing can be inserted at {index}")
        modules: list[nn.Module] = list(self._children)
        modules.insert(index, self._converted(module, str(index)))
        return self._replace({str(i): m for i, m in enumerate(modules)})

    def pop(self, index: int) -> CoModule:
        """Remove a module and return it."""
        module = self[index]
        del self[index]
        return module

    def __add__(self, other: Iterable[nn.Module]) -> Self:
        if not isinstance(other, (nn.Module, list, tuple)) or not hasattr(other, "__iter__"):
            raise TypeError(f"{type(self).__name__} + {type(other).__name__}: add another container or a list of modules")
        return self._like(OrderedDict((str(i), m) for i, m in enumerate([*self, *other])))

    def __iadd__(self, other: Iterable[nn.Module]) -> Self:
        return self.extend(other)

    def __mul__(self, times: int) -> Self:
        if not isinstance(times, int) or times < 1:
            raise ValueError(f"{type(self).__name__} * n repeats the modules n times, n at least 1, got {times!r}")
        return self._like(OrderedDict((str(i), m) for i, m in enumerate(self._children * times)))

    __rmul__ = __mul__


def children(ctx: KernelContext) -> list[Run]:
    """The children of a container."""
    container: Any = ctx.module
    return [built(ctx.plan, child, node) for child, node in zip(container._children, ctx.node.children, strict=False)]
