"""A recurrent layer of a user's own, in one file."""

import torch
from torch import nn

import continual as co


class TheirLeaky(nn.Module):
    """The module on clips ``(B, C, T)``, as its owner trained it."""

    def __init__(self, channels: int):
        super().__init__()
        self.a = nn.Parameter(torch.linspace(0.2, 0.9, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, out = torch.zeros_like(x[:, :, 0]), []
        for frame in x.unbind(2):
            h = self.a * h + frame
            out.append(h)
        return torch.stack(out, 2)


class Leaky(co.Recurrence):
    def __init__(self, channels: int):
        super().__init__()
        self.a = nn.Parameter(torch.linspace(0.2, 0.9, channels))

    def initial_state(self, x):
        return {"h": torch.zeros_like(x)}

    def recur(self, x, state):
        h = self.a * state["h"] + x
        return h, {"h": h}

    @staticmethod
    def build_from(module: TheirLeaky) -> "Leaky":
        made = Leaky(len(module.a))
        made.a = module.a
        return made


co.convert.register(TheirLeaky, Leaky)
