"""Norms: those that see one frame, and those that would see the clip."""

from __future__ import annotations

from ....layers.norms.frozen import freezable
from ..axes import BATCH, TIME
from ..capture import module_path
from ..op_call import Call, Misfit, Refused, rule
from ..values import Stream
from ..walker import Builder


def instead(b: Builder, call: Call, *more: str) -> str:
    """What to do about statistics of the clip: freeze them, where the norm is a module for which that works; or train with others."""
    found = [*more, "BatchNorm, to train with: in eval mode its statistics are fixed"]
    if freezable(b.module.get_submodule(module_path(call.node))):
        found.insert(0, "co.calibrate(module, clips) before: it freezes the statistics of these clips")
    return "; or ".join(found)


@rule("aten.batch_norm.default", "aten.instance_norm.default")
def batch_norm(b: Builder, call: Call) -> Stream:
    """Statistics that were learned are the same for all frames."""
    x: Stream = call["input"]
    if TIME in x.dims[1] or BATCH in x.dims[1]:
        raise Refused(f"`{call.op}` has statistics for every frame of the clip (its channels are time)", "channels in dim 1")
    own = call.get("training", call.get("use_input_stats", False))
    over = x.dims[2:] if call.op == "instance_norm" else x.dims
    if own and (call.op == "batch_norm" or any(TIME in d for d in over)):
        what = "the batch and the clip" if call.op == "batch_norm" else "the clip"
        raise Refused(
            f"`{call.op}` takes its statistics over {what}, which a stream has not seen",
            instead(b, call, "track_running_stats=True"),
        )
    return b.local(call, x.dims, x)


@rule("aten.layer_norm.default", "aten.rms_norm.default")
def layer_norm(b: Builder, call: Call) -> Stream:
    """Norms over the last dimensions."""
    x: Stream = call["input"]
    over = x.dims[len(x.dims) - len(call["normalized_shape"]) :]
    if any(TIME in d for d in over):
        raise Refused(
            f"`{call.op}` normalises over time, of which a stream has seen a part",
            instead(b, call, "norms over channels (transpose before)"),
        )
    if any(BATCH in d for d in over):
        raise Refused(f"`{call.op}` mixes the rows of the batch", "the batch in dim 0")
    return b.local(call, x.dims, x)


@rule("aten.group_norm.default")
def group_norm(b: Builder, call: Call) -> Stream:
    """Norms over groups of channels and all that is behind them."""
    x: Stream = call["input"]
    if any(TIME in d for d in x.dims[1:]):
        raise Refused("`group_norm` takes its statistics over the clip, of which a stream has seen a part", instead(b, call))
    return b.local(call, x.dims, x)


@rule("aten.normalize.default", "aten.cosine_similarity.default")
def similarity(b: Builder, call: Call) -> Stream:
    """Lengths and angles of vectors that lie beside time."""
    first, second = call.streams[0], call.get("x2")
    dim = int(call.get("dim", 1)) % len(first.dims)
    if TIME in first.dims[dim] or BATCH in first.dims[dim]:
        raise Refused(f"`{call.op}` over time sees the whole clip", "over channels")
    from ..axes import joined_dims

    dims = joined_dims([first.dims, second.dims]) if second is not None else first.dims
    if dims is None:
        raise Misfit(f"`{call.op}` joins tensors that do not fit", "reshape one of them")
    return b.local(call, tuple(d for i, d in enumerate(dims) if i != dim), first)
