"""Sequence models of transformers from tiny configurations: causal ones, state-space models and bidirectional ones, on embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..network import Network
from ..packages import cls

WIDTH = 16
SMALL = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
GROUPED = SMALL | {"num_key_value_heads": 1}
BOTH = "Each position attends to all others, those of the future included."


class Embedded(nn.Module):
    """A model on embeddings ``(B, T, C)``: its last hidden states, without a cache."""

    def __init__(self, model: nn.Module, name: str = "inputs_embeds", **more: Any):
        super().__init__()
        self.model, self.name, self.more = model, name, more

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(**{self.name: x}, **self.more)[0]
        return y


def model(kind: str, config: dict[str, Any], own: str = "Model", config_of: str = "", **more: Any) -> Callable[[], nn.Module]:
    """A builder: ``transformers.<kind>Model(<kind>Config(**config))`` on embeddings."""

    def build() -> nn.Module:
        made = cls(f"transformers.{config_of or kind}Config")(**config)
        return Embedded(cls(f"transformers.{kind}{own}")(made), **more)

    return build


def causal(name: str, source: str, config: dict[str, Any], frames: int = 12, expected: Any = "stream", **more: Any) -> Network:
    """A model whose outputs depend on the past alone."""
    row = {k: more.pop(k) for k in ("why", "options", "single") if k in more}
    build = model(more.pop("kind", name), config, **({"use_cache": False} | more))
    return Network(f"transformers/{name}", build, (2, frames, WIDTH), expected, source, package="transformers", time_dim=1, **row)


def both(name: str, source: str, config: dict[str, Any], frames: int = 12, **more: Any) -> Network:
    """A bidirectional model: the last position of each window."""
    return Network(
        f"transformers/{name}",
        model(name, config, **more),
        (2, frames, WIDTH),
        "windows",
        source,
        package="transformers",
        time_dim=1,
        options={"output": -1},
    )


HYBRID = GROUPED | {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_chunk_size": 8, "mamba_n_groups": 1}
GPT2 = {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "vocab_size": 50, "n_positions": 64}
NETWORKS = [
    causal("Llama", "Touvron 2023, arXiv:2302.13971", GROUPED),
    causal("Mistral", "Jiang 2023, arXiv:2310.06825", GROUPED | {"sliding_window": 5}, 16),
    causal("Qwen2", "Yang 2024, arXiv:2407.10671", GROUPED),
    causal("Qwen3", "Yang 2025, arXiv:2505.09388", GROUPED | {"head_dim": 8}),
    causal("Gemma", "Mesnard 2024, arXiv:2403.08295", GROUPED | {"head_dim": 8}),
    causal("Gemma2", "Riviere 2024, arXiv:2408.00118", GROUPED | {"head_dim": 8, "sliding_window": 5}, 16, single=True),
    causal("Phi3", "Abdin 2024, arXiv:2404.14219", GROUPED | {"pad_token_id": 0}),
    causal("StableLm", "Bellagente 2024, arXiv:2402.17834", GROUPED),
    causal("Starcoder2", "Lozhkov 2024, arXiv:2402.19173", GROUPED),
    causal("Olmo2", "Groeneveld 2024, ACL", GROUPED),
    causal("Cohere", "Cohere 2024, Command R", GROUPED),
    causal("Granite", "Mishra 2024, arXiv:2405.04324", GROUPED),
    causal("SmolLM3", "Bakouch 2025, SmolLM3", GROUPED | {"pad_token_id": 0}),
    causal("GPT2", "Radford 2019, OpenAI", GPT2),
    causal("GPTNeoX", "Black 2022, arXiv:2204.06745", SMALL),
    causal("GPTJ", "Wang 2021, GPT-J", GPT2 | {"rotary_dim": 4}),
    causal(
        "GPTNeo",
        "Black 2021, GPT-Neo",
        {
            "hidden_size": WIDTH,
            "num_layers": 2,
            "num_heads": 2,
            "vocab_size": 50,
            "window_size": 5,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": 64,
        },
        16,
    ),
    causal(
        "OPT",
        "Zhang 2022, arXiv:2205.01068",
        {
            "hidden_size": WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "ffn_dim": 32,
            "vocab_size": 50,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": WIDTH,
        },
    ),
    causal("Bloom", "Le Scao 2022, arXiv:2211.05100", {"hidden_size": WIDTH, "n_layer": 2, "n_head": 2, "vocab_size": 50}),
    causal("Mpt", "MosaicML 2023, MPT", {"d_model": WIDTH, "n_layers": 2, "n_heads": 2, "vocab_size": 50, "max_seq_len": 64}),
    causal(
        "Falcon, ALiBi",
        "Almazrouei 2023, arXiv:2311.16867",
        {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50, "alibi": True},
        kind="Falcon",
    ),
    causal("Mamba", "Gu 2024, COLM", {"hidden_size": WIDTH, "num_hidden_layers": 2, "vocab_size": 50, "state_size": 4}),
    causal(
        "Mamba2",
        "Dao 2024, ICML",
        {
            "hidden_size": WIDTH,
            "num_hidden_layers": 1,
            "vocab_size": 50,
            "state_size": 4,
            "num_heads": 4,
            "head_dim": 8,
            "n_groups": 1,
            "chunk_size": 8,
        },
        16,
        single=True,
    ),
    causal("Bamba", "IBM 2024, Bamba", HYBRID | {"attn_layer_indices": [1]}, 16, single=True),
    causal(
        "GraniteMoeHybrid",
        "IBM 2025, Granite 4.0",
        HYBRID | {"layer_types": ["mamba", "attention"], "shared_intermediate_size": 32, "num_local_experts": 0},
        16,
        single=True,
    ),
    causal(
        "FalconMamba",
        "Zuo 2024, arXiv:2410.05355",
        {"hidden_size": WIDTH, "num_hidden_layers": 1, "vocab_size": 50, "state_size": 4},
    ),
    causal("Rwkv", "Peng 2023, EMNLP", {"hidden_size": WIDTH, "num_hidden_layers": 2, "vocab_size": 50, "context_length": 64}),
    causal(
        "RecurrentGemma",
        "De 2024, arXiv:2402.19427",
        {
            "hidden_size": WIDTH,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "intermediate_size": 48,
            "vocab_size": 50,
            "lru_width": WIDTH,
            "attention_window_size": 6,
        },
    ),
    causal(
        "xLSTM",
        "Beck 2024, NeurIPS",
        {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_heads": 2, "vocab_size": 50, "chunk_size": 8, "num_blocks": 1},
        16,
        single=True,
    ),
    causal(
        "Lfm2",
        "Liquid AI 2025, LFM2",
        GROUPED | {"layer_types": ["conv", "full_attention"], "block_ff_dim": 32, "block_multiple_of": 4, "conv_L_cache": 3},
    ),
    causal("BioGpt", "Luo 2022, Brief. Bioinform.", SMALL | {"max_position_embeddings": 64}),
    causal("DiffLlama", "Ye 2025, ICLR", SMALL | {"num_key_value_heads": 2}),
    both("Bert", "Devlin 2019, NAACL", SMALL),
    both("Roberta", "Liu 2019, arXiv:1907.11692", SMALL | {"max_position_embeddings": 64}),
    both(
        "DistilBert", "Sanh 2019, NeurIPS EMC2", {"dim": WIDTH, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 50}
    ),
    both("Electra", "Clark 2020, ICLR", SMALL | {"embedding_size": WIDTH}),
    both("ModernBert", "Warner 2025, ACL", SMALL | {"pad_token_id": 0, "local_attention": 6}, 16),
    both("RoFormer", "Su 2024, Neurocomputing", SMALL | {"embedding_size": WIDTH}),
    both("FNet", "Lee-Thorp 2022, NAACL", SMALL),
    both("XLNet", "Yang 2019, NeurIPS", {"d_model": WIDTH, "n_layer": 2, "n_head": 2, "d_inner": 32, "vocab_size": 50}),
]
