"""The card of a trained model says what was measured, and nothing else."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, Trainer, TrainingArguments

from hf_nlpnotes import ChineseBertForMaskedLM, ChineseBertForSequenceClassification, ChineseBertForTokenClassification
from hf_nlpnotes.training import model_card

TEXTS = ["我喜欢猫", "国足今晚出战", "股票涨跌", "难过"]


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


@pytest.fixture(scope="module")
def trainer(tiny_chinesebert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """Return a trainer after two evaluations, with `epoch` 2 and 4 steps."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
    rows: list[Any] = [{**tokenizer(text), "labels": number % 2} for number, text in enumerate(TEXTS)]
    arguments = TrainingArguments(
        str(tmp_path_factory.mktemp("runs") / "sentiment"),
        per_device_train_batch_size=2,
        num_train_epochs=2,
        eval_strategy="epoch",
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    model = ChineseBertForSequenceClassification.from_pretrained(tiny_chinesebert_folder)
    made = Trainer(
        model, arguments, train_dataset=rows, eval_dataset=rows, processing_class=tokenizer, compute_metrics=accuracy
    )
    made.train()
    return made


def reread(card: ModelCard, folder: Path) -> ModelCard:
    """The card as the hub's own reader understands its file."""
    card.save(folder / "README.md")
    return ModelCard.load(folder / "README.md")


def test_figures_are_those_of_the_trainer(trainer: Trainer, tmp_path: Path) -> None:
    card = reread(model_card(trainer, name="someone/mood", dataset="Moods", license="mit"), tmp_path)
    logged = [entry for entry in trainer.state.log_history if "eval_loss" in entry][-1]
    results = {result.metric_type: result for result in card.data.eval_results}
    assert {name: result.metric_value for name, result in results.items()} == {
        "loss": logged["eval_loss"],
        "accuracy": logged["eval_accuracy"],
    }
    assert results["accuracy"].dataset_name == "Moods"
    assert results["accuracy"].task_type == "text-classification"
    assert f"| accuracy | {logged['eval_accuracy']:.4g} |" in card.text
    assert "at step 4 of 4" in card.text
    assert "| examples | 4 |" in card.text
    assert "| steps | 4 |" in card.text


def test_the_hub_knows_what_it_is(trainer: Trainer, tmp_path: Path) -> None:
    data = reread(model_card(trainer, name="someone/mood", tags=["mood"]), tmp_path).data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-classification"
    assert data.language == ["zh"]
    assert data.tags == ["chinesebert", "hf_nlpnotes", "mood"]
    assert data.license is None
    assert data.eval_results is None  # there is no name of the data, which an entry of the index needs


def test_no_path_of_this_machine_is_told(trainer: Trainer, tmp_path: Path) -> None:
    card = model_card(trainer, name="mood")
    assert card.data.base_model is None
    assert str(Path(trainer.model.config.name_or_path).parent) not in str(card)
    assert "from a local folder" in card.text
    named = reread(model_card(trainer, name="mood", base_model="someone/base"), tmp_path)
    assert named.data.base_model == "someone/base"


def test_what_was_not_measured_is_not_claimed(trainer: Trainer, tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    model = ChineseBertForMaskedLM.from_pretrained(tiny_chinesebert_folder)
    arguments = TrainingArguments(str(tmp_path / "plain"), report_to="none", use_cpu=True)
    card = model_card(Trainer(model, arguments), dataset="Moods")
    assert card.data.eval_results is None
    assert card.data.pipeline_tag == "fill-mask"
    assert "nothing was measured" in card.text
    for word in ("| steps |", "| examples |", "learning rate"):
        assert word not in card.text


def test_an_evaluation_before_the_last_step_says_so(trainer: Trainer) -> None:
    state = SimpleNamespace(**vars(trainer.state))
    state.log_history = [{"eval_loss": 0.5, "step": 2, "epoch": 1.0}]
    earlier = SimpleNamespace(**{**vars(trainer), "state": state, "accelerator": trainer.accelerator})
    assert "at step 2 of 4" in model_card(earlier).text


def test_with_the_best_weights_go_their_figures(trainer: Trainer) -> None:
    state = SimpleNamespace(**vars(trainer.state))
    state.best_global_step = 2
    state.log_history = [{"eval_loss": 0.25, "step": 2}, {"eval_loss": 0.75, "step": 4}]
    args = SimpleNamespace(
        **{
            name: getattr(trainer.args, name)
            for name in (
                "output_dir",
                "train_batch_size",
                "gradient_accumulation_steps",
                "world_size",
                "learning_rate",
                "lr_scheduler_type",
                "optim",
                "seed",
            )
        },
        load_best_model_at_end=True,
    )
    best = SimpleNamespace(**{**vars(trainer), "state": state, "args": args})
    text = model_card(best).text
    assert "| loss | 0.25 |" in text
    assert "| 4 | 0.75 |" in text  # the table of the training has both


def test_an_adapter_is_of_peft(trainer: Trainer, tiny_chinesebert_folder: Path) -> None:
    model = ChineseBertForTokenClassification.from_pretrained(tiny_chinesebert_folder)
    adapted = get_peft_model(model, LoraConfig(task_type="TOKEN_CLS", r=2))
    arguments = TrainingArguments(trainer.args.output_dir, report_to="none", use_cpu=True)
    card = model_card(Trainer(adapted, arguments), metrics={"eval_f1": 0.5, "eval_runtime": 3.0}, dataset="Names")
    assert card.data.library_name == "peft"
    assert card.data.pipeline_tag == "token-classification"
    assert [(one.metric_type, one.metric_value) for one in card.data.eval_results] == [("f1", 0.5)]


def test_a_metric_is_a_number(trainer: Trainer) -> None:
    with pytest.raises(TypeError, match=r"'report' is \{\}"):
        model_card(trainer, metrics={"report": {}})
    with pytest.raises(TypeError, match="takes a Trainer, got a str"):
        model_card("runs")
    card = model_card(trainer, metrics={"f1": float("nan"), "loss": 1.0}, dataset="Moods")
    assert [one.metric_type for one in card.data.eval_results] == ["loss"]
