"""Schedules in YAML: written and read back the same, or refused by file."""

from dataclasses import replace

import pytest
from hardening_inputs import STRANGE, damaged_text, put, refused, strange_text
from hypothesis import example, given
from hypothesis import strategies as st

from hf_nlpnotes.training.unfreezing import read_schedule, write_schedule
from hf_nlpnotes.training.unfreezing.schedule import (
    Epoch,
    Fraction,
    LayerSample,
    Phase,
    Plateau,
    Step,
    UnfreezingSchedule,
)

WHOLE = """phases:
- name: head
  start: 0
  train: [head]
- name: top
  start: {plateau: eval_loss, patience: 2, min_delta: 0.01, mode: min, at_most: {epoch: 3}}
  train: [head, layer.11]
  sample: {groups: [layer.*], count: 2, every: 5, seed: 1}
  warmup_steps: 50
  learning_rate_scale: 0.5
  stop: {plateau: eval_f1, patience: 3}
- name: all
  start: {fraction: 0.75}
  train: ['*']
keep_frozen: [embeddings]
"""
ODD = (
    *(
        "&a [*a]",
        "!!bool x",
        "!!int ''",
        "!!timestamp 2024-99-99",
        "!!binary x",
        "!!python/name:os.system ''",
        "? [a]",
    ),
    *(
        "<<: 1",
        "? {a: b}\n: c",
        "2024-01-01",
        "1:99",
        "0x",
        ".nan",
        ".inf",
        "1e400",
        "~",
        "- - -",
        "{",
        "]",
        "%",
        "---",
    ),
)
named = st.builds("{}{}".format, st.sampled_from(STRANGE), strange_text)
amounts = st.integers(1, 10**6).map(Step) | st.floats(1e-9, 1e6).map(Epoch) | st.floats(1e-9, 1).map(Fraction)
plateaus = st.builds(
    Plateau,
    metric=named,
    patience=st.integers(1, 99),
    min_delta=st.floats(0, 1e9),
    mode=st.sampled_from(["min", "max", None]),
    at_most=st.none() | amounts,
)
groups = st.lists(named, min_size=1, max_size=3).map(tuple)
samples = st.builds(LayerSample, groups, st.integers(1, 9), st.integers(1, 99), st.integers())
phases = st.builds(
    Phase,
    name=named,
    train=groups,
    start=amounts | plateaus,
    sample=st.none() | samples,
    learning_rate_scale=st.floats(1e-9, 1e9),
    warmup_steps=st.integers(0, 1000) | st.floats(0, 0.99),
    stop=st.none() | plateaus,
)


def schedule_of(parts):
    return UnfreezingSchedule((replace(parts[0], start=Step(0)), *parts[1:]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("schedules")


@given(schedule=st.lists(phases, min_size=1, max_size=2, unique_by=lambda phase: phase.name).map(schedule_of))
def test_what_is_written_is_read_back_the_same(folder, schedule):
    write_schedule(schedule, folder / "whole.yaml")
    assert read_schedule(folder / "whole.yaml") == schedule


@st.composite
def odd_files(draw):
    lines = WHOLE.split("\n")
    place = draw(st.integers(0, len(lines) - 1))
    key, colon, _ = lines[place].partition(":")
    lines[place] = f"{key}{colon} {draw(st.sampled_from(ODD) | strange_text)}"
    return "\n".join(lines).encode()


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@given(content=damaged_text(WHOLE) | odd_files())
@example(content=f"{BOMB}phases: *i\n".encode())
@example(content=b"phases: [{name: a, train: [a], ? [b] : c}]")
def test_any_file_is_read_or_refused_by_name(folder, content):
    path = put(folder, "any.yaml", content)
    refused(read_schedule, path, naming=path)
