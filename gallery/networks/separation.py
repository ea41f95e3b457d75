"""Networks that separate and enhance speech, of asteroid and denoiser, in small sizes."""

from __future__ import annotations

from typing import Any

from torch import nn

from .audio_packages import STATISTICS, calling, row
from .video_packages import of

DEMUCS: dict[str, Any] = {"hidden": 4, "depth": 3, "resample": 1, "causal": True, "max_hidden": 16, "normalize": False}
TASNET: dict[str, Any] = {
    "n_src": 2,
    "n_blocks": 2,
    "n_repeats": 1,
    "bn_chan": 8,
    "hid_chan": 8,
    "skip_chan": 8,
    "kernel_size": 8,
    "n_filters": 8,
    "stride": 4,
}


NETWORKS = [
    row(
        "asteroid",
        "ConvTasNet, causal, cumulative norm",
        of("asteroid.models.ConvTasNet", norm_type="cgLN", causal=True, **TASNET),
        (2, 1, 320),
        "stream",
        "Luo 2019, TASLP",
    ),
    row(
        "asteroid",
        "ConvTasNet, causal, norm per frame",
        of("asteroid.models.ConvTasNet", norm_type="cLN", causal=True, **TASNET),
        (2, 1, 320),
        "stream",
        "Luo 2019, TASLP",
    ),
    row(
        "asteroid",
        "ConvTasNet, batch norm",
        of("asteroid.models.ConvTasNet", norm_type="bN", **TASNET),
        (2, 1, 320),
        "stream",
        "Luo 2019, TASLP",
    ),
    row(
        "asteroid",
        "ConvTasNet, global norm",
        of("asteroid.models.ConvTasNet", norm_type="gLN", **TASNET),
        (2, 1, 320),
        "refused",
        "Luo 2019, TASLP",
        why=STATISTICS,
    ),
    row(
        "asteroid",
        "SuDoRM-RF",
        of("asteroid.models.SuDORMRFNet", 2, bn_chan=8, num_blocks=1, upsampling_depth=3, kernel_size=9, n_filters=8),
        (2, 1, 320),
        "refused",
        "Tzinis 2020, MLSP",
        why=STATISTICS,
    ),
    row(
        "asteroid",
        "DPRNN",
        of(
            "asteroid.models.DPRNNTasNet",
            2,
            bn_chan=8,
            hid_size=8,
            chunk_size=8,
            n_repeats=1,
            kernel_size=8,
            n_filters=8,
            stride=4,
        ),
        (2, 1, 200),
        "refused",
        "Luo 2020, ICASSP",
        why="Each block has a bidirectional layer over all chunks of the clip, and statistics of it.",
    ),
    row(
        "asteroid",
        "LSTM-TasNet, causal",
        of("asteroid.models.LSTMTasNet", 2, n_layers=2, hid_size=8, bidirectional=False, n_filters=8, kernel_size=8, stride=4),
        (2, 1, 200),
        "stream",
        "Luo 2018, ICASSP",
    ),
    row(
        "asteroid",
        "LSTM-TasNet",
        of("asteroid.models.LSTMTasNet", 2, n_layers=2, hid_size=8, n_filters=8, kernel_size=8, stride=4),
        (2, 1, 200),
        "refused",
        "Luo 2018, ICASSP",
        why="Bidirectional layers read the clip from its end.",
    ),
    row(
        "asteroid",
        "free filter bank",
        calling(
            "asteroid_filterbanks.FreeFB",
            lambda m, x: nn.functional.conv1d(x, m.filters(), stride=m.stride),
            n_filters=8,
            kernel_size=16,
            stride=8,
        ),
        (2, 1, 200),
        "stream",
        "Luo 2018, ICASSP",
    ),
    row(
        "denoiser", "Demucs, causal", of("denoiser.demucs.Demucs", **DEMUCS), (2, 1, 400), "stream", "Défossez 2020, Interspeech"
    ),
    row(
        "denoiser",
        "Demucs, causal, resampled",
        of("denoiser.demucs.Demucs", **(DEMUCS | {"resample": 2})),
        (2, 1, 400),
        "stream",
        "Défossez 2020, Interspeech",
    ),
    row(
        "denoiser",
        "Demucs, normalised",
        of("denoiser.demucs.Demucs", **(DEMUCS | {"normalize": True})),
        (2, 1, 400),
        "refused",
        "Défossez 2020, Interspeech",
        why="It divides the clip by its own deviation, which a stream has not seen.",
    ),
    row(
        "denoiser",
        "Demucs, bidirectional",
        of("denoiser.demucs.Demucs", **(DEMUCS | {"causal": False})),
        (2, 1, 400),
        "refused",
        "Défossez 2020, Interspeech",
        why="A bidirectional layer reads the clip from its end.",
    ),
]
