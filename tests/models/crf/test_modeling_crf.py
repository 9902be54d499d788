"""A CRF around any encoder: its loss, files, the Auto classes, the Trainer, PEFT, compilation and ONNX export."""

from __future__ import annotations

import inspect
import json
import math

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    DataCollatorForTokenClassification,
    T5Config,
    Trainer,
    TrainingArguments,
)

from hf_nlpnotes._compat import CHECKPOINTING
from hf_nlpnotes.layers import ConditionalRandomField
from hf_nlpnotes.models.crf import CrfConfig, CrfForTokenClassification
from hf_nlpnotes.models.layer_selection import LayerSelectionConfig, LayerSelectionModel
from hf_nlpnotes.tagging import allowed_transitions, is_legal, tagger_options

LABELS = ["O", "B-A", "I-A", "E-A", "S-A"]
COMMON = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "pad_token_id": 0,
}
ENCODERS = {
    "albert": {"embedding_size": 16},
    "bert": {},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8},
    "distilbert": {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 48},
    "modernbert": {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
    "squeezebert": {"embedding_size": 32, "q_groups": 1, "k_groups": 1, "v_groups": 1},
    "xlm-roberta": {},
}


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    BertModel(BertConfig(**COMMON, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)).save_pretrained(folder)
    return folder


def build(folder, **options):
    torch.manual_seed(1)
    model = CrfForTokenClassification.from_encoder(folder, **{**tagger_options(LABELS, "BIOES"), **options})
    with torch.no_grad():
        for parameter in model.crf.parameters():
            parameter.normal_()
    return model


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 100, (3, 7), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return {"input_ids": ids.masked_fill(mask == 0, 0), "attention_mask": mask}


def labels() -> torch.Tensor:
    # The first and last token are special, and one word has two pieces.
    return torch.tensor(
        [
            [-100, 0, 1, -100, 3, 4, -100],
            [-100, 1, 2, 3, -100, 0, 0],  # what stands under padding does not count
            [-100, 4, 4, 0, 1, 3, -100],
        ]
    )


class TestResult:
    @pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # of the models' own code
    @pytest.mark.parametrize("model_type", ENCODERS)
    def test_emissions_are_the_encoder_s_features_through_a_linear_layer(self, model_type, tmp_path):
        torch.manual_seed(0)
        encoder = AutoModel.from_config(AutoConfig.for_model(model_type, **COMMON, **ENCODERS[model_type])).eval()
        encoder.save_pretrained(tmp_path)
        model = build(tmp_path)
        with torch.no_grad():
            expected = model.classifier.dense(encoder(**batch())[0])
            torch.testing.assert_close(model(**batch()).logits, expected, rtol=1e-5, atol=1e-5)
        model.train()
        model(**batch(), labels=labels()).loss.backward()
        assert all(parameter.grad is not None for parameter in model.classifier.parameters())

    def test_the_loss_is_the_crf_s_over_the_labels_that_count(self, bert_folder):
        model = build(bert_folder)
        logits = model(**batch()).logits
        counts = labels() != -100
        counts[1, 5:] = False
        expected = model.crf(logits, labels().clamp(min=0), counts, reduction="sum")
        assert model(**batch(), labels=labels()).loss.item() == pytest.approx(expected.item() / 12, rel=1e-6)
        items = torch.tensor(40)
        found = model(**batch(), labels=labels(), num_items_in_batch=items).loss
        assert found.item() == pytest.approx(expected.item() / 40, rel=1e-6)

    def test_rows_without_labels_teach_nothing(self, bert_folder):
        model = build(bert_folder)
        some = labels()
        some[1] = -100
        rows = torch.tensor([0, 2])
        kept = {name: value[rows] for name, value in batch().items()}
        expected = model(**kept, labels=labels()[rows]).loss
        assert model(**batch(), labels=some).loss.item() == pytest.approx(expected.item(), rel=1e-6)
        loss = model(**batch(), labels=torch.full((3, 7), -100)).loss
        assert loss.item() == 0
        loss.backward()
        assert all((parameter.grad == 0).all() for parameter in model.classifier.parameters())

    def test_best_tags_have_the_shape_of_the_labels_and_are_legal(self, bert_folder):
        model = build(bert_folder)
        logits = model(**batch()).logits
        some = labels().masked_fill(batch()["attention_mask"] == 0, -100)
        some[0] = -100
        tags = model.best_tags((logits, "hidden states"), some)
        assert torch.equal(tags == -100, some == -100)
        expected = model.decode(logits[1:], some[1:] != -100)
        assert [row[row != -100].tolist() for row in tags[1:]] == expected
        assert all(is_legal([LABELS[tag] for tag in row], "BIOES") for row in expected)


