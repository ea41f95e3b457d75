"""The values of a program that depend on no stream: parameters, buffers, and what is computed of them alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .program import Env, Moment, Op


class Bank:
    """Looks parameters up in the modules' own tables at every call, so that whatever changes them is followed.

    Args:
        constants: operations on them alone; they run anew when what they take has changed.
        tensors: constants of the module's code, by name.
        slots: how many values the program has.
    """

    def __init__(self, constants: Sequence[Op], tensors: dict[str, Tensor], slots: int):
        self.constants, self.tensors, self.slots = list(constants), tensors, slots
        self.sources: list[tuple[int, dict[str, Any], str]] = []
        self._base: Env | None = None
        self._computed: tuple[list[Any], dict[int, Any], list[Any]] | None = None

    def add(self, slot: int, table: dict[str, Any], name: str) -> None:
        """Say where a slot's value is."""
        self.sources.append((slot, table, name))

    def environment(self, slots: Sequence[int], given: Sequence[Tensor]) -> tuple[Env, bool]:
        """All slots, with the values of now in those that depend on no stream, and whether some are new.

        Args:
            slots: of inputs that are no streams.
            given: these inputs.
        """
        changed = self._base is None
        base = self._base
        if base is None:
            base = self._base = [None] * self.slots
        for slot, table, name in self.sources:
            value = table[name]
            if base[slot] is not value:
                base[slot], changed = value, True
        env = base.copy()
        for slot, value in zip(slots, given, strict=True):
            env[slot] = value
        return env, self._compute(env) or changed if self.constants else changed

    def _compute(self, env: Env) -> bool:
        """What depends on parameters and constants alone, and whether it is new. Kept until they change, if no gradients are wanted."""
        if torch.is_grad_enabled():
            self._computed = None
            self._run(env)
            return True
        held = [t for t in env if t is not None]  # held on to, so that no other tensor gets the same id
        key = [(id(t), -1 if t.is_inference() else t._version, t.data_ptr()) for t in held]
        new = self._computed is None or self._computed[0] != key
        if new:
            with torch.inference_mode(False), torch.no_grad():
                self._run(env)
            self._computed = key, {op.out: env[op.out] for op in self.constants}, held
        elif self._computed is not None:
            for slot, value in self._computed[1].items():
                env[slot] = value
        return new

    def _run(self, env: Env) -> None:
        device = next((t.device for t in env if isinstance(t, Tensor)), torch.device("cpu"))
        moment = Moment(env, 1, 1, device, [], None)
        for op in self.constants:
            op.chunk(moment)

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """``.to()`` and its like, for the constants of the module's code: they go to another device. Their dtype is the code's matter."""
        for name, tensor in self.tensors.items():
            self.tensors[name] = tensor.to(fn(torch.empty(0, dtype=tensor.dtype, device=tensor.device)).device)

    def apart(self) -> Bank:
        """The same tables, with values looked up for one stream alone."""
        made = copy.copy(self)
        made.forget()
        return made

    def forget(self) -> None:
        """Look everything up anew at the next call."""
        self._base = self._computed = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_base": None, "_computed": None}
