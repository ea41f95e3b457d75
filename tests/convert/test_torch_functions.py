"""Torch's Python functions in place of operations of an exported graph: they give what the operations give, argument for argument."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from continual.convert.graph.instructions import resolve
from continual.convert.graph.torch_functions import _NATIVE

G = torch.Generator().manual_seed(3)
X, Y = torch.randn(2, 4, 6, generator=G), torch.rand(2, 4, 6, generator=G) + 0.5
IMAGES, CLIPS = torch.randn(2, 4, 6, 8, generator=G), torch.randn(2, 4, 6, 6, 8, generator=G)
MASK, WHOLE = X > 0, torch.randint(0, 4, (2, 4, 6), generator=G)
C, ROWS = torch.rand(4, generator=G) + 0.5, torch.randn(3, 4, generator=G)
W1, W2, W3 = (torch.randn(2, 4, *(3,) * d, generator=G) for d in (1, 2, 3))
T1, T2, T3 = (torch.randn(4, 2, *(3,) * d, generator=G) for d in (1, 2, 3))
H, B2 = torch.randn(3, 5, generator=G), torch.randn(2, generator=G)
PAIRS = torch.randn(2, 4, 2, generator=G)


def cell(gates: int) -> tuple[Tensor, ...]:
    own = torch.Generator().manual_seed(gates)
    return tuple(torch.randn(*shape, generator=own) for shape in ((gates * 5, 4), (gates * 5, 5), (gates * 5,), (gates * 5,)))


CALLS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(
        ["add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "maximum.default", "minimum.default", "atan2.default"], (X, Y)
    ),
    **dict.fromkeys(["eq.Tensor", "ne.Tensor", "lt.Tensor", "le.Tensor", "gt.Tensor", "ge.Tensor"], (X, Y)),
    **dict.fromkeys(["logical_and.default", "logical_or.default", "bitwise_and.Tensor", "bitwise_or.Tensor"], (MASK, WHOLE > 1)),
    **dict.fromkeys(
        ["add.Scalar", "sub.Scalar", "mul.Scalar", "div.Scalar", "eq.Scalar", "ne.Scalar", "lt.Scalar", "le.Scalar", "gt.Scalar"],
        (X, 0.3),
    ),
    **dict.fromkeys(
        ["ge.Scalar", "clamp_min.default", "clamp_max.default", "hardshrink.default", "leaky_relu.default", "celu.default"],
        (X, 0.3),
    ),
    **dict.fromkeys(["log.default", "log1p.default", "log2.default", "log10.default", "sqrt.default", "rsqrt.default"], (Y,)),
    **dict.fromkeys(["mean.dim", "sum.dim_IntList"], (X, [1], True)),
    **dict.fromkeys(["amax.default", "amin.default"], (X, [1, 2], True)),
    **dict.fromkeys(["prod.dim_int", "argmax.default", "argmin.default"], (X, 1, True)),
    **dict.fromkeys(["any.dim", "all.dim"], (MASK, 1, True)),
    **dict.fromkeys(["softmax.int", "log_softmax.int", "cumsum.default", "squeeze.dim", "unbind.int", "glu.default"], (X, 1)),
    **dict.fromkeys(["transpose.int", "swapaxes.default", "movedim.int"], (X, 0, 2)),
    **dict.fromkeys(["tril.default", "triu.default"], (X, 1)),
    **dict.fromkeys(["matmul.default", "bmm.default"], (X, Y.mT)),
    **dict.fromkeys(["view.default", "_unsafe_view.default", "reshape.default"], (X, [4, 12])),
    **dict.fromkeys(["pow.Tensor_Tensor"], (Y, X)),
    **dict.fromkeys(["rnn_tanh_cell.default", "rnn_relu_cell.default"], (ROWS, H, *cell(1))),
    **dict.fromkeys(["view_as_complex.default"], (PAIRS,)),
    **dict.fromkeys(["view_as_real.default", "real.default", "imag.default", "angle.default"], (torch.view_as_complex(PAIRS),)),
    **dict.fromkeys(["zeros.default", "ones.default"], ([2, 3],)),
    **dict.fromkeys(["avg_pool1d.default", "max_pool1d.default"], (X, [2], [1], [1])),
    **dict.fromkeys(["avg_pool2d.default", "max_pool2d.default"], (IMAGES, [2, 3], [1, 2], [1, 1])),
    **dict.fromkeys(["avg_pool3d.default", "max_pool3d.default"], (CLIPS, [2, 2, 3], [1, 1, 2], [1, 1, 1])),
    "pow.Tensor_Scalar": (X, 2),
    "where.self": (MASK, X, Y),
    "clamp.default": (X, -0.2, 0.4),
    "masked_fill.Scalar": (X, MASK, 1.5),
    "masked_fill.Tensor": (X, MASK, torch.tensor(1.5)),
    "mm.default": (ROWS, ROWS.mT),
    "baddbmm.default": (Y[:, :, :4], X, Y.mT),
    "addmm.default": (ROWS[:, :3], ROWS, ROWS.mT),
    "layer_norm.default": (X, [6], Y[0, 0], X[0, 0], 1e-3),
    "group_norm.default": (X, 2, C, C, 1e-3),
    "cat.default": ([X, Y], 1),
    "stack.default": ([X, Y], 1),
    "permute.default": (X, [2, 0, 1]),
    "unsqueeze.default": (X, 1),
    "squeeze.dims": (X[:, :1], [1]),
    "flatten.using_ints": (X, 1, 2),
    "select.int": (X, 1, 2),
    "narrow.default": (X, 1, 1, 2),
    "index_select.default": (X, 1, torch.tensor([2, 0])),
    "embedding.default": (ROWS, torch.tensor([2, 0]), -1),
    "conv1d.default": (X, W1, B2, [2], [1], [1], 1),
    "conv2d.default": (IMAGES, W2, B2, [2, 1], [1, 0], [1, 2], 1),
    "conv3d.default": (CLIPS, W3, B2, [1, 2, 1], [0, 1, 0], [1, 1, 2], 1),
    "conv_transpose1d.default": (X, T1, B2, [2], [1], [1], 1, [2]),
    "conv_transpose2d.input": (IMAGES, T2, B2, [2, 1], [1, 0], [1, 0], 1, [1, 2]),
    "conv_transpose3d.input": (CLIPS, T3, B2, [2, 1, 1], [1, 0, 1], [1, 0, 0], 1, [1, 2, 1]),
    "repeat_interleave.self_int": (X, 2, 1),
    "lstm_cell.default": (ROWS, [H, H], *cell(4)),
    "gru_cell.default": (ROWS, H, *cell(3)),
    "full.default": ([2, 3], 0.5),
    "full_like.default": (X, 0.5),
    "prelu.default": (X, C),
    "addcmul.default": (X, X, Y),
    "lerp.Tensor": (X, Y, Y),
    "lerp.Scalar": (X, Y, 0.3),
    "rms_norm.default": (X, [6], Y[0, 0], 1e-3),
    "where.ScalarOther": (MASK, X, 0.5),
    "where.ScalarSelf": (MASK, 0.5, X),
    "where.Scalar": (MASK, 0.5, 1.5),
    "gather.default": (X, 1, WHOLE[:, :2]),
    "flip.default": (X, [1, 2]),
    "roll.default": (X, [1, -1], [1, 2]),
    "split.Tensor": (X, 2, 1),
    "split_with_sizes.default": (X, [1, 3], 1),
    "diag_embed.default": (X, 1, 0, 1),
    "var.correction": (X, [1]),
    "std.correction": (X, [1]),
    "topk.default": (X, 2, 1, False),
    "sort.default": (X, 1, True),
    "pixel_shuffle.default": (IMAGES, 2),
    "pixel_unshuffle.default": (IMAGES, 2),
    "adaptive_avg_pool1d.default": (X, [3]),
    "adaptive_avg_pool2d.default": (IMAGES, [3, 2]),
    "adaptive_avg_pool3d.default": (CLIPS, [3, 2, 2]),
    "complex.default": (X, Y),
    "gelu.default": (X,),
    "elu.default": (X, 0.5),
    "hardtanh.default": (X, -0.3, 0.6),
    "softplus.default": (X, 2.0, 1.0),
    "softshrink.default": (X, 0.3),
    "pad.default": (X, [1, 2], "constant", 0.5),
    "expand.default": (X[:, :1], [2, 4, 6]),
    "to.dtype": (X, torch.float64),
    "new_full.default": (X, [2, 3], 0.5),
    "unflatten.int": (X, 2, [2, 3]),
    "type_as.default": (X, Y.double()),
    "repeat.default": (X, [1, 2, 1]),
    "unfold.default": (X, 2, 3, 2),
    "batch_norm.default": (X, C, C, C, C, False, 0.1, 1e-3, False),
    "instance_norm.default": (X, C, C, None, None, True, 0.1, 1e-3, False),
    "linear.default": (X, Y[0], C),
    "scaled_dot_product_attention.default": (X, Y, Y, None, 0.0, True),
    "logical_not.default": (MASK,),
    "bitwise_not.default": (WHOLE,),
}


@pytest.mark.parametrize("target", sorted(t for t in _NATIVE if t.startswith("aten.")))
def test_a_function_gives_what_the_operation_gives(target: str) -> None:
    args = CALLS.get(target.removeprefix("aten."), (X,))
    own, wanted = _NATIVE[target](*args), resolve(target)(*args)
    torch.testing.assert_close(_listed(own), _listed(wanted))


def _listed(y: Any) -> list[Any]:
    return list(y) if isinstance(y, (tuple, list)) else [y]
