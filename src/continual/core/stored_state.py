"""States that were read from a file, before a network takes them: names and tensors, no counts."""

from __future__ import annotations

from torch import nn

from ..errors import StateMismatch
from .state import State
from .weights_digest import check_fingerprint

STORED = "stored"  # the kind of their only node


def check_stored(net: nn.Module, fresh: State, state: State) -> None:
    """Refuse a state from a file that a network can't go on from.

    Args:
        net: the network.
        fresh: its cold state for the same steps.
        state: of the same structure, perhaps from a file.

    Raises:
        StateMismatch: its tensors are others than its header says, or it was made with other weights.
    """
    if state.node.kind != STORED:
        return
    name = type(net).__name__
    want, got = ({n: (tuple(t.shape), t.dtype) for n, t in s.tensors.items()} for s in (fresh, state))
    if wrong := sorted(n for n in want.keys() | got.keys() if want.get(n) != got.get(n)):
        shown = f"{wrong[0]!r} is {got.get(wrong[0])} in the file, {want.get(wrong[0])} here"
        raise StateMismatch(
            f"{name}: the tensors of this state are not those that its header speaks of ({shown}): the file is damaged"
        )
    check_fingerprint(name, net, state.weights, "read it by co.load_state(path, allow_other_weights=True)")
