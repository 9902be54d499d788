r"""Pretrain a small ChineseBERT from a folder of text files, on a CPU, in an hour or two.

    python examples/pretrain_chinesebert.py --data TEXTS --output MODEL --minutes 60 --processes 2 \
        --fonts NotoSerifCJK-Regular.ttc#2 LXGWWenKai-Regular.ttf NotoSansCJK-Regular.ttc#2

TEXTS holds UTF-8 files `*.txt`, a paragraph or sentence a line, and if you like a `manifest.json` that says for each
file its `source` (the file's stem), `topic`, `repo` and `licence`. MODEL becomes a folder for `from_pretrained`,
with a card. Needs the extras `pretrain` and `glyphs`. Killed and started again, it goes on where it was: all that is
in the middle lies in the work folder.

1. **Prepare** (minutes): a vocabulary from the text; the text as one stream of tokens with word borders and
   readings; 1 % of the lines held out; bitmaps of the vocabulary.
2. **Warm start** (a minute): token vectors from PPMI and SVD, positions and heads that look at one offset each.
3. **Stage A** (a tenth of the time): every position predicted from its eight neighbours, by layer 0 and the head.
4. **Stage B** (four tenths): the same with layer 0's own attention.
5. **Stage C** (the rest): the whole model with pinyin and glyphs, masked words and characters.

With `--start MODEL` it goes on from a ChineseBERT that is there, on the same text or on that of your own domain: its
vocabulary, bitmaps and weights, and stage C alone for all of the time.

Matrices are multiplied in bfloat16, which new CPUs do many times faster than float32; with `--float32` they are not.
The learning rate follows the clock, so the training ends on time on a busy machine, but no two runs are the same.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import re
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import BertWordPieceTokenizer
from torch import distributed
from torch.nn import functional as F
from transformers import AttentionInterface, BertConfig, BertForMaskedLM
from transformers.masking_utils import AttentionMaskInterface

from hf_nlpnotes.models.chinesebert import ChineseBertConfig, ChineseBertForMaskedLM, ChineseBertTokenizer
from hf_nlpnotes.models.chinesebert.collator_chinesebert import (
    NO_WORD,
    characters_as_words,
    choose_words,
    replace_tokens,
)
from hf_nlpnotes.models.chinesebert.glyphs_chinesebert import read_glyph_font, render_glyphs
from hf_nlpnotes.models.chinesebert.pinyin_reader_chinesebert import PinyinReader
from hf_nlpnotes.pretraining.batches import WindowBatches, load_stream, save_stream
from hf_nlpnotes.pretraining.every_position import EveryPosition, sampled_softmax_loss
from hf_nlpnotes.pretraining.fusion_start import fuse_distinct, start_fusion
from hf_nlpnotes.pretraining.held_out import HeldOut, held_out_rows, masked_accuracy
from hf_nlpnotes.pretraining.model_card import write_card
from hf_nlpnotes.pretraining.offset_heads import DEFAULT_OFFSETS
from hf_nlpnotes.pretraining.packing import TokenStream, encode_lines, is_held_out, thin_out
from hf_nlpnotes.pretraining.time_budget import TimeBudget, save_whole, train_for
from hf_nlpnotes.pretraining.token_vectors import unigram_log_probabilities
from hf_nlpnotes.pretraining.vocabulary import build_vocabulary
from hf_nlpnotes.pretraining.warm_start import free_heads, sharpen_heads, warm_start

logger = logging.getLogger("pretrain")

PAD, UNK, CLS, SEP, MASK = range(5)
RESERVED = 32  # dimensions that carry the position alone, until stage C
STAGES = ("a", "b", "c")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options; those that shape the model go into its card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with *.txt and perhaps manifest.json")
    parser.add_argument("--output", type=Path, required=True, help="folder of the model")
    parser.add_argument("--start", type=Path, help="folder of a ChineseBERT to go on from, by stage C alone")
    parser.add_argument("--work", type=Path, help="folder of caches and checkpoints (default: OUTPUT.work)")
    parser.add_argument("--minutes", type=float, default=60, help="training time, preparations not counted")
    parser.add_argument("--shares", type=float, nargs=3, default=[0.1, 0.4, 0.5], help="of stages A, B and C")
    parser.add_argument("--processes", type=int, default=2, help="processes of one thread each")
    parser.add_argument(
        "--fonts", nargs="*", default=[], help="three font files (FILE or FILE#FACE); none: blank glyphs"
    )
    parser.add_argument(
        "--thin", default="tech|algorithms|machine learning|business/finance", help="topics to thin out"
    )
    parser.add_argument("--thin-share", type=float, default=0.3, help="share of their lines that is kept")
    parser.add_argument("--strip", default="", help="regular expression of boilerplate to cut from lines")
    parser.add_argument("--held-out-lines", type=int, default=1000)
    parser.add_argument("--vocab-size", type=int, default=8000)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens a process and step")
    parser.add_argument("--rate", type=float, default=6e-4, help="learning rate of Muon in stage C")
    parser.add_argument(
        "--mask-rate", type=float, nargs=2, default=[0.35, 0.2], help="in stage C at its begin and end"
    )
    parser.add_argument(
        "--single-share", type=float, default=0.35, help="rows in which characters are masked, not words"
    )
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--note", default="", help="a line for the card")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.start:
        options.shares = [0.0, 0.0, 1.0]
    options.work = options.work or options.output.with_name(options.output.name + ".work")
    return options


# ------------------------------------------------------------------------------------------------------------- prepare


def manifest(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What `manifest.json` says of the sources; empty without one."""
    path = options.data / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def read_source(path: Path, options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Lines of a file: for training (thinned out where the topic says so), and held out (never of a thinned topic)."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    lines = [cut for line in lines if (cut := re.sub(options.strip, "", line) if options.strip else line)]
    topic = {source["source"]: source["topic"] for source in manifest(options)}.get(path.stem, "")
    thinned = bool(options.thin and re.search(options.thin, topic))
    train = [line for line in lines if not is_held_out(line)]
    held_out = [] if thinned else [line for line in lines if is_held_out(line)]
    return thin_out(train, options.thin_share if thinned else 1.0, seed=options.seed), held_out


def encode(lines: list[str], options: argparse.Namespace) -> TokenStream:
    """Tokens, word borders and readings of lines."""
    import jieba

    jieba.setLogLevel("WARNING")
    tokenizer = BertWordPieceTokenizer(str(options.work / "vocab.txt"), lowercase=True)
    readings = ChineseBertTokenizer(vocab=str(options.work / "vocab.txt")).readings
    return encode_lines(lines, tokenizer, jieba.cut, PinyinReader(readings).read_text)


def encode_source(job: tuple[Path, argparse.Namespace]) -> tuple[str, TokenStream, list[str]]:
    """One file's stream, for a process of the pool."""
    train, held_out = read_source(*job)
    return job[0].stem, encode(train, job[1]), held_out


def prepare(options: argparse.Namespace) -> None:
    """Fill the work folder: vocab.txt, the stream, held_out.txt, tables.npz."""
    files = sorted(options.data.glob("*.txt"))
    if not files:
        raise SystemExit(f"{options.data} holds no *.txt")
    options.work.mkdir(parents=True, exist_ok=True)
    vocabulary_file, held_out_file = options.work / "vocab.txt", options.work / "held_out.txt"
    if not vocabulary_file.exists():
        if options.start:
            tokenizer = ChineseBertTokenizer.from_pretrained(options.start)
            vocabulary = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        else:
            lines = (line for file in files for line in read_source(file, options)[0])
            vocabulary = build_vocabulary(lines, options.vocab_size)
        vocabulary_file.write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    options.vocab_size = len(vocabulary_file.read_text(encoding="utf-8").splitlines())  # less, where the text is small
    if not held_out_file.exists():
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        jobs = sorted(((file, options) for file in files), key=lambda job: -job[0].stat().st_size)
        with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
            parts = sorted(pool.imap_unordered(encode_source, jobs), key=lambda part: part[0])
        streams = [part[1] for part in parts]
        names = ("input_ids", "continues_word", "pinyin_ids")
        stream = TokenStream(*(np.concatenate([getattr(part, name) for part in streams]) for name in names))
        save_stream(stream, options.work)
        held_out_file.write_text("\n".join(line for part in parts for line in part[2]) + "\n", encoding="utf-8")
        logger.info(
            "%s tokens to train on, %s lines held out", f"{len(stream):,}", sum(len(part[2]) for part in parts)
        )
    if not options.start and not (options.work / "tables.npz").exists():
        tokenizer = ChineseBertTokenizer(vocab=str(vocabulary_file))
        tokens = vocabulary_file.read_text(encoding="utf-8").splitlines()
        blank = np.zeros((len(tokens), 3, 24, 24), bool)
        glyphs = render_glyphs(tokens, options.fonts, missing="fallback") if options.fonts else blank
        np.savez_compressed(
            options.work / "tables.npz",
            glyphs=glyphs,
            pinyin_table=tokenizer.pinyin_table,
            default_pinyin_ids=tokenizer.default_pinyin_ids,
        )


def load_held_out(options: argparse.Namespace) -> HeldOut:
    """A sample of the held-out lines as rows."""
    lines = (options.work / "held_out.txt").read_text(encoding="utf-8").splitlines()
    sample = np.random.default_rng(options.seed).permutation(len(lines))[: options.held_out_lines]
    streams = [encode([lines[i]], options) for i in sorted(sample)]
    return held_out_rows(streams, options.length, cls_token_id=CLS, sep_token_id=SEP, seed=options.seed)


# ------------------------------------------------------------------------------------------------------------ training


def precision(options: argparse.Namespace) -> Any:
    """Matrix products in bfloat16, weights and sums in float32."""
    return nullcontext() if options.float32 else torch.autocast("cpu", dtype=torch.bfloat16)


def packed_attention(
    _module: Any,
    query: Any,
    key: Any,
    value: Any,
    _mask: Any,
    scaling: float = 1.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of rows without padding, all of it in bfloat16: a third of the time of the fused kernel's backward."""
    with torch.autocast("cpu", enabled=False):
        weights = ((query * scaling) @ key.transpose(-1, -2)).softmax(-1)
        return (weights @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register("packed", packed_attention)
AttentionMaskInterface.register("packed", lambda *_, **__: None)


class Stages:
    """What the stages share: the text, the clock, the held-out rows."""

    def __init__(self, options: argparse.Namespace, rank: int) -> None:
        self.options, self.rank = options, rank
        self.stream = load_stream(options.work)
        self.unigram = unigram_log_probabilities(self.stream.input_ids, options.vocab_size).exp()
        self.vocabulary = (options.work / "vocab.txt").read_text(encoding="utf-8").splitlines()
        self.held_out = load_held_out(options) if rank == 0 else None
        if rank == 0:
            short = slice(0, 500)
            rows = self.held_out
            pinyin = None if rows.pinyin_ids is None else rows.pinyin_ids[short]
            self.glance = HeldOut(rows.input_ids[short], pinyin, rows.whole_words[short], rows.single[short])

    def accuracy(self, model: Any, rows: HeldOut) -> dict[str, float]:
        """Held-out accuracy as it is now."""
        attention = model.config._attn_implementation
        model.set_attn_implementation("sdpa")
        result = masked_accuracy(model, rows, self.vocabulary, MASK)
        model.set_attn_implementation(attention)
        return result

    def batches(self, stage: str) -> WindowBatches:
        """Batches of a stage, in an order of its own."""
        rows, processes = max(1, self.options.tokens // self.options.length), self.options.processes
        return WindowBatches(
            self.stream, self.options.length, rows, processes, CLS, SEP, self.options.seed + ord(stage)
        )

    def run(self, stage: str, model: Any, optimizers: list[Any], loss_of: Any, warmup: int = 40, **hooks: Any) -> None:
        """Train for the stage's share of the time; load its result if it is there already."""
        done = self.options.work / f"{stage}.pt"
        if not done.exists():
            minutes = self.options.minutes * self.options.shares[STAGES.index(stage)]
            budget = TimeBudget(minutes, self.options.work / f"{stage}.part.pt", warmup)
            steps = train_for(
                budget,
                model,
                optimizers,
                loss_of,
                report=lambda entry: logger.info("%s %s", stage, entry),
                evaluate=lambda: self.accuracy(model, self.glance),
                **hooks,
            )
            if self.rank == 0:
                entry = {"step": steps, "minutes": round(minutes, 2), **self.accuracy(model, self.held_out)}
                logger.info("%s done: %s", stage, entry)
                save_whole(done, {"model": model.state_dict(), "history": [*budget.history, entry]})
            distributed.barrier()
        model.load_state_dict(torch.load(done, weights_only=True)["model"])

    def every_position(self, stage: str, model: Any) -> None:
        """Stages A and B: layer 0 and the head predict every position."""
        predict = EveryPosition(model, MASK, DEFAULT_OFFSETS)
        forward = predict.shifts if stage == "a" else predict.attention
        layer, head, vectors = model.bert.encoder.layer[0], model.cls.predictions, model.get_input_embeddings().weight
        parameters = [p for n, p in layer.named_parameters() if stage == "b" or not re.search("query|key", n)]
        parameters += [vectors, head.bias, *head.transform.parameters()]
        batches = self.batches(stage)

        def loss_of(step: int, _: float) -> torch.Tensor:
            batch, generator = batches.batch(step, self.rank), self.generator(stage, step)
            text = batch["input_ids"] > MASK
            whole = int(text.sum()) // 128 * 128 or int(text.sum())  # few sizes: kernels are compiled for each
            with precision(self.options):
                hidden = forward(batch["input_ids"], batch["continues_word"], generator)[text][:whole]
                targets = batch["input_ids"][text][:whole]
                return sampled_softmax_loss(hidden, targets, vectors, head.bias, self.unigram, generator=generator)

        def keep_positions_apart() -> None:
            vectors.grad[:, :RESERVED] = 0  # longer token vectors in these dimensions would blur the heads

        adam = torch.optim.Adam(parameters, lr=2e-3, betas=(0.9, 0.98), fused=True)
        self.run(stage, model, [adam], loss_of, after_backward=keep_positions_apart)

    def masked(self, model: Any) -> None:
        """Stage C: masked language modelling; Muon for the encoder's matrices, slower where heads look, Adam else."""
        options, head, vectors = self.options, model.cls.predictions, model.get_input_embeddings().weight
        named = dict(model.bert.encoder.named_parameters())
        looks = [p for n, p in named.items() if re.search(r"(query|key)\.weight", n)]
        carries = [p for n, p in named.items() if p.dim() == 2 and not re.search("query|key", n)]
        carries.append(head.transform.dense.weight)
        taken = {id(p) for p in looks + carries}
        others = [p for p in model.parameters() if id(p) not in taken]
        groups = [{"params": looks, "lr": options.rate / 3}, {"params": carries, "lr": options.rate}]
        muon = torch.optim.Muon(groups, weight_decay=0.01, ns_steps=4, adjust_lr_fn="match_rms_adamw")
        adam = torch.optim.AdamW(others, lr=0.7 * options.rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
        readings, batches = model.bert.embeddings.default_pinyin_ids.numpy(), self.batches("c")

        def loss_of(step: int, share: float) -> torch.Tensor:
            batch, generator = batches.batch(step, self.rank), self.generator("c", step)
            rng = np.random.default_rng(generator.initial_seed())
            ids, pinyin = batch["input_ids"].numpy(), batch["pinyin_ids"].numpy()
            words = np.where(ids > MASK, (~batch["continues_word"].numpy()).cumsum(1) - 1, NO_WORD)
            single = rng.random((len(ids), 1)) < options.single_share
            first, last = options.mask_rate
            units = np.where(single, characters_as_words(words), words)
            chosen = choose_words(units, rng.random(ids.shape), first + (last - first) * share)
            new_ids, new_pinyin, labels = replace_tokens(
                ids, pinyin, chosen, rng.random(ids.shape), rng.integers(MASK + 1, options.vocab_size, ids.shape),
                mask_token_id=MASK, default_pinyin_ids=readings, mask_share=0.9, random_share=0.05,
            )  # fmt: skip
            at = torch.from_numpy(chosen)
            whole = int(at.sum()) // 32 * 32 or int(at.sum())
            targets = torch.from_numpy(labels)[at][:whole]
            with precision(options):
                fused = fuse_distinct(model.bert.embeddings, torch.from_numpy(new_ids), torch.from_numpy(new_pinyin))
                hidden = head.transform(model.bert(inputs_embeds=fused).last_hidden_state[at][:whole])
                if share < 0.75:  # most of the time a third of the vocabulary will do
                    return sampled_softmax_loss(
                        hidden, targets, vectors, head.bias, self.unigram, negatives=2500, generator=generator
                    )
                return F.cross_entropy(head.decoder(hidden).float(), targets)

        self.run("c", model, [muon, adam], loss_of, warmup=50)

    def generator(self, stage: str, step: int) -> torch.Generator:
        """Random numbers of one step of one process."""
        seed = np.random.SeedSequence([self.options.seed, ord(stage), step, self.rank]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed >> 1))


def sizes(options: argparse.Namespace) -> dict[str, Any]:
    """Configuration of the plain BERT and the ChineseBERT alike; without dropout, which little training needs."""
    return {
        "vocab_size": options.vocab_size, "hidden_size": options.hidden, "num_hidden_layers": options.layers,
        "num_attention_heads": len(DEFAULT_OFFSETS), "intermediate_size": 4 * options.hidden,
        "max_position_embeddings": options.length, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": 1e-12, "pad_token_id": PAD,
    }  # fmt: skip


def build_chinesebert(options: argparse.Namespace) -> Any:
    """The model to go on from; or a ChineseBERT with its tables, the fusion passing characters on alone."""
    torch.manual_seed(options.seed)
    if options.start:
        without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        return ChineseBertForMaskedLM.from_pretrained(options.start, dtype=torch.float32, **without)
    tables = np.load(options.work / "tables.npz")
    config = ChineseBertConfig(**sizes(options), glyph_storage="bits", pinyin_table_size=len(tables["pinyin_table"]))
    model = ChineseBertForMaskedLM(config)
    start_fusion(model.bert.embeddings, reserved=RESERVED)
    model.set_readings(tables["pinyin_table"], tables["default_pinyin_ids"])
    model.set_glyphs(tables["glyphs"])
    return model


def character_model(stages: Stages) -> Any:
    """Warm start, stages A and B: a plain BERT."""
    options = stages.options
    torch.manual_seed(options.seed)
    plain = BertForMaskedLM(BertConfig(**sizes(options)))
    start = options.work / "start.pt"
    if stages.rank == 0 and not start.exists():
        warm_start(plain, np.asarray(stages.stream.input_ids), reserved=RESERVED, seed=options.seed)
        save_whole(start, {"model": plain.state_dict()})
    distributed.barrier()
    plain.load_state_dict(torch.load(start, weights_only=True)["model"])
    stages.every_position("a", plain)
    sharpen_heads(plain, stages.batches("b").batch(0, 0)["input_ids"], MASK)
    free_heads(plain, heads=(6, 7), seed=options.seed)
    stages.every_position("b", plain)
    return plain


def worker(rank: int, options: argparse.Namespace) -> None:
    """All stages, in one of the processes."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO, stream=sys.stdout)
    torch.set_num_threads(1)
    rendezvous = f"file://{(options.work / 'rendezvous').resolve()}"
    distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=options.processes)
    stages = Stages(options, rank)
    model = build_chinesebert(options)
    if not options.start:
        model.load_state_dict(character_model(stages).state_dict(), strict=False)
    model.set_attn_implementation("packed")
    stages.masked(model)
    distributed.destroy_process_group()


# ------------------------------------------------------------------------------------------------------------- publish


def publish(options: argparse.Namespace) -> None:
    """Write the model in float16, its tokenizer and a card with figures of the folder as it lies there."""
    model = build_chinesebert(options)
    model.load_state_dict(torch.load(options.work / "c.pt", weights_only=True)["model"])
    # Fine-tuning on little data wants the usual dropout; pretraining went without.
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.1
    model.half().save_pretrained(options.output)
    model.config.dtype = torch.float32  # what it is loaded in unless told otherwise; float16 is for the file
    model.config.save_pretrained(options.output)
    vocabulary = str(options.work / "vocab.txt")
    ChineseBertTokenizer(vocab=vocabulary, model_max_length=options.length).save_pretrained(options.output)
    saved = ChineseBertForMaskedLM.from_pretrained(options.output)
    run = [stage for stage in STAGES if options.shares[STAGES.index(stage)]]
    stages = {stage: torch.load(options.work / f"{stage}.pt", weights_only=True) for stage in run}
    options.fonts = [read_glyph_font(font).name for font in options.fonts] or ["none"]
    tokens = Path(vocabulary).read_text(encoding="utf-8").splitlines()
    write_card(
        options.output,
        accuracy=masked_accuracy(saved, load_held_out(options), tokens, MASK),
        history={stage: state.get("history", []) for stage, state in stages.items()},
        sources=manifest(options),
        options={
            name: str(value) for name, value in vars(options).items() if name not in ("data", "output", "work", "note")
        },
        training_tokens=len(load_stream(options.work)),
        note=options.note,
    )


def main() -> None:
    """Prepare, train, publish."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO, stream=sys.stdout)
    options = parse()
    prepare(options)
    (options.work / "rendezvous").unlink(missing_ok=True)
    if not (options.work / "c.pt").exists():
        began = time.monotonic()
        torch.multiprocessing.spawn(worker, (options,), nprocs=options.processes)
        logger.info("trained in %.1f minutes", (time.monotonic() - began) / 60)
    publish(options)


if __name__ == "__main__":
    main()
