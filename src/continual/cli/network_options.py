"""The options that name the network of a command. One decorator adds them to a command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from .network import Options
from .zoo import Classes, InputSize

Target = Annotated[
    str,
    typer.Argument(
        metavar="NET",
        show_default=False,
        help="The network: a name of `continual models list`; your own as package.module:factory or path/to/file.py:factory, where "
        "factory is an nn.Module, or a function or class that gives one (the current folder is searched first), with --clip; or an "
        "exported file (.onnx, .pt2, .pte, .xml).",
    ),
]
Clips = Annotated[
    list[str] | None,
    typer.Option(
        "--clip",
        metavar="SIZES",
        show_default=False,
        help="Sizes of a random example clip of your own network, such as 1,3,16,112,112 (batch, channels, time, space). Repeat for "
        "each further input.",
    ),
]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--arg", metavar="NAME=VALUE", help="An argument for the factory, as a Python value. May be repeated."),
]
Dtypes = Annotated[
    list[str] | None,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="Dtype of the clip: float32, float64, int64 … (once for all, or for each clip). The network is converted to a floating-point "
        "type. Default: that of the network.",
    ),
]
High = Annotated[
    int | None,
    typer.Option(metavar="N", help="Integers are drawn from 0 to below N. Default: the size of the smallest embedding, or 2."),
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the example's values.")]
TimeDim = Annotated[int | None, typer.Option(metavar="N", min=0, help="The dim of time in the clips. Default: 2.")]
Pooling = Annotated[
    str | None,
    typer.Option(
        metavar="window|frame",
        help="Replaces a mean over the whole clip inside the network: a window with the length of the example, or each frame alone.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        "--pretrained",
        metavar="FILE",
        help="Weights: a state_dict (.pt, .pth, .safetensors), or published ones for the zoo. Only tensors are read, never code. "
        "By default those that the factory gives; random ones for the zoo.",
    ),
]
_OPTIONS = {
    "target": Target,
    "clip": Clips,
    "arg": Arguments,
    "dtype": Dtypes,
    "high": High,
    "seed": Seed,
    "time_dim": TimeDim,
    "time_pooling": Pooling,
    "weights": Weights,
    "classes": Classes,
    "input_size": InputSize,
}
_FIELDS = {"clip": "clips", "arg": "arguments", "dtype": "dtypes"}  # of Options, where they have other names


def takes_network(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take a network: its first parameter, ``network``, becomes the argument ``NET`` and the options that go with it.

    Args:
        command: a function of :class:`~continual.cli.network.Options` and of options of its own.

    Returns:
        What typer registers: the same function with the options one by one.
    """
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    keyword, needed = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    defaults = {"target": needed, "seed": 0}
    shared = [inspect.Parameter(n, keyword, default=defaults.get(n), annotation=kind) for n, kind in _OPTIONS.items()]
    ordered = sorted([*shared, *(p.replace(kind=keyword) for p in own)], key=lambda p: p.default is not needed)

    @functools.wraps(command)
    def called(**arguments: Any) -> None:
        network = {_FIELDS.get(name, name): value for name in _OPTIONS if (value := arguments.pop(name)) is not None}
        command(Options(**network), **arguments)

    called.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in ordered}
    del called.__wrapped__  # typer would look at its hints
    return called
