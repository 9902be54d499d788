"""`prompt.json`: what it holds, that it is whole, and what its errors say."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_nlpnotes.prompting import Template, Verbalizer
from hf_nlpnotes.prompting.config import PROMPT_FILE, PromptConfig

TEMPLATE = "{text}总之是{label}。"
WORDS: dict[str, Any] = {"好评": ["好", "不错"], "差评": "差"}

FULL: dict[str, Any] = {
    "template": {TEMPLATE: 2.0, "{label}评：{text}": 1.0},
    "verbalizer": {"好评": {"好": 2, "不错": 1}, "差评": "差"},
    "demonstrations": [{"text": "很好", "label": "好评"}],
    "calibration": "prior",
    "calibration_texts": ["N/A", {"text": "。"}],
    "label_prior": {"好评": 0.3, "差评": 0.7},
    "prior_weight": 0.25,
    "scoring": "parallel",
    "rerank": 2,
    "max_length": 64,
    "bias": {"好评": 0.1, "差评": -0.1},
    "model": "some/model",
}


@pytest.mark.parametrize(
    "values",
    [{"template": TEMPLATE}, {"template": [TEMPLATE, "{label}评：{text}"], "verbalizer": WORDS}, FULL],
)
def test_what_is_saved_is_what_is_read(values: dict[str, Any], tmp_path: Path) -> None:
    config = PromptConfig(**values)
    assert config.save_pretrained(tmp_path / "new" / "folder") == (str(tmp_path / "new" / "folder" / PROMPT_FILE),)
    assert PromptConfig.from_pretrained(tmp_path / "new" / "folder") == config
    # One readable object with what was given and nothing else.
    written = (tmp_path / "new" / "folder" / PROMPT_FILE).read_text(encoding="utf-8")
    assert json.loads(written) == values
    assert "总之是" in written


def test_other_kinds_of_values_are_stored_as_json(tmp_path: Path) -> None:
    config = PromptConfig(
        template=Template(TEMPLATE),
        verbalizer=Verbalizer.of({"a": {"x": 3, "y": 1}, "b": ("z", "w"), "c": "c"}),
        bias=torch.tensor([1.0, 2.0, 3.0]),
        label_prior=[1, 1, 2],
    )
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / PROMPT_FILE).read_text(encoding="utf-8")) == {
        "template": TEMPLATE,
        "verbalizer": {"a": {"x": 0.75, "y": 0.25}, "b": ["z", "w"], "c": "c"},
        "label_prior": {"a": 1.0, "b": 1.0, "c": 2.0},
        "bias": {"a": 1.0, "b": 2.0, "c": 3.0},
    }
    assert PromptConfig.from_pretrained(tmp_path) == config


def test_parts_of_a_prompt() -> None:
    config = PromptConfig(**FULL)
    assert [template.source for template, _ in config.templates] == [TEMPLATE, "{label}评：{text}"]
    assert [weight for _, weight in config.templates] == pytest.approx([2 / 3, 1 / 3])
    assert config.labels == ("好评", "差评")
    assert config.columns == ("text",)
    assert config.words == Verbalizer.of(FULL["verbalizer"])
    assert config.bias_tensor().tolist() == [0.1, -0.1]
    assert config.replace(bias=None).bias_tensor().tolist() == [0, 0]
    assert PromptConfig(template=["{b}{label}{a}", "{label}{c}"]).columns == ("b", "a", "c")


def test_demonstrations_are_kept_with_the_names_of_their_labels() -> None:
    rows = [{"text": "很好", "label": 0, "id": 7}, {"text": "不好", "label": "差评"}]
    config = PromptConfig(template=TEMPLATE, verbalizer=WORDS, demonstrations=iter(rows))
    assert config.demonstrations == [{"text": "很好", "label": "好评"}, {"text": "不好", "label": "差评"}]


def test_a_label_list_verbalizes_itself() -> None:
    assert PromptConfig(template=TEMPLATE, verbalizer=["体育", "财经"]).verbalizer == {"体育": "体育", "财经": "财经"}


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = PromptConfig(template=TEMPLATE)
    old.save_pretrained(tmp_path)

    def fail(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="full"):
        PromptConfig(template="{label}：{text}").save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [PROMPT_FILE]
    assert PromptConfig.from_pretrained(tmp_path) == old


def test_other_files_of_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    PromptConfig(template=TEMPLATE).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == b"weights"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", PROMPT_FILE]
    assert PromptConfig.is_in(tmp_path)
    assert not PromptConfig.is_in(tmp_path / "model.safetensors")


def test_pushing_uploads_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stock mixin does the upload; what it would upload is seen at its last step."""
    uploads: list[tuple[str, str]] = []

    class Hub:
        def create_repo(self, repo_id: str, **_: Any) -> Any:
            return type("Url", (), {"repo_id": repo_id, "url": repo_id})

        def create_commit(self, repo_id: str, operations: list[Any], **_: Any) -> None:
            for operation in operations:
                content = operation.path_or_fileobj
                text = Path(content).read_text(encoding="utf-8") if isinstance(content, str) else str(content)
                uploads.append((operation.path_in_repo, text))

    monkeypatch.setattr("transformers.utils.hub.hf_api", Hub)
    monkeypatch.setattr("transformers.utils.hub.create_and_tag_model_card", lambda *_, **__: Card())
    config = PromptConfig(template=TEMPLATE, verbalizer=WORDS)
    config.push_to_hub("someone/something")
    assert json.loads(dict(uploads)[PROMPT_FILE]) == config.to_dict()


