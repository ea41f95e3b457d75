"""Modules that are local in time: each output frame depends on the input frame at the same moment alone."""

from __future__ import annotations

import copy
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from ..core.kernel import counted_macs
from ..core.module import CoModule
from ..core.naming import named
from ..core.program.context import KernelContext, Run
from ..core.state import InitContext, StateNode, StateUpdates, StepSpec
from ..core.timing import IDENTITY, Timing
from ..errors import ContinualError, ShapeMismatch


def parameter(module: nn.Module, name: str) -> Any:
    """A module's parameter, without the detour of ``nn.Module.__getattr__`` where it is an ordinary one."""
    own = module._parameters
    return own[name] if name in own else getattr(module, name)


class LocalInTime(CoModule):
    """Base class of modules that are local in time. They hold no state.

    A subclass defines ``forward`` on clips; a step then runs as a clip of one. A subclass whose code runs on a step without the
    dimension of time overrides :meth:`local_step`.
    """

    @property
    def timing(self) -> Timing:
        return IDENTITY

    @property
    def kind(self) -> str:
        return type(self).__name__

    def clip(self, x: Tensor) -> Tensor:
        """The computation on a chunk whose time is dim 2."""
        forward: Any = type(self).forward
        return forward.__wrapped__(self, x)

    def local_step(self, x: Tensor) -> Tensor:
        """The computation on a step."""
        return self.clip(x.unsqueeze(2)).squeeze(2)

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> int | Fraction:
        if not self.has_products or not isinstance(node.kept_spec, StepSpec):
            return 0
        return counted_macs(lambda: self.local_step(node.kept_spec.zeros())) // frame.shape[0]

    def check(self, frame: StepSpec, path: str) -> None:
        """Refuse frames on which the module would mix time."""

    def out(self, frame: StepSpec) -> StepSpec:
        """The frame that leaves; by default found by running zeros through a copy."""
        run = self if not self.training else copy.deepcopy(self).eval()
        with torch.no_grad():
            return StepSpec.of(run.local_step(frame.zeros()))

    def open(self, frame: StepSpec, init: InitContext) -> StateNode:
        path = named(init.path, self)
        self.check(frame, path)
        try:
            return StateNode(init, self.kind, self.out(frame), kept_spec=frame)
        except ContinualError:
            raise
        except (RuntimeError, ValueError) as error:
            raise ShapeMismatch(f"{path}: can't take steps {frame}: {error}") from error

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        return (None if x is None else self.clip(x)), n_if_ended

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor:
        return self.local_step(x)

    def program(self, ctx: KernelContext) -> Run:
        """The module itself, on the frames of a call."""
        return lambda x, rows: self.clip(x)


def check_home(own: Tensor, frame: StepSpec, path: str, mixed: bool) -> None:
    """Refuse frames on another device than a module's tensor, or, unless they may be mixed, of another dtype."""
    if own.is_meta and frame.device != own.device:
        raise ShapeMismatch(
            f"{path}: its weights are on the meta device and have no values; load some by load_state_dict(…, assign=True)"
        )
    if frame.device != own.device:
        raise ShapeMismatch(f"{path}: weights are on {own.device}, the step is on {frame.device}; move one with .to()")
    if frame.dtype != own.dtype and not mixed:
        raise ShapeMismatch(f"{path}: weights are {own.dtype}, the step is {frame.dtype}; convert one with .to()")


def check_parameters(module: nn.Module, frame: StepSpec, path: str) -> None:
    """Refuse frames of another dtype, device or size than a module's own parameters are for."""
    own = next((t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()), None)
    if own is not None:
        half_or_index = frame.dtype in (torch.half, torch.bfloat16) or not frame.dtype.is_floating_point
        check_home(own, frame, path, mixed=half_or_index or torch.is_autocast_enabled(frame.device.type))
    channels = getattr(module, "num_features", None)
    if channels is not None and frame.shape[1] != channels:
        raise ShapeMismatch(f"{path}: expects steps of {channels} channels, got {tuple(frame.shape)}")
    normalized = tuple(getattr(module, "normalized_shape", ()))
    if normalized and frame.shape[-len(normalized) :] != normalized:
        raise ShapeMismatch(f"{path}: normalises the last dimensions {normalized}, got steps {tuple(frame.shape)}")


class LocalFunction(LocalInTime):
    """Base class of the small functions of :mod:`continual.closure` that run on clips and steps alike."""

    has_products = False

    def forward(self, input: Tensor) -> Tensor:
        return self.local_step(input)

    def clip(self, x: Tensor) -> Tensor:
        return self.local_step(x)

    def out(self, frame: StepSpec) -> StepSpec:
        return frame