class TestClassesOfTexts:
    def test_the_loss_is_that_of_tags_and_text_together(self, bert_folder, tmp_path):
        model = build(bert_folder, text_classes=["play", "ask", "stop"])
        classes = torch.tensor([2, 0, 1])
        outputs = model(**batch(), labels=labels(), text_classes=classes)
        features = model.encoder(**batch())[0][:, 0]
        torch.testing.assert_close(outputs.text_logits, model.classifier.text_dense(features))
        of_texts = torch.nn.functional.cross_entropy(outputs.text_logits, classes, reduction="sum")
        of_tags = model(**batch(), labels=labels()).loss
        assert outputs.loss.item() == pytest.approx((of_tags + of_texts / 12).item(), rel=1e-6)
        alone = model(**batch(), text_classes=classes).loss
        assert alone.item() == pytest.approx(of_texts.item() / 3, rel=1e-6)
        model.save_pretrained(tmp_path)
        loaded = AutoModelForTokenClassification.from_pretrained(tmp_path)
        assert loaded.config.text_classes == ["play", "ask", "stop"]
        assert torch.equal(loaded(**batch()).text_logits, outputs.text_logits)

    def test_classes_that_the_model_has_not(self, bert_folder):
        with pytest.raises(ValueError, match="configure text_classes"):
            build(bert_folder)(**batch(), text_classes=torch.tensor([0, 0, 0]))
        with pytest.raises(ValueError, match="different classes"):
            build(bert_folder, text_classes=["a", "a"])


class TestFiles:
    def test_saved_and_loaded_through_the_auto_class(self, bert_folder, tmp_path):
        model = build(bert_folder, classifier_dropout=0.25)
        model.save_pretrained(tmp_path)
        assert (tmp_path / "model.safetensors").is_file()
        written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
        assert written["tagging_scheme"] == "BIOES"
        assert written["constraints"]["start"] == "11001"
        loaded = AutoModelForTokenClassification.from_pretrained(tmp_path)
        assert type(loaded) is CrfForTokenClassification
        assert loaded.config.id2label == dict(enumerate(LABELS))
        assert loaded.config.classifier_dropout == 0.25
        for name, value in model.state_dict().items():
            assert torch.equal(value, loaded.state_dict()[name]), name
        allowed = allowed_transitions(LABELS, "BIOES")
        assert np.array_equal(loaded.crf.allowed.numpy(), allowed.transitions)
        assert np.array_equal(loaded.crf.allowed_start.numpy(), allowed.start)
        assert np.array_equal(loaded.crf.allowed_end.numpy(), allowed.end)
        logits = loaded(**batch()).logits
        assert torch.equal(logits, model(**batch()).logits)
        assert loaded.decode(logits) == model.decode(logits)

    def test_without_constraints(self, bert_folder, tmp_path):
        build(bert_folder, constraints=None).save_pretrained(tmp_path)
        assert AutoModelForTokenClassification.from_pretrained(tmp_path).crf.allowed.all()

    def test_a_checkpoint_without_the_crf_begins_at_zero(self, bert_folder, tmp_path):
        model = build(bert_folder)
        model.classifier.crf = torch.nn.Identity()
        model.save_pretrained(tmp_path)
        loaded = AutoModelForTokenClassification.from_pretrained(tmp_path)
        assert all((parameter == 0).all() for parameter in loaded.crf.parameters())
        assert loaded.crf.allowed_start.tolist() == [True, True, False, False, True]

    def test_the_encoder_of_a_crf_s_checkpoint(self, bert_folder, tmp_path):
        model = build(bert_folder)
        model.save_pretrained(tmp_path)
        other = CrfForTokenClassification.from_encoder(tmp_path, **tagger_options(["B", "M", "E", "S"]))
        assert other.config.num_labels == 4
        assert other.config.tagging_scheme == "BMES"
        for name, value in model.encoder.state_dict().items():
            assert torch.equal(value, other.encoder.state_dict()[name])

    def test_half_precision(self, bert_folder, tmp_path):
        build(bert_folder).save_pretrained(tmp_path)
        model = AutoModelForTokenClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
        outputs = model(**batch(), labels=labels())
        assert outputs.logits.dtype == torch.bfloat16
        assert outputs.loss.dtype == torch.float32
        outputs.loss.backward()


