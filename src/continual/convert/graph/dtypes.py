"""Converted networks in other dtypes than that of their example.

An exported graph contains the example's dtypes: of ``torch.ones(3, dtype=x.dtype)``, ``y.to(self.lin.weight.dtype)`` or
``torch.finfo(x.dtype).min`` it only knows the result. So the module's code runs again when weights or inputs have other dtypes for the
first time. For that the structure of the module is kept, without weights. Most modules do the same in all dtypes, as a run without
computation shows; for the others a second conversion makes another program.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ...core.precision import kept_complex
from ...core.state import StepSpec
from ...errors import ContinualError, NotStreamable, ShapeMismatch
from .fake_run import behaviour
from .fold_norms import refold
from .instructions import Layer
from .library_errors import is_mistake
from .program import Program
from .program_module import ProgramModule
from .queues import AlignDelays, Positions
from .skeleton import Name, filled, skeleton, tables, weights
from .windows.instruction import Windows

Key = tuple[tuple[torch.dtype, ...], tuple[torch.dtype | None, ...]]  # of the inputs, and of the weights
Convert = Callable[[nn.Module, tuple[Tensor, ...], nn.Module], ProgramModule]
CAST = "Keep it in the dtypes that it has, or cast around what can't run so in the module (x.float() … .to(x.dtype)) and convert it again"


class DetachedProgram(NamedTuple):
    """A program without a module.

    Attributes:
        program: its table has no sources.
        weights: the slots of parameters: slot, path, table and name.
    """

    program: Program
    weights: list[tuple[int, str, str, str]]


class Origin:
    """The module that a network was converted from, and the programs made of it. Copies of the network share it.

    Args:
        module: the module. Neither it nor its weights are kept.
        clip: the example's inputs.
        time_dims: the dimension of time in each input.
        convert: converts a module on a clip, onto the names and weights of a converted network.
        has_dtypes: whether dtypes may be in the program of the conversion.
    """

    def __init__(
        self,
        module: nn.Module,
        clip: Sequence[Tensor],
        time_dims: Sequence[int | None],
        convert: Convert,
        has_dtypes: bool,
    ):
        self.bones: nn.Module | bytes | str = skeleton(module)
        self.names = tuple(weights(module))
        self.clip = [x.detach() if t is None else x.shape for x, t in zip(clip, time_dims, strict=True)]
        self.order = sorted(
            range(len(clip)), key=lambda i: time_dims[i] is None
        )  # the streams, then the inputs that are not streams
        self.convert, self.has_dtypes = convert, has_dtypes
        self.first: Key | None = None
        self.programs: list[DetachedProgram | None] = [None]  # the network has the first, that of the conversion
        self.found: dict[Key, int | str] = {}  # the index of a program, or why there is none
        self._first_digest: str | None = None

    def program(self, key: Key, net: ProgramModule) -> int:
        """The index of the program for some dtypes.

        Raises:
            NotStreamable: the module can't run in them, or computes with other layers in them.
        """
        if key not in self.found:
            self.found[key] = self._find(key, net)
        found = self.found[key]
        if isinstance(found, str):
            raise NotStreamable(found)
        return found

    def _find(self, key: Key, net: ProgramModule) -> int | str:
        module = self._module()
        if isinstance(module, str):
            return f"the dtypes of {net.name} are those of its conversion: {module}. {_in_that_dtype(key)}"
        live = weights(net)
        device = _home(live, self.clip)
        if self._first_digest is None and self.first is not None:
            self._first_digest = self._digest(module, self.first, device)
        digest = self._digest(module, key, device)
        if self._first_digest and digest.startswith("!") and not self._first_digest.startswith("!"):
            return f"{net.name} can't run with {_said(key)}: the module itself raises {digest[1:]}. {CAST}"
        if not self.has_dtypes and digest == self._first_digest and not digest.startswith("!"):
            return 0
        try:
            made = self._converted(module, key, net, live, device)
        except Exception as error:  # of the module, or of torch
            if is_mistake(error):
                raise
            return f"{net.name} can't be converted with {_said(key)}: {_line(error)}. {CAST}"
        if difference := _difference(net._program, made._program):
            return f"with {_said(key)} {net.name} converts to another network: {difference}. {_in_that_dtype(key)}"
        self.programs.append(_detached(made))
        return len(self.programs) - 1

    def detached(self, number: int, net: ProgramModule) -> DetachedProgram:
        """A program without a module."""
        found = self.programs[number]
        if found is None:  # the first one, which the converted network has and this copy of it has not
            key = cast(Key, self.first)
            live = weights(net)
            device = _home(live, self.clip)
            found = self.programs[number] = _detached(self._converted(cast(nn.Module, self._module()), key, net, live, device))
        return found

    def _digest(self, bones: nn.Module, key: Key, device: torch.device) -> str:
        """A digest of what the module does in some dtypes; ``!`` and the error where it raises one."""
        try:
            return behaviour(bones, self._clip(key, device), _dtypes(self.names, key).__getitem__, device)
        except Exception as error:  # of the module, or of torch on tensors without data
            return f"!{_line(error)}"

    def _clip(self, key: Key, device: torch.device) -> tuple[Tensor, ...]:
        of = dict(zip(self.order, key[0], strict=True))
        inputs = enumerate(self.clip)
        return tuple(
            x.to(device, of[i]) if isinstance(x, Tensor) else torch.zeros(x, dtype=of[i], device=device) for i, x in inputs
        )

    def _converted(
        self, module: nn.Module, key: Key, net: ProgramModule, live: dict[Name, Tensor], device: torch.device
    ) -> ProgramModule:
        dtypes = _dtypes(self.names, key)

        def weight(name: Name, like: Tensor) -> Tensor:
            own = live.get(name)
            return torch.zeros(like.shape, dtype=dtypes[name], device=device) if own is None else own.detach().to(dtypes[name])

        return self.convert(filled(module, weight), self._clip(key, device), net)

    def _module(self) -> nn.Module | str:
        """The module without weights, or the reason why there is none."""
        if isinstance(self.bones, bytes):
            try:
                self.bones = cast(nn.Module, pickle.loads(self.bones))
            except Exception as error:  # its class is missing here, or differs
                self.bones = f"it was loaded from a file, and its module's code can't be ({_line(error)})"
        return self.bones

    def __deepcopy__(self, memo: dict[int, Any]) -> Origin:
        return self

    def __getstate__(self) -> dict[str, Any]:
        """A file keeps the module separate, so that the rest loads where the module's code is missing."""
        bones = self.bones
        if isinstance(bones, nn.Module):
            try:
                bones = pickle.dumps(bones)
            except Exception as error:  # local classes, lambdas, locks …
                bones = f"it was loaded from a file, into which its module's code can't be written ({_line(error)})"
        return {**self.__dict__, "bones": bones}


