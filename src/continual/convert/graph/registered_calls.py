"""Modules that stay one call in an export: modules of registered classes, and streaming modules inside the converted one.

torch.export would trace their code, which often loops over frames. During the export their ``forward`` is one operation of this library,
whose shape is known from a run on the example.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...core.io_layout import IDENTITY
from ...core.module import CoModule
from ...core.naming import named
from ...core.registry import is_chosen, to_continual
from ...core.step_spec import StepSpec
from ...core.timing import Window
from ...errors import ContinualError, NotStreamable, ShapeMismatch
from .undone import replaced_forward

_library = torch.library.Library("continual", "FRAGMENT")
_library.define("registered_call(Tensor input, Tensor[] weights, int number) -> Tensor")
_numbers = itertools.count()
CALLS: dict[int, RegisteredCall] = {}  # of the conversions in progress


@dataclass
class RegisteredCall:
    """A module that stays one call.

    Attributes:
        path: where it is in the converted module.
        layer: its streaming version.
        weights: for each parameter and buffer of the layer, the index of the module's.
        out: the output step, by the sizes of the input step.
        unfit: why it is not the layer that streams, by the sizes of the input step.
        beside: how often the module gives ``None`` beside the output, by the sizes of the input step.
    """

    path: str
    layer: CoModule
    weights: dict[str, int]
    out: dict[tuple[int, ...], StepSpec] = field(default_factory=dict)
    unfit: dict[tuple[int, ...], str] = field(default_factory=dict)
    beside: dict[tuple[int, ...], int] = field(default_factory=dict)

    def notes(self, part: nn.Module) -> list[str]:
        """Which streaming version the module has, or why it is converted by its code."""
        name, layer = self.path or type(part).__name__, type(self.layer).__name__
        code = [f"{name}: {layer} is not used for it, and its code is converted instead: {why}" for why in self.unfit.values()]
        return [f"{name}: streams as {layer}", *code] if self.out else code

    def steps(self, x: Tensor) -> tuple[int, ...]:
        """The sizes of a step of a clip, without the batch."""
        sizes = list(x.shape)
        del sizes[self.time_dim(x.ndim)]
        return tuple(sizes[1:])

    def time_dim(self, rank: int) -> int:
        """Where time is in clips of so many dimensions; some layers count it from the last one."""
        return self.layer.time_dim % rank

    def shaped(self, x: Tensor) -> Tensor:
        """A tensor of the output's shape for a clip."""
        out, time = self.out[self.steps(x)], self.time_dim(x.ndim)
        shape = [x.shape[self.batch_dim], *out.shape[1:]]
        shape.insert(time, self._frames(x.shape[time]))
        return x.new_empty(shape, dtype=out.dtype)

    @property
    def batch_dim(self) -> int:
        """Where the batch is in its clips."""
        return 0 if self.layer.time_dim else 1

    def _frames(self, length: Any) -> Any:
        """The number of output frames; for windows a formula, where the length is a symbol."""
        timing = self.layer.timing
        if isinstance(timing, Window):
            return (length + timing.start + timing.end - timing.receptive_field) // timing.stride + 1
        return timing.ended(int(length))

    def copy_of_layer(self, of_clips: bool = False) -> CoModule:
        """A copy of the layer, on the same parameters; the converted network binds others.

        Args:
            of_clips: whether it gets clips in the module's layout. In a stream time is dim 2 of all chunks.
        """
        shared = {id(t): t for t in (*self.layer.parameters(), *self.layer.buffers())}
        made = copy.deepcopy(self.layer, shared)
        if made.io_layout is not IDENTITY and not of_clips:
            made._set_time_dim(2)
        made.clean_state()
        return made


def _shape_of(x: Tensor, weights: Sequence[Tensor], number: int) -> Tensor:
    return CALLS[number].shaped(x)


_library.impl("registered_call", _shape_of, "Meta")  # only an export runs it, for shapes


@contextlib.contextmanager
def registered_calls(module: nn.Module, inputs: Sequence[Tensor]) -> Iterator[list[str]]:
    """Keep registered classes and streaming modules inside a module as one call each, in exports under this context.

    Yields:
        Notes: which modules stay one call.
    """
    found = {path: part for path, part in module.named_modules() if isinstance(part, CoModule) or is_chosen(part)}
    outer = {p: m for p, m in found.items() if not any(_inside(p, other) for other in found)}
    if not outer:
        yield []
        return
    numbers, notes = list[int](), list[str]()
    with contextlib.ExitStack() as stack:
        for path, part in outer.items():
            call = _call_of(path, part)
            number = next(_numbers)
            CALLS[number] = call
            numbers.append(number)
            stack.callback(CALLS.pop, number)
            stack.enter_context(replaced_forward(part, _routed(part, call, number)))
        _look_at_steps(module, inputs)
        for number, part in zip(numbers, outer.values(), strict=True):
            notes += CALLS[number].notes(part)
        try:
            yield notes
        except NotStreamable as error:
            if not any(CALLS[number].unfit for number in numbers):
                raise
            raise NotStreamable("\n".join([str(error), *notes]), error.refusals, error.rows) from error.__cause__


