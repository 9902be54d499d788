"""The probe against the Trainer: the norm of the gradients at accumulation 4 over that of the same batch at once."""

import json
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BigBirdConfig,
    BigBirdForSequenceClassification,
    ElectraConfig,
    ElectraForPreTraining,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

from hf_nlpnotes.models.chinesebert import (
    ChineseBertConfig,
    ChineseBertForSequenceClassification,
    embeddings_chinesebert,
)
from hf_nlpnotes.training.loss_probe import honours_num_items
from hf_nlpnotes.training.loss_scaling import correct_loss_scaling, loss_factor, warn_of_wrong_loss_scaling

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 40,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*pin_memory.*"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # PEFT asks for it
]


def bert(head: Any = BertForSequenceClassification, **options: Any) -> Any:
    torch.manual_seed(0)
    return head(BertConfig(**SIZES, **options))


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=40, n_positions=16, **quiet))


def with_lora(model: Any) -> Any:
    import peft

    return peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"]))


def rows(kind: str) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 40, (8, 6), generator=generator)
    if kind == "sequence":
        return [{"input_ids": row, "labels": i % 2} for i, row in enumerate(ids)]
    if kind == "numbers":
        return [{"input_ids": row, "labels": float(i % 2)} for i, row in enumerate(ids)]
    if kind == "choice":
        return [{"input_ids": torch.stack([row, row.flip(0)]), "labels": i % 2} for i, row in enumerate(ids)]
    if kind == "span":
        return [{"input_ids": row, "start_positions": 1, "end_positions": 2 + i % 3} for i, row in enumerate(ids)]
    return [{"input_ids": row, "labels": row % 2 if kind == "tags" else row} for row in ids]


def grad_norm(folder: Path, model: Any, kind: str, accumulation: int, *, mend_trainer: bool = False) -> float:
    args = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=8 // accumulation,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        learning_rate=0.0,
        max_grad_norm=1e9,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
    )
    trainer = Trainer(model=model, args=args, train_dataset=rows(kind))
    if mend_trainer:
        assert correct_loss_scaling(trainer)
    trainer.train()
    return next(float(entry["grad_norm"]) for entry in trainer.state.log_history if "grad_norm" in entry)


MODELS = {
    "sequence": (bert, "sequence", 4),
    "regression": (lambda: bert(num_labels=1), "numbers", 4),
    "tags": (lambda: bert(BertForTokenClassification), "tags", 4),
    "choice": (lambda: bert(BertForMultipleChoice), "choice", 4),
    "masked": (lambda: bert(BertForMaskedLM), "tokens", 4),
    "lora": (lambda: with_lora(bert()), "sequence", 4),
    "span": (lambda: bert(BertForQuestionAnswering), "span", 1),  # without `labels` the Trainer counts nothing
    "causal": (gpt2, "tokens", 1),  # divides rightly
}


@pytest.mark.parametrize("name", MODELS)
def test_gradients_do_not_depend_on_accumulation(name: str, tmp_path: Path) -> None:
    make, kind, wrong = MODELS[name]
    before = grad_norm(tmp_path, make(), kind, 4) / grad_norm(tmp_path, make(), kind, 1)
    assert before == pytest.approx(wrong, rel=1e-4)
    honours = name == "causal"
    model = make()
    assert honours_num_items(model) == honours
    assert correct_loss_scaling(model) != honours
    assert not correct_loss_scaling(model), "there is nothing left to mend"
    after = grad_norm(tmp_path, model, kind, 4) / grad_norm(tmp_path, make(), kind, 1)
    assert after == pytest.approx(1, rel=1e-4)


def test_a_trainer_can_be_mended_before_it_trains(tmp_path: Path) -> None:
    ratio = grad_norm(tmp_path, bert(), "sequence", 4, mend_trainer=True) / grad_norm(tmp_path, bert(), "sequence", 1)
    assert ratio == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification", "single_label_classification", None])
