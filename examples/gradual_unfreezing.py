"""Fine-tune all layers at once, and layer by layer in five ways, on the same texts and seeds.

    python examples/gradual_unfreezing.py
    python examples/gradual_unfreezing.py --data DIR/classification/chnsenticorp --limit 500
    python examples/gradual_unfreezing.py --schedule schedule.yaml --plot schedule.svg

The first learns from a few texts of its own. `--data` is a folder with `train.tsv`, `dev.tsv`, `test.tsv` (or json,
csv) or a name on the hub. Printed are accuracies on the test texts (six of them in the first), mean ± deviation over
the seeds, and how many parameters train in the steps on average; the first prints

    all at once      0.722 ± 0.096  100.0% trained      10 s a run
    gradual          0.667 ± 0.000   59.3% trained       8 s a run
    gradual, bundle  0.611 ± 0.096   59.3% trained       9 s a run
    chain-thaw       0.667 ± 0.000   45.6% trained       8 s a run
    LP-FT            0.722 ± 0.096   83.5% trained       9 s a run
    LISA             0.667 ± 0.000   73.7% trained       6 s a run

The third writes the schedule of gradual unfreezing for the model, to be edited, and draws it; where the file is there
already, it is trained as one way more. On two processes:
`torchrun --nproc_per_node 2 examples/gradual_unfreezing.py` (ACCELERATE_USE_CPU=true without a GPU).
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    HfArgumentParser,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging

import hf_nlpnotes
from hf_nlpnotes.corpora import read_texts
from hf_nlpnotes.training import leave_process_group
from hf_nlpnotes.training.unfreezing import (
    LISA,
    ChainThaw,
    GradualUnfreeze,
    LinearProbeThenFineTune,
    Progress,
    Unfreezing,
    plot_schedule,
    ulmfit,
    write_schedule,
)

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
    limit: int | None = None
    test_texts: int = 1000
    seeds: int = 3
    epochs: float = 6
    batch_size: int = 16
    learning_rate: float = 5e-4
    phase_steps: float = 0.1
    layer_decay: float = 0.8
    max_length: int = 128
    schedule: str | None = None
    plot: str | None = None
    output_dir: str | None = None


class TrainedShare(TrainerCallback):
    """Counts what trains in each step."""

    def __init__(self) -> None:
        self.shares: list[float] = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        """Parameters that have a gradient train."""
        counts = [(parameter.numel(), parameter.grad is not None) for parameter in model.parameters()]
        self.shares.append(sum(n for n, trains in counts if trains) / sum(n for n, _ in counts))


def built_in() -> DatasetDict:
    """The reviews above."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(REVIEWS))})
    parts = {
        split: [{"text": text, "label": label} for label, texts in enumerate(part.values()) for text in texts]
        for split, part in (("train", REVIEWS), ("test", NEW_REVIEWS))
    }
    return DatasetDict({split: Dataset.from_list(rows, features=features) for split, rows in parts.items()})


def accuracy(predictions) -> dict[str, float]:
    """Share of texts with the right label."""
    return {"accuracy": float((predictions.predictions.argmax(-1) == predictions.label_ids).mean())}


def main() -> None:
    """Train in every way with every seed."""
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    texts = read_texts(options.data, options.limit) if options.data else built_in()
    labels = texts["train"].features["label"].names
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    rows = texts.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=options.max_length), batched=True
    )
    steps = options.phase_steps
    ways = {
        "all at once": lambda _: {},
        "gradual": lambda _: {"callbacks": [GradualUnfreeze(steps)]},
        "gradual, bundle": lambda args: ulmfit(args, steps, layer_decay=options.layer_decay),
        "chain-thaw": lambda _: {"callbacks": [ChainThaw(steps)]},
        "LP-FT": lambda _: {"callbacks": [LinearProbeThenFineTune(steps)]},
        "LISA": lambda _: {"callbacks": [LISA(2, every=5)]},
    }
    if options.schedule and Path(options.schedule).exists():
        ways["from the file"] = lambda _: {"callbacks": [Unfreezing(options.schedule)]}

    for way, extras in ways.items():
        scores, begin, share = [], time.time(), TrainedShare()
        for seed in range(options.seeds):
            set_seed(seed)
            model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=len(labels))
            model.accepts_loss_kwargs = False  # stock heads take the mean over their own batch
            with tempfile.TemporaryDirectory() as folder:
                arguments = TrainingArguments(
                    folder,
                    num_train_epochs=options.epochs,
                    per_device_eval_batch_size=64,
                    learning_rate=options.learning_rate,
                    warmup_steps=0.1,
                    seed=seed,
                    save_strategy="no",
                    report_to="none",
                    disable_tqdm=True,
                    dataloader_pin_memory=torch.cuda.is_available(),
                )
                arguments.per_device_train_batch_size = max(1, options.batch_size // arguments.world_size)
                trainer = Trainer(
                    model,
                    arguments,
                    train_dataset=rows["train"],
                    eval_dataset=rows["test"].select(range(min(options.test_texts, len(rows["test"])))),
                    processing_class=tokenizer,
                    compute_metrics=accuracy,
                    **extras(arguments),
                )
                trainer.add_callback(share)
                trainer.remove_callback(PrinterCallback)
                trainer.train()
                scores.append(trainer.evaluate()["eval_accuracy"])
        if trainer.is_world_process_zero():
            deviation = statistics.stdev(scores) if len(scores) > 1 else 0.0
            figures = f"{statistics.mean(scores):.3f} ± {deviation:.3f}  {statistics.mean(share.shares):6.1%} trained"
            print(f"{way:<16} {figures}  {(time.time() - begin) / options.seeds:6.0f} s a run", flush=True)

    if trainer.is_world_process_zero():
        schedule = GradualUnfreeze(steps).schedule_for(model)
        if options.schedule and not Path(options.schedule).exists():
            write_schedule(schedule, options.schedule, model=model)
        if options.plot:
            progress = Progress(step=0, max_steps=trainer.state.max_steps)
            plot_schedule(schedule, model, progress, options.plot)
    if options.output_dir:
        trainer.save_model(options.output_dir)


if __name__ == "__main__":
    main()
    leave_process_group()
