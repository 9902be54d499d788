"""What PEFT knows after `import hf_nlpnotes`."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import pytest
from peft import LoraConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import PeftType, constants

from hf_nlpnotes.adapters import BottleneckAdapterConfig, BottleneckAdapterModel
from hf_nlpnotes.adapters.registration import register_adapters, register_targets

TABLES = [name for name in dir(constants) if name.startswith("TRANSFORMERS_MODELS_TO_") and "MODULES" in name]

# In a process of its own, so that the enumeration is as PEFT made it before.
PROBE = """
import json
from peft.utils import PeftType, constants
tables = [name for name in dir(constants) if name.startswith("TRANSFORMERS_MODELS_TO_")]
def state():
    return {"types": [(str(kind), kind.value) for kind in PeftType],
            "tables": {name: {key: sorted(value) for key, value in getattr(constants, name).items()
                              if isinstance(value, list)} for name in tables}}
before = state()
import hf_nlpnotes
hf_nlpnotes.register()
print(json.dumps([before, state()]))
"""


def test_the_new_type_is_a_member_like_any_other() -> None:
    member = PeftType("BOTTLENECK_ADAPTER")
    assert member is PeftType.BOTTLENECK_ADAPTER is PeftType["BOTTLENECK_ADAPTER"]  # type: ignore[attr-defined]
    assert member in list(PeftType)
    assert (member.name, member.value, str(member)) == (
        "BOTTLENECK_ADAPTER",
        "BOTTLENECK_ADAPTER",
        str(PeftType.LORA).replace("LORA", "BOTTLENECK_ADAPTER"),
    )
    assert repr(member) == repr(PeftType.LORA).replace("LORA", "BOTTLENECK_ADAPTER")
    assert member == "BOTTLENECK_ADAPTER"
    assert {member: 1}["BOTTLENECK_ADAPTER"] == 1  # type: ignore[index]
    assert json.dumps(member) == '"BOTTLENECK_ADAPTER"'
    assert pickle.loads(pickle.dumps(member)) is copy.deepcopy(member) is member
    assert len(PeftType) == len(set(PeftType)) == len(PeftType.__members__)
    assert PEFT_TYPE_TO_CONFIG_MAPPING[member] is BottleneckAdapterConfig
    assert PEFT_TYPE_TO_TUNER_MAPPING[member] is BottleneckAdapterModel
    assert PEFT_TYPE_TO_PREFIX_MAPPING[member] == "bottleneck_adapter_"


def test_a_method_of_another_package_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    register_adapters()
    monkeypatch.setitem(PEFT_TYPE_TO_CONFIG_MAPPING, PeftType("BOTTLENECK_ADAPTER"), LoraConfig)
    with pytest.raises(RuntimeError, match=r"of another package already: peft\.tuners\.lora"):
        register_adapters()


@pytest.mark.parametrize("name", TABLES)
def test_targets_are_those_of_bert(name: str) -> None:
    table = getattr(constants, name)
    if "bert" in table:
        assert table["chinesebert"] == table["bert"]
    else:
        assert table["chinesebert"] in (["LayerNorm"], ["query", "key", "value", "dense"])


def test_own_entries_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    table = constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING
    monkeypatch.setitem(table, "chinesebert", ["mine"])
    register_targets("chinesebert")
    assert table["chinesebert"] == ["mine"]


def test_import_adds_and_changes_nothing_else() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True, text=True, timeout=120)
    before, after = json.loads(done.stdout.splitlines()[-1])
    assert after["types"][:-1] == before["types"]
    assert after["types"][-1] == ["PeftType.BOTTLENECK_ADAPTER", "BOTTLENECK_ADAPTER"]
    for name, table in after["tables"].items():
        rest = {key: value for key, value in table.items() if key in before["tables"][name]}
        assert rest == before["tables"][name]
        assert "chinesebert" in set(table) - set(rest) or not table
