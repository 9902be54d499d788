"""Self-distillation in the stock Trainer, against a training loop written out with models of past weights."""

import copy
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer, TrainerCallback

from hf_nlpnotes._compat import CHECKPOINTING
from hf_nlpnotes.models.chinesebert import ChineseBertForSequenceClassification
from hf_nlpnotes.training import loss_scaling
from hf_nlpnotes.training.self_distillation import (
    SelfDistillation,
    as_at_inference,
    distillation_loss,
    span_distance,
    squared_distance,
)
from hf_nlpnotes.training.self_ensemble import SelfEnsemble

WORKER = Path(__file__).with_name("averaging_worker.py")
spec = importlib.util.spec_from_file_location("averaging_worker", WORKER)
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
History, build, data, trainer = worker.History, worker.build, worker.data, worker.trainer


def assert_weights(model, expected, atol):
    for name, value in History.now(model).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=atol, msg=name)


# ---------------------------------------------------------------------------------------------------- pure functions


def test_distance_of_classes_is_mse_loss():
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    expected = nn.functional.mse_loss(student, teacher)
    torch.testing.assert_close(squared_distance(student, teacher), expected)
    torch.testing.assert_close(squared_distance(student, teacher, torch.tensor([0, 1, 2, 0])), expected)
    for numbers in (student[:, :1], student[:, 0]):  # regression: one output, labels with and without its dimension
        aim = torch.randn(numbers.shape)
        labels = torch.randn(4)
        torch.testing.assert_close(squared_distance(numbers, aim, labels), nn.functional.mse_loss(numbers, aim))
    torch.testing.assert_close(squared_distance(student, teacher, torch.rand(4, 3)), expected)  # several labels a text


def test_ignored_positions_do_not_count():
    student, teacher = torch.randn(2, 5, 3, requires_grad=True), torch.randn(2, 5, 3)
    labels = torch.tensor([[0, 1, -100, 2, -100], [-100, -100, -100, 1, 0]])
    kept = labels != -100
    expected = nn.functional.mse_loss(student[kept], teacher[kept])
    torch.testing.assert_close(squared_distance(student, teacher, labels), expected)
    # Parts of a batch add up to the whole, when each is given the number of items of all.
    parts = [squared_distance(student[i], teacher[i], labels[i], num_items=torch.tensor(5)) for i in range(2)]
    torch.testing.assert_close(parts[0] + parts[1], expected)
    assert squared_distance(student, teacher, torch.full((2, 5), -100)) == 0
    infinite = student.detach().masked_fill(~kept.unsqueeze(-1), float("-inf")).requires_grad_()
    loss = squared_distance(infinite, infinite.detach() + 1, labels)
    loss.backward()
    assert loss.item() == pytest.approx(1)
    assert infinite.grad.isfinite().all()
    assert infinite.grad[kept].abs().sum() > 0


def test_one_logit_a_token():
    """As of ELECTRA's discriminator: labels and logits have the same shape."""
    labels = torch.tensor([[0, 1, -100], [1, -100, -100]])
    student, teacher = torch.randn(2, 3), torch.randn(2, 3)
    expected = nn.functional.mse_loss(student[labels != -100], teacher[labels != -100])
    infinite = student.masked_fill(labels == -100, float("inf"))
    torch.testing.assert_close(squared_distance(infinite, teacher, labels), expected)


def test_distance_of_spans_leaves_padding_out():
    student, teacher = torch.randn(2, 4), torch.randn(2, 4)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    expected = torch.stack(
        [((student[0, :3] - teacher[0, :3]) ** 2).mean(), ((student[1, :2] - teacher[1, :2]) ** 2).mean()]
    ).mean()
    padded = student.masked_fill(mask == 0, float("-inf"))
    torch.testing.assert_close(span_distance(padded, teacher, mask), expected)
    torch.testing.assert_close(span_distance(student, teacher), nn.functional.mse_loss(student, teacher))
    outputs = [{"start_logits": side, "end_logits": 2 * side} for side in (student, teacher)]
    torch.testing.assert_close(distillation_loss(*outputs, {"attention_mask": mask}), expected * (1 + 4) / 2)


def test_shapes_that_do_not_go_together():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        squared_distance(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"labels of shape \(3,\) do not fit logits of shape \(2, 3\)"):
        squared_distance(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"same shape \(batch, seq\)"):
        span_distance(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 4))


def test_half_precision_is_squared_in_float32():
    student, teacher = torch.full((1, 2), 300.0, dtype=torch.float16), torch.zeros(1, 2, dtype=torch.float16)
    assert squared_distance(student, teacher).item() == 90_000  # more than float16 holds


