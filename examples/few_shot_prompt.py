"""Train on 16 texts a label with a prompt, beside plain fine-tuning of the same model on the same texts.

    python examples/few_shot_prompt.py
    python examples/few_shot_prompt.py --data DIR
    python examples/few_shot_prompt.py --data reviews.csv

The first learns from a few texts of its own. The second reads those that DIR has of fewclue/eprstmt and fewclue/tnews
(eprstmt: the official splits, one a seed), chnsenticorp/train.tsv and thucnews10/dev.txt, the third a file with the
columns `text` and `label`. tnews and files without splits give `--shots` texts a label by seed to learn from, and
others to test on. Printed are accuracies, mean ± deviation over the seeds; the second with `--test_texts 400` prints

    texts                   majority     prompt, untrained       prompt, trained     plain fine-tuning
    eprstmt  2 labels          0.515         0.699 ± 0.008         0.673 ± 0.028         0.590 ± 0.028
    chnsenticorp  2 labels     0.512         0.621 ± 0.015         0.647 ± 0.044         0.544 ± 0.035
    tnews  15 labels           0.095         0.372 ± 0.001         0.417 ± 0.028         0.344 ± 0.064
    thucnews10  10 labels      0.147         0.480 ± 0.005         0.598 ± 0.018         0.590 ± 0.007

Each way has its own recipe: a new head has more to learn, and a prompt is spoilt by too much.
`--output_dir FOLDER` keeps the last model that was trained with a prompt, for
`PromptForSequenceClassification.from_pretrained(FOLDER)`. With two processes, which change no figure by more than
rounding does: `torchrun --nproc_per_node 2 examples/few_shot_prompt.py` (ACCELERATE_USE_CPU=true without a GPU).
"""

import csv
import json
import statistics
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging

import hf_nlpnotes
from hf_nlpnotes.corpora.files import rows_of
from hf_nlpnotes.fewclue import TNEWS_TOPICS
from hf_nlpnotes.prompting import ready_label_words
from hf_nlpnotes.prompting.config import PromptConfig
from hf_nlpnotes.prompting.model import PromptForSequenceClassification
from hf_nlpnotes.training import leave_process_group

TOPICS = ["财经", "房产", "股票", "教育", "科技", "社会", "时政", "体育", "游戏", "娱乐"]
OPINIONS = {"Negative": "差评", "Positive": "好评"}
TOPIC_TEMPLATE, OPINION_TEMPLATE = "{label}新闻：{text}", "{label}评：{text}"
REVIEWS = {
    "差评": ["质量太差，用了两天就坏", "客服态度恶劣，再也不买", "房间又脏又吵，一夜没睡", "和图片完全不一样，失望"],
    "好评": ["质量很好，用着顺手", "客服耐心，下次还来", "房间干净安静，睡得香", "比图片还好看，惊喜"],
}
NEW_REVIEWS = {
    "差评": ["做工粗糙，不值这个价", "等了半个月才到，还少了一件", "菜是凉的，难吃"],
    "好评": ["做工精细，物超所值", "第二天就到，包装完好", "菜很新鲜，好吃"],
}


@dataclass
class Options:
    """Command-line options."""

    model: str = hf_nlpnotes.EMBEDDED_MODEL
    data: str | None = None
    template: str | None = None
    shots: int = 16
    seeds: int = 3
    test_texts: int = 1000
    epochs: int = 10
    learning_rate: float = 1e-4
    plain_epochs: int = 20
    plain_learning_rate: float = 2e-4
    head_learning_rate: float = 3e-3
    output_dir: str | None = None


@dataclass
class Task:
    """Texts to learn from and to test on, each a mapping with `text` and `label`, the number of a label."""

    name: str
    labels: list[str]
    template: str
    train: list[dict]
    test: list[dict]


