"""Train sentiment and named entities over one encoder, beside a model for each; then a pipeline for each task.

    python examples/multi_task.py
    python examples/multi_task.py --data DATA/classification/chnsenticorp --tags DATA/ner/weibo

The first learns from a few sentences of its own. The second reads 1,000 of ChnSentiCorp's reviews and 1,000 posts of
Weibo NER; `--data` is a folder of `train.tsv`, `test.json`, … and `--tags` one of CoNLL files, or names on the hub.
The first prints, above an answer of each task's pipeline,

                           accuracy               F1
    sentiment alone    0.633 ± 0.058
    ner alone                          1.000 ± 0.000
    together           0.900 ± 0.173   1.000 ± 0.000

Accuracy and entity-level F1 on the test texts, mean ± deviation over the seeds. The folders are stock models, for
`AutoModelFor…` and `pipeline`. With two processes, which take the same task in each step:
`ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 examples/multi_task.py` (without ACCELERATE_USE_CPU on GPUs).
"""

import statistics
import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from _stock_tags import read_tags
from datasets import ClassLabel, Dataset, DatasetDict, Sequence, disable_progress_bars
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    pipeline,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging

import hf_nlpnotes
from hf_nlpnotes.corpora import read_texts
from hf_nlpnotes.training import leave_process_group
from hf_nlpnotes.training.multi_task import MultiTaskModel
from hf_nlpnotes.training.multi_task_data import MultiTaskDataset, task_datasets
from hf_nlpnotes.training.multi_task_sampling import TaskSampling

GOOD, BAD = ["很好", "很满意", "值得推荐", "好极了"], ["太差", "很失望", "不推荐", "糟透了"]
PLACES, PEOPLE = ["北京", "上海", "广州", "深圳", "重庆"], ["老师", "学生", "先生", "球队"]
SENTENCE = "先生在北京的酒店很满意"


@dataclass
class Options:
    """Command-line options."""

    model: str = hf_nlpnotes.EMBEDDED_MODEL
    data: str | None = None
    tags: str | None = None
    limit: int = 1000
    sampling: str = "annealed"
    epochs: float = 6
    learning_rate: float = 5e-4
    batch_size: int = 16
    max_length: int = 128
    seeds: int = 3
    output_dir: str | None = None


def built_in() -> tuple[DatasetDict, DatasetDict]:
    """Reviews of towns, and who is where."""
    reviews = [
        {"text": f"{place}的酒店{words}", "label": label}
        for place, label in product(PLACES, (0, 1))
        for words in (BAD, GOOD)[label]
    ]
    texts = Dataset.from_list(reviews).cast_column("label", ClassLabel(names=["差评", "好评"]))
    rows = []
    for who, place, where in product(
        PEOPLE, PLACES, ["{who}在{place}", "{place}的{who}很高兴", "明日{who}去{place}考试"]
    ):
        text = where.format(who=who, place=place)
        tags = [0] * len(text)
        tags[text.index(place) : text.index(place) + 2] = [1, 2]
        rows.append({"tokens": list(text), "ner_tags": tags})
    names = Sequence(ClassLabel(names=["O", "B-LOC", "I-LOC"]))
    tagged = Dataset.from_list(rows).cast_column("ner_tags", names)
    return tuple(data.train_test_split(test_size=0.25, seed=0) for data in (texts, tagged))  # type: ignore[return-value]


def encode(data: DatasetDict, tokenizer: Any, max_length: int) -> DatasetDict:
    """Token ids and labels; a word's first piece has its tag, the others none."""

    def tagged(row: dict[str, Any]) -> dict[str, Any]:
        encoded = tokenizer(row["tokens"], is_split_into_words=True, truncation=True, max_length=max_length)
        words = encoded.word_ids()
        first = [word is not None and word != before for word, before in zip(words, [None, *words], strict=False)]
        labels = [row["ner_tags"][word] if new else -100 for word, new in zip(words, first, strict=True)]
        return {**encoded, "labels": labels}

    def text(row: dict[str, Any]) -> dict[str, Any]:
        return tokenizer(row["text"], truncation=True, max_length=max_length)

    return data.map(tagged if "ner_tags" in data["train"].features else text)


def entities(tags: list[str]) -> set[tuple[str, int, int]]:
    """Type, first and last token of each entity: B-X and the I-X behind it."""
    found, begin = set(), 0
    for place, tag in enumerate([*tags, "O"]):
        if place and tags[begin][0] == "B" and tag != f"I-{tags[begin][2:]}":
            found.add((tags[begin][2:], begin, place))
        if tag[0] != "I" or tag[2:] != tags[begin][2:]:
            begin = place
    return found


