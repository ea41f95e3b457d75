"""Walks an exported graph: visits every node once and gives the draft of a program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from torch import nn
from torch.export.graph_signature import ExportGraphSignature
from torch.fx import Node as Fx
from torch.utils._pytree import tree_unflatten

from ...core.op_rows import Refusal
from .axes import TIME, where
from .capture import Captured, entry_dims
from .edge_forms import with_operations
from .emitter import Emitter
from .first_frames import with_choices
from .frame_groups import FrameGroups
from .functionalise import Functionaliser
from .held_frames import with_held
from .length_constants import LengthConstants
from .loops.first_states import with_first_states
from .needed_nodes import keep_needed
from .op_call import BANDED, COMPARES, Misfit, OpCall, Refused
from .op_evaluator import OpEvaluator
from .op_names import OpNames
from .parameter_table import Source
from .program_draft import ProgramDraft
from .provenance import Provenance
from .refusals import RefusalCollector
from .rule_context import RuleContext
from .shape_queries import ShapeQueries
from .stream_aligner import StreamAligner
from .value_free import ValueFree
from .values import STATIC, Const, LengthDependent, NotStreamed, Scores, Stream, TensorValue, Unknown, Value, streams_of


@dataclass(frozen=True)
class Walked:
    """What a walk gives.

    Attributes:
        draft: the program.
        outputs: the streams that leave.
        refusals: what can't be streamed.
        unforeseen: the first error that no rule expects.
    """

    draft: ProgramDraft
    outputs: Sequence[Stream]
    refusals: Sequence[Refusal]
    unforeseen: Exception | None


class GraphWalker:
    """Walks an exported graph.

    Args:
        captured: the exported module.
        module: the module.
        time_pooling: what to do with reductions over the clip in the middle of the network.
        middle: names of the nodes that are such reductions.
        so_far: whether the last frame of the clip is that of the clip so far, in each step.
    """

    def __init__(
        self,
        captured: Captured,
        module: nn.Module,
        time_pooling: str | None = None,
        middle: frozenset[str] = frozenset(),
        so_far: bool = False,
    ):
        self._draft = draft = ProgramDraft(captured, module, time_pooling, middle, so_far)
        shapes, names, origin = ShapeQueries(draft), OpNames(module), Provenance(draft)
        self._emit = Emitter(draft, shapes, names)
        self._refusals = RefusalCollector(draft, shapes, names)
        self._aligner = StreamAligner(draft, shapes, self._emit, names, origin, self._refusals)
        # Rules evaluate other operations, and so do length-dependent values and writes: all of them by self._apply.
        lengths = LengthConstants(draft, shapes, self._emit, names, self._apply)
        self._functionaliser = Functionaliser(draft.values, shapes, lengths, self._apply)
        self._groups, free = FrameGroups(self._emit), ValueFree(draft, lengths)
        context = RuleContext(draft, shapes, self._emit, lengths, origin, self._aligner, free, self._groups, self._apply)
        self._evaluator = OpEvaluator(context, self._refusals, self._functionaliser.evaluate, self._functionaliser.current)

    def _apply(self, call: OpCall) -> Value:
        return self._evaluator.apply(call)

    def run(self) -> Walked:
        """Visit all nodes."""
        draft, program = self._draft, self._draft.captured.program
        signature, numbers = program.graph_signature, iter(range(len(draft.captured.inputs)))
        if signature.buffers_to_mutate:
            names = ", ".join(sorted(set(signature.buffers_to_mutate.values())))
            reason = f"the module changes its own buffers in forward ({names})"
            self._refusals.refuse("", "", reason, "keep such state out of the module: a stream has its own")
        outputs: list[Stream] = []
        with_operations(program.graph)
        with_choices(program.graph)
        with_first_states(draft.captured)
        with_held(program.graph)
        keep_needed(program.graph)
        for node in program.graph.nodes:
            if node.op == "placeholder":
                draft.values[node] = self._placeholder(node, signature, numbers)
            elif node.op == "output":
                outputs = self._outputs(node, node.args[0])
            elif node.op == "call_function":
                draft.values[node] = self._evaluated(node)
        return Walked(draft, outputs, self._refusals.refusals, self._refusals.unforeseen)

    # ---- inputs -----------------------------------------------------------------------------------------------------

    def _placeholder(self, node: Fx, signature: ExportGraphSignature, numbers: Iterator[int]) -> Value:
        draft = self._draft
        if node.name in signature.user_inputs:
            return self._input(node, next(numbers))
        if node.name in signature.inputs_to_parameters:
            name = signature.inputs_to_parameters[node.name]
            return self._emit.from_source("parameter", name, draft.module.get_parameter(name))
        if node.name in signature.inputs_to_buffers:
            name = signature.inputs_to_buffers[node.name]
            return self._emit.from_source("buffer", name, draft.module.get_buffer(name))
        if node.name not in signature.inputs_to_lifted_tensor_constants:  # an object that is not a tensor, such as a generator
            return node.meta.get("val")
        name = signature.inputs_to_lifted_tensor_constants[node.name]
        return self._emit.constant(name, draft.captured.program.constants[name].detach())

    def _input(self, node: Fx, number: int) -> TensorValue:
        draft, captured = self._draft, self._draft.captured
        draft.names.append(node.name)
        x, time, batch = captured.inputs[number], captured.time_dims[number], captured.batch_dims[number]
        rate, slot = captured.rates[number], draft.new_slot()
        dims = entry_dims(x.shape, time, batch, rate)
        draft.sources.append(Source(slot, "input", str(number)))
        if time is None:
            return Const(slot, dims, x) if batch is None else Stream(slot, dims, STATIC, x.dtype)
        stream = Stream(slot, dims, 0, x.dtype)
        if rate == 1:
            return stream
        call = OpCall(node, "aten.flatten.using_ints", {})
        merged = self._emit.reshape(call, stream, (*dims[:time], (TIME, rate), *dims[time + 2 :]))
        return self._groups.apart(call, merged) or merged

    # ---- operations -------------------------------------------------------------------------------------------------

    def _evaluated(self, node: Fx) -> Value:
        """The value of a node. A refusal is recorded, and the walk goes on with a placeholder."""
        self._refusals.mark_inputs(node)
        try:
            return _located(self._functionaliser.evaluate(node), node)
        except Exception as error:  # a refusal, or a use that a rule does not expect
            value = self._refusals.placeholder(node, error)
            self._functionaliser.invalidate(node, value)
            return value

    # ---- outputs ----------------------------------------------------------------------------------------------------

    def _outputs(self, last: Fx, nodes: Sequence[object]) -> list[Stream]:
        spec = self._draft.captured.program.call_spec.out_spec
        self._draft.nested = nested = spec is not None and not spec.is_leaf()
        numbers = accumulate((node is not None for node in nodes), initial=0)
        places = [None if node is None else number for node, number in zip(nodes, numbers, strict=False)]
        if nested and (spec.type not in (tuple, list) or spec.num_children != len(nodes) or None in places):
            self._draft.nesting = tree_unflatten(places, spec)
        outputs: list[Stream] = []
        for i, node in enumerate(nodes):
            if node is None and nested:
                continue
            if not isinstance(node, Fx):
                self._refusals.refuse("", "output", f"output {i} is {node!r}", "return tensors alone")
                continue
            try:
                outputs += self._output(i, node)
            except Refused as refused:
                self._refusals.note(node, refused, "output")
        if not self._refusals.refusals and len({o.wire for o in outputs}) > 1:
            try:
                outputs = self._aligner.aligned(OpCall(last, "aten.output.default", {}), outputs)
            except Refused as refused:
                self._refusals.refuse("", "output", f"the outputs: {refused.reason}", refused.remedy)
        return outputs

    def _output(self, i: int, node: Fx) -> list[Stream]:
        """The stream that leaves as output ``i``; none, where an earlier refusal leaves it unknown."""
        value = self._functionaliser.value(node)
        if isinstance(value, Unknown):
            return []
        if isinstance(value, Scores) or (isinstance(value, LengthDependent) and any(streams_of(value))):
            value = NotStreamed((), node.meta["val"].dtype, COMPARES, BANDED, node)
        if isinstance(value, NotStreamed):
            raise Refused(f"output {i}: {value.reason}", value.remedy, value.at)
        if not isinstance(value, Stream):
            raise Refused(f"output {i} does not depend on the stream", "return what does")
        value = self._groups.apart(OpCall(node, "aten.output.default", {}), value) or value
        at = where(value.dims, TIME)
        if not value.windows and at is not None and value.dims[at] != (TIME,):
            if self._draft.baked:  # time is where a size for the example has put it
                raise Misfit(self._draft.baked[-1], "an example of more frames; or a size that follows from x.shape[time]")
            raise Misfit(
                f"output {i} merges time with another dimension, so chunks of it can't be joined",
                "reshape it, so that time is a dimension of its own",
            )
        return [value]


def _located(value: Value, node: Fx) -> Value:
    """A value that names the operation where it can't be streamed."""
    if isinstance(value, (list, tuple)):
        return [_located(v, node) for v in value]
    return replace(value, at=node) if isinstance(value, NotStreamed) and value.at is None else value
