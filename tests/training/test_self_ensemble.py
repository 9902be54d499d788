"""Self-ensemble in the stock Trainer, against the weights of every step noted beside it."""

import importlib.util
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoTokenizer, BertForSequenceClassification, DataCollatorWithPadding, TrainerCallback

from hf_nlpnotes.models.chinesebert import ChineseBertForSequenceClassification
from hf_nlpnotes.training import self_ensemble
from hf_nlpnotes.training.checkpoint_tensors import checkpoint_folder
from hf_nlpnotes.training.self_ensemble import Averaging, SelfEnsemble

spec = importlib.util.spec_from_file_location("averaging_worker", Path(__file__).with_name("averaging_worker.py"))
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
History, build, data, trainer = worker.History, worker.build, worker.data, worker.trainer

EVAL_ROWS = data(seed=1)


def mean(history):
    return {name: torch.stack([step[name].double() for step in history]).mean(0) for name in history[0]}


def assert_weights(model, expected, atol=1e-6):
    for name, value in History.now(model).items():
        torch.testing.assert_close(value.double(), expected[name].double(), rtol=0, atol=atol, msg=name)


def loss_of(weights, model):
    """Loss on the evaluation texts of a model of these weights, by itself."""
    fresh = build(dropout=0.3)
    fresh.load_state_dict({**model.state_dict(), **{name: value.float() for name, value in weights.items()}})
    batch = {key: torch.stack([row[key] for row in EVAL_ROWS]) for key in EVAL_ROWS[0]}
    with torch.no_grad():
        return fresh.eval()(**batch).loss.item()


def exponential(history, decay, first=0):
    average = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in history[0].items()}
    kept = history[first:]
    for step in kept:
        average = {name: decay * average[name] + (1 - decay) * step[name].double() for name in average}
    return {name: value / (1 - decay ** len(kept)) for name, value in average.items()}


EVERY_WAY = {
    "last 3": ({"window": 3}, lambda history: mean(history[-3:])),
    # Steps 1, 3, 5, 7 count, then the last two of them.
    "last 2, every second": ({"window": 2, "every": 2}, lambda h: mean([*h[0::2]][-2:])),
    "from step 4": ({"start": 4}, lambda history: mean(history[3:])),
    "second half": ({}, lambda history: mean(history[3:])),  # 0.5 of 7 steps: from the 4th on
    "from step 2, every third": ({"start": 2, "every": 3, "dtype": torch.float64}, lambda h: mean(h[1::3])),
    "exponential": ({"decay": 0.8}, lambda history: exponential(history, 0.8)),
    "exponential from a share": ({"decay": 0.8, "start": 0.3}, lambda history: exponential(history, 0.8, first=2)),
}


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("way", EVERY_WAY)
def test_the_final_model_is_the_average_over_the_steps(tmp_path, way, accumulation):
    options, expected = EVERY_WAY[way]
    model, history = build(dropout=0.3), History()
    ensemble = SelfEnsemble(**options)
    trainer(
        tmp_path, model, data(), [history, ensemble], gradient_accumulation_steps=accumulation,
        per_device_train_batch_size=2,
    ).train()  # fmt: skip
    assert len(history.weights) == 8
    assert_weights(model, expected(history.weights[1:]))
    with pytest.raises(AssertionError):
        assert_weights(model, history.weights[-1], atol=1e-4)


