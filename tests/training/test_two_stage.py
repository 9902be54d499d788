"""The encoder of one model in the next: its tensors equal, the head as fresh as any."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForTokenClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    set_seed,
)

from hf_nlpnotes.models.chinesebert import ChineseBertForSequenceClassification, ChineseBertForTokenClassification
from hf_nlpnotes.prompting import PromptConfig, PromptForSequenceClassification
from hf_nlpnotes.training.two_stage import carry_encoder, encoder_of, record_lineage

SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
SOURCES = [
    (BertForSequenceClassification, BertConfig(**SMALL, num_labels=3)),
    (BertForTokenClassification, BertConfig(**SMALL, num_labels=3)),
    (BertForMaskedLM, BertConfig(**SMALL)),
    (RobertaForSequenceClassification, RobertaConfig(**SMALL, num_labels=3)),
    (ElectraForTokenClassification, ElectraConfig(**SMALL, embedding_size=16, num_labels=3)),
    (
        DistilBertForSequenceClassification,
        DistilBertConfig(vocab_size=99, dim=32, n_layers=2, n_heads=2, hidden_dim=64, num_labels=3),
    ),
]
TARGETS = [
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoModelForQuestionAnswering,
    AutoModelForMaskedLM,
    AutoModel,
]


def trained(model_class: Any, config: Any) -> Any:
    """A model whose every tensor is unlike any initialisation."""
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0, 0.5)
    return model.eval()


@pytest.fixture
def classifier() -> Any:
    torch.manual_seed(1)
    return trained(*SOURCES[0])


def split(model: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The encoder's tensors by their names there, and the head's by theirs in the model."""
    encoder = encoder_of(model)
    inside = {id(tensor) for tensor in encoder.state_dict(keep_vars=True).values()}
    head = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) not in inside}
    return encoder.state_dict(), head


class TestCarrying:
    @pytest.mark.parametrize("from_folder", [True, False])
    @pytest.mark.parametrize("target", TARGETS, ids=lambda one: one.__name__)
    @pytest.mark.parametrize(("model_class", "config"), SOURCES, ids=lambda one: getattr(one, "__name__", ""))
    def test_the_encoder_is_equal_and_the_head_fresh(
        self, model_class: Any, config: Any, target: Any, from_folder: bool, tmp_path: Path
    ) -> None:
        torch.manual_seed(1)
        source = trained(model_class, config)
        source.save_pretrained(tmp_path)
        options = {"num_labels": 3} if "Classification" in target.__name__ else {}
        set_seed(7)
        model, report = carry_encoder(tmp_path if from_folder else source, target, **options)
        set_seed(7)
        fresh = target.from_config(type(config).from_dict({**config.to_dict(), "num_labels": 2, **options}))

        before, _ = split(source)
        carried, head = split(model)
        begun, fresh_head = split(fresh)
        assert head.keys() == fresh_head.keys()
        assert all(torch.equal(head[name], fresh_head[name]) for name in head)
        for name, tensor in carried.items():
            assert torch.equal(tensor, before[name] if name in before else begun[name]), name
        assert all(name in before or "pooler" in name for name in carried)

        # The report accounts for all.
        assert {*report.carried, *report.initialised} == set(model.state_dict())
        assert len(report.carried) + len(report.initialised) == len(model.state_dict())
        assert set(head) <= set(report.initialised)
        assert not set(carried).isdisjoint(before)
        assert bool(report.dropped)
        assert not model.training

    def test_a_head_of_the_same_shape_does_not_stay(self, classifier: Any, tmp_path: Path) -> None:
        """The fault that this is against: `from_pretrained` keeps it."""
        classifier.save_pretrained(tmp_path)
        stock = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=3)
        assert torch.equal(stock.classifier.weight, classifier.classifier.weight)
        model, report = carry_encoder(tmp_path, AutoModelForSequenceClassification, num_labels=3)
        assert (model.classifier.weight - classifier.classifier.weight).abs().min() > 1e-6
        assert torch.equal(model.bert.pooler.dense.weight, classifier.bert.pooler.dense.weight)
        assert report.initialised == ("classifier.weight", "classifier.bias")
        assert set(report.dropped) == {"classifier.weight", "classifier.bias"}

    def test_what_the_report_says(self, classifier: Any) -> None:
        _, report = carry_encoder(classifier, AutoModelForTokenClassification, num_labels=5)
        assert str(report) == (
            "37 tensors carried\n"
            "newly initialised: classifier.weight, classifier.bias\n"
            "dropped: pooler.dense.weight, pooler.dense.bias, classifier.weight, classifier.bias"
        )

    def test_the_source_stays_as_it_was(self, classifier: Any) -> None:
        weights = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
        config = classifier.config.to_dict()
        model, _ = carry_encoder(classifier, AutoModelForSequenceClassification, num_labels=3)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in classifier.state_dict().items())
        assert classifier.config.to_dict() == config

    def test_the_old_task_is_forgotten(self, classifier: Any) -> None:
        classifier.config.problem_type = "multi_label_classification"
        classifier.config.id2label = {0: "体育", 1: "财经", 2: "科技"}
        answering, _ = carry_encoder(classifier, AutoModelForQuestionAnswering)
        assert answering.config.num_labels == 2
        assert answering.qa_outputs.out_features == 2
        assert answering.config.problem_type is None
        tagging, _ = carry_encoder(classifier, AutoModelForTokenClassification, id2label={0: "O", 1: "B", 2: "I"})
        assert tagging.config.label2id == {"O": 0, "B": 1, "I": 2}
        assert tagging.config.num_labels == 3

    def test_a_class_as_target(self, classifier: Any) -> None:
        model, _ = carry_encoder(classifier, BertForTokenClassification, num_labels=5, hidden_dropout_prob=0.3)
        assert type(model) is BertForTokenClassification
        assert model.dropout.p == 0.3

    @pytest.mark.parametrize(
        ("stored", "given", "expected"),
        [
            (torch.bfloat16, None, torch.float32),
            (torch.float64, None, torch.float64),
            (torch.float32, torch.bfloat16, torch.bfloat16),
        ],
    )
    def test_dtypes(
        self, classifier: Any, tmp_path: Path, stored: torch.dtype, given: torch.dtype | None, expected: torch.dtype
    ) -> None:
        classifier.to(stored).save_pretrained(tmp_path)
        for source in (classifier, tmp_path):
            model, _ = carry_encoder(source, AutoModelForSequenceClassification, dtype=given)
            assert {parameter.dtype for parameter in model.parameters()} == {expected}
            assert torch.equal(model.bert.pooler.dense.bias, classifier.bert.pooler.dense.bias.to(expected))


