"""The operations of a streaming module that was built by hand: rows that follow the data through its containers."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, cast

from torch import nn

from ..containers.conditional import Conditional
from ..containers.parallel import BroadcastReduce, Parallel
from ..containers.sequential import Sequential
from ..containers.streams import Reduce, Rewiring
from ..core.module import CoModule
from ..core.op_rows import Row
from ..core.state import State, StateNode, rewire
from ..core.timing import Timing
from ..layers.closure import Identity

Places = Any  # indices of rows (or inputs, as in a Row), nested like the wire of tensors that they stand for

_REDUCED = {"sum": "add", "concat": "cat"}
_UNBOUNDED = "it remembers everything since the stream began, which the receptive field does not count"


def rows_of(net: CoModule, state: State) -> tuple[tuple[Row, ...], tuple[int, ...]]:
    """The rows of a network, and which of them leave it.

    Args:
        net: the network.
        state: one of its states, for the shapes.

    Example:
        >>> net = co.Sequential(co.Residual(co.Conv1d(2, 2, 3, padding=1)), nn.ReLU())
        >>> for row in rows_of(net, net.init_state(torch.zeros(1, 2)))[0]:
        ...     print(row.path, row.op, row.inputs, row.waits)
        0.1 Conv1d k3 p1 (-1,) (0,)
        0 add (-1, 0) (1, 0)
        1 ReLU (1,) (0,)
    """
    walk = _Walk(net)
    entered = _numbered(state.frame)
    left = walk.module(state.node, entered)
    return tuple(walk.rows), tuple(_flat(left))


def _numbered(frame: Any) -> Places:
    """The network's inputs."""
    count = iter(range(1, 1 << 30))
    return rewire(lambda _: -next(count), frame)


def _flat(places: Places) -> list[int]:
    return [i for p in places for i in _flat(p)] if isinstance(places, list) else [places]


class _Walk:
    """Follows the data and writes rows."""

    def __init__(self, net: CoModule):
        self.net = net
        self.rows: list[Row] = []

    def module(self, node: StateNode, inputs: Places) -> Places:
        """The rows of one use of a module, and where its output is."""
        module = cast(CoModule, self.net.part(node.path))
        if isinstance(module, Sequential):
            for child in node.children:
                inputs = self.module(child, inputs)
            return inputs
        if isinstance(module, Parallel):
            return self.parallel(module, node, inputs)
        if isinstance(module, Rewiring) and not isinstance(module, Reduce):
            return module.rearrange(inputs)
        if isinstance(module, (Identity, nn.Identity)):
            return inputs
        timing = node.before.then(module.timing)
        op = _reduced(module) if isinstance(module, Reduce) else described(module)
        note = _UNBOUNDED if module.unbounded_memory else ""
        return self.row(node, op, inputs, timing, [_bytes(n) for n in node.walk()], note=note)

    def parallel(self, module: Parallel, node: StateNode, inputs: Places) -> Places:
        """Branches, and the queues in which their outputs wait for each other."""
        size = len(module._children)
        pairs = zip(node.children[:size], module.split(inputs), strict=True)
        outs = [self.module(child, taken) for child, taken in pairs]
        queues, timing = node.children[size:], node.before.then(module.timing)
        if not isinstance(module, (BroadcastReduce, Conditional)):
            return [self.queue(*both, timing) for both in zip(queues, outs, strict=True)]
        op = _reduced(module.reducer) if isinstance(module, BroadcastReduce) else f"Conditional {_name(module.predicate)}"
        waits = [_depth(queue) for queue, out in zip(queues, outs, strict=True) for _ in _flat(out)]
        return self.row(node, op, outs, timing, [_bytes(q) for q in queues], waits)

    def queue(self, node: StateNode, inputs: Places, timing: Timing) -> Places:
        """A branch whose output waits before it is one of several that leave."""
        if not node.tensors:
            return inputs
        one = [self.rows[i].receptive_field if i >= 0 else 1 for i in _flat(inputs)]
        made = iter(range(len(self.rows), len(self.rows) + len(one)))
        for i, span, tensor in zip(_flat(inputs), one, node.tensors, strict=True):
            many = f" {len(self.rows)}" if len(one) > 1 else ""
            nbytes, waits = tensor.numel() * tensor.element_size(), (_depth(node),)
            self.rows.append(Row(f"{node.path}{many} (waits)", "wait", (i,), waits, _rate(timing), span, timing.delay, nbytes))
        return rewire(lambda _: next(made), inputs)

    def row(
        self,
        node: StateNode,
        op: str,
        inputs: Places,
        timing: Timing,
        nbytes: list[int],
        waits: Sequence[int] = (),
        note: str = "",
    ) -> Places:
        """A row for one operation; all that it gives is in this row."""
        sources = tuple(_flat(inputs))
        at, span = len(self.rows), timing.receptive_field
        shown = tuple(waits) or (0,) * len(sources)
        path = node.path or "network"
        self.rows.append(Row(path, op, sources, shown, _rate(timing), span, timing.delay, sum(nbytes), note=note))
        return rewire(lambda _: at, node.out)


def _rate(timing: Timing) -> Fraction:
    return 1 / Fraction(timing.stride)


def _bytes(node: StateNode) -> int:
    return sum(t.numel() * t.element_size() for t in node.tensors)


def _depth(queue: StateNode) -> int:
    return queue.tensors[0].shape[1] if queue.tensors else 0


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _reduced(module: Reduce) -> str:
    return _REDUCED.get(module.reduce, module.reduce) if isinstance(module.reduce, str) else f"reduce {_name(module.reduce)}"


def described(module: nn.Module) -> str:
    """A module in a few words: its class and what matters of its geometry.

    Example:
        >>> described(nn.Conv2d(2, 4, (3, 1), stride=2, padding=(1, 0))), described(nn.Linear(3, 4)), described(nn.ReLU())
        ('Conv2d k(3,1) s2 p(1,0)', 'Linear 3→4', 'ReLU')
    """
    name, own = type(module).__name__, vars(module)
    if "kernel_size" in own:
        shown = {"k": "kernel_size", "s": "stride", "p": "padding", "d": "dilation", "g": "groups"}
        said = {short: _geometry(own[long]) for short, long in shown.items() if own.get(long) is not None}
        usual = {"s": "1", "p": "0", "d": "1", "g": "1"}
        return " ".join([name, *(f"{short}{value}" for short, value in said.items() if value != usual.get(short))])
    for before, after in (("in_features", "out_features"), ("input_size", "hidden_size")):
        if before in own and after in own:
            layers = own.get("num_layers", 1)
            return f"{name} {own[before]}→{own[after]}" + (f" ×{layers}" if layers != 1 else "")
    extra = module.extra_repr()
    return f"{name} {extra}" if extra and len(extra) <= 24 and "=" not in extra else name


def _geometry(value: Any) -> str:
    """A size, or one for each dimension where they differ. Transposed convolutions have the inverse of their stride."""
    sizes = [value] if isinstance(value, (int, str, Fraction)) else list(value)
    words = [str(1 / v if isinstance(v, Fraction) and 0 < v < 1 else v) for v in sizes]
    return words[0] if len(set(words)) == 1 else f"({','.join(words)})"
