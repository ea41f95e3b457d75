"""Models of transformers whose frames choose experts, newer causal ones, and a transformer over tokens of three kinds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..network import Network
from ..packages import cls
from .transformers_language import GROUPED, WIDTH, causal

TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
PLAIN = GROUPED | TOKENS
# One product for each frame and expert: the default sorts the frames of all rows by their expert.
EXPERTS = PLAIN | {"experts_implementation": "batched_mm", "num_experts_per_tok": 2, "moe_intermediate_size": 16}
JAMBA = {"mamba_d_state": 4, "mamba_dt_rank": 4, "attn_layer_period": 9, "attn_layer_offset": 8, "num_experts": 2}


class Decisions(nn.Module):
    """The actions of a decision transformer, from states, actions and returns of each step."""

    def __init__(self) -> None:
        super().__init__()
        config = cls("transformers.DecisionTransformerConfig")
        sizes: dict[str, Any] = {"state_dim": 5, "act_dim": 3, "hidden_size": WIDTH, "n_layer": 2, "n_head": 2, "max_ep_len": 64}
        self.model = cls("transformers.DecisionTransformerModel")(config(**sizes))

    def forward(self, states: Tensor, actions: Tensor, returns: Tensor) -> Tensor:
        rows, steps = states.shape[:2]
        given = {"timesteps": torch.arange(steps)[None].expand(rows, -1), "attention_mask": torch.ones(rows, steps).long()}
        y: Tensor = self.model(states=states, actions=actions, rewards=None, returns_to_go=returns, **given)[1]
        return y


NETWORKS = [
    causal("Mixtral", "Jiang 2024, arXiv:2401.04088", EXPERTS | {"num_local_experts": 4}),
    causal("Qwen3Moe", "Yang 2025, arXiv:2505.09388", EXPERTS | {"num_experts": 4, "head_dim": 8}),
    causal("Olmoe", "Muennighoff 2025, ICLR", EXPERTS | {"num_experts": 4}),
    causal(
        "Lfm2Moe",
        "Liquid AI 2025, LFM2",
        EXPERTS | {"num_experts": 4, "layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    ),
    causal("Jamba", "Lieber 2024, arXiv:2403.19887", EXPERTS | JAMBA, single=True),
    causal("Gemma3", "Kamath 2025, arXiv:2503.19786", PLAIN | {"head_dim": 8, "sliding_window": 4}, kind="Gemma3Text"),
    causal("Cohere2", "Cohere 2025, arXiv:2504.00698", PLAIN | {"sliding_window": 4}),
    causal("Glm", "Zeng 2024, arXiv:2406.12793", PLAIN | {"head_dim": 8}),
    causal("Nemotron", "Parmar 2024, arXiv:2402.16819", PLAIN),
    causal("Helium", "Kyutai 2025, Helium", PLAIN | {"head_dim": 8}),
    causal("BitNet", "Wang 2023, arXiv:2310.11453", PLAIN),
    causal("Moshi", "Défossez 2024, arXiv:2410.00037", PLAIN | {"ffn_dim": 32, "sliding_window": 8, "head_dim": 8}),
    Network(
        "transformers/Decision Transformer",
        Decisions,
        [(2, 10, 5), (2, 10, 3), (2, 10, 1)],
        "stream",
        "Chen 2021, NeurIPS",
        package="transformers",
        time_dim=(1, 1, 1),
    ),
]
