"""The cards of the networks, from which the zoo builds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from torch import nn

from ..containers.sequential import Sequential


@dataclass(frozen=True)
class ModelCard:
    """The card of a network: its inputs, its training, and the figures of its authors.

    Attributes:
        name: for :func:`continual.models.create`.
        title: a description in one line.
        paper: its source.
        takes: the content of a step, as text.
        size: the meaning of ``input_size``, as text.
        input_size: the published one.
        step: ``input_size`` to the shape ``(C, *S)`` of a step.
        classes: the published number of classes.
        also: other published input sizes, with their numbers of classes.
        dataset: the source of the classes.
        accuracy: the published accuracy as text; empty if there is none.
        build: builds the layers for ``classes`` and an input size.
        frames: steps of a clip of the clip network.
        rate: steps per second in training; ``None`` if it is not published.
        every: for video: one step per so many frames of a video of 30 frames per second.
        mean, std: for video: pixels between 0 and 1 are normalised by them.
        formats: the published checkpoints that fit, as :mod:`continual.models.checkpoints` names them.
        clip_network: the network of the zoo that the authors run on clips, where it differs.
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

    def __reduce__(self) -> tuple[Callable[[str], ModelCard], tuple[str]]:
        return card_of, (self.name,)

    @property
    def of_video(self) -> bool:
        """Whether a step is an image ``(3, H, W)``."""
        return self.every is not None


CARDS: dict[str, ModelCard] = {}


def add(*cards: ModelCard) -> None:
    """Add networks to the zoo."""
    CARDS.update((card.name, card) for card in cards)


class Model(Sequential):
    """A network of the zoo: a :class:`~continual.Sequential` with its card.

    Attributes:
        card: its card.
        step_shape: the shape of one step without the batch: ``(C, *S)``.
    """

    def __init__(self, layers: dict[str, nn.Module], card: ModelCard, input_size: int):
        super().__init__(layers)
        self.card = card
        self.step_shape = card.step(input_size)


def names() -> list[str]:
    """The names of all networks."""
    return list(CARDS)


def card_of(name: str) -> ModelCard:
    """The card of a network.

    Raises:
        ValueError: there is no network of this name; the message names similar ones.
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
