"""The tree of names of a converted network. It shares the module's parameters, and refuses edits that the captured operations ignore."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, NamedTuple, NoReturn

from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from ...core.naming import named
from ...errors import NotStreamable
from .skeleton import Table
from .switches import CLASS_OF_ALL, Switches, plain
from .training_modes import modal

AGAIN = "Change the module that it was made of, and convert that again: co.continual(module, clip)"
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Attributes that may be set: they belong to the display of a module, or to the network itself.
_FREE = frozenset({"training", "extra_repr", "call_mode"})
# Classes whose placeholders are plain: they keep references to parameters or children elsewhere.
_PLAIN = (
    nn.RNNBase, nn.ModuleDict, nn.ParameterList, nn.ParameterDict, LazyModuleMixin, nn.MultiheadAttention, nn.Transformer,
    nn.TransformerEncoder, nn.TransformerDecoder, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer,
)  # fmt: skip


class FrozenTable(dict[Any, Any]):
    """A table that refuses changes.

    Args:
        items: its entries.
        owner: the name of its module in messages.
    """

    why = ""

    def __init__(self, items: dict[Any, Any], owner: str):
        super().__init__(items)
        self.owner = owner

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotStreamable(f"{self.owner}: {self.why}")

    __setitem__ = __delitem__ = __ior__ = pop = popitem = clear = update = setdefault = _refuse

    def __reduce__(self) -> Any:
        return type(self), (dict(self), self.owner)


class Children(FrozenTable):
    """The children of a converted network, or of a part of it."""

    why = f"its children can't be changed. A converted network runs the operations that were captured, not its children. {AGAIN}"


class Hooks(FrozenTable):
    """The hooks of a part of a converted network: it has none."""

    why = (
        "a hook on a part of a converted network would never be called: it runs the operations that were captured, not its parts. "
        "Register the hook on the converted network itself; or return what you want to see as another output of the module, and "
        "convert that again: co.continual(module, clip)"
    )


class SharedTable(MutableMapping[str, Tensor | None]):
    """The parameters or buffers of a module, in the module's own table. Values may be exchanged; names stay.

    Args:
        table: the module's table.
        owner: the name of the module in messages.
    """

    def __init__(self, table: Table | SharedTable, owner: str):
        self.table: Table = table.table if isinstance(table, SharedTable) else table
        self.owner = owner

    def __getitem__(self, name: str) -> Tensor | None:
        return self.table[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)

    def __contains__(self, name: object) -> bool:
        return name in self.table

    def __setitem__(self, name: str, value: Tensor | None) -> None:
        if name not in self.table:
            raise NotStreamable(f"{self.owner}: the captured operations read no '{name}', so it would have no effect. {AGAIN}")
        old = self.table[name]
        if value is not old and (value is None or old is None):
            raise NotStreamable(f"{self.owner}: '{name}' was {_shown(old)} when the operations were captured. {AGAIN}")
        if value is not None and old is not None and value is not old and value.shape != old.shape:
            raise NotStreamable(
                f"{self.owner}: '{name}' has the shape {tuple(old.shape)} in the captured operations, got {tuple(value.shape)}. {AGAIN}"
            )
        self.table[name] = value

    def __delitem__(self, name: str) -> None:
        raise NotStreamable(
            f"{self.owner}: the captured operations read '{name}', so it can't be taken away or computed again (pruning, weight norm, "
            f"parametrisations). {AGAIN}"
        )

    def copy(self) -> Table:
        """The current entries."""
        return dict(self.table)


def _shown(value: Tensor | None) -> str:
    return "None" if value is None else f"of the shape {tuple(value.shape)}"


class ModuleInfo(NamedTuple):
    """What a converted network, or a part of it, knows about the module that it stands for.

    Attributes:
        kind: its class.
        owner: its name in messages.
        modal: how it differs in training mode, with the line of code; empty if it does not.
        fixed: names of attributes that the captured code may have read.
    """

    kind: str
    owner: str
    modal: str
    fixed: frozenset[str]


class FrozenModule(nn.Module):
    """Base class of a converted network and of its parts. Edits without effect on the captured operations are refused."""

    _info: ModuleInfo | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        info = self._info
        if info is not None and name in info.fixed:
            raise NotStreamable(
                f"{info.owner}: '{name}' was read when the operations were captured; setting it here would have no effect. {AGAIN}"
            )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        info = self._info
        if info is not None and name in info.fixed:
            raise NotStreamable(f"{info.owner}: '{name}' belongs to the captured operations. {AGAIN}")
        super().__delattr__(name)

    def modes(self) -> str:
        """What differs in training mode, here and below."""
        infos = (m._info for m in self.modules() if isinstance(m, FrozenModule))
        found = [f"{a.owner.partition(': ')[2] or a.owner} {a.modal}" for a in infos if a is not None and a.modal]
        return "; ".join(found[:4]) + (f"; and {len(found) - 4} more" if len(found) > 4 else "")


class Part(FrozenModule):
    """A part of the tree of names. It holds the parameters and buffers of a submodule; it does not run."""

    _info: ModuleInfo

    def _get_name(self) -> str:
        return self._info.kind

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: the captured operations run as a whole."""
        raise NotStreamable(
            f"{self._info.owner}: parts of a converted network do not run by themselves. Call the part of the module that it was made of"
        )

    def train(self, mode: bool = True) -> Any:
        """As ``torch.nn.Module.train``, for a part that computes the same in training mode."""
        if mode and not self.training and (modes := self.modes()):
            raise NotStreamable(
                f"{self._info.owner}: a part can't be set to training mode, for it was captured in eval mode: {modes}. Train the "
                "module that the network was made of, whose weights it shares"
            )
        return super().train(mode)

    def __setitem__(self, key: Any, module: Any) -> None:
        self._modules[str(key)] = module

    def __delitem__(self, key: Any) -> None:
        del self._modules[str(key)]


