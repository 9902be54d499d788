"""What a task gives to the Trainer: metrics against scikit-learn, heads and features against the data."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hf_nlpnotes.corpora import TaggedSentence, of_words
from hf_nlpnotes.recipes import FineTuningArguments, classification_metrics, new_tagger, sequence_tagging

WORDS = of_words(["我们", "在", "北京市"], ["N", "V", "N"])


@pytest.mark.parametrize("labels", [2, 7])
def test_classification_metrics_are_scikit_learns(labels: int) -> None:
    scores = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(labels)
    logits, gold = rng.normal(size=(50, labels)), rng.integers(0, labels - 1, 50)
    found = classification_metrics(SimpleNamespace(predictions=logits, label_ids=gold))
    assert found["accuracy"] == pytest.approx(scores.accuracy_score(gold, logits.argmax(-1)))
    assert found["macro_f1"] == pytest.approx(scores.f1_score(gold, logits.argmax(-1), average="macro"))


@pytest.mark.parametrize("crf", [True, False])
def test_a_new_tagger_knows_every_tag_and_its_units(tiny_chinesebert_folder: Path, crf: bool) -> None:
    tagger = new_tagger(str(tiny_chinesebert_folder), [WORDS], crf=crf)
    assert set(WORDS.tags) <= set(tagger.config.label2id)
    assert (tagger.config.tagging_scheme, tagger.config.tagging_units) == ("BMES", "characters")
    assert hasattr(tagger, "crf") is crf
    of_words_ = TaggedSentence(["我们", "在", "北京"], ["N", "V", "N"])
    assert new_tagger(str(tiny_chinesebert_folder), [of_words_], crf=crf).config.tagging_units == "words"


def test_a_predicate_is_marked_in_every_window(tiny_chinesebert_folder: Path) -> None:
    sentence = TaggedSentence(list("我们在北京出战"), ["O"] * 2 + ["O", "S-A", "S-A", "O", "O"], predicate=(3, 5))
    recipe = sequence_tagging(str(tiny_chinesebert_folder), [sentence], [sentence], max_length=6, overlap=2, crf=False)
    for marks, units in zip(recipe.train["token_type_ids"], recipe.train["word_units"], strict=True):
        assert marks == [int(unit in (3, 4)) for unit in units]
    assert len(recipe.train) > 1


def test_tags_and_classes_that_are_new(tiny_chinesebert_folder: Path) -> None:
    folder = str(tiny_chinesebert_folder)
    other = TaggedSentence(["我"], ["S-X"])
    with pytest.raises(ValueError, match=r"tags that those to learn from have not: \['S-X'\]"):
        sequence_tagging(folder, [WORDS], [other])
    with pytest.raises(ValueError, match="with a CRF, and this one has none"):
        new_tagger(folder, [WORDS._replace(text_class="A")], crf=False)
    known = [WORDS._replace(text_class=name) for name in "AC"]
    with pytest.raises(ValueError, match=r"the classes \['B'\]: expected some of A, C"):
        sequence_tagging(folder, known, [WORDS._replace(text_class="B")])


def test_the_arguments_are_the_stock_ones_with_other_defaults(tmp_path: Path) -> None:
    arguments = FineTuningArguments(str(tmp_path), learning_rate=1e-5, use_cpu=True)
    assert (arguments.learning_rate, arguments.num_train_epochs) == (1e-5, 4)
    assert arguments.save_strategy == "no"
