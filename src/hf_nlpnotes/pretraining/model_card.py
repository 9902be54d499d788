"""The card of a pretrained model, written from what was measured: figures, recipe, sources with licences, examples."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

PROBES = (
    "今天天气很[MASK]。",
    "中国的首都是北[MASK]。",
    "我[MASK]欢看电影。",
    "他是一名[MASK]生，在医院工作。",
    "这家酒店的服务[MASK]好，房间很干净。",
    "新[MASK]社北京一月一日电。",
    "请问去火车[MASK]怎么走？",
    "北京[MASK]学是一所著名的大学。",
    "把鸡蛋打散，加入[MASK]糖搅拌均匀。",
    "人[MASK]智能正在改变世界。",
)
"""One hidden character each; the card shows the model's three best, whatever they are."""

_HEADER = """---
language: zh
library_name: transformers
pipeline_tag: fill-mask
{licence}tags: [{tags}]
mask_token: "{mask}"
---
"""

_LICENCE = "license: other\nlicense_name: see-sources\n"
_TIMED_HEAD = "| stage | step | minutes | loss | whole words | single |"
_USE = """```python
import hf_nlpnotes
from transformers import pipeline

pipeline("fill-mask", model="{name}")("今天天气很[MASK]。")
```"""

_OVERLAP = """## Evaluation text that was kept out

Lines that share long windows of characters with evaluation files were dropped from the training text.

```
{}
```
"""


@torch.no_grad()
def fill_masks(
    model: Any, tokenizer: Any, sentences: Sequence[str], *, best: int = 3
) -> list[list[tuple[str, float]]]:
    """The `best` tokens for the first mask of each sentence, with their probabilities."""
    result = []
    for sentence in sentences:
        batch = tokenizer(sentence, return_tensors="pt")
        at = int((batch["input_ids"][0] == tokenizer.mask_token_id).nonzero()[0])
        top = model(**batch).logits[0, at].float().softmax(-1).topk(best)
        tokens = tokenizer.convert_ids_to_tokens(top.indices.tolist())
        result.append(list(zip(tokens, top.values.tolist(), strict=True)))
    return result


def write_card(
    folder: str | os.PathLike[str],
    *,
    accuracy: Mapping[str, float],
    history: Mapping[str, Sequence[Mapping[str, Any]]],
    sources: Sequence[Mapping[str, Any]],
    options: Mapping[str, str],
    training_tokens: int | None,
    name: str | None = None,
    base: str | None = None,
    device: str = "cpu",
    about: str = "",
    note: str = "",
    overlap: str = "",
    limits: str = "",
    sheet: str = "",
    sentences: Sequence[str] = PROBES,
) -> None:
    """Write `README.md` into a model's folder, whole or not at all.

    Args:
        folder: a saved model with its tokenizer; its answers to `sentences` are measured here.
        accuracy: of `held_out.masked_accuracy`, measured on this folder.
        history: for each stage what the Trainer logged (`state.log_history`: `step`, `loss`, `eval_single`,
            `eval_whole_words`; `minutes` where known).
        sources: entries of the corpus's manifest: `source`, `repo`, `licence`, `topic`, `chars`.
        options: of the training script.
        training_tokens: tokens of the text, each epoch; None where it was streamed.
        name: of the model (default: the folder's).
        base: the model that it was trained on from, a name or a folder; None: from scratch.
        device: what it was trained on: "cpu", "cuda", ….
        about: what the model is for, as Markdown, in the place of a line of code that loads it.
        note: a line on what was done otherwise than the options say.
        overlap: report of what was dropped because evaluation files have it, as plain text.
        limits: what the model is no good for, as Markdown.
        sheet: further figures, as Markdown.
        sentences: to fill in, with one ``[MASK]`` each; those that are too long for the model are left out.
    """
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    folder = Path(folder)
    model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    positions = model.config.max_position_embeddings
    sentences = [text for text in sentences if len(tokenizer(text, verbose=False)["input_ids"]) <= positions]
    answers = fill_masks(model, tokenizer, [text.replace("[MASK]", tokenizer.mask_token) for text in sentences])
    tags = [
        model.config.model_type,
        "hf_nlpnotes",
        *(["pinyin", "glyph"] if model.config.model_type == "chinesebert" else []),
    ]
    parts = [
        _HEADER.format(tags=", ".join(tags), mask=tokenizer.mask_token, licence=_LICENCE if sources else ""),
        _introduction(model, folder, name or folder.name, base, device, about),
        _accuracy(accuracy, options),
        *([sheet] if sheet else []),
        _probes(sentences, answers),
        _recipe(history, options, training_tokens, note),
        *([_OVERLAP.format(overlap)] if overlap else []),
        _sources(sources),
        *([f"## Limits\n\n{limits}\n"] if limits else []),
    ]
    temporary = folder / "README.md.tmp"
    try:
        temporary.write_text("\n".join(parts), encoding="utf-8")
        os.replace(temporary, folder / "README.md")
    finally:
        temporary.unlink(missing_ok=True)


