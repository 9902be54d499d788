"""The example: from text files to a folder that the Auto classes load, on from one, and on after a kill."""

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from datasets import load_from_disk
from safetensors import safe_open
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

pytest.importorskip("jieba")
EXAMPLE = Path(__file__).parents[2] / "examples" / "pretrain_chinesebert.py"
SCRATCH = [
    "--layers", "1", "--hidden_size", "256", "--length", "32", "--vocab_size", "400", "--neighbour_steps", "40",
    "--attention_steps", "20",
]  # fmt: skip
COMMON = [
    "--per_device_train_batch_size", "16", "--save_steps", "5", "--eval_steps", "5", "--logging_steps", "5",
    "--bf16", "false", "--use_cpu", "true", "--disable_tqdm", "true",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Runs are compared bit for bit, and sums depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("pretrain_chinesebert", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["pretrain_chinesebert"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["pretrain_chinesebert"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    rng = random.Random(0)
    subjects, verbs, objects = ("我", "你", "老师", "学生"), ("喜欢", "看见", "想念"), ("猫", "北京", "电影", "音乐")
    lines = [
        f"{rng.choice(subjects)}{rng.choice(verbs)}{rng.choice(objects)}，第{i}次也{rng.choice(verbs)}。"
        for i in range(2500)
    ]
    (folder / "made.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "other.txt").write_text("\n".join(f"明天我们去公园看花{i}" for i in range(400)), encoding="utf-8")
    source = {"source": "made", "repo": "made/up", "licence": "CC0-1.0", "topic": "sentences", "chars": 60_000}
    (folder / "manifest.json").write_text(json.dumps([source]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def scratch(example, texts, tmp_path_factory):
    """Options of a run from scratch, and its model's folder."""
    folder = tmp_path_factory.mktemp("scratch") / "model"
    options = [
        "--data", str(texts), "--output_dir", str(folder), *SCRATCH, *COMMON, "--max_steps", "12", "--manifest",
        str(texts / "manifest.json"), "--thin", "other=0.5", "--negatives", "64", "--warmup_steps", "2",
    ]  # fmt: skip
    example.main(options)
    return options, folder


def weights(folder):
    return {name: tensor.clone() for name, tensor in AutoModelForMaskedLM.from_pretrained(folder).state_dict().items()}


def test_from_text_to_a_model_that_every_auto_class_loads(scratch):
    _, folder = scratch
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == "chinesebert"
    assert model.config.architectures == ["ChineseBertForMaskedLM"]
    assert model.dtype == torch.float32
    with safe_open(folder / "model.safetensors", framework="pt") as archive:
        assert archive.get_tensor("cls.predictions.bias").dtype == torch.float16
    batch = tokenizer("我喜[MASK]猫", return_tensors="pt")
    with torch.no_grad():
        guess = model(**batch).logits[0, 3].argmax()
    assert tokenizer.convert_ids_to_tokens(int(guess)) == "欢"
    for kind in (AutoModel, AutoModelForSequenceClassification):
        assert kind.from_pretrained(folder)(**batch)[0].isfinite().all()
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "made/up" in card
    for stage in ("neighbours", "attention", "masked language modelling"):
        assert f"| {stage} |" in card
    assert not list(folder.parent.glob(".*"))  # nothing half-written beside it


def test_a_finished_run_trains_no_more(example, scratch):
    options, folder = scratch
    before = weights(folder)
    done = folder.with_name("model.work") / "masked-language-modelling" / "done"
    written = (done / "model.safetensors").stat().st_mtime_ns
    example.main(options)
    assert (done / "model.safetensors").stat().st_mtime_ns == written
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(folder).items())


def test_goes_on_after_a_kill_to_the_same_weights(example, scratch, tmp_path):
    """Killed while it wrote checkpoint 10: it goes on from 5, in the middle of the epoch, bit for bit."""
    options, folder = scratch
    work = shutil.copytree(folder.with_name("model.work"), tmp_path / "model.work")
    stage = work / "masked-language-modelling"
    assert sorted(path.name for path in stage.iterdir()) == ["checkpoint-10", "checkpoint-12", "done"]
    for name in ("done", "checkpoint-12"):
        shutil.rmtree(stage / name)
    shutil.copytree(stage / "checkpoint-10", stage / "checkpoint-11")
    (stage / "checkpoint-11" / "trainer_state.json").unlink()
    again = list(options)
    again[again.index("--output_dir") + 1] = str(tmp_path / "model")
    example.main(again)
    before = weights(folder)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(tmp_path / "model").items())
    history = json.loads((stage / "done" / "log_history.json").read_text(encoding="utf-8"))
    assert [entry["step"] for entry in history if "eval_single" in entry][:2] == [5, 10]


@pytest.mark.slow
def test_killed_at_any_time_nothing_is_lost(scratch, texts, tmp_path):
    """A real SIGKILL after the first checkpoint, then the same command again."""
    options, folder = scratch
    again = [str(part) for part in options]
    again[again.index("--output_dir") + 1] = str(tmp_path / "model")
    command = [sys.executable, str(EXAMPLE), *again]
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=alone, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stage = tmp_path / "model.work" / "masked-language-modelling"
    while not (stage / "checkpoint-5").exists():
        assert process.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "model").exists()
    subprocess.run(command, env=alone, check=True, capture_output=True, timeout=300)
    before = weights(folder)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(tmp_path / "model").items())


def test_on_from_a_model_on_text_of_ones_own(example, scratch, texts, tmp_path):
    _, start = scratch
    evaluation = tmp_path / "test.txt"
    kept_out = (texts / "made.txt").read_text(encoding="utf-8").splitlines()[:300]
    evaluation.write_text("\n".join(kept_out), encoding="utf-8")
    further = tmp_path / "further"
    example.main([
        "--data", str(texts / "made.txt"), "--model_name_or_path", str(start), "--output_dir", str(further),
        *COMMON, "--length", "32", "--max_steps", "4", "--learning_rate", "0.01", "--warmup_steps", "0", "--exclude",
        str(evaluation),
        "--segmenter", "none",
    ])  # fmt: skip
    assert AutoTokenizer.from_pretrained(further).get_vocab() == AutoTokenizer.from_pretrained(start).get_vocab()
    old, new = weights(start), weights(further)
    glyphs = "bert.embeddings.glyph_embeddings.embedding.weight"
    assert torch.equal(old[glyphs], new[glyphs])
    assert not torch.equal(old["cls.predictions.bias"], new["cls.predictions.bias"])
    card = (further / "README.md").read_text(encoding="utf-8")
    assert "Evaluation text that was kept out" in card
    assert "300" in card[card.index("evaluation file") :]
    (rows,) = (tmp_path / "further.work").glob("rows-*")
    tokenizer = AutoTokenizer.from_pretrained(start)
    texts_of_rows = ("".join(tokenizer.convert_ids_to_tokens(ids)) for ids in load_from_disk(rows)["input_ids"])
    text = "\n".join(texts_of_rows).replace("##", "")
    assert not any(f"第{i}次也" in text for i in range(300))  # the numbers of the lines that were kept out
    assert "第1234次也" in text


def test_streams(example, scratch, texts, tmp_path):
    """Seven steps on a text that is over after four."""
    _, start = scratch
    short = tmp_path / "short.txt"
    short.write_text("\n".join((texts / "made.txt").read_text(encoding="utf-8").splitlines()[:120]), encoding="utf-8")
    options = [
        "--data", str(short), "--model_name_or_path", str(start), "--output_dir",
        str(tmp_path / "model"), *COMMON,
        "--length", "32", "--max_steps", "7", "--streaming", "true", "--held_out_lines", "20",
    ]  # fmt: skip
    example.main(options)
    assert "Streamed text" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    before = weights(tmp_path / "model")
    stage = tmp_path / "model.work" / "masked-language-modelling"
    for name in ("done", "checkpoint-7"):
        shutil.rmtree(stage / name)
    example.main(options)  # goes on from step 5, where the text has begun anew
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(tmp_path / "model").items())


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("hello world, no Han here\n" * 50, [], "Han"),
        ("我喜欢猫\n" * 50, ["--streaming", "true", "--max_steps", "2"], "--model_name_or_path"),
        ("我喜欢猫\n" * 50, ["--segmenter", "words"], "jieba or none"),
        ("", [], "nothing but blanks"),
    ],
)
def test_what_cannot_work_is_said(example, text, options, message, tmp_path):
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    with pytest.raises((SystemExit, ValueError), match=message):
        example.main(
            ["--data", str(tmp_path / "text.txt"), "--output_dir", str(tmp_path / "model"), *COMMON, *options]
        )
    assert not (tmp_path / "model").exists()


def test_files_of_others_are_not_replaced(example, texts, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("the only copy", encoding="utf-8")
    with pytest.raises(SystemExit, match="holds other files"):
        example.main(["--data", str(texts), "--output_dir", str(tmp_path / "model"), *COMMON])
    assert (tmp_path / "model" / "thesis.txt").read_text(encoding="utf-8") == "the only copy"


def test_a_work_folder_is_of_one_run_and_claimed_by_none_that_failed(example, scratch, tmp_path):
    options, _ = scratch
    with pytest.raises(SystemExit, match="max_steps was '12' and is '13'"):
        example.main([*options, "--max_steps", "13"])
    (tmp_path / "text.txt").write_bytes(("我喜欢猫和狗\n" * 50).encode("gb18030"))
    command = ["--data", str(tmp_path / "text.txt"), "--output_dir", str(tmp_path / "model"), *COMMON]
    with pytest.raises(SystemExit, match="gb18030"):
        example.main(command)
    assert not (tmp_path / "model.work" / "options.json").exists()