def test_evaluation_is_of_the_average_and_training_as_without(tmp_path):
    plain, model, history = build(dropout=0.3), build(dropout=0.3), History()
    options = {"eval_strategy": "steps", "eval_steps": 2, "eval_on_start": True, "gradient_accumulation_steps": 2}
    options |= {"per_device_train_batch_size": 2, "per_device_eval_batch_size": 8}
    trainer(tmp_path, plain, data(), eval_rows=EVAL_ROWS, **options).train()
    ensemble = SelfEnsemble(window=3, final_model=False)
    one = trainer(tmp_path, model, data(), [history, ensemble], eval_rows=EVAL_ROWS, **options)
    one.train()
    # The training is that without the callback, bit for bit, dropout and all.
    assert_weights(model, History.now(plain), atol=0)
    steps = history.weights
    losses = [entry["eval_loss"] for entry in one.state.log_history if "eval_loss" in entry]
    seen = (steps[0], mean(steps[1:3]), mean(steps[2:5]), mean(steps[4:7]), mean(steps[5:8]))
    expected = [loss_of(weights, model) for weights in seen]
    assert losses == pytest.approx(expected, abs=1e-6)
    own = [loss_of(weights, model) for weights in (steps[2], steps[4], steps[6], steps[7])]
    assert all(abs(a - b) > 1e-4 for a, b in zip(losses[1:], own, strict=True))  # the test can tell them apart
    # After training the hooks are gone: the model answers with its own weights, in a block with the averaged ones.
    assert one.evaluate()["eval_loss"] == pytest.approx(loss_of(steps[7], model), abs=1e-6)
    with ensemble.averaged():
        assert one.evaluate()["eval_loss"] == pytest.approx(loss_of(mean(steps[5:8]), model), abs=1e-6)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_a_model_that_folds_its_weights_for_inference(tmp_path, tiny_chinesebert_folder):
    """ChineseBERT keeps a table made from its weights while it is evaluated: it must be that of the average."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
    texts = ["我喜欢猫", "国足今晚出战", "股票涨跌", "难过", "酒店服务很好", "天气真好"]
    rows = [{**tokenizer(text), "label": number % 3} for number, text in enumerate(texts)]
    model = ChineseBertForSequenceClassification.from_pretrained(tiny_chinesebert_folder, num_labels=3)
    history = History()
    one = trainer(
        tmp_path, model, rows, [history, SelfEnsemble(window=2)], rows, eval_strategy="steps", eval_steps=2,
        max_steps=4, per_device_eval_batch_size=6,
    )  # fmt: skip
    one.data_collator = DataCollatorWithPadding(tokenizer)
    one.train()
    losses = [entry["eval_loss"] for entry in one.state.log_history if "eval_loss" in entry]
    batch = one.data_collator([{**row, "labels": row["label"]} for row in rows])
    batch.pop("label", None)
    for step, loss in zip((2, 4), losses, strict=True):
        fresh = ChineseBertForSequenceClassification.from_pretrained(tiny_chinesebert_folder, num_labels=3).eval()
        weights = {name: value.float() for name, value in mean(history.weights[step - 1 : step + 1]).items()}
        fresh.load_state_dict({**fresh.state_dict(), **weights})
        with torch.no_grad():
            assert loss == pytest.approx(fresh(**batch).loss.item(), abs=1e-5)


def test_evaluation_can_be_left_alone(tmp_path):
    model, history = build(), History()
    options = {"eval_strategy": "steps", "eval_steps": 7, "per_device_eval_batch_size": 8}
    one = trainer(tmp_path, model, data(), [history, SelfEnsemble(window=3, evaluate=False)], EVAL_ROWS, **options)
    one.train()
    (loss,) = [entry["eval_loss"] for entry in one.state.log_history if "eval_loss" in entry]
    assert loss == pytest.approx(loss_of(history.weights[-1], model), abs=1e-6)
    assert_weights(model, mean(history.weights[-3:]))


@pytest.mark.parametrize("options", [{"window": 2}, {"window": 5}, {"decay": 0.8, "warm_up": True}, {"start": 2}])
def test_resumed_in_the_middle_of_an_epoch_it_is_the_same_bit_for_bit(tmp_path, options):
    saved = {"save_strategy": "steps", "save_steps": 3, "max_steps": 8, "save_total_limit": 1}
    whole = build(dropout=0.3)
    # 12 texts in parts of 2 × 2: three steps an epoch; the checkpoint of step 4 is inside the second.
    saved |= {"save_steps": 4, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
    rows = data(number=12)
    trainer(tmp_path / "whole", whole, rows, [SelfEnsemble(**options)], **saved).train()

    class Stop(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 4

    begun, resumed = build(dropout=0.3), build(dropout=0.3, seed=1)
    trainer(tmp_path / "run", begun, rows, [SelfEnsemble(**options), Stop()], **saved).train()
    history = History()
    again = trainer(tmp_path / "run", resumed, rows, [SelfEnsemble(**options), history], **saved)
    again.train(resume_from_checkpoint=True)
    assert len(history.weights) == 5  # it went on from step 4
    assert_weights(resumed, History.now(whole), atol=0)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-8"]


def test_a_checkpoint_holds_the_weights_that_are_trained(tmp_path):
    model, history = build(), History()
    trainer(tmp_path, model, data(), [history, SelfEnsemble(window=4)], save_strategy="steps", save_steps=5).train()
    saved = BertForSequenceClassification.from_pretrained(tmp_path / "checkpoint-5")
    assert_weights(saved, history.weights[5], atol=0)
    assert (tmp_path / "checkpoint-5" / "self_ensemble.safetensors").is_file()
    assert not list((tmp_path / "checkpoint-5").glob(".*"))


def test_the_best_checkpoint_brings_its_average(tmp_path):
    """The average of the best step comes back, though only the model is saved."""
    model, history = build(), History()
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    options |= {"load_best_model_at_end": True, "metric_for_best_model": "loss", "save_only_model": True}
    options |= {"learning_rate": 1.0, "save_total_limit": 1}
    one = trainer(tmp_path, model, data(), [history, SelfEnsemble(window=2)], EVAL_ROWS, **options)
    one.train()
    best = one.state.best_global_step
    assert 0 < best < 7, "the test needs a best step before the last"
    assert_weights(model, mean(history.weights[1:][max(0, best - 2) : best]))
    assert one.evaluate()["eval_loss"] == pytest.approx(one.state.best_metric, abs=1e-6)


def test_the_averaged_model_is_saved_whole_or_not_at_all(tmp_path, monkeypatch):
    model, history = build(), History()
    callbacks = [history, SelfEnsemble(window=3, folder="averaged", final_model=False)]
    trainer(tmp_path, model, data(), callbacks).train()
    saved = BertForSequenceClassification.from_pretrained(tmp_path / "averaged")
    assert_weights(saved, mean(history.weights[-3:]))
    assert_weights(model, history.weights[-1], atol=0)

    def full(self, folder, **kwargs):
        (Path(folder) / "config.json").write_text("{")
        raise OSError("No space left on device")

    monkeypatch.setattr(BertForSequenceClassification, "save_pretrained", full)
    with pytest.raises(OSError, match="No space"):
        trainer(tmp_path / "full", build(), data(), [SelfEnsemble(folder="averaged")]).train()
    assert not list((tmp_path / "full").iterdir())


def test_a_failing_pass_leaves_the_model_its_own_weights(tmp_path):
    model, history, ensemble = build(), History(), SelfEnsemble(window=3)
    seen = []

    class Evaluate(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step == 4:
                model.eval()
                for grad in (torch.inference_mode, torch.no_grad):
                    with grad():
                        seen.append(model(input_ids=EVAL_ROWS[0]["input_ids"][None]).logits.clone())
                        with pytest.raises(IndexError):
                            model(input_ids=torch.tensor([[10_000]]))
                assert not any(value.is_inference() for value in ensemble._materialised)
                # Where gradients are wanted the model is the one that is trained.
                seen.append(model(input_ids=EVAL_ROWS[0]["input_ids"][None]).logits.detach())
                assert_weights(model, history.weights[4], atol=0)

    trainer(tmp_path, model, data(), [history, ensemble, Evaluate()]).train()
    for weights, logits in zip([mean(history.weights[2:5])] * 2 + [history.weights[4]], seen, strict=True):
        model.load_state_dict({**model.state_dict(), **{name: value.float() for name, value in weights.items()}})
        with torch.no_grad():
            expected = model.eval()(input_ids=EVAL_ROWS[0]["input_ids"][None]).logits
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)


def test_skipped_steps_do_not_count(tmp_path):
    model, history = build(), History()
    ensemble = SelfEnsemble(window=7)

    class Overflow(TrainerCallback):
        """What accelerate's optimizer says where float16 gradients ran over: here, at steps 2 and 5."""

        def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
            optimizer._is_overflow = state.global_step + 1 in {2, 5}

    trainer(tmp_path, model, data(), [Overflow(), history, ensemble]).train()
    taken = [weights for step, weights in enumerate(history.weights) if step not in {0, 2, 5}]
    assert ensemble._steps == 5
    assert_weights(model, mean(taken))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft's
