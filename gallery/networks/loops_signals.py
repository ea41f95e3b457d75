"""Recurrences over samples: cells, filters, neurons, state-space models; and those of ncps, snntorch and spikingjelly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..network import Network
from ..packages import cls
from ..parts import Fn


class CellLoop(nn.Module):
    """A cell of torch over ``(B, T, C)``: the hidden states, or the last through a head."""

    def __init__(self, kind: str, last: bool = False, learned: bool = False):
        super().__init__()
        self.cell = getattr(nn, f"{kind}Cell")(3, 6)
        self.head, self.last, self.lstm = nn.Linear(6, 4), last, kind == "LSTM"
        self.first = nn.Parameter(torch.randn(6)) if learned else None

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 6) if self.first is None else self.first.expand(x.shape[0], -1)
        c, out = torch.zeros_like(h), []
        for t in range(x.shape[1]):
            if self.lstm:
                h, c = self.cell(x[:, t], (h, c))
            else:
                h = self.cell(x[:, t], h)
            out.append(h)
        return self.head(out[-1] if self.last else torch.stack(out, 1))


class Scanned(nn.Module):
    """A state that a function moves on with each frame of ``(B, T, C)``: ``(module, state, frame) -> (state, output)``."""

    def __init__(self, step: Callable[..., Any], channels: int = 4, dim: int = 1, **parts: Any):
        super().__init__()
        self.inner, self.channels, self.dim = Fn(step, **parts), channels, dim

    def forward(self, x: Tensor) -> Tensor:
        first = x.select(self.dim, 0)
        state = first.new_zeros(first.shape[0], self.channels, *first.shape[2:])
        out = []
        for frame in x.unbind(self.dim):
            state, y = self.inner(state, frame)
            out.append(y)
        return torch.stack(out, self.dim)


class Neurons(nn.Module):
    """Layers of leaky integrate-and-fire neurons, with resets by subtraction (Eshraghian 2023)."""

    def __init__(self, soft: bool = True):
        super().__init__()
        self.one, self.two, self.soft = nn.Linear(4, 8), nn.Linear(8, 3), soft

    def forward(self, x: Tensor) -> Tensor:  # (B, T, 4)
        a, b, out = x.new_zeros(x.shape[0], 8), x.new_zeros(x.shape[0], 3), []
        for t in range(x.shape[1]):
            a = 0.9 * a + self.one(x[:, t])
            spikes = (a > 1.0).to(x.dtype)
            a = a - spikes if self.soft else a * (1 - spikes)
            b = 0.8 * b + self.two(spikes)
            out.append(b)
        return torch.stack(out, 1)


class Biquad(nn.Module):
    """A recursive filter of second order, sample by sample (Oppenheim 1999)."""

    a: Tensor
    b: Tensor

    def __init__(self, flip: bool = False):
        super().__init__()
        self.register_buffer("b", torch.tensor([0.2, 0.3, 0.1]))
        self.register_buffer("a", torch.tensor([1.0, -0.6, 0.2]))
        self.flip = flip

    def run(self, x: Tensor) -> Tensor:
        x1 = x2 = y1 = y2 = torch.zeros_like(x[:, :, 0])
        out = []
        for x0 in x.unbind(2):
            y0 = self.b[0] * x0 + self.b[1] * x1 + self.b[2] * x2 - self.a[1] * y1 - self.a[2] * y2
            x1, x2, y1, y2 = x0, x1, y0, y1
            out.append(y0)
        return torch.stack(out, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.run(x)
        return self.run(y.flip(2)).flip(2) if self.flip else y


class Selective(nn.Module):
    """A selective state-space layer in its sequential form (Gu 2024)."""

    def __init__(self, channels: int = 8, state: int = 4):
        super().__init__()
        self.inner, self.conv = nn.Linear(channels, 2 * channels), nn.Conv1d(channels, channels, 3, padding=2, groups=channels)
        self.params, self.dt = nn.Linear(channels, 1 + 2 * state), nn.Linear(1, channels)
        self.a, self.d = nn.Parameter(torch.rand(channels, state)), nn.Parameter(torch.randn(channels))
        self.out, self.state = nn.Linear(channels, channels), state

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C)
        u, gate = self.inner(x).chunk(2, -1)
        u = F.silu(self.conv(u.transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2)
        dt, b, c = self.params(u).split([1, self.state, self.state], -1)
        dt = F.softplus(self.dt(dt))
        decay, drive = torch.exp(-dt[..., None] * self.a.exp()), dt[..., None] * b[:, :, None] * u[..., None]
        h, out = x.new_zeros(x.shape[0], *self.a.shape), []
        for t in range(x.shape[1]):
            h = decay[:, t] * h + drive[:, t]
            out.append((h * c[:, t, None]).sum(-1))
        y = torch.stack(out, 1) + self.d * u
        return self.out(y * F.silu(gate))


class Rwkv(nn.Module):
    """Time mixing of RWKV in its numerically safe form (Peng 2023)."""

    def __init__(self, channels: int = 8):
        super().__init__()
        self.k, self.v, self.r, self.out = (nn.Linear(channels, channels) for _ in range(4))
        self.decay, self.first, self.mix = (nn.Parameter(torch.rand(channels)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        before = F.pad(x, (0, 0, 1, -1))
        y = x * self.mix + before * (1 - self.mix)
        k, v, r = self.k(y), self.v(y), torch.sigmoid(self.r(y))
        a = b = torch.zeros_like(k[:, 0])
        top, out = torch.full_like(k[:, 0], -1e30), []
        for t in range(x.shape[1]):
            now = torch.maximum(top, self.first + k[:, t])
            e, f = torch.exp(top - now), torch.exp(self.first + k[:, t] - now)
            out.append((e * a + f * v[:, t]) / (e * b + f))
            now = torch.maximum(top - self.decay, k[:, t])
            e, f = torch.exp(top - self.decay - now), torch.exp(k[:, t] - now)
            a, b, top = e * a + f * v[:, t], e * b + f, now
        return self.out(r * torch.stack(out, 1))


class TextDecoder(nn.Module):
    """A GRU that runs over the clip and then writes a fixed number of frames (Cho 2014)."""

    def __init__(self, steps: int = 5):
        super().__init__()
        self.encoder, self.cell, self.out, self.steps = nn.GRU(3, 6, batch_first=True), nn.GRUCell(3, 6), nn.Linear(6, 3), steps

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(x)[1][0]
        y, out = x[:, -1], []
        for _ in range(self.steps):
            h = self.cell(y, h)
            y = self.out(h)
            out.append(y)
        return torch.stack(out, 1)


class Spiking(nn.Module):
    """Neurons of snntorch in a loop over frames."""

    def __init__(self, kind: str, **more: Any):
        super().__init__()
        self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 3)
        self.a, self.b = (cls(f"snntorch.{kind}")(**({"beta": 0.9} | more)) for _ in range(2))
        self.synaptic = kind == "Synaptic"

    def forward(self, x: Tensor) -> Tensor:
        a, b, out = self._first(self.a), self._first(self.b), []
        for t in range(x.shape[1]):
            spikes, *a = self.a(self.one(x[:, t]), *a)
            spikes, *b = self.b(self.two(spikes), *b)
            out.append(b[-1])
        return torch.stack(out, 1)

    def _first(self, neuron: Any) -> list[Tensor]:
        found = neuron.init_synaptic() if self.synaptic else neuron.init_leaky()
        return list(found) if isinstance(found, tuple) else [found]


def jelly(kind: str) -> Callable[[], nn.Module]:
    """Layers of spikingjelly that take all frames at a time: ``(T, B, C)``; their state begins at rest with each clip."""

    def build() -> nn.Module:
        neuron, reset = (
            cls(f"spikingjelly.activation_based.neuron.{kind}"),
            cls("spikingjelly.activation_based.functional.reset_net"),
        )

        def call(m: Any, x: Tensor) -> Tensor:
            reset(m)
            return m.two(m.b(m.one(4 * x)))

        return Fn(call, one=nn.Linear(4, 6), b=neuron(step_mode="m"), two=nn.Linear(6, 3))

    return build


def jelly_loop(kind: str) -> Callable[[], nn.Module]:
    """The same layers, called with one frame after another."""

    def build() -> nn.Module:
        neuron, reset = (
            cls(f"spikingjelly.activation_based.neuron.{kind}"),
            cls("spikingjelly.activation_based.functional.reset_net"),
        )

        def call(m: Any, x: Tensor) -> Tensor:
            reset(m)
            return torch.stack([m.two(m.b(m.one(4 * frame))) for frame in x.unbind(0)])

        return Fn(call, one=nn.Linear(4, 6), b=neuron(), two=nn.Linear(6, 3))

    return build


def ncps(name: str, clip: Any = (2, 8, 3), **more: Any) -> Callable[[], nn.Module]:
    """A liquid network of ncps: its outputs, without its last state."""
    return lambda: Fn(lambda m, x: m.rnn(x)[0], rnn=cls(f"ncps.torch.{name}")(3, more.pop("units", 6), **more))


def loop(
    name: str, build: Any, source: str, clip: Any = (2, 8, 4), expected: Any = "stream", time_dim: int = 1, **more: Any
) -> Network:
    """A row whose time is dimension 1."""
    return Network(f"recurrence/{name}", build, clip, expected, source, time_dim=time_dim, **more)


def scanned(step: Callable[..., Any], channels: int = 4, dim: int = 1, **parts: Callable[[], Any]) -> Callable[[], nn.Module]:
    """A builder of a scanned function; parts are made again each time."""
    return lambda: Scanned(step, channels, dim, **{k: v() for k, v in parts.items()})


def same(y: Tensor) -> tuple[Tensor, Tensor]:
    """The state is the output."""
    return y, y


SNN, JELLY, LIQUID = "Eshraghian 2023, Proc. IEEE", "Fang 2023, Sci. Adv.", "Hasani 2022, Nat. Mach. Intell."
NETWORKS = [
    *(
        loop(f"{kind}Cell in a loop", lambda kind=kind: CellLoop(kind), "Hochreiter 1997, Neural Comput.", (2, 8, 3))
        for kind in ("LSTM", "GRU", "RNN")
    ),
    loop("LSTMCell, last state", lambda: CellLoop("LSTM", last=True), "Hochreiter 1997, Neural Comput.", (2, 8, 3), "windows"),
    loop("GRUCell, learned first state", lambda: CellLoop("GRU", learned=True), "Cho 2014, EMNLP", (2, 8, 3)),
    loop("moving average", scanned(lambda m, h, x: same(0.9 * h + 0.1 * x)), "Brown 1956, exponential smoothing"),
    loop(
        "learned moving average",
        scanned(
            lambda m, h, x: same(torch.sigmoid(m.rate) * h + (1 - torch.sigmoid(m.rate)) * x),
            rate=lambda: nn.Parameter(torch.randn(4)),
        ),
        "Ma 2023, ICLR (MEGA)",
    ),
    loop(
        "double exponential smoothing",
        scanned(
            lambda m, h, x: (
                torch.cat((a := 0.3 * x + 0.7 * (h[:, :4] + h[:, 4:]), 0.2 * (a - h[:, :4]) + 0.8 * h[:, 4:]), 1),
                a,
            ),
            8,
        ),
        "Holt 1957",
    ),
    loop(
        "PCEN",
        scanned(lambda m, h, x: (a := 0.96 * h + 0.04 * x.abs(), (x.abs() / (1e-3 + a) ** 0.8 + 2.0) ** 0.5 - 2.0**0.5)),
        "Wang 2017, ICASSP",
    ),
    loop("biquad filter", Biquad, "Oppenheim 1999", (2, 3, 32), time_dim=2),
    loop(
        "forward and backward filter",
        lambda: Biquad(flip=True),
        "Gustafsson 1996, IEEE TSP",
        (2, 3, 32),
        "refused",
        2,
        why="The second pass runs from the end of the clip to its beginning: the first output depends on the last sample.",
    ),
    loop("leaky neurons", Neurons, SNN, single=True),
    loop("leaky neurons, hard reset", lambda: Neurons(soft=False), SNN),
    loop(
        "adaptive threshold neurons",
        scanned(
            lambda m, h, x: (
                torch.cat((v := 0.9 * h[:, :4] + x - (s := (h[:, :4] > 1 + h[:, 4:]).to(x.dtype)), 0.95 * h[:, 4:] + 0.1 * s), 1),
                v,
            ),
            8,
        ),
        "Bellec 2018, NeurIPS",
    ),
    loop(
        "LRU",
        scanned(
            lambda m, h, x: same(torch.exp(-m.decay.exp()) * h + m.b(x)),
            4,
            decay=lambda: nn.Parameter(torch.randn(4)),
            b=lambda: nn.Linear(4, 4),
        ),
        "Orvieto 2023, ICML",
    ),
    loop(
        "minimal gated unit",
        scanned(
            lambda m, h, x: same(
                (1 - (f := torch.sigmoid(m.f(torch.cat((x, h), 1))))) * h + f * torch.tanh(m.c(torch.cat((x, f * h), 1)))
            ),
            f=lambda: nn.Linear(8, 4),
            c=lambda: nn.Linear(8, 4),
        ),
        "Zhou 2016, IJAC",
    ),
    loop(
        "ODE-RNN, Euler steps",
        scanned(
            lambda m, h, x: same(torch.tanh(m.cell(torch.cat((x, h + 0.1 * torch.tanh(m.ode(h))), 1)))),
            cell=lambda: nn.Linear(8, 4),
            ode=lambda: nn.Linear(4, 4),
        ),
        "Rubanova 2019, NeurIPS",
    ),
    loop(
        "echo state network",
        scanned(
            lambda m, h, x: same(0.7 * h + 0.3 * torch.tanh(m.w(h) + m.v(x))),
            8,
            w=lambda: nn.Linear(8, 8),
            v=lambda: nn.Linear(4, 8),
        ),
        "Jaeger 2004, Science",
    ),
    loop(
        "IndRNN",
        scanned(
            lambda m, h, x: same(torch.relu(m.w(x) + m.u * h)), w=lambda: nn.Linear(4, 4), u=lambda: nn.Parameter(torch.rand(4))
        ),
        "Li 2018, CVPR",
    ),
    loop(
        "fast weights",
        scanned(
            lambda m, h, x: (
                (a := 0.9 * h.unflatten(1, (4, 4)) + m.k(x).tanh()[:, :, None] * m.v(x)[:, None]).flatten(1),
                (a * m.q(x)[:, :, None]).sum(1),
            ),
            16,
            k=lambda: nn.Linear(4, 4),
            v=lambda: nn.Linear(4, 4),
            q=lambda: nn.Linear(4, 4),
        ),
        "Schlag 2021, ICML",
    ),
    loop("Mamba, sequential", Selective, "Gu 2024, COLM", (2, 8, 8)),
    loop("RWKV, sequential", Rwkv, "Peng 2023, EMNLP", (2, 8, 8)),
    loop("GRU that decodes 5 frames", TextDecoder, "Cho 2014, EMNLP", (2, 24, 3), "windows"),
    *(
        loop(f"ncps {name}", ncps(name.partition(",")[0], **more), LIQUID, (2, 8, 3), package="ncps")
        for name, more in (
            ("CfC", {}),
            ("CfC, mixed memory", {"mixed_memory": True}),
            ("CfC, pure", {"mode": "pure"}),
            ("LTC", {}),
        )
    ),
    loop("snntorch Leaky", lambda: Spiking("Leaky"), SNN, package="snntorch", single=True),
    loop("snntorch Synaptic", lambda: Spiking("Synaptic", alpha=0.8), SNN, package="snntorch", single=True),
    *(
        loop(f"spikingjelly {kind}", jelly(kind), JELLY, (8, 2, 4), time_dim=0, package="spikingjelly", single=True)
        for kind in ("IFNode", "LIFNode", "ParametricLIFNode")
    ),
    *(
        loop(
            f"spikingjelly {kind}, frame by frame",
            jelly_loop(kind),
            JELLY,
            (8, 2, 4),
            time_dim=0,
            package="spikingjelly",
            single=True,
        )
        for kind in ("LIFNode", "IzhikevichNode")
    ),
]
