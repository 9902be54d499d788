"""Memory stays flat over many calls with ever new texts. `endurance.py` does the same with thousands of calls."""

import ast
import gc
import importlib.util
import tracemalloc
from pathlib import Path

import pytest
from transformers import AutoTokenizer
from transformers.utils import logging

import hf_nlpnotes
from hf_nlpnotes.tagging import schemes

SOURCE = Path(hf_nlpnotes.__file__).parent


@pytest.fixture(scope="module")
def endurance():
    """The script beside this file."""
    spec = importlib.util.spec_from_file_location("endurance", Path(__file__).with_name("endurance.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def calls(endurance, tiny_chinesebert_folder):
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # the heads are random, and transformers says so at length
    made = endurance.subjects(tiny_chinesebert_folder)
    logging.set_verbosity(verbosity)
    return made


NAMES = ("tokenizer", "zero-shot-prompt", "question-answering", "sequence-tagging", "attention page")


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_flat(endurance, calls, name):
    texts = endurance.new_texts(30)
    for _ in range(5):
        calls[name](next(texts))
    sizes = []
    tracemalloc.start()
    for _ in range(2):
        for _ in range(5):
            calls[name](next(texts))
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[1] - sizes[0] < 15_000  # bytes in five calls: tensors or windows that are kept would be more


def test_a_leak_would_be_seen(endurance, tiny_chinesebert_folder):
    tokenizer, kept = AutoTokenizer.from_pretrained(tiny_chinesebert_folder), []
    python, _ = endurance.memory_growth(lambda text: kept.append((text, tokenizer(text), bytearray(2000))), 40)
    assert python > 0.06


def test_new_texts_never_come_twice(endurance):
    texts = endurance.new_texts(30)
    assert len({next(texts) for _ in range(5000)}) == 5000


def test_a_cache_of_users_tags_has_an_end():
    for number in range((1 << 14) + 100):
        schemes.parse_tag(f"B-{number}")
    assert schemes._parse.cache_info().currsize == 1 << 14


def endless_caches(path):
    """Functions with arguments whose results are kept for ever."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for decorator in getattr(node, "decorator_list", []):
            text = ast.unparse(decorator)
            if text.split(".")[-1] == "cache" or "maxsize=None" in text:
                yield from [node.name] if node.args.args else []


def test_no_cache_grows_with_what_users_give():
    found = {name for path in SOURCE.rglob("*.py") for name in endless_caches(path)}
    assert found == {"_strict_table"}  # of the names of the schemes
