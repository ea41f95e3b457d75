"""Converted modules in other dtypes than that of their example.

An exported graph has the example's dtypes baked in: of ``torch.ones(3, dtype=x.dtype)``, ``y.to(self.lin.weight.dtype)`` or
``torch.finfo(x.dtype).min`` it only knows what came out. So the module's code is asked again when weights or inputs have other dtypes for
the first time. Of the module its structure is kept for that, without weights. Most modules do the same in all dtypes, which a run without
a computation shows; of others another program is made, by another conversion.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ...core.module import CoModule
from ...core.precision import kept_complex
from ...core.state import StepSpec
from ...errors import ContinualError, NotStreamable, ShapeMismatch
from .fake_run import behaviour
from .fold_norms import refold
from .instructions import Op
from .io_layout import Input
from .library_errors import is_mistake
from .skeleton import Name, filled, skeleton, tables, weights

if TYPE_CHECKING:
    from .graph_module import GraphModule

Key = tuple[tuple[torch.dtype, ...], tuple[torch.dtype | None, ...]]  # of the inputs, and of the weights
Attributes = dict[str, Any]
CAST = "Keep it in the dtypes that it has, or cast around what can't run so in the module (x.float() … .to(x.dtype)) and convert it anew"
# What a converted module has of its program; all else belongs to its tree of names, or to its stream.
PROGRAM = (
    "_program", "_layers", "_ports", "_nested", "_wires", "notes", "_outputs", "_timing", "_names", "_given", "_streams", "_bank",
)  # fmt: skip


class Origin:
    """What a module was converted from, and the programs that were made of it. Copies of the converted module share it.

    Args:
        module: the module. Neither it nor its weights are kept.
        clip: the example's inputs.
        time_dims: where time is in each of them.
        convert: gives the converted module of a module and a clip, on the names and weights of another converted one.
        bound: whether dtypes may be baked into the program that was made first.
    """

    def __init__(
        self,
        module: nn.Module,
        clip: Sequence[Tensor],
        time_dims: Sequence[int | None],
        convert: Callable[[nn.Module, tuple[Tensor, ...], GraphModule], GraphModule],
        bound: bool,
    ):
        self.bones: nn.Module | bytes | str = skeleton(module)
        self.names = tuple(weights(module))
        self.clip = [x.detach() if t is None else x.shape for x, t in zip(clip, time_dims, strict=True)]
        self.order = sorted(range(len(clip)), key=lambda i: time_dims[i] is None)  # the streams, then the inputs that are none
        self.convert, self.bound = convert, bound
        self.first: Key | None = None
        self.programs: list[Attributes | None] = [None]  # the first is that of the conversion, which the module has
        self.found: dict[Key, int | str] = {}  # which program, or why there is none
        self._first_digest: str | None = None

    def program(self, key: Key, net: GraphModule) -> int:
        """Which program is right for dtypes.

        Raises:
            NotStreamable: the module itself can't run so, or is another network there.
        """
        if key not in self.found:
            self.found[key] = self._find(key, net)
        found = self.found[key]
        if isinstance(found, str):
            raise NotStreamable(found)
        return found

    def _find(self, key: Key, net: GraphModule) -> int | str:
        bones = self._module()
        if isinstance(bones, str):
            return f"the dtypes of {net.name} are those of its conversion: {bones}. {_elsewhere(key)}"
        live = weights(net)
        device = _home(live, self.clip)
        if self._first_digest is None and self.first is not None:
            self._first_digest = self._digest(bones, self.first, device)
        digest = self._digest(bones, key, device)
        if self._first_digest and digest.startswith("!") and not self._first_digest.startswith("!"):
            return f"{net.name} can't run with {_said(key)}: the module itself raises {digest[1:]}. {CAST}"
        if not self.bound and digest == self._first_digest and not digest.startswith("!"):
            return 0
        try:
            made = self._converted(bones, key, net, live, device)
        except Exception as error:  # whatever the module or torch says
            if is_mistake(error):
                raise
            return f"{net.name} can't be converted with {_said(key)}: {_line(error)}. {CAST}"
        if difference := _another(net, made):
            return f"with {_said(key)} {net.name} is another network: {difference}. {_elsewhere(key)}"
        self.programs.append(_on_its_own(made))
        return len(self.programs) - 1

    def bundle(self, number: int, net: GraphModule) -> Attributes:
        """A program on its own."""
        found = self.programs[number]
        if found is None:  # the first one, which the module that was converted has, and this copy of it has not
            key = cast(Key, self.first)
            live = weights(net)
            device = _home(live, self.clip)
            found = self.programs[number] = _on_its_own(self._converted(cast(nn.Module, self._module()), key, net, live, device))
        return found

    def _digest(self, bones: nn.Module, key: Key, device: torch.device) -> str:
        """What the module does with some dtypes, or after a ``!`` what it raises."""
        try:
            return behaviour(bones, self._clip(key, device), _dtypes(self.names, key).__getitem__, device)
        except Exception as error:  # of the module, or of torch on tensors without data
            return f"!{_line(error)}"

    def _clip(self, key: Key, device: torch.device) -> tuple[Tensor, ...]:
        of = dict(zip(self.order, key[0], strict=True))
        given = enumerate(self.clip)
        return tuple(
            x.to(device, of[i]) if isinstance(x, Tensor) else torch.zeros(x, dtype=of[i], device=device) for i, x in given
        )

    def _converted(
        self, bones: nn.Module, key: Key, net: GraphModule, live: dict[Name, Tensor], device: torch.device
    ) -> GraphModule:
        dtypes = _dtypes(self.names, key)

        def weight(name: Name, like: Tensor) -> Tensor:
            own = live.get(name)
            return torch.zeros(like.shape, dtype=dtypes[name], device=device) if own is None else own.detach().to(dtypes[name])

        return self.convert(filled(bones, weight), self._clip(key, device), net)

    def _module(self) -> nn.Module | str:
        """The module without weights, or why there is none."""
        if isinstance(self.bones, bytes):
            try:
                self.bones = cast(nn.Module, pickle.loads(self.bones))
            except Exception as error:  # its class is not here, or is another one
                self.bones = f"it was loaded from a file, and its module's code can't be ({_line(error)})"
        return self.bones

    def __deepcopy__(self, memo: dict[int, Any]) -> Origin:
        return self

    def __getstate__(self) -> dict[str, Any]:
        """In a file the module's code is apart, so that the rest is read where the code is not."""
        bones = self.bones
        if isinstance(bones, nn.Module):
            try:
                bones = pickle.dumps(bones)
            except Exception as error:  # local classes, lambdas, locks …
                bones = f"it was loaded from a file, into which its module's code can't be written ({_line(error)})"
        return {**self.__dict__, "bones": bones}


