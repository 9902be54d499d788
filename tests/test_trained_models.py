"""`load_trained`: what has learnt the task, also as an adapter; everything else is refused in words."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForTokenClassification, BertModel, BertTokenizer

from hf_nlpnotes._trained_models import head_of, load_trained

of_adapters = pytest.mark.skipif(
    transformers.__version__.startswith("5.17."), reason="it leaves an adapter's head at random values, and is refused"
)
SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"国足今晚出战"]


def tagger(**options: Any) -> BertForTokenClassification:
    torch.manual_seed(0)
    return BertForTokenClassification(BertConfig(**SIZES, intermediate_size=16, **options))


def load(folder: Path) -> tuple[Any, Any]:
    return load_trained("TokenClassification", str(folder), work="tag", way_out="train one")


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    folder = tmp_path / "encoder"
    BertModel(BertConfig(**SIZES, intermediate_size=16)).save_pretrained(folder)
    BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


def save_adapter(encoder: Path, folder: Path, labels: int) -> Any:
    base = BertForTokenClassification.from_pretrained(encoder, num_labels=labels)
    adapted: Any = get_peft_model(base, LoraConfig(task_type="TOKEN_CLS", target_modules=["query"]))
    adapted.save_pretrained(folder)
    BertTokenizer.from_pretrained(encoder).save_pretrained(folder)
    return adapted.eval()


def test_a_model_and_its_tokenizer(encoder: Path, tmp_path: Path) -> None:
    trained = tagger()
    trained.save_pretrained(tmp_path / "tagger")
    BertTokenizer.from_pretrained(encoder).save_pretrained(tmp_path / "tagger")
    model, tokenizer = load(tmp_path / "tagger")
    assert torch.equal(model.classifier.weight, trained.classifier.weight)
    assert tokenizer("国足")["input_ids"] == [2, 5, 6, 3]


@of_adapters
def test_an_adapter_with_its_head(encoder: Path, tmp_path: Path) -> None:
    adapted = save_adapter(encoder, tmp_path / "adapter", labels=2)
    assert head_of(str(tmp_path / "adapter")) is None, "its own configuration says nothing of it"
    model, tokenizer = load(tmp_path / "adapter")
    inputs = tokenizer("国足今晚", return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, adapted(**inputs).logits)


@of_adapters
def test_an_adapter_does_not_know_its_labels(encoder: Path, tmp_path: Path) -> None:
    save_adapter(encoder, tmp_path / "adapter", labels=3)
    with pytest.raises(ValueError, match=r"another number of labels than its base model.*merge the two"):
        load(tmp_path / "adapter")


def test_other_heads_are_refused(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="was not trained to tag: it is an encoder without a head; train one"):
        load(encoder)
    trained = tagger(architectures=["BertForTokenClassification"])
    trained.bert.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    told = config.read_text(encoding="utf-8").replace('"BertModel"', '"BertForTokenClassification"')
    config.write_text(told, encoding="utf-8")  # as if it had the head
    BertTokenizer.from_pretrained(encoder).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"its checkpoint has no classifier.bias, classifier.weight; train one"):
        load(tmp_path)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"the model '.*nowhere' cannot be loaded"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="model_type"):
        head_of(str(tmp_path))