def test_our_models_say_it_right(problem: str | None) -> None:
    model = ChineseBertForSequenceClassification(ChineseBertConfig(**SIZES, num_labels=3, problem_type=problem))
    assert honours_num_items(model) == model.accepts_loss_kwargs
    assert not correct_loss_scaling(model)


def test_the_made_up_example_of_a_chinesebert_has_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr(embeddings_chinesebert.logger, "warning_once", warned.append)
    honours_num_items(ChineseBertForSequenceClassification(ChineseBertConfig(**SIZES)))
    assert not warned


class TestThatTheProbeLeavesNoTrace:
    def test_in_the_model(self) -> None:
        model = bert()
        model.train()
        model.bert.encoder.eval()
        model.classifier.weight.grad = torch.ones_like(model.classifier.weight)
        modes = [module.training for module in model.modules()]
        state = {name: value.clone() for name, value in model.state_dict().items()}
        config = model.config.to_dict()
        honours_num_items(model)
        assert [module.training for module in model.modules()] == modes
        assert model.config.to_dict() == config
        assert model.config.problem_type is None
        assert torch.equal(model.classifier.weight.grad, torch.ones_like(model.classifier.weight))
        assert all(parameter.grad is None for name, parameter in model.bert.named_parameters())
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())

    def test_in_a_model_that_changes_itself_for_short_inputs(self) -> None:
        config = BigBirdConfig(**SIZES, attention_type="block_sparse", block_size=4, num_random_blocks=1)
        model = BigBirdForSequenceClassification(config).eval()
        honours_num_items(model)
        assert model.bert.attention_type == "block_sparse"
        assert model.bert.encoder.layer[0].attention.attention_type == "block_sparse"
        model(input_ids=torch.ones(1, 6, dtype=torch.long))
        assert model.bert.attention_type == "original_full", "the model no longer changes: test it with another"

    def test_in_buffers_and_random_numbers(self) -> None:
        class Counting(BertForSequenceClassification):
            def __init__(self, config: BertConfig) -> None:
                super().__init__(config)
                self.register_buffer("calls", torch.zeros(()))

            def forward(self, *args: Any, **kwargs: Any) -> Any:
                self.calls += 1
                self.config.seen = float(torch.rand(()) + random.random() + np.random.rand())  # noqa: NPY002 (what models draw from)
                return super().forward(*args, **kwargs)

        model = bert(Counting)
        states = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002 (what models draw from)
        honours_num_items(model, {"input_ids": torch.tensor([[5, 6]]), "labels": torch.tensor([1])})
        assert model.calls == 0
        assert not hasattr(model.config, "seen")
        assert torch.equal(torch.get_rng_state(), states[0])
        assert random.getstate() == states[1]
        assert np.random.get_state()[1].tolist() == states[2]  # noqa: NPY002 (what models draw from)

    def test_and_no_copy_of_what_a_hook_belongs_to(self) -> None:
        class Owner:
            calls = 0

            def __deepcopy__(self, memo: Any) -> Any:
                raise AssertionError("copied")

            def hook(self, *_: Any) -> None:
                self.calls += 1

        owner, model = Owner(), bert()
        model.bert.register_forward_hook(owner.hook)
        assert not honours_num_items(model)
        assert owner.calls


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification", "single_label_classification"])
def test_the_kind_of_problem_is_the_configurations(problem: str) -> None:
    assert not honours_num_items(bert(num_labels=3, problem_type=problem))


def test_other_inputs_and_labels() -> None:
    assert not honours_num_items(ElectraForPreTraining(ElectraConfig(**SIZES, embedding_size=16)))
    pictures = ViTConfig(**{**SIZES, "image_size": 8, "patch_size": 4})
    assert honours_num_items(ViTForImageClassification(pictures))