def _inside(path: str, other: str) -> bool:
    return path != other and (not other or path.startswith(f"{other}."))


def _call_of(place: str, part: nn.Module) -> RegisteredCall:
    layer = to_continual(part)
    own, weights = _own(part), dict[str, int]()
    tensors = list(own.values())
    for name, tensor in (*layer.named_parameters(remove_duplicate=False), *layer.named_buffers(remove_duplicate=False)):
        same = [i for i, t in enumerate(tensors) if t is tensor] or [
            i for i, n in enumerate(own) if n == name and _equal(own[n], tensor)
        ]
        if not same:
            raise NotStreamable(
                f"{named(place, part)}: '{name}' of {type(layer).__name__} is neither a parameter of the module nor a copy of the one of "
                f"that name, so that weights which are loaded or moved later would not reach it. Remedy: in build_from share it, "
                f"made.{name} = module.…, and compute what follows from it in recur"
            )
        weights[name] = same[0]
        path, _, last = name.rpartition(".")
        holder: Any = layer.get_submodule(path)
        table = holder._parameters if last in holder._parameters else holder._buffers
        table[last] = tensors[same[0]]  # which has the module's dtype
    return RegisteredCall(place, layer, weights)


def _own(part: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a module, in a fixed order."""
    return dict(part.named_parameters()) | dict(part.named_buffers())


def _equal(own: Tensor, copied: Tensor) -> bool:
    """Whether a tensor is a copy of another one; `build_from` may copy into the default dtype."""
    return own.shape == copied.shape and torch.equal(own.to(copied.dtype), copied)


def _routed(part: nn.Module, call: RegisteredCall, number: int) -> Callable[..., Any]:
    """The forward of a module that stays one call, where an export calls it on an input that fits."""
    forward, signature = part.forward, inspect.signature(part.forward)

    def routed(*args: Any, **kwargs: Any) -> Any:
        x = _only_tensor(signature, args, kwargs)
        if torch.compiler.is_exporting():
            if x is not None and call.steps(x) in call.out:
                weights = list(_own(part).values())  # those of now, which torch.export has exchanged
                found = torch.ops.continual.registered_call(x, weights, number)
                beside = call.beside.get(call.steps(x), 0)
                return (found, *(None,) * beside) if beside else found
            return forward(*args, **kwargs)
        y = forward(*args, **kwargs)
        first, *rest = y if isinstance(y, tuple) and y else (y,)
        if x is not None and isinstance(first, Tensor) and not any(r is not None for r in rest):
            call.beside[call.steps(x)] = len(rest)
            _note_step(call, x, first)
        return y

    return routed


def _only_tensor(signature: inspect.Signature, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    """The clip that a module is called on, where all other arguments have their defaults."""
    arguments = signature.bind(*args, **kwargs).arguments
    named = [n for n, v in arguments.items() if v is not signature.parameters[n].default]
    first = arguments[named[0]] if named == list(signature.parameters)[:1] else None
    first = first[0] if isinstance(first, tuple) and len(first) == 1 else first  # of forward(*args)
    return first if isinstance(first, Tensor) and first.ndim > 2 else None


def _note_step(call: RegisteredCall, x: Tensor, y: Tensor) -> None:
    """Record the output step for an input step, if the layer's outputs have the shape of the module's."""
    step, sizes = x.select(call.layer.time_dim, 0), call.steps(x)
    try:
        call.out[sizes] = call.layer.init_state(step).node.out
    except ContinualError as error:
        call.unfit[sizes] = str(error)
        return
    made = call.shaped(x).shape
    if made != y.shape:
        del call.out[sizes]
        call.unfit[sizes] = f"it gives {tuple(made)} where the module gives {tuple(y.shape)} of a clip {tuple(x.shape)}"


def _look_at_steps(module: nn.Module, inputs: Sequence[Tensor]) -> None:
    with (
        torch.no_grad(),
        contextlib.suppress(ShapeMismatch, RuntimeError, ValueError, IndexError),
    ):  # the export reports the error
        module(*(x.clone() for x in inputs))
