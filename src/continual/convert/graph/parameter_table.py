"""The values of a program that depend on no stream: parameters, buffers, and what is computed from them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...errors import NotStreamable
from .axes import View
from .exec_context import Env, ExecContext
from .instructions import Op, slots_of
from .skeleton import Table


@dataclass
class Source:
    """The source of the value of a slot.

    Attributes:
        slot: the slot.
        kind: ``"parameter"``, ``"buffer"``, ``"constant"`` (of the module's code) or ``"input"``.
        name: its name; of an input its number.
        view: the layout of an input that is a stream.
    """

    slot: int
    kind: str
    name: str
    view: View | None = None


class ParameterTable:
    """Looks up parameters in the modules' own tables at every call, so that every change of them takes effect.

    Args:
        constants: operations on parameters alone; they run again when their arguments change.
        tensors: constants of the module's code, by name.
        slots: the number of slots.
    """

    def __init__(self, constants: Sequence[Op], tensors: Table, slots: int):
        self.constants, self.tensors, self.slots = list(constants), tensors, slots
        self.sources: list[tuple[int, Table, str]] = []
        self._base: Env | None = None
        self._known: dict[int, tuple[str, str]] = {}  # by slot: the parameter's name in messages, and its shape
        self._computed: tuple[list[tuple[int, int, int]], Env, list[Tensor]] | None = None

    def new_slot(self) -> int:
        """Add a slot."""
        self.slots += 1
        return self.slots - 1

    def add(self, slot: int, table: Table, name: str, path: str) -> None:
        """Record where a slot's value is, and its name in messages. A parameter with several names is in several places."""
        self.sources.append((slot, table, name))
        known, shape = self._known.get(slot, ("", _shape(table.get(name))))
        self._known[slot] = f"{known}' and '{path}" if known else path, shape

    def environment(self, slots: Sequence[int], inputs: Sequence[Tensor]) -> tuple[Env, bool]:
        """All slots, with current values in those that depend on no stream, and whether some of these changed.

        Args:
            slots: of the inputs that are not streams.
            inputs: these inputs.
        """
        base, changed = self._base, False
        if base is None:
            base, changed = [None] * self.slots, True
            for source in self.sources:
                self._check(*source)
            self._base = base
        try:
            for slot, table, name in self.sources:
                value = table[name]
                if base[slot] is not value:
                    self._check(slot, table, name)
                    base[slot], changed = value, True
        except KeyError:
            self._check(*next(source for source in self.sources if source[2] not in source[1]))  # raises, with what became of it
            raise
        env = base.copy()
        for slot, value in zip(slots, inputs, strict=True):
            env[slot] = value
        return env, self._compute(env) or changed if self.constants else changed

    def _check(self, slot: int, table: Table, name: str) -> None:
        """Refuse a value that does not fit the captured operations."""
        path, shape = self._known[slot]
        now = _shape(table[name]) if name in table else "gone (pruned, computed by a parametrisation, or deleted)"
        if now != shape:
            raise NotStreamable(
                f"'{path}' was {shape} when the module was converted, and '{name}' is {now} now, in the module or here. Convert the module "
                "again: co.continual(module, clip)"
            )
        if len({id(t.get(n)) for own, t, n in self.sources if own == slot}) > 1:
            raise NotStreamable(
                f"'{path}' were one parameter when the module was converted, and are several now. Give them one again, or convert the "
                "module again: co.continual(module, clip)"
            )

    def _compute(self, env: Env) -> bool:
        """Compute what depends on parameters alone; returns whether it is new. Without gradients it is kept until a parameter changes."""
        if torch.is_grad_enabled():
            self._computed = None
            self._run(env)
            return True
        read = [env[slot] for slot in self._read]
        tensors: list[Tensor] = [t for t in read if t is not None]  # kept alive, so that no other tensor gets the same id
        key = [(id(t), -1 if t.is_inference() else t._version, t.data_ptr()) for t in tensors]
        new = self._computed is None or self._computed[0] != key
        if new:
            with torch.inference_mode(False), torch.no_grad():
                self._run(env)
            self._computed = key, [env[op.out] for op in self.constants], tensors
        elif self._computed is not None:
            for op, value in zip(self.constants, self._computed[1], strict=True):
                env[op.out] = value
        return new

    @cached_property
    def _read(self) -> tuple[int, ...]:
        """The slots on which the operations depend."""
        found = {slot for op in self.constants for slot in slots_of(op)}
        return tuple(sorted(found - {op.out for op in self.constants}))

    def _run(self, env: Env) -> None:
        device = next((t.device for t in env if isinstance(t, Tensor)), torch.device("cpu"))
        context = ExecContext(env, 1, 1, device, [], None)
        for op in self.constants:
            op.chunk(context)

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move the constants of the module's code to another device, as ``.to()``. Their dtype is set by the code."""
        for name, tensor in self.tensors.items():
            if tensor is not None:
                self.tensors[name] = tensor.to(fn(torch.empty(0, dtype=tensor.dtype, device=tensor.device)).device)

    def for_own_stream(self) -> ParameterTable:
        """The same tables, with values looked up for one stream alone."""
        made = copy.copy(self)
        made.forget()
        return made

    def detach(self) -> None:
        """Drop all sources."""
        self.sources, self._known = [], {}

    def forget(self) -> None:
        """Look up everything again at the next call."""
        self._base = self._computed = None
        self.__dict__.pop("_read", None)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_base": None, "_computed": None}


def _shape(value: Tensor | None) -> str:
    return "None" if value is None else f"of the shape {tuple(value.shape)}"