def test_modules_come_back_as_they_were():
    class Folding(nn.Linear):
        def unfold(self):
            raise AssertionError

    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)), Folding(2, 2))
    model[1].eval()
    with pytest.raises(KeyError), as_at_inference(model):  # noqa: PT012  (the flags inside matter too)
        assert not torch.is_grad_enabled()
        assert [module.training for module in model.modules()] == [False, False, False, False, True]
        raise KeyError
    assert [module.training for module in model.modules()] == [True, True, False, False, True]
    assert torch.is_grad_enabled()


# ------------------------------------------------------------------------------------------------------- in training


def loss_by_hand(task, outputs, batch):
    """The loss of a batch on its labels, and the logits that count."""
    if task == "question":
        sides = [
            nn.functional.cross_entropy(outputs[f"{s}_logits"], batch[f"{s}_positions"]) for s in ("start", "end")
        ]
        return (sides[0] + sides[1]) / 2
    if task == "regression":
        return nn.functional.mse_loss(outputs.logits.squeeze(-1), batch["labels"])
    return nn.functional.cross_entropy(outputs.logits.flatten(0, -2), batch["labels"].flatten())


def distance_by_hand(task, student, teacher, batch):
    if task == "question":
        total = 0
        for side in ("start_logits", "end_logits"):
            for row, mask in enumerate(batch["attention_mask"].bool()):
                total += nn.functional.mse_loss(student[side][row][mask], teacher[side][row][mask])
        return total / (2 * len(batch["input_ids"]))
    mask = ... if task in {"sequence", "regression"} else batch["labels"] != -100
    return nn.functional.mse_loss(student["logits"][mask], teacher["logits"][mask])


