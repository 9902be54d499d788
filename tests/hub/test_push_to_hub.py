"""What is pushed to the hub comes back by `from_pretrained("user/name")`, to the bit."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub

WORKER = Path(__file__).with_name("pushing_worker.py")
CASES = [
    node.name
    for node in ast.parse(WORKER.read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef) and any(getattr(one, "id", "") == "case" for one in node.decorator_list)
]


@pytest.mark.parametrize("case", CASES)
def test_what_is_pushed_comes_back(case: str, pushed: dict[str, Any]) -> None:
    assert pushed[case] is None, pushed[case]


def test_a_pipeline_takes_its_prompt_along(hub: FakeHub, pushed: dict[str, Any]) -> None:
    stored = json.loads(hub.files("someone/classifier")["prompt.json"])
    assert stored == {
        "template": ["{text}这是{label}。", "{label}：{text}"],
        "verbalizer": {"体育": ["体育", "足球"], "财经": "财经"},
        "calibration": "none",
    }


def test_nothing_private_is_uploaded(hub: FakeHub, pushed: dict[str, Any]) -> None:
    """No temporary file, no optimizer, no path of this machine."""
    assert len(hub.repositories) > 20
    for name in hub.repositories:
        for file, content in hub.files(name).items():
            assert not file.startswith(".") or file == ".gitattributes", (name, file)
            assert Path(file).suffix in {"", ".json", ".md", ".py", ".safetensors", ".txt"}, (name, file)
            if file.endswith((".json", ".md")):
                assert b"/tmp/" not in content, (name, file)


class TestWithoutThePackage:
    def test_remote_code_gives_the_same(self, pushed: dict[str, Any], elsewhere: dict[str, Any]) -> None:
        assert elsewhere["modules"] == ["transformers_modules"] * 3
        assert elsewhere["logits"] == pushed["logits"]
        assert len(elsewhere["labels"]) == len(elsewhere["logits"])
        assert not elsewhere["imported"]

    @pytest.mark.parametrize(
        ("name", "model_type"),
        [("base", "chinesebert"), ("layers", "layer_selection"), ("crf", "crf"), ("spans", "joint_span")],
    )
    def test_what_needs_the_package_is_refused_by_its_model_type(
        self, name: str, model_type: str, elsewhere: dict[str, Any]
    ) -> None:
        assert f"`{model_type}`" in elsewhere["refused"][name]
