"""Modules whose loops over frames are special in one way each. No tests are in this file."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Padded(nn.Module):
    """A filter that reads padded frames and writes into others, of which the first are left out."""

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T)
        x, y = nn.functional.pad(x, (2, 0)), torch.zeros(x.shape[0], 3, x.shape[2] + 2)
        for i in range(2, x.shape[2]):
            y[:, :, i] = x[:, :, i] + 0.5 * y[:, :, i - 1] - 0.2 * y[:, :, i - 2]
        return y[:, :, 2:]


class Nodes(nn.Module):
    """A cell for each node of a graph: nodes are merged with the batch inside the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.adjacency, self.cell = nn.Parameter(torch.rand(5, 5) / 3), nn.GRUCell(3, 4)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, N, F)
        b, t, n, f = x.shape
        h, outs = x.new_zeros(b * n, 4), []
        for i in range(t):
            z = torch.einsum("nm,bmf->bnf", self.adjacency, x[:, i]).reshape(b * n, f)
            h = self.cell(z, h)
            outs.append(h.view(b, n, 4))
        return torch.stack(outs, 1)


class ComplexStates(nn.Module):
    """A diagonal recurrence of complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.decay, self.angle = nn.Parameter(torch.rand(6)), nn.Parameter(torch.rand(6))
        self.b, self.c = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(2, 6))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C)
        rate = torch.exp(torch.complex(-torch.exp(self.decay), self.angle))
        u, h, outs = x @ self.b.T, torch.zeros(x.shape[0], 6, dtype=torch.cfloat), []
        for i in range(x.shape[1]):
            h = rate * h + u[:, i]
            outs.append(h.real @ self.c.T)
        return torch.stack(outs, 1)


class FirstFrame(nn.Module):
    """The first frame goes through a layer of its own; the same cell follows."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.cell = nn.Linear(3, 3), nn.LSTMCell(3, 4)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C)
        zeros = x.new_zeros(x.shape[0], 4)
        state = self.cell(self.enter(x[:, 0]), (zeros, zeros))
        outs = [state[0]]
        for i in range(1, x.shape[1]):
            state = self.cell(x[:, i], state)
            outs.append(state[0])
        return torch.stack(outs, 1)


class KeptRows(nn.Module):
    """Keeps the number of rows, and takes a batch of another size for a new one; a constant of the code in each iteration."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.rows = nn.GRUCell(3, 4), 2
        self.register_buffer("first", torch.tensor([[0.1, -0.2, 0.3, 0.4]]))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C)
        if self.rows != x.shape[0]:
            self.rows = x.shape[0]
        h, outs = self.first.broadcast_to(self.rows, 4), []
        for i in range(x.shape[1]):
            h = self.cell(x[:, i], h) * torch.tensor([0.5, 1.0, -0.5, 0.8])
            outs.append(h)
        return torch.stack(outs, 1)


class RowsAsNumber(nn.Module):
    """The number of rows is a number for torch.export."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 4)

    def forward(self, x: Tensor) -> Tensor:  # (T, B, C)
        rows = int(x.shape[1])
        h, c, outs = x.new_zeros(rows, 4), x.new_zeros(rows, 4), []
        for frame in x:
            h, c = self.cell(frame, (h, c))
            outs.append(h.view(rows, 2, 2).flip(1).reshape(rows, 4))
        return torch.stack(outs)


class InPlace(nn.Module):
    """A filter that changes its frames in place, and reads several of its last results at once, the one to come among them."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([0.2, -0.3, 1.0]))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T)
        x, y = x * 1.5, x.new_zeros(*x.shape[:2], x.shape[2] + 2)
        for i, frame in enumerate(x.permute(2, 0, 1)):
            frame -= y[:, :, i : i + 3] @ self.a
            y[:, :, i + 2] = frame
        return y[:, :, 2:]


class Kalman(nn.Module):
    """A Kalman filter: no frame goes into its covariance, which every iteration has its own of."""

    def __init__(self) -> None:
        super().__init__()
        self.move, self.see = nn.Parameter(0.9 * torch.eye(2)), nn.Parameter(torch.tensor([[1.0, -0.5], [0.3, 0.8], [0.2, 0.4]]))
        self.noise = nn.Parameter(torch.tensor([0.3, 0.5]))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C)
        state, outs = x.new_zeros(x.shape[0], 2, 1), []
        covariance, noise = torch.eye(2, dtype=x.dtype).expand(x.shape[0], 2, 2), torch.diag(self.noise)
        for t in range(x.shape[1]):
            state, covariance = self.move @ state, self.move @ covariance @ self.move.T + noise
            seen = self.see @ covariance
            gain = torch.linalg.solve(seen @ self.see.T + torch.eye(3, dtype=x.dtype), seen).mT
            state = state + gain @ (x[:, t].unsqueeze(-1) - self.see @ state)
            covariance = covariance - gain @ seen
            outs.append(state.squeeze(-1))
        return torch.stack(outs, 1)


class Corrected(nn.Module):
    """Moving means that are divided by what has come of their weight, and a weight that decays."""

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C)
        mean, square, total, outs = x.new_zeros(x.shape[0], 3), x.new_zeros(x.shape[0], 3), x.new_zeros(x.shape[0], 3), []
        for t in range(x.shape[1]):
            mean = 0.9 * mean + 0.1 * x[:, t]
            square = 0.9995 * square + 0.0005 * x[:, t] ** 2
            total = total + 2 * (-0.8) ** t * x[:, t]
            outs.append(mean / (1 - 0.9 ** (t + 1)) / (square / (1 - 0.9995 ** (t + 1)) + 1e-3).sqrt() - total)
        return torch.stack(outs, 1)


class RunningMean(nn.Module):
    """Means of all frames so far, in two ways, and what differs from them; the first frame is special in one of them."""

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T)
        mean, total, other, outs = x.new_zeros(x.shape[0], 3), torch.zeros_like(x[..., 0]), x[..., 0], []
        for i in range(x.shape[-1]):
            mean = mean * (1 - 1 / (i + 1)) + x[..., i] / (i + 1)
            total = total + x[..., i]
            if i:
                other = (other * i + x[..., i]) / (i + 1)
            outs.append(mean * 2 - total / (0.5 * i + 2) + (x[..., i] - other) / (3 * i + 1.5))
        return torch.stack(outs, -1)


class Sorted(nn.Module):
    """An operation of two results: the state takes one, and a map behind the loop the other."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C)
        h, outs = x.new_zeros(x.shape[0], 3), []
        for t in range(x.shape[1]):
            h, places = (0.5 * h + x[:, t]).sort(1)
            outs.append(self.out(places.to(x.dtype)))
        return torch.stack(outs, 1)


class SoFar(nn.Module):
    """Means and extremes of all frames so far, by longer and longer slices, and a state beside their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, 3)
        state, outs = x.new_zeros(x.shape[0], 4), []
        for t in range(x.shape[1]):
            state = torch.tanh(state + self.fc(x[:, : t + 1].sum(1, keepdim=True)).squeeze(1))
            low, high = x[:, : t + 1].amin(1, keepdim=True).squeeze(1), x[:, : t + 1].max(dim=1).values
            outs.append(state + self.fc(x[:, : t + 1].mean(1) * low) - self.fc(high))
        return torch.stack(outs, 1)
