"""The example, from text files to a folder that the Auto classes load; a second call has nothing left to do."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

EXAMPLE = Path(__file__).parents[2] / "examples" / "pretrain_chinesebert.py"


@pytest.mark.slow
def test_from_text_to_model(tmp_path):
    pytest.importorskip("jieba")
    rng = random.Random(0)
    (tmp_path / "texts").mkdir()
    subjects, verbs, objects = ("我", "你", "老师", "学生"), ("喜欢", "看见", "想念"), ("猫", "北京", "电影", "音乐")
    lines = [
        f"{rng.choice(subjects)}{rng.choice(verbs)}{rng.choice(objects)}，第{i}次也{rng.choice(verbs)}。"
        for i in range(3000)
    ]
    (tmp_path / "texts" / "made.txt").write_text("\n".join(lines), encoding="utf-8")
    source = {"source": "made", "repo": "made/up", "licence": "CC0-1.0", "topic": "sentences", "chars": 60_000}
    (tmp_path / "texts" / "manifest.json").write_text(json.dumps([source]), encoding="utf-8")
    output = tmp_path / "model"
    command = [
        sys.executable, str(EXAMPLE), "--data", str(tmp_path / "texts"), "--output", str(output), "--minutes", "0.2",
        "--processes", "1", "--layers", "1", "--hidden", "256", "--tokens", "512", "--length", "32", "--float32",
        "--vocab-size", "400",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(output), AutoTokenizer.from_pretrained(output)
    assert model.config.model_type == "chinesebert"
    assert model.dtype == torch.float16
    assert "made/up" in (output / "README.md").read_text(encoding="utf-8")
    batch = tokenizer("我喜[MASK]猫", return_tensors="pt")
    with torch.no_grad():
        guess = model.float()(**batch).logits[0, 3].argmax()
    assert tokenizer.convert_ids_to_tokens(int(guess)) == "欢"
    done = (output.with_name("model.work") / "c.pt").stat().st_mtime_ns
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    assert (output.with_name("model.work") / "c.pt").stat().st_mtime_ns == done
