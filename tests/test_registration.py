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
from hf_nlpnotes.pipelines import ZeroShotPromptPipeline

# Run in a process of its own: state before and after the import.
PROBE = """
import json, logging, os, random, sys, threading, warnings
import torch, transformers, transformers.pipelines, peft.utils.constants
from transformers.models.auto import configuration_auto, modeling_auto, tokenization_auto

def state():
    auto = [configuration_auto.CONFIG_MAPPING, tokenization_auto.TOKENIZER_MAPPING]
    auto += [getattr(modeling_auto, name) for name in sorted(dir(modeling_auto)) if name.endswith("_MAPPING")]
    return {
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
    assert changed == {"auto", "tasks", "lora"}
    assert set(after["tasks"]) - set(before["tasks"]) == {"zero-shot-prompt"}
    assert set(after["lora"]) - set(before["lora"]) == {"chinesebert", "layer_selection"}
    added = [new - old for old, new in zip(before["auto"], after["auto"], strict=True)]
    # ChineseBERT: configuration, tokenizer, six classes of models; layer selection: configuration, four classes.
    assert sum(added) == 2 + 6 + 1 + 4


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
    assert entry["pt"] == (AutoModelForMaskedLM,)
    assert entry["default"]["model"][0] == hf_nlpnotes.EMBEDDED_MODEL
    assert Path(hf_nlpnotes.EMBEDDED_MODEL, "config.json").is_file()


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
