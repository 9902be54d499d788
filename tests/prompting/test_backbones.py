"""Every masked language model of transformers: its own logits are the oracle, and the fast path must be taken.

The models are built from their configurations, small and random. What cannot be built, or has no fast path, is listed
with its reason; a new architecture must find its place here.
"""

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from hf_nlpnotes.model_inputs import accepted_inputs, longest_input
from hf_nlpnotes.prompting import WordGroup, mask_positions
from hf_nlpnotes.prompting.predictions import Path, predict_masks, scoring_path
from hf_nlpnotes.prompting.word_scorer import WordScorer

VOCABULARY, LENGTH = 60, 16

# Whatever a configuration calls its sizes; a name that it does not have is left out.
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    **dict.fromkeys(("hidden_size", "d_model", "dim", "emb_dim", "embedding_size", "embedding_rank"), 16),
    **dict.fromkeys(("input_embedding_size", "output_embedding_size", "entity_emb_size"), 16),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_key_value_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "feed_forward_size", "d_inner"), 32),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 32),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 1),
    "max_position_embeddings": 64,
    "entity_vocab_size": 8,
    "head_dim": 8,
}
TEXT = {**{k: v for k, v in SIZES.items() if k in {"vocab_size", "hidden_size", "intermediate_size", "pad_token_id"}}}
TEXT |= {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1}
TEXT |= {"eos_token_id": 1, "cls_token_id": 1, "sep_token_id": 1}
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION |= {"image_size": 32, "patch_size": 8}

# What single architectures need beside.
EXTRA: dict[str, dict[str, Any]] = {
    "funnel": {"block_sizes": [1, 1], "d_head": 8},
    "layoutlm": {"max_2d_position_embeddings": 16},
    "longformer": {"attention_window": 8},
    "mobilebert": {"hidden_size": 32, "intra_bottleneck_size": 16},
    "modernvbert": {"text_config": {"model_type": "modernbert", **TEXT}, "image_token_id": 59}
    | {"vision_config": {"model_type": "siglip_vision_model", **VISION}},
    "neomme": {"head_dim": 16},
    "perceiver": {"num_latents": 4, "d_latents": 16, "num_self_attends_per_block": 1, "max_position_embeddings": 16}
    | {"num_self_attention_heads": 2, "num_cross_attention_heads": 2},
    "reformer": {"axial_pos_embds_dim": (4, 12), "axial_pos_shape": (4, 4), "attention_head_size": 8}
    | {"attn_layers": ["local", "local"], "local_attn_chunk_length": 8, "max_position_embeddings": LENGTH},
    "roc_bert": {"pronunciation_embed_dim": 8, "pronunciation_vocab_size": 60, "shape_embed_dim": 8}
    | {"shape_vocab_size": 60},
    "ultravbert": {"text_config": {"model_type": "ultrabert", **TEXT}, "image_token_id": 59}
    | {"vision_config": {"model_type": "siglip_vision_model", **VISION}},
    "xmod": {"default_language": "en_XX"},
}
UNUSED_INPUTS = {"tapas": "token_type_ids"}  # seven of them a token

# Architecture -> why its output embedding is not read by rows.
SLOWER: dict[str, tuple[Path, str]] = {
    "mobilebert": ("masks", "multiplies with two matrices put together, its output embedding is one of them"),
    "perceiver": ("full", "decodes queries of all positions, with no hidden states of the positions"),
}
# Positions are relative or computed, so that more can be read than the model was trained for.
BEYOND = {"esmc", "eurobert", "gte", "jina_embeddings_v3", "modernbert", "neomme", "nomic_bert", "tapas", "ultrabert"}
# No limit in their configuration.
UNLIMITED = {"funnel", "modernvbert", "ultravbert"}
# Architecture -> why it cannot be built small.
NOT_BUILT: dict[str, str] = {}


