"""`co.fuse` on converted networks: norms that follow a convolution become part of its weight and bias."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...layers.folds_norms import FoldsNorms, scaled
from ..fuse import frozen, scale
from .exec_context import Arg, Ref
from .instructions import Instruction, Layer, Op, slots_of
from .program_module import ProgramModule
from .skeleton import Table

_NORMS = ("aten.batch_norm.default", "aten.instance_norm.default")
_CONVS = tuple(f"aten.conv{n}d.{kind}" for n in (1, 2, 3) for kind in ("default", "padding"))
Place = tuple[Table, str]  # a table of parameters, and a name in it


class NormFolding:
    """Folds the norms of a converted network.

    Args:
        net: the network; its program, parameters and buffers are changed in place.
        again: its weights are folded already, and the program, which is for other dtypes, is not.
    """

    def __init__(self, net: ProgramModule, again: bool = False):
        self.net, self.program, self.table, self.again = net, net._program, net._program.table, again
        with torch.no_grad():
            self.env = [] if again else self.program.environment([torch.empty(0)] * len(self.program.constants))
        self.uses = Counter(slot for i in (*self.program.instructions, *self.table.constants) for slot in slots_of(i))
        self.uses.update(out.slot for out in self.program.outputs)

    def run(self) -> None:
        """Fold norms where possible, and drop what becomes unused."""
        makers = {slot: i for i in self.program.instructions for slot in i.outs}
        for norm in [i for i in self.program.instructions if isinstance(i, Op) and i.target in _NORMS]:
            maker = makers.get(norm.inputs[0]) if norm.inputs else None
            if maker is None or self.uses[norm.inputs[0]] != 1 or (self.again and (maker.path, norm.path) not in self.net.folded):
                continue
            if self._absorb(maker, norm):
                self.program.instructions.remove(norm)
                if not self.again:
                    self.net.__dict__["folded"] = (*self.net.folded, (maker.path, norm.path))
        self._clear()

    def _absorb(self, maker: Instruction, norm: Op) -> bool:
        """Fold a norm into the convolution before it, if that is possible."""
        weight_slot, bias_slot = _weight_slots(maker)
        weight = self._parameter(weight_slot)
        if weight is None or norm.kwargs or len(norm.args) < 8 or norm.args[3] is None or norm.args[5]:
            return False
        bias = None if bias_slot is None else self._parameter(bias_slot)
        if bias is None and (bias_slot is not None or (weight[0].get("bias") is not None and not self.again)):
            return False
        if not self.again:
            self._fold_weights(maker, norm, weight, bias)
        if bias is None or bias_slot is None:
            bias_slot = self.table.new_slot()
            self.table.add(bias_slot, weight[0], "bias", "bias")
        if isinstance(maker, Layer):
            maker.rewire(bias_slot, norm.out)
        elif isinstance(maker, Op):
            maker.rewire((*maker.args[:2], Ref(bias_slot), *maker.args[3:]), norm.out)
        return True

    def _fold_weights(self, maker: Instruction, norm: Op, weight: Place, bias: Place | None) -> None:
        values: list[Any] = [self.env[a.slot] if isinstance(a, Ref) else a for a in norm.args]
        factor, offset = scale(values[1], values[2], values[3], values[4], values[7])
        (table, name), own = weight, _value(weight)
        old: Tensor | int = 0 if bias is None else _value(bias).double()
        scale_weight = cast(FoldsNorms, maker.module).scaled_weight if isinstance(maker, Layer) else scaled
        table[name] = frozen(scale_weight(own.detach().double(), factor), own.dtype)
        table, name = (table, "bias") if bias is None else bias
        table[name] = frozen(old * factor + offset, own.dtype)

    def _parameter(self, slot: int | None) -> Place | None:
        """The parameter in a slot, itself or permuted, if nothing else uses it."""
        if slot is None or self.uses[slot] != 1:
            return None
        for op in self.table.constants:
            if op.out == slot:
                return self._parameter(_slot(op.args[0])) if op.target == "aten.permute.default" else None
        found = [(table, name) for own, table, name in self.table.sources if own == slot]
        return found[0] if len(found) == 1 and isinstance(found[0][0][found[0][1]], nn.Parameter) else None

    def _clear(self) -> None:
        """Drop parameters and buffers that are no longer read."""
        read = {slot for i in (*self.program.instructions, *self.table.constants) for slot in slots_of(i)}
        gone = [s for s in self.table.sources if s[0] not in read]
        self.table.sources = [s for s in self.table.sources if s[0] in read]
        self.table.forget()
        emptied = {id(table) for _, table, _ in gone}
        for _, table, name in gone:
            table.pop(name, None)
        for module in self.net.modules():
            buffers: Any = module._buffers
            if id(buffers.table) in emptied:
                buffers.table.pop("num_batches_tracked", None)


def refold(net: ProgramModule) -> None:
    """Fold the norms of a program for other dtypes, whose weights are folded already."""
    NormFolding(net, again=True).run()


def _value(place: Place) -> Tensor:
    return cast(Tensor, place[0][place[1]])


def _slot(arg: Arg) -> int | None:
    return arg.slot if isinstance(arg, Ref) else None


def _weight_slots(maker: Instruction) -> tuple[int | None, int | None]:
    """The slots of a convolution's weight and bias."""
    if isinstance(maker, Layer) and isinstance(maker.module, FoldsNorms) and not maker.late:
        pieces = sum(1 for p in maker.leave.pieces if p)
        if maker.leave.order[1] == pieces - sum(1 for d in maker.leave.dims[1:] if d):  # the norm's channels are the layer's
            return maker.weights["weight"], maker.weights.get("bias")
    if isinstance(maker, Op) and maker.target in _CONVS and not {"weight", "bias"} & set(maker.kwargs):
        return _slot(maker.args[1]), _slot(maker.args[2]) if len(maker.args) > 2 else None
    return None, None
