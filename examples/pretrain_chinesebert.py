r"""Pretrain a ChineseBERT: from scratch on a small budget, or further on your own domain's text.

    # on: a model that is there, two more epochs on your text (any masked LM of BERT's shape; the embedded one here)
    python examples/pretrain_chinesebert.py --data texts/*.txt --output_dir MODEL --num_train_epochs 2 \
        --model_name_or_path chinesebert-small

    # from scratch on two cores, with the warm start
    torchrun --nproc_per_node 2 examples/pretrain_chinesebert.py --data texts --output_dir MODEL --max_steps 10000 \
        --fonts NotoSerifCJK-Regular.ttc#2 LXGWWenKai-Regular.ttf NotoSansCJK-Regular.ttc#2

`--data` takes text files (a paragraph or sentence a line), folders, globs, and data sets of the hub (`owner/name`).
`--exclude` takes files of evaluation data, of which no line shall be trained on. All options of the stock
`TrainingArguments` are there; `python examples/pretrain_chinesebert.py --help` lists them after our own. It runs as it
is on one process, on several (`torchrun`, `accelerate launch`), on CPUs and GPUs.

1. **Text**: read by `datasets`, 1 % of the lines held out, evaluation text dropped, packed once into an Arrow cache of
   full rows with word borders and readings, in random order.
2. **From scratch**: a vocabulary from the text, bitmaps of the vocabulary from three fonts, and a warm start: token
   vectors from co-occurrence counts, heads that look at one offset each, then two short stages in which layer 0
   predicts every position (`--neighbour_steps`, `--attention_steps`). `--warm_start false` begins at random instead.
3. **Masked language modelling** by the stock `Trainer`: whole words and single characters, 15 % of the tokens.
4. **Publish**: the model in float16, its tokenizer, a card and a learning curve, from what was measured.

Killed and started again with the same command, it goes on where its last whole checkpoint was, in the middle of an
epoch too, and comes to the same weights as if it had not been killed. Checkpoints lie in `--work_dir` (default:
OUTPUT_DIR.work); OUTPUT_DIR appears whole, at the end. Needs the extra `pretrain`, and `glyphs` for fonts.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jieba
import numpy as np
import torch
from datasets import Dataset
from torch import distributed
from transformers import (
    AutoConfig,
    AutoTokenizer,
    HfArgumentParser,
    TrainingArguments,
)

import hf_nlpnotes
from hf_nlpnotes.models.chinesebert import ChineseBertConfig, ChineseBertTokenizer
from hf_nlpnotes.models.chinesebert.collator_chinesebert import DataCollatorForChineseBertMaskedLM
from hf_nlpnotes.models.chinesebert.glyphs_chinesebert import read_glyph_font, render_glyphs
from hf_nlpnotes.models.chinesebert.pinyin_reader_chinesebert import PinyinReader
from hf_nlpnotes.pretraining import bfloat16_attention
from hf_nlpnotes.pretraining.every_position import DataCollatorForEveryPosition, EveryPosition, EveryPositionLoss
from hf_nlpnotes.pretraining.fusion_start import start_fusion
from hf_nlpnotes.pretraining.held_out import HeldOut, held_out_rows, masked_accuracy
from hf_nlpnotes.pretraining.learning_curve import plot_learning_curves
from hf_nlpnotes.pretraining.masking_epoch import MaskingEpoch
from hf_nlpnotes.pretraining.model_card import write_card
from hf_nlpnotes.pretraining.offset_heads import DEFAULT_OFFSETS
from hf_nlpnotes.pretraining.overlap import EvaluationText, OverlapReport, drop_overlap
from hf_nlpnotes.pretraining.packing import encode_lines
from hf_nlpnotes.pretraining.rows import cached_rows, endless, training_rows
from hf_nlpnotes.pretraining.sampled_masked_lm import SampledBertForMaskedLM, SampledChineseBertForMaskedLM
from hf_nlpnotes.pretraining.texts import han_share, read_texts, split_held_out, thin
from hf_nlpnotes.pretraining.token_vectors import unigram_log_probabilities
from hf_nlpnotes.pretraining.trainer import AllTokensAtTheEnd, PretrainingTrainer
from hf_nlpnotes.pretraining.vocabulary import build_vocabulary
from hf_nlpnotes.pretraining.warm_start import free_heads, sharpen_heads, warm_start
from hf_nlpnotes.training import claim_folder, last_whole_checkpoint, whole_folder

logger = logging.getLogger("pretrain")
RESERVED = 32  # dimensions that carry the position alone, until the whole model is trained
MASKED = "masked language modelling"


@dataclass
class TextOptions:
    """What to train on."""

    data: list[str] = field(metadata={"help": "text files, folders, globs, data sets of the hub (owner/name)"})
    text_column: str = field(default="text", metadata={"help": "column of data sets that holds the text"})
    encoding: str = field(default="utf-8", metadata={"help": "of text files"})
    streaming: bool = field(
        default=False, metadata={"help": "read while training; wants --model_name_or_path and --max_steps"}
    )
    exclude: list[str] = field(default_factory=list, metadata={"help": "evaluation files to keep out of the text"})
    manifest: str | None = field(
        default=None, metadata={"help": "JSON list of the sources: source, repo, licence, topic, chars; for the card"}
    )
    thin: list[str] = field(
        default_factory=list, metadata={"help": "SOURCE=SHARE …: keep a share of these sources' lines, hold out none"}
    )
    held_out_percent: float = field(default=1.0, metadata={"help": "of the lines, chosen by their text alone"})
    held_out_lines: int = field(default=1000, metadata={"help": "lines that are measured"})
    length: int = field(default=128, metadata={"help": "tokens a row"})
    single_share: float = field(default=0.1, metadata={"help": "rows of one line alone; the others are packed full"})
    segmenter: str = field(default="jieba", metadata={"help": "words for whole-word masking: jieba, or none"})
    processes: int = field(default=1, metadata={"help": "processes that prepare the text"})


@dataclass
class ModelOptions:
    """What to train, and how."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "model to go on from: a folder, a name on the hub, or chinesebert-small"}
    )
    work_dir: str | None = field(default=None, metadata={"help": "folder of caches and checkpoints"})
    vocab_size: int = field(default=8000, metadata={"help": "from scratch: tokens at most"})
    layers: int = field(default=4, metadata={"help": "from scratch"})
    hidden_size: int = field(default=256, metadata={"help": "from scratch"})
    heads: int = field(default=8, metadata={"help": "from scratch; the warm start wants 8"})
    fonts: list[str] = field(default_factory=list, metadata={"help": "three FILE or FILE#FACE; none: blank glyphs"})
    warm_start: bool = field(default=True, metadata={"help": "from scratch: begin with counts and formulas"})
    neighbour_steps: int = field(default=800, metadata={"help": "steps of stage A: layer 0 by exact shifts"})
    attention_steps: int = field(default=1500, metadata={"help": "steps of stage B: layer 0 by its own attention"})
    mlm_probability: float = field(default=0.15, metadata={"help": "tokens to predict; 0.3 learns faster at first"})
    whole_word_share: float = field(default=0.9, metadata={"help": "rows in which whole words are masked"})
    negatives: int | None = field(
        default=None, metadata={"help": "random tokens to compare with for 3/4 of the steps; default: all tokens"}
    )
    muon: bool = field(default=True, metadata={"help": "Muon for the matrices; else what --optim says"})
    note: str = field(default="", metadata={"help": "a line for the card"})