class Dtypes:
    """Which program a converted module has, and for which dtypes. It is never changed, so that shallow copies may share it.

    Args:
        net: a module that was just converted.
        origin: what it was made of.
    """

    def __init__(self, net: GraphModule, origin: Origin):
        own = {(path, kind): table for path, kind, table in tables(net)}
        self.origin = origin
        self.weights = [(own[path, kind], name) for path, kind, name in origin.names]
        self.now = self.key([i.dtype for i in _in_order(net)])
        self.number = 0
        self.others: dict[int, Attributes] = {}  # programs that the module had before
        origin.first = self.now
        origin.found[self.now] = 0

    def key(self, inputs: Sequence[torch.dtype]) -> Key:
        """The dtypes of now."""
        held = [table.get(name) for table, name in self.weights]
        return tuple(inputs), tuple([None if t is None else t.dtype for t in held])

    def moved(self, fn: Callable[[Tensor], Tensor]) -> Key:
        """The dtypes after a move."""
        fn, after = kept_complex(fn), dict[tuple[torch.dtype, torch.device], torch.dtype]()

        def moved(dtype: torch.dtype, device: torch.device) -> torch.dtype:
            if (dtype, device) not in after:
                after[dtype, device] = fn(torch.empty(0, dtype=dtype, device=device)).dtype
            return after[dtype, device]

        held = [table.get(name) for table, name in self.weights]
        home = next((t.device for t in held if t is not None), torch.device("cpu"))
        inputs = [moved(d, home) if d.is_floating_point or d.is_complex else d for d in self.now[0]]
        return tuple(inputs), tuple([None if t is None else moved(t.dtype, t.device) for t in held])

    def alone(self) -> Dtypes:
        """The same without the programs that the module had before."""
        new = copy.copy(self)
        new.others = {}
        return new

    def turned(self, net: GraphModule, key: Key) -> Dtypes:
        """Give the module the program for some dtypes."""
        number, new = self.origin.program(key, net), copy.copy(self)
        if number != self.number:
            new.others = {**self.others, self.number: _taken(net)}
            own = new.others.pop(number, None)
            net.__dict__.update(_bound(self.origin.bundle(number, net), net) if own is None else own)
            new.number = number
            if own is None and net.folded:
                refold(net)
        for own_input, dtype in zip(_in_order(net), key[0], strict=True):
            own_input.dtype = dtype
        new.now = key
        return new