class DtypePrograms:
    """The program of a network, and the dtypes for which it is valid. Objects never change, so that shallow copies of a network may share
    one.

    Args:
        net: a network that was just converted.
        origin: what it was converted from.

    Attributes:
        now: the dtypes.
        others: programs that the network had before, by their index.
    """

    def __init__(self, net: ProgramModule, origin: Origin):
        own = {(path, kind): table for path, kind, table in tables(net)}
        self.origin = origin
        self.weights = [(own[path, kind], name) for path, kind, name in origin.names]
        self.now = self._key([i.dtype for i in net._inputs_in_order])
        self.number = 0
        self.others: dict[int, Program] = {}
        origin.first = self.now
        origin.found[self.now] = 0

    def _key(self, inputs: Sequence[torch.dtype]) -> Key:
        """The dtypes of inputs, and of the current weights."""
        weights = [table.get(name) for table, name in self.weights]
        return tuple(inputs), tuple([None if t is None else t.dtype for t in weights])

    def for_inputs(self, net: ProgramModule, inputs: Sequence[Tensor | StepSpec]) -> DtypePrograms:
        """Give a network the program for its inputs and weights.

        Raises:
            ShapeMismatch: the module itself can't run so.
        """
        if len(inputs) != len(self.now[0]) or torch.compiler.is_compiling():
            return self
        key = self._key([x.dtype for x in inputs])
        if key == self.now or torch.is_autocast_enabled(inputs[0].device.type):
            return self
        try:
            return self.changed(net, key)
        except NotStreamable as error:
            raise ShapeMismatch(str(error)) from error

    def are_of(self, specs: StepSpec | list[StepSpec]) -> bool:
        """Whether the steps of a stream have these dtypes."""
        if isinstance(specs, StepSpec):
            return specs.dtype is self.now[0][0]
        return all(f.dtype is dtype for f, dtype in zip(specs, self.now[0], strict=False))

    def check_move(self, net: ProgramModule, fn: Callable[[Tensor], Tensor]) -> None:
        """Refuse a move of the weights to dtypes in which the module can't run."""
        self.origin.program(self.moved(fn), net)

    def moved(self, fn: Callable[[Tensor], Tensor]) -> Key:
        """The dtypes after a move."""
        fn, after = kept_complex(fn), dict[tuple[torch.dtype, torch.device], torch.dtype]()

        def moved(dtype: torch.dtype, device: torch.device) -> torch.dtype:
            if (dtype, device) not in after:
                after[dtype, device] = fn(torch.empty(0, dtype=dtype, device=device)).dtype
            return after[dtype, device]

        weights = [table.get(name) for table, name in self.weights]
        home = next((t.device for t in weights if t is not None), torch.device("cpu"))
        inputs = [moved(d, home) if d.is_floating_point or d.is_complex else d for d in self.now[0]]
        return tuple(inputs), tuple([None if t is None else moved(t.dtype, t.device) for t in weights])

    def without_others(self) -> DtypePrograms:
        """The same index, without the former programs of the network."""
        new = copy.copy(self)
        new.others = {}
        return new

    def changed(self, net: ProgramModule, key: Key) -> DtypePrograms:
        """Give a network the program for some dtypes."""
        if key == self.now:
            return self
        number, new = self.origin.program(key, net), copy.copy(self)
        if number != self.number:
            net._program.release()
            new.others = {**self.others, self.number: net._program}
            own = new.others.pop(number, None)
            net._set_program(_attached(self.origin.detached(number, net), net) if own is None else own)
            new.number = number
            if own is None and net.folded:
                refold(net)
        for own_input, dtype in zip(net._inputs_in_order, key[0], strict=True):
            own_input.dtype = dtype
        new.now = key
        return new