class TestSources:
    """Each against the encoder that does the work in the source."""

    def test_chinesebert_with_its_tables(self, tiny_chinesebert_folder: Path) -> None:
        source = AutoModelForMaskedLM.from_pretrained(tiny_chinesebert_folder)
        model, report = carry_encoder(tiny_chinesebert_folder, ChineseBertForTokenClassification, num_labels=3)
        encoded = torch.arange(5, 20)[None]
        expected = source.bert.eval()(encoded).last_hidden_state
        assert torch.equal(model.bert(encoded).last_hidden_state, expected)
        assert "bert.embeddings.pinyin_table" in report.carried

    def test_continued_pretraining(self, classifier: Any, tmp_path: Path) -> None:
        """Classifier, then masked LM, then classifier; the pooler is lost on the way, and said to be."""
        lm, first = carry_encoder(classifier, AutoModelForMaskedLM)
        assert "cls.predictions.decoder.weight" in first.carried  # tied to the embeddings
        assert lm.cls.predictions.decoder.weight is lm.bert.embeddings.word_embeddings.weight
        lm.save_pretrained(tmp_path)
        model, second = carry_encoder(tmp_path, AutoModelForSequenceClassification, num_labels=3)
        assert {name for name in second.initialised if "pooler" in name} == {
            "bert.pooler.dense.weight",
            "bert.pooler.dense.bias",
        }
        assert torch.equal(
            model.bert.encoder.layer[1].output.dense.weight, classifier.bert.encoder.layer[1].output.dense.weight
        )
        assert [stage["architecture"] for stage in model.config.lineage] == [
            "BertForSequenceClassification",
            "BertForMaskedLM",
        ]

    def test_a_prompt(self, tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
        prompt = PromptConfig(template="很{label}。{text}", verbalizer={"好": "好", "差": "差"})
        source = PromptForSequenceClassification.from_pretrained(tiny_chinesebert_folder, config=prompt)
        with torch.no_grad():
            source.masked_lm.bert.encoder.layer[0].output.dense.weight.add_(1)
        source.save_pretrained(tmp_path)
        for one in (source, tmp_path):
            model, report = carry_encoder(one, AutoModelForSequenceClassification)
            found = model.bert.encoder.layer[0].output.dense.weight
            assert torch.equal(found, source.masked_lm.bert.encoder.layer[0].output.dense.weight)
            assert any("cls.predictions" in name for name in report.dropped)

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
    def test_an_adapter_is_merged(self, classifier: Any, tmp_path: Path) -> None:
        import peft

        adapted = peft.get_peft_model(classifier, peft.LoraConfig(target_modules=["query"], task_type="SEQ_CLS"))
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.normal_()
        tokens = torch.arange(10)[None]
        expected = adapted.get_base_model().bert.eval()(tokens).last_hidden_state
        model, _ = carry_encoder(adapted, AutoModelForTokenClassification, num_labels=2)
        torch.testing.assert_close(model.bert(tokens).last_hidden_state, expected, rtol=1e-4, atol=1e-4)
        assert any("lora" in name for name in adapted.state_dict())  # the source is as it was
        adapted.save_pretrained(tmp_path / "adapter")
        with pytest.raises(ValueError, match="holds an adapter: load it with AutoPeftModelFor"):
            carry_encoder(tmp_path / "adapter", AutoModelForTokenClassification)
        adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
        model, _ = carry_encoder(tmp_path / "merged", AutoModelForTokenClassification, num_labels=2)
        torch.testing.assert_close(model.bert(tokens).last_hidden_state, expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
    def test_a_prefix_is_refused(self, classifier: Any) -> None:
        import peft

        config = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2)
        with pytest.raises(ValueError, match="cannot be merged into an encoder"):
            carry_encoder(peft.get_peft_model(classifier, config), AutoModelForTokenClassification)


class TestLineage:
    def test_stages_are_listed_and_kept(self, classifier: Any, tmp_path: Path) -> None:
        classifier.save_pretrained(tmp_path / "reviews")
        second, _ = carry_encoder(
            tmp_path / "reviews", AutoModelForTokenClassification, num_labels=4, note="20,000 reviews"
        )
        second.save_pretrained(tmp_path / "tags")
        again = AutoModelForTokenClassification.from_pretrained(tmp_path / "tags")
        stage = {"source": "reviews", "architecture": "BertForSequenceClassification", "tensors": 37}
        assert again.config.lineage == [{**stage, "note": "20,000 reviews"}]
        third, _ = carry_encoder(tmp_path / "tags", AutoModelForQuestionAnswering)
        third.save_pretrained(tmp_path / "answers")
        assert AutoConfig.from_pretrained(tmp_path / "answers").lineage == [
            {**stage, "note": "20,000 reviews"},
            {"source": "tags", "architecture": "BertForTokenClassification", "tensors": 37},
        ]
        text = (tmp_path / "answers" / "config.json").read_text(encoding="utf-8")
        assert str(tmp_path) not in text

    def test_the_card_names_the_last_stage(self, classifier: Any, tmp_path: Path) -> None:
        classifier.save_pretrained(tmp_path / "reviews")
        model, _ = carry_encoder(tmp_path / "reviews", AutoModelForTokenClassification, num_labels=4)
        model.save_pretrained(tmp_path / "tags")
        card = ModelCard.load(record_lineage(tmp_path / "tags"))
        assert card.data.base_model == "reviews"
        assert "reviews (BertForSequenceClassification)" in card.text
        written = "---\nlanguage: zh\nbase_model: other\n---\n# 标题\n\n正文\n"
        (tmp_path / "tags" / "README.md").write_text(written, encoding="utf-8")
        card = ModelCard.load(record_lineage(tmp_path / "tags"))
        assert (card.data.base_model, card.data.language) == ("reviews", "zh")
        assert card.text.strip() == "# 标题\n\n正文"
        assert sorted(path.name for path in (tmp_path / "tags").iterdir()) == [
            "README.md",
            "config.json",
            "model.safetensors",
        ]
        with pytest.raises(ValueError, match="has no lineage"):
            record_lineage(tmp_path / "reviews")


class TestBadInput:
    def test_options(self, classifier: Any) -> None:
        with pytest.raises(ValueError, match="BertConfig has no option num_label"):
            carry_encoder(classifier, AutoModelForTokenClassification, num_label=3)
        with pytest.raises(ValueError, match=r"differ in shape \(.*word_embeddings.weight: \(99, 32\) and \(50, 32\)"):
            carry_encoder(classifier, AutoModelForTokenClassification, vocab_size=50)

    def test_kinds(self, classifier: Any) -> None:
        with pytest.raises(TypeError, match="source is a folder, a hub name or a model"):
            carry_encoder(torch.nn.Linear(2, 2), AutoModelForTokenClassification)
        with pytest.raises(TypeError, match="target is an AutoModelFor"):
            carry_encoder(classifier, "token-classification")
        with pytest.raises(TypeError, match="ChineseBertConfig, and the source's configuration is BertConfig"):
            carry_encoder(classifier, ChineseBertForSequenceClassification)

    def test_weights_of_nothing_like_it(self, classifier: Any, tmp_path: Path) -> None:
        state = {f"own.{name}": tensor for name, tensor in classifier.state_dict().items()}
        classifier.save_pretrained(tmp_path, state_dict=state)
        assert "architectures" in json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
        with pytest.raises(ValueError, match=r"No tensor of .* is one of BertModel"):
            carry_encoder(tmp_path, AutoModelForTokenClassification)
