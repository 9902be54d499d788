"""The schedules of the papers, against what the papers say."""

import inspect

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

from hf_nlpnotes.layers.layer_discovery import LayerGroup, layer_groups
from hf_nlpnotes.training.unfreezing import (
    LISA,
    ChainThaw,
    Epoch,
    Fraction,
    GradualUnfreeze,
    LayerSample,
    LinearProbeThenFineTune,
    Plateau,
    SequentialUnfreeze,
    Step,
    Unfreezing,
    chain_thaw,
    gradual_unfreeze,
    linear_probe_then_fine_tune,
    lisa,
    sequential_unfreeze,
)

KINDS = {"embeddings": "embeddings", "head": "head"}
NAMES = ("embeddings", "layer.0", "layer.1", "layer.2", "head")
GROUPS = tuple(LayerGroup(name, KINDS.get(name, "layer"), (f"{name}.weight",)) for name in NAMES)


def trained(schedule) -> list[list[str]]:
    """The groups of each phase, bottom first."""
    return [[name for name in NAMES if name in phase.train] for phase in schedule.phases]


def tiny_model() -> BertForSequenceClassification:
    config = BertConfig(hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8, vocab_size=9)
    with torch.device("meta"):
        return BertForSequenceClassification(config)


def test_gradual_adds_one_layer_from_the_top() -> None:
    """Howard & Ruder 2018, 3.3: the last layer first, then the next lower one, until all are fine-tuned."""
    assert trained(gradual_unfreeze(GROUPS)) == [list(NAMES[i:]) for i in (4, 3, 2, 1, 0)]


def test_gradual_with_several_layers_a_phase() -> None:
    assert trained(gradual_unfreeze(GROUPS, layers_per_phase=3)) == [list(NAMES[i:]) for i in (4, 1, 0)]
    assert trained(gradual_unfreeze(GROUPS, layers_per_phase=9)) == [list(NAMES[i:]) for i in (4, 0)]


def test_sequential_has_three_steps() -> None:
    """Chronopoulou et al. 2019, 3.2: the new layers, from epoch n the pretrained ones, from epoch k the embeddings."""
    assert trained(sequential_unfreeze(GROUPS)) == [["head"], list(NAMES[1:]), list(NAMES)]
    without_embeddings = sequential_unfreeze(GROUPS[1:])
    assert trained(without_embeddings) == [["head"], list(NAMES[1:])]
    assert [phase.name for phase in without_embeddings.phases] == ["new layers", "hidden layers"]
    new_alone = sequential_unfreeze(GROUPS[-1:])
    assert [(phase.name, phase.train) for phase in new_alone.phases] == [("new layers", ("head",))]


def test_chain_thaw_trains_layers_alone() -> None:
    """Felbo et al. 2017, figure 2: the new layer; then from the first to the last alone; then all."""
    alone = [["head"], ["embeddings"], ["layer.0"], ["layer.1"], ["layer.2"]]
    assert trained(chain_thaw(GROUPS)) == [*alone, list(NAMES)]


def test_linear_probe() -> None:
    schedule = linear_probe_then_fine_tune(GROUPS, 0.3, learning_rate_scale=0.1, warmup_steps=5)
    assert trained(schedule) == [["head"], list(NAMES)]
    assert schedule.phases[1].start == Fraction(0.3)
    assert (schedule.phases[1].learning_rate_scale, schedule.phases[1].warmup_steps) == (0.1, 5)


def test_lisa_keeps_embeddings_and_head() -> None:
    (phase,) = lisa(GROUPS, 2, every=7, seed=3).phases
    assert set(phase.train) == {"embeddings", "head"}
    assert phase.sample is not None
    assert phase.sample.groups == ("layer.0", "layer.1", "layer.2")
    (default,) = LISA().schedule_for(tiny_model()).phases
    assert default.sample == LayerSample(("layer.0", "layer.1", "layer.2"), count=2, every=20, seed=0)
    with pytest.raises(ValueError, match="num_layers=4, but the model has 3 layers"):
        lisa(GROUPS, 4)


@pytest.mark.parametrize(
    ("phase_steps", "starts"),
    [
        (None, [Step(0), Epoch(1), Epoch(2)]),
        (1, [Step(0), Step(1), Step(2)]),
        (7, [Step(0), Step(7), Step(14)]),
        (0.2, [Step(0), Fraction(0.2), Fraction(0.4)]),
    ],
)
def test_length_of_a_phase(phase_steps, starts) -> None:
    assert [phase.start for phase in sequential_unfreeze(GROUPS, phase_steps).phases] == starts


def test_phases_that_wait_for_a_plateau() -> None:
    plateau = Plateau("eval_f1", patience=3)
    schedule = chain_thaw(GROUPS, plateau=plateau, warmup_steps=4)
    assert [phase.start for phase in schedule.phases] == [Step(0), *[plateau] * 5]
    assert [phase.warmup_steps for phase in schedule.phases] == [0, *[4] * 5]


def test_a_model_without_head() -> None:
    config = BertConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, vocab_size=9)
    groups = layer_groups(BertModel(config, add_pooling_layer=False))
    assert [phase.name for phase in gradual_unfreeze(groups).phases] == ["layer.1", "layer.0", "embeddings"]
    assert [phase.name for phase in sequential_unfreeze(groups).phases] == ["hidden layers", "embeddings"]
    assert [phase.name for phase in chain_thaw(groups).phases] == ["layer.1", "embeddings", "layer.0", "all"]


@pytest.mark.parametrize("preset", [GradualUnfreeze, SequentialUnfreeze, ChainThaw, LinearProbeThenFineTune, LISA])
def test_every_option_has_a_default_and_a_model_on_the_meta_device_will_do(preset) -> None:
    model = tiny_model()
    schedule = preset().schedule_for(model)
    assert schedule.parameters_ever(layer_groups(model)) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(
    ("preset", "function"),
    [
        (GradualUnfreeze, gradual_unfreeze),
        (SequentialUnfreeze, sequential_unfreeze),
        (ChainThaw, chain_thaw),
        (LinearProbeThenFineTune, linear_probe_then_fine_tune),
        (LISA, lisa),
    ],
)
def test_defaults_are_those_of_the_function_and_of_every_callback(preset, function) -> None:
    common = inspect.signature(Unfreezing).parameters
    own = inspect.signature(function).parameters
    for name, option in inspect.signature(preset).parameters.items():
        assert option.default == (own[name] if name in own else common[name]).default


@pytest.mark.parametrize("preset", [GradualUnfreeze, SequentialUnfreeze, ChainThaw, LinearProbeThenFineTune])
@pytest.mark.parametrize("phase_steps", [0, -3, 1.0, 0.0, "epoch", True])
def test_bad_lengths_are_named_when_the_callback_is_made(preset, phase_steps) -> None:
    with pytest.raises((TypeError, ValueError), match=f"got {phase_steps!r}"):
        preset(phase_steps)


def test_other_bad_options() -> None:
    with pytest.raises(ValueError, match="both say when a phase ends"):
        GradualUnfreeze(5, plateau=Plateau())
    with pytest.raises(ValueError, match=r"phase_steps=0.3: 5 phases .* do not fit into it; give less than 0.25"):
        gradual_unfreeze(GROUPS, 0.3)
    with pytest.raises(ValueError, match="count is a whole number of at least 1, got 0"):
        LISA(0)
    with pytest.raises(ValueError, match="layers_per_phase is at least 1, got 0"):
        gradual_unfreeze(GROUPS, layers_per_phase=0)
    with pytest.raises(ValueError, match="nothing to unfreeze"):
        gradual_unfreeze(GROUPS[:1])