def bfloat16_is_fast() -> bool:
    """Whether this machine multiplies matrices in bfloat16 faster than in float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported()


@dataclass
class PretrainingArguments(TrainingArguments):
    """The stock arguments with other defaults."""

    per_device_train_batch_size: int = 32
    learning_rate: float = 6e-4
    warmup_steps: float = 50
    lr_scheduler_type: str = "linear"
    save_steps: float = 250
    save_total_limit: int | None = 2
    eval_strategy: str = "steps"
    eval_steps: float | None = 250
    logging_steps: float = 25
    report_to: str = "none"
    remove_unused_columns: bool | None = False
    dataloader_pin_memory: bool = torch.cuda.is_available()
    use_cpu: bool = not torch.accelerator.is_available()
    bf16: bool = bfloat16_is_fast()


# ---------------------------------------------------------------------------------------------------------------- text


def read(options: TextOptions) -> tuple[Any, Any, OverlapReport | None]:
    """Lines to train on, lines held out, and what was dropped because evaluation files have it (None: not asked)."""
    lines = read_texts(
        options.data, encoding=options.encoding, text_column=options.text_column, streaming=options.streaming
    )
    if (share := han_share(lines)) < 0.05:
        raise SystemExit(f"{share:.1%} of the characters are Han characters: expected Chinese text; check --data")
    shares = shares_of(options.thin)
    train, held_out = split_held_out(lines, options.held_out_percent, of=lambda source: source not in shares)
    train = thin(train, shares, seed=0) if shares else train
    report = None
    if options.exclude:
        train, report = drop_overlap(train, EvaluationText.from_files(options.exclude), options.processes)
        logger.info(
            "%s", report or "a stream is compared with the evaluation files while it is read, without a report"
        )
    return train, held_out, report


def shares_of(items: list[str]) -> dict[str, float]:
    """SOURCE=SHARE … as a dict."""
    try:
        return {source: float(share) for source, share in (item.rsplit("=", 1) for item in items)}
    except ValueError:
        raise SystemExit(f"--thin {' '.join(items)}: expected SOURCE=SHARE …, for example docs=0.3") from None


def measure_on(held_out: Any, tokenizer: Any, options: TextOptions) -> HeldOut:
    """A sample of the held-out lines as rows."""
    jieba.setLogLevel("WARNING")
    texts = [row["text"] for row in (held_out.take(options.held_out_lines) if options.streaming else held_out)]
    sample = np.random.default_rng(0).permutation(len(texts))[: options.held_out_lines]
    reader = PinyinReader(tokenizer.readings).read_text if "pinyin_ids" in tokenizer.model_input_names else None
    words = jieba.cut if options.segmenter == "jieba" else None
    streams = [encode_lines([texts[i]], tokenizer.backend_tokenizer, words, reader) for i in sorted(sample)]
    return held_out_rows(
        streams, options.length, cls_token_id=tokenizer.cls_token_id, sep_token_id=tokenizer.sep_token_id
    )


# --------------------------------------------------------------------------------------------------------------- model


def find_start(name: str) -> str:
    """The embedded model by its own name; anything else as it is."""
    return hf_nlpnotes.EMBEDDED_MODEL if name == Path(hf_nlpnotes.EMBEDDED_MODEL).name else name


def new_tokenizer(lines: Any, options: ModelOptions, length: int) -> Any:
    """A vocabulary from the text."""
    vocabulary = build_vocabulary((row["text"] for row in lines), options.vocab_size)
    return ChineseBertTokenizer(
        vocab={token: number for number, token in enumerate(vocabulary)}, model_max_length=length
    )


def new_model(tokenizer: Any, options: ModelOptions, length: int) -> SampledChineseBertForMaskedLM:
    """A ChineseBERT with its tables of readings and bitmaps; without dropout, which little training needs."""
    config = ChineseBertConfig(
        vocab_size=len(tokenizer), hidden_size=options.hidden_size, num_hidden_layers=options.layers,
        num_attention_heads=options.heads, intermediate_size=4 * options.hidden_size, max_position_embeddings=length,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, layer_norm_eps=1e-12,
        pad_token_id=tokenizer.pad_token_id, glyph_storage="bits", pinyin_table_size=len(tokenizer.pinyin_table),
    )  # fmt: skip
    torch.manual_seed(0)
    model = SampledChineseBertForMaskedLM(config)
    model.set_readings(tokenizer.pinyin_table, tokenizer.default_pinyin_ids)
    if options.fonts:
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        model.set_glyphs(render_glyphs(tokens, options.fonts, missing="fallback"))
    return model


def load(folder: str) -> Any:
    """A model to go on from, without dropout."""
    known = {"chinesebert": SampledChineseBertForMaskedLM, "bert": SampledBertForMaskedLM}
    kind = AutoConfig.from_pretrained(folder).model_type
    if kind not in known:
        raise SystemExit(f"{folder} is a model of type {kind!r}: expected one of {sorted(known)}")
    without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return known[kind].from_pretrained(folder, dtype=torch.float32, **without)


# ------------------------------------------------------------------------------------------------------------ training


def check(text: TextOptions, model: ModelOptions, arguments: PretrainingArguments) -> None:
    """Refuse what cannot work before anything is read."""
    out = Path(arguments.output_dir)
    if out.is_mount():
        raise SystemExit(f"{out} is a mount point, which cannot be replaced: name a folder inside it")
    if out.exists() and any(out.iterdir()) and not (out / "config.json").exists():
        raise SystemExit(f"{out} holds other files and would be replaced with all in it: name a new folder")
    shares_of(text.thin)
    if text.segmenter not in ("jieba", "none"):
        raise SystemExit(f"--segmenter {text.segmenter}: expected jieba or none")
    if text.streaming and (not model.model_name_or_path or arguments.max_steps <= 0 or model.negatives):
        raise SystemExit(
            "--streaming reads the text once, while training: it wants --model_name_or_path and --max_steps, and no "
            "--negatives, which need the frequencies of all tokens beforehand"
        )
    launched = [os.environ.get(f"ACCELERATE_USE_{name}") == "true" for name in ("FSDP", "DEEPSPEED")]
    if model.muon and (arguments.fsdp or arguments.deepspeed or any(launched)):
        raise SystemExit("Muon works on whole matrices: with FSDP or DeepSpeed pass --muon false")
    if not model.model_name_or_path and model.warm_start and model.heads != len(DEFAULT_OFFSETS):
        raise SystemExit(
            f"--heads {model.heads}: the warm start wants {len(DEFAULT_OFFSETS)}; pass --warm_start false"
        )


SHAPING = (
    "max_steps", "num_train_epochs", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "optim",
    "per_device_train_batch_size", "gradient_accumulation_steps", "world_size", "seed", "bf16", "fp16",
)  # fmt: skip
"""Training arguments that the weights depend on."""
FREE = ("work_dir", "note", "manifest", "processes")
"""Our options on which they do not."""


class Training:
    """What the stages share: options, text, the held-out rows, and where things lie."""

    def __init__(self, text: TextOptions, model: ModelOptions, arguments: PretrainingArguments) -> None:
        self.text, self.options, self.arguments = text, model, arguments
        self.work = Path(model.work_dir or f"{str(arguments.output_dir).rstrip('/')}.work")
        self.work.mkdir(parents=True, exist_ok=True)
        self.logs: dict[str, list[dict[str, Any]]] = {}
        stated = {**dataclasses.asdict(text), **dataclasses.asdict(model)}
        stated |= {name: getattr(arguments, name) for name in SHAPING}
        self.stated = {name: str(value) for name, value in stated.items() if name not in FREE}

    def prepare(self) -> None:
        """Text → rows, once, by the first process; the others wait and read what it made."""
        with self.arguments.main_process_first(desc="text"):
            lines, held_out, self.overlap = read(self.text)
            text = "" if self.text.streaming else lines._fingerprint  # of the files and of what was done to them
            claim_folder(self.work, {**self.stated, "text": text})
            folder = self.work / "tokenizer"
            if self.options.model_name_or_path:
                self.tokenizer = AutoTokenizer.from_pretrained(find_start(self.options.model_name_or_path))
            elif folder.exists():
                self.tokenizer = AutoTokenizer.from_pretrained(folder)
            else:
                with whole_folder(folder) as made:
                    new_tokenizer(lines, self.options, self.text.length).save_pretrained(made)
                self.tokenizer = AutoTokenizer.from_pretrained(folder)
            pack = lambda: training_rows(  # noqa: E731
                lines, self.tokenizer, length=self.text.length, single_share=self.text.single_share,
                segmenter=None if self.text.segmenter == "none" else self.text.segmenter, seed=0,
                num_proc=self.text.processes,
            )  # fmt: skip
            if self.text.streaming:
                self.rows: Any = endless(pack().shuffle(seed=0, buffer_size=1000))
            else:
                options = (self.text.length, self.text.single_share, self.text.segmenter)
                self.rows = cached_rows(
                    self.work, {"lines": lines, "tokenizer": self.tokenizer, "options": options}, pack
                )
        self.held_out = measure_on(held_out, self.tokenizer, self.text)
        if isinstance(self.rows, Dataset):
            chunks = self.rows.data.column("input_ids").chunks
            self.ids = np.concatenate([chunk.flatten().to_numpy() for chunk in chunks])
            self.unigram = unigram_log_probabilities(self.ids, len(self.tokenizer)).exp()
            logger.info("%s rows, %s tokens", f"{len(self.rows):,}", f"{len(self.ids):,}")

    def accuracy(self, model: Any) -> dict[str, float]:
        """Held-out accuracy of a model as it is now."""
        tokens = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        return masked_accuracy(model, self.held_out, tokens, self.tokenizer.mask_token_id)

    def stage(
        self, name: str, model: Any, trained: Any, collate: Any, muon: bool, callbacks: Any, **changes: Any
    ) -> None:
        """Train `trained`, a part of `model` or all of it; go on where it was; load its result if it is done."""
        arguments = copy.copy(self.arguments)
        arguments.output_dir = str(self.work / name.replace(" ", "-"))
        for key, value in changes.items():
            setattr(arguments, key, value)
        done = Path(arguments.output_dir) / "done"
        if done.exists():
            model.load_state_dict(type(model).from_pretrained(done).state_dict())
            self.logs[name] = json.loads((done / "log_history.json").read_text(encoding="utf-8"))
            return
        trainer = PretrainingTrainer(
            trained,
            arguments,
            collate,
            self.rows,
            measure=lambda: self.accuracy(model),
            muon=muon,
            callbacks=callbacks,
        )
        last = last_whole_checkpoint(arguments.output_dir, world_size=arguments.world_size)
        if last:
            logger.info("%s goes on from %s", name, last)
        trainer.train(resume_from_checkpoint=last)
        trainer.evaluate()
        self.logs[name] = trainer.state.log_history
        if trainer.is_world_process_zero():
            with whole_folder(done) as made:
                model.save_pretrained(made)
                (made / "log_history.json").write_text(json.dumps(self.logs[name]), encoding="utf-8")
        trainer.accelerator.wait_for_everyone()

    def begin(self) -> Any:
        """The model before masked language modelling."""
        if self.options.model_name_or_path:
            return load(find_start(self.options.model_name_or_path))
        folder = self.work / "start"
        with self.arguments.main_process_first(desc="start"):
            if not folder.exists():
                model = new_model(self.tokenizer, self.options, self.text.length)
                if self.options.warm_start:
                    warm_start(model, self.ids, reserved=RESERVED)
                    start_fusion(model.bert.embeddings, reserved=RESERVED)
                with whole_folder(folder) as made:
                    model.save_pretrained(made)
        model = load(str(folder)).to(self.arguments.device)
        if self.options.warm_start:
            self.every_position(model, "neighbours", True, self.options.neighbour_steps)
            full = [row for row in self.rows[:64]["input_ids"] if len(row) == self.text.length]
            ids = torch.tensor(full, device=self.arguments.device)
            sharpen_heads(model, ids, self.tokenizer.mask_token_id)
            free_heads(model, heads=(6, 7))
            self.every_position(model, "attention", False, self.options.attention_steps)
        return model

    def every_position(self, model: Any, name: str, shifts: bool, steps: int) -> None:
        """Stages A and B: layer 0 and the head predict every position."""
        if not steps:
            return
        predict = EveryPosition(model, self.tokenizer.mask_token_id, DEFAULT_OFFSETS)
        loss = EveryPositionLoss(predict, shifts=shifts, unigram=self.unigram, reserved=RESERVED).begin()
        collate = DataCollatorForEveryPosition(self.tokenizer.pad_token_id)
        changes = {"max_steps": steps, "learning_rate": 2e-3, "adam_beta2": 0.98, "warmup_steps": 40}
        self.stage(name, model, loss, collate, muon=False, callbacks=[], **changes)
        loss.end()

    def masked(self, model: Any) -> None:
        """Masked language modelling of the whole model."""
        options = self.options
        collate = DataCollatorForChineseBertMaskedLM(
            self.tokenizer, mlm_probability=options.mlm_probability, whole_word_share=options.whole_word_share,
            seed=self.arguments.seed,
        )  # fmt: skip
        if not self.text.streaming:
            model.set_unigram(self.unigram)
        if self.arguments.bf16 and self.arguments.device.type == "cpu":
            bfloat16_attention.register()
            model.set_attn_implementation(bfloat16_attention.NAME)
        callbacks = [MaskingEpoch(collate), AllTokensAtTheEnd(model, options.negatives)]
        self.stage(MASKED, model, model, collate, muon=options.muon, callbacks=callbacks)

    def publish(self, model: Any) -> None:
        """Write the model in float16, its tokenizer, card and learning curve; all of it or nothing."""
        model.set_attn_implementation("sdpa")
        # Fine-tuning on little data wants the usual dropout; pretraining went without.
        model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.1
        with whole_folder(self.arguments.output_dir) as made:
            model.half().save_pretrained(made)
            model.config.dtype = torch.float32  # what it is loaded in unless told otherwise; float16 is for the file
            model.config.use_cache = True  # the Trainer turns it off
            model.config.architectures = [type(model).__name__.removeprefix("Sampled")]
            model.config.save_pretrained(made)
            self.tokenizer.save_pretrained(made)
            saved = type(model).from_pretrained(made)
            stated = {
                name: value
                for name, value in self.stated.items()
                if name not in ("data", "exclude", "work_dir", "note", "manifest")
            }
            stated["fonts"] = ", ".join(read_glyph_font(font).name for font in self.options.fonts) or "none"
            write_card(
                made,
                name=Path(self.arguments.output_dir).name,
                accuracy=self.accuracy(saved),
                history=self.logs,
                sources=json.loads(Path(self.text.manifest).read_text(encoding="utf-8")) if self.text.manifest else [],
                options=stated,
                training_tokens=None if self.text.streaming else len(self.ids),
                device=self.arguments.device.type,
                note=self.options.note,
                overlap=str(self.overlap or ""),
            )
            try:
                plot_learning_curves(self.logs, made / "learning_curve.png")
            except ImportError as error:
                logger.warning("%s", error)


def main(options: list[str] | None = None) -> None:
    """Read, train, publish."""
    text, model, arguments = HfArgumentParser(
        (TextOptions, ModelOptions, PretrainingArguments)
    ).parse_args_into_dataclasses(options)
    logging.basicConfig(
        format="%(asctime)s %(message)s", stream=sys.stdout,
        level=logging.INFO if arguments.process_index == 0 else logging.WARNING,
    )  # fmt: skip
    check(text, model, arguments)
    training = Training(text, model, arguments)
    try:
        training.prepare()
    except (OSError, ValueError) as error:  # the text's or the folder's fault: no traceback is needed to see it
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    network = training.begin()
    training.masked(network)
    if arguments.process_index == 0:
        training.publish(network)
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