def test_an_adapter_is_averaged_alone(tmp_path):
    base = build()
    frozen = {name: value.clone() for name, value in base.state_dict().items()}
    model = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"], r=2))
    history, ensemble = History(), SelfEnsemble(window=3, folder="averaged")
    trainer(tmp_path, model, data(), [history, ensemble], save_strategy="steps", save_steps=5).train()
    assert set(ensemble._parameters) == {name for name, value in model.named_parameters() if value.requires_grad}
    assert_weights(model, mean(history.weights[-3:]))
    again = build()
    again.load_state_dict(frozen)
    saved = PeftModel.from_pretrained(again, tmp_path / "averaged")
    batch = {key: torch.stack([row[key] for row in EVAL_ROWS]) for key in EVAL_ROWS[0]}
    with torch.no_grad():
        torch.testing.assert_close(saved.eval()(**batch).logits, model.eval()(**batch).logits, rtol=0, atol=1e-6)
    resumed = get_peft_model(build(), LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"], r=2))
    again = trainer(tmp_path, resumed, data(), [SelfEnsemble(window=3)])
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert_weights(resumed, History.now(model), atol=0)


def test_layers_that_are_frozen_for_a_while_are_averaged_too(tmp_path):
    """Callbacks that unfreeze leave the optimizer as it is: what it holds is averaged, frozen now or not."""

    class Unfreeze(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **kwargs):
            model.bert.requires_grad_(False)

        def on_step_end(self, args, state, control, model=None, **kwargs):
            model.bert.requires_grad_(state.global_step >= 3)

    model, history = build(), History()
    trainer(tmp_path, model, data(), [Unfreeze(), history, SelfEnsemble(window=6)]).train()
    assert torch.equal(history.weights[3]["bert.pooler.dense.weight"], history.weights[0]["bert.pooler.dense.weight"])
    assert_weights(model, mean(history.weights[-6:]))


def test_a_second_training_begins_afresh(tmp_path):
    model, history = build(), History()
    one = trainer(tmp_path, model, data(), [history, SelfEnsemble(window=30)])
    one.train()
    history.weights.clear()
    one.train()
    assert_weights(model, mean(history.weights[1:]))


def test_a_training_too_short_says_so(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(self_ensemble.logger, "warning", lambda text, *values: said.append(text % values))
    model, history = build(), History()
    trainer(tmp_path, model, data(), [history, SelfEnsemble(window=2, start=100)]).train()
    assert_weights(model, history.weights[-1], atol=0)
    assert len(said) == 1
    assert "ended after 7 steps, before the first that counts (100)" in said[0]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run with checkpoints of steps 3 and 6."""
    folder = tmp_path_factory.mktemp("stopped")
    options = {"save_strategy": "steps", "save_steps": 3}
    trainer(folder, build(), data(), [SelfEnsemble(window=2)], **options).train()
    return folder


def resume(folder, ensemble, output, **options):
    trainer(output, build(), data(), [ensemble], **options).train(resume_from_checkpoint=str(folder))


def test_resuming_needs_the_state_that_goes_with_the_weights(stopped, tmp_path):
    checkpoint = stopped / "checkpoint-3"
    with pytest.raises(ValueError, match=r"resumes at step 3.*is not there.*resume_from_checkpoint="):
        resume(checkpoint, SelfEnsemble(window=2), tmp_path)
    resume(checkpoint, SelfEnsemble(window=2, resume_from_checkpoint=str(checkpoint)), tmp_path)
    resume(checkpoint, SelfEnsemble(window=2), tmp_path, resume_from_checkpoint=str(checkpoint))
    afresh = SelfEnsemble(start=6, resume_from_checkpoint=False)
    resume(checkpoint, afresh, tmp_path)
    assert afresh._average.count == 2  # steps 6 and 7
    with pytest.raises(ValueError, match=r"'window': 2.*not with .*'window': 3"):
        resume(checkpoint, SelfEnsemble(window=3), stopped)
    # A file of the same step of another run, where the checkpoint would be.
    shutil.copytree(stopped / "checkpoint-6", tmp_path / "checkpoint-3")
    with pytest.raises(ValueError, match="belongs to other weights"):
        resume(checkpoint, SelfEnsemble(window=2), tmp_path)
    (tmp_path / "checkpoint-3" / "self_ensemble.safetensors").unlink()
    with pytest.raises(ValueError, match="is not there"):
        resume(tmp_path / "checkpoint-3", SelfEnsemble(window=2), tmp_path)


def test_a_trial_of_a_search_has_its_own_folder(tmp_path):
    arguments = SimpleNamespace(output_dir=tmp_path)
    state = SimpleNamespace(global_step=3, is_hyper_param_search=True)
    for number, name in enumerate(("run-1", "run-0")):
        (tmp_path / name / "checkpoint-3").mkdir(parents=True)
        os.utime(tmp_path / name / "checkpoint-3", (number, number))
    assert checkpoint_folder(arguments, state) == tmp_path / "run-0" / "checkpoint-3"
    state.is_hyper_param_search = False
    assert checkpoint_folder(arguments, state) == tmp_path / "checkpoint-3"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 3, "decay": 0.9}, "a window or a decay, not both: got window=3, decay=0.9"),
        ({"window": 0}, "window is a whole number, at least 1, got 0"),
        ({"window": 2.5}, r"window is a whole number, at least 1, got 2\.5"),
        ({"decay": 1.0}, r"decay lies between 0 and 1, such as 0\.99, got 1\.0"),
        ({"every": 0}, "every is a whole number, at least 1, got 0"),
        ({"start": 0}, "start is a whole number, at least 1, got 0"),
        ({"start": 1.5}, r"a share of the training below 1, got 1\.5"),
        ({"warm_up": True}, "give a decay"),
        ({"decay": 0.9, "dtype": torch.float16}, r"dtype is torch.float32 or torch.float64, got torch\.float16"),
        ({"window": 2, "dtype": torch.float64}, "give no dtype"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        SelfEnsemble(**options)


def test_options_by_name_or_as_one():
    assert SelfEnsemble(window=3, every=2).averaging == Averaging(window=3, every=2)
    with pytest.raises(ValueError, match="not both"):
        SelfEnsemble(Averaging(window=3), every=2)
    with pytest.raises(TypeError, match="windows"):
        SelfEnsemble(windows=3)
    json.dumps(SelfEnsemble(decay=0.9, dtype=torch.float64)._options())


def test_weights_in_parts_are_refused(tmp_path):
    ensemble, model = SelfEnsemble(), build()
    optimizer = SimpleNamespace(param_groups=[{"params": list(model.parameters())}])
    arguments = worker.arguments()
    state = SimpleNamespace(global_step=0)
    for wrong, message in (({"n_gpu": 2}, "torchrun"), ({"fsdp": "full_shard"}, "FSDP"), ({"deepspeed": "x"}, "Deep")):
        with pytest.raises(ValueError, match=message):
            ensemble.on_train_begin(
                SimpleNamespace(**{**vars(arguments), **wrong}), state, None, model=model, optimizer=optimizer
            )
    with pytest.raises(ValueError, match="holds no parameter"):
        ensemble.on_train_begin(
            arguments, state, None, model=model, optimizer=SimpleNamespace(param_groups=[{"params": []}])
        )