class InItsDtypes(CoModule):
    """A converted module that runs what its own module would, whatever the dtypes of weights and inputs are.

    Attributes:
        folded: paths of convolutions and of the norms that were folded into them.
    """

    _dtypes: Dtypes | None = None
    folded: tuple[tuple[str, str], ...] = ()

    def fit(self, inputs: Sequence[Tensor | StepSpec]) -> None:
        """See that the program is that for these inputs and the weights of now.

        Args:
            inputs: the streams, then the inputs that are none.

        Raises:
            ShapeMismatch: the module itself can't run so.
        """
        own, net = self._dtypes, cast("GraphModule", self)
        if own is None or len(inputs) != len(own.now[0]) or torch.compiler.is_compiling():
            return
        key = own.key([x.dtype for x in inputs])
        if key != own.now and not torch.is_autocast_enabled(inputs[0].device.type):
            try:
                self.__dict__["_dtypes"] = own.turned(net, key)
            except NotStreamable as error:
                raise ShapeMismatch(str(error)) from error

    def _fit_stream(self, given: StepSpec | list[StepSpec]) -> None:
        """The same for a stream that runs: without weights a module may have streams of several dtypes."""
        own = self._dtypes
        if own is None:
            return
        if isinstance(given, StepSpec):
            if given.dtype is not own.now[0][0]:
                self.fit([given])
        elif any(f.dtype is not dtype for f, dtype in zip(given, own.now[0], strict=False)):
            self.fit(given)

    def _ready_for(self, fn: Callable[[Tensor], Tensor]) -> None:
        if self._dtypes is not None:
            self._dtypes.origin.program(self._dtypes.moved(fn), cast("GraphModule", self))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> InItsDtypes:
        own, net = self._dtypes, cast("GraphModule", self)
        after = None if own is None or not recurse else own.moved(fn)
        for program in (net.__dict__, *([] if own is None else own.others.values())):
            program["_bank"].move(fn)
        super()._apply(fn, recurse)
        own = self._dtypes  # a stream that runs has turned already
        if own is not None and after is not None and own.now != after:
            self.__dict__["_dtypes"] = own.turned(net, after)
        return self


def _home(live: dict[Name, Tensor], clip: Sequence[Any]) -> torch.device:
    """The device of a module's weights; without some, that of what it was given."""
    return next((t.device for t in (*live.values(), *clip) if isinstance(t, Tensor)), torch.device("cpu"))


def _in_order(net: GraphModule) -> list[Input]:
    """The streams, then the inputs that are none."""
    return sorted(net._ports.inputs, key=lambda i: i.time is None)


def _dtypes(names: Sequence[Name], key: Key) -> dict[Name, torch.dtype]:
    """The dtype of each weight; of those that folding has taken away, that of another one."""
    some = next((d for d in key[1] if d is not None and d.is_floating_point), torch.get_default_dtype())
    return {name: some if dtype is None else dtype for name, dtype in zip(names, key[1], strict=True)}