class TestEncoders:
    def test_a_selection_of_layers(self, bert_folder, tmp_path):
        torch.manual_seed(0)
        encoder = LayerSelectionModel.from_encoder(bert_folder, selection="layers:0,1:concat")
        encoder.save_pretrained(tmp_path / "encoder")
        model = build(tmp_path / "encoder")
        assert model.classifier.dense.in_features == 64
        torch.testing.assert_close(
            model(**batch()).logits, model.classifier.dense(encoder(**batch()).last_hidden_state)
        )
        model.save_pretrained(tmp_path / "tagger")
        loaded = AutoModelForTokenClassification.from_pretrained(tmp_path / "tagger")
        assert isinstance(loaded.config.text_config, LayerSelectionConfig)
        assert torch.equal(loaded(**batch()).logits, model(**batch()).logits)
        assert "token_type_ids" in inspect.signature(loaded.forward).parameters

    def test_chinesebert_with_its_pinyin(self, tiny_chinesebert_folder):
        model = build(tiny_chinesebert_folder)
        inputs = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)(["重庆银行", "还有"], padding=True)
        inputs = {name: torch.tensor(value) for name, value in inputs.items()}
        assert "pinyin_ids" in inspect.signature(model.forward).parameters
        without = {**inputs, "pinyin_ids": torch.zeros_like(inputs["pinyin_ids"])}
        assert not torch.allclose(model(**inputs).logits, model(**without).logits)

    @pytest.mark.parametrize("device_map", [{"embeddings": "cpu", "encoder": "disk"}, {"": "disk"}])
    def test_an_encoder_that_is_not_in_one_place_is_refused(self, bert_folder, tmp_path, device_map):
        # accelerate 1.7 refuses a whole model on the disk by itself, before we see it.
        refusals = r"device_map put the encoder on .*meta.*: leave device_map out|offload the whole model to the disk"
        with pytest.raises(ValueError, match=refusals):
            CrfForTokenClassification.from_encoder(bert_folder, device_map=device_map, offload_folder=tmp_path)
        in_one_place = CrfForTokenClassification.from_encoder(bert_folder, device_map={"": "cpu"})
        assert in_one_place.device.type == "cpu"

    def test_weights_that_accelerate_keeps_elsewhere(self, bert_folder):
        model, inputs = build(bert_folder).eval(), batch()
        with torch.no_grad():
            logits = model(**inputs).logits
        mask = torch.ones(logits.shape[:2])
        expected = model.decode(logits, mask), model.crf.marginals(logits), model.crf.n_best(logits, k=2)
        cpu_offload(model, execution_device="cpu")
        assert model.crf.transitions.is_meta
        with torch.no_grad():
            torch.testing.assert_close(model(**inputs).logits, logits)
        assert model.decode(logits, mask) == expected[0]
        assert torch.equal(model.crf.marginals(logits), expected[1])
        assert model.crf.n_best(logits, k=2) == expected[2]
        assert model.crf.transitions.is_meta, "and they are elsewhere again"

    def test_an_encoder_decoder_is_refused(self, tmp_path):
        T5Config(d_model=16, num_layers=1, num_heads=1, d_kv=16, d_ff=16, vocab_size=20).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="encoder-decoder"):
            CrfForTokenClassification.from_encoder(tmp_path)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"constraints": ([[1]], [1], [1])}, "of 1 labels, and the model has 2"),
            ({"constraints": {"start": "11"}}, "expected transitions, start, end"),
            ({"constraints": [[1, 1], [1, 1]]}, "three tables"),
            ({"classifier_dropout": 1.0}, r"\[0, 1\), got 1.0"),
            ({"text_config": {"hidden_size": 3}}, "no model_type"),
        ],
    )
    def test_bad_configurations_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            CrfConfig(num_labels=2, **options)


