"""The example, from text files to a folder that the Auto classes load; a second call has nothing left to do."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
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
        sys.executable, str(EXAMPLE), "--data", str(tmp_path / "texts"), "--output", str(output), "--minutes", "0.15",
        "--processes", "1", "--layers", "1", "--hidden", "256", "--tokens", "512", "--length", "32", "--float32",
        "--vocab-size", "400",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(output), AutoTokenizer.from_pretrained(output)
    assert model.config.model_type == "chinesebert"
    assert model.dtype == torch.float32
    with safe_open(output / "model.safetensors", framework="pt") as archive:
        assert archive.get_tensor("cls.predictions.bias").dtype == torch.float16
    assert "made/up" in (output / "README.md").read_text(encoding="utf-8")
    batch = tokenizer("我喜[MASK]猫", return_tensors="pt")
    with torch.no_grad():
        guess = model(**batch).logits[0, 3].argmax()
    assert tokenizer.convert_ids_to_tokens(int(guess)) == "欢"
    # A second call has nothing left to do.
    done = (output.with_name("model.work") / "c.pt").stat().st_mtime_ns
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    assert (output.with_name("model.work") / "c.pt").stat().st_mtime_ns == done
    # And going on from it leaves vocabulary and bitmaps as they are.
    further = tmp_path / "further"
    command[command.index("--output") + 1] = str(further)
    command[command.index("--minutes") + 1] = "0.05"
    subprocess.run([*command, "--start", str(output)], check=True, capture_output=True, text=True, timeout=300)
    assert AutoTokenizer.from_pretrained(further).get_vocab() == tokenizer.get_vocab()
    again = AutoModelForMaskedLM.from_pretrained(further)
    assert torch.equal(again.bert.embeddings.glyph_embeddings.embedding.weight,
                       model.bert.embeddings.glyph_embeddings.embedding.weight)  # fmt: skip
    assert not torch.equal(again.cls.predictions.bias, model.cls.predictions.bias)
    assert "It went on from" in (further / "README.md").read_text(encoding="utf-8")
