"""Networks for sound and speech. No tests are in this file."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.convert.cases import Case, network, noise, seeded


class LetterNet(nn.Module):
    """Strided and wide convolutions over frames of features ``(B, F, T)``, with the shape of Wav2Letter; scores of letters."""

    def __init__(self, features: int, channels: int, letters: int):
        super().__init__()
        wide = 4 * channels
        self.acoustic = nn.Sequential(
            nn.Conv1d(features, channels, 48, stride=2, padding=23),
            nn.ReLU(inplace=True),
            *(part for _ in range(3) for part in (nn.Conv1d(channels, channels, 7, padding=3), nn.ReLU(inplace=True))),
            nn.Conv1d(channels, wide, 32, padding=16),
            nn.ReLU(inplace=True),
            nn.Conv1d(wide, wide, 1),
            nn.ReLU(inplace=True),
            nn.Conv1d(wide, letters, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.acoustic(x), dim=1)


@network
def letters(frames: int = 121, batch: int = 2, features: int = 13, channels: int = 12, letters: int = 29) -> Case:
    """A Wav2Letter-shaped network."""
    return Case(seeded(lambda: LetterNet(features, channels, letters)), noise(batch, features, frames))


class Recogniser(nn.Module):
    """Convolutions ``(B, F, T)``, an LSTM on ``(B, T, C)``, scores ``(B, T / 2, classes)``."""

    def __init__(self, features: int, channels: int, hidden: int, classes: int):
        super().__init__()
        self.front = nn.Sequential(
            nn.Conv1d(features, channels, 5, stride=2, padding=2),
            nn.BatchNorm1d(channels),
            nn.Hardtanh(0, 20, inplace=True),
            nn.Conv1d(channels, channels, 3, padding=1, groups=channels // 4),
            nn.BatchNorm1d(channels),
            nn.Hardtanh(0, 20, inplace=True),
        )
        self.rnn = nn.LSTM(channels, hidden, num_layers=2, batch_first=True, dropout=0.3)
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(self.front(x).transpose(1, 2))
        return F.log_softmax(self.head(self.norm(y)), dim=-1)


@network
def conv_lstm(
    frames: int = 31, batch: int = 2, features: int = 10, channels: int = 16, hidden: int = 12, classes: int = 7
) -> Case:
    """A conv–LSTM–linear speech model."""
    module = seeded(lambda: Recogniser(features, channels, hidden, classes))
    return Case(module, noise(batch, features, frames), out_time=1)


class Gated(nn.Module):
    """A gated causal convolution: padded on the left, or on both sides and cut."""

    def __init__(self, channels: int, skips: int, dilation: int, cut: bool):
        super().__init__()
        self.past, self.cut = dilation, cut
        padding = dilation if cut else 0
        self.filter = nn.Conv1d(channels, channels, 2, dilation=dilation, padding=padding)
        self.gate = nn.Conv1d(channels, channels, 2, dilation=dilation, padding=padding)
        self.residual = nn.Conv1d(channels, channels, 1)
        self.skip = nn.Conv1d(channels, skips, 1)

    def causal(self, conv: nn.Conv1d, x: Tensor) -> Tensor:
        if self.cut:
            return conv(x)[:, :, : -self.past]
        return conv(F.pad(x, (self.past, 0)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.tanh(self.causal(self.filter, x)) * torch.sigmoid(self.causal(self.gate, x))
        return x + self.residual(y), self.skip(y)


class WaveNet(nn.Module):
    """Gated dilated causal convolutions with residual and skip sums."""

    def __init__(self, inputs: int, channels: int, skips: int, layers: int, stacks: int):
        super().__init__()
        self.first = nn.Conv1d(inputs, channels, 1)
        sizes = [(2**i, bool(i % 2)) for _ in range(stacks) for i in range(layers)]
        self.layers = nn.ModuleList(Gated(channels, skips, dilation, cut) for dilation, cut in sizes)
        self.last = nn.ModuleList([nn.Conv1d(skips, skips, 1), nn.Conv1d(skips, inputs, 1)])

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.layers[0](self.first(x))
        for layer in self.layers[1:]:
            x, skip = layer(x)
            total = total + skip
        for conv in self.last:
            total = conv(F.relu(total))
        return total


@network
def wavenet(
    frames: int = 47, batch: int = 2, inputs: int = 3, channels: int = 8, skips: int = 12, layers: int = 4, stacks: int = 2
) -> Case:
    """A WaveNet in the pad-and-slice style."""
    return Case(seeded(lambda: WaveNet(inputs, channels, skips, layers, stacks)), noise(batch, inputs, frames))


class SpectrogramUNet(nn.Module):
    """Down by two in frequency and time, twice, and up again: once by a transposed convolution, once by interpolation."""

    def __init__(self, channels: int):
        super().__init__()
        c = channels
        self.enter = nn.Conv2d(1, c, 3, padding=1)
        self.down1 = nn.Conv2d(c, 2 * c, 4, stride=2, padding=1)
        self.down2 = nn.Conv2d(2 * c, 3 * c, 4, stride=2, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in (c, 2 * c, 3 * c))
        self.middle = nn.Conv2d(3 * c, 3 * c, 3, padding=1)
        self.up2 = nn.ConvTranspose2d(3 * c, 2 * c, 4, stride=2, padding=1)
        self.up1 = nn.Conv2d(4 * c, c, 3, padding=1)
        self.leave = nn.Conv2d(2 * c, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.norms[0](self.enter(x)))
        b = F.leaky_relu(self.norms[1](self.down1(a)), 0.2)
        y = F.leaky_relu(self.norms[2](self.down2(b)), 0.2)
        y = torch.cat([self.up2(F.relu(self.middle(y))), b], dim=1)
        y = F.interpolate(self.up1(F.relu(y)), scale_factor=2, mode="nearest")
        mask = torch.sigmoid(self.leave(torch.cat([F.relu(y), a], dim=1)))
        return x * mask


@network
def spectrogram_unet(frames: int = 32, bins: int = 16, batch: int = 2, channels: int = 4) -> Case:
    """A U-Net over time with skip connections on ``(B, 1, F, T)``: time is last."""
    module = seeded(lambda: SpectrogramUNet(channels))
    return Case(module, noise(batch, 1, bins, frames), {"time_dim": 3}, out_time=3, multiple=4)


class RawAudio(nn.Module):
    """Samples ``(B, T)`` without a dimension of channels; the loudness is added back at the end."""

    def __init__(self, channels: int):
        super().__init__()
        self.analysis = nn.Conv1d(1, channels, 8, stride=4, bias=False)
        self.mix = nn.Conv1d(channels, channels, 3, padding=1)
        self.decide = nn.Conv1d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.analysis(x.unsqueeze(1))
        y = torch.log1p(y.abs())
        return self.decide(F.gelu(self.mix(y)) + y).squeeze(1)


@network
def raw_audio(frames: int = 83, batch: int = 2, channels: int = 6) -> Case:
    """A network on raw samples."""
    return Case(seeded(lambda: RawAudio(channels)), noise(batch, frames), {"time_dim": 1}, out_time=1)


class Synthesis(nn.Module):
    """Frames of a spectrum as overlapping windows, divided by the windows that lie there: ``(B, F, T)``.

    Args:
        hop: frames from window to window.
        checked: whether the module asserts that no sum of windows is zero.
    """

    def __init__(self, hop: int = 3, checked: bool = True) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(8, periodic=False) + 0.1)
        self.hop, self.checked, self.mix = hop, checked, nn.Conv1d(5, 10, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        size, (re, im) = self.window.shape[0], self.mix(x).chunk(2, 1)
        waves = torch.fft.irfft(torch.complex(re, im), size, dim=1) * self.window[None, :, None]
        added = self.added(waves)
        envelope = self.added(self.window.square().expand(1, x.shape[2], -1).transpose(1, 2)).squeeze()
        if self.checked:
            assert (envelope > 1e-11).all()
        return added[:, 0] / envelope

    def added(self, waves: Tensor) -> Tensor:
        size = self.window.shape[0]
        length, cut = (waves.shape[2] - 1) * self.hop + size, (size - self.hop) // 2
        y = F.fold(waves, output_size=(1, length), kernel_size=(1, size), stride=(1, self.hop))
        return y[:, 0, :, cut:-cut]
