"""What needs an extra names it where a package is missing; and the extra that is named brings that package."""

import re
import sys
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from packaging.requirements import Requirement
from transformers import BertTokenizer

from hf_nlpnotes import app, attention
from hf_nlpnotes.cli import main
from hf_nlpnotes.layers import ScalarMix
from hf_nlpnotes.models.chinesebert.collator_chinesebert import DataCollatorForChineseBertMaskedLM
from hf_nlpnotes.models.chinesebert.glyphs_chinesebert import render_glyphs
from hf_nlpnotes.pretraining.learning_curve import plot_learning_curves
from hf_nlpnotes.pretraining.rows import training_rows
from hf_nlpnotes.prompting.expansion import candidate_words
from hf_nlpnotes.training.unfreezing import Progress, plot_schedule

IMPORTED_AS = {"pillow": "PIL"}


def maps() -> attention.AttentionMaps:
    """One layer of one head over two tokens."""
    nothing = (None, None)
    tokens = attention.TokenSequence(("国足",), ("国", "足"), ("国", "足"), (0, 0), ((0, 1), (1, 2)), nothing, nothing)
    layer = attention.LayerAttention("layer", "encoder", np.full((1, 2, 2), 0.5, dtype=np.float32))
    return attention.AttentionMaps("Model", "bert", (layer,), tokens)


def tokenizer() -> BertTokenizer:
    return BertTokenizer(
        vocab={token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "国"])}
    )


# Package that is missing -> what asks for it, given a folder.
NEEDS: list[tuple[str, Callable[[Path], Any]]] = [
    ("matplotlib", lambda folder: ScalarMix(3).plot(folder / "mix.png")),
    ("matplotlib", lambda folder: plot_schedule(None, [], Progress(0, 1, 1), folder / "schedule.png")),
    ("matplotlib", lambda folder: plot_learning_curves({}, folder / "curve.png")),
    ("matplotlib", lambda _: attention.plot_head(maps(), 0, 0)),
    ("matplotlib", lambda _: attention.plot_heads(maps())),
    ("matplotlib", lambda _: attention.plot_rollout(maps())),
    ("scipy", lambda _: attention.attention_flow(maps())),
    ("PIL", lambda folder: render_glyphs(["国"], [folder / "font.ttf"])),
    ("jieba", lambda _: training_rows(Dataset.from_dict({"text": ["国足"], "source": ["a"]}), tokenizer())),
    ("jieba", lambda _: DataCollatorForChineseBertMaskedLM(tokenizer(), segmenter="jieba")._cut()),
    ("jieba", lambda _: candidate_words(["国足今晚出战"])),
    ("gradio", lambda _: app.build()),
    ("shtab", lambda _: main(["--print-completion", "bash"])),
]


@pytest.mark.parametrize(("package", "use"), NEEDS)
def test_the_error_names_the_extra(
    package: str,
    use: Callable[[Path], Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in {package, *(name for name in sys.modules if name.startswith(f"{package}."))}:
        monkeypatch.setitem(sys.modules, name, None)  # as Python notes what is not there
    with pytest.raises((ImportError, ValueError, SystemExit)) as raised:
        use(tmp_path)
    named = re.search(r"pip install ['\"]hf-nlpnotes\[(\w+)\]", f"{raised.value}{capsys.readouterr().err}")
    assert named, raised.value
    brought = [Requirement(line) for line in requires("hf-nlpnotes") or []]
    brought = [one for one in brought if one.marker and one.marker.evaluate({"extra": named[1]})]
    assert package in {IMPORTED_AS.get(one.name, one.name) for one in brought}
    assert list(tmp_path.iterdir()) == []
