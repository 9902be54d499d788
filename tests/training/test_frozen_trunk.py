"""Feature extraction: what is frozen, and a cache of the frozen part that changes no bit of a training."""

import copy
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    T5Config,
    T5ForSequenceClassification,
    TrainerCallback,
)

from hf_nlpnotes._compat import CHECKPOINTING
from hf_nlpnotes.training.frozen_trunk import FeatureExtraction
from hf_nlpnotes.training.frozen_trunk_store import FolderStore, MemoryStore

WORKER = Path(__file__).with_name("frozen_trunk_worker.py")


def load_runs() -> ModuleType:
    """Load the file beside this one; test folders are no packages."""
    spec = importlib.util.spec_from_file_location("frozen_trunk_runs", WORKER.with_name("frozen_trunk_runs.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


runs = load_runs()
DEBERTA, MODELS, SIZES = runs.DEBERTA, runs.MODELS, runs.SIZES
Pad, Rows, build, differences, train = runs.Pad, runs.Rows, runs.build, runs.differences, runs.train


class Step(TrainerCallback):
    """Calls something with the model when a step begins."""

    def __init__(self, call: Callable[[nn.Module, int], None]) -> None:
        self.call = call

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.call(model, state.global_step)


@pytest.fixture(scope="module")
def without_cache(tmp_path_factory):
    """Losses and model of the run that most tests compare with: two layers frozen, nothing cached."""
    model = build()
    return train(model, tmp_path_factory.mktemp("plain"), FeatureExtraction(2)).seen, model


def by_hand(model: nn.Module, layers: int) -> None:
    """Freeze the lowest layers of a BERT as anyone would, for comparison."""
    for part in [model.bert.embeddings, *model.bert.encoder.layer[:layers]]:
        part.requires_grad_(False)
        part.register_forward_pre_hook(lambda module, _: module.eval() and None)


# Freezing


def test_it_is_freezing_by_hand_in_evaluation_mode(tmp_path, without_cache):
    hand = build()
    by_hand(hand, 2)
    losses, ours = without_cache
    assert train(hand, tmp_path).seen == losses
    assert not differences(hand, ours)


@pytest.mark.parametrize("layers", [0, 1, None])
def test_frozen_weights_keep_every_bit_under_weight_decay_and_momentum(tmp_path, layers):
    model = build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, tmp_path, FeatureExtraction(layers), optim="sgd", optim_args="momentum=0.9", weight_decay=0.1)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    below = {"bert.embeddings", *(f"bert.encoder.layer.{i}" for i in range(3 if layers is None else layers))}
    assert changed == {name for name in before if not any(name.startswith(f"{part}.") for part in below)}


def test_the_class_itself_is_a_callback(tmp_path):
    model = build()
    train(model, tmp_path, FeatureExtraction)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_dropout_is_off_below_the_boundary_and_on_above_it(tmp_path, name):
    model, modes = build(name), {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_pre_hook(lambda m, _, path=path: modes.setdefault(path, set()).add(m.training))
    train(model, tmp_path, FeatureExtraction(2), max_steps=2)
    above = ("layer.2", "h.2", "bert.pooler", "dropout")
    assert modes
    for path, seen in modes.items():
        trains = any(path.startswith(part) or f".{part}." in path for part in above)
        assert seen == {trains}, path


def test_everything_is_as_before_afterwards(tmp_path):
    model = build()
    model.bert.pooler.requires_grad_(False)
    attributes = {path: set(module.__dict__) for path, module in model.named_modules()}
    train(model, tmp_path, FeatureExtraction(2, cache="memory"), eval_strategy="epoch")
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
    }
    for path, module in model.named_modules():
        assert set(module.__dict__) - {"_is_accelerate_prepared"} == attributes[path], path
        hooks = {*module._forward_hooks.values(), *module._forward_pre_hooks.values()}
        assert not [hook for hook in hooks if "frozen_trunk" in hook.__module__], path
    model.train()
    assert all(module.training for module in model.modules())


def test_activation_checkpointing_does_not_run_the_trunk_again(tmp_path):
    calls = {False: [], True: []}
    for frozen in calls:
        model = build()
        for index, layer in enumerate(model.bert.encoder.layer):
            layer.attention.register_forward_hook(lambda *_, i=index, f=frozen: calls[f].append(i))
        callbacks = [FeatureExtraction(2)] if frozen else []
        train(model, tmp_path, *callbacks, max_steps=1, **{CHECKPOINTING: True})
    assert sorted(calls[False]) == [0, 0, 1, 1, 2, 2]
    assert sorted(calls[True]) == [0, 1, 2, 2]


def test_a_training_that_was_broken_off_leaves_nothing_in_the_next_model(tmp_path):
    """The callback undoes what it did to the first model, on the first model."""

    def stop(model: nn.Module, step: int) -> None:
        raise KeyboardInterrupt

    extraction, first, second = FeatureExtraction(2, cache="memory"), build(), build()
    with pytest.raises(KeyboardInterrupt):
        train(first, tmp_path, extraction, Step(stop), **{CHECKPOINTING: True})
    train(second, tmp_path, extraction, max_steps=1, **{CHECKPOINTING: True})
    for model in (first, second):
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert len(model.get_input_embeddings()._forward_hooks) == 1, "that of activation checkpointing"


# The cache: no bit changes


@pytest.mark.parametrize("layers", [2, None])
@pytest.mark.parametrize("name", MODELS)
def test_losses_and_weights_are_those_without_the_cache(tmp_path, name, layers):
    plain, cached = build(name), build(name)
    expected = train(plain, tmp_path, FeatureExtraction(layers), eval_strategy="epoch")
    extraction = FeatureExtraction(layers, cache="memory")
    got = train(cached, tmp_path, extraction, eval_strategy="epoch")
    assert got.seen == expected.seen
    assert got.evaluated == expected.evaluated
    assert not differences(plain, cached)
    # 22 rows in batches of 4: in the first epoch all are new, later only those beside a row of a smaller batch.
    assert extraction.trunk_cache.rows == 3 * 22 + 3 * 10
    assert 22 + 10 <= extraction.trunk_cache.computed <= 22 + 10 + 2 * 8 + 2 * 2


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_accumulation_steps": 3},
        {"dataloader_num_workers": 2},
        {CHECKPOINTING: True},
        {"per_device_train_batch_size": 1},
        {"bf16": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_losses_are_the_same_whatever_the_trainer_does(tmp_path, options):
    plain, cached = build(), build()
    expected = train(plain, tmp_path, FeatureExtraction(2), **options)
    extraction = FeatureExtraction(2, cache="memory")
    assert train(cached, tmp_path, extraction, **options).seen == expected.seen
    assert not differences(plain, cached)
    assert extraction.trunk_cache.computed < extraction.trunk_cache.rows


@pytest.mark.parametrize(
    ("collator", "dtype"),
    [
        (Pad(1), torch.float32),
        (Pad(1), torch.float64),
        (Pad(1), torch.bfloat16),
        (Pad(1, left=True), torch.float32),
        (Pad(7), torch.float64),
    ],
    ids=["unpadded-32", "unpadded-64", "unpadded-bf16", "left-32", "odd-64"],
)
def test_losses_are_the_same_at_any_length_and_precision(tmp_path, collator, dtype):
    plain, cached = build().to(dtype), build().to(dtype)
    expected = train(plain, tmp_path, FeatureExtraction(2), collator=collator, num_train_epochs=4)
    extraction = FeatureExtraction(2, cache="memory")
    got = train(cached, tmp_path, extraction, collator=collator, num_train_epochs=4)
    assert got.seen == expected.seen
    assert not differences(plain, cached)


def test_shapes_in_which_rows_depend_on_their_places_are_not_cached(tmp_path):
    """A layer whose outputs depend on the row number stands for matrix products that round by place."""
    outputs = []
    for cache in (None, "memory"):
        model = build()
        model.bert.encoder.layer[1].output.register_forward_hook(
            lambda _module, _args, output: output * (1 + torch.arange(len(output)).view(-1, 1, 1))
        )
        extraction = FeatureExtraction(2, cache=cache)
        outputs.append(train(model, tmp_path, extraction, num_train_epochs=2).seen)
    assert outputs[0] == outputs[1]
    assert extraction.trunk_cache.rows == 44
    assert extraction.trunk_cache.computed == 44 + 4  # the first batch once more, when the model is checked


def test_the_trunk_does_not_run_again(tmp_path):
    model, calls = build(), []
    for part in [model.bert.embeddings.LayerNorm, model.bert.encoder.layer[0].attention, model.bert.encoder.layer[1]]:
        part.register_forward_hook(lambda module, *_: calls.append(type(module).__name__))
    counts = []
    rows = Rows(20)  # five batches of 4: all of one shape
    note = Step(lambda _, step: counts.append((step, calls.count("LayerNorm"), calls.count("BertAttention"))))
    train(model, tmp_path, FeatureExtraction(2, cache="memory"), note, rows=rows)
    after = {step: (norms, attentions) for step, norms, attentions in counts}
    assert after[5] == after[14]  # nothing in the second and third epoch


def test_without_padding_each_example_is_computed_once(tmp_path):
    plain, cached = build(), build()
    expected = train(plain, tmp_path, FeatureExtraction(2), collator=Pad(1))
    extraction = FeatureExtraction(2, cache="memory", exact=False)
    got = train(cached, tmp_path, extraction, collator=Pad(1))
    assert extraction.trunk_cache.computed == 22
    torch.testing.assert_close(torch.tensor(got.seen), torch.tensor(expected.seen), rtol=1e-4, atol=1e-5)


# The cache: when it is valid


def test_changed_weights_are_noticed_at_once(tmp_path, without_cache):
    def change(model: nn.Module, step: int) -> None:
        if step == 8:
            with torch.no_grad():
                model.bert.encoder.layer[0].output.dense.weight.mul_(1.5)

    plain, cached = build(), build()
    expected = train(plain, tmp_path, FeatureExtraction(2), Step(change))
    assert train(cached, tmp_path, FeatureExtraction(2, cache="memory"), Step(change)).seen == expected.seen
    assert without_cache[0] != expected.seen


def test_a_folder_serves_later_trainings_of_the_same_trunk_and_no_others(tmp_path, without_cache):
    folder = tmp_path / "states"
    first = FeatureExtraction(2, cache=folder)
    train(build(), tmp_path, first)
    again = FeatureExtraction(2, cache=folder)
    assert train(build(), tmp_path, again).seen == without_cache[0]
    assert again.trunk_cache.computed == 0
    for depth, change in [
        (1, lambda _: None),
        (2, lambda model: model.bert.embeddings.LayerNorm.bias.data.add_(1)),
    ]:
        model, other = build(), FeatureExtraction(depth, cache=folder)
        change(model)
        train(model, tmp_path, other, max_steps=1)
        assert other.trunk_cache.computed > 0
    assert not list(folder.rglob("*.tmp"))
    assert len(list(folder.iterdir())) == 3


def test_resumed_in_the_middle_of_an_epoch(tmp_path, without_cache):
    (expected, plain), cached = without_cache, build()
    train(build(), tmp_path / "a", FeatureExtraction(2, cache=tmp_path / "c"), save_strategy="steps", save_steps=8)
    resume = str(tmp_path / "a" / "checkpoint-8")
    got = train(cached, tmp_path / "a", FeatureExtraction(2, cache=tmp_path / "c"), resume=resume)
    assert got.seen == expected[8:]
    assert not differences(plain, cached)


def test_a_training_that_broke_off_leaves_nothing_behind(tmp_path, without_cache):
    def fail(model: nn.Module, step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    model, extraction = build(), FeatureExtraction(2, cache="memory")
    fresh = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyboardInterrupt):
        train(model, tmp_path, extraction, Step(fail))
    model.load_state_dict(fresh)
    assert train(model, tmp_path, extraction).seen == without_cache[0]


def test_a_full_cache_computes_the_rest(tmp_path, without_cache):
    extraction = FeatureExtraction(2, cache="memory", max_bytes=10 * 16 * 32 * 4)
    assert train(build(), tmp_path, extraction).seen == without_cache[0]
    assert extraction.trunk_cache.store.bytes == 10 * 16 * 32 * 4


# The stores


@pytest.mark.parametrize("store", [MemoryStore, FolderStore])
def test_a_store_gives_what_it_got(tmp_path, store):
    kept = store(tmp_path) if store is FolderStore else store()
    kept.open("a")
    states = {bytes([i] * 16): torch.randn(i + 1, 3).to(torch.bfloat16) for i in range(5)}
    for key, state in states.items():
        kept.put(key, state)
    kept.sync()
    if store is FolderStore:
        kept = FolderStore(tmp_path)
        kept.open("a")
    for key, state in states.items():
        assert torch.equal(kept.get(key), state)
    kept.open("b")
    assert kept.get(bytes(16)) is None


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    store = FolderStore(tmp_path)
    store.open("a")
    store.put(bytes(16), torch.ones(2, 3))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        store.sync()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert store.get(bytes(16)) is None  # to be computed again: it is neither on the disk nor in memory


# What cannot be cached


def test_a_model_that_reads_lower_layers_is_refused(tmp_path):
    class Mixed(type(build())):
        def forward(self, input_ids=None, attention_mask=None, labels=None):
            states = []
            hooks = [
                layer.register_forward_hook(lambda _m, _a, o: states.append(o)) for layer in self.bert.encoder.layer
            ]
            self.bert(input_ids, attention_mask=attention_mask)
            for hook in hooks:
                hook.remove()
            logits = self.classifier(torch.stack(states).mean(0)[:, 0])
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    torch.manual_seed(0)
    model = Mixed(build().config)
    with pytest.raises(ValueError, match=r"reads more of the frozen layers.*cache=None"):
        train(model, tmp_path, FeatureExtraction(2, cache="memory"))


def test_shared_and_double_stacks_are_refused(tmp_path):
    albert = AlbertForSequenceClassification(AlbertConfig(**SIZES, embedding_size=16))
    with pytest.raises(ValueError, match="runs 1 shared module"):
        train(albert, tmp_path, FeatureExtraction(1))
    with pytest.raises(ValueError, match="runs 1 shared module"):
        train(albert, tmp_path, FeatureExtraction(cache="memory"))
    t5 = T5ForSequenceClassification(T5Config(vocab_size=60, d_model=32, num_layers=2, num_heads=2, d_ff=64, d_kv=16))
    with pytest.raises(ValueError, match="2 stacks"):
        train(t5, tmp_path, FeatureExtraction(1))


def test_states_that_depend_on_padding_need_exact(tmp_path):
    with pytest.raises(ValueError, match="padding changes the states"):
        train(build("convbert"), tmp_path, FeatureExtraction(2, cache="memory", exact=False))


def test_random_frozen_layers_are_refused(tmp_path):
    model = build()
    model.bert.encoder.layer[0].register_forward_hook(lambda _m, _a, o: nn.functional.dropout(o, 0.1, training=True))
    with pytest.raises(ValueError, match="random numbers"):
        train(model, tmp_path, FeatureExtraction(2, cache="memory"))


def test_hidden_states_are_refused(tmp_path):
    model = build()
    model.config.output_hidden_states = True
    with pytest.raises(ValueError, match="output_hidden_states"):
        train(model, tmp_path, FeatureExtraction(2, cache="memory"))


def test_an_unfrozen_layer_is_noticed(tmp_path):
    thaw = Step(lambda model, step: step == 2 and model.bert.encoder.layer[1].requires_grad_(True))
    with pytest.raises(ValueError, match="require gradients again"):
        train(build(), tmp_path, FeatureExtraction(2, cache="memory"), thaw)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layers": 1.5}, TypeError, "whole number, got 1.5"),
        ({"layers": True}, TypeError, "got True"),
        ({"layers": -1}, ValueError, "at least 0, got -1"),
        ({"cache": True}, TypeError, "folder, got True"),
        ({"cache": ""}, ValueError, "empty"),
        ({"exact": 1}, TypeError, "got 1"),
        ({"max_bytes": -5}, ValueError, "got -5"),
    ],
)
def test_bad_options(arguments, error, message):
    with pytest.raises(error, match=message):
        FeatureExtraction(**arguments)