def _home(live: dict[Name, Tensor], clip: Sequence[Tensor | torch.Size]) -> torch.device:
    """The device of a module's weights; without weights, that of its inputs."""
    return next((t.device for t in (*live.values(), *clip) if isinstance(t, Tensor)), torch.device("cpu"))


def _dtypes(names: Sequence[Name], key: Key) -> dict[Name, torch.dtype]:
    """The dtype of each weight. A weight that folding has removed gets the dtype of another weight."""
    some = next((d for d in key[1] if d is not None and d.is_floating_point), torch.get_default_dtype())
    return {name: some if dtype is None else dtype for name, dtype in zip(names, key[1], strict=True)}


def _difference(before: Program, after: Program) -> str:
    """How the streams of two programs differ; ``""`` if either can continue the other's."""
    pairs = zip_longest(_stateful(before), _stateful(after), fillvalue=("nothing",))
    if (found := next(((a, b) for a, b in pairs if a != b), None)) is not None:
        return f"its state is '{found[0][0]}' here and '{found[1][0]}' there"
    for what in ("receptive_field", "delay", "stride"):
        here, there = getattr(before.timing, what), getattr(after.timing, what)
        if here != there:
            return f"its {what} is {there} there and {here} here"
    return ""


def _stateful(program: Program) -> list[tuple[str, ...]]:
    """The instructions with state: path, class, and the layer's class and timing."""
    found: list[tuple[str, ...]] = []
    for i in program.instructions:
        if isinstance(i, (Layer, AlignDelays, Positions, Windows)):
            layer = i.layer()
            found.append((i.path, type(i).__name__, "" if layer is None else f"{type(layer).__name__} {layer.timing}"))
    return found


# ---- programs with and without a module -----------------------------------------------------------------------------------


def _detached(net: ProgramModule) -> DetachedProgram:
    """The program of a network, without the network."""
    program = net._program
    program.release()
    names = {id(table): (path, kind) for path, kind, table in tables(net)}
    own = [(slot, *names.get(id(table), ("", "constant")), name) for slot, table, name in program.table.sources]
    program.table.detach()
    return DetachedProgram(program, own)


def _attached(detached: DetachedProgram, net: ProgramModule) -> Program:
    """A copy of a program for a network."""
    tensors = detached.program.table.tensors
    new = copy.deepcopy(detached.program, {id(t): t for t in tensors.values()})
    own = {(path, kind): table for path, kind, table in tables(net)}
    home = next((t.device for t in weights(net).values()), None)
    if home is not None:
        new.table.tensors.update({name: t.to(home) for name, t in tensors.items() if t is not None})
    for slot, path, kind, name in detached.weights:
        new.table.add(slot, new.table.tensors if kind == "constant" else own[path, kind], name, f"{path}.{name}".lstrip("."))
    new.layout.name = net.name
    return new


# ---- words ---------------------------------------------------------------------------------------------------------------


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _said(key: Key) -> str:
    inputs = ", ".join(map(_short, dict.fromkeys(key[0])))
    own = ", ".join(map(_short, dict.fromkeys(d for d in key[1] if d is not None and (d.is_floating_point or d.is_complex))))
    return f"steps in {inputs}" + (f" and weights in {own}" if own else "")


def _in_that_dtype(key: Key) -> str:
    dtype = next((d for d in (*key[0], *key[1]) if d is not None and d.is_floating_point), torch.float32)
    return f"Convert the module in that dtype instead: co.continual(module.to({dtype}), clip.to({dtype}), …)"


def _line(error: Exception) -> str:
    """The first line of an error. Its remedies are left out: they concern a first conversion."""
    text = (str(error).strip().splitlines() or [""])[0].partition(". Remedies:")[0].rstrip(".")
    return text if text and isinstance(error, ContinualError) else f"{type(error).__name__}: {text}".rstrip(": ")
