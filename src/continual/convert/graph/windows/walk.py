"""From the exported graph of one window to tasks. Each operation is visited once and becomes a task by its rule, or as a whole."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node as Fx

from ....core.op_rows import Refusal
from ..axes import TIME
from ..capture import Captured, entry_dims, module_path, source_line
from ..exec_context import Count
from ..export_regions import why_region
from ..library_errors import is_mistake
from ..needed_nodes import asserts, keep_needed
from ..op_call import OTHER_VALUES, PLAIN_NUMBER
from ..op_evaluator import RANDOM
from ..parameter_table import Source
from ..row_sizes import ROW_ARGS
from ..values import Const, leaves
from .making import Making
from .sizes import Unfollowed, known, sizes_of, tasks_in
from .tasks import StaticInput, Task, WindowInput
from .window_call import Call
from .wire import Wire


def _without(signature: Any, prefix: str) -> Any:
    """A signature whose names have no prefix."""
    if not prefix:
        return signature
    kinds = ("inputs_to_parameters", "inputs_to_buffers")
    names = {k: {n: v.removeprefix(prefix) for n, v in getattr(signature, k).items()} for k in kinds}
    constants = signature.inputs_to_lifted_tensor_constants
    return SimpleNamespace(user_inputs=signature.user_inputs, inputs_to_lifted_tensor_constants=constants, **names)


Rule = Callable[["Walk", Call], Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the rule of operations: ``"aten.add.Tensor"``, or ``"aten.add"`` for all overloads."""

    def registered(fn: Rule) -> Rule:
        for name in names:
            RULES[name] = fn
        return fn

    return registered


def copied_constant(call: Call) -> Const | None:
    """The constant that an operation repeats. Its result is this constant, expanded."""
    x = call.get("self")
    if not isinstance(x, Const) or call.op not in ("expand", "repeat"):
        return None
    counts = call.get("repeats", ())
    own = counts[len(counts) - x.value.ndim :]
    return x if all(size == 1 or count == 1 for size, count in zip(x.value.shape, own, strict=False)) else None


