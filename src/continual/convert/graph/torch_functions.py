"""Torch's Python functions for operations of an exported graph. They compute the same, at half the cost of a call or less."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...layers.exact_gradients import batch_norm, instance_norm
from ...layers.native import attention, product
from .values import ITEM

# Operations whose Python function takes the same arguments in the same order.
_SAME = """
    add.Tensor sub.Tensor mul.Tensor div.Tensor add.Scalar sub.Scalar mul.Scalar div.Scalar pow.Tensor_Scalar pow.Tensor_Tensor
    maximum.default minimum.default where.self clamp.default masked_fill.Scalar masked_fill.Tensor relu.default sigmoid.default
    tanh.default exp.default log.default sin.default cos.default sqrt.default rsqrt.default neg.default abs.default square.default
    reciprocal.default matmul.default bmm.default mm.default baddbmm.default addmm.default layer_norm.default
    group_norm.default softmax.int log_softmax.int cat.default stack.default transpose.int permute.default unsqueeze.default squeeze.dims
    reshape.default flatten.using_ints select.int narrow.default movedim.int index_select.default embedding.default mean.dim
    sum.dim_IntList amax.default amin.default cumsum.default conv1d.default conv2d.default conv3d.default max_pool1d.default
    max_pool2d.default max_pool3d.default repeat_interleave.self_int lstm_cell.default gru_cell.default rnn_tanh_cell.default
    rnn_relu_cell.default zeros.default ones.default full.default zeros_like.default ones_like.default full_like.default
    clamp_min.default clamp_max.default log1p.default expm1.default log2.default log10.default exp2.default erf.default floor.default
    ceil.default round.default sign.default selu.default celu.default prelu.default hardshrink.default
    atan2.default addcmul.default lerp.Tensor lerp.Scalar rms_norm.default eq.Scalar ne.Scalar lt.Scalar le.Scalar
    gt.Scalar ge.Scalar eq.Tensor ne.Tensor lt.Tensor le.Tensor gt.Tensor ge.Tensor logical_and.default logical_or.default
    logical_not.default bitwise_and.Tensor bitwise_or.Tensor bitwise_not.default where.ScalarOther where.ScalarSelf where.Scalar
    gather.default flip.default roll.default split.Tensor split_with_sizes.default unbind.int swapaxes.default diag_embed.default
    tril.default triu.default sum.default prod.dim_int var.correction std.correction argmax.default argmin.default any.dim all.dim
    topk.default sort.default pixel_shuffle.default pixel_unshuffle.default conv_transpose1d.default conv_transpose2d.input
    conv_transpose3d.input avg_pool1d.default adaptive_avg_pool1d.default real.default imag.default angle.default complex.default
    view_as_real.default view_as_complex.default squeeze.dim
"""
_NN = """
    gelu.default silu.default leaky_relu.default elu.default hardtanh.default softplus.default avg_pool2d.default avg_pool3d.default
    mish.default hardswish.default hardsigmoid.default log_sigmoid.default softshrink.default glu.default
    adaptive_avg_pool2d.default adaptive_avg_pool3d.default pad.default
"""
_METHODS = "expand.default to.dtype new_full.default unflatten.int type_as.default repeat.default unfold.default"
_OTHERS: dict[str, Callable[..., Any]] = {
    "aten.batch_norm.default": batch_norm,
    "aten.instance_norm.default": instance_norm,
    ITEM: operator.getitem,
    "aten.linear.default": product.linear,
    "aten.scaled_dot_product_attention.default": attention.scaled_dot_product_attention,
    "aten.view.default": Tensor.view,
    "aten._unsafe_view.default": Tensor.view,
}


def _table() -> dict[str, Callable[..., Any]]:
    namespaces: tuple[tuple[str, Any], ...] = ((_SAME, torch), (_NN, torch._C._nn), (_METHODS, Tensor))
    found = {f"aten.{n}": getattr(space, n.split(".")[0], None) for names, space in namespaces for n in names.split()}
    return {n: fn for n, fn in found.items() if fn is not None} | _OTHERS


_NATIVE = _table()


def native(target: str) -> Callable[..., Any] | None:
    """The Python function of an operation, if there is one with the same arguments."""
    return _NATIVE.get(target)
