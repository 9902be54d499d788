"""Options of a pretraining: its text, its model, the stock arguments with other defaults; and what cannot work.

`HfArgumentParser((TextOptions, ModelOptions, PretrainingArguments))` makes a command line of them.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoConfig, TrainingArguments

from hf_nlpnotes import EMBEDDED_MODEL
from hf_nlpnotes.models.chinesebert.glyphs_chinesebert import render_glyphs
from hf_nlpnotes.pretraining.offset_heads import DEFAULT_OFFSETS
from hf_nlpnotes.pretraining.rows import word_cutter
from hf_nlpnotes.pretraining.sampled_masked_lm import SampledBertForMaskedLM, SampledChineseBertForMaskedLM
from hf_nlpnotes.recipes.fine_tuning import with_stock_help

Options = TypeVar("Options", bound=type)

RESERVED = 32
"""Dimensions that carry the position alone, until the whole model is trained."""

_FONTS = 3
"""Pictures of a character in a model that begins here."""

MODELS: dict[str, Any] = {"chinesebert": SampledChineseBertForMaskedLM, "bert": SampledBertForMaskedLM}
"""Types of models to go on from."""

SHAPING = (
    "max_steps", "num_train_epochs", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "optim",
    "per_device_train_batch_size", "gradient_accumulation_steps", "world_size", "seed", "bf16", "fp16",
)  # fmt: skip
"""Training arguments that the weights depend on."""
FREE = ("work_dir", "note", "manifest", "processes")
"""Our options on which they do not."""
STATED_IF_SET = ("limit", "revision")
"""Our options that are stated only where they are set, so that work folders that do not know them stay valid."""


def _described(options: Options) -> Options:
    """List the fields in the docstring, with the help that a command line shows of them."""
    fields = [f"    {each.name}: {each.metadata['help']}." for each in dataclasses.fields(options)]
    options.__doc__ = "\n".join([inspect.cleandoc(options.__doc__ or ""), "", "Attributes:", *fields])
    return options


@_described
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
    limit: int | None = field(default=None, metadata={"help": "learn from a fixed random sample of so many lines"})

    def shares(self) -> dict[str, float]:
        """`thin` as source → share.

        Raises:
            ValueError: an item is no SOURCE=SHARE.
        """
        try:
            return {source: float(share) for source, share in (item.rsplit("=", 1) for item in self.thin)}
        except ValueError:
            raise ValueError(f"thin: {' '.join(self.thin)}: expected SOURCE=SHARE …, for example docs=0.3") from None


@_described
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
    revision: str | None = field(
        default=None, metadata={"help": "of a model on the hub to go on from: a branch, a tag or a commit"}
    )

    def start(self) -> dict[str, Any]:
        """What to give `from_pretrained` for the model to go on from: the embedded one goes by its folder's name."""
        embedded = Path(EMBEDDED_MODEL)
        name = EMBEDDED_MODEL if self.model_name_or_path == embedded.name else self.model_name_or_path
        return {"pretrained_model_name_or_path": name, "revision": self.revision or "main"}

    def start_config(self) -> Any:
        """Configuration of the model to go on from.

        Raises:
            OSError: there is no such model.
        """
        try:
            return AutoConfig.from_pretrained(**self.start())
        except OSError as error:
            raise OSError(f"the model {self.model_name_or_path!r} cannot be loaded: {error}") from error