class Walk(Making):
    """Makes tasks of an exported module.

    Attributes:
        why: why operations are computed on the whole window, by the names of their nodes.
        unexpected: errors of rules that met what they were not made for.
    """

    def __init__(self, captured: Captured, module: nn.Module):
        super().__init__(captured, module)
        self.values: dict[Fx, Any] = {}
        self.refusals: list[Refusal] = []
        self._refused: set[Fx] = set()
        self.entry_slots: list[tuple[int, int]] = []
        self.why: dict[str, str] = {}
        self.unexpected: list[tuple[Fx, Exception]] = []

    def follow(self) -> list[Task]:
        """Walk the graph and return the tasks of its outputs."""
        program = self.captured.program
        signature, numbers = program.graph_signature, iter(range(len(self.captured.inputs)))
        if signature.buffers_to_mutate:
            names = ", ".join(sorted(set(signature.buffers_to_mutate.values())))
            self.refusals.append(
                Refusal(
                    "", "", "", f"the module changes its own buffers in forward ({names})", "keep such state out of the module"
                )
            )
        found: list[Task] = []
        keep_needed(program.graph)
        for node in program.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._arrives(node, signature, numbers)
            elif node.op == "output":
                found = self._leaving(node.args[0])
            elif node.op == "call_function":
                if self._refused.isdisjoint(node.all_input_nodes):
                    self.values[node] = self._value(node)
                else:  # a consequence, which is not reported
                    self._refused.add(node)
        return found

    # ---- what comes in and what leaves ----------------------------------------------------------------------------------

    def _arrives(self, node: Fx, signature: Any, numbers: Any) -> Any:
        if node.name not in signature.user_inputs:
            return self._placeholder(node, _without(signature, self.captured.prefix))
        i = next(numbers)
        self.draft.names.append(node.name)
        x, time, batch = self.captured.inputs[i], self.captured.time_dims[i], self.captured.batch_dims[i]
        rate, slot = self.captured.rates[i], self.draft.new_slot()
        dims = entry_dims(x.shape, time, batch, rate)
        self.draft.sources.append(Source(slot, "input", str(i)))
        if batch is not None and not isinstance(rows := sizes_of(node)[batch], Count):
            self.rows = rows
        if time is None:
            return self.keep(StaticInput(node.name, "input", "", (), Wire(dims), slot=slot, dtype=x.dtype))
        number = len(self.entry_slots)
        self.entry_slots.append((i, slot))
        steps = Wire(dims, self.captured.steps)
        entry = self.keep(WindowInput(node.name, "input", "", (), steps, number=number, dtype=x.dtype))
        if rate == 1:
            return entry
        merged = (*dims[:time], (TIME, rate), *dims[time + 2 :])
        call = Call(node, "aten.flatten.using_ints", {}, ())
        return self.positionwise(call, merged, steps, target=call.name, args=(entry, time, time + 1))

    def _placeholder(self, node: Fx, signature: Any) -> Any:
        emit, program = self.emit, self.captured.program
        if (name := signature.inputs_to_parameters.get(node.name)) is not None:
            return emit.from_source("parameter", name, self.module.get_parameter(name))
        if (name := signature.inputs_to_buffers.get(node.name)) is not None:
            return emit.from_source("buffer", name, self.module.get_buffer(name))
        name = signature.inputs_to_lifted_tensor_constants.get(node.name)
        if name is None:  # an object that is not a tensor, such as a generator
            return node.meta.get("val")
        return emit.constant(name, program.constants[name].detach())

    def _leaving(self, nodes: Sequence[Any]) -> list[Task]:
        spec = self.captured.program.call_spec.out_spec
        self.draft.nested = spec is not None and not spec.is_leaf()
        found = []
        for i, node in enumerate(nodes):
            if node in self._refused:
                continue
            value = self.values.get(node) if isinstance(node, Fx) else node
            if not isinstance(value, Task):
                said = "does not depend on the stream" if isinstance(value, (Const, Tensor)) else f"is {value!r}"
                self.refusals.append(Refusal("", "output", "", f"output {i} {said}", "return what does"))
                continue
            found.append(value)
        return found

    # ---- operations ---------------------------------------------------------------------------------------------------------

    def _value(self, node: Fx) -> Any:
        name, val = str(node.target), node.meta.get("val")
        if isinstance(val, (torch.SymInt, int)) and not isinstance(val, bool):
            try:
                return known(val)
            except Unfollowed:
                self.rows = self.captured.batch
                return int(val.node.hint) if isinstance(val, torch.SymInt) else val
        if node.target is operator.getitem:
            return self.values[node.args[0]][node.args[1]]  # type: ignore[index]
        if str(node.target) == "scan":
            args = {n: self._argument(a) for n, a in zip(("init", "xs", "same"), node.args[1:4], strict=True)}
            return RULES["higher_order.scan"](self, Call(node, "higher_order.scan", args, tuple(args)))
        if (reason := why_region(node)) is not None:
            return self._refuse(node, "autocast", *reason)
        if not hasattr(node.target, "_schema"):
            return self._refuse(node, name, f"`{name}` is a function of Python", "plain operations on tensors")
        if asserts(name):
            return None
        call = self._bound(node, name)
        if call.op in RANDOM:
            remedy = "leave it out in eval mode; what is drawn once belongs in a buffer"
            return self._refuse(node, call.op, f"`{call.op}` draws random numbers", remedy)
        if not tasks_in(list(call.args.values())):
            if call.op == "item":
                return self._refuse(node, call.op, f"takes a number out of a parameter or a buffer, {OTHER_VALUES}", PLAIN_NUMBER)
            if any(isinstance(v, Count) for v in leaves(list(call.args.values()))):
                found = self.window(call, steady=True)
                if isinstance(found, Task):
                    found.copies = copied_constant(call)
                return found
            positional = [call.args[n] for n in call.positional]
            return self.emit.consts(name, positional, {n: v for n, v in call.args.items() if n not in call.positional})
        return self.apply(call)

    def _refuse(self, node: Fx, op: str, reason: str, remedy: str) -> None:
        self._refused.add(node)
        self.refusals.append(Refusal(module_path(node), op, source_line(node), reason, remedy))

    def _bound(self, node: Fx, name: str) -> Call:
        args: dict[str, Any] = {}
        positional: list[str] = []
        own, named = node.meta.get(ROW_ARGS) or (node.args, node.kwargs)
        for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
            if i < len(own):
                args[argument.name] = self._argument(own[i])
                positional.append(argument.name)
            elif argument.name in named:
                args[argument.name] = self._argument(named[argument.name])
            elif argument.has_default_value() and not argument.kwarg_only:
                args[argument.name] = argument.default_value
        return Call(node, name, args, tuple(positional))

    def _argument(self, arg: Any) -> Any:
        if isinstance(arg, Fx):
            return self.values[arg]
        if isinstance(arg, (list, tuple)):
            return [self._argument(a) for a in arg]
        return arg

    def apply(self, call: Call) -> Any:
        """An operation by its rule, or on the whole window."""
        found = RULES.get(call.name) or RULES.get(call.name.rpartition(".")[0])
        if found is None and torch.Tag.pointwise in getattr(call.node.target, "tags", ()):
            found = RULES["pointwise"]
        if found is not None and self.rows is None:
            try:
                return found(self, call)
            except Unfollowed as why:
                self.why[call.node.name] = str(why)
            except Exception as error:  # a rule that meets what it was not made for: the window is always right
                if is_mistake(error):
                    raise
                self.unexpected.append((call.node, error))
        return self.window(call)
