"""Calls of operations whose arguments are slots, sizes and constants, as functions of the slots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from .axes import shape_of
from .exec_context import Arg, Count, CurrentDevice, ExecContext, Ref, Run, Shape


def varies(arg: Arg) -> bool:
    """Whether an argument differs from call to call."""
    return any(map(varies, arg)) if isinstance(arg, (list, tuple)) else isinstance(arg, (Shape, CurrentDevice, Count))


def concrete(arg: Arg, m: ExecContext, frames: int) -> Any:
    """An argument with current sizes; slots stay."""
    if isinstance(arg, Shape):
        return shape_of(arg.dims, m.batch, frames)
    if isinstance(arg, CurrentDevice):
        return m.device
    if isinstance(arg, Count):
        return arg.rate * m.batch + arg.more
    if isinstance(arg, (list, tuple)):
        return type(arg)(concrete(a, m, frames) for a in arg)
    return arg


def bound(fn: Callable[..., Any], args: Sequence[Arg], kwargs: Mapping[str, Arg]) -> Run:
    """A call whose arguments are known but for slots, as a function of these."""
    if any(True for _ in refs(list(kwargs.values()))):
        return _general(fn, args, kwargs)
    return _bound(partial(fn, **kwargs) if kwargs else fn, args)


def _bound(fn: Callable[..., Any], args: Sequence[Any]) -> Run:
    """Slots in positional arguments alone. Most operations take slots first: those calls cost least."""
    slots = [a.slot for a in args if isinstance(a, Ref)]
    count, rest = len(slots), args[len(slots) :]
    if not all(isinstance(a, Ref) for a in args[:count]) or any(True for _ in refs(rest)):
        return _general(fn, args, {})
    if count == 1:
        (slot,) = slots
        return (lambda env: fn(env[slot], *rest)) if rest else lambda env: fn(env[slot])
    if count == 2:
        first, second = slots
        return (lambda env: fn(env[first], env[second], *rest)) if rest else lambda env: fn(env[first], env[second])
    if count:
        return lambda env: fn(*[env[slot] for slot in slots], *rest)  # no itemgetter: torch.compile can't trace one
    return lambda env: fn(*rest)


def _general(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Run:
    """A call with slots anywhere in its arguments."""
    positional, named = [_getter(a) for a in args], {k: _getter(v) for k, v in kwargs.items()}
    if named:
        return lambda env: fn(*[get(env) for get in positional], **{k: get(env) for k, get in named.items()})
    return lambda env: fn(*[get(env) for get in positional])


def _getter(arg: Any) -> Run:
    if isinstance(arg, Ref):
        return itemgetter(arg.slot)
    if isinstance(arg, (list, tuple)) and any(isinstance(a, Ref) for a in arg):
        slots = [a.slot for a in arg if isinstance(a, Ref)]
        if len(slots) == len(arg) > 1:
            get = itemgetter(*slots)
            return lambda env: list(get(env))
        inner = [_getter(a) for a in arg]
        return lambda env: [get(env) for get in inner]
    return lambda env: arg


def refs(value: Arg) -> Iterator[int]:
    """The slots in an argument."""
    if isinstance(value, Ref):
        yield value.slot
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from refs(v)
