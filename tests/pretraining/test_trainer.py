"""The Trainer's evaluation is the caller's function, its optimizer ours; the loss samples for a part of the steps."""

import pytest
import torch
from transformers import BertConfig, TrainerControl, TrainerState, TrainingArguments

from hf_nlpnotes.pretraining import AllTokensAtTheEnd, MuonAdamW, PretrainingTrainer, SampledBertForMaskedLM
from hf_nlpnotes.pretraining import trainer as trainer_module


@pytest.fixture
def model():
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=8,
    )  # fmt: skip
    model = SampledBertForMaskedLM(config)
    model.set_unigram(torch.full((20,), 0.05))
    return model


def arguments(folder, **options):
    return TrainingArguments(
        output_dir=str(folder), max_steps=8, report_to="none", use_cpu=True, disable_tqdm=True, save_strategy="no",
        dataloader_pin_memory=False, **options,
    )  # fmt: skip


ROWS = [{"input_ids": torch.arange(6), "labels": torch.arange(6)}] * 16


@pytest.mark.parametrize("muon", [True, False])
def test_evaluation_and_optimizer(model, tmp_path, muon):
    asked, seen = [], []

    class Spy(AllTokensAtTheEnd):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append(model.negatives)

    def measure():
        asked.append(model.training)
        return {"single": 12.5}

    options = arguments(tmp_path, eval_strategy="steps", eval_steps=4)
    trainer = PretrainingTrainer(
        model, options, train_dataset=ROWS, measure=measure, muon=muon, callbacks=[Spy(model, 5)]
    )
    trainer.train()
    logged = [(entry["step"], entry["eval_single"]) for entry in trainer.state.log_history if "eval_single" in entry]
    assert logged == [(4, 12.5), (8, 12.5)]
    assert len(asked) == 2
    inner = trainer.optimizer.optimizer if hasattr(trainer.optimizer, "optimizer") else trainer.optimizer
    assert isinstance(inner, MuonAdamW) == muon
    assert seen == [5] * 6 + [None] * 2


def test_other_processes_take_the_figures_of_the_first(model, tmp_path, monkeypatch):
    """By which each of them chooses the best checkpoint and stops."""
    monkeypatch.setattr(trainer_module, "broadcast_object_list", lambda own: [{"eval_single": 12.5}] if own else own)
    monkeypatch.setattr(PretrainingTrainer, "is_world_process_zero", lambda _: False)
    options = {"eval_strategy": "steps", "eval_steps": 8, "metric_for_best_model": "single"}
    trainer = PretrainingTrainer(
        model, arguments(tmp_path, **options), train_dataset=ROWS, measure=lambda: pytest.fail("not the first process")
    )
    trainer.train()
    assert trainer.state.log_history[-2]["eval_single"] == 12.5


def test_the_part_that_is_sampled_is_a_function_of_the_step(model, tmp_path):
    callback = AllTokensAtTheEnd(model, 7, share=0.5)
    for step, expected in ((0, 7), (49, 7), (50, None), (10, 7)):
        state = TrainerState(global_step=step, max_steps=100)
        callback.on_step_begin(arguments(tmp_path), state, TrainerControl())
        assert model.negatives == expected
