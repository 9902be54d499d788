"""Learn to find answers in texts, measure exact match and F1, and answer questions.

    python examples/question_answering.py
    python examples/question_answering.py --data cmrc2018_dev.json --output_dir reader
    python examples/question_answering.py --data squad_v2 --model NAME --max_length 384 --doc_stride 128
    python examples/question_answering.py --model reader --epochs 0 --predict questions.json --output_dir answers

`--data` is a file in SQuAD's layout (a fifth of its contexts is for evaluation), a folder with `*train*.json` and
`*dev*.json`, or a name on the hub. Without it the script learns from sentences of its own and prints

    600 questions for train, 120 questions for validation; 600 and 120 windows; cmrc2018
    random spans                            exact match   2.5  F1  13.6
    epoch 1    loss 2.539  held out 1.429  exact match  16.7  F1  33.9
    epoch 2    loss 1.353  held out 0.533  exact match  89.2  F1  93.4
    epoch 3    loss 0.505  held out 0.018  exact match 100.0  F1 100.0
    epoch 4    loss 0.119  held out 0.005  exact match 100.0  F1 100.0

    李老师在哪里？  学校门口  (学校门口)
    谁在银行？  我的妈妈  (我的妈妈)
    我的妈妈做什么？  找工作  (找工作)
    …

`--empty_windows 0.25` learns from a quarter of the windows that do not have the answer, which are most of a long text;
`--bf16 true` computes in bfloat16 where the processor is quick at it.
`--output_dir` keeps the model, for `pipeline("extractive-question-answering", model=…)`, and the answers to the
questions of `--predict`, or of the evaluation. The metric is that of SQuAD 2.0 where some questions have no answer,
else that of CMRC 2018, which takes English words and Chinese characters alike; `--metric squad_v1` for SQuAD 1.1.
With two processes: `ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 examples/question_answering.py` (without
ACCELERATE_USE_CPU on GPUs).
"""

import random
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, disable_progress_bars
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    DataCollatorWithPadding,
    HfArgumentParser,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging

import hf_nlpnotes
from hf_nlpnotes.corpora import QUESTION_FEATURES, read_question_file, read_questions
from hf_nlpnotes.question_answering import (
    SpanMetrics,
    cmrc2018,
    drcd,
    prepare_evaluation_features,
    prepare_train_features,
    prepare_validation_features,
    save_predictions,
    squad_v1,
    squad_v2,
)
from hf_nlpnotes.training import leave_process_group

METRICS = {metric.__name__: metric for metric in (squad_v1, squad_v2, cmrc2018, drcd)}
LABELS = {"start_positions", "end_positions"}
NAMES = ["小明", "小红", "李老师", "王先生", "张医生", "我的妈妈", "他的学生", "那个司机"]
PLACES = ["北京", "上海的公司", "学校门口", "电影院", "国家图书馆", "银行", "酒店的房间", "海边"]
DEEDS = ["吃饭", "看新闻", "等朋友", "找工作", "买手机", "开会", "唱歌", "考试"]


@dataclass
class Options:
    """Command-line options."""

    model: str = hf_nlpnotes.EMBEDDED_MODEL
    data: str | None = None
    predict: str | None = None
    metric: str | None = None
    limit: int | None = None
    epochs: float = 4
    learning_rate: float = 2e-4
    head_learning_rate: float = 5e-3
    batch_size: int = 32
    max_length: int = 128
    doc_stride: int = 32
    max_answer_length: int = 50
    empty_windows: float = 1.0
    bf16: bool = False
    seed: int = 0
    output_dir: str | None = None


def built_in(seed: int) -> DatasetDict:
    """Who is where, and does what: three questions on each of some sentences."""
    draw, parts = random.Random(seed), {}
    for part, size in (("train", 200), ("validation", 40)):
        rows = []
        for number in range(size):
            (who, other), (where, there) = draw.sample(NAMES, 2), draw.sample(PLACES, 2)
            what, else_ = draw.sample(DEEDS, 2)
            context = f"今天{who}在{where}{what}，{other}在{there}{else_}。"
            for question, answer in (
                (f"{who}在哪里？", where),
                (f"谁在{there}？", other),
                (f"{other}做什么？", else_),
            ):
                answers = {"text": [answer], "answer_start": [context.rindex(answer)]}
                row = {"id": f"{part}-{number}-{len(rows)}", "question": question}
                rows.append({**row, "context": context, "answers": answers})
        parts[part] = Dataset.from_list(rows, features=QUESTION_FEATURES)
    return DatasetDict(parts)


def random_spans(data: Dataset, train: Dataset, seed: int) -> dict[str, str]:
    """For each question a span anywhere in its context, as long as some answer to learn from."""
    draw = random.Random(seed)
    lengths = [len(answers["text"][0]) for answers in train["answers"] if answers["text"]]
    spans = {}
    for key, context in zip(data["id"], data["context"], strict=True):
        length = min(draw.choice(lengths), len(context))
        start = draw.randint(0, len(context) - length)
        spans[key] = context[start : start + length]
    return spans