def draw(name: str, template: str, rows: list[tuple[str, str]], options: Options, seed: int) -> Task:
    """`shots` texts of every label by seed; the test texts are the same for every seed."""
    labels = list(dict.fromkeys(label for _, label in rows))
    examples = [{"text": text, "label": labels.index(label)} for text, label in dict(rows).items()]
    order = np.random.default_rng(0).permutation(len(examples)).tolist()
    count = min(options.test_texts, len(examples) // 2)
    test, rest = [examples[i] for i in order[:count]], [examples[i] for i in order[count:]]
    np.random.default_rng(seed).shuffle(rest)
    return Task(name, labels, template, shots_of_each(rest, len(labels), options.shots, name), test)


def thucnews(folder: Path, options: Options, seed: int) -> Task:
    """Titles with their topics; a line is a title, a tab and the number of the topic."""
    lines = (folder / "thucnews10" / "dev.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.rsplit("\t", 1) for line in lines if line.strip()]
    return draw("thucnews10", TOPIC_TEMPLATE, [(title, TOPICS[int(number)]) for title, number in rows], options, seed)


def chnsenticorp(folder: Path, options: Options, seed: int) -> Task:
    """Reviews of hotels, books and computers: 0 is negative, 1 positive."""
    rows = [(row["text_a"], row["label"]) for row in rows_of(folder / "chnsenticorp" / "train.tsv")]
    opinions = [(text, list(OPINIONS.values())[int(label)]) for text, label in rows]
    return draw("chnsenticorp", OPINION_TEMPLATE, opinions, options, seed)


def eprstmt(folder: Path, options: Options, seed: int) -> Task:
    """Reviews with their opinions."""
    return fewclue(folder / "fewclue" / "eprstmt", "label", OPINIONS, OPINION_TEMPLATE, options, seed)


def tnews(folder: Path, options: Options, seed: int) -> Task:
    """Titles with their topics."""
    return fewclue(folder / "fewclue" / "tnews", "label_desc", TNEWS_TOPICS, TOPIC_TEMPLATE, options, seed)


def fewclue(folder: Path, column: str, labels: dict[str, str], template: str, options: Options, seed: int) -> Task:
    """A task of FewCLUE. The five official splits lie one after the other in a file; where they do not, `draw`."""

    def read(name: str) -> list[dict]:
        rows = [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines() if line.strip()]
        return [{"text": row["sentence"], "label": list(labels).index(row[column])} for row in rows]

    train, first, test = (read(name) for name in ("train_few_all.json", "train_0.json", "test_public.json"))
    order = np.random.default_rng(0).permutation(len(test)).tolist()  # the file is sorted by label
    test = [test[i] for i in order[: options.test_texts]]
    if len(train) == 5 * len(first):
        start = seed % 5 * len(first)
        train = train[start : start + len(first)]
    else:
        np.random.default_rng(seed).shuffle(train)
        train = shots_of_each(train, len(labels), options.shots, folder.name)
    return Task(folder.name, list(labels.values()), template, train, test)


def shots_of_each(examples: list[dict], labels: int, shots: int, name: str) -> list[dict]:
    """The first `shots` examples of every label."""
    train = [example for i in range(labels) for example in [e for e in examples if e["label"] == i][:shots]]
    if len(train) < labels * shots:
        raise SystemExit(f"{name} has too few texts for {shots} of each label: give a smaller --shots.")
    return train


def table(path: Path, options: Options, seed: int) -> Task:
    """A CSV file with the columns `text` and `label`; a label is its own word unless there are ready ones."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    return draw(path.stem, "{label}：{text}", rows, options, seed)


def built_in(options: Options) -> Task:
    """The texts above."""
    train, test = (
        [{"text": text, "label": i} for i, texts in enumerate(part.values()) for text in texts[: options.shots]]
        for part in (REVIEWS, NEW_REVIEWS)
    )
    return Task("reviews", list(REVIEWS), OPINION_TEMPLATE, train, test)


def fit(model, collator, train: list[dict], epochs: int, rate: float, head_rate: float, seed: int) -> Trainer:
    """Train with the stock Trainer: small models want large steps, and embeddings that stay as they are.

    Hundreds of texts are read 32 at a time in steps twice as large, tens 8 at a time.
    """
    few = len(train) <= 64
    rate = rate if few else 2 * rate
    model.get_input_embeddings().requires_grad_(False)
    head = [p for name, p in model.named_parameters() if name.startswith("classifier") and p.requires_grad]
    body = [p for p in model.parameters() if p.requires_grad and not any(p is one for one in head)]
    groups = [{"params": body}, {"params": head, "lr": head_rate}] if head else [{"params": body}]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            learning_rate=rate,
            warmup_steps=0.1,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=seed,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        arguments.per_device_train_batch_size = max(1, (8 if few else 32) // arguments.world_size)
        optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=0.01)
        trainer = Trainer(model, arguments, collator, train, optimizers=(optimizer, None))
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return trainer


def accuracy(scores: torch.Tensor, examples: list[dict]) -> float:
    """Share of the texts whose best label is the right one."""
    return (scores.argmax(dim=1) == torch.tensor([example["label"] for example in examples])).float().mean().item()


def compare(task: Task, options: Options, seed: int) -> tuple[float, ...]:
    """Accuracies without training, with a trained prompt and with plain fine-tuning."""
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

    words = {
        label: [w for w in words if tokenizer.unk_token_id not in tokenizer(w)["input_ids"]] or label
        for label, words in ready_label_words(task.labels).items()
    }
    prompt = PromptConfig(template=options.template or task.template, verbalizer=words)
    set_seed(seed)
    model = PromptForSequenceClassification.from_pretrained(options.model, config=prompt, **dropout)
    model.calibrate(task.train)  # what it prefers before it has read anything need not be unlearnt
    untrained = accuracy(model.predict(task.test), task.test)
    recipe = (options.epochs, options.learning_rate, options.head_learning_rate)
    trainer = fit(model, model.data_collator(), task.train, *recipe, seed)
    trained = accuracy(model.predict(task.test), task.test)
    if options.output_dir:
        trainer.save_model(options.output_dir)

    set_seed(seed)
    plain = AutoModelForSequenceClassification.from_pretrained(
        options.model, num_labels=len(task.labels), dtype=torch.float32, **dropout
    )
    limit = plain.config.max_position_embeddings
    train, test = (
        [{**tokenizer(e["text"], truncation=True, max_length=limit), "label": e["label"]} for e in part]
        for part in (task.train, task.test)
    )
    recipe = (options.plain_epochs, options.plain_learning_rate, options.head_learning_rate)
    trainer = fit(plain, DataCollatorWithPadding(tokenizer), train, *recipe, seed)
    predictions = torch.as_tensor(trainer.predict(test).predictions)
    return untrained, trained, accuracy(predictions, task.test)


def main() -> None:
    """Train and measure, a row a data set."""
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    data = None if options.data is None else Path(options.data)
    if data is None:
        readers = [lambda _: built_in(options)]
    elif data.suffix == ".csv":
        readers = [lambda seed: table(data, options, seed)]
    else:
        known = {
            "fewclue/eprstmt": eprstmt,
            "chnsenticorp": chnsenticorp,
            "fewclue/tnews": tnews,
            "thucnews10": thucnews,
        }
        readers = [partial(read, data, options) for place, read in known.items() if (data / place).is_dir()]
        if not readers:
            raise SystemExit(f"{data} has none of {list(known)}.")

    first_process = TrainingArguments(output_dir=tempfile.gettempdir(), report_to="none").process_index == 0
    ways = ["prompt, untrained", "prompt, trained", "plain fine-tuning"]
    if first_process:
        print("  ".join([f"{'texts':<22}", "majority", *(f"{name:>20}" for name in ways)]))
    for read in readers:
        tasks = [read(seed) for seed in range(options.seeds)]
        rows = [compare(task, options, seed) for seed, task in enumerate(tasks)]
        most = Counter(example["label"] for example in tasks[0].test).most_common(1)[0][1] / len(tasks[0].test)
        cells = [f"{tasks[0].name + f'  {len(tasks[0].labels)} labels':<22}", f"{most:>8.3f}"]
        for column in zip(*rows, strict=True):
            deviation = statistics.stdev(column) if len(column) > 1 else 0.0
            cells.append(f"{f'{statistics.fmean(column):.3f} ± {deviation:.3f}':>20}")
        if first_process:
            print("  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
    leave_process_group()
