"""How many times too large are the gradients of stock fine-tuning heads under accumulation, before and after the cure?

    python benchmarks/loss_scaling.py                               every head of every architecture: minutes
    python benchmarks/loss_scaling.py --heads sequence token --architectures bert roberta

Each model trains one step with the stock Trainer on the same eight examples, as one batch and as four, without
dropout. The figure is the norm of the gradients of the second over that of the first, and should be 1; "before" is the
model as it comes, "after" the same after `correct_loss_scaling(model)`. "told" says whether the Trainer passes
`num_items_in_batch`, "honours" whether the loss changes with it. What cannot be built or run small is named below.
"""

import contextlib
import io
import logging
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from _harness import Ratio, parser, report
from transformers import AutoConfig, Trainer, TrainingArguments
from transformers.models.auto import modeling_auto

from hf_nlpnotes.training.loss_probe import honours_num_items
from hf_nlpnotes.training.loss_scaling import correct_loss_scaling

HEADS = {
    "sequence": ("SEQUENCE_CLASSIFICATION", "AutoModelForSequenceClassification"),
    "token": ("TOKEN_CLASSIFICATION", "AutoModelForTokenClassification"),
    "question-answering": ("QUESTION_ANSWERING", "AutoModelForQuestionAnswering"),
    "multiple-choice": ("MULTIPLE_CHOICE", "AutoModelForMultipleChoice"),
    "masked-lm": ("MASKED_LM", "AutoModelForMaskedLM"),
    "causal-lm": ("CAUSAL_LM", "AutoModelForCausalLM"),
}
LENGTH, EXAMPLES, ACCUMULATION, LARGEST = 16, 8, 4, 3_000_000

# Whatever a configuration calls its sizes; a name that it does not have is left out.
SIZES: dict[str, Any] = {
    "vocab_size": 60,
    **dict.fromkeys(("hidden_size", "d_model", "dim", "emb_dim", "embedding_size", "embedding_rank", "n_embd"), 16),
    **dict.fromkeys(("input_embedding_size", "output_embedding_size", "entity_emb_size"), 16),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "num_layers", "encoder_layers", "decoder_layers", "n_layer"), 2),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_heads", "num_key_value_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "num_decoder_layers"), 2),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "feed_forward_size", "d_inner", "d_ff", "n_inner"), 32),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim"), 32),
    **dict.fromkeys(("head_dim", "d_kv", "rotary_dim"), 8),
    **dict.fromkeys(("eos_token_id", "sep_token_id"), 2),
    "pad_token_id": 0,
    "bos_token_id": 1,
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    "entity_vocab_size": 8,
    "coordinate_size": 2,
}
EXTRA: dict[str, dict[str, Any]] = {
    "esm": {"token_dropout": False},
    "funnel": {"block_sizes": [1, 1], "d_head": 8},
    "layoutlm": {"max_2d_position_embeddings": 16},
    "layoutlmv3": {"shape_size": 4, "input_size": 32, "visual_embed": False},
    "lilt": {"hidden_size": 24, "channel_shrink_ratio": 2},
    "longformer": {"attention_window": 8},
    "mobilebert": {"hidden_size": 32, "intra_bottleneck_size": 16},
    "perceiver": {"num_latents": 4, "d_latents": 16, "num_self_attends_per_block": 1, "max_position_embeddings": 16}
    | {"num_self_attention_heads": 2, "num_cross_attention_heads": 2},
    "reformer": {"axial_pos_embds_dim": (4, 12), "axial_pos_shape": (4, 4), "attention_head_size": 8}
    | {"attn_layers": ["local", "local"], "local_attn_chunk_length": 8, "max_position_embeddings": LENGTH},
    "roc_bert": {"pronunciation_embed_dim": 8, "pronunciation_vocab_size": 60, "shape_embed_dim": 8}
    | {"shape_vocab_size": 60},
    **{key: {"decoder_start_token_id": 0} for key in ("t5", "mt5", "umt5")},
    "xmod": {"default_language": "en_XX"},
}


@dataclass(frozen=True)
class Row:
    """One model and its figures."""

    architecture: str
    head: str
    told: bool
    honours: bool
    before: float
    after: float


def built(architecture: str, head: str) -> Any:
    """Build a small random model without dropout."""
    auto_class = getattr(transformers, HEADS[head][1])
    config_class = type(AutoConfig.for_model(architecture))
    defaults = config_class().to_dict()
    known = {*defaults, *config_class.attribute_map}
    options = {key: value for key, value in SIZES.items() if key in known}
    options |= {key: 0.0 for key, value in defaults.items() if "drop" in key and isinstance(value, float)}
    config = config_class(**{**options, **EXTRA.get(architecture, {})})
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in auto_class.from_config(config).parameters())
    if parameters > LARGEST:
        raise ValueError(f"{parameters:,} parameters at its smallest here")
    torch.manual_seed(0)
    return auto_class.from_config(config)