def row(scores: dict[str, Any]) -> str:
    """Exact match and F1, whatever the metric calls the first, with or without the Trainer's prefix."""
    found = {name.removeprefix("eval_"): value for name, value in scores.items()}
    exact = next(found[name] for name in ("exact_match", "exact", "em") if name in found)
    return f"exact match {exact:5.1f}  F1 {found['f1']:5.1f}"


class Rows(TrainerCallback):
    """Prints a row an epoch."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        """After each evaluation: losses and scores."""
        if state.is_world_process_zero:
            losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
            loss = f"loss {losses[-1]:.3f}" if losses else " " * 10
            print(
                f"epoch {state.epoch or 0:<4.3g} {loss}  held out {metrics['eval_loss']:.3f}  {row(metrics)}",
                flush=True,
            )


def main() -> None:
    """Train, evaluate, predict."""
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    data = read_questions(options.data, options.seed) if options.data else built_in(options.seed)
    if options.limit is not None:
        data = DatasetDict({part: rows.select(range(min(options.limit, len(rows)))) for part, rows in data.items()})
    has_negatives = not all(answers["text"] for answers in data["train"]["answers"])
    metric = options.metric or ("squad_v2" if has_negatives else "cmrc2018")
    set_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForQuestionAnswering.from_pretrained(options.model, dtype=torch.float32)

    sizes = {"max_length": options.max_length, "doc_stride": options.doc_stride}
    how = {"tokenizer": tokenizer, **sizes, "padding": False}  # the collator pads, a batch to its longest window

    def windows(prepare: Any, rows: Dataset) -> Dataset:
        return rows.map(prepare, batched=True, remove_columns=rows.column_names, fn_kwargs=how)

    train = windows(prepare_train_features, data["train"])
    if options.empty_windows < 1:
        # Most windows of a long context do not have the answer: some of them teach as much as all.
        draw = np.random.default_rng(options.seed)
        empty = np.array(train["end_positions"]) == 0
        train = train.select(np.flatnonzero(~empty | (draw.random(len(train)) < options.empty_windows)))
    validation = windows(prepare_evaluation_features, data["validation"])
    measure = SpanMetrics(data["validation"], validation, metric, max_answer_length=options.max_answer_length)

    body = {id(parameter) for parameter in model.base_model.parameters()}
    parts = {
        options.learning_rate: [p for p in model.parameters() if id(p) in body],
        options.head_learning_rate: [p for p in model.parameters() if id(p) not in body],
    }
    optimizer = torch.optim.AdamW([{"params": part, "lr": rate} for rate, part in parts.items()], weight_decay=0.01)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=options.epochs,
            per_device_eval_batch_size=64,
            warmup_steps=0.1,
            bf16=options.bf16,
            use_cpu=options.bf16 and not torch.accelerator.is_available(),  # bf16 on a CPU wants to be told of it
            eval_strategy="epoch",
            logging_strategy="epoch",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=options.seed,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        arguments.per_device_train_batch_size = max(1, options.batch_size // arguments.world_size)
        trainer = Trainer(
            model,
            arguments,
            DataCollatorWithPadding(tokenizer),
            train_dataset=train,
            eval_dataset=validation,
            compute_metrics=measure,
            optimizers=(optimizer, None),
            callbacks=[Rows],
        )
        trainer.remove_callback(PrinterCallback)
        first = trainer.is_world_process_zero()
        if first:
            counts = ", ".join(f"{len(data[part])} questions for {part}" for part in data)
            print(f"{counts}; {len(train)} and {len(validation)} windows; {metric}")
            scores = METRICS[metric](
                random_spans(data["validation"], data["train"], options.seed), measure.references()
            )
            print(f"random spans                            {row(scores)}", flush=True)
        if options.epochs:
            trainer.train()
        else:
            trainer.evaluate()

        asked, features = data["validation"], validation
        if options.predict:
            asked = read_question_file(options.predict)
            features = windows(prepare_validation_features, asked)
        logits = trainer.predict(features.remove_columns(LABELS & set(features.column_names))).predictions
    answers = SpanMetrics(asked, features, metric, max_answer_length=options.max_answer_length).answers(logits)
    if first:
        print()
        for example in asked.select(range(min(5, len(asked)))):
            gold = "".join(f"  ({text})" for text in example["answers"]["text"][:1])
            print(f"{example['question']}  {answers.answers[example['id']] or '-'}{gold}")
    if options.output_dir:
        trainer.save_model(options.output_dir)
        if first:
            tokenizer.save_pretrained(options.output_dir)
            save_predictions(answers, options.output_dir)


if __name__ == "__main__":
    main()
    leave_process_group()
