"""The neighbours of the joints of skeletons, and their adjacency matrices."""

from __future__ import annotations

import torch
from torch import Tensor

# Pairs (joint, the joint next to it towards the centre of the body), joints counted from 0.
_NTU = "1-2 2-21 3-21 4-3 5-21 6-5 7-6 8-7 9-21 10-9 11-10 12-11 13-1 14-13 15-14 16-15 17-1 18-17 19-18 20-19 22-23 23-8 24-25 25-12"
_OPENPOSE = "4-3 3-2 7-6 6-5 13-12 12-11 10-9 9-8 11-5 8-2 5-1 2-1 0-1 15-0 14-0 17-15 16-14"


def _pairs(text: str, first: int) -> list[tuple[int, int]]:
    return [(int(a) - first, int(b) - first) for a, b in (pair.split("-") for pair in text.split())]


SKELETONS: dict[int, list[tuple[int, int]]] = {
    25: _pairs(_NTU, 1),  # in the numbering of NTU RGB+D, from 1
    18: _pairs(_OPENPOSE, 0),
}


def adjacency(joints: int) -> Tensor:
    """The adjacency matrices ``(3, V, V)`` of a skeleton: each joint itself, inward and outward neighbours.

    Frames ``(…, V)`` are multiplied from the left, ``x @ A``. Columns of the last two sum to one unless they are zero.

    Args:
        joints: of the skeleton, 25 (NTU RGB+D) or 18 (OpenPose).

    Example:
        >>> from continual.models.skeleton_graphs import adjacency
        >>> adjacency(25).shape, adjacency(25).sum((1, 2))
        (torch.Size([3, 25, 25]), tensor([25., 24., 20.]))

    Source: Yan et al., Spatial temporal graph convolutional networks (2018), section 3.3.
    """
    inward = torch.zeros(joints, joints)
    for i, j in SKELETONS[joints]:
        inward[j, i] = 1
    return torch.stack((torch.eye(joints), _normalised(inward), _normalised(inward.t())))


def _normalised(links: Tensor) -> Tensor:
    return links / links.sum(0).clamp(min=1)
