"""One call of a step program as a pure function of a flat list of tensors, whose cold state is zeros."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..convert.graph.graph_module import GraphModule
from ..core.module import CoModule
from ..core.program.context import Target
from ..core.program.tracing import untraced
from ..core.state import StepSpec
from ..core.version import __version__
from ..core.weights_digest import fingerprint
from ..errors import ExportError, NotStreamable
from ..programs.layouts import internal_layout, network_layout
from ..programs.planning import planned
from ..programs.schedule import OutputCount
from .metadata import CALLS, Metadata, Port

FEWEST = 2  # rows of the example of an export for any number of rows: torch takes 1 for a constant
ANNOTATED = Target(annotate=True)


class FlatCall(nn.Module):
    """``(x …, [end], calls, state …) → (y …, valid, calls, state …)``.

    Args:
        net: a streaming network, in eval mode.
        step: an example step.
        chunk: steps per call; ``None``: the fewest that the strides allow.
        batch: rows; ``None``: any number.
        flush: whether streams may end.
        target: what runs the call.
    """

    def __init__(
        self,
        net: CoModule,
        step: Any,
        chunk: int | None,
        batch: int | None,
        flush: bool,
        target: Target = ANNOTATED,
    ):
        super().__init__()
        inputs = tuple(step) if isinstance(step, (list, tuple)) else (step,)
        self.rows, self.batch, self.flush = FEWEST if batch is None else batch, batch, flush
        self._ports = _inputs_of(net, len(inputs))
        steps = [_with_rows(x, self.rows, port) for x, port in zip(inputs, self._ports, strict=True)]
        frame = StepSpec.of(internal_layout(net, tuple(steps), chunk=False))
        try:
            with torch.no_grad():
                self.planned = planned(net, frame, chunk, flush=flush, target=target)
        except (NotStreamable, ValueError) as error:
            raise type(error)(str(error).replace("co.compile:", "co.export:")) from error
        self.net, self.chunk = net, self.planned.plan.chunk
        self._steps = steps
        self._other_than_zero: list[int] = []
        for i, cold in enumerate(self.planned.cold(1)):
            if bool((cold != 0).any()):
                self._other_than_zero.append(i)
                self.register_buffer(f"cold_{i}", cold, persistent=False)
        self.training = False
        with torch.no_grad():
            found = self._run(self.example())[0]
        leaves, spec = pytree.tree_flatten(found)
        numbers = itertools.accumulate((y is not None for y in leaves), initial=0)
        self._outputs = [y for y in leaves if y is not None]
        self.structure = _plain(
            pytree.tree_unflatten([None if y is None else n for y, n in zip(leaves, numbers, strict=False)], spec)
        )

    def _run(self, tensors: list[Tensor]) -> tuple[Any, Tensor, Tensor, list[Tensor]]:
        x, rest = tuple(tensors[: len(self._ports)]), tensors[len(self._ports) :]
        end = None
        if self.flush:
            end, *rest = rest
        calls, *state = rest
        opened = (calls >= 0 if end is None else end <= 0), self.planned.plan.far
        end = torch.zeros_like(calls) if end is None else end
        for i in self._other_than_zero:
            begins = (calls == 0).view(-1, *(1,) * (state[i].ndim - 1))
            state[i] = torch.where(begins, getattr(self, f"cold_{i}"), state[i])
        y, valid, new_state = self.planned.call(internal_layout(self.net, x, chunk=True), calls, end, None, state, opened)
        return network_layout(self.net, y, chunk=True), valid, calls + 1, new_state

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the call. Inputs and outputs are in the order of the metadata's names."""
        y, valid, calls, state = self._run(list(tensors))
        return (*(t for t in pytree.tree_leaves(y) if t is not None), valid, calls, *state)

    # ---- examples -----------------------------------------------------------------------------------------------------------

    def example(self) -> list[Tensor]:
        """Inputs of zeros."""
        chunks = [_chunk(torch.zeros_like(x), self.chunk, time) for x, (time, _) in zip(self._steps, self._ports, strict=True)]
        calls = torch.zeros(self.rows, dtype=torch.int64, device=chunks[0].device)
        states = [torch.zeros(self.rows, *h.shape, dtype=h.dtype, device=h.device) for h in self.planned.plan.state_specs]
        return [*chunks, *([calls.clone()] if self.flush else []), calls, *states]

    def noise(self, steps: int) -> list[Tensor]:
        """A random clip of the inputs, always the same."""
        generator = torch.Generator().manual_seed(0)
        frames = -(-max(steps, 2 * int(self.planned.net.receptive_field)) // self.chunk) * self.chunk
        chunks = [_chunk(x, frames, time) for x, (time, _) in zip(self._steps, self._ports, strict=True)]
        return [torch.randn(x.shape, generator=generator).to(x.dtype) if x.is_floating_point() else x for x in chunks]

    def row_dims(self) -> list[int | None]:
        """The dimension of rows of each input."""
        states = 1 + len(self.planned.plan.state_specs) + self.flush
        return [_row_dim(time, batched) for time, batched in self._ports] + [0] * states

    def exported(self, module: nn.Module | None = None) -> torch.export.ExportedProgram:
        """This call as one graph of torch operations, or that of ``module``, which wraps it.

        Raises:
            ExportError: torch can't trace it.
        """
        example, shapes = tuple(self.example()), None
        if self.batch is None:
            rows = torch.export.Dim("batch", min=1)
            shapes = (tuple(None if dim is None else {dim: rows} for dim in self.row_dims()),)
        with warnings.catch_warnings(), torch.enable_grad(), torch.fx.traceback.preserve_node_meta():
            warnings.simplefilter("ignore")
            try:
                return torch.export.export(module or self, example, dynamic_shapes=shapes, strict=False)
            except Exception as error:
                reason = untraced(error, type(self.net).__name__, self.batch is None)
                raise ExportError(f"co.export: torch.export can't follow {reason}") from error

    def metadata(self, format: str, rate: float | None) -> Metadata:
        """The metadata of a file with this call."""
        net, plan, out_schedule = self.planned.net, self.planned.plan, self.planned.out_schedule
        example = self.example()
        names = [f"x{i or ''}" for i in range(len(self._ports))]
        inputs = [
            _port(name, x, _row_dim(time, batched), time)
            for name, x, (time, batched) in zip(names, example, self._ports, strict=False)
        ]
        if isinstance(net, GraphModule):
            places = list(zip(net.output_batch_dims, net.output_time_dims, strict=True))
        else:
            places = [(int(net.time_dim == 0), net.time_dim)] * len(self._outputs)
        outputs = [_port(f"y{i or ''}", y, *place) for i, (y, place) in enumerate(zip(self._outputs, places, strict=True))]
        state_ports = [
            _port(f"state.{spec.name}", t, 0)
            for spec, t in zip(plan.state_specs, self.example()[-len(plan.state_specs) :], strict=False)
        ]
        return Metadata(
            format=format,
            network=net.name if isinstance(net, GraphModule) else type(net).__name__,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            states=(Port(CALLS, (None,), "int64"), *state_ports),
            structure=self.structure,
            receptive_field=int(net.receptive_field),
            delay=int(net.delay),
            stride=int(net.stride[0]),
            chunk=self.chunk,
            start=plan.start,
            first=out_schedule.first,
            per_call=out_schedule.frames,
            totals=OutputCount.of(net.timing),
            flush=self.flush,
            batch=self.batch,
            rate=rate,
            converted=isinstance(net, GraphModule),
            unbounded=any(getattr(m, "unbounded_memory", False) for m in net.modules()),
            package_version=__version__,
            weights=fingerprint(net),
        )


def _inputs_of(net: CoModule, count: int) -> list[tuple[int | None, bool]]:
    """The dimension of time in a chunk of each input, and whether it has rows."""
    if isinstance(net, GraphModule):
        return [(i.time, i.batch is not None) for i in net.io_layout.inputs]
    return [(net.time_dim, True)] * count


def _plain(structure: Any) -> Any:
    """Nested numbers as JSON has them: lists for tuples, dictionaries for mappings and dataclasses."""
    if isinstance(structure, Mapping):
        return {str(name): _plain(part) for name, part in structure.items()}
    if dataclasses.is_dataclass(structure):
        return {field.name: _plain(getattr(structure, field.name)) for field in dataclasses.fields(structure)}
    return [_plain(part) for part in structure] if isinstance(structure, (list, tuple)) else structure


def _row_dim(time: int | None, batched: bool) -> int | None:
    """The dimension of rows in a chunk."""
    return (1 if time == 0 else 0) if batched else None


def _with_rows(x: Tensor, rows: int, own: tuple[int | None, bool]) -> Tensor:
    """A step with ``rows`` rows. Its values do not matter."""
    return x.detach()[:1].expand(rows, *x.shape[1:]).contiguous() if own[1] and x.shape[0] != rows else x.detach()


def _chunk(step: Tensor, chunk: int, time: int | None) -> Tensor:
    return step if time is None else torch.stack([step] * chunk, time)


def _port(name: str, t: Tensor, rows: int | None, time: int | None = None) -> Port:
    shape: tuple[int | None, ...] = tuple(None if dim == rows else n for dim, n in enumerate(t.shape))
    return Port(name, shape, str(t.dtype).removeprefix("torch."), time)
