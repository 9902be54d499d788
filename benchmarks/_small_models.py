"""Every model type that transformers can build, made small by the names of its config's fields, with an input for it.

There is no list of models here: a table of patterns says what "small" means for a field ("hidden_size", "n_layer",
"vocab_size", …). Where that does not give a model, the type counts as one that can't be built small, with its reason.
"""

from __future__ import annotations

import copy
import inspect
import re
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CONFIG_MAPPING, MODEL_MAPPING, AutoModel, PreTrainedConfig, PreTrainedModel

WIDTH, HEADS, KEY_HEADS, HEAD_WIDTH, LAYERS, VOCABULARY, POSITIONS, TOKENS = 64, 4, 2, 16, 2, 128, 64, 12
LARGEST = 30_000_000
"""Parameters from which on a model does not count as small."""

# The first pattern that fits a field's whole name gives its value; only whole numbers are replaced.
SMALL: tuple[tuple[str, int], ...] = (
    (r".*(vocab_size|num_embeddings).*", VOCABULARY),
    (r"(max|n)_?(position|ctx|positions).*|max_(source|target)_positions|seq_length|max_sequence_length", POSITIONS),
    (r".*(key_value|kv)_heads?|n_head_kv|num_query_groups|multi_query_group_num", KEY_HEADS),
    (r"q_lora_rank|kv_lora_rank|o_lora_rank", HEAD_WIDTH),
    (r"(qk_nope_|qk_rope_|v_|attention_|global_)?head_dim", HEAD_WIDTH),
    (r"d_kv|d_head|kv_channels|attention_head_size", HEAD_WIDTH),
    (r".*num.*heads?|n_heads?|heads|.*attention_heads|num_attention_heads_.*", HEADS),
    (r"(num|n|encoder|decoder|num_(en|de)coder|num_hidden)_?((hidden|block|encoder|decoder|text)_)?layers?.*", LAYERS),
    (r"depth|num_blocks|.*_num_hidden_layers|.*_depth|layers|num_hidden_groups", LAYERS),
    (r"(num|n)_(local_|routed_|shared_)?experts$|moe_num_experts|num_experts", 4),
    (r"num_experts_per_tok|moe_(k|topk|top_k)|top_k(_experts)?|num_selected_experts|num_experts_per_token", 2),
    (r"n_group|topk_group|n_shared_experts|moe_num_shared_experts|first_k_dense_replace", 1),
    (r".*(intermediate|ffn|inner|mlp|feed_forward|moe).*(size|dim|hidden)|n_inner|d_ff|d_inner", 2 * WIDTH),
    (r"(hidden|d|embed|embedding|model|emb|n)_?(size|model|dim|embd|embed)|dim|width|.*_hidden_size", WIDTH),
    (r".*(embed_dim|embedding_size|projection_dim|projection_size|proj_dim|out_hidden_size|output_dim)", WIDTH),
    (r"(image|img|crop)_size", 32),
    (r"patch_size", 8),
    (r"num_mel_bins|feature_size", 16),
    (r"sliding_window|attention_window|local_attention|window_size|attention_chunk_size", 8),
)  # fmt: skip


@dataclass(frozen=True)
class SmallModel:
    """A model in evaluation mode and one input for it."""

    model: PreTrainedModel
    inputs: dict[str, torch.Tensor]


class CannotBuildError(Exception):
    """The type can't be built small; the message says why."""


def model_types() -> list[str]:
    """Return the model types that have an AutoModel."""
    return sorted(name for name, config in CONFIG_MAPPING.items() if config in MODEL_MAPPING)


def build(model_type: str) -> SmallModel:
    """Return a small random model of a type.

    Raises:
        CannotBuildError: The config does not shrink, or the model does not build or run.
    """
    try:
        config = small_config(CONFIG_MAPPING[model_type]())
        with torch.device("meta"):
            size = sum(p.numel() for p in AutoModel.from_config(copy.deepcopy(config)).parameters())
        if size > LARGEST:
            raise CannotBuildError(f"{size / 1e6:.0f} million parameters")
        torch.manual_seed(0)
        model = AutoModel.from_config(config, dtype=torch.float32).eval()
        enlarge(model)
    except CannotBuildError:
        raise
    except Exception as error:
        raise CannotBuildError(f"{type(error).__name__}: {str(error)[:150]}") from error
    reasons = []
    for inputs in possible_inputs(model):
        reason = why_not(model, inputs)
        if reason is None:
            return SmallModel(model, inputs)
        reasons.append(reason)
    raise CannotBuildError(f"does not run: {'; '.join(reasons)}")


