"""The forms in which a network can run here: calls of one step, and what is done without streaming."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ...convert.fuse import fuse
from ...core.module import CoModule
from ...errors import ContinualError
from ...export.api import export, load
from ...export.runner import Runner
from ...programs.compile import compile
from ...streams.frames import Frames
from ...streams.network import layout_of
from ...streams.policy import Policy
from ..checks.memory import Meter

FormName: TypeAlias = Literal["eager", "fused", "compiled", "onnxruntime", "openvino", "executorch", "window", "clip", "file"]
NAMES: tuple[FormName, ...] = get_args(FormName)
FILES = {"onnxruntime": ("onnx", ".onnx"), "openvino": ("openvino", ".xml"), "executorch": ("executorch", ".pte")}
PACKAGES = {"onnxruntime": ("onnx", "onnxruntime", "onnxscript"), "openvino": ("openvino",), "executorch": ("executorch",)}
LARGEST = 1 << 30  # bytes of a clip that is recomputed


class Missing(Exception):
    """A form does not run here. The message says why."""


@dataclass
class Form:
    """One way to run a network.

    Attributes:
        name: of the form.
        call: runs it once.
        steps: of the stream for each call: a window is computed for each output, a step of a chunk belongs to one step.
        period: calls that differ in their work.
        state: bytes of a stream's state; ``None`` where the runtime does not say, or there is none.
        peak: the most bytes that a call allocates; ``None`` where that is not known.
    """

    name: str
    call: Callable[[], Any]
    steps: float
    period: int = 1
    state: int | None = None
    peak: int | None = None


class Forms:
    """Makes the forms of a network.

    Args:
        net: a streaming network, in eval mode.
        step: a step of it.
        clip_length: steps of the clip.
        threads: of runtimes that have their own.
        folder: for files.
    """

    def __init__(self, net: CoModule, step: Any, clip_length: int | None, threads: int, folder: Path):
        self.net, self.step, self.threads, self.folder = net, step, threads, folder
        times, several, _, _ = layout_of(net)
        self._frames = Frames(times, several, Policy())
        self._parts = self._frames.kept(step)
        self.window = next(n for n in range(max(1, net.receptive_field), 1 << 40) if net.timing.ended(n) > 0)
        self.clip_length = max(64, 2 * self.window) if clip_length is None else clip_length
        self.device = self._parts[0].device

    def default(self) -> list[FormName]:
        """The forms that need nothing that is missing here."""
        found: list[FormName] = ["eager", "fused"]
        if any(shutil.which(c) for c in ("c++", "g++", "clang++", "cl")):
            found.append("compiled")
        if self.device.type == "cpu":
            found += [name for name in ("onnxruntime", "openvino", "executorch") if all(map(_found, PACKAGES[name]))]
        return [*found, "window", "clip"]

    def make(self, name: FormName) -> Form:
        """A form that has run until it gives outputs.

        Raises:
            Missing: it does not run here.
        """
        try:
            if name == "file":
                raise Missing("this is a network, no file")
            return getattr(self, f"_{name}")() if name not in FILES else self._file(name)
        except Missing:
            raise
        except (ContinualError, ImportError, RuntimeError, NotImplementedError, TypeError) as error:
            raise Missing(" ".join(str(error).split())[:200] or type(error).__name__) from error

    # ---- streams --------------------------------------------------------------------------------------------------------

    def _stream(self, name: str, step: Callable[[Any], Any], state: int | None, peak: bool = False) -> Form:
        for _ in range(
            self.net.delay + 2 * int(self.net.timing.period) + 1
        ):  # before the delay has passed the last layers do not run
            step(self.step)
        form = Form(name, lambda: step(self.step), 1, int(self.net.timing.period), state)
        form.peak = max(_peak(form.call) for _ in range(form.period)) if peak else None
        return form

    def _eager(self) -> Form:
        net = self.net.new_stream()
        form = self._stream("eager", net.forward_step, None, peak=True)
        form.state = _bytes(net)
        return form

    def _fused(self) -> Form:
        net = fuse(self.net)
        if list(net.state_dict()) == list(self.net.state_dict()):
            raise Missing("there is nothing to fold")
        form = self._stream("fused", net.forward_step, None, peak=True)
        form.state = _bytes(net)
        return form

    def _compiled(self) -> Form:
        program = compile(self.net, self.step, backend="aot" if self.device.type == "cpu" else "inductor")
        state = sum(t.numel() * t.element_size() for t in program.init_state().values())
        return self._stream("compiled", program.step, state)

    def _file(self, name: str) -> Form:
        if absent := [p for p in PACKAGES[name] if not _found(p)]:
            raise Missing(f"pip install {' '.join(absent)}")
        format, ending = FILES[name]
        path = export(self.net, self.step, self.folder / f"net{ending}", format=format, batch=self.rows)  # type: ignore[arg-type]
        runner = load(path, threads=self.threads)
        state = sum(t.numel() * t.element_size() for t in (p.zeros(self.rows) for p in runner.metadata.states))
        return self._stream(name, runner.forward_step, state)

    @property
    def rows(self) -> int:
        """Streams in a step."""
        return int(self._parts[0].shape[0])

    # ---- without streaming ----------------------------------------------------------------------------------------------

    def _window(self) -> Form:
        if self.net.unbounded_memory:
            raise Missing("a recurrent network has no window: its outputs depend on all steps before")
        return self._clip_of("window", self.window, float(self.net.timing.stride))

    def _clip(self) -> Form:
        if self.net.timing.ended(self.clip_length) < 1:
            raise Missing(f"the network gives nothing for a clip of {self.clip_length} steps")
        return self._clip_of("clip", self.clip_length, self.clip_length)

    def _clip_of(self, name: str, length: int, steps: float) -> Form:
        size = length * sum(t.numel() * t.element_size() for t in self._parts)
        if size > LARGEST:
            raise Missing(f"{length} steps take {size / 1e9:.1f} GB")
        clip = self._frames.chunk([self._parts] * length, self._parts)
        args = tuple(clip) if isinstance(clip, list) else (clip,)
        form = Form(name, lambda: self.net(*args), steps)
        form.call()
        form.peak = _peak(form.call)
        return form


class FileForms:
    """The one form of an opened file.

    Args:
        runner: the file.
        step: a step of it.
    """

    def __init__(self, runner: Runner, step: Any):
        self._runner, self._step = runner, step
        parts = [step] if isinstance(step, Tensor) else list(step)
        self.rows, self.device = int(parts[0].shape[0]), torch.device("cpu")
        self.window, self.clip_length = runner.receptive_field, 0

    def default(self) -> list[FormName]:
        """The file."""
        return ["file"]

    def make(self, name: FormName) -> Form:
        """The file, which has run until it gives outputs.

        Raises:
            Missing: another form.
        """
        if name != "file":
            raise Missing("a file runs in its own runtime alone")
        runner: Any = self._runner.new_stream()
        for _ in range(runner.delay + 2 * runner.chunk):
            runner.forward_step(self._step)
        state = sum(t.numel() * t.element_size() for t in (p.zeros(self.rows) for p in runner.metadata.states))
        return Form(f"file ({runner.metadata.format})", lambda: runner.forward_step(self._step), 1, runner.chunk, state)


def _found(package: str) -> bool:
    return find_spec(package) is not None


def _bytes(net: CoModule) -> int | None:
    state = net.get_state()
    return None if state is None else state.nbytes


def _peak(call: Callable[[], Any]) -> int:
    with Meter() as meter:
        call()
    return meter.peak


def noise(step: Any) -> Any:
    """A step like another one, of noise where it has real numbers."""
    if isinstance(step, Tensor):
        return torch.randn_like(step) if step.is_floating_point() else step.clone()
    return [noise(part) for part in step]


def folder() -> tempfile.TemporaryDirectory[str]:
    """Where files are written."""
    return tempfile.TemporaryDirectory(prefix="continual-bench-")
