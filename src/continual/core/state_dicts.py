"""State dicts with flat names: without the numbers that containers put into them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.nn.modules.module import _IncompatibleKeys

from .flat_names import earlier_names, flat_names, without_any_numbers

__all__ = ["flat_state_dict", "load_state_dict", "state_dict"]


class _ThreadLocal(threading.local):
    depth = 0  # of nested flat_state_dict blocks


_local = _ThreadLocal()


class _FlatStateDict:
    """``with co.flat_state_dict:`` state dicts of continual modules have flat names.

    Inside the block ``module.state_dict()`` gives flat names (see :mod:`continual.core.flat_names`), and ``module.load_state_dict()``
    takes flat and full ones. In a ``torch.nn`` module that holds continual ones, names are flat from the outermost continual module on.
    Blocks nest, and hold for their thread alone.

    Example:
        >>> net = co.Sequential(co.Residual(co.Sequential({"conv": co.Conv1d(2, 2, 3, padding=1)})), nn.ReLU())
        >>> list(net.state_dict())
        ['0.1.conv.weight', '0.1.conv.bias']
        >>> with co.flat_state_dict:
        ...     list(net.state_dict())
        ['conv.weight', 'conv.bias']
    """

    def __enter__(self) -> None:
        _local.depth += 1

    def __exit__(self, *error: object) -> None:
        _local.depth -= 1

    def __repr__(self) -> str:
        return "flat_state_dict"


flat_state_dict = _FlatStateDict()


class FlatNames(nn.Module):
    """Base class of modules that heed :data:`flat_state_dict`."""

    def state_dict(self, *args: Any, flatten: bool = False, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """As ``torch.nn.Module.state_dict``; ``flatten=True``, or a block of ``co.flat_state_dict``, gives flat names."""
        if flatten:
            return state_dict(self, *args, flatten=True, **kwargs)
        if not _local.depth:
            return super().state_dict(*args, **kwargs)
        destination = args[0] if args else kwargs.get("destination")
        before = set() if destination is None else set(destination)
        with _full_names():
            found = super().state_dict(*args, **kwargs)
        prefix = args[1] if len(args) > 1 else kwargs.get("prefix", "")
        return _renamed(found, flat_names((k for k in found if k not in before), prefix))

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False, *, flatten: bool = False
    ) -> _IncompatibleKeys:
        """As ``torch.nn.Module.load_state_dict``; with ``flatten=True`` as :func:`load_state_dict`."""
        with flat_state_dict if flatten else nullcontext():
            entries = _with_full_names(self, state_dict) if flatten else state_dict
            return super().load_state_dict(entries, strict, assign)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if _local.depth:  # torch hands on a dictionary of its own, and what is renamed here the children see
            _renamed(state_dict, _full_for(self, state_dict, prefix))
        super()._load_from_state_dict(state_dict, prefix, *args)


def state_dict(
    module: nn.Module, destination: Any = None, prefix: str = "", keep_vars: bool = False, *, flatten: bool = False
) -> dict[str, Any]:
    """``module.state_dict()``, on request with flat names.

    Args:
        module: any module. Unlike in a block of :data:`flat_state_dict`, the numbers of ``torch.nn`` containers around continual
            modules go too.
        destination, prefix, keep_vars: as in ``torch.nn.Module.state_dict``.
        flatten: leave out the numbers of containers where no names become equal: see :mod:`continual.core.flat_names`.

    Returns:
        The dictionary from names to tensors.

    Example:
        >>> net = co.BroadcastReduce(co.Sequential({"fine": co.Conv1d(2, 4, 1, bias=False)}), co.Conv1d(2, 4, 3, padding=1))
        >>> list(co.state_dict(net, flatten=True))
        ['fine.weight', 'weight', 'bias']
        >>> list(co.state_dict(co.Sequential(net, net), flatten=True))  # without 0 and 1 names would be equal
        ['0.fine.weight', '0.weight', '0.bias', '1.fine.weight', '1.weight', '1.bias']
    """
    options: dict[str, Any] = {"destination": destination, "prefix": prefix, "keep_vars": keep_vars}
    if not flatten:
        return module.state_dict(**options)
    before = set() if destination is None else set(destination)
    with _full_names():
        found = module.state_dict(**options)
    return _renamed(found, flat_names((k for k in found if k not in before), prefix))


def load_state_dict(
    module: nn.Module, state_dict: Mapping[str, Any], strict: bool = True, flatten: bool = False
) -> _IncompatibleKeys:
    """``module.load_state_dict(state_dict)``, on request from flat names.

    Args:
        module: any module.
        state_dict: names and tensors; it is not changed.
        strict: whether missing and unexpected names are an error.
        flatten: take flat names too, those of :func:`state_dict` and of :data:`flat_state_dict`. Full names are understood as well, name
            by name; a flat name beside the full name of the same parameter is unexpected.

    Returns:
        What ``torch`` returns: a tuple with ``missing_keys`` (full names) and ``unexpected_keys``.

    Raises:
        RuntimeError: names are missing or unexpected, with ``strict``; or sizes differ. It lists them all, as ``torch`` does.

    Example:
        >>> checkpoint = nn.ModuleDict({"conv": nn.Conv1d(2, 2, 3)}).state_dict()
        >>> net = co.Sequential(co.Residual(co.Sequential({"conv": co.Conv1d(2, 2, 3, padding=1)})), nn.ReLU())
        >>> co.load_state_dict(net, checkpoint, flatten=True)
        <All keys matched successfully>
    """
    if not flatten:
        return module.load_state_dict(state_dict, strict=strict)
    with flat_state_dict:
        return module.load_state_dict(_with_full_names(module, state_dict), strict=strict)


def _with_full_names(module: nn.Module, state_dict: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """A copy of a state dict in which a module's flat names are full."""
    entries = OrderedDict(state_dict)
    metadata = getattr(state_dict, "_metadata", None)
    _renamed(entries, _full_for(module, entries))
    if metadata is not None:  # the versions of the modules: a copied dictionary has lost them
        entries._metadata = metadata  # type: ignore[attr-defined]
    return entries


@contextmanager
def _full_names() -> Iterator[None]:
    """Suspend the blocks of :data:`flat_state_dict`."""
    depth, _local.depth = _local.depth, 0
    try:
        yield
    finally:
        _local.depth = depth


def _renamed(found: Any, names: dict[str, str]) -> Any:
    """Rename keys in place, in their order."""
    items = [(names.get(key, key), value) for key, value in found.items()]
    found.clear()
    found.update(items)
    return found


def _full_for(module: nn.Module, keys: Iterable[str], prefix: str = "") -> dict[str, str]:
    """The full name of each key that is a flat name of the module, or that continual-inference gave to a parameter."""
    with _full_names():
        own = module.state_dict(prefix=prefix, keep_vars=True)
    found = set(keys)
    earlier = earlier_names(module, own, prefix)
    for names in (earlier, without_any_numbers(earlier)):
        if found == set(names.values()) and (names is earlier or found != own.keys()):
            return {name: full for full, name in names.items()}
    return {flat: full for full, flat in flat_names(own, prefix).items() if flat not in own and full not in found}
