"""Video and time-series models of transformers, from tiny configurations."""

from __future__ import annotations

from .transformers_signals import SERIES, VIDEO, hf, part, scores

NETWORKS = [
    hf(
        "VideoMAE",
        scores("VideoMAE", VIDEO | {"num_frames": 4, "tubelet_size": 2}),
        (2, 4, 3, 32, 32),
        "windows",
        "Tong 2022, NeurIPS",
        time_dim=1,
    ),
    hf("TimeSformer", scores("Timesformer", VIDEO), (2, 4, 3, 32, 32), "windows", "Bertasius 2021, ICML", time_dim=1),
    hf(
        "TimeSformer, joint",
        scores("Timesformer", VIDEO | {"attention_type": "joint_space_time"}),
        (2, 4, 3, 32, 32),
        "windows",
        "Bertasius 2021, ICML",
        time_dim=1,
    ),
    hf(
        "ViViT",
        scores("Vivit", VIDEO | {"tubelet_size": [2, 8, 8]}),
        (2, 4, 3, 32, 32),
        "windows",
        "Arnab 2021, ICCV",
        time_dim=1,
    ),
    hf(
        "V-JEPA 2",
        scores(
            "VJEPA2",
            {
                "crop_size": 32,
                "patch_size": 8,
                "frames_per_clip": 4,
                "hidden_size": 24,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "mlp_ratio": 2,
                "num_pooler_layers": 1,
                "pred_hidden_size": 24,
                "pred_num_hidden_layers": 1,
                "pred_num_attention_heads": 2,
            },
        ),
        (2, 4, 3, 32, 32),
        "windows",
        "Assran 2025, arXiv:2506.09985",
        time_dim=1,
    ),
    hf(
        "PatchTSMixer",
        part(
            "PatchTSMixer",
            SERIES | {"d_model": 8, "patch_length": 8, "patch_stride": 8, "num_layers": 2},
            own="ForPrediction",
            pick=lambda y: y.prediction_outputs,
        ),
        (2, 48, 3),
        "windows",
        "Ekambaram 2023, KDD",
        time_dim=1,
    ),
    hf(
        "PatchTST",
        part(
            "PatchTST",
            SERIES
            | {
                "d_model": 8,
                "patch_length": 8,
                "patch_stride": 8,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "ffn_dim": 16,
            },
            own="ForPrediction",
            pick=lambda y: y.prediction_outputs,
        ),
        (2, 48, 3),
        "windows",
        "Nie 2023, ICLR",
        time_dim=1,
    ),
]
