"""Speech, audio, video and time-series models of transformers, from tiny configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..network import Network
from ..packages import cls
from .transformers_language import model

W2V = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8, 8, 8],
    "conv_stride": [5, 2, 2],
    "conv_kernel": [10, 3, 3],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 20,
}
CODEC = {"sampling_rate": 8000, "num_filters": 4, "hidden_size": 8, "codebook_dim": 8, "codebook_size": 16}
ENCODEC = CODEC | {"upsampling_ratios": [4, 2], "num_lstm_layers": 1, "num_residual_layers": 1}
MIMI = CODEC | {
    "upsampling_ratios": [4, 2],
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "intermediate_size": 16,
    "num_semantic_quantizers": 1,
    "num_quantizers": 2,
    "vector_quantization_hidden_dimension": 4,
    "upsample_groups": 8,
    "sliding_window": 12,
    "hidden_size": 8,
}
VIDEO = {
    "image_size": 32,
    "patch_size": 8,
    "num_frames": 4,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
SERIES = {"prediction_length": 6, "context_length": 48, "num_input_channels": 3}


class Part(nn.Module):
    """A part of a model, with one tensor in and the first tensor out."""

    def __init__(self, whole: nn.Module, path: str, pick: Callable[[Any], Tensor] | None = None):
        super().__init__()
        self.part = whole.get_submodule(path) if path else whole
        self.pick = pick

    def forward(self, x: Tensor) -> Tensor:
        y = self.part(x)
        if self.pick is not None:
            return self.pick(y)
        return y if isinstance(y, Tensor) else y[0]


def part(
    kind: str, config: dict[str, Any], path: str = "", own: str = "Model", pick: Any = None, config_of: str = ""
) -> Callable[[], nn.Module]:
    """A builder of a part of a model."""

    def build() -> nn.Module:
        made = cls(f"transformers.{config_of or kind}Config")(**config)
        return Part(cls(f"transformers.{kind}{own}")(made), path, pick)

    return build


class Logits(nn.Module):
    """A model's scores of a clip."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).logits


def scores(kind: str, config: dict[str, Any], own: str = "ForVideoClassification", name: str = "") -> Callable[[], nn.Module]:
    """A builder of a classifier."""
    return lambda: Logits(cls(f"transformers.{kind}{own}")(cls(f"transformers.{kind}Config")(**config, num_labels=5)))


def hf(name: str, build: Callable[[], nn.Module], clip: Any, expected: Any, source: str, **more: Any) -> Network:
    """A row of this package."""
    return Network(f"transformers/{name}", build, clip, expected, source, package="transformers", **more)


