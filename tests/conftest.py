"""What every test stands on: no network, one thread, and folders built or found once a run."""

import os

# Before any Hugging Face import: these are read when the libraries are loaded. `HF_HUB_OFFLINE=0 pytest -m hub`
# runs the tests that download.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", os.environ["HF_HUB_OFFLINE"])
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants

import hf_nlpnotes  # noqa: F401  (registers the models before any test asks for them)

torch.set_num_threads(1)

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"

# Characters of the vocabulary of the tiny checkpoint, with letters and digits as words and as word pieces.
TINY_CHARACTERS = (
    "我你他她们的是了不在有这那人大小上下来去和说要会就都也很好喜欢猫狗吃饭"
    "国足今晚出战对阵球队体育财经科技娱乐教育房产股票游戏时政社会新闻足篮赛"
    "面报道一则下文本市场银行长重庆还还音行业绩涨跌价格公司发布新手机芯片电影"
    "天气真明日早中午北京上海广州深圳学生老师校考试高考题目答案问什么谁哪里"
    "绿色妈吗马骂西安先生日本东京开心高兴难过满意差评推荐酒店服务房间干净"
    "二三四五六七八九十百千万年月"
)
TINY_PUNCTUATION = ",.!?:;()[]\"'-/，。！？：；（）《》“”、…"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests marked `hub` where the hub is out of reach by choice."""
    if not constants.HF_HUB_OFFLINE:
        return
    skip = pytest.mark.skip(reason="downloads from the hub: run with HF_HUB_OFFLINE=0")
    for item in items:
        if item.get_closest_marker("hub"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def torchrun() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return what runs a script with its arguments on two processes of this machine's CPU, and expects success."""

    def run(script: str | Path, *arguments: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
        launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
        done = subprocess.run(
            [*launcher, str(script), *map(str, arguments)],
            env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done

    return run


def tiny_vocabulary() -> list[str]:
    """Return some 300 tokens in BERT's layout: special tokens, characters, punctuation, letters, word pieces."""
    alphanumeric = "0123456789abcdefghijklmnopqrstuvwxyz"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *TINY_PUNCTUATION, *alphanumeric]
    tokens += [f"##{character}" for character in alphanumeric]
    return list(dict.fromkeys([*tokens, *TINY_CHARACTERS]))


@pytest.fixture(scope="session")
def tiny_chinesebert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random ChineseBERT masked LM of 2 layers and hidden size 32, with its tokenizer."""
    from hf_nlpnotes.models.chinesebert import ChineseBertConfig, ChineseBertForMaskedLM, ChineseBertTokenizer

    folder = tmp_path_factory.mktemp("tiny-chinesebert")
    tokens = tiny_vocabulary()
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    tokenizer = ChineseBertTokenizer(vocab=str(vocabulary))
    config = ChineseBertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        pinyin_table_size=len(tokenizer.pinyin_table),
        pinyin_embedding_size=16,
        glyph_storage="bits",
    )
    torch.manual_seed(0)
    model = ChineseBertForMaskedLM(config).eval()
    glyphs = np.random.default_rng(0).random((len(tokens), config.glyph_fonts, config.glyph_size, config.glyph_size))
    model.set_glyphs(glyphs < 0.3)
    model.set_readings(tokenizer.pinyin_table, tokenizer.default_pinyin_ids)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def shared_folder(variable: str, kind: str) -> Path:
    """Return the folder that `variable` names, else the archives of ../shared/`kind`, unpacked; skip without both."""
    named = os.environ.get(variable)
    if named:
        if not Path(named).is_dir():
            pytest.fail(f"{variable}={named} is not a folder")
        return Path(named)
    archives = sorted((SHARED / kind).glob("*.tar.xz"))
    unpack = SHARED / "unpack.py"
    if not archives or not unpack.is_file():
        pytest.skip(f"no {kind} files: {variable} is not set and {SHARED / kind} is absent")
    names = [f"{kind}/{archive.name.removesuffix('.tar.xz')}" for archive in archives]
    done = subprocess.run([sys.executable, str(unpack), *names], check=True, capture_output=True, text=True)
    return Path(done.stdout.splitlines()[0]).parent


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Return the folder with the outputs of reference programs: `chinesebert/`, `span/`."""
    return shared_folder("HF_NLPNOTES_GOLDEN", "golden")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Return the folder with real data sets: `classification/`, `ner/`, …."""
    return shared_folder("HF_NLPNOTES_DATA", "data")
