"""An exported folder loads with `trust_remote_code=True` in a process where the package cannot be imported."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertModel, BertTokenizer

from hf_nlpnotes.models.chinesebert.convert_chinesebert import export_remote_code

TEXTS = ["我喜欢猫", "银行行长出战，重庆下文 a1"]
TASKS = ["MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice"]

ELSEWHERE = """
import sys

class Blocker:  # as if the package were not installed
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hf_nlpnotes":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
try:
    import hf_nlpnotes
except ModuleNotFoundError:
    pass
else:
    sys.exit("the package can be imported")

import json
import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModel, AutoTokenizer

folder, results = sys.argv[1:3]
torch.set_num_threads(1)
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
inputs = tokenizer(json.loads(sys.argv[3]), padding=True, return_tensors="pt")
found = {key: value.numpy() for key, value in inputs.items()} | {"pinyin_table": tokenizer.pinyin_table}
with torch.no_grad():
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    found["last_hidden_state"] = model(**inputs).last_hidden_state.numpy()
    for task in sys.argv[4:]:
        head = getattr(transformers, f"AutoModelFor{task}").from_pretrained(folder, trust_remote_code=True).eval()
        assert type(head).__module__.startswith("transformers_modules."), type(head).__module__
        batch = {key: value[None] for key, value in inputs.items()} if task == "MultipleChoice" else inputs
        output = head(**batch)
        if task == "MaskedLM":
            found["logits"] = output.logits.numpy()
for thing in (config, tokenizer, model):
    assert type(thing).__module__.startswith("transformers_modules."), type(thing).__module__
np.savez(results, **found)
head.save_pretrained(folder + "-again")
tokenizer.save_pretrained(folder + "-again")
again = AutoModel.from_pretrained(folder + "-again", trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained(folder + "-again", trust_remote_code=True)
inputs = tokenizer(json.loads(sys.argv[3]), padding=True, return_tensors="pt")
with torch.no_grad():
    assert torch.equal(again(**inputs).last_hidden_state, torch.from_numpy(found["last_hidden_state"]))
assert "hf_nlpnotes" not in sys.modules
"""


def run_elsewhere(folder: Path, results: Path, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "error::UserWarning"}
    command = [sys.executable, "-c", ELSEWHERE, str(folder), str(results), json.dumps(TEXTS), *TASKS]
    return subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False)


def test_loads_where_the_package_is_absent(tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
    tokenizer.add_phrases({"下文": ["xia4", "wen4"]})
    model = AutoModelForMaskedLM.from_pretrained(tiny_chinesebert_folder)
    model.save_pretrained(tmp_path / "source")
    tokenizer.save_pretrained(tmp_path / "source")
    exported = export_remote_code(model, tokenizer, tmp_path / "exported")
    copied = export_remote_code(tmp_path / "source", None, tmp_path / "copied")
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == {
        path.name: path.read_bytes() for path in copied.iterdir()
    }

    done = run_elsewhere(exported, tmp_path / "results.npz", tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    found = np.load(tmp_path / "results.npz")
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    for name, value in inputs.items():
        np.testing.assert_array_equal(found[name], value.numpy())
    np.testing.assert_array_equal(found["pinyin_table"], tokenizer.pinyin_table)
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(tmp_path / "source").eval()(**inputs).last_hidden_state
        logits = AutoModelForMaskedLM.from_pretrained(tmp_path / "source").eval()(**inputs).logits
    np.testing.assert_allclose(found["last_hidden_state"], hidden.numpy(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["logits"], logits.numpy(), rtol=0, atol=1e-6)


def test_the_package_loads_an_exported_folder_by_its_own_classes(
    tiny_chinesebert_folder: Path, tmp_path: Path
) -> None:
    exported = export_remote_code(tiny_chinesebert_folder, None, tmp_path / "exported")
    assert type(AutoTokenizer.from_pretrained(exported)).__module__.startswith("hf_nlpnotes.")
    for trust in (False, True):
        model = AutoModel.from_pretrained(exported, trust_remote_code=trust)
        assert type(model).__module__.startswith("hf_nlpnotes.")


def test_every_exported_module_finds_its_neighbours(tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    exported = export_remote_code(tiny_chinesebert_folder, None, tmp_path / "exported")
    modules = {path.stem: path.read_text(encoding="utf-8") for path in exported.glob("*.py")}
    assert {"configuration_chinesebert", "modeling_chinesebert", "tokenization_chinesebert"} <= modules.keys()
    for name, text in modules.items():
        imports = re.findall(r"^\s*(?:from|import)\s+(\S+)", text, flags=re.MULTILINE)
        assert not [module for module in imports if module.startswith("hf_nlpnotes")], name
        assert {module[1:] for module in imports if re.fullmatch(r"\.\w+", module)} <= modules.keys(), name


def test_what_is_no_chinesebert_is_refused(tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "exported"
    config = BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    bert = BertModel(config)
    with pytest.raises(TypeError, match="got a BertModel"):
        export_remote_code(bert, None, target)
    bert.save_pretrained(tmp_path / "bert")
    with pytest.raises(TypeError, match="model_type 'bert'"):
        export_remote_code(tmp_path / "bert", None, target)
    plain = BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4})
    with pytest.raises(TypeError, match="expected a ChineseBertTokenizer"):
        export_remote_code(tiny_chinesebert_folder, plain, target)
    with pytest.raises(FileNotFoundError, match=r"there is no config\.json"):
        export_remote_code(tmp_path / "nowhere", None, target)
    with pytest.raises(FileNotFoundError, match=r"no tokenizer_config\.json"):
        export_remote_code(AutoModel.from_pretrained(tiny_chinesebert_folder), None, target)
    assert {path.name for path in tmp_path.iterdir()} == {"bert"}


def test_an_existing_folder_is_kept_unless_overwrite(tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    target = export_remote_code(tiny_chinesebert_folder, None, tmp_path / "exported")
    with pytest.raises(FileExistsError, match="not empty"):
        export_remote_code(tiny_chinesebert_folder, None, target)
    export_remote_code(tiny_chinesebert_folder, None, target, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]
