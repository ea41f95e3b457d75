"""`co.fuse` on converted modules: norms that follow a convolution become part of its weight and bias."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from ...layers.folds_norms import FoldsNorms, scaled
from ..fuse import frozen, scale
from .instructions import Instruction, Layer, Op, Ref, slots_of

if TYPE_CHECKING:
    from .graph_module import GraphModule

_NORMS = ("aten.batch_norm.default", "aten.instance_norm.default")
_CONVS = tuple(f"aten.conv{n}d.{kind}" for n in (1, 2, 3) for kind in ("default", "padding"))


class Folding:
    """Folds the norms of one converted module.

    Args:
        net: it is changed in place, its parameters and buffers too.
        again: its weights are folded, and only its program, which is that for another dtype, is not.
    """

    def __init__(self, net: GraphModule, again: bool = False):
        self.net, self.bank, self.program, self.again = net, net._bank, net._program, again
        with torch.no_grad():
            self.env = [] if again else net._environment([torch.empty(0)] * len(net._given))
        self.read = Counter(slot for i in (*self.program, *self.bank.constants) for slot in slots_of(i))
        self.read.update(slot for _, slot, _ in net._outputs)

    def run(self) -> None:
        """Fold what can be, and drop what is not needed any more."""
        makers = {slot: i for i in self.program for slot in i.outs}
        for norm in [i for i in self.program if isinstance(i, Op) and i.target in _NORMS]:
            maker = makers.get(norm.inputs[0]) if norm.inputs else None
            if maker is None or self.read[norm.inputs[0]] != 1 or (self.again and (maker.path, norm.path) not in self.net.folded):
                continue
            if self._absorb(maker, norm):
                self.program.remove(norm)
                if not self.again:
                    self.net.__dict__["folded"] = (*self.net.folded, (maker.path, norm.path))
        self._clear()
        if self.net._dtypes is not None:
            self.net.__dict__["_dtypes"] = self.net._dtypes.alone()  # the others are not folded

    def _absorb(self, maker: Instruction, norm: Op) -> bool:
        weight_slot, bias_slot = self._slots(maker)
        source = self._source(weight_slot)
        if source is None or norm.kwargs or len(norm.args) < 8 or norm.args[3] is None or norm.args[5]:
            return False
        table, name = source
        bias = None if bias_slot is None else self._source(bias_slot)
        if bias is None and (bias_slot is not None or (table.get("bias") is not None and not self.again)):
            return False
        if not self.again:
            self._fold_weights(maker, norm, table, name, bias)
        if bias is None:
            bias_slot = self.bank.slots
            self.bank.slots += 1
            self.bank.add(bias_slot, table, "bias", "bias")
        _rewire(maker, bias_slot, norm.out)
        return True

    def _fold_weights(
        self, maker: Instruction, norm: Op, table: dict[str, Any], name: str, bias: tuple[dict[str, Any], str] | None
    ) -> None:
        values = [self._value(a) for a in norm.args]
        factor, offset = scale(values[1], values[2], values[3], values[4], values[7])
        weight, old = table[name], 0 if bias is None else bias[0][bias[1]].double()
        scale_weight = cast(FoldsNorms, maker.module).scaled_weight if isinstance(maker, Layer) else scaled
        folded = frozen(scale_weight(weight.detach().double(), factor), weight.dtype)
        shift = frozen(old * factor + offset, weight.dtype)
        table[name] = folded
        table, name = (table, "bias") if bias is None else bias
        table[name] = shift

    def _value(self, arg: Any) -> Any:
        return self.env[arg.slot] if isinstance(arg, Ref) else arg

    def _slots(self, maker: Instruction) -> tuple[int | None, int | None]:
        """Where a convolution's weight and bias are."""
        if isinstance(maker, Layer) and isinstance(maker.module, FoldsNorms) and not maker.late:
            channels = sum(1 for p in maker.leave._pieces if p) - sum(1 for d in maker.leave.dims[1:] if d)
            if maker.leave.order[1] == channels:  # what the norm takes for channels are the layer's
                return maker.weights["weight"], maker.weights.get("bias")
        if isinstance(maker, Op) and maker.target in _CONVS and not {"weight", "bias"} & set(maker.kwargs):
            weight, bias = maker.args[1], maker.args[2] if len(maker.args) > 2 else None
            return cast(Ref, weight).slot, None if bias is None else cast(Ref, bias).slot
        return None, None

    def _source(self, slot: int | None) -> tuple[dict[str, Any], str] | None:
        """The parameter behind a slot, itself or with its dimensions exchanged, if nothing else uses it."""
        if slot is None or self.read[slot] != 1:
            return None
        for op in self.bank.constants:
            if op.out == slot:
                return self._source(cast(Ref, op.args[0]).slot) if op.target == "aten.permute.default" else None
        found = [(table, name) for own, table, name in self.bank.sources if own == slot]
        return found[0] if len(found) == 1 and isinstance(found[0][0][found[0][1]], nn.Parameter) else None

    def _clear(self) -> None:
        """Parameters and buffers that nothing reads any more go."""
        read = {slot for i in (*self.program, *self.bank.constants) for slot in slots_of(i)}
        gone = [s for s in self.bank.sources if s[0] not in read]
        self.bank.sources = [s for s in self.bank.sources if s[0] in read]
        self.bank.forget()
        emptied = {id(table) for _, table, _ in gone}
        for _, table, name in gone:
            table.pop(name, None)
        for module in self.net.modules():
            buffers: Any = module._buffers
            if id(buffers.table) in emptied:
                buffers.table.pop("num_batches_tracked", None)


def refold(net: GraphModule) -> None:
    """Fold the norms of a program that was made for other dtypes, into weights that they are folded into already."""
    Folding(net, again=True).run()


def _rewire(maker: Any, bias: Any, out: int) -> None:
    """Give a convolution its bias, and let it fill the norm's slot."""
    maker.out, maker.outs = out, (out,)
    if isinstance(maker, Layer):
        maker.weights["bias"] = bias
    else:
        args: Sequence[Any] = maker.args
        maker.args = (*args[:2], Ref(bias), *args[3:])
        maker._ready.clear()
