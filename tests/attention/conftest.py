"""Small random models of every kind that the attention tests ask for, and a tokenizer for all of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

SIZES: dict[str, Any] = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ENCODER = SIZES | {"intermediate_size": 32, "max_position_embeddings": 64}
DECODER = ENCODER | {"num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
GPT2 = {"vocab_size": 400, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
PAIRS = {"d_model": 32, "decoder_start_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, "vocab_size": 400}

CONFIGS: dict[str, dict[str, Any]] = {
    "bert": ENCODER,
    "roberta": ENCODER | {"pad_token_id": 0},
    "electra": ENCODER | {"embedding_size": 16},
    "albert": ENCODER | {"embedding_size": 16},
    "distilbert": {"vocab_size": 400, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 32},
    "modernbert": ENCODER | {"global_attn_every_n_layers": 2, "local_attention": 4, "pad_token_id": 0},
    "deberta-v2": ENCODER | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 4},
    "gpt2": GPT2 | {"bos_token_id": 2, "eos_token_id": 3},
    "qwen2": DECODER | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "llama": DECODER,
    "gemma2": DECODER | {"query_pre_attn_scalar": 8, "sliding_window": 4, "attn_logit_softcapping": 0.1},
    "gpt_oss": DECODER | {"num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 4},
    "bloom": {"vocab_size": 400, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mpnet": ENCODER,
    "xlnet": {"vocab_size": 400, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 32},
    "xglm": {"vocab_size": 400, "d_model": 32, "ffn_dim": 32, "num_layers": 2, "attention_heads": 4},
    "t5": PAIRS | {"d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 4},
    "bart": PAIRS
    | {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in
       {"layers": 2, "attention_heads": 4, "ffn_dim": 32}.items()}
    | {"max_position_embeddings": 64, "forced_eos_token_id": None},
    "fnet": SIZES | {"intermediate_size": 32},
}  # fmt: skip

MakeModel = Callable[..., PreTrainedModel]


def _make_model(model_type: str, auto: Any = AutoModel, **options: Any) -> PreTrainedModel:
    config = CONFIG_MAPPING[model_type](**{**CONFIGS[model_type], **options})
    torch.manual_seed(0)
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(6)  # at its initial size every attention is uniform
    return model


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    return _make_model


@pytest.fixture(scope="session")
def chinesebert(tiny_chinesebert_folder: Path) -> PreTrainedModel:
    return AutoModel.from_pretrained(tiny_chinesebert_folder).eval()


@pytest.fixture(scope="session")
def tokenizer(tiny_chinesebert_folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
