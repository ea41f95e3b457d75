"""States from files: names and tensors without counts, until a network takes them; and the comparison of their tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import StateMismatch
from .state import State
from .weights_digest import check_fingerprint

STORED = "stored"  # the kind of the nodes of such a state


def described(tensors: Mapping[str, Tensor]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """The shape and dtype of each tensor."""
    return {name: (tuple(t.shape), t.dtype) for name, t in tensors.items()}


def differences(want: Mapping[str, object], got: Mapping[str, object]) -> list[str]:
    """Names that only one of two descriptions has, or that they describe differently."""
    return sorted(name for name in want.keys() | got.keys() if want.get(name) != got.get(name))


def check_stored(net: nn.Module, fresh: State, state: State) -> None:
    """Refuse a state from a file that a network can't continue from.

    Args:
        net: the network.
        fresh: its cold state for the same steps.
        state: of the same structure, perhaps from a file.

    Raises:
        StateMismatch: its tensors do not match its header, or the weights differ.
    """
    if state.node.kind != STORED:
        return
    name = type(net).__name__
    want, got = described(fresh.tensors), described(state.tensors)
    if wrong := differences(want, got):
        shown = f"{wrong[0]!r} is {got.get(wrong[0])} in the file, {want.get(wrong[0])} here"
        raise StateMismatch(
            f"{name}: the tensors of this state are not those that its header speaks of ({shown}): the file is damaged"
        )
    check_fingerprint(name, net, state.weights, "read it by co.load_state(path, allow_other_weights=True)")