def test_bad_options_for_a_model(tmp_path):
    with pytest.raises(ValueError, match="has 3 layers: layers=4"):
        train(build(), tmp_path, FeatureExtraction(4))
    with pytest.raises(ValueError, match="nothing to cache"):
        train(build(), tmp_path, FeatureExtraction(0, cache="memory"))
    reentrant = {CHECKPOINTING: True, f"{CHECKPOINTING}_kwargs": {"use_reentrant": True}}
    with pytest.raises(ValueError, match="use_reentrant"):
        train(build(), tmp_path, FeatureExtraction(2), **reentrant)


def test_a_model_of_relative_positions_keeps_them_frozen(tmp_path):
    torch.manual_seed(0)
    model = DebertaV2ForSequenceClassification(DebertaV2Config(**SIZES, **DEBERTA))
    before = model.deberta.encoder.rel_embeddings.weight.clone()
    train(model, tmp_path, FeatureExtraction(1), max_steps=2)
    assert torch.equal(model.deberta.encoder.rel_embeddings.weight, before)


# Two processes


@pytest.fixture(scope="module")
def two_processes(torchrun, tmp_path_factory):
    output = tmp_path_factory.mktemp("two")
    torchrun(WORKER, output)
    return [torch.load(output / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", ["plain", "unused", "memory", "folder", "checkpointing"])
def test_two_processes_agree_and_the_cache_changes_nothing(two_processes, case):
    first, second = two_processes
    assert first["world_size"] == second["world_size"] == 2
    for name, value in first[case]["weights"].items():
        assert torch.equal(value, second[case]["weights"][name]), name
        assert torch.equal(value, first["plain"]["weights"][name]), name
    assert first[case]["losses"] == first["plain"]["losses"]


def test_two_processes_are_one(two_processes, tmp_path):
    alone = build("bert-without-dropout").double()
    train(alone, tmp_path, FeatureExtraction(2), rows=Rows(24), per_device_train_batch_size=8, optim="sgd")
    for name, value in alone.state_dict().items():
        if value.is_floating_point():
            gap = (value - two_processes[0]["double"]["weights"][name]).abs().max()
            assert gap <= 1e-12, name


def test_a_folder_is_shared_by_processes(two_processes):
    rows = [rank["folder"]["rows"] for rank in two_processes]
    assert all(computed < seen for seen, computed in rows)
    assert sum(computed for _, computed in rows) < sum(rank["memory"]["rows"][1] for rank in two_processes)