class Converted(FrozenModule):
    """A converted network as the module that it was made of: its names, parameters and modes."""

    name: str
    _switches: Switches | None = None

    def _stand_for(self, module: nn.Module) -> None:
        """Refuse edits from now on. The ``forward`` of the whole network may be replaced."""
        root = info_of(module, self.name)
        self.__dict__.update(training=False, _info=root._replace(fixed=root.fixed - {"forward"}))

    def _names_of(self, path: str) -> list[str]:
        """All names of the parameter at a path; of a buffer its one name."""
        table, name = self.table_of(path)
        value = table.get(name)  # None where a norm was folded into another weight
        if not isinstance(value, nn.Parameter):
            return [path]
        return [n for n, p in self.named_parameters(remove_duplicate=False) if p is value]

    def table_of(self, path: str) -> tuple[Table, str]:
        """The module's own table that holds a parameter or buffer, and its name there."""
        *parts, name = path.split(".")
        holder: Any = self
        for part in parts:  # not by attributes: a child may have the name of one of our properties
            holder = holder._modules[part]
        table = holder._buffers if name in holder._buffers else holder._parameters
        return table.table, name

    def train(self, mode: bool = True) -> Any:
        """As ``torch.nn.Module.train``. If the module differs in training mode, the next call is refused."""
        for part in self.modules():
            part.__dict__["training"] = mode
        return super().train(mode)

    def _refuse_training(self) -> None:
        if self.training and (modes := self.modes()):
            raise NotStreamable(
                f"{self.name} is in training mode, and its operations were captured in eval mode: {modes}. Train the module that it was "
                "made of, whose weights it shares, and call eval() here"
            )

    def _refuse_edits(self) -> None:
        """Refuse to run after the module has changed. It is checked at the start of a stream, and for clips."""
        self._refuse_training()
        if self._switches is not None:
            self._switches.check()


_made: dict[type[nn.Module], type[Part]] = {}


def part_class(cls: type[nn.Module]) -> type[Part]:
    """The class of parts that stand for modules of a class. For classes of ``torch.nn`` it is a subclass of them."""
    if not cls.__module__.startswith("torch.nn.modules.") or issubclass(cls, _PLAIN):
        return Part
    if cls not in _made:
        _made[cls] = type(cls.__name__, (Part, cls), {"__module__": __name__, "__reduce_ex__": _reduce, "_stands_for": cls})
    return _made[cls]


def _reduce(self: Any, protocol: Any) -> Any:
    return _rebuild, (self._stands_for,), self.__getstate__()


def _rebuild(cls: type[nn.Module]) -> Part:
    made = part_class(cls)
    return made.__new__(made)


def _part(module: nn.Module, owner: str) -> Part:
    """The part that stands for a module."""
    cls = part_class(type(module))
    made = cls.__new__(cls)
    nn.Module.__init__(made)
    if cls is not Part:
        made.__dict__.update({name: value for name, value in vars(module).items() if name not in CLASS_OF_ALL and plain(value)})
    for table in _HOOKS:
        made.__dict__[table] = Hooks({}, owner)
    made.__dict__.update(training=False, _info=info_of(module, owner))
    return made


def info_of(module: nn.Module, owner: str) -> ModuleInfo:
    """What to know about a module."""
    defined = {name for cls in type(module).__mro__ if cls not in nn.Module.__mro__ for name in vars(cls)}
    fixed = {name for name in defined | vars(module).keys() - CLASS_OF_ALL if not name.startswith("__")} - _FREE
    tables = (module._parameters, module._buffers, module._modules)
    return ModuleInfo(type(module).__name__, owner, modal(module), frozenset(fixed | {"__class__"}).difference(*tables))


def mirror(module: nn.Module, into: FrozenModule, network: str, path: str = "", memo: dict[int, nn.Module] | None = None) -> None:
    """Give a converted network, or a part of it, the parameters, buffers and names of a module. They are shared.

    Args:
        module: the module.
        into: the network or part.
        network: the network's name in messages.
        path: where in the network.
        memo: parts, by the id of the module that they stand for.
    """
    memo = {} if memo is None else memo
    memo[id(module)] = into
    owner = f"{network}: {named(path, module)}" if path else network
    for table in ("_parameters", "_buffers"):
        into.__dict__[table] = SharedTable(module.__dict__[table], owner)
    into.__dict__["_non_persistent_buffers_set"] = module._non_persistent_buffers_set
    children: dict[str, nn.Module | None] = {}
    for name, child in module._modules.items():
        if child is not None and id(child) not in memo:
            below = f"{path}.{name}".lstrip(".")
            mirror(child, _part(child, f"{network}: {named(below, child)}"), network, below, memo)
        children[name] = None if child is None else memo[id(child)]
    into.__dict__["_modules"] = Children(children, owner)
