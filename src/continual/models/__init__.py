"""The model zoo: published streaming networks, with the names of their published weights.

>>> net = co.models.create("cox3d_s", input_size=32)
>>> net.receptive_field, net.delay, net.step_shape
(69, 40, (3, 32, 32))

Each family is one small file, built from the modules and containers of the library: an example of their use.
"""

from __future__ import annotations

import builtins
from os import PathLike

from . import encoders, movinet, resnet3d, skeleton, speech, x3d
from .checkpoints import load_weights
from .zoo import Model, ModelCard, add, build, card_of, names

for _family in (x3d, resnet3d, skeleton, encoders, movinet, speech):
    add(*_family.CARDS)

__all__ = ["ModelCard", "Model", "create", "describe", "list", "load_weights"]


def __dir__() -> builtins.list[str]:
    return __all__


def list() -> builtins.list[str]:
    """The names of the networks, for :func:`create`.

    Example:
        >>> "cox3d_m" in co.models.list()
        True
    """
    return names()


def describe(name: str) -> ModelCard:
    """The card of a network: its paper, the shape of a step, the published accuracy.

    Raises:
        ValueError: there is no network of this name.

    Example:
        >>> co.models.describe("cox3d_m").step(224)
        (3, 224, 224)
    """
    return card_of(name)


def create(
    name: str,
    *,
    classes: int | None = None,
    input_size: int | None = None,
    pretrained: str | PathLike[str] | None = None,
    softmax: bool = False,
) -> Model:
    """Build a network, in eval mode.

    Args:
        name: one of :func:`list`.
        classes: number of logits; the published number by default.
        input_size: of a step: height and width of a frame, joints of a skeleton, or features. The pooling of the head follows it.
        pretrained: a file with published weights: one of the formats of :mod:`continual.models.checkpoints`. Without it weights
            are random.
        softmax: give probabilities instead of logits.

    Returns:
        The network, a :class:`~continual.Sequential` from steps ``(B, *net.step_shape)`` to ``(B, classes)``.

    Raises:
        ValueError: there is no network of this name, or it can't have this size.
        CheckpointMismatch: the weights are of another network; the message lists missing and extra weights and those of another shape.

    Example:
        >>> net = co.models.create("cox3d_xs", classes=5, input_size=64)
        >>> with torch.no_grad():
        ...     logits = [net.forward_step(torch.randn(1, 3, 64, 64)) for _ in range(net.delay + 1)]
        >>> logits[-2], logits[-1].shape
        (None, torch.Size([1, 5]))
    """
    net = build(name, classes, input_size, softmax)
    if pretrained is not None:
        load_weights(net, pretrained)
    return net