def train_by_hand(task, rows, steps, weight, window, average, dtype=torch.float64):
    """The equations, with every past model kept, on all texts at each step: no dropout, SGD."""
    model = build(task, dtype=dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    past = []
    for _ in range(steps):
        teachers = past[-window:] or [copy.deepcopy(model)]
        if average == "parameters":
            one = copy.deepcopy(model)
            with torch.no_grad():
                for parameter, *values in zip(one.parameters(), *[t.parameters() for t in teachers], strict=True):
                    parameter.copy_(sum(values) / len(values))
            teachers = [one]
        with torch.no_grad():
            answers = [teacher.eval()(**inputs) for teacher in teachers]
        names = ["start_logits", "end_logits"] if task == "question" else ["logits"]
        teacher = {name: sum(answer[name] for answer in answers) / len(answers) for name in names}
        past.append(copy.deepcopy(model))
        student = model.train()(**inputs)
        loss = loss_by_hand(task, student, batch) + weight * distance_by_hand(task, student, teacher, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


PLAIN_SGD = {"optim_args": None, "weight_decay": 0.0, "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}


@pytest.mark.parametrize(("window", "average"), [(1, "parameters"), (3, "parameters"), (3, "logits")])
@pytest.mark.parametrize("task", list(worker.TASKS))
def test_the_equations(tmp_path, task, window, average):
    """One part of 8 texts, and 4 parts of 2, are the same where the loss is one of sums or of equal parts."""
    rows = data(task, dtype=torch.float64)
    expected = History.now(train_by_hand(task, rows, 5, 2.0, window, average))
    without = History.now(train_by_hand(task, rows, 5, 0.0, window, average))
    assert max((expected[name] - without[name]).abs().max() for name in expected) > 1e-3
    for accumulation in (1, 4) if task != "token" else (1,):
        model = build(task, dtype=torch.float64)
        trainer(
            tmp_path, model, rows, [SelfDistillation(2.0, window, average)], max_steps=5,
            per_device_train_batch_size=8 // accumulation, gradient_accumulation_steps=accumulation, **PLAIN_SGD,
        ).train()  # fmt: skip
        assert_weights(model, expected, atol=1e-12)


def test_the_student_has_dropout_and_the_teacher_has_not(tmp_path):
    """With weight 0 the training is the plain one bit for bit: the teacher uses up no random numbers."""
    plain, model = build(dropout=0.3), build(dropout=0.3)
    trainer(tmp_path, plain, data(), max_steps=5).train()
    seen = []

    class Watch(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **kwargs):
            model.dropout.register_forward_hook(lambda module, *_: seen.append(module.training))

    trainer(tmp_path, model, data(), [SelfDistillation(0.0, 2), Watch()], max_steps=5).train()
    assert_weights(model, History.now(plain), atol=0)
    assert seen == [True, False] * 5
    other = build(dropout=0.3)
    trainer(tmp_path, other, data(), [SelfDistillation(1.0, 2)], max_steps=5).train()
    with pytest.raises(AssertionError):
        assert_weights(other, History.now(plain), atol=1e-4)


def test_with_activation_checkpointing_it_is_the_same(tmp_path):
    """The student's layers are computed again in the backward pass, after the teacher has come and gone."""
    models = [build(dtype=torch.float64) for _ in range(2)]
    for model, on in zip(models, (False, True), strict=True):
        options = {CHECKPOINTING: on, "max_steps": 4}
        trainer(tmp_path, model, data(), [SelfDistillation(2.0, 2)], **options).train()
    assert_weights(models[1], History.now(models[0]), atol=1e-12)


def test_in_bfloat16_the_teachers_casts_do_not_reach_the_student(tmp_path):
    models = [build(dropout=0.3) for _ in range(3)]
    for model, weight in zip(models, (None, 0.0, 1.0), strict=True):
        callbacks = [] if weight is None else [SelfDistillation(weight, 2)]
        trainer(tmp_path, model, data(), callbacks, bf16=True, max_steps=4).train()
    assert_weights(models[1], History.now(models[0]), atol=0)
    with pytest.raises(AssertionError):
        assert_weights(models[2], History.now(models[0]), atol=1e-4)


def test_evaluation_is_on_labels_and_with_the_models_own_weights(tmp_path):
    model, rows = build(dropout=0.3), data(seed=1)
    one = trainer(tmp_path, model, data(), [SelfDistillation()], rows, eval_strategy="steps", eval_steps=7)
    one.train()
    (logged,) = [entry["eval_loss"] for entry in one.state.log_history if "eval_loss" in entry]
    batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    with torch.no_grad():
        assert logged == pytest.approx(model.eval()(**batch).loss.item(), abs=1e-6)
    assert not model._forward_hooks


def test_beside_self_ensemble_each_does_its_own(tmp_path):
    """The ensemble's hook swaps weights in eval mode without gradients, which is how a teacher computes too."""
    alone, model, history, ensemble = build(), build(), History(), SelfEnsemble(window=3)
    trainer(tmp_path, alone, data(), [SelfDistillation(window=2), history]).train()
    trainer(tmp_path, model, data(), [ensemble, SelfDistillation(window=2)]).train()
    average = {name: sum(step[name] for step in history.weights[-3:]) / 3 for name in history.weights[0]}
    assert_weights(model, average, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"window": 3}, {"window": 3, "average": "logits"}], ids=["1", "3 parameters", "3 logits"]
)
def test_resumed_in_the_middle_of_an_epoch_it_is_the_same_bit_for_bit(tmp_path, options):
    # 12 texts in parts of 2 × 2: three steps an epoch; the checkpoint of step 4 is inside the second.
    saved = {"save_strategy": "steps", "save_steps": 4, "max_steps": 8, "gradient_accumulation_steps": 2}
    saved |= {"per_device_train_batch_size": 2, "save_total_limit": 2}
    whole, resumed, rows = build(dropout=0.3), build(dropout=0.3, seed=1), data(number=12)
    trainer(tmp_path, whole, rows, [SelfDistillation(**options)], **saved).train()
    history = History()
    again = trainer(tmp_path, resumed, rows, [SelfDistillation(**options), history], **saved)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert len(history.weights) == 5
    assert_weights(resumed, History.now(whole), atol=0)
    (tmp_path / "checkpoint-4" / "self_distillation.safetensors").unlink()
    with pytest.raises(ValueError, match="is not there"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def test_a_step_that_was_skipped_is_no_past():
    """With a scaler the weights count once the step was taken: the teacher stays where a step is skipped."""
    model = build()
    optimizer = SimpleNamespace(
        param_groups=[{"params": list(model.parameters())}], scaler=object(), step_was_skipped=False
    )
    arguments = worker.arguments()
    callback, given = SelfDistillation(window=2, average="logits"), {"model": model, "optimizer": optimizer}
    callback.on_train_begin(arguments, SimpleNamespace(global_step=0), None, **given)
    taken = []
    for step in range(5):
        before = model.classifier.weight.detach().clone()
        callback.on_pre_optimizer_step(arguments, None, None, **given)
        optimizer.step_was_skipped = step in {1, 3}
        if not optimizer.step_was_skipped:
            taken.append(before)
            model.classifier.weight.data.add_(1)
        callback.on_optimizer_step(arguments, None, None, **given)
        teachers = [values[list(callback._parameters).index("classifier.weight")] for values in callback._teachers]
        assert len(teachers) == min(2, len(taken))
        assert all(torch.equal(a, b) for a, b in zip(teachers, taken[-2:], strict=True))


def test_frozen_weights_are_not_copied(tmp_path):
    model = build()
    model.bert.requires_grad_(False)
    callback = SelfDistillation()
    trainer(tmp_path, model, data(), [callback]).train()
    assert list(callback._parameters) == ["classifier.weight", "classifier.bias"]


def test_a_teacher_does_not_fold_its_weights(tiny_chinesebert_folder):
    """ChineseBERT folds its embeddings where it infers; a teacher that changes at every step would do so in vain."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
    model = ChineseBertForSequenceClassification.from_pretrained(tiny_chinesebert_folder, num_labels=3).train()
    batch = tokenizer(["我喜欢猫", "难过"], padding=True, return_tensors="pt")
    with as_at_inference(model):
        first, second = (model.forward(**batch).logits for _ in range(2))
    assert torch.equal(first, second)
    assert model.bert.embeddings._fold is None
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(**batch).logits, first, rtol=0, atol=1e-5)
    assert model.bert.embeddings._fold is not None


@pytest.mark.parametrize("callback", [SelfDistillation, SelfEnsemble])
def test_a_loss_that_is_scaled_wrongly_is_named(tmp_path, monkeypatch, callback):
    """Stock heads ignore `num_items_in_batch`; the cure is set by `build`."""
    said = []
    monkeypatch.setattr(loss_scaling.logger, "warning", lambda text, *values: said.append(text % values))
    model = build()
    trainer(tmp_path, model, data(), [callback], gradient_accumulation_steps=2, max_steps=1).train()
    assert said == []
    del model.accepts_loss_kwargs
    trainer(tmp_path, model, data(), [callback], gradient_accumulation_steps=2, max_steps=1).train()
    assert len(said) == 1
    assert "BertForSequenceClassification" in said[0]
    assert "correct_loss_scaling(model)" in said[0]


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, r"weight is a number from 0 on, got -1\.0"),
        ({"weight": float("nan")}, "weight is a number from 0 on, got nan"),
        ({"window": 0}, "window is a whole number, at least 1, got 0"),
        ({"average": "votes"}, '"parameters" or "logits", got \'votes\''),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        SelfDistillation(**options)


def test_losses_that_the_trainer_computes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="label_smoothing_factor"):
        trainer(tmp_path, build(), data(), [SelfDistillation()], label_smoothing_factor=0.1).train()
    one = trainer(tmp_path, build(), data(), [SelfDistillation()])
    one.compute_loss_func = lambda outputs, *_, **__: outputs.logits.sum()
    with pytest.raises(ValueError, match="without compute_loss_func"):
        one.train()
    model = build()
    model.loss_type = "ForCausalLM"
    with pytest.raises(ValueError, match="causal LM"):
        trainer(tmp_path, model, data(), [SelfDistillation()]).train()


# ----------------------------------------------------------------------------------------------------- two processes


@pytest.fixture(scope="module")
def two_processes(torchrun, tmp_path_factory):
    output = tmp_path_factory.mktemp("two")
    torchrun(WORKER, output)
    assert json.loads((output / "result.json").read_text()) == {"world_size": 2}
    return output


@pytest.mark.parametrize("case", worker.CASES)
def test_two_processes_train_as_one(two_processes, tmp_path, case):
    """Model and average over 5 steps, 4 parts on 2 processes with clipped gradients and momentum."""
    ranks = [torch.load(two_processes / f"{list(worker.CASES).index(case)}-rank{rank}.pt") for rank in range(2)]
    alone = worker.train(tmp_path, case, batch=8, accumulation=1)
    atol = 1e-12 if worker.CASES[case][1] is torch.float64 else 1e-5
    assert set(alone) == set(ranks[0])
    for name, expected in alone.items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        torch.testing.assert_close(ranks[0][name], expected, rtol=0, atol=atol, msg=name)


def test_two_processes_bring_back_the_best_average(two_processes):
    best = [torch.load(two_processes / f"best-rank{rank}.pt") for rank in range(2)]
    for name, expected in best[0].items():
        assert torch.equal(best[1][name], expected), name


def test_two_processes_resume_bit_for_bit(two_processes):
    whole, resumed = ([torch.load(two_processes / f"{run}-rank{rank}.pt") for rank in range(2)]
                      for run in ("whole", "resumed"))  # fmt: skip
    for name, expected in whole[0].items():
        for other in (whole[1], *resumed):
            assert torch.equal(other[name], expected), name
