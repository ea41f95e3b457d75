"""`continual models`: lists and describes the networks of the zoo, and measures their speed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from rich.text import Text
from torch import nn

import continual as co

from ..models import Model, ModelCard
from ..tools.summary import Summary
from .errors import one_line
from .tables import pairs, show
from .target import BadInput

models = typer.Typer(
    rich_markup_mode="markdown",
    help="The model zoo: list its networks, describe one, measure one. Without a command: the list.",
)
Name = Annotated[
    str, typer.Argument(metavar="NAME", show_default=False, help="The name of a network in `continual models list`.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")]
Classes = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Of the zoo: number of logits. Default: the published number.")
]
InputSize = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Of the zoo: height and width of a frame, joints, or features. Default: the published size."
    ),
]


def card_of(name: str) -> ModelCard:
    """What the zoo says of a network.

    Raises:
        BadInput: there is no such network.
    """
    try:
        return co.models.describe(name)
    except ValueError as error:
        raise BadInput(str(error)) from error


def built(name: str, classes: int | None, input_size: int | None, pretrained: str | None = None) -> Model:
    """A network of the zoo; random weights are the same every time.

    Raises:
        BadInput: there is no such network, or it can't have this size.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return co.models.create(name, classes=classes, input_size=input_size, pretrained=pretrained)
        except ValueError as error:
            raise BadInput(str(error)) from error


def alive(net: Any) -> Any:
    """Give batch norms random weights and statistics: with initial ones blocks are zero, and outputs of deep networks vanish."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.weight.uniform_(0.5, 1.5)
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.1, 0.3)  # type: ignore[union-attr]
    return net


def say_random(command: str) -> None:
    """Report that weights are random."""
    typer.echo(f"continual {command}: no --weights FILE: the weights are random, and the predictions mean nothing", err=True)


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Set the number of threads within a block."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before if number is None else number)
        yield
    finally:
        torch.set_num_threads(before)


def as_text(shape: tuple[int, ...]) -> str:
    """A shape as ``3 × 160 × 160``."""
    return " × ".join(map(str, shape))


@models.callback(invoke_without_command=True)
def _callback(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_models()


@models.command("list")
def list_models(json: AsJson = False) -> None:
    """List the networks: description, shape of a step at the published input size, and classes."""
    with one_line("models list"):
        cards = [co.models.describe(name) for name in co.models.list()]
        if json:
            return typer.echo(dumped([_known(card, card.input_size, card.classes) for card in cards]))
        table = Table("name", "what it is", "a step", "classes", "of")
        table.columns[0].no_wrap = table.columns[2].no_wrap = True
        table.columns[3].justify = "right"
        for card in cards:
            cells = (card.name, card.title, as_text(card.step(card.input_size)), str(card.classes), card.dataset)
            table.add_row(*(Text(c) for c in cells))
        show(table)


@models.command()
def describe(
    name: Name,
    input_size: InputSize = None,
    classes: Classes = None,
    layers: Annotated[bool, typer.Option("--layers", help="What every layer costs, too.")] = False,
    json: AsJson = False,
) -> None:
    """Describe a network: its source, its inputs, and the cost of a step.

    Example: `continual models describe cox3d_s --input-size 112 --classes 10`
    """
    with one_line("models describe"):
        card = card_of(name)
        net = built(name, classes, input_size)
        found = co.summary(net, torch.zeros(1, *net.step_shape), rate=card.rate)
        known = _known(card, input_size or card.input_size, classes or card.classes) | _cost(found)
        if json:
            return typer.echo(dumped(known | ({"layers": [_layer(r) for r in found.rows]} if layers else {})))
        show(pairs(card.title, _lines(card, known)))
        if layers:
            typer.echo(f"\n{found}")


def _known(card: ModelCard, size: int, classes: int) -> dict[str, Any]:
    """The card as data for JSON."""
    video = {"every": card.every, "mean": card.mean, "std": card.std} if card.of_video else {}
    return {
        "name": card.name,
        "title": card.title,
        "paper": card.paper,
        "takes": card.takes,
        "input_size": size,
        "input_size_counts": card.size,
        "step": list(card.step(size)),
        "classes": classes,
        "dataset": card.dataset,
        "accuracy": card.accuracy,
        "rate": card.rate,
        "weights": list(card.formats),
        "of_video": card.of_video,
        **video,
    }


def _cost(found: Summary) -> dict[str, Any]:
    """The cost of a step; sizes of state for one stream."""
    whole = found.rows[0]
    return {
        "params": whole.params,
        "receptive_field": whole.receptive_field,
        "delay": whole.delay,
        "delay_ms": None if found.rate is None else 1000 * whole.delay / found.rate,
        "stride": _number(whole.stride),
        "macs_per_step": _number(whole.macs_step),
        "state_bytes": whole.state_bytes,
    }


def summary_data(found: Summary) -> dict[str, Any]:
    """A summary as JSON holds it: the whole, and every layer."""
    return _cost(found) | {"rate": found.rate, "layers": [_layer(r) for r in found.rows]}


def _layer(row: Any) -> dict[str, Any]:
    return {
        "path": row.path,
        "type": row.type,
        "params": row.params,
        "macs_per_step": _number(row.macs_step),
        "receptive_field": row.receptive_field,
        "delay": row.delay,
        "stride": _number(row.stride),
        "state_bytes": row.state_bytes,
    }


def _number(value: Any) -> int | float:
    """An integer as an integer, any other number as a decimal."""
    return int(value) if value == int(value) else float(value)


def _lines(card: ModelCard, known: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The output of `describe`."""
    yield "name", card.name
    yield "paper", card.paper
    yield "a step", f"{card.takes}: {as_text(tuple(known['step']))}"
    yield "input size", f"{known['input_size']} ({card.size}; published: {card.input_size})"
    yield "classes", f"{known['classes']} (published: {card.classes}, of {card.dataset})"
    yield "accuracy", card.accuracy or "none was published for it as it is here"
    if card.rate is not None:
        of = f": one of {card.every} frames of a video of 30 per second" if card.of_video else ""
        yield "rate", f"{card.rate:g} steps per second{of}"
    if card.of_video:
        yield "pixels", f"between 0 and 1, less {card.mean:g}, divided by {card.std:g}"
    yield "weights", ", ".join(card.formats)
    yield "parameters", f"{known['params']:,}"
    yield "receptive field", f"{known['receptive_field']} steps"
    late = "" if known["delay_ms"] is None else f" = {known['delay_ms']:,.0f} ms"
    yield "delay", f"{known['delay']} steps{late}"
    yield "stride", f"{known['stride']}"
    yield "multiply-adds", f"{known['macs_per_step']:,.0f} a step"
    yield "state", f"{known['state_bytes']:,} bytes a stream"


def dumped(data: Any) -> str:
    """Indented JSON."""
    return json.dumps(data, indent=2, ensure_ascii=False)