def why_not(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> str | None:
    """Return why the model does not run on `inputs`, None if it does."""
    try:
        with torch.no_grad():
            model(**inputs)
    except Exception as error:  # noqa: BLE001 -- one input of several
        return f"{type(error).__name__}: {str(error)[:150]}"
    return None


def enlarge(model: PreTrainedModel) -> None:
    """Make the weight matrices larger: at their initial size every attention is nearly uniform, and proves little."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(3)


def small_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return `config` with every field that has to do with size made small, in its inner configs too."""
    values = config.to_dict()
    small = {name: small_value(name, value) for name, value in values.items()}
    layers = next(
        (values[n] for n in ("num_hidden_layers", "n_layer", "num_layers") if isinstance(values.get(n), int)), 0
    )
    for name, value in small.items():
        if isinstance(value, list) and value and (len(value) == layers or name.endswith("layer_types")):
            kinds = list(dict.fromkeys(value)) if isinstance(value[0], str) else value
            small[name] = [kinds[i % len(kinds)] for i in range(LAYERS)]
    small["per_layer_config"] = {}
    for name in ("num_key_value_heads", "decoder_num_key_value_heads", "encoder_num_key_value_heads"):
        if values.get(name) in (None, values.get(name.replace("key_value", "attention"))):
            small[name] = values.get(name) and HEADS  # as many keys as queries, not grouped
    small = {k: v for k, v in small.items() if k in values and k not in {"stage_names", "out_features", "out_indices"}}
    for name in config.sub_configs:
        inner = getattr(config, name, None)
        if isinstance(inner, PreTrainedConfig):
            small[name] = small_config(inner).to_dict()
    small = {k: v for k, v in small.items() if k not in {"transformers_version", "architectures", "dtype"}}
    return type(config).from_dict(small)


def small_value(name: str, value: Any) -> Any:
    """Return the small value of one field."""
    if isinstance(value, int) and not isinstance(value, bool):
        if name.endswith(("token_id", "token_index")):
            return value if 0 <= value < VOCABULARY else VOCABULARY - 1 - len(name) % 40
        return next((small for pattern, small in SMALL if re.fullmatch(pattern, name)), value)
    if isinstance(value, dict) and "rope_type" in value:
        return value | {"mrope_section": [2, 3, 3]}  # as long as half a head; those who don't use it don't read it
    if value is None and name == "head_dim":
        return HEAD_WIDTH
    return value


def possible_inputs(model: PreTrainedModel) -> list[dict[str, torch.Tensor]]:
    """Return inputs that the model may run on: text, then what its main input is."""
    generator = torch.Generator().manual_seed(0)
    parameters = inspect.signature(model.forward).parameters
    ids = torch.randint(5, 40, (1, TOKENS), generator=generator)
    text: dict[str, torch.Tensor] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "decoder_input_ids" in parameters:
        text["decoder_input_ids"] = ids[:, :7]
    if "input_ids" in parameters and "attention_mask" not in parameters:
        del text["attention_mask"]
    image = torch.randn(1, 3, 32, 32, generator=generator)
    found: list[dict[str, torch.Tensor]] = []
    if "input_ids" in parameters:
        found.append(text)
        if "pixel_values" in parameters:
            found.append({**text, "pixel_values": image})
    main = model.main_input_name
    decoder = {"decoder_input_ids": ids[:, :7]} if "decoder_input_ids" in parameters else {}
    if main == "pixel_values":
        found.append({"pixel_values": image, **decoder})
    if main == "input_values":
        found.append({"input_values": torch.randn(1, 4000, generator=generator), **decoder})
    if main == "input_features":
        found += [
            {"input_features": torch.randn(1, *s, generator=generator), **decoder} for s in ((16, 128), (128, 16))
        ]
    return found