def tiny_model(name: str, **changes: Any) -> Any:
    config_class = type(AutoConfig.for_model(name))
    known = set(config_class().to_dict()) | set(config_class.attribute_map)
    sizes = {key: value for key, value in SIZES.items() if key in known}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of padding to the attention window, and the like
        config = config_class(**{**sizes, **EXTRA.get(name, {}), **{k: v for k, v in changes.items() if k in known}})
        torch.manual_seed(0)
        model = MODEL_FOR_MASKED_LM_MAPPING[config_class](config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # a fresh model hardly looks at its input, and its biases are 0
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
        for buffer_name, buffer in model.named_buffers():
            if "logits_bias" in buffer_name:
                buffer.copy_(torch.randn(buffer.shape, generator=generator))
    return model


def batch() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Three rows with one, three and two masks; the second is padded."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, VOCABULARY - 1, (3, LENGTH), generator=generator)
    attention, label_mask = torch.ones_like(ids), torch.zeros_like(ids)
    ids[1, 12:], attention[1, 12:] = 1, 0
    for row, places in enumerate(([4], [1, 2, 3], [9, 10])):
        label_mask[row, places] = 1
        ids[row, places] = 4
    return {"input_ids": ids, "attention_mask": attention, "token_type_ids": torch.zeros_like(ids)}, label_mask


GROUPS = (
    WordGroup(1, (0, 3), ((7,), (9,))),
    WordGroup(2, (2,), ((8, 8),)),
    WordGroup(3, (1, 4), ((11, 12, 13), (14, 12, 15))),
)


@pytest.mark.parametrize("name", sorted(MODEL_FOR_MASKED_LM_MAPPING_NAMES))
def test_scores_are_the_stock_models(name: str) -> None:
    if name in NOT_BUILT:
        pytest.skip(f"{name} cannot be built small: {NOT_BUILT[name]}")
    model = tiny_model(name)
    inputs, label_mask = batch()
    inputs.pop(UNUSED_INPUTS.get(name, ""), None)
    inputs = accepted_inputs(model, inputs)
    positions, counts = mask_positions(label_mask)
    with torch.no_grad():
        stock = model(**inputs).logits
        predictions = predict_masks(model, inputs, positions)
        scores = WordScorer(model, GROUPS, 5)(inputs, positions, counts)
    assert stock[label_mask.bool()].std() > 0.1, "a model without opinions proves nothing"
    assert scoring_path(model, inputs, positions) == SLOWER.get(name, ("rows", ""))[0]
    tokens = torch.arange(VOCABULARY)
    for row, count in enumerate(counts.tolist()):
        logits = stock[row, positions[row, :count]]  # (K, vocabulary)
        torch.testing.assert_close(predictions.logits_of(tokens)[row, :count], logits, atol=1e-5, rtol=0)
        for group in GROUPS:
            for word, ids in zip(group.positions, group.token_ids, strict=True):
                chosen = logits.double()[range(len(ids)), list(ids)] if len(ids) == count else None
                log_prob = 0 if chosen is None else (chosen - logits.double().logsumexp(dim=1)).mean()
                centred = 0 if chosen is None else (chosen - logits.double().mean(dim=1)).mean()
                assert float(scores.log_probs[row, word]) == pytest.approx(float(log_prob), abs=1e-5, rel=0)
                assert float(scores.centred[row, word]) == pytest.approx(float(centred), abs=1e-5, rel=0)


def test_how_many_are_on_the_fast_path() -> None:
    """The parametrized test above asserts the path of each."""
    names = set(MODEL_FOR_MASKED_LM_MAPPING_NAMES)
    fast = names - SLOWER.keys() - NOT_BUILT.keys()
    print(f"{len(names)} architectures, {len(names) - len(NOT_BUILT)} built, {len(fast)} on the fast path")
    assert len(fast) >= 39


CAUSAL: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global"], 2]]},
    "opt": {"word_embed_proj_dim": 16, "ffn_dim": 16},
    "roberta": {"is_decoder": True},
    "xlm-roberta": {"is_decoder": True},
}
NO_LIMIT = SimpleNamespace(model_max_length=10**30)  # a tokenizer's


@torch.no_grad()
def can_read(model: Any, length: int, unused: str = "") -> bool:
    """Whether a prompt of so many tokens, none of them padding, gets its logits."""
    ids = torch.randint(5, VOCABULARY - 1, (1, length), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    inputs.pop(unused, None)
    try:
        return bool(model(**accepted_inputs(model, inputs)).logits.shape[1] == length)
    except (IndexError, RuntimeError, ValueError):
        return False


@pytest.mark.parametrize("pad", [0, 3])
@pytest.mark.parametrize("name", sorted(MODEL_FOR_MASKED_LM_MAPPING_NAMES))
def test_the_longest_input_is_what_the_model_reads(name: str, pad: int) -> None:
    if name in NOT_BUILT:
        pytest.skip(f"{name} cannot be built small: {NOT_BUILT[name]}")
    model = tiny_model(name, pad_token_id=pad)
    limit, unused = longest_input(model, NO_LIMIT), UNUSED_INPUTS.get(name, "")
    if name in UNLIMITED:
        assert limit is None
        return
    assert limit is not None
    assert can_read(model, limit, unused)
    assert can_read(model, limit + 1, unused) == (name in BEYOND)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neo", "opt", "ctrl", "biogpt", "roberta", "xlm-roberta", "openai-gpt"])
def test_the_longest_input_of_causal_models(name: str) -> None:
    sizes = {**SIZES, "n_positions": 24, "max_position_embeddings": 24, "n_embd": 16, "n_layer": 1, "dff": 16}
    known = type(AutoConfig.for_model(name))().to_dict()
    config = AutoConfig.for_model(
        name, **{key: value for key, value in sizes.items() if key in known}, **CAUSAL.get(name, {})
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    limit = longest_input(model, NO_LIMIT)
    assert limit is not None
    assert can_read(model, limit)
    assert not can_read(model, limit + 1)
