"""The network of a command: a name of the zoo, code of the user's, or an exported file. All commands take the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import continual as co

from ..export.api import format_of
from ..export.runner import Runner
from ..models import ModelCard
from ..models.checkpoints import load_plain
from .clips import clips_of, random
from .errors import line_of
from .target import BadInput, check_file, load
from .zoo import alive, built, say_random

QUIET = ("explain", "summary", "verify", "bench")  # what they say does not depend on the weights
FIELDS = 2  # receptive fields in the clip on which a network of the zoo or a file is verified


@dataclass(frozen=True)
class Options:
    """The network and its example, as given on the command line.

    Attributes:
        target: a name of the zoo, ``module:factory``, ``file.py:factory``, or an exported file.
        clips, arguments, dtypes, high, time_dim, time_pooling: for networks of the user's.
        seed: of the example's values.
        weights: a file.
        classes, input_size: for the zoo.
    """

    target: str
    clips: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    high: int | None = None
    seed: int = 0
    time_dim: int | None = None
    time_pooling: str | None = None
    weights: Path | None = None
    classes: int | None = None
    input_size: int | None = None

    @property
    def conversion(self) -> dict[str, Any]:
        """The options of ``co.continual``."""
        named = {"time_dim": self.time_dim, "time_pooling": self.time_pooling}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def kind(self) -> Literal["file", "code", "zoo"]:
        """What the target names."""
        if ":" in self.target:
            return "code"
        path = Path(self.target)
        return "file" if path.suffix and format_of(path) is not None else "zoo"

    def refuse_foreign(self) -> None:
        """Refuse options that are for other networks than the one that is named.

        Raises:
            BadInput: there are such options.
        """
        code: dict[str, Any] = {"--clip": self.clips, "--arg": self.arguments, "--dtype": self.dtypes, "--high": self.high}
        code |= {"--time-dim": self.time_dim, "--time-pooling": self.time_pooling}
        zoo: dict[str, Any] = {"--classes": self.classes, "--input-size": self.input_size}
        wrong: dict[str, Any] = {"code": zoo, "zoo": code, "file": code | zoo | {"--weights": self.weights}}[self.kind]
        names = [name for name, value in wrong.items() if value not in (None, [])]
        if names:
            said = f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} for"
            if self.kind == "file":
                raise BadInput(
                    f"{said} networks, and '{self.target}' is an exported file, with an example and weights of its own"
                )
            whose = "networks of the zoo" if self.kind == "code" else "networks of your own (package.module:factory)"
            raise BadInput(f"{said} {whose}, and '{self.target}' is none")


@dataclass(frozen=True)
class Subject:
    """A network in eval mode, and its example.

    Attributes:
        net: a module, or the :class:`~continual.Runner` of an exported file.
        clips: an example of each input.
        card: what the zoo says of it.
    """

    net: Any
    clips: list[Tensor]
    card: ModelCard | None = None

    @property
    def clip(self) -> Any:
        """The clip, or the tuple of clips."""
        return self.clips[0] if len(self.clips) == 1 else tuple(self.clips)

    @property
    def runner(self) -> Runner | None:
        """The opened file, if the network is one."""
        return self.net if isinstance(self.net, Runner) else None

    @property
    def rate(self) -> float | None:
        """Steps per second, where the file or the zoo says it."""
        return self.net.rate if self.runner is not None else None if self.card is None else self.card.rate


def subject(options: Options, command: str) -> Subject:
    """The network in eval mode and its clips; code of the user's after a test run.

    Args:
        options: what was given.
        command: the name of the command, for messages.

    Raises:
        BadInput: there is no such network, it can't be made, or an option does not fit it.
    """
    options.refuse_foreign()
    if options.weights is not None:
        check_file(options.weights)
    return {"code": _of_code, "zoo": _of_zoo, "file": _of_file}[options.kind](options, command)


def _of_code(options: Options, command: str) -> Subject:
    if not options.clips:
        example = "--clip with its sizes, such as 1,3,16,112,112 (batch, channels, time, space)"
        raise BadInput(f"{options.target} needs an example: {example}")
    net = load(options.target, options.arguments)
    net.eval()  # a factory gives networks in training mode, and a stream runs what clips give in eval mode
    if options.weights is not None:
        load_plain(net, options.weights)
    made = Subject(net, clips_of(net, options.clips, options.dtypes, options.high, options.seed))
    if not isinstance(net, co.CoModule):  # otherwise the conversion would report that it can't follow the network
        try:
            with torch.no_grad():
                net(*made.clips)
        except Exception as error:
            shapes = ", ".join(str(tuple(c.shape)) for c in made.clips)
            raise BadInput(f"{options.target} can't run on the clip {shapes}: {line_of(error)}") from error
    return made


def _of_zoo(options: Options, command: str) -> Subject:
    net = built(options.target, options.classes, options.input_size, None if options.weights is None else str(options.weights))
    if options.weights is None:
        alive(net)  # otherwise outputs of deep networks vanish, and a check proves nothing
        if command not in QUIET:
            say_random(command)
    length = FIELDS * net.receptive_field if command == "verify" else 1  # elsewhere its step is enough
    generator = torch.Generator().manual_seed(options.seed)
    clip = random((1, net.step_shape[0], length, *net.step_shape[1:]), torch.float32, 2, generator)
    return Subject(net, [clip], net.card)


def _of_file(options: Options, command: str) -> Subject:
    check_file(Path(options.target))
    runner: Any = co.load(options.target)
    generator = torch.Generator().manual_seed(options.seed)
    length = FIELDS * runner.receptive_field
    clips = []
    for port in runner.metadata.inputs:
        shape = list(port.sized(runner.batch or 1))
        if port.time is not None:
            shape[port.time] = -(-length // runner.chunk) * runner.chunk
        clips.append(random(shape, getattr(torch, port.dtype), 2, generator))
    return Subject(runner, clips)


def streaming(made: Subject, options: Options) -> Any:
    """The network itself, or the converted network."""
    if made.runner is not None or isinstance(made.net, co.CoModule):
        if options.conversion:
            raise BadInput(f"{options.target} is streaming already: it takes no {', '.join(options.conversion)}")
        return made.net
    convert: Callable[..., Any] = co.continual
    return convert(made.net, made.clip, **options.conversion)


def check_rate(rate: float | None) -> None:
    """Refuse what is not a number of steps per second."""
    if rate is not None and not 0 < rate < float("inf"):
        raise BadInput(f"--rate {rate}: give steps per second, above 0")


def step_of(net: Any, clips: list[Tensor]) -> tuple[Any, int]:
    """The first step of clips (a list for several) and their length."""
    dims = getattr(net, "time_dims", None) or (getattr(net, "time_dim", 2),) * len(clips)
    if len(dims) != len(clips):
        raise BadInput(f"the network takes {len(dims)} inputs: give --clip as often, not {len(clips)} times")
    if short := [(tuple(c.shape), dim) for c, dim in zip(clips, dims, strict=True) if dim is not None and c.ndim <= dim]:
        raise BadInput(f"--clip {short[0][0]}: there is no dim {short[0][1]}, which is time; give (batch, channels, time, space)")
    steps = [c if dim is None else c.select(dim, 0) for c, dim in zip(clips, dims, strict=True)]
    length = next(c.shape[dim] for c, dim in zip(clips, dims, strict=True) if dim is not None)
    return steps[0] if len(steps) == 1 else steps, length


def on_device(net: Any, device: str) -> Any:
    """The network on another device.

    Raises:
        BadInput: there is no such device, or the network is an exported file.
    """
    if isinstance(net, Runner):
        if device != "cpu":
            raise BadInput(f"--device {device}: an exported file runs where its runtime does")
        return net
    try:
        return net.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        first = str(error).strip().splitlines()[0]
        raise BadInput(f"--device {device}: can't be used ({first})") from error


def refuse_files(options: Options, why: str) -> None:
    """Refuse an exported file where a command needs the network itself.

    Raises:
        BadInput: the target is one.
    """
    if options.kind == "file":
        raise BadInput(f"'{options.target}' is an exported file, and {why}. Give the network that it was exported from")