def bfloat16_is_fast() -> bool:
    """Whether this machine multiplies matrices in bfloat16 faster than in float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported()


@with_stock_help
@dataclass
class PretrainingArguments(TrainingArguments):
    """The stock arguments with defaults for a training of thousands of steps.

    `output_dir` is the folder of the finished model; checkpoints go to `ModelOptions.work_dir`.
    """

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
    remove_unused_columns: bool = False
    dataloader_pin_memory: bool = torch.cuda.is_available()
    use_cpu: bool = not torch.accelerator.is_available()
    bf16: bool = bfloat16_is_fast()


@with_stock_help
@dataclass
class FurtherPretrainingArguments(PretrainingArguments):
    """The same with defaults for going on from a model, however short the text.

    A rate that leaves what the model knows in place; warm-up, evaluations and logs in shares of the training.
    """

    num_train_epochs: float = 3
    learning_rate: float = 1e-4
    warmup_steps: float = 0.1
    eval_steps: float | None = 0.2
    logging_steps: float = 0.02


def stated_options(text: TextOptions, model: ModelOptions, arguments: PretrainingArguments) -> dict[str, str]:
    """All that the weights depend on, by name: what a work folder belongs to, and what a card tells."""
    stated = {**dataclasses.asdict(text), **dataclasses.asdict(model)}
    stated |= {name: getattr(arguments, name) for name in SHAPING}
    without = {*FREE, *(name for name in STATED_IF_SET if stated[name] is None)}
    return {name: str(value) for name, value in stated.items() if name not in without}


def check_options(text: TextOptions, model: ModelOptions, arguments: PretrainingArguments) -> None:
    """Refuse what cannot work before anything is read.

    Args:
        text, model, arguments: of the run.

    Raises:
        ValueError: options that contradict each other, an output folder that holds other files, or a model to go on
            from that is neither a ChineseBERT nor a BERT, or takes fewer tokens than a row has.
        OSError: there is no such model or font.
        ImportError: jieba is missing, or Pillow where fonts are named.
    """
    out = Path(arguments.output_dir or "")
    if out.is_mount():
        raise ValueError(f"{out} is a mount point, which cannot be replaced: name a folder inside it")
    if out.exists() and any(out.iterdir()) and not (out / "config.json").exists():
        raise ValueError(f"{out} holds other files and would be replaced with all in it: name a new folder")
    text.shares()
    if text.segmenter not in ("jieba", "none"):
        raise ValueError(f"segmenter {text.segmenter}: expected jieba or none")
    _check_words(text.segmenter)
    if text.limit is not None and (text.limit < 1 or text.streaming):
        raise ValueError(f"limit {text.limit}: expected a positive number of lines, and no stream")
    if text.streaming and (not model.model_name_or_path or arguments.max_steps <= 0 or model.negatives):
        raise ValueError(
            "streaming reads the text once, while training: it wants --model_name_or_path and --max_steps, and no "
            "--negatives, which need the frequencies of all tokens beforehand"
        )
    if not 0 < model.mlm_probability < 1:
        raise ValueError(f"mlm_probability {model.mlm_probability}: expected more than 0 and less than 1")
    launched = [os.environ.get(f"ACCELERATE_USE_{name}") == "true" for name in ("FSDP", "DEEPSPEED")]
    if model.muon and (arguments.fsdp or arguments.deepspeed or any(launched)):
        raise ValueError(
            "Muon works on whole matrices: with FSDP or DeepSpeed take another optimizer (--muon false, or of the "
            "command --optim adamw_torch)"
        )
    if model.model_name_or_path:
        _check_start(model, text.length)
        return
    if model.fonts:
        if len(model.fonts) != _FONTS:
            raise ValueError(f"fonts: {len(model.fonts)} are given, expected {_FONTS}, or none for blank glyphs")
        render_glyphs([], model.fonts)  # opens them
    if model.warm_start:
        _check_warm_start(model)


def _check_words(segmenter: str) -> None:
    try:
        word_cutter(None if segmenter == "none" else "jieba")
    except ImportError as error:
        raise ImportError(
            'words to hide whole are found by jieba: pip install "hf-nlpnotes[pretrain]", or take segmenter none'
        ) from error


def _check_start(model: ModelOptions, length: int) -> None:
    config = model.start_config()
    if config.model_type not in MODELS:
        raise ValueError(
            f"{model.model_name_or_path} is a model of type {config.model_type!r}: expected one of {sorted(MODELS)}"
        )
    if length > config.max_position_embeddings:
        raise ValueError(
            f"rows of {length} tokens: {model.model_name_or_path} takes {config.max_position_embeddings} at most"
        )


def _check_warm_start(model: ModelOptions) -> None:
    heads = len(DEFAULT_OFFSETS)
    if model.heads != heads:
        raise ValueError(
            f"heads {model.heads}: the warm start wants {heads}; or begin without it (--warm_start false)"
        )
    if model.hidden_size % heads or model.hidden_size < heads * RESERVED:
        raise ValueError(
            f"hidden_size {model.hidden_size}: the warm start wants a multiple of {heads} from {heads * RESERVED}; or "
            "begin without it (--no-warm-start, --warm_start false)"
        )
