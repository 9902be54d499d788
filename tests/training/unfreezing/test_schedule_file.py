"""Schedules as YAML: nothing is lost on the way, and a mistake is pointed at."""

import pytest
import yaml
from transformers import BertConfig, BertForSequenceClassification

from hf_nlpnotes.training.unfreezing import (
    LISA,
    ChainThaw,
    Epoch,
    Fraction,
    GradualUnfreeze,
    LinearProbeThenFineTune,
    Phase,
    Plateau,
    SequentialUnfreeze,
    Step,
    Unfreezing,
    UnfreezingSchedule,
    read_schedule,
    write_schedule,
)

PLATEAU = Plateau("eval_f1", patience=3, min_delta=0.01, mode="max", at_most=Fraction(0.5))


@pytest.fixture(scope="module")
def model() -> BertForSequenceClassification:
    config = BertConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, vocab_size=9)
    return BertForSequenceClassification(config)


@pytest.mark.parametrize(
    "callback",
    [
        GradualUnfreeze(),
        GradualUnfreeze(0.1, warmup_steps=0.05),
        SequentialUnfreeze(5),
        ChainThaw(plateau=PLATEAU),
        LinearProbeThenFineTune(learning_rate_scale=0.1),
        LISA(1, every=4, seed=7),
    ],
)
def test_there_and_back(callback, model, tmp_path) -> None:
    schedule = callback.schedule_for(model)
    path = tmp_path / "schedule.yaml"
    write_schedule(schedule, path, model=model)
    assert read_schedule(path) == schedule
    assert Unfreezing(path).schedule_for(model) == schedule
    assert [entry.name for entry in tmp_path.iterdir()] == ["schedule.yaml"]


def test_everything_that_a_schedule_can_hold(tmp_path) -> None:
    schedule = UnfreezingSchedule(
        (
            Phase("一", ("head",), stop=Plateau(at_most=Epoch(2))),
            Phase("b", ("head", "layer.*"), PLATEAU, learning_rate_scale=0.5, warmup_steps=10),
        ),
        keep_frozen=("embeddings",),
    )
    write_schedule(schedule, tmp_path / "schedule.yaml")
    assert read_schedule(tmp_path / "schedule.yaml") == schedule


def test_the_file_can_be_read_by_people(model, tmp_path) -> None:
    write_schedule(GradualUnfreeze().schedule_for(model), tmp_path / "schedule.yaml", model=model)
    lines = (tmp_path / "schedule.yaml").read_text(encoding="utf-8").splitlines()
    sizes = sum(parameter.numel() for parameter in model.bert.encoder.layer[0].parameters())
    assert f"#   layer.0     {sizes:>13,}" in lines
    assert lines[5:] == [
        "phases:",
        "- name: head",
        "  start: 0",
        "  train: [head]",
        "- name: layer.1",
        "  start: {epoch: 1}",
        "  train: [head, layer.1]",
        "- name: layer.0",
        "  start: {epoch: 2}",
        "  train: [head, layer.1, layer.0]",
        "- name: embeddings",
        "  start: {epoch: 3}",
        "  train: [head, layer.1, layer.0, embeddings]",
    ]
    assert yaml.safe_load("\n".join(lines))["phases"][0]["train"] == ["head"]


def test_written_by_hand(tmp_path) -> None:
    path = tmp_path / "schedule.yaml"
    path.write_text(
        """
phases:
  - {name: a, train: [head]}
  - name: b
    train: [head, "layer.*"]
    start:
      plateau: eval_loss
      patience: 2
  - {name: c, train: ["*"], start: {plateau: eval_loss, at_most: 100}}
""",
        encoding="utf-8",
    )
    assert read_schedule(path) == UnfreezingSchedule(
        (
            Phase("a", ("head",)),
            Phase("b", ("head", "layer.*"), Plateau(patience=2)),
            Phase("c", ("*",), Plateau(at_most=Step(100))),
        )
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", r"line 1: expected a table with \['keep_frozen', 'phases'\]"),
        ("{}", "expected an entry 'phases'"),
        ("phases: 3", "phases: expected a list, got 3"),
        ("phases: [head]", r"phases\[0\]: expected a table"),
        ("phases:\n- name: a", r"line 2, phases\[0\]: a phase needs 'train'"),
        ("phases:\n- {train: [head]}", r"phases\[0\]: a phase needs 'name'"),
        ("phases:\n- {name: a, train: head}", r"phases\[0\] \('a'\)\.train: expected a list, got 'head'"),
        ("phases:\n- {name: a, trains: [head]}", r"phases\[0\]: unknown entry 'trains'; did you mean 'train'\?"),
        (
            "phases:\n- {name: a, train: [head]}\n- name: b\n  train: [head]\n  start: {epochs: 1}",
            r"line 5, phases\[1\] \('b'\)\.start: unknown entry 'epochs'; did you mean 'epoch'\?",
        ),
        (
            "phases:\n- {name: a, train: [head]}\n- name: b\n  train: [head]\n  start: {fraction: 3}",
            r"line 5, phases\[1\] \('b'\)\.start: a part of the training is between 0 and 1, got 3",
        ),
        ("phases:\n- {name: a, train: [head], start: soon}", r"start: expected a step such as 100, .* got 'soon'"),
        ("phases:\n- {name: a, train: [head], start: {epoch: 1, step: 2}}", "start: expected one of"),
        ("phases:\n- {name: a, train: [head], stop: {patience: 1}}", r"stop: expected \{plateau: eval_loss"),
        ("phases:\n- {name: a, train: [head], sample: {groups: [x], count: 1}}", "sample: .*'every'"),
        ("phases:\n- {name: a, train: [head], warmup_steps: -1}", r"phases\[0\] \('a'\): warmup_steps .* got -1"),
        ("phases:\n- {name: a, name: b, train: [head]}", "'name' stands twice"),
        ("phases: [", "is not YAML"),
        ("phases:\n- {name: a, train: [head]}\n- {name: b, train: [head]}", r"phases\[1\] starts at .* not after"),
    ],
)
def test_a_mistake_is_pointed_at(text, message, tmp_path) -> None:
    path = tmp_path / "schedule.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        read_schedule(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_file(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        Unfreezing(tmp_path / "schedule.yaml")
