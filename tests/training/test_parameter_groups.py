"""Rates against a closed form, weight decay against the Trainer's own choice, and training against torch alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    Trainer,
    TrainingArguments,
)

from hf_nlpnotes.layers.layer_discovery import layer_groups
from hf_nlpnotes.training.parameter_groups import (
    ULMFIT_DECAY,
    layer_learning_rates,
    layer_wise_optimizer,
    parameter_groups,
    undecayed_parameters,
)


def classifier(layers: int = 3) -> BertForSequenceClassification:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 40}
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertForSequenceClassification(BertConfig(num_hidden_layers=layers, **sizes, **quiet))


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    options = {"learning_rate": 0.01, "weight_decay": 0.1, "lr_scheduler_type": "constant", **options}
    return TrainingArguments(
        output_dir=str(folder), report_to="none", use_cpu=True, disable_tqdm=True, save_strategy="no", **options
    )


def test_rates_are_divided_by_2_6_a_layer() -> None:
    rates = layer_learning_rates(classifier(), 0.01)
    assert list(rates) == ["embeddings", "layer.0", "layer.1", "layer.2", "head"]
    for exponent, name in enumerate(["head", "layer.2", "layer.1", "layer.0", "embeddings"]):
        assert rates[name] == pytest.approx(0.01 / 2.6**exponent)
    assert pytest.approx(1 / 2.6) == ULMFIT_DECAY


def test_two_stacks_count_from_their_own_top() -> None:
    config = AutoConfig.for_model("bart", encoder_layers=2, decoder_layers=3)
    with torch.device("meta"):
        rates = layer_learning_rates(AutoModel.from_config(config), 1.0, 0.5)
    assert rates == {
        "embeddings": 0.5**4,
        "encoder.layer.0": 0.25,
        "encoder.layer.1": 0.5,
        "decoder.layer.0": 0.125,
        "decoder.layer.1": 0.25,
        "decoder.layer.2": 0.5,
    }


def test_the_head_may_have_its_own_rate() -> None:
    rates = layer_learning_rates(classifier(), 0.01, 1.0, head_learning_rate=0.5)
    assert rates == {**dict.fromkeys(["embeddings", "layer.0", "layer.1", "layer.2"], 0.01), "head": 0.5}


@pytest.mark.parametrize("name", ["bert", "roberta", "deberta-v2", "electra", "albert", "modernbert", "t5", "gpt2"])
def test_weight_decay_spares_what_the_trainer_spares(name: str) -> None:
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model(name))
    trainers = set(Trainer.get_decay_parameter_names(None, model))
    ours = {name for name, _ in model.named_parameters()} - undecayed_parameters(model)
    # By name the Trainer also spares T5's table of relative positions and decays the norms that are called "ln_1".
    known = {name for name in ours ^ trainers if "relative_attention_bias" in name or ".ln_" in f".{name}"}
    ties = {name for name in trainers if name not in dict(model.named_parameters())}
    assert ours ^ trainers == known | ties


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_every_parameter_stands_in_one_group(weight_decay: float) -> None:
    model = classifier()
    groups = parameter_groups(model, 0.01, 0.5, weight_decay)
    members = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(members) == sorted(id(parameter) for parameter in model.parameters())
    rates = layer_learning_rates(model, 0.01, 0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    group_of = {name: group.name for group in layer_groups(model) for name in group.parameters}
    spared = undecayed_parameters(model)
    for group in groups:
        for name in (names[id(parameter)] for parameter in group["params"]):
            assert group["lr"] == rates[group_of[name]]
            assert group["layer_group"] == group_of[name]
            assert group["weight_decay"] == (0.0 if name in spared else weight_decay)


def test_frozen_parameters_are_left_out() -> None:
    model = classifier()
    model.bert.requires_grad_(False)
    assert {group["layer_group"] for group in parameter_groups(model, 0.01)} == {"head"}
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing can be trained"):
        parameter_groups(model, 0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0"),
        ({"learning_rate": 0.1, "head_learning_rate": -1.0}, "head_learning_rate must be positive, got -1"),
        ({"learning_rate": 0.1, "layer_decay": 2.6}, r"in \(0, 1\], got 2.6"),
        ({"learning_rate": 0.1, "layer_decay": 0.0}, r"in \(0, 1\], got 0"),
        ({"learning_rate": 0.1, "weight_decay": -0.1}, "weight_decay must not be negative, got -0.1"),
    ],
)
def test_bad_values_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameter_groups(classifier(), **options)


def rows(count: int = 8) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 40, (count, 6), generator=generator)
    return [{"input_ids": row, "labels": i % 2} for i, row in enumerate(ids)]


@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
def test_three_steps_of_the_trainer_are_three_steps_of_torch(tmp_path: Path) -> None:
    args = arguments(tmp_path, per_device_train_batch_size=8, num_train_epochs=3, max_grad_norm=0.0)
    model = classifier()
    trainer = Trainer(
        model=model, args=args, train_dataset=rows(), optimizer_cls_and_kwargs=layer_wise_optimizer(args, 0.5)
    )
    trainer.train()

    reference = classifier().train()
    depths = {"embeddings": 4, "classifier": 0, "pooler": 0, "layer.0": 3, "layer.1": 2, "layer.2": 1}
    groups = []
    for name, parameter in reference.named_parameters():
        depth = next(depth for key, depth in depths.items() if f".{key}." in f".{name}")
        decay = 0.0 if "bias" in name or "LayerNorm" in name else 0.1
        groups.append({"params": [parameter], "lr": 0.01 * 0.5**depth, "weight_decay": decay})
    optimizer = torch.optim.AdamW(groups)
    batch = {"input_ids": torch.stack([row["input_ids"] for row in rows()]), "labels": torch.tensor([0, 1] * 4)}
    for _ in range(3):
        optimizer.zero_grad()
        reference(**batch).loss.backward()
        optimizer.step()
    for (name, ours), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4, msg=name)


@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
def test_a_second_training_has_the_same_groups(tmp_path: Path) -> None:
    args = arguments(tmp_path, max_steps=1)
    trainer = Trainer(
        model=classifier(), args=args, train_dataset=rows(), optimizer_cls_and_kwargs=layer_wise_optimizer(args, 0.5)
    )
    trainer.train()
    first = [group["lr"] for group in trainer.optimizer.param_groups]
    trainer.optimizer = None
    trainer.lr_scheduler = None
    trainer.train()
    assert [group["lr"] for group in trainer.optimizer.param_groups] == first
    assert len(set(first)) == 5


def test_an_optimizer_with_groups_of_its_own_is_refused(tmp_path: Path) -> None:
    args = arguments(tmp_path, optim="galore_adamw", optim_target_modules=["query"])
    factory, options = layer_wise_optimizer(args)
    with pytest.raises((ValueError, ImportError), match=r"makes its own parameter groups|[Gg]alore"):
        factory()(classifier(), **options)


def test_other_optimizers_take_their_options_from_the_arguments(tmp_path: Path) -> None:
    args = arguments(tmp_path, optim="sgd", optim_args="momentum=0.5")
    factory, options = layer_wise_optimizer(args)
    optimizer = factory()(classifier(), **options)
    assert isinstance(optimizer, torch.optim.SGD)
    assert {group["momentum"] for group in optimizer.param_groups} == {0.5}


def test_a_plain_module_has_groups_too() -> None:
    model = nn.Module()
    config = BertConfig(hidden_size=8, num_attention_heads=2, intermediate_size=8, vocab_size=9, num_hidden_layers=1)
    model.encoder, model.tagger = BertModel(config, add_pooling_layer=False), nn.Linear(8, 3)
    assert [group["layer_group"] for group in parameter_groups(model, 0.1)][-2:] == ["head", "head"]
