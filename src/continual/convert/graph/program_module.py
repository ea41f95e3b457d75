"""A converted module as the parts of the conversion see it: a tree of names, and a program that can be exchanged."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ...core.module import CoModule
from .io_layout import Input, ModuleLayout
from .parameter_table import Source
from .program import ConstantInput, Program, StreamInput
from .submodule_tree import Converted, mirror


class ProgramModule(Converted, CoModule):
    """A module that runs a program on the parameters of another module.

    Args:
        module: the module.
        program: the program.
        sources: what fills its slots from outside.

    Attributes:
        folded: the paths of convolutions and of the norms that were folded into them.
    """

    _program: Program
    io_layout: ModuleLayout
    folded: tuple[tuple[str, str], ...] = ()

    def __init__(self, module: nn.Module, program: Program, sources: Sequence[Source]):
        super().__init__()
        self.__dict__["name"] = type(module).__name__
        mirror(module, self, self.name)
        self._set_program(program)
        for source in sources:
            self._bind(source)
        self._stand_for(module)

    def _set_program(self, program: Program) -> None:
        """Run another program."""
        self.__dict__.update(_program=program, io_layout=program.layout)

    def _bind(self, source: Source) -> None:
        """Say where the value of a slot comes from."""
        program, table = self._program, self._program.table
        if source.kind == "constant":
            table.add(source.slot, table.tensors, source.name, source.name)
        elif source.view is not None:
            program.streams.append(StreamInput(int(source.name), source.slot, source.view))
        elif source.kind == "input":
            program.constants.append(ConstantInput(int(source.name), source.slot))
        else:
            for path in self._names_of(source.name):
                own, name = self.table_of(path)
                table.add(source.slot, own, name, path)

    @property
    def _inputs_in_order(self) -> list[Input]:
        """The inputs inside: the streams, then the inputs that are not streams."""
        return sorted(self.io_layout.inputs, key=lambda i: i.time is None)