class TestTraining:
    def data(self, tokenizer):
        rows = [
            tokenizer(text) | {"labels": [-100, *tags, -100]}
            for text, tags in [("北京大学", [1, 2, 2, 3]), ("我喜欢猫", [0, 0, 0, 4]), ("在上海", [0, 1, 3])] * 4
        ]
        return Dataset.from_list([dict(row) for row in rows])

    def test_the_trainer_and_its_metrics(self, tiny_chinesebert_folder, tmp_path):
        tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
        model = build(tiny_chinesebert_folder)
        data = self.data(tokenizer)
        seen = {}

        def compute_metrics(predictions):
            seen["tags"], seen["labels"] = predictions.predictions, predictions.label_ids
            counts = predictions.label_ids != -100
            return {"accuracy": (predictions.predictions == predictions.label_ids)[counts].mean()}

        arguments = TrainingArguments(
            tmp_path,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            num_train_epochs=30,
            learning_rate=5e-3,
            lr_scheduler_type="constant",
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            seed=0,
        )
        trainer = Trainer(
            model,
            arguments,
            train_dataset=data,
            eval_dataset=data,
            data_collator=DataCollatorForTokenClassification(tokenizer),
            processing_class=tokenizer,
            compute_metrics=compute_metrics,
            preprocess_logits_for_metrics=model.best_tags,
        )
        before = trainer.evaluate()
        trainer.train()
        after = trainer.evaluate()
        assert after["eval_accuracy"] == 1 > before["eval_accuracy"]
        assert after["eval_loss"] < before["eval_loss"] / 4
        assert seen["tags"].dtype == np.int64
        for row, gold in zip(seen["tags"], seen["labels"], strict=True):
            assert is_legal([LABELS[tag] for tag in row[gold != -100]], "BIOES")

    def test_accumulated_gradients_are_those_of_one_batch(self, bert_folder):
        model = build(bert_folder)
        items = (labels() != -100).sum()
        model(**batch(), labels=labels(), num_items_in_batch=items).loss.backward()
        whole = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        model.zero_grad()
        for row in range(3):
            one = {name: value[row : row + 1] for name, value in batch().items()}
            model(**one, labels=labels()[row : row + 1], num_items_in_batch=items).loss.backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, whole[name], rtol=1e-4, atol=1e-6)

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks
    def test_lora_trains_and_saves_the_crf_unasked(self, bert_folder, tmp_path):
        model = build(bert_folder)
        peft_model = get_peft_model(model, LoraConfig(task_type="TOKEN_CLS", r=2))
        names = {name for name, parameter in peft_model.named_parameters() if parameter.requires_grad}
        assert {"transitions", "start_transitions", "end_transitions"} <= {name.rsplit(".", 1)[-1] for name in names}
        assert any("lora_A" in name for name in names)
        optimizer = torch.optim.SGD([p for p in peft_model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(3):
            peft_model(**batch(), labels=labels()).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        peft_model.eval()
        logits = peft_model(**batch()).logits
        crf = peft_model.get_base_model().crf
        assert isinstance(crf, ConditionalRandomField)
        peft_model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(build(bert_folder), tmp_path).eval()
        torch.testing.assert_close(loaded(**batch()).logits, logits)
        assert torch.equal(loaded.get_base_model().crf.transitions, crf.transitions)
        assert not torch.equal(crf.transitions, build(bert_folder).crf.transitions)
        assert loaded.get_base_model().decode(logits) == peft_model.get_base_model().decode(logits)

    def test_gradient_checkpointing(self, bert_folder):
        model = build(bert_folder).train()
        model.classifier.dropout.p = 0.0
        model(**batch(), labels=labels()).loss.backward()
        expected = model.encoder.embeddings.word_embeddings.weight.grad.clone()
        model.zero_grad()
        getattr(model, f"{CHECKPOINTING}_enable")()
        model(**batch(), labels=labels()).loss.backward()
        torch.testing.assert_close(model.encoder.embeddings.word_embeddings.weight.grad, expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
class TestExport:
    def test_compiled_without_a_break(self, bert_folder):
        model = build(bert_folder)
        expected = model(**batch(), labels=labels())
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        found = compiled(**batch(), labels=labels())
        torch.testing.assert_close(found.loss, expected.loss)
        torch.testing.assert_close(found.logits, expected.logits)
        found.loss.backward()
        compiled_gradient = model.crf.transitions.grad.clone()
        model.zero_grad()
        expected.loss.backward()
        torch.testing.assert_close(compiled_gradient, model.crf.transitions.grad)

    def test_compiled_with_windows_without_labels(self, bert_folder):
        """None of the tags that would fill them in may count: the first one cannot even stand alone."""
        torch.compiler.reset()
        model = build(bert_folder, constraints=([[1] * 5] * 5, [0, 0, 1, 1, 1], [1, 0, 0, 1, 1]))
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        for without in ([1], [0, 2], [0, 1, 2]):
            targets = labels().masked_fill(labels() == 0, 4)
            targets[:, 1] = 4
            targets[without] = -100
            gradients = []
            for way in (model, compiled):
                loss = way(**batch(), labels=targets).loss
                gradients.append(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True))
                assert loss.item() == pytest.approx(model(**batch(), labels=targets).loss.item(), rel=1e-6)
            for mine, theirs in zip(*gradients, strict=True):
                torch.testing.assert_close(mine, theirs)

    def test_onnx_export_of_the_emissions(self, bert_folder, tmp_path):
        onnxruntime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        model = build(bert_folder)
        model.config.return_dict = False
        inputs = batch()
        path = tmp_path / "tagger.onnx"
        torch.onnx.export(
            model,
            kwargs=dict(inputs),
            f=path,
            dynamo=True,
            input_names=list(inputs),
            output_names=["logits"],
            verbose=False,
        )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (logits,) = session.run(["logits"], {name: value.numpy() for name, value in inputs.items()})
        expected = model(**inputs)[0].detach()
        np.testing.assert_allclose(logits, expected.numpy(), rtol=0, atol=1e-5)
        # What is decoded from them needs the CRF alone.
        assert model.decode(torch.from_numpy(logits)) == model.decode(expected)


@pytest.mark.parametrize("name", ["output_hidden_states", "output_attentions"])
def test_what_the_configuration_asks_for_is_given(bert_folder, tmp_path, name):
    build(bert_folder).save_pretrained(tmp_path)
    model = AutoModelForTokenClassification.from_pretrained(tmp_path, attn_implementation="eager", **{name: True})
    field = name.removeprefix("output_")
    expected = model.encoder(**batch(), **{name: True})[field]
    for found in (model(**batch()), model(**batch(), **{name: None})):
        assert all(map(torch.equal, found[field], expected))
        assert len(found[field]) == len(expected) > 0
    assert getattr(model(**batch(), **{name: False}), field) is None


def test_losses_stay_finite_in_a_long_text(bert_folder):
    model = build(bert_folder)
    ids = torch.randint(3, 100, (1, 400), generator=torch.Generator().manual_seed(0))
    assert math.isfinite(model(input_ids=ids, labels=torch.zeros_like(ids)).loss.item())
