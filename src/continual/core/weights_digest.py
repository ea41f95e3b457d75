"""The digest of a network's weights: two networks have the same one if and only if their weights are the same, bit for bit."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakTensorKeyDictionary

from ..errors import StateMismatch

COUNTERS = ("num_batches_tracked",)  # of training steps: no output depends on them
SHORT = 12  # digits, for people

_known: Any = WeakTensorKeyDictionary()  # tensors, what they were when they were read, and their digests


def fingerprint(module: nn.Module) -> str:
    """The digest of all parameters and buffers: of names, shapes, dtypes and bytes, wherever they are and however they lie in memory.

    A tensor's bytes are read again when it has changed. A change that torch does not count as one (writing to ``weight.data``) is not
    noticed.
    """
    total = hashlib.sha256()
    for name, t in sorted(_weights(module), key=lambda item: item[0]):
        total.update(f"{name} {t.dtype} {tuple(t.shape)}\n".encode())
        total.update(tensor_digest(t))
    return total.hexdigest()[:32]


class Weights:
    """The weights of a network as they were when a state was taken, to be read when their digest is asked for."""

    __slots__ = ("_module", "_versions")

    def __init__(self, module: nn.Module):
        self._module, self._versions = module, _versions(module)

    @property
    def changed(self) -> bool:
        """Whether the weights have changed since."""
        return _versions(self._module) != self._versions


def fingerprint_of(weights: Weights | nn.Module | str) -> str:
    """The digest of weights, or one that is known already; empty if the weights have changed since the state was taken."""
    if isinstance(weights, Weights):
        return "" if weights.changed else fingerprint(weights._module)
    return fingerprint(weights) if isinstance(weights, nn.Module) else weights


def check_fingerprint(who: str, own: nn.Module | str, recorded: str, remedy: str) -> None:
    """Refuse a state that was made with other weights. A state without a digest is accepted.

    Args:
        who: what takes the state, for the error.
        own: the network that takes it, or its digest.
        recorded: the digest of the weights that the state was made with.
        remedy: how to take it nevertheless.

    Raises:
        StateMismatch: the digests differ.
    """
    if recorded and (mine := fingerprint_of(own)) and mine != recorded:
        raise StateMismatch(
            f"{who}: this state was made with other weights (their digest is {recorded[:SHORT]}…, that of the weights here "
            f"{mine[:SHORT]}…). Load the weights that it was made with, or, if it is meant to go on with these, {remedy}"
        )


def _versions(module: nn.Module) -> list[tuple[int, int]]:
    """The identity and the version of each parameter and buffer. It takes a microsecond for three of them."""
    tables = [table for m in module.modules() for table in (m._parameters, m._buffers)]
    held = [t for table in tables for t in table.values() if t is not None]
    return [(id(t), -1 if t.is_inference() else t._version) for t in held]


def _weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from ((n, t) for n, t in module.named_buffers(remove_duplicate=False) if not n.endswith(COUNTERS))


def tensor_digest(t: Tensor) -> bytes:
    """Of a tensor's bytes. Kept as long as it is the same memory in the same version."""
    if hasattr(t, "__tensor_flatten__"):  # a subclass that is made of tensors
        names, rest = t.__tensor_flatten__()
        parts = [tensor_digest(getattr(t, name)) for name in names]
        return hashlib.sha256(b"".join(parts) + repr((names, rest)).encode()).digest()
    if t.is_inference() or t.layout is not torch.strided:  # which have no versions
        return _read(t)
    mark = StorageWeakRef(t.untyped_storage()), t._version, t.data_ptr(), t.shape, t.stride(), t.dtype
    kept = _known.get(t)
    if kept is None or kept[0] != mark:
        kept = _known[t] = mark, _read(t)
    found: bytes = kept[1]
    return found


def _read(t: Tensor) -> bytes:
    """The digest of a tensor's elements in their order."""
    with torch.no_grad():
        t = t.detach() if t.layout is torch.strided else t.detach().to_dense()
        t = t.resolve_conj().resolve_neg().cpu().contiguous()
    size = t.numel() * t.element_size()
    return hashlib.sha256((ctypes.c_ubyte * size).from_address(t.data_ptr()) if size else b"").digest()
