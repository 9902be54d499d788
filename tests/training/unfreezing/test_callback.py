"""Unfreezing under the stock Trainer in one process: against torch alone, and across interruptions."""

import logging
import types

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.utils.data import IterableDataset
from transformers import BertForSequenceClassification, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from hf_nlpnotes._compat import CHECKPOINTING
from hf_nlpnotes.training.unfreezing import (
    ChainThaw,
    Epoch,
    GradualUnfreeze,
    LinearProbeThenFineTune,
    Phase,
    Plateau,
    SequentialUnfreeze,
    Step,
    Unfreezing,
    UnfreezingSchedule,
)
from hf_nlpnotes.training.unfreezing.checks import check_arguments

EVALUATE = {"eval_strategy": "steps", "eval_steps": 1}


class FixedPositions(BertForSequenceClassification):
    """As Whisper's encoder, whose table of positions never trains."""

    def __init__(self, config):
        super().__init__(config)
        self.bert.embeddings.position_embeddings.requires_grad_(False)


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])


def test_as_torch_alone_does(worker, tmp_path) -> None:
    """Gradual unfreezing with warm-up, clipping and weight decay, against a loop that shares no code with it."""
    spy = worker.train([GradualUnfreeze(2, warmup_steps=2)], tmp_path)
    model = worker.build()
    model.train()
    named = dict(model.named_parameters())
    stages = ["classifier bert.pooler", "bert.encoder.layer.1.", "bert.encoder.layer.0.", "bert.embeddings"]
    state = {name: [0, torch.zeros_like(p), torch.zeros_like(p)] for name, p in named.items()}
    rows = worker.examples()
    order = [row["input_ids"].tolist() for row in batches(worker, tmp_path)]
    by_ids = {tuple(row["input_ids"].tolist()): row for row in rows}
    for step in range(worker.STEPS):
        batch = [by_ids[tuple(ids)] for ids in order[step * 8 : step * 8 + 8]]
        prefixes = tuple(" ".join(stages[: 1 + min(3, step // 2)]).split())
        loss = model(**{key: torch.stack([row[key] for row in batch]) for key in batch[0]}).loss
        trained = [name for name in named if name.startswith(prefixes)]
        gradients = torch.autograd.grad(loss, [named[name] for name in trained])
        norm = torch.sqrt(sum(gradient.square().sum() for gradient in gradients))
        rate = 1e-2 * (1 - step / 10) * (1.0 if step < 2 or step >= 8 else (0.5, 1.0)[step % 2])
        with torch.no_grad():
            for name, gradient in zip(trained, gradients, strict=True):
                parameter, entry = named[name], state[name]
                gradient = gradient * min(1.0, 0.5 / (norm.item() + 1e-6))
                entry[0] += 1
                entry[1] = 0.9 * entry[1] + 0.1 * gradient
                entry[2] = 0.999 * entry[2] + 0.001 * gradient.square()
                if not name.endswith("bias") and "LayerNorm" not in name:
                    parameter.mul_(1 - rate * 0.1)
                mean, square = entry[1] / (1 - 0.9 ** entry[0]), entry[2] / (1 - 0.999 ** entry[0])
                parameter.sub_(rate * mean / (square.sqrt() + 1e-4))
        assert (flat(model) - spy.weights[step]).abs().max() <= 1e-12, step
    used = [entry["learning_rate"] for entry in spy.logs if "grad_norm" in entry]
    assert used == pytest.approx([0.01, 0.009, 0.004, 0.007, 0.003, 0.005, 0.002, 0.003, 0.002, 0.001])


def batches(worker, tmp_path):
    """The examples in the order in which the Trainer gives them to a model."""
    seen = []

    class Listen(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **kwargs):
            forward = model.forward

            def heard(**inputs):
                seen.extend({"input_ids": ids} for ids in inputs["input_ids"])
                return forward(**inputs)

            model.forward = heard

    worker.train([Listen()], tmp_path)
    return seen


def test_frozen_weights_do_not_move(worker, tmp_path) -> None:
    """Bit for bit, with weight decay 0.1 and momentum from before: layers that ChainThaw has trained freeze again."""
    spy, model = worker.Spy(), worker.build()
    run = worker.trainer(model, worker.arguments(tmp_path), [ChainThaw(2), spy])
    run.train()
    names = [(name, parameter.numel()) for name, parameter in model.named_parameters()]
    frozen_with_momentum = 0
    for step in range(1, worker.STEPS):
        before, after = (spy.weights[i].split([size for _, size in names]) for i in (step - 1, step))
        earlier = {name for trained in spy.trained[:step] for name in trained}
        for (name, _), old, new in zip(names, before, after, strict=True):
            if name in spy.trained[step]:
                assert not torch.equal(old, new) or name.endswith("key.bias"), (step, name)
            else:
                assert torch.equal(old, new), (step, name)
                frozen_with_momentum += name in earlier
    assert frozen_with_momentum > 50
    assert all(entry["exp_avg"].abs().max() > 0 for entry in run.optimizer.state.values())
    assert {name for trained in spy.trained for name in trained} == {name for name, _ in names}


@pytest.mark.parametrize("preset", ["gradual", "chain-thaw"])
def test_accumulation_and_checkpointing_change_nothing(worker, tmp_path, preset) -> None:
    make = worker.PRESETS[preset]
    reference = worker.train([make()], tmp_path)
    for accumulation, checkpointing in ((4, False), (2, True)):
        spy = worker.train([make()], tmp_path, accumulation, **{CHECKPOINTING: checkpointing})
        assert spy.trained == reference.trained
        assert max((a - b).abs().max() for a, b in zip(spy.weights, reference.weights, strict=True)) <= 1e-12
        norms = [[entry["grad_norm"] for entry in run.logs if "grad_norm" in entry] for run in (spy, reference)]
        assert norms[0] == pytest.approx(norms[1], rel=1e-6)


@pytest.mark.parametrize("step", [1, 2, 4, 6])
def test_broken_off_and_resumed_by_a_plateau(worker, tmp_path, step) -> None:
    """After any step: in the middle of epochs of 4 steps, at the border of phases, with the best weights of each."""
    whole, parts = worker.resumed(worker.by_plateau, tmp_path, step, **EVALUATE)
    assert (whole - parts).abs().max().item() == 0


@pytest.mark.parametrize("preset", ["gradual", "chain-thaw", "lisa"])
def test_broken_off_and_resumed(worker, tmp_path, preset) -> None:
    whole, parts = worker.resumed(lambda: [worker.PRESETS[preset]()], tmp_path, 3, accumulation=2)
    assert (whole - parts).abs().max().item() == 0


def test_the_class_itself_is_a_callback(worker, tmp_path) -> None:
    """A phase an epoch, of 4 steps here."""
    spy = worker.train([GradualUnfreeze], tmp_path, max_steps=-1, num_train_epochs=4)
    assert [len(trained) for trained in spy.trained] == [4] * 4 + [20] * 4 + [36] * 4 + [41] * 4


def test_the_log_tells_what_trains(worker, tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO, logger="hf_nlpnotes.training.unfreezing.callback")
    spy = worker.train([SequentialUnfreeze(3)], tmp_path)
    model = worker.build()
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    expected = [sum(sizes[name] for name in spy.trained[step]) for step in (0, 3, 6)]
    entries = [entry for entry in spy.logs if "unfreezing_phase" in entry]
    assert [entry["trainable_parameters"] for entry in entries] == expected
    assert [entry["unfreezing_phase"] for entry in entries] == ["new layers", "hidden layers", "embeddings"]
    assert [entry["step"] for entry in entries] == [0, 3, 6]
    total = sum(sizes.values())
    message = f"step 3: phase 2 of 3, 'hidden layers': {expected[1]:,} of {total:,} parameters train"
    assert f"{message} ({100 * expected[1] / total:.1f} %)" in caplog.messages


def test_a_phase_without_an_evaluation_keeps_its_last_weights(worker, tmp_path, caplog) -> None:
    schedule = UnfreezingSchedule((Phase("a", ("head",)), Phase("b", ("*",), Step(2))))
    model, spy, begins = worker.build(), worker.Spy(), {}

    class Begin(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            begins[state.global_step] = flat(model)

    worker.trainer(
        model,
        worker.arguments(tmp_path, eval_strategy="steps", eval_steps=3, max_steps=4),
        [Unfreezing(schedule, restore_best=True), Begin(), spy],
        eval_dataset=worker.examples(8, seed=1),
    ).train()
    assert torch.equal(begins[2], spy.weights[2 - 1])
    assert "phase 'a' ended without an evaluation: its last weights stay" in caplog.messages


@pytest.mark.parametrize("of_tensors", [False, True])
def test_rates_are_scaled_for_the_step_alone(worker, tmp_path, of_tensors) -> None:
    """Also where the optimizer holds its rates in tensors, as a compiled one does."""
    rates = []

    class Rate(TrainerCallback):
        def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
            rates.append(float(optimizer.param_groups[0]["lr"]))

    model = worker.build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.25) if of_tensors else 0.25)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    schedule = UnfreezingSchedule(
        (Phase("a", ("head",)), Phase("b", ("*",), Step(2), learning_rate_scale=0.5, warmup_steps=2))
    )
    used = []

    class Used(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
            used.append(float(optimizer.param_groups[0]["lr"]))

    run = worker.trainer(
        model,
        worker.arguments(tmp_path, max_steps=5),
        [Unfreezing(schedule), Used(), Rate()],
        optimizers=(optimizer, constant),
    )
    run.train()
    assert used == [0.25, 0.25, 0.0625, 0.125, 0.125]
    assert rates == [0.25] * 5
    assert [entry["learning_rate"] for entry in run.state.log_history if "learning_rate" in entry] == used


def test_an_evaluation_before_the_first_step_is_of_no_phase(worker, tmp_path) -> None:
    schedule = UnfreezingSchedule((Phase("a", ("head",)), Phase("b", ("*",), Step(2))))
    model, spy = worker.build(), worker.Spy()
    values = iter([0.0, 0.5, 0.4, 0.3, 0.6])  # the first one, of weights that no step has trained, would be the best
    worker.trainer(
        model,
        worker.arguments(tmp_path, **{**EVALUATE, "eval_on_start": True, "max_steps": 4}),
        [Unfreezing(schedule, restore_best=True), spy],
        eval_dataset=worker.examples(8, seed=1),
        compute_metrics=lambda _: {"loss": next(values)},
    ).train()
    assert torch.equal(flat(model), spy.weights[3 - 1])


@pytest.mark.parametrize(("metric", "given"), [(True, "loss"), ("f1", "f1")])
def test_best_weights_of_each_phase(worker, tmp_path, metric, given) -> None:
    """A phase begins with the weights of the best evaluation of the phase before; smaller losses, larger scores."""
    begins = {}

    class Begin(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            begins[state.global_step] = flat(model)

    scores = iter([0.1, 0.3, 0.2, 0.0, 0.1, 0.2, 0.9, 0.1, 0.9, 0.2])
    spy, model = worker.Spy(), worker.build()
    schedule = UnfreezingSchedule((Phase("a", ("head",)), Phase("b", ("*",), Step(4))))
    run = worker.trainer(
        model,
        worker.arguments(tmp_path, **EVALUATE),
        [Unfreezing(schedule, restore_best=metric), Begin(), spy],
        eval_dataset=worker.examples(8, seed=1),
        compute_metrics=lambda _: {given: next(scores) * (1 if given == "f1" else -1)},
    )
    run.train()
    assert torch.equal(begins[4], spy.weights[2 - 1])
    assert torch.equal(flat(model), spy.weights[7 - 1])
    assert not list(tmp_path.rglob("*.safetensors"))


def test_best_weights_go_into_the_checkpoints_of_a_trial(worker, tmp_path) -> None:
    """A search for hyperparameters has a folder for each trial, of which callbacks are not told."""

    class Search(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            state.is_hyper_param_search = True

    schedule = UnfreezingSchedule((Phase("a", ("head",)), Phase("b", ("*",), Step(2))))
    run = worker.trainer(
        worker.build(),
        worker.arguments(tmp_path, **{**EVALUATE, "max_steps": 4, "save_strategy": "steps", "save_steps": 1}),
        [Search(), Unfreezing(schedule, restore_best=True)],
        eval_dataset=worker.examples(8, seed=1),
    )
    run._get_output_dir = lambda *_, **__: str(tmp_path / "run-0")
    run.train()
    kept = {path.parts[-3] for path in tmp_path.glob("run-0/checkpoint-*/best_of_phase/step-*.safetensors")}
    assert kept == {f"checkpoint-{step}" for step in range(1, 5)}
    assert [path.name for path in tmp_path.iterdir()] == ["run-0"]


def test_a_phase_can_end_the_training(worker, tmp_path) -> None:
    schedule = UnfreezingSchedule((Phase("a", ("head",)), Phase("b", ("*",), Step(2), stop=Plateau(patience=2))))
    values = iter([0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    spy = worker.Spy()
    run = worker.trainer(
        worker.build(),
        worker.arguments(tmp_path, **EVALUATE),
        [Unfreezing(schedule), spy],
        eval_dataset=worker.examples(8, seed=1),
        compute_metrics=lambda _: {"loss": next(values)},
    )
    run.train()
    assert run.state.global_step == 7  # 0.1 at step 5, no better at 6 and 7


def test_the_model_leaves_as_it_came(worker, tmp_path) -> None:
    model = worker.build()
    model.bert.embeddings.position_embeddings.weight.requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.parameters()]
    schedule = UnfreezingSchedule((Phase("a", ("head",)),), keep_frozen=("*position_embeddings*",))
    run = worker.trainer(model, worker.arguments(tmp_path, max_steps=2), [Unfreezing(schedule)])
    run.train()
    assert [parameter.requires_grad for parameter in model.parameters()] == before


def test_a_training_that_was_broken_off_can_be_begun_anew(worker, tmp_path) -> None:
    class Fail(TrainerCallback):
        armed = True

        def on_step_end(self, args, state, control, **kwargs):
            if Fail.armed:
                raise KeyboardInterrupt

    spy = worker.Spy()
    run = worker.trainer(worker.build(), worker.arguments(tmp_path), [LinearProbeThenFineTune(2), spy, Fail()])
    with pytest.raises(KeyboardInterrupt):
        run.train()
    Fail.armed = False
    spy.trained.clear()
    run.train()
    assert [len(trained) for trained in spy.trained] == [4] * 2 + [41] * 8


class TestErrors:
    def test_frozen_before_the_trainer_is_made(self, worker, tmp_path) -> None:
        model = worker.frozen_first(worker.build())
        with pytest.raises(ValueError, match=r"word_embeddings.weight and 38 more .* frozen before .* keep_frozen"):
            worker.trainer(model, worker.arguments(tmp_path), [GradualUnfreeze])

    def test_frozen_before_the_training(self, worker, tmp_path) -> None:
        model = worker.build()
        run = worker.trainer(model, worker.arguments(tmp_path), [GradualUnfreeze(2)])
        worker.frozen_first(model)
        with pytest.raises(ValueError, match="frozen before the training"):
            run.train()

    def test_an_optimizer_that_lacks_parameters(self, worker, tmp_path) -> None:
        model = worker.build()
        optimizer = torch.optim.AdamW(model.classifier.parameters())
        run = worker.trainer(model, worker.arguments(tmp_path), [GradualUnfreeze(2)], optimizers=(optimizer, None))
        with pytest.raises(ValueError, match=r"the optimizer lacks bert.embeddings.word_embeddings.weight and 38"):
            run.train()

    def test_a_group_added_later_breaks_the_scheduler(self, worker, tmp_path) -> None:
        """What one would do otherwise, in one process too."""
        assert worker.breaks_the_scheduler(worker.naive(tmp_path, add_group=True))

    def test_deepspeed(self, worker, tmp_path) -> None:
        args = types.SimpleNamespace(deepspeed="ds.json", ddp_static_graph=None)
        with pytest.raises(ValueError, match=r"DeepSpeed .* train with FSDP2"):
            GradualUnfreeze().on_init_end(args, None, None, model=worker.build())

    def test_static_graph(self, worker, tmp_path) -> None:
        with pytest.raises(ValueError, match="leave ddp_static_graph out"):
            worker.trainer(worker.build(), worker.arguments(tmp_path, ddp_static_graph=True), [GradualUnfreeze])

    def test_the_first_fsdp(self, worker, tmp_path) -> None:
        flattened = FullyShardedDataParallel.__new__(FullyShardedDataParallel)
        nn.Module.__init__(flattened)
        with pytest.raises(ValueError, match=r"FSDP 1 .* take FSDP2"):
            check_arguments(worker.arguments(tmp_path), nn.Sequential(flattened))

    def test_names_that_the_model_lacks(self, worker, tmp_path) -> None:
        schedule = UnfreezingSchedule((Phase("a", ("encoder.layer.7",)),))
        with pytest.raises(ValueError, match=r"phases\[0\] \('a'\), train: 'encoder.layer.7' is no group"):
            worker.trainer(worker.build(), worker.arguments(tmp_path), [Unfreezing(schedule)])

    def test_a_plateau_without_evaluation(self, worker, tmp_path) -> None:
        run = worker.trainer(worker.build(), worker.arguments(tmp_path), [GradualUnfreeze(plateau=Plateau())])
        with pytest.raises(ValueError, match=r"needs \['eval_loss'\], but nothing is evaluated: set eval_strategy"):
            run.train()

    def test_a_metric_that_evaluation_does_not_give(self, worker, tmp_path) -> None:
        run = worker.trainer(
            worker.build(),
            worker.arguments(tmp_path, **EVALUATE),
            [GradualUnfreeze(plateau=Plateau("eval_f1"))],
            eval_dataset=worker.examples(8, seed=1),
        )
        with pytest.raises(ValueError, match=r"needs \['eval_f1'\], but evaluation gives \['eval_loss'"):
            run.train()

    def test_epochs_of_data_without_length(self, worker, tmp_path) -> None:
        class Stream(IterableDataset):
            def __iter__(self):
                yield from worker.examples()

        run = worker.trainer(worker.build(), worker.arguments(tmp_path), [GradualUnfreeze])
        run.train_dataset = Stream()
        with pytest.raises(ValueError, match=r"has no length.*phase_steps"):
            run.train()

    def test_a_schedule_of_another_kind(self) -> None:
        with pytest.raises(TypeError, match="a path or a function, got 3"):
            Unfreezing(3)


def test_data_without_length_by_steps(worker, tmp_path) -> None:
    class Stream(IterableDataset):
        def __iter__(self):
            yield from worker.examples()

    spy = worker.Spy()
    run = worker.trainer(worker.build(), worker.arguments(tmp_path), [LinearProbeThenFineTune(0.3), spy])
    run.train_dataset = Stream()
    run.train()
    assert [len(trained) for trained in spy.trained] == [4] * 3 + [41] * 7


def test_a_training_too_short_for_its_phases_is_reported(worker, tmp_path, caplog) -> None:
    worker.train([GradualUnfreeze(3)], tmp_path, max_steps=6)
    (message,) = [text for text in caplog.messages if "before these phases begin" in text]
    assert "after 6 steps" in message
    assert "'layer.0', 'embeddings'" in message


def test_tables_that_the_model_itself_fixes_stay_fixed(worker, tmp_path) -> None:
    model = FixedPositions(worker.build().config).double()
    model.accepts_loss_kwargs = False
    table = model.bert.embeddings.position_embeddings.weight
    before, spy = table.clone(), worker.Spy()
    worker.trainer(model, worker.arguments(tmp_path), [GradualUnfreeze(2), spy]).train()
    assert torch.equal(table, before)
    assert "bert.embeddings.word_embeddings.weight" in spy.trained[-1]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks for it
def test_adapters_unfreeze_and_their_base_does_not(worker, tmp_path) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["query"], modules_to_save=["classifier"], r=2)
    model = get_peft_model(worker.build(torch.float32), config)
    model.accepts_loss_kwargs = False
    spy = worker.Spy()
    worker.trainer(model, worker.arguments(tmp_path), [GradualUnfreeze(3, layers_per_phase=1), spy]).train()
    stages = [{name for name in spy.trained[step] if "lora" in name} for step in (0, 3, 6)]
    assert stages[0] == set()
    assert all(".layer.1." in name for name in stages[1])
    assert len(stages[1]) == 2
    assert len(stages[2]) == 4
    assert not any("base_layer" in name for trained in spy.trained for name in trained)


def test_a_wrong_scaling_of_the_loss_is_reported(worker, tmp_path, caplog) -> None:
    model = worker.build()
    del model.accepts_loss_kwargs
    worker.trainer(model, worker.arguments(tmp_path, 2, max_steps=1), [GradualUnfreeze(1)]).train()
    assert any("ignores num_items_in_batch" in text for text in caplog.messages)


def test_a_progress_printer_takes_the_log(worker, tmp_path, capsys) -> None:
    run = worker.trainer(worker.build(), worker.arguments(tmp_path), [SequentialUnfreeze(3), PrinterCallback()])
    run.train()
    assert "grad_norm" in capsys.readouterr().out


def test_epochs_of_parts_of_a_batch(worker, tmp_path) -> None:
    """An epoch of 7 batches, 2 accumulated a step, has 4 steps; the last of them holds one batch."""
    spy, model = worker.Spy(), worker.build()
    schedule = UnfreezingSchedule((Phase("a", ("head",)), Phase("b", ("*",), Epoch(1))))
    run = worker.trainer(model, worker.arguments(tmp_path, 2), [Unfreezing(schedule), spy])
    run.train_dataset = worker.examples(26)
    run.train()
    assert [len(trained) for trained in spy.trained] == [4] * 4 + [41] * 6


def test_a_new_trainer_after_a_training_that_was_broken_off(worker, tmp_path) -> None:
    """With the same callback: on the same model, which was left half frozen, and on another."""

    class Fail(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    callback, model = LinearProbeThenFineTune(2), worker.build()
    with pytest.raises(KeyboardInterrupt):
        worker.trainer(model, worker.arguments(tmp_path), [callback, Fail()]).train()
    for again in (model, FixedPositions(model.config).double()):
        spy = worker.Spy()
        worker.trainer(again, worker.arguments(tmp_path), [callback, spy]).train()
        assert len(spy.trained[0]) == 4
        assert len(spy.trained[-1]) == 41 - (again is not model)