LAST = {"options": {"output": -1}}
NETWORKS = [
    hf(
        "Wav2Vec2 features, layer norm",
        part("Wav2Vec2", W2V | {"feat_extract_norm": "layer"}, "feature_extractor"),
        (2, 800),
        "stream",
        "Baevski 2020, NeurIPS",
        time_dim=1,
    ),
    hf(
        "Wav2Vec2 features, group norm",
        part("Wav2Vec2", W2V, "feature_extractor"),
        (2, 800),
        "refused",
        "Baevski 2020, NeurIPS",
        time_dim=1,
        why="The first layer's group normalisation has one group for each channel: mean and variance of the whole clip.",
    ),
    *(
        hf(
            name,
            model(name, W2V | {"feat_extract_norm": "layer", "do_stable_layer_norm": True}, name="input_values"),
            (2, 800),
            "windows",
            source,
            time_dim=1,
            **LAST,
        )
        for name, source in (
            ("Wav2Vec2", "Baevski 2020, NeurIPS"),
            ("Hubert", "Hsu 2021, TASLP"),
            ("WavLM", "Chen 2022, IEEE JSTSP"),
            ("UniSpeechSat", "Chen 2022, ICASSP"),
        )
    ),
    hf(
        "SEW",
        model("SEW", W2V | {"squeeze_factor": 2}, name="input_values"),
        (2, 800),
        "windows",
        "Wu 2022, ICASSP",
        time_dim=1,
        **LAST,
    ),
    hf(
        "Data2VecAudio",
        model("Data2VecAudio", W2V | {"conv_pos_kernel_size": 5}, name="input_values"),
        (2, 800),
        "windows",
        "Baevski 2022, ICML",
        time_dim=1,
        **LAST,
    ),
    hf(
        "Wav2Vec2Bert",
        model(
            "Wav2Vec2Bert",
            {
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 32,
                "feature_projection_input_dim": 12,
                "vocab_size": 20,
            },
            name="input_features",
        ),
        (2, 40, 12),
        "windows",
        "Barrault 2023, arXiv:2312.05187",
        time_dim=1,
        **LAST,
    ),
    hf(
        "Wav2Vec2Conformer",
        model(
            "Wav2Vec2Conformer", W2V | {"feat_extract_norm": "layer", "position_embeddings_type": "rotary"}, name="input_values"
        ),
        (2, 800),
        "windows",
        "Gulati 2020, Interspeech",
        time_dim=1,
        **LAST,
    ),
    hf(
        "Whisper encoder",
        part(
            "Whisper",
            {
                "d_model": 16,
                "encoder_layers": 2,
                "encoder_attention_heads": 2,
                "encoder_ffn_dim": 32,
                "decoder_layers": 1,
                "decoder_attention_heads": 2,
                "decoder_ffn_dim": 32,
                "num_mel_bins": 8,
                "vocab_size": 50,
                "max_source_positions": 30,
                "pad_token_id": 0,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "decoder_start_token_id": 1,
            },
            "encoder",
        ),
        (2, 8, 60),
        "windows",
        "Radford 2023, ICML",
        **LAST,
    ),
    hf(
        "Moonshine encoder",
        part(
            "Moonshine",
            {
                "hidden_size": 16,
                "encoder_num_hidden_layers": 2,
                "decoder_num_hidden_layers": 1,
                "vocab_size": 50,
                "encoder_num_attention_heads": 2,
                "decoder_num_attention_heads": 2,
                "intermediate_size": 32,
            },
            "encoder",
        ),
        (2, 4000),
        "windows",
        "Jeffries 2024, arXiv:2410.15608",
        time_dim=1,
        **LAST,
    ),
    hf(
        "Parakeet encoder",
        part(
            "Parakeet",
            {
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 32,
                "num_mel_bins": 16,
                "subsampling_conv_channels": 8,
                "subsampling_factor": 4,
            },
            own="Encoder",
            config_of="ParakeetEncoder",
        ),
        (2, 80, 16),
        "windows",
        "Rekesh 2023, ASRU (FastConformer)",
        time_dim=1,
        **LAST,
    ),
    hf(
        "AST",
        scores(
            "AST",
            {
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 32,
                "max_length": 40,
                "num_mel_bins": 16,
                "patch_size": 8,
                "frequency_stride": 4,
                "time_stride": 4,
            },
            "ForAudioClassification",
        ),
        (2, 40, 16),
        "windows",
        "Gong 2021, Interspeech",
        time_dim=1,
    ),
    hf("EnCodec encoder", part("Encodec", ENCODEC, "encoder"), (2, 1, 400), "stream", "Défossez 2023, TMLR"),
    hf(
        "EnCodec encoder, constant padding",
        part("Encodec", ENCODEC | {"pad_mode": "constant"}, "encoder"),
        (2, 1, 400),
        "stream",
        "Défossez 2023, TMLR",
    ),
    hf("EnCodec decoder", part("Encodec", ENCODEC, "decoder"), (2, 8, 60), "stream", "Défossez 2023, TMLR"),
    hf(
        "EnCodec encoder, 48 kHz",
        part("Encodec", ENCODEC | {"use_causal_conv": False, "norm_type": "time_group_norm"}, "encoder"),
        (2, 1, 400),
        "refused",
        "Défossez 2023, TMLR",
        why="Group normalisation of one group: mean and variance of the whole clip stand in every output.",
    ),
    hf("Mimi encoder", part("Mimi", MIMI, "encoder"), (2, 1, 400), "stream", "Défossez 2024, arXiv:2410.00037"),
    hf(
        "Mimi transformer",
        part("Mimi", MIMI, "encoder_transformer"),
        (2, 50, 8),
        "stream",
        "Défossez 2024, arXiv:2410.00037",
        time_dim=1,
    ),
    hf("Mimi decoder", part("Mimi", MIMI, "decoder"), (2, 8, 40), "stream", "Défossez 2024, arXiv:2410.00037"),
    hf(
        "DAC encoder",
        part(
            "Dac",
            {
                "encoder_hidden_size": 4,
                "downsampling_ratios": [2, 4],
                "decoder_hidden_size": 16,
                "upsampling_ratios": [4, 2],
                "n_codebooks": 2,
                "codebook_size": 16,
                "codebook_dim": 4,
                "hidden_size": 16,
            },
            "encoder",
        ),
        (2, 1, 400),
        "stream",
        "Kumar 2023, NeurIPS",
    ),
    hf(
        "DAC decoder",
        part(
            "Dac",
            {
                "encoder_hidden_size": 4,
                "downsampling_ratios": [2, 4],
                "decoder_hidden_size": 16,
                "upsampling_ratios": [4, 2],
                "n_codebooks": 2,
                "codebook_size": 16,
                "codebook_dim": 4,
                "hidden_size": 16,
            },
            "decoder",
        ),
        (2, 16, 60),
        "stream",
        "Kumar 2023, NeurIPS",
    ),
    hf(
        "HiFi-GAN",
        part(
            "SpeechT5",
            {
                "model_in_dim": 8,
                "upsample_initial_channel": 16,
                "upsample_rates": [4, 2],
                "upsample_kernel_sizes": [8, 4],
                "normalize_before": False,
            },
            own="HifiGan",
            config_of="SpeechT5HifiGan",
        ),
        (2, 40, 8),
        "stream",
        "Kong 2020, NeurIPS",
        time_dim=1,
    ),
    hf(
        "VITS decoder",
        part(
            "Vits",
            {
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "ffn_dim": 32,
                "flow_size": 8,
                "upsample_initial_channel": 16,
                "upsample_rates": [4, 2],
                "upsample_kernel_sizes": [8, 4],
                "vocab_size": 20,
            },
            "decoder",
        ),
        (2, 8, 40),
        "stream",
        "Kim 2021, ICML",
    ),
]