def _introduction(model: Any, folder: Path, name: str, base: str | None, device: str, about: str) -> str:
    config, chinese = model.config, model.config.model_type == "chinesebert"
    kind = "A ChineseBERT (Sun et al. 2021: character, pinyin and glyph fused)" if chinese else "A BERT"
    trained = "on a CPU only" if device == "cpu" else f"on {device}"
    start = f"further from `{Path(base).name if Path(base).is_dir() else base}`" if base else "from scratch"
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    megabytes = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6
    stored = "float16, glyphs as bits" if chinese and config.glyph_storage == "bits" else "float16"
    return f"""# {name}

{kind}, pretrained {start} with `hf_nlpnotes`, {trained}.
{config.num_hidden_layers} layers x {config.hidden_size}, {config.num_attention_heads} heads, \
{config.max_position_embeddings} positions, {config.vocab_size} tokens, {millions:.1f} M parameters; weights in \
{stored}: {megabytes:.1f} MB.

{about or _USE.format(name=name)}
"""


def _accuracy(accuracy: Mapping[str, float], options: Mapping[str, str]) -> str:
    percent, by = options.get("held_out_percent", "1.0"), options.get("segmenter", "jieba")
    words = "characters" if by == "none" else f"words (by {by})"
    kinds = (
        ("whole words, all of their tokens", "whole_words"),
        ("single: one token of each of those words", "single"),
        ("scattered: any tokens", "scattered"),
    )
    rows = [
        f"| {title} | {accuracy[key]:.1f} | {accuracy[f'{key}_han']:.1f} | {accuracy[f'{key}_tokens']:,.0f} |"
        for title, key in kinds
        if key in accuracy
    ]
    return "\n".join(
        [
            "## Accuracy on held-out text",
            "",
            f"Percent of hidden tokens found. {float(percent):g} % of the lines were held out (by a checksum of the",
            "line; none of the thinned sources); they, or a sample of them, are measured, each by itself and cut at",
            f"the model's length. 15 % of the {words}, or of the tokens, are chosen; all become `[MASK]`, without a",
            "reading.",
            "Measured on this folder, loaded in float32.",
            "",
            "| hidden | all | Han characters alone | tokens |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _probes(sentences: Sequence[str], answers: Sequence[Sequence[tuple[str, float]]]) -> str:
    rows = [
        f"| {sentence} | {'  '.join(f'{token} {probability:.2f}' for token, probability in answer)} |"
        for sentence, answer in zip(sentences, answers, strict=True)
    ]
    head = ["## What it fills in", "", "Not selected by success.", "", "| sentence | three best |", "|---|---|"]
    return "\n".join([*head, *rows, ""])


def _checkpoints(logs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Entries with held-out accuracy, each with the last loss before it."""
    entries: list[dict[str, Any]] = []
    loss = None
    for entry in logs:
        plain = {key.removeprefix("eval_"): value for key, value in entry.items()}
        loss = plain.get("loss", loss)
        if "single" in plain and not (entries and entries[-1].get("step") == plain.get("step")):
            entries.append({"loss": loss, **plain})
    return entries


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _recipe(
    history: Mapping[str, Sequence[Mapping[str, Any]]],
    options: Mapping[str, str],
    training_tokens: int | None,
    note: str,
    most: int = 12,
) -> str:
    timed = any("minutes" in entry for logs in history.values() for entry in logs)
    columns = ("step", *(("minutes",) if timed else ()), "loss", "whole_words", "single")
    rows = []
    for stage, logs in history.items():
        entries = _checkpoints(logs)
        shown = sorted({round(i * (len(entries) - 1) / max(1, most - 1)) for i in range(most)}) if entries else []
        for entry in (entries[i] for i in shown):
            cells = [_cell(entry.get(key)) for key in columns]
            rows.append(f"| {stage} | " + " | ".join(cells) + " |")
    text = "Streamed text" if training_tokens is None else f"Text of {training_tokens:,} tokens"
    return "\n".join(
        [
            "## How it was trained",
            "",
            f"{text}, packed without padding. Losses of different stages are of different tasks and cannot be",
            "compared.",
            "",
            "| stage | step | loss | whole words | single |" if not timed else _TIMED_HEAD,
            "|---|---|---|---|---|" if not timed else "|---|---|---|---|---|---|",
            *rows,
            "",
            "Options: " + ", ".join(f"`{name} {value}`" for name, value in sorted(options.items())) + ".",
            "",
            *([note, ""] if note else []),
        ]
    )


def _sources(sources: Sequence[Mapping[str, Any]]) -> str:
    if not sources:
        return ""
    rows = [f"| {s['source']} | {s['repo']} | {s['licence']} | {s['topic']} | {s['chars']:,} |" for s in sources]
    return "\n".join(
        [
            "## Text and licences",
            "",
            "The licences are those of the sources; where they ask for attribution or for sharing alike, this table",
            "is where they are named.",
            "",
            "| source | repository | licence | topic | characters |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )
