"""Modules that loop over the frames of a clip, as people write them. No tests are in this file."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvLSTMCell(nn.Module):
    """A convolution for the four gates."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.hidden_size, self.conv = hidden, nn.Conv2d(inputs + hidden, 4 * hidden, 3, padding=1)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        i, f, o, g = torch.split(self.conv(torch.cat([x, h], 1)), self.hidden_size, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class ConvLSTM(nn.Module):
    """Layer after layer, each over all frames: ``(B, T, C, H, W)``."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([ConvLSTMCell(2, 3), ConvLSTMCell(3, 4)])

    def forward(self, x: Tensor) -> Tensor:
        b, t, _, h, w = x.shape
        for cell in self.cells:
            state = torch.zeros(b, cell.hidden_size, h, w), torch.zeros(b, cell.hidden_size, h, w)
            outs = []
            for i in range(t):
                state = cell(x[:, i], state)
                outs.append(state[0])
            x = torch.stack(outs, dim=1)
        return x


class ConvGRU(nn.Module):
    """One convolution for two gates and another one for the candidate; the convolution behind the loop is for all frames."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.candidate = nn.Conv2d(2 + 3, 6, 3, padding=1), nn.Conv2d(2 + 3, 3, 3, padding=1)
        self.head = nn.Conv3d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T, H, W)
        h, outs = None, []
        for frame in torch.unbind(x, 2):
            if h is None:
                h = frame.new_zeros(frame.shape[0], 3, *frame.shape[2:])
            update, reset = torch.sigmoid(self.gates(torch.cat((frame, h), 1))).chunk(2, 1)
            new = torch.tanh(self.candidate(torch.cat((frame, reset * h), 1)))
            h = (1 - update) * h + update * new
            outs.append(h)
        return self.head(torch.stack(outs, 2))


class LSTMCells(nn.Module):
    """Two cells one above the other, and a linear layer for each frame: ``(B, T, C)``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.LSTMCell(3, 5), nn.LSTMCell(5, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h1, c1 = x.new_zeros(x.size(0), 5), x.new_zeros(x.size(0), 5)
        h2, c2 = x.new_zeros(x.size(0), 4), x.new_zeros(x.size(0), 4)
        outs = []
        for frame in x.split(1, dim=1):
            h1, c1 = self.first(frame.squeeze(1), (h1, c1))
            h2, c2 = self.second(h1, (h2, c2))
            outs.append(self.head(h2))
        return torch.stack(outs, 1)


class GRUCells(nn.Module):
    """A cell that gets no state at first: ``(B, C, T)``."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        h, outs = None, []
        for i in range(x.shape[-1]):
            h = self.cell(x[..., i], h)
            outs.append(h)
        return self.head(torch.stack(outs, 1)).transpose(1, 2)


class GRUByHand(nn.Module):
    """The recurrent products are on the state alone, and time is the first dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.h, self.start = nn.Linear(3, 12), nn.Linear(4, 12), nn.Parameter(torch.randn(1, 4))

    def forward(self, x: Tensor) -> Tensor:  # (T, B, C)
        h, outs = self.start.expand(x.size(1), -1), torch.empty(x.size(0), x.size(1), 4)
        for i in range(x.size(0)):
            rx, zx, nx = self.x(x[i]).chunk(3, -1)
            rh, zh, nh = self.h(h).chunk(3, -1)
            r, z = torch.sigmoid(rx + rh), torch.sigmoid(zx + zh)
            h = (1 - z) * torch.tanh(nx + r * nh) + z * h
            outs[i] = h
        return outs


class Smoothing(nn.Module):
    """An exponential mean that begins with the first frame."""

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C)
        y = x[:, 0]
        outs = [y]
        for i in range(1, x.shape[1]):
            y = 0.9 * y + 0.1 * x[:, i]
            outs.append(y)
        return torch.stack(outs, 1)


class Neurons(nn.Module):
    """Leaky integrate-and-fire neurons that are reset by subtraction."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.beta = nn.Linear(3, 4), nn.Parameter(torch.tensor(0.8))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C)
        mem, spikes = torch.zeros(x.shape[0], 4), []
        for i in range(x.shape[1]):
            mem = self.beta * mem + self.fc(x[:, i])
            spike = (mem > 0.5).float()
            mem = mem - spike * 0.5
            spikes.append(spike * 2 + mem)
        return torch.stack(spikes, 1)


class Biquad(nn.Module):
    """A filter with two delays, whose first samples are special."""

    def __init__(self) -> None:
        super().__init__()
        self.b, self.a = nn.Parameter(torch.tensor([0.3, 0.2, 0.1])), nn.Parameter(torch.tensor([-0.5, 0.25]))

    def forward(self, x: Tensor) -> Tensor:  # (B, T)
        y = torch.zeros_like(x)
        for n in range(x.shape[1]):
            v = self.b[0] * x[:, n]
            if n > 0:
                v = v + self.b[1] * x[:, n - 1] - self.a[0] * y[:, n - 1]
            if n > 1:
                v = v + self.b[2] * x[:, n - 2] - self.a[1] * y[:, n - 2]
            y[:, n] = v
        return y


class FromRest(nn.Module):
    """A filter whose four delayed samples begin as one tensor of zeros: ``(B, C, T)``."""

    def forward(self, x: Tensor) -> Tensor:
        x1 = x2 = y1 = y2 = torch.zeros_like(x[..., 0])
        found = []
        for n in range(x.shape[-1]):
            v = 0.2 * x[..., n] + 0.3 * x1 - 0.1 * x2 - 0.5 * y1 + y2 / 5
            x1, x2, y1, y2 = x[..., n], x1, v, y1
            found.append(v)
        return torch.stack(found, -1)


class Offset(nn.Module):
    """A filter whose delayed samples begin as products and sums of zeros and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gain", torch.tensor([0.4, -0.3, 0.2]))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C)
        zeros = torch.zeros_like(x[:, 0])
        u, v, found = 2 * zeros * self.gain, zeros + self.gain, []
        for i in range(x.shape[1]):
            u, v = x[:, i] + 0.5 * v, u - 0.2 * v
            found.append(v * u)
        return torch.stack(found, 1)


class PCEN(nn.Module):
    """Per-channel energy normalisation: ``(B, F, T)``."""

    def forward(self, x: Tensor) -> Tensor:
        mean = [x[:, :, 0:1]]
        for i in range(1, x.shape[2]):
            mean.append(0.96 * mean[-1] + 0.04 * x[:, :, i : i + 1])
        smooth = torch.cat(mean, 2)
        return (x.abs() / (1e-6 + smooth.abs()) ** 0.8 + 2) ** 0.5 - 2**0.5


class Converting(nn.Module):
    """Legendre memory: buffers are converted to the dtype of the input in each iteration."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = nn.Linear(3, 1)
        self.register_buffer("a", torch.randn(6, 6) / 4)
        self.register_buffer("b", torch.randn(6, 1))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, 3)
        memory, outs = torch.zeros(x.shape[0], 6, dtype=x.dtype), []
        for t in range(x.shape[1]):
            memory = memory @ self.a.to(x) + self.inputs(x[:, t]) @ self.b.type_as(x).T
            outs.append(memory)
        return torch.stack(outs, 1)


class TwoMemories(nn.Module):
    """A second memory goes through all layers, and on to the next frame."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.ModuleList([nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1)])
        self.h = nn.ModuleList([nn.Conv2d(3, 6, 3, padding=1) for _ in range(2)])
        self.m = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1) for _ in range(2)])
        self.out = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C, H, W)
        b, t, _, height, width = x.shape
        h = [x.new_zeros(b, 3, height, width) for _ in range(2)]
        c = [x.new_zeros(b, 3, height, width) for _ in range(2)]
        m, outs = x.new_zeros(b, 3, height, width), []
        for i in range(t):
            given = x[:, i]
            for k in range(2):
                u, v = (self.x[k](given) + self.h[k](h[k])).chunk(2, 1)
                c[k] = torch.sigmoid(u) * c[k] + torch.tanh(v)
                m = torch.tanh(self.m[k](m) + u)
                given = h[k] = torch.tanh(c[k] + m)
            outs.append(self.out(given))
        return torch.stack(outs, 1)


class Residuals(nn.Module):
    """A loop over the results of another one, which takes the frames of the clip, too; and the difference to the frame before."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.GRUCell(3, 3), nn.GRUCell(6, 3)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C)
        h, outs = x.new_zeros(x.shape[0], 3), []
        for i in range(x.shape[1]):
            h = self.first(x[:, i] - (x[:, i - 1] if i else 0.0), h)
            outs.append(h)
        y = torch.stack(outs, 1) * 0.5 + x
        g, found = y.new_zeros(x.shape[0], 3), []
        for i in range(y.shape[1]):
            g = self.second(torch.cat((y[:, i], x[:, i]), -1), g)
            found.append(g + x[:, i])
        return torch.stack(found, 1)


class EachFrame(nn.Module):
    """A network for images on each frame, and a recurrent layer behind."""

    def __init__(self) -> None:
        super().__init__()
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.cnn = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), pool)
        self.rnn = nn.GRU(4, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C, H, W)
        features = [self.cnn(x[:, i]) for i in range(x.shape[1])]
        return self.rnn(torch.stack(features, 1))[0]


class Score(nn.Module):
    """A network for images on each frame, a cell, and scores of the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
        self.cell, self.head = nn.LSTMCell(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C, H, W)
        h, c = x.new_zeros(x.shape[0], 5), x.new_zeros(x.shape[0], 5)
        for i in range(x.shape[1]):
            h, c = self.cell(self.cnn(x[:, i]).mean((2, 3)), (h, c))
        return self.head(h)