def _another(net: GraphModule, made: GraphModule) -> str:
    """In what the streams of two programs differ; nothing if the one's state is the other's."""

    def anatomy(own: GraphModule) -> list[tuple[str, ...]]:
        stateful = [i for i in own._program if hasattr(i, "state_node")]
        layers = [i.layer() for i in stateful]
        return [
            (i.path, type(i).__name__, "" if m is None else f"{type(m).__name__} {m.timing}")
            for i, m in zip(stateful, layers, strict=True)
        ]

    before, after = anatomy(net), anatomy(made)
    if before != after:
        a, b = next(
            ((a, b) for a, b in zip_longest(before, after, fillvalue=("nothing",)) if a != b), (("nothing",), ("nothing",))
        )
        return f"its state is '{a[0]}' here and '{b[0]}' there"
    for what in ("receptive_field", "delay", "stride"):
        if getattr(net.timing, what) != getattr(made.timing, what):
            return f"its {what} is {getattr(made.timing, what)} there and {getattr(net.timing, what)} here"
    return ""


def is_bound(net: GraphModule) -> bool:
    """Whether dtypes may be baked into a program: into arguments of operations, or as tensors."""
    ops = [i for i in (*net._program, *net._bank.constants) if isinstance(i, Op)]
    inside = any(
        name not in i.weights for i in net._layers for name, _ in (*i.module.named_buffers(), *i.module.named_parameters())
    )
    return bool(net._bank.tensors) or inside or any(_dtype_in((*op.args, *op.kwargs.values())) for op in ops)


def _dtype_in(value: Any) -> bool:
    return any(map(_dtype_in, value)) if isinstance(value, (tuple, list)) else isinstance(value, torch.dtype)


# ---- programs, in a module and on their own ------------------------------------------------------------------------------


def _taken(net: GraphModule) -> Attributes:
    """The program of a module, which lets go of what it holds of weights."""
    net._bank.forget()
    for layer in net._layers:
        layer.unbind()
    return {name: net.__dict__[name] for name in PROGRAM}


def _on_its_own(net: GraphModule) -> Attributes:
    """A program that belongs to no module: it knows its weights by their names."""
    found = _taken(net)
    bank = found["_bank"]
    names = {id(table): (path, kind) for path, kind, table in tables(net)}
    own = [(slot, *names.get(id(table), ("", "constant")), name) for slot, table, name in bank.sources]
    bank.sources, bank._known = [], {}
    return {**found, "weights": own}


def _bound(program: Attributes, net: GraphModule) -> Attributes:
    """A copy of a program for a module."""
    held = program["_bank"].tensors
    new = copy.deepcopy({name: program[name] for name in PROGRAM}, {id(t): t for t in held.values()})
    bank, own = new["_bank"], {(path, kind): table for path, kind, table in tables(net)}
    home = next((t.device for t in weights(net).values()), None)
    if home is not None:
        bank.tensors.update({name: t.to(home) for name, t in held.items()})
    for slot, path, kind, name in program["weights"]:
        bank.add(slot, bank.tensors if kind == "constant" else own[path, kind], name, f"{path}.{name}".lstrip("."))
    new["_ports"].name = net.name
    return new


# ---- words ---------------------------------------------------------------------------------------------------------------


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _said(key: Key) -> str:
    inputs = ", ".join(map(_short, dict.fromkeys(key[0])))
    own = ", ".join(map(_short, dict.fromkeys(d for d in key[1] if d is not None and (d.is_floating_point or d.is_complex))))
    return f"steps in {inputs}" + (f" and weights in {own}" if own else "")


def _elsewhere(key: Key) -> str:
    dtype = next((d for d in (*key[0], *key[1]) if d is not None and d.is_floating_point), torch.float32)
    return f"Convert the module in that dtype instead: co.continual(module.to({dtype}), clip.to({dtype}), …)"


def _line(error: Exception) -> str:
    """What an error says, without its remedies: those are for who converts a module first."""
    text = (str(error).strip().splitlines() or [""])[0].partition(". Remedies:")[0].rstrip(".")
    return text if text and isinstance(error, ContinualError) else f"{type(error).__name__}: {text}".rstrip(": ")
