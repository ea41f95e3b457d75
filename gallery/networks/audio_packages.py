"""Audio and speech networks of torchaudio, asteroid, speechbrain, denoiser, encodec, snac, vocos, nnAudio and julius, in small sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..network import Network
from ..packages import cls
from .video_packages import of

STATISTICS = "Its normalisation takes mean and variance over the whole clip, so every output depends on the last sample."


class Only(nn.Module):
    """The first of a module's outputs; of a call with further arguments, if there are any."""

    def __init__(self, module: nn.Module, *more: Any):
        super().__init__()
        self.module, self.more = module, more

    def forward(self, x: Tensor) -> Tensor:
        y = self.module(x, *self.more)
        return y if isinstance(y, Tensor) else y[0]


class WithLengths(nn.Module):
    """A module that takes lengths, on clips that are whole."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x, x.new_full((x.shape[0],), x.shape[1]).long())[0]


class Called(nn.Module):
    """A function with weights, as a module; what holds them is kept."""

    def __init__(self, holder: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]):
        super().__init__()
        self.holder, self.call = holder, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.holder, x)


def calling(name: str, call: Callable[[Any, Tensor], Tensor], **more: Any) -> Callable[[], nn.Module]:
    """A builder of a call that is no ``forward``."""
    return lambda: Called(cls(name)(**more), call)


def small_codec(**more: Any) -> dict[str, Any]:
    """Sizes of a convolutional codec."""
    return {
        "encoder_dim": 4,
        "encoder_rates": [2, 4],
        "decoder_dim": 16,
        "decoder_rates": [4, 2],
        "codebook_size": 16,
        "codebook_dim": 4,
        "vq_strides": [2, 1],
        "attn_window_size": None,
        "noise": False,
    } | more


def row(package: str, name: str, build: Callable[[], nn.Module], clip: Any, expected: Any, source: str, **more: Any) -> Network:
    """A row of a package."""
    return Network(f"{package}/{name}", build, clip, expected, source, package=package, **more)


SEANET: dict[str, Any] = {
    "channels": 1,
    "dimension": 8,
    "n_filters": 4,
    "ratios": [4, 2],
    "causal": True,
    "norm": "weight_norm",
    "lstm": 1,
}
LAST = {"options": {"output": -1}}
NETWORKS = [
    row(
        "torchaudio",
        "Wav2Letter",
        of("torchaudio.models.Wav2Letter", 20, "mfcc", 13),
        (2, 13, 120),
        "stream",
        "Collobert 2016, arXiv:1609.03193",
    ),
    row(
        "torchaudio",
        "DeepSpeech",
        of("torchaudio.models.DeepSpeech", 13, 16, 9),
        (2, 1, 30, 13),
        "windows",
        "Hannun 2014, arXiv:1412.5567",
        **LAST,
    ),
    row(
        "torchaudio",
        "Conformer",
        of("torchaudio.models.Conformer", 16, 2, 32, 1, 7, then=WithLengths),
        (2, 40, 16),
        "windows",
        "Gulati 2020, Interspeech",
        time_dim=1,
        **LAST,
    ),
    row(
        "torchaudio",
        "Emformer",
        of("torchaudio.models.Emformer", 16, 2, 32, 1, 4, then=WithLengths),
        (2, 40, 16),
        "stream",
        "Shi 2021, ICASSP",
        time_dim=1,
    ),
    row(
        "torchaudio",
        "ConvTasNet",
        of("torchaudio.models.ConvTasNet", 2, 8, 8, 3, 8, 8, 2, 1),
        (2, 1, 320),
        "refused",
        "Luo 2019, TASLP",
        why=STATISTICS,
    ),
    row(
        "torchaudio",
        "HDemucs",
        of("torchaudio.models.HDemucs", ["a"], audio_channels=1, channels=4, nfft=256, depth=4),
        (2, 1, 2048),
        "refused",
        "Défossez 2021, ISMIR MDX",
        why="Its layers in both directions and its norms see the whole clip; a window's last frame is output=-1.",
    ),
    row(
        "torchaudio",
        "WaveRNN upsampling",
        of("torchaudio.models.wavernn.UpsampleNetwork", [2, 2], 1, 8, 8, 8, 3, then=Only),
        (2, 8, 16),
        "stream",
        "Kalchbrenner 2018, ICML",
    ),
    row(
        "torchaudio",
        "WaveRNN",
        of("torchaudio.models.WaveRNN", [2, 2], 16, 4, 1, 8, 8, 5, 8, 8, 8),
        [
            (2, 1, 48),
            (2, 1, 8, 16),
        ],  # four frames fewer, times the hop: the example's lengths are no ratio of rates, and it takes no others
        "windows",
        "Kalchbrenner 2018, ICML",
        time_dim=(2, 3),
    ),
    row(
        "torchaudio",
        "RNN-T predictor",
        calling(
            "torchaudio.models.rnnt._Predictor",
            lambda m, x: m(x, x.new_full((x.shape[0],), x.shape[1]))[0],
            num_symbols=20,
            output_dim=8,
            symbol_embedding_dim=8,
            num_lstm_layers=1,
            lstm_hidden_dim=8,
            lstm_layer_norm=True,
        ),
        (2, 12),
        "stream",
        "Graves 2012, arXiv:1211.3711",
        time_dim=1,
        tokens=20,
    ),
    row(
        "torchaudio",
        "wav2vec 2.0",
        of(
            "torchaudio.models.wav2vec2_model",
            extractor_mode="layer_norm",
            extractor_conv_layer_config=[(8, 10, 5), (8, 3, 2)],
            extractor_conv_bias=True,
            encoder_embed_dim=16,
            encoder_projection_dropout=0.0,
            encoder_pos_conv_kernel=8,
            encoder_pos_conv_groups=2,
            encoder_num_layers=2,
            encoder_num_heads=2,
            encoder_attention_dropout=0.0,
            encoder_ff_interm_features=32,
            encoder_ff_interm_dropout=0.0,
            encoder_dropout=0.0,
            encoder_layer_norm_first=True,
            encoder_layer_drop=0.0,
            aux_num_out=None,
            then=Only,
        ),
        (2, 800),
        "windows",
        "Baevski 2020, NeurIPS",
        time_dim=1,
        **LAST,
    ),
    row("encodec", "SEANet encoder", of("encodec.modules.SEANetEncoder", **SEANET), (2, 1, 400), "stream", "Défossez 2023, TMLR"),
    row(
        "encodec",
        "SEANet encoder, constant padding",
        of("encodec.modules.SEANetEncoder", pad_mode="constant", **SEANET),
        (2, 1, 400),
        "stream",
        "Défossez 2023, TMLR",
    ),
    row("encodec", "SEANet decoder", of("encodec.modules.SEANetDecoder", **SEANET), (2, 8, 60), "stream", "Défossez 2023, TMLR"),
    row(
        "snac",
        "encoder",
        calling("snac.SNAC", lambda m, x: m.encoder(x), **small_codec()),
        (2, 1, 400),
        "stream",
        "Siuzdak 2024, NeurIPS Audio",
    ),
    row(
        "snac",
        "encoder, local attention",
        calling("snac.SNAC", lambda m, x: m.encoder(x), **small_codec(attn_window_size=8, encoder_dim=32)),
        (2, 1, 384),
        "stream",
        "Siuzdak 2024, NeurIPS Audio",
    ),
    row(
        "snac",
        "decoder",
        calling("snac.SNAC", lambda m, x: m.decoder(x), **small_codec()),
        (2, 16, 40),
        "stream",
        "Siuzdak 2024, NeurIPS Audio",
    ),
    row(
        "snac",
        "decoder, noise",
        calling("snac.SNAC", lambda m, x: m.decoder(x), **small_codec(noise=True)),
        (2, 16, 40),
        "refused",
        "Siuzdak 2024, NeurIPS Audio",
        why="It draws random numbers for the whole clip: no two calls of the module agree.",
    ),
    row(
        "vocos",
        "mel features",
        of("vocos.feature_extractors.MelSpectrogramFeatures", sample_rate=8000, n_fft=64, hop_length=16, n_mels=8),
        (2, 800),
        "stream",
        "Siuzdak 2024, ICLR",
        time_dim=1,
    ),
    row("vocos", "backbone", of("vocos.models.VocosBackbone", 8, 16, 32, 2), (2, 8, 40), "stream", "Siuzdak 2024, ICLR"),
    row(
        "vocos",
        "backbone and ISTFT",
        lambda: nn.Sequential(
            cls("vocos.models.VocosBackbone")(8, 16, 32, 1), cls("vocos.heads.ISTFTHead")(16, 64, 16, padding="same")
        ),
        (2, 8, 40),
        "stream",
        "Siuzdak 2024, ICLR",
    ),
    row(
        "vocos",
        "backbone and ISTFT, centred",
        lambda: nn.Sequential(
            cls("vocos.models.VocosBackbone")(8, 16, 32, 1), cls("vocos.heads.ISTFTHead")(16, 64, 16, padding="center")
        ),
        (2, 8, 40),
        "stream",
        "Siuzdak 2024, ICLR",
    ),
    row(
        "nnAudio",
        "STFT",
        of("nnAudio.features.STFT", n_fft=64, hop_length=16, sr=8000, output_format="Magnitude", verbose=False),
        (2, 2000),
        "stream",
        "Cheuk 2020, IEEE Access",
        time_dim=1,
    ),
    row(
        "nnAudio",
        "mel",
        of("nnAudio.features.MelSpectrogram", sr=8000, n_fft=64, n_mels=8, hop_length=16, verbose=False),
        (2, 2000),
        "stream",
        "Cheuk 2020, IEEE Access",
        time_dim=1,
    ),
    row(
        "nnAudio",
        "CQT",
        of("nnAudio.features.CQT1992v2", sr=8000, hop_length=64, fmin=440, n_bins=12, verbose=False),
        (2, 3000),
        "stream",
        "Brown 1991, JASA",
        time_dim=1,
    ),
    row("julius", "low pass", of("julius.LowPassFilter", 0.1), (2, 2000), "stream", "Défossez 2020, julius", time_dim=1),
    row(
        "julius",
        "low pass by FFT",
        of("julius.LowPassFilter", 0.05, zeros=20, fft=True),
        (2, 4000),
        "stream",
        "Défossez 2020, julius",
        time_dim=1,
    ),
    row(
        "julius",
        "bands",
        of("julius.SplitBands", 8000, n_bands=3, fft=False),
        (2, 2000),
        "stream",
        "Défossez 2020, julius",
        time_dim=1,
    ),
    row("julius", "resampling 2:3", of("julius.ResampleFrac", 2, 3), (2, 900), "stream", "Smith 1984, ICASSP", time_dim=1),
]
