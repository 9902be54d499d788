"""What `import hf_nlpnotes` changes outside of the package: its own entries, and nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer, pipeline
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY

import hf_nlpnotes
from hf_nlpnotes.models.chinesebert import ChineseBertConfig, ChineseBertTokenizer
from hf_nlpnotes.pipelines import (
    ExtractiveQuestionAnsweringPipeline,
    QuestionAnsweringPipeline,
    ZeroShotPromptPipeline,
)

# Run in a process of its own: state before and after the import.
PROBE = """
import json, logging, os, random, sys, threading, warnings
import torch, transformers, transformers.pipelines, peft.utils.constants
from transformers.models.auto import configuration_auto, modeling_auto, tokenization_auto

def state():
    auto = [configuration_auto.CONFIG_MAPPING, tokenization_auto.TOKENIZER_MAPPING]
    auto += [getattr(modeling_auto, name) for name in sorted(dir(modeling_auto)) if name.endswith("_MAPPING")]
    try:
        answering = transformers.pipelines.check_task("question-answering")[0]
    except KeyError as error:
        answering = str(error)
    return {
        "question-answering": answering,
        "environment": dict(os.environ),
        "filters": [repr(one) for one in warnings.filters],
        "levels": {name: logging.getLogger(name).level for name in ["", "transformers", "hf_nlpnotes", "torch"]},
        "handlers": [len(logging.getLogger(name).handlers) for name in ["", "transformers", "hf_nlpnotes"]],
        "threads": [threading.active_count(), torch.get_num_threads()],
        "random": [hash(random.getstate()), torch.initial_seed()],
        "grad": [torch.is_grad_enabled(), str(torch.get_default_dtype())],
        "path": list(sys.path),
        "auto": [len(mapping._extra_content) for mapping in auto],
        "tasks": sorted(transformers.pipelines.PIPELINE_REGISTRY.get_supported_tasks()),
        "removed": sorted(getattr(transformers.pipelines, "REMOVED_TASKS", ())),
        "lora": sorted(peft.utils.constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING),
    }

before, loaded = state(), set(sys.modules)
import hf_nlpnotes
after = state()
hf_nlpnotes.register()
again = state()
optional = {"pypinyin", "jieba", "PIL", "datasets", "pandas", "sklearn", "matplotlib"}
heavy = sorted(optional & (set(sys.modules) - loaded))
print(json.dumps([before, after, again, heavy]))
"""


@pytest.fixture(scope="module")
def probe():
    done = subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True, text=True, timeout=120)
    return json.loads(done.stdout.splitlines()[-1])


def test_import_has_no_other_effect(probe):
    before, after, _, _ = probe
    changed = {name for name in before if before[name] != after[name]}
    taken_back = {"removed"} if before["removed"] else set()
    assert changed == {"auto", "tasks", "question-answering", "lora"} | taken_back
    assert set(before["removed"]) - set(after["removed"]) == ({"question-answering"} if taken_back else set())
    added_tasks = {"zero-shot-prompt", "extractive-question-answering", "question-answering", "sequence-tagging"}
    assert set(after["tasks"]) - set(before["tasks"]) == added_tasks
    assert set(after["lora"]) - set(before["lora"]) == {"chinesebert", "layer_selection", "joint_span", "crf"}
    added = [new - old for old, new in zip(before["auto"], after["auto"], strict=True)]
    # ChineseBERT: configuration, tokenizer, six classes of models; layer selection: configuration, four classes; joint
    # spans and CRF: configuration, one class each.
    assert sum(added) == 2 + 6 + 1 + 4 + 1 + 1 + 1 + 1


def test_register_is_idempotent(probe):
    _, after, again, _ = probe
    assert again == after


def test_import_loads_nothing_that_can_wait(probe):
    assert probe[3] == []


def test_auto_classes_and_peft_know_the_model(tiny_chinesebert_folder):
    assert CONFIG_MAPPING["chinesebert"] is ChineseBertConfig
    assert type(AutoConfig.from_pretrained(tiny_chinesebert_folder)) is ChineseBertConfig
    assert type(AutoTokenizer.from_pretrained(tiny_chinesebert_folder)) is ChineseBertTokenizer
    assert TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING["chinesebert"] == ["query", "value"]


def test_pipelines_run_on_the_embedded_model():
    entry = PIPELINE_REGISTRY.supported_tasks["zero-shot-prompt"]
    assert entry["impl"] is ZeroShotPromptPipeline
    assert [known.__name__ for known in entry["pt"]] == ["PromptedModel"]
    assert issubclass(entry["pt"][0], AutoModelForMaskedLM)
    assert entry["default"]["model"][0] == hf_nlpnotes.EMBEDDED_MODEL
    assert Path(hf_nlpnotes.EMBEDDED_MODEL, "config.json").is_file()


def test_transformers_refuses_tasks_that_it_removed_before_it_looks_for_them(probe):
    """What the registration takes back: where this fails, transformers has changed and there is another way."""
    before, after, _, _ = probe
    assert after["question-answering"] == "question-answering"
    if not before["removed"]:
        pytest.skip("this transformers has no table of removed tasks (5.17 has none): it knows nothing of the task")
    assert "has been removed from transformers" in before["question-answering"]


@pytest.mark.parametrize(
    ("task", "pipeline_class"),
    [
        ("extractive-question-answering", ExtractiveQuestionAnsweringPipeline),
        ("question-answering", QuestionAnsweringPipeline),
    ],
)
def test_question_answering_is_back(task, pipeline_class, tiny_chinesebert_folder, tmp_path):
    answer = pipeline(task, model=str(tiny_chinesebert_folder))
    assert type(answer) is pipeline_class
    entry = PIPELINE_REGISTRY.supported_tasks[task]
    assert entry["default"]["model"] == ("distilbert/distilbert-base-cased-distilled-squad", "564e9b5")
    answer.save_pretrained(tmp_path)
    question = {"question": "谁出战", "context": "国足今晚出战"}
    assert pipeline(task, model=str(tmp_path))(question) == answer(question)


def test_a_task_of_another_package_is_left_to_it(monkeypatch):
    theirs = {"impl": object, "pt": (), "type": "text"}
    monkeypatch.setitem(PIPELINE_REGISTRY.supported_tasks, "question-answering", theirs)
    hf_nlpnotes.register()
    assert PIPELINE_REGISTRY.supported_tasks["question-answering"] is theirs


def test_a_saved_pipeline_loads_without_trust(tiny_chinesebert_folder, tmp_path):
    classify = pipeline("zero-shot-prompt", model=str(tiny_chinesebert_folder))
    classify.save_pretrained(tmp_path)
    again = pipeline("zero-shot-prompt", model=str(tmp_path))
    labels = ["体育", "财经"]
    assert again("国足今晚出战", candidate_labels=labels) == classify("国足今晚出战", candidate_labels=labels)


def test_unknown_names_of_the_package():
    with pytest.raises(AttributeError, match="has no attribute 'NoSuchThing'"):
        _ = hf_nlpnotes.NoSuchThing
    assert set(hf_nlpnotes.__all__) <= set(dir(hf_nlpnotes))
