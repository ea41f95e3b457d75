"""Decompositions of operations that have no rule into operations that may have one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._decomp import decomposition_table
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import detect_fake_mode
from torch.fx import Graph, GraphModule
from torch.fx import Node as Fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.fx.node import map_arg

from .instructions import resolve
from .values import Value, as_sequence


def stft(
    x: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None, window: Tensor | None = None,
    normalized: bool = False, onesided: bool | None = None, return_complex: bool | None = None, *_: Any, **__: Any,
) -> Tensor:  # fmt: skip
    """Spectra of windows, as ``torch.stft(center=False)``: ``(B, T)`` to ``(B, F, n)``."""
    frames = x.unfold(-1, n_fft, n_fft // 4 if hop_length is None else hop_length)
    if window is not None:
        left = (n_fft - window.shape[0]) // 2
        frames = frames * F.pad(window, (left, n_fft - window.shape[0] - left))
    elif win_length is not None and win_length < n_fft:
        left = (n_fft - win_length) // 2
        frames = F.pad(frames[..., left : left + win_length], (left, n_fft - win_length - left))
    norm = "ortho" if normalized else None
    one = not (x.is_complex() or (window is not None and window.is_complex())) if onesided is None else onesided
    y = (torch.fft.rfft if one else torch.fft.fft)(frames, norm=norm).transpose(-1, -2)
    return y if return_complex else torch.view_as_real(y)


def im2col(x: Tensor, kernel_size: list[int], dilation: list[int], padding: list[int], stride: list[int]) -> Tensor:
    """Patches of images as columns, as ``F.unfold``: ``(B, C, H, W)`` to ``(B, C·k·l, h·w)``."""
    y = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    for i in (0, 1):
        if dilation[i] == 1 and statically_known_true(kernel_size[i] == y.shape[2 + i]):  # one patch: all there is
            y = y.unsqueeze(2 + i).movedim(3 + i, -1)
        else:
            y = y.unfold(2 + i, dilation[i] * (kernel_size[i] - 1) + 1, stride[i])[..., :: dilation[i]]
    return y.permute(0, 1, 4, 5, 2, 3).flatten(4).flatten(1, 3)


DECOMPOSITIONS: dict[str, Any] = {"aten.stft.default": stft, "aten.stft.center": stft, "aten.im2col.default": im2col}


def decomposed(node: Fx, name: str) -> GraphModule | None:
    """The graph into which torch decomposes an operation, with the same inputs; ``None`` if the operation is basic.

    Args:
        node: the node that calls it.
        name: the operation, ``"aten.tensordot.default"``: that of the node, or its out-of-place form.
    """
    op: Any = resolve(name)
    if name in DECOMPOSITIONS:
        fn: Any = DECOMPOSITIONS[name]
    elif op._can_decompose():
        fn = op.decompose
    elif op in decomposition_table:
        fn = decomposition_table[op]
    else:
        return None
    inputs = node.all_input_nodes
    examples = [n.meta.get("val") for n in inputs]
    if any(v is None or isinstance(v, (list, tuple)) for v in examples):
        return None

    def call(*values: Any) -> Any:
        values_of = dict(zip(inputs, values, strict=True))
        args, kwargs = map_arg(node.args, values_of.__getitem__), map_arg(node.kwargs, values_of.__getitem__)
        return fn(*args, **kwargs)

    try:
        fake = detect_fake_mode(examples) or nullcontext()
        with torch.no_grad(), fake, enable_python_dispatcher():  # without these two, kernels would specialise symbolic sizes
            made = make_fx(call)(*examples)
    except Exception:  # torch can't decompose it here: the operation has no rule then
        return None
    made.graph.eliminate_dead_code()
    if not _smaller(made.graph, op):
        return None
    for inner in made.graph.nodes:
        inner._rename(f"{node.name}_{inner.name}")
        inner.meta |= {k: node.meta[k] for k in ("stack_trace", "nn_module_stack") if k in node.meta}
    return made


def _smaller(graph: Graph, op: Any) -> bool:
    """Whether the parts do not contain the operation itself."""
    return all(n.target is not op for n in graph.nodes)


def paired(arg: object, value: Value) -> Iterator[tuple[Fx, Value]]:
    """The nodes in an argument, and their values."""
    if isinstance(arg, Fx):
        yield arg, value
    elif isinstance(arg, (list, tuple)):
        for a, v in zip(arg, as_sequence(value), strict=True):
            yield from paired(a, v)
