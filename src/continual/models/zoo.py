"""What the zoo knows of each network, and how it is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from torch import nn

from ..containers.sequential import Sequential


@dataclass(frozen=True)
class Card:
    """A network of the zoo: what it takes, what it was trained for, and what its authors published.

    Attributes:
        name: for :func:`continual.models.create`.
        title: what it is, in a line.
        paper: where it is from.
        takes: what a step holds, in words.
        size: what ``input_size`` counts, in words.
        input_size: the published one.
        step: ``input_size`` to the shape ``(C, *S)`` of a step.
        classes: the published number of classes.
        also: other published input sizes, with their numbers of classes.
        dataset: what the classes are of.
        accuracy: the published accuracy, in words; empty if none was published.
        build: builds the layers for ``classes`` and an input size.
        frames: steps of the clips that the clip network is run on.
        rate: steps per second that the network was trained with; ``None`` if that is not said.
        every: for video: of so many frames of a video of 30 frames per second one is a step.
        mean, std: for video: what is subtracted from pixels between 0 and 1, and what they are divided by then.
        formats: the published checkpoints that fit, as :mod:`continual.models.checkpoints` names them.
        clip_network: the network that authors run on clips, where it is another one of the zoo.
    """

    name: str
    title: str
    paper: str
    takes: str
    size: str
    input_size: int
    step: Callable[[int], tuple[int, ...]]
    classes: int
    dataset: str
    accuracy: str
    build: Callable[[int, int], dict[str, nn.Module]]
    frames: int
    rate: float | None = None
    every: int | None = None
    mean: float = 0.0
    std: float = 1.0
    also: tuple[tuple[int, int], ...] = ()
    formats: tuple[str, ...] = ("own names",)
    clip_network: str = ""

    def __reduce__(self) -> tuple[Callable[[str], Card], tuple[str]]:
        return card_of, (self.name,)

    @property
    def of_video(self) -> bool:
        """Whether a step is an image ``(3, H, W)``."""
        return self.every is not None


CARDS: dict[str, Card] = {}


def add(*cards: Card) -> None:
    """Enter networks into the zoo."""
    CARDS.update((card.name, card) for card in cards)


class Model(Sequential):
    """A network of the zoo: a :class:`~continual.Sequential` that knows what it is.

    Attributes:
        card: what the zoo says of it.
        step_shape: of one step, without the batch: ``(C, *S)``.
    """

    def __init__(self, layers: dict[str, nn.Module], card: Card, input_size: int):
        super().__init__(layers)
        self.card = card
        self.step_shape = card.step(input_size)


def names() -> list[str]:
    """The names of all networks."""
    return list(CARDS)


def card_of(name: str) -> Card:
    """What the zoo says of a network.

    Raises:
        ValueError: there is none of this name; the message names the nearest.
    """
    if name in CARDS:
        return CARDS[name]
    near = get_close_matches(name.lower().replace("-", "_"), CARDS, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
    raise ValueError(f"there is no network '{name}' in the zoo: {hint}co.models.list() names all {len(CARDS)}")


def build(name: str, classes: int | None, input_size: int | None, softmax: bool) -> Model:
    """A network with random weights, in eval mode."""
    card = card_of(name)
    size = card.input_size if input_size is None else input_size
    classes = dict(card.also).get(size, card.classes) if classes is None else classes
    for what, number in (("classes", classes), ("input_size", size)):
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(f"{name}: {what} is a whole number from 1 up, got {number!r}")
    layers = card.build(classes, size)
    if softmax:
        layers["softmax"] = nn.Softmax(dim=1)
    return Model(layers, card, size).eval()
