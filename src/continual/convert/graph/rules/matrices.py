"""Functions of matrices, which lie in the last two dimensions: inverses, factors and eigenvalues of each frame."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..axes import BATCH, TIME, Dims, dim_of
from ..op_call import OpCall, Refused, RowsMixed, results_of
from ..rule_context import RuleContext, rule
from ..values import Const, Stream, TensorValue, Value
from .elementwise import joined, lead, with_explicit

ONE = (
    "linalg_eigh", "linalg_eigvalsh", "linalg_eig", "linalg_eigvals", "linalg_svd", "linalg_svdvals", "linalg_qr", "linalg_lu",
    "linalg_lu_factor", "linalg_cholesky", "linalg_inv", "linalg_det", "linalg_slogdet", "linalg_matrix_exp", "linalg_matrix_power",
    "inverse", "det", "logdet", "slogdet", "cholesky", "cholesky_inverse", "matrix_exp", "matrix_power",
)  # fmt: skip
VARIANTS = (
    "linalg_pinv.atol_rtol_tensor",
    "linalg_pinv.atol_rtol_float",
    "linalg_matrix_norm.default",
    "linalg_matrix_norm.str_ord",
)
TWO = ("linalg_solve", "linalg_solve_triangular", "cholesky_solve", "linalg_lstsq")


def _rows(call: OpCall, x: TensorValue) -> Dims:
    """The dimensions before the matrices."""
    for dim in x.dims[-2:]:
        if TIME in dim:
            raise Refused(
                f"`{call.op}` takes the frames of the clip for the rows of a matrix",
                "a matrix for each frame or window: x.unfold(time, n, 1), and products over its last dimension",
            )
        if BATCH in dim:
            raise RowsMixed(f"`{call.op}` mixes the rows of the batch", "the batch in a dimension of its own")
    return x.dims[:-2]


def _results(ctx: RuleContext, call: OpCall, rows: Dims, like: Stream) -> Value:
    """The layouts of the results. Each has the dimensions before the matrices, followed by sizes of its own."""
    found = results_of(call.node)

    def dims(value: Tensor) -> Dims:
        return (*rows, *(dim_of(int(n)) for n in value.shape[len(rows) :]))

    first = ctx.emit.local(call, dims(found[0]), like)
    if not isinstance(call.node.meta["val"], (list, tuple)):
        return first
    return [ctx.emit.op(call, "helper_ops:item", first, dims(v), i, dtype=v.dtype) for i, v in enumerate(found)]


def _named(names: Sequence[str]) -> list[str]:
    return [f"aten.{name}{'' if '.' in name else '.default'}" for name in names]


@rule(*_named((*ONE, *VARIANTS)))
def of_one(ctx: RuleContext, call: OpCall) -> Value:
    """A function of one matrix."""
    x = next(v for v in call.args.values() if isinstance(v, Stream))
    return _results(ctx, call, _rows(call, x), x)


@rule(*_named(TWO))
def of_two(ctx: RuleContext, call: OpCall) -> Value:
    """The solution of a system of equations."""
    call = with_explicit(ctx, call)
    x, y = [v for v in call.args.values() if isinstance(v, (Stream, Const))][:2]
    if len(y.dims) < 2 or len(x.dims) < 2:
        raise Refused(f"`{call.op}` with a vector", "a matrix of one column: b.unsqueeze(-1)")
    rows = joined(call, [_rows(call, v) for v in (x, y)], f"`{call.op}` joins batches that do not fit")
    return _results(ctx, call, rows, lead(call.streams))
