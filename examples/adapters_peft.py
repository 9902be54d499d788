r"""Train LoRA, IA3 and bottleneck adapters beside full fine-tuning, then switch one model between two tasks.

    python examples/adapters_peft.py
    python examples/adapters_peft.py --data chnsenticorp --second_data fewclue/tnews --limit 300 --test_texts 400 \
        --max_length 48

The first trains on a few texts of its own, the second on folders (or names on the hub) with texts and labels. Printed
are, for each way, the trained parameters, the accuracy on the test texts and what is saved; on the built-in texts,
which are few and serve as test texts too:

                          trained parameters  accuracy  saved
    full fine-tuning               6,016,771     1.000  25.85 MB
    LoRA                              99,331     1.000  0.40 MB

and so on, pooler and classifier included, then the accuracies of two tasks between which one model is switched.
Each is saved by `save_pretrained` and measured after it was loaded again. With two processes:
`torchrun --nproc_per_node 2 examples/adapters_peft.py` (ACCELERATE_USE_CPU=true without a GPU).
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list, wait_for_everyone
from datasets import ClassLabel, Dataset, DatasetDict, disable_progress_bars
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
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
from hf_nlpnotes.adapters import BottleneckAdapterConfig, new_layers
from hf_nlpnotes.corpora import read_texts
from hf_nlpnotes.training import leave_process_group

OPINIONS = {
    "差评": ["质量太差，用了两天就坏", "客服态度恶劣，再也不买", "房间又脏又吵，一夜没睡", "和图片完全不一样，失望"],
    "好评": ["质量很好，用着顺手", "客服耐心，下次还来", "房间干净安静，睡得香", "比图片还好看，惊喜"],
}
TOPICS = {
    "体育": ["国足今晚出战", "主队三比一取胜", "他打破了世界纪录", "教练宣布新赛季名单"],
    "财经": ["股市今日大涨", "银行公布全年业绩", "基金经理看好债券", "公司发行新股"],
    "教育": ["高考今日开考", "大学公布录取分数", "小学生参加数学竞赛", "老师讲解作文题"],
}


@dataclass
class Options:
    """Command-line options."""

    model: str = hf_nlpnotes.EMBEDDED_MODEL
    data: str | None = None
    second_data: str | None = None
    limit: int = 1000
    test_texts: int = 1000
    max_length: int = 128
    epochs: int = 4
    learning_rate: float = 3e-4
    adapter_learning_rate: float = 3e-3
    bottleneck_size: int = 32
    seed: int = 0


def built_in(texts: dict[str, list[str]]) -> DatasetDict:
    """Texts above, which stand for training and test alike."""
    rows = [{"text": text, "label": i} for i, part in enumerate(texts.values()) for text in part]
    data = Dataset.from_list(rows).cast_column("label", ClassLabel(names=list(texts)))
    return DatasetDict(train=data, test=data)


def texts_of(name: str | None, options: Options) -> DatasetDict | None:
    """Texts of a folder or of the hub, not more than wanted."""
    if name is None:
        return None
    data = read_texts(name, options.limit, options.seed)
    test = data["test"].shuffle(seed=0)
    return DatasetDict(train=data["train"], test=test.select(range(min(options.test_texts, len(test)))))


def methods(options: Options, new: list[str]) -> dict:
    """Name -> configuration; `None` is full fine-tuning. Head and pooler, which are `new`, are trained by all."""
    size = options.bottleneck_size
    return {
        "full fine-tuning": None,
        "LoRA": LoraConfig(r=8, lora_alpha=16, task_type="SEQ_CLS", modules_to_save=list(new)),
        "IA3": IA3Config(task_type="SEQ_CLS", modules_to_save=list(new)),
        "adapters, Houlsby": BottleneckAdapterConfig(placement="houlsby", bottleneck_size=size, task_type="SEQ_CLS"),
        "adapters, parallel": BottleneckAdapterConfig(
            placement="parallel", bottleneck_size=size, scaling=4.0, task_type="SEQ_CLS"
        ),
        "adapters, Pfeiffer": BottleneckAdapterConfig(placement="pfeiffer", bottleneck_size=size, task_type="SEQ_CLS"),
    }


def trainer_of(model, tokenizer, data: DatasetDict, options: Options, folder: str, rate: float) -> Trainer:
    """The stock Trainer, without a word."""

    def encode(rows: dict) -> dict:
        limit = min(options.max_length, model.config.max_position_embeddings)
        return {**tokenizer(rows["text"], truncation=True, max_length=limit), "labels": rows["label"]}

    parts = data.map(encode, batched=True, remove_columns=["text", "label"])
    few = len(parts["train"]) < 200
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=options.epochs * (5 if few else 1),
        learning_rate=rate,
        warmup_steps=0.1,
        per_device_eval_batch_size=64,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=options.seed,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    arguments.per_device_train_batch_size = max(1, (4 if few else 16) // arguments.world_size)
    trainer = Trainer(
        model, arguments, DataCollatorWithPadding(tokenizer), parts["train"], parts["test"], compute_metrics=accuracy
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def accuracy(prediction) -> dict[str, float]:
    """Share of the texts whose best label is the right one."""
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def main() -> None:
    """Train each way, then two tasks in one model."""
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    first_process = TrainingArguments(output_dir=tempfile.gettempdir(), report_to="none").process_index == 0
    show = print if first_process else lambda *_, **__: None

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    opinions = texts_of(options.data, options) or built_in(OPINIONS)
    topics = texts_of(options.second_data, options) or built_in(TOPICS)
    # One model for both tasks: its head is as wide as the one with more labels needs.
    labels = max(part["train"].features["label"].num_classes for part in (opinions, topics))

    def base():
        set_seed(options.seed)
        return AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=labels)

    with tempfile.TemporaryDirectory() as own:
        (folder,) = broadcast_object_list([own])  # the first process saves, all of them load
        show(f"{'':<20}  trained parameters  accuracy  saved")
        for name, config in methods(options, new_layers(base())).items():
            model = base() if config is None else get_peft_model(base(), config)
            rate = options.learning_rate if config is None else options.adapter_learning_rate
            trainer = trainer_of(model, tokenizer, opinions, options, folder, rate)
            trainer.train()
            trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
            saved = Path(folder) / name
            trainer.save_model(str(saved))
            wait_for_everyone()
            if config is None:
                loaded = AutoModelForSequenceClassification.from_pretrained(saved)
            else:
                loaded = PeftModel.from_pretrained(base(), str(saved))
            share = trainer_of(loaded, tokenizer, opinions, options, folder, rate).evaluate()["eval_accuracy"]
            size = sum(path.stat().st_size for path in saved.glob("*.safetensors"))
            show(f"{name:<20}  {trained:>18,}  {share:>8.3f}  {size / 1e6:.2f} MB")

        # The last model learns a second task in an adapter of its own; the first one's stays as it is.
        model.add_adapter("topics", methods(options, [])["adapters, Pfeiffer"])
        model.set_adapter("topics")
        trainer = trainer_of(model, tokenizer, topics, options, folder, options.adapter_learning_rate)
        trainer.train()
        for adapter, data in (("default", opinions), ("topics", topics)):
            model.set_adapter(adapter)
            test = trainer_of(model, tokenizer, data, options, folder, options.adapter_learning_rate)
            show(f"switched to {adapter}: accuracy {test.evaluate()['eval_accuracy']:.3f}")
        wait_for_everyone()


if __name__ == "__main__":
    main()
    leave_process_group()