def f1(prediction: Any, names: list[str]) -> dict[str, float]:
    """Of entities that are right in type and bounds."""
    right = proposed = true = 0
    for scores, labels in zip(prediction.predictions, prediction.label_ids, strict=True):
        real = labels != -100
        guess = entities([names[tag] for tag in scores[real].argmax(-1)])
        gold = entities([names[tag] for tag in labels[real]])
        right, proposed, true = right + len(guess & gold), proposed + len(guess), true + len(gold)
    return {"f1": 2 * right / max(proposed + true, 1)}


def fit(tasks: dict[str, Any], data: dict[str, DatasetDict], tokenizer: Any, options: Options, seed: int) -> Any:
    """Train these tasks over one encoder: the model, and the figures of each on its test texts."""
    set_seed(seed)
    model = MultiTaskModel.from_encoder(options.model, tasks)
    names = data["ner"]["train"].features["ner_tags"].feature.names
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            train_sampling_strategy="sequential",  # MultiTaskDataset shuffles, within the tasks
            num_train_epochs=options.epochs,
            learning_rate=options.learning_rate,
            warmup_steps=0.1,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=seed,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        arguments.per_device_train_batch_size = max(1, options.batch_size // arguments.world_size)
        trainer = Trainer(
            model,
            arguments,
            model.data_collator(tokenizer),
            MultiTaskDataset.for_trainer(
                {task: data[task]["train"] for task in tasks}, arguments, TaskSampling(options.sampling)
            ),
            eval_dataset=task_datasets({task: data[task]["test"] for task in tasks}),
            compute_metrics=model.task_metrics(
                {
                    task: function
                    for task, function in {
                        "sentiment": lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
                        "ner": lambda p: f1(p, names),
                    }.items()
                    if task in tasks
                }
            ),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return model, trainer.evaluate()


def main() -> None:
    """Train each task alone and both together with every seed; save a folder a task and run its pipeline."""
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    first_process = TrainingArguments(output_dir=tempfile.gettempdir(), report_to="none").process_index == 0
    tokenizer = AutoTokenizer.from_pretrained(options.model)

    rows: dict[str, dict[str, list[float]]] = {}
    for seed in range(options.seeds):
        if options.data and options.tags:
            raw = (read_texts(options.data, options.limit, seed), read_tags(options.tags, options.limit, seed))
        else:
            raw = built_in()
        data = {
            task: encode(one, tokenizer, options.max_length)
            for task, one in zip(("sentiment", "ner"), raw, strict=True)
        }
        names = raw[1]["train"].features["ner_tags"].feature.names
        tasks = {
            "sentiment": (
                AutoModelForSequenceClassification,
                {"id2label": dict(enumerate(raw[0]["train"].features["label"].names))},
            ),
            "ner": (AutoModelForTokenClassification, {"id2label": dict(enumerate(names))}),
        }
        for way, chosen in {"sentiment alone": ["sentiment"], "ner alone": ["ner"], "together": list(tasks)}.items():
            model, metrics = fit({task: tasks[task] for task in chosen}, data, tokenizer, options, seed)
            for figure in ("eval_sentiment_accuracy", "eval_ner_f1"):
                if figure in metrics:
                    rows.setdefault(way, {}).setdefault(figure, []).append(metrics[figure])

    if first_process:
        print(f"{'':<16}{'accuracy':>15}{'F1':>17}")
        for way, figures in rows.items():
            cells = [figures.get(figure, []) for figure in ("eval_sentiment_accuracy", "eval_ner_f1")]
            spread = [statistics.stdev(cell) if len(cell) > 1 else 0.0 for cell in cells]
            told = [f"{statistics.fmean(c):.3f} ± {s:.3f}" if c else "" for c, s in zip(cells, spread, strict=True)]
            print(f"{way:<16}" + "".join(f"{cell:>16}" for cell in told))
        with tempfile.TemporaryDirectory() as folder:
            output = Path(options.output_dir or folder)
            model.save_pretrained(output / "together")
            for task, kind in {"sentiment": "text-classification", "ner": "token-classification"}.items():
                model.save_task(output / task, task, tokenizer)
                answers = pipeline(kind, str(output / task))(SENTENCE)
                print(task, [(one.get("word", SENTENCE), one.get("label") or one["entity"]) for one in answers])


if __name__ == "__main__":
    main()
    leave_process_group()
