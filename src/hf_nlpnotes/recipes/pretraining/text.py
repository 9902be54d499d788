"""From text files to rows: what is held out, what is kept out, the tokenizer, and all of it cached."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoTokenizer

from hf_nlpnotes.models.chinesebert import ChineseBertTokenizer
from hf_nlpnotes.models.chinesebert.pinyin_reader_chinesebert import PinyinReader
from hf_nlpnotes.pretraining.held_out import HeldOut, held_out_rows, masked_accuracy
from hf_nlpnotes.pretraining.overlap import EvaluationText, OverlapReport, drop_overlap
from hf_nlpnotes.pretraining.packing import encode_lines
from hf_nlpnotes.pretraining.rows import cached_rows, endless, training_rows, word_cutter
from hf_nlpnotes.pretraining.texts import han_share, keep_lines, read_texts, split_held_out, thin
from hf_nlpnotes.pretraining.token_vectors import unigram_log_probabilities
from hf_nlpnotes.pretraining.vocabulary import build_vocabulary
from hf_nlpnotes.training import claim_folder, whole_folder

from .options import TextOptions

if TYPE_CHECKING:
    from .run import PretrainingRun

logger = logging.getLogger(__name__)

_LEAST_HAN = 0.05
"""Share of Han characters below which a text is taken for the wrong one."""


@dataclass(frozen=True)
class PretrainingData:
    """What to train on, and what to measure on.

    Attributes:
        tokenizer: of the model.
        rows: as `training_rows` makes them; of a stream an `IterableDataset` without an end.
        held_out: a sample of the held-out lines.
        overlap: what was dropped because evaluation files have it; None: not asked, or a stream.
        input_ids: (tokens,) of all rows, in the rows' order; None of a stream.
        unigram: (vocabulary,) relative frequencies of the tokens; None of a stream.
    """

    tokenizer: Any
    rows: Any
    held_out: HeldOut
    overlap: OverlapReport | None
    input_ids: np.ndarray | None
    unigram: torch.Tensor | None

    def accuracy(self, model: Any) -> dict[str, float]:
        """Accuracy of a `model` on the held-out lines, in per cent, as `masked_accuracy` tells it."""
        tokens = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        return masked_accuracy(model, self.held_out, tokens, self.tokenizer.mask_token_id)


def prepare_text(run: PretrainingRun) -> PretrainingData:
    """Read the text and make rows of it, once, by the first process; the others wait and read what it made.

    Args:
        run: whose work folder is claimed for its options and this text, and keeps the rows.

    Raises:
        ValueError: no text, too little of it Chinese, or too little to hold out a line; files in another encoding;
            the work folder is that of another run; or errors as of `read_texts`, `drop_overlap`, `build_vocabulary`
            and `training_rows`.
    """
    text = run.text
    with run.arguments.main_process_first(desc="text"):
        lines, held_out, overlap = read_lines(text)
        fingerprint = "" if text.streaming else lines._fingerprint  # of the files and of what was done to them
        claim_folder(run.work, {**run.stated, "text": fingerprint})
        tokenizer = _tokenizer(run, lines)

        def pack() -> Any:
            return training_rows(
                lines, tokenizer, length=text.length, single_share=text.single_share,
                segmenter=None if text.segmenter == "none" else "jieba", seed=0, num_proc=text.processes,
            )  # fmt: skip

        if text.streaming:
            rows: Any = endless(pack().shuffle(seed=0, buffer_size=1000))
        else:
            options = (text.length, text.single_share, text.segmenter)
            rows = cached_rows(run.work, {"lines": lines, "tokenizer": tokenizer, "options": options}, pack)
    measured = measured_rows(held_out, tokenizer, text)
    ids = unigram = None
    if isinstance(rows, Dataset):
        ids = np.concatenate([chunk.flatten().to_numpy() for chunk in rows.data.column("input_ids").chunks])
        unigram = unigram_log_probabilities(ids, len(tokenizer)).exp()
        logger.info("%s rows, %s tokens", f"{len(rows):,}", f"{len(ids):,}")
    return PretrainingData(tokenizer, rows, measured, overlap, ids, unigram)


def read_lines(text: TextOptions) -> tuple[Any, Any, OverlapReport | None]:
    """Lines to train on, lines held out, and what was dropped because evaluation files have it (None: not asked)."""
    lines = read_texts(text.data, encoding=text.encoding, text_column=text.text_column, streaming=text.streaming)
    if (share := han_share(lines)) < _LEAST_HAN:
        raise ValueError(
            f"{share:.1%} of the characters are Han characters: expected Chinese text; check the files and their "
            "encoding"
        )
    shares = text.shares()
    train, held_out = split_held_out(lines, text.held_out_percent, of=lambda source: source not in shares)
    if not text.streaming and text.held_out_percent and not len(held_out):
        raise ValueError(
            f"none of {len(lines)} lines is held out at {text.held_out_percent:g} % to measure the model on: give "
            "more text, or hold out a larger part of it"
        )
    train = thin(train, shares, seed=0) if shares else train
    if text.limit is not None and text.limit < len(train):
        keep = np.zeros(len(train), dtype=bool)
        keep[np.random.default_rng(0).permutation(len(train))[: text.limit]] = True
        train = keep_lines(train, keep)
    report = None
    if text.exclude:
        train, report = drop_overlap(train, EvaluationText.from_files(text.exclude), text.processes)
        logger.info(
            "%s", report or "a stream is compared with the evaluation files while it is read, without a report"
        )
    return train, held_out, report


def _tokenizer(run: PretrainingRun, lines: Any) -> Any:
    """That of the model to go on from, or one with a vocabulary from the text."""
    if run.model.model_name_or_path:
        return AutoTokenizer.from_pretrained(**run.model.start())
    folder = run.work / "tokenizer"
    if not folder.exists():
        vocabulary = build_vocabulary((row["text"] for row in lines), run.model.vocab_size)
        numbers = {token: number for number, token in enumerate(vocabulary)}
        with whole_folder(folder) as made:
            ChineseBertTokenizer(vocab=numbers, model_max_length=run.text.length).save_pretrained(made)
    return AutoTokenizer.from_pretrained(folder)


def measured_rows(held_out: Any, tokenizer: Any, text: TextOptions) -> HeldOut:
    """A sample of the held-out lines as rows."""
    texts = [row["text"] for row in (held_out.take(text.held_out_lines) if text.streaming else held_out)]
    sample = np.random.default_rng(0).permutation(len(texts))[: text.held_out_lines]
    reader = PinyinReader(tokenizer.readings).read_text if "pinyin_ids" in tokenizer.model_input_names else None
    words = word_cutter(None if text.segmenter == "none" else "jieba")
    streams = [encode_lines([texts[i]], tokenizer.backend_tokenizer, words, reader) for i in sorted(sample)]
    return held_out_rows(
        streams, text.length, cls_token_id=tokenizer.cls_token_id, sep_token_id=tokenizer.sep_token_id
    )