def test_a_model_that_cannot_be_asked_is_named() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        def forward(self, signal: torch.Tensor, labels: torch.Tensor, **kwargs: Any) -> dict[str, torch.Tensor]:
            loss = ((signal * self.weight).sum() - labels).pow(2).sum()
            return {"loss": loss / kwargs["num_items_in_batch"]}

    with pytest.raises(ValueError, match=r"Odd could not be asked .* Pass a batch"):
        correct_loss_scaling(Odd())
    batch = {"signal": torch.ones(2), "labels": torch.zeros(2)}
    assert not correct_loss_scaling(Odd(), batch)
    with pytest.raises(ValueError, match=r"Odd has a loss of 0\.0 on the probe"):
        correct_loss_scaling(Odd(), {"signal": torch.ones(2), "labels": torch.full((2,), 2.0)})
    with torch.device("meta"):
        model = Odd()
    with pytest.raises(ValueError, match="Odd is on the meta device"):
        correct_loss_scaling(model)
    with pytest.raises(TypeError, match="expected a torch module or a Trainer, got str"):
        correct_loss_scaling("bert")


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    return TrainingArguments(output_dir=str(folder), report_to="none", use_cpu=True, **options)


class TestTheWarning:
    def test_names_the_model_and_the_cure_once(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        args, model = arguments(tmp_path, gradient_accumulation_steps=3), bert()
        with caplog.at_level(logging.WARNING):
            assert warn_of_wrong_loss_scaling(model, args)
            assert warn_of_wrong_loss_scaling(model, args)
            assert warn_of_wrong_loss_scaling(with_lora(model), args)
        [message] = [record.getMessage() for record in caplog.records if record.name.startswith("hf_nlpnotes")]
        assert "BertForSequenceClassification ignores num_items_in_batch" in message
        assert "3 times too large" in message
        assert "correct_loss_scaling(model)" in message

    @pytest.mark.parametrize(
        ("make", "options"),
        [
            (bert, {}),
            (bert, {"gradient_accumulation_steps": 2, "label_smoothing_factor": 0.1}),
            (gpt2, {"gradient_accumulation_steps": 2}),
            (lambda: bert(BertForQuestionAnswering), {"gradient_accumulation_steps": 2}),
        ],
    )
    def test_is_not_given_where_nothing_is_wrong(
        self, make: Any, options: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert not warn_of_wrong_loss_scaling(make(), arguments(tmp_path, **options))
        assert not caplog.records

    def test_is_not_given_after_the_cure(self, tmp_path: Path) -> None:
        model = bert()
        correct_loss_scaling(model)
        assert not warn_of_wrong_loss_scaling(model, arguments(tmp_path, gradient_accumulation_steps=2))

    def test_what_cannot_be_asked_is_logged_as_such(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        class Odd(nn.Module):
            def forward(self, signal: torch.Tensor, labels: torch.Tensor, **kwargs: Any) -> None: ...

        with caplog.at_level(logging.INFO, "hf_nlpnotes"):
            assert not warn_of_wrong_loss_scaling(Odd(), arguments(tmp_path, gradient_accumulation_steps=2))
        assert "The scaling of the loss of Odd is not known" in caplog.text


def test_on_two_processes(torchrun: Callable[..., Any], tmp_path: Path) -> None:
    """Accumulation of 2 on 2 processes: 4 times too large before, equal to one process and one batch afterwards."""
    done = torchrun(Path(__file__).with_name("loss_scaling_worker.py"), tmp_path)
    result = json.loads((tmp_path / "norms.json").read_text(encoding="utf-8"))
    alone = grad_norm(tmp_path, bert(), "sequence", 1)
    assert (result["world_size"], result["factor"], result["warned"]) == (2, 4, True)
    assert result["before"] == pytest.approx(4 * alone, rel=1e-5)
    assert result["after"] == pytest.approx(alone, rel=1e-6)
    assert done.stderr.count("ignores num_items_in_batch") == 2, "once a model, on the first process"


def test_the_factor(tmp_path: Path) -> None:
    assert loss_factor(arguments(tmp_path, gradient_accumulation_steps=4)) == 4