class Card:
    """Stands for a model card."""

    def save(self, path: str) -> None:
        """Write nothing worth reading."""
        Path(path).write_text("card", encoding="utf-8")


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"template": "{text}"}, ValueError, r"No '\{label\}'"),
        ({"template": []}, ValueError, "no template: give at least one"),
        ({"template": [TEMPLATE, TEMPLATE]}, ValueError, "twice: give it a weight"),
        ({"template": {TEMPLATE: 0}}, ValueError, "must be positive, got 0"),
        ({"template": {TEMPLATE: "1"}}, TypeError, "must be a number, got '1'"),
        ({"template": 3}, TypeError, "a list of strings or"),
        ({"verbalizer": {"a": []}}, ValueError, "'a' has no words"),
        ({"verbalizer": {"a": ""}}, ValueError, "empty word"),
        ({"verbalizer": ["a", "a"]}, ValueError, "'a' is given twice"),
        ({"calibration": "magic"}, ValueError, "must be one of none, contextual, .*'magic'"),
        ({"calibration_texts": "N/A"}, ValueError, "a list of texts"),
        ({"calibration_texts": []}, ValueError, "at least one"),
        ({"calibration_texts": [3]}, TypeError, "holds 3"),
        ({"label_prior": [1, 1]}, ValueError, "no labels: give a verbalizer"),
        ({"verbalizer": WORDS, "label_prior": [1]}, ValueError, "1 numbers for the 2 labels"),
        ({"verbalizer": WORDS, "label_prior": {"好评": 1, "中评": 1}}, ValueError, "中评"),
        ({"verbalizer": WORDS, "label_prior": [0, 1]}, ValueError, "must be positive"),
        ({"verbalizer": WORDS, "bias": [None, 1]}, TypeError, "must be a number, got None"),
        ({"verbalizer": WORDS, "bias": [float("nan"), 1]}, ValueError, "finite number"),
        ({"verbalizer": WORDS, "bias": 3}, TypeError, "a list of numbers or"),
        ({"prior_weight": -1}, ValueError, "at least 0, got -1"),
        ({"prior_weight": True}, TypeError, "must be a number"),
        ({"max_length": 0}, ValueError, "positive whole number, got 0"),
        ({"max_length": 12.0}, ValueError, "positive whole number"),
        ({"demonstrations": []}, ValueError, "at least one, got none"),
        ({"demonstrations": "a"}, TypeError, "a list of examples, got 'a'"),
        ({"demonstrations": ["a"]}, TypeError, "number 0 is a mapping"),
        ({"demonstrations": [{"text": "a"}]}, ValueError, "number 0 has no 'label', only the columns"),
        ({"demonstrations": [{"text": 3, "label": "a"}]}, TypeError, "number 0 has 3 as its 'text'"),
        ({"demonstrations": [{"text": "a", "label": 0}]}, TypeError, "number 0 has 0 as its 'label'"),
        (
            {"verbalizer": WORDS, "demonstrations": [{"text": "a", "label": 2}]},
            ValueError,
            "label 2, which is none of .*nor the number",
        ),
        ({"rerank": 0}, ValueError, "rerank must be a positive whole number, got 0"),
        ({"rerank": True}, ValueError, "positive whole number"),
        ({"scoring": ""}, ValueError, "scoring must be one of parallel, left-to-right, max-first, got ''"),
        ({"scoring": "left to right"}, ValueError, "scoring must be one of parallel"),
        ({"model": 3}, ValueError, "model must be a name"),
    ],
)
def test_bad_values(values: dict[str, Any], error: type[Exception], message: str, tmp_path: Path) -> None:
    values = {"template": TEMPLATE, **values}
    with pytest.raises(error, match=message):
        PromptConfig(**values)
    # In a file the same is said, and which file.
    (tmp_path / PROMPT_FILE).write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(error, match=rf"(?s){PROMPT_FILE}.*{message}"):
        PromptConfig.from_pretrained(tmp_path)


def test_a_byte_order_mark_is_no_part_of_the_prompt(tmp_path: Path) -> None:
    (tmp_path / PROMPT_FILE).write_text('{"template": "{label}{text}"}', encoding="utf-8-sig")
    assert PromptConfig.from_pretrained(tmp_path) == PromptConfig(template="{label}{text}")


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (
            lambda path: path.write_text('{"template": "{label}{text}", "verbaliser": {}}'),
            ValueError,
            "'verbaliser'.*verbalizer",
        ),
        (lambda path: path.write_text("{}"), ValueError, "has no template: add"),
        (lambda path: path.write_text("[]"), ValueError, "holds a list, expected one JSON object"),
        (lambda path: path.write_text('{"template": '), ValueError, "cannot be read as JSON"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), ValueError, "cannot be read as JSON"),
        (lambda path: path.exists(), OSError, PROMPT_FILE),
    ],
)
def test_bad_files(write: Callable[[Path], Any], error: type[Exception], message: str, tmp_path: Path) -> None:
    write(tmp_path / PROMPT_FILE)
    with pytest.raises(error, match=message):
        PromptConfig.from_pretrained(tmp_path)