def examples(head: str) -> list[dict[str, Any]]:
    """Return eight examples with separators where Longformer looks for them and an end where BART does."""
    ids = torch.randint(5, 55, (EXAMPLES, LENGTH), generator=torch.Generator().manual_seed(0))
    ids[:, [4, 5, -1]] = 2
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(ids):
        inputs: dict[str, Any] = {"input_ids": row, "attention_mask": torch.ones_like(row)}
        if head == "question-answering":
            inputs |= {"start_positions": number % 3, "end_positions": 3 + number % 3}
        elif head == "multiple-choice":
            inputs = {key: value.repeat(2, 1) for key, value in inputs.items()} | {"labels": number % 2}
            inputs["input_ids"][1, 7] = 7
        else:
            inputs["labels"] = {"sequence": number % 2, "token": row % 2}.get(head, row)
        rows.append(inputs)
    return rows


def grad_norm(model: Any, head: str, accumulation: int, folder: str) -> float:
    """Train one step that changes nothing and return the norm of its gradients."""
    args = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=EXAMPLES // accumulation,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        learning_rate=0.0,
        max_grad_norm=1e9,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model=model, args=args, train_dataset=examples(head))
    trainer.train()
    return next(float(entry["grad_norm"]) for entry in trainer.state.log_history if "grad_norm" in entry)


def measure(architecture: str, head: str, folder: str) -> Row:
    """Measure one head of one architecture."""
    model = built(architecture, head)
    whole = grad_norm(model, head, 1, folder)
    if whole < 1e-6:  # MRA's attention is all zeros without its CUDA kernel: the choices are equal
        raise ValueError(f"gradients of norm {whole:.1e} are rounding errors")
    before = grad_norm(model, head, ACCUMULATION, folder) / whole
    honours = honours_num_items(model)
    told = bool(Trainer(model=model, args=TrainingArguments(folder, use_cpu=True)).model_accepts_loss_kwargs)
    mended = correct_loss_scaling(model)
    after = grad_norm(model, head, ACCUMULATION, folder) / whole if mended else before
    return Row(architecture, head, told, honours, before, after)


def measured_or_reason(architecture: str, head: str, folder: str) -> Row | str:
    """Measure, or say why that cannot be done."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the Trainer prints its logs
            return measure(architecture, head, folder)
    except Exception as error:  # noqa: BLE001  (any architecture's own reason not to be built or run)
        return f"{architecture} {head}: {type(error).__name__}: {' '.join(str(error).split())[:100]}"


def line(row: Row | str) -> str:
    """Return what was found about one model as a line of the table."""
    if isinstance(row, str):
        return f"not measured: {row}"
    told, honours = ("yes" if flag else "no" for flag in (row.told, row.honours))
    return f"{row.architecture:<24} {row.head:<20} {told:<5} {honours:<7} {row.before:>7.3f} {row.after:>7.3f}"


def main() -> int:
    """Print the table, what is missing from it and the worst figure after the cure."""
    options = parser(__doc__)
    options.add_argument("--heads", nargs="+", choices=list(HEADS), default=list(HEADS)[:-1])
    options.add_argument("--architectures", nargs="+", default=None, help="only these (default: every one)")
    args = options.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    rows: list[Row] = []
    missing: list[str] = []
    if not args.json:
        print(f"{'architecture':<24} {'head':<20} {'told':<5} {'honours':<7} {'before':>7} {'after':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for head in args.heads:
            names = sorted(getattr(modeling_auto, f"MODEL_FOR_{HEADS[head][0]}_MAPPING_NAMES"))
            for name in (name for name in names if args.architectures is None or name in args.architectures):
                found = measured_or_reason(name, head, folder)
                if not args.json:
                    print(line(found), flush=True)
                if isinstance(found, Row):
                    rows.append(found)
                else:
                    missing.append(found)
    if not rows:
        print("\n".join(missing) or "no such head", file=sys.stderr)
        return 1
    if not args.json:
        for head in args.heads:
            counts = Counter((row.before > 1.5, row.after > 1.5) for row in rows if row.head == head)
            wrong, still = sum(n for (w, _), n in counts.items() if w), sum(n for (_, s), n in counts.items() if s)
            print(f"{head}: {counts.total()} measured, {wrong} too large before, {still} after")
    worst = max(rows, key=lambda row: max(row.after, 1 / row.after))
    details = {"models": len(rows), "missing": len(missing), "worst": f"{worst.architecture} {worst.head}"}
    details |= {"wrong_before": sum(row.before > 1.5 for row in rows)}
    ratio = Ratio("loss_scaling", max(worst.after, 1 / worst.after), 1.01, at_most=True, details=details)
    return report([ratio], as_json=args.json, packages=("torch", "transformers", "accelerate"))


if __name__ == "__main__":
    sys.exit(main())
