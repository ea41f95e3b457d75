"""Norms: those over one frame stream; those over the clip are refused."""

from __future__ import annotations

from ....layers.norms.frozen import freezable
from ..axes import BATCH, TIME
from ..capture import module_path
from ..op_call import OpCall, Refused, RowsMixed, as_tensor
from ..rule_context import RuleContext, rule
from ..values import Stream
from .elementwise import joined


def remedies(ctx: RuleContext, call: OpCall, *more: str) -> str:
    """The remedies for statistics of the clip: freeze them, where the norm's module allows it, or train with other statistics."""
    found = [*more, "BatchNorm, to train with: in eval mode its statistics are fixed"]
    if freezable(ctx.draft.module.get_submodule(module_path(call.node))):
        found.insert(0, "co.calibrate(module, clips) before: it freezes the statistics of these clips")
    return "; or ".join(found)


@rule("aten.batch_norm.default", "aten.instance_norm.default")
def batch_norm(ctx: RuleContext, call: OpCall) -> Stream:
    """Learned statistics are the same for all frames."""
    x = call.stream("input")
    if TIME in x.dims[1] or BATCH in x.dims[1]:
        raise Refused(f"`{call.op}` has statistics for every frame of the clip (its channels are time)", "channels in dim 1")
    own = call.get("training", call.get("use_input_stats", False))
    over = x.dims[2:] if call.op == "instance_norm" else x.dims
    if own and (call.op == "batch_norm" or any(TIME in d for d in over)):
        what = "the batch and the clip" if call.op == "batch_norm" else "the clip"
        raise Refused(
            f"`{call.op}` takes its statistics over {what}, which a stream has not seen",
            remedies(ctx, call, "track_running_stats=True"),
        )
    return ctx.emit.local(call, x.dims, x)


@rule("aten.layer_norm.default", "aten.rms_norm.default")
def layer_norm(ctx: RuleContext, call: OpCall) -> Stream:
    """Norms over the last dimensions."""
    x = call.stream("input")
    over = x.dims[len(x.dims) - len(call.sequence("normalized_shape")) :]
    if any(TIME in d for d in over):
        raise Refused(
            f"`{call.op}` normalises over time, of which a stream has seen a part",
            remedies(ctx, call, "norms over channels (transpose before)"),
        )
    if any(BATCH in d for d in over):
        raise RowsMixed(f"`{call.op}` mixes the rows of the batch", "the batch in dim 0")
    return ctx.emit.local(call, x.dims, x)


@rule("aten.group_norm.default")
def group_norm(ctx: RuleContext, call: OpCall) -> Stream:
    """Norms over groups of channels and all later dimensions."""
    x = call.stream("input")
    if any(TIME in d for d in x.dims[1:]):
        raise Refused("`group_norm` takes its statistics over the clip, of which a stream has seen a part", remedies(ctx, call))
    return ctx.emit.local(call, x.dims, x)


@rule("aten.normalize.default", "aten.cosine_similarity.default")
def similarity(ctx: RuleContext, call: OpCall) -> Stream:
    """Lengths of vectors, and angles between vectors, along other dimensions than time."""
    first, second = call.streams[0], call.get("x2")
    dim = call.dim(len(first.dims), default=1)
    if TIME in first.dims[dim] or BATCH in first.dims[dim]:
        raise Refused(f"`{call.op}` over time sees the whole clip", "over channels")
    layouts = [first.dims] if second is None else [first.dims, as_tensor(second).dims]
    dims = joined(call, layouts, f"`{call.op}` joins tensors that do not fit")
    return ctx.emit.local(call, tuple(d for i, d in enumerate(dims) if i != dim), first)
