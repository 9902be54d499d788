"""The models: arguments, heads, losses, saving and loading, and the tools of transformers and torch."""

import copy
import json
import logging

import accelerate
import numpy as np
import pytest
import torch
from packaging import version
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertForQuestionAnswering,
    BertModel,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import logging as transformers_logging

from hf_nlpnotes._compat import CHECKPOINTING
from hf_nlpnotes.models.chinesebert import (
    ChineseBertConfig,
    ChineseBertForMaskedLM,
    ChineseBertForMultipleChoice,
    ChineseBertForQuestionAnswering,
    ChineseBertForSequenceClassification,
    ChineseBertForTokenClassification,
    ChineseBertModel,
)

HEADS = {
    AutoModel: ChineseBertModel,
    AutoModelForMaskedLM: ChineseBertForMaskedLM,
    AutoModelForSequenceClassification: ChineseBertForSequenceClassification,
    AutoModelForTokenClassification: ChineseBertForTokenClassification,
    AutoModelForQuestionAnswering: ChineseBertForQuestionAnswering,
    AutoModelForMultipleChoice: ChineseBertForMultipleChoice,
}


@pytest.fixture
def model(tiny_chinesebert_folder):
    return ChineseBertForMaskedLM.from_pretrained(tiny_chinesebert_folder)


def make_batch(model, batch=3, length=9):
    config = model.config
    random = np.random.default_rng(0)
    mask = np.ones((batch, length), dtype=np.int64)
    mask[-1, length // 2 :] = 0
    arrays = {
        "input_ids": random.integers(1, config.vocab_size, (batch, length)),
        "pinyin_ids": random.integers(0, config.pinyin_table_size, (batch, length)),
        "attention_mask": mask,
        "token_type_ids": random.integers(0, 2, (batch, length)),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def make_labels(head, batch, config):
    size, length = batch["input_ids"].shape
    random = np.random.default_rng(1)
    if head is ChineseBertForQuestionAnswering:
        numbers = {
            "start_positions": random.integers(0, length, size),
            "end_positions": random.integers(0, length, size),
        }
    elif head is ChineseBertForMaskedLM:
        numbers = {"labels": random.integers(0, config.vocab_size, (size, length))}
    elif head is ChineseBertForTokenClassification:
        numbers = {"labels": random.integers(0, config.num_labels, (size, length))}
    else:
        numbers = {"labels": random.integers(0, config.num_labels, size)}
    return {name: torch.from_numpy(array) for name, array in numbers.items()}


class TestAutoClasses:
    @pytest.mark.parametrize(("auto_class", "expected"), HEADS.items(), ids=lambda value: value.__name__)
    def test_know_every_head(self, auto_class, expected, tiny_chinesebert_folder):
        model = auto_class.from_pretrained(tiny_chinesebert_folder)
        assert type(model) is expected
        assert type(AutoConfig.from_pretrained(tiny_chinesebert_folder)) is ChineseBertConfig
        assert type(auto_class.from_config(model.config)) is expected


class TestArguments:
    def test_pinyin_stands_second(self, model):
        batch = make_batch(model)
        named = model(**batch).logits
        placed = model(
            batch["input_ids"], batch["pinyin_ids"], batch["attention_mask"], batch["token_type_ids"]
        ).logits
        assert torch.equal(named, placed)

    def test_missing_pinyin_warns_once(self, model, caplog):
        from transformers.utils.logging import warning_once

        batch = make_batch(model)
        batch.pop("pinyin_ids")
        warning_once.cache_clear()
        transformers_logging.enable_propagation()
        try:
            with caplog.at_level(logging.WARNING):
                model(**batch)
                model(**batch)
        finally:
            transformers_logging.disable_propagation()
        assert [record.message[:27] for record in caplog.records] == ["No `pinyin_ids` were given:"]

    def test_inputs_embeds_are_the_fused_vectors(self, model):
        batch = make_batch(model)
        fused = model.bert.get_fused_embeddings(batch["input_ids"], batch["pinyin_ids"])
        rest = {name: batch[name] for name in ("attention_mask", "token_type_ids")}
        torch.testing.assert_close(model(inputs_embeds=fused, **rest).logits, model(**batch).logits, rtol=0, atol=1e-5)
        with pytest.raises(ValueError, match="leave pinyin_ids out"):
            model(inputs_embeds=fused, pinyin_ids=batch["pinyin_ids"])
        with pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds"):
            model(inputs_embeds=fused, input_ids=batch["input_ids"])
        with pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds"):
            model(attention_mask=batch["attention_mask"])

    def test_encoder_is_berts(self, model):
        """The stock BertModel, given the fused vectors, agrees on everything that it returns."""
        batch = make_batch(model)
        ours = ChineseBertModel(model.config).eval()
        stock = BertModel(model.config).eval()
        stock.load_state_dict(ours.state_dict(), strict=False)
        fused = ours.get_fused_embeddings(batch["input_ids"], batch["pinyin_ids"])
        rest = {name: batch[name] for name in ("attention_mask", "token_type_ids")}
        for attention in ("eager", "sdpa"):
            ours.set_attn_implementation(attention)
            stock.set_attn_implementation(attention)
            flags = {"output_hidden_states": True, "output_attentions": attention == "eager"}
            got, expected = ours(**batch, **flags), stock(inputs_embeds=fused, **rest, **flags)
            for name in ("last_hidden_state", "pooler_output", "hidden_states"):
                torch.testing.assert_close(got[name], expected[name], rtol=0, atol=1e-5)
            if attention == "eager":
                torch.testing.assert_close(got.attentions, expected.attentions, rtol=0, atol=1e-5)
                assert len(got.attentions) == model.config.num_hidden_layers

    def test_tuples_instead_of_outputs(self, model):
        batch = make_batch(model)
        labels = make_labels(ChineseBertForMaskedLM, batch, model.config)
        output = model(**batch, **labels)
        loss, logits = model(**batch, **labels, return_dict=False)
        assert torch.equal(loss, output.loss)
        assert torch.equal(logits, output.logits)

    def test_padding_does_not_matter(self, model):
        batch = make_batch(model)
        one = {name: tensor[-1:, :4] for name, tensor in batch.items()}
        torch.testing.assert_close(model(**batch).logits[-1:, :4], model(**one).logits, rtol=0, atol=1e-5)

    def test_choices_are_scored_one_by_one(self, tiny_chinesebert_folder):
        model = ChineseBertForMultipleChoice.from_pretrained(tiny_chinesebert_folder)
        batch = make_batch(model, batch=6)
        letters = model.bert.embeddings.pinyin_table[batch["pinyin_ids"]].long()
        for pinyin_ids in (batch["pinyin_ids"], letters):
            batch["pinyin_ids"] = pinyin_ids
            together = model(**{name: tensor.unflatten(0, (2, 3)) for name, tensor in batch.items()}).logits
            alone = [
                model(**{name: tensor[[row]].unsqueeze(0) for name, tensor in batch.items()}).logits.item()
                for row in range(6)
            ]
            torch.testing.assert_close(together.flatten(), torch.tensor(alone), rtol=0, atol=1e-5)

    def test_a_decoder_is_refused(self):
        with pytest.raises(ValueError, match="is_decoder and add_cross_attention must be False"):
            ChineseBertModel(ChineseBertConfig(vocab_size=10, is_decoder=True))


class TestConfig:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"pinyin_length": 1}, "pinyin_length must be at least 2"),
            ({"glyph_size": 0}, "glyph_size must be at least 1, got 0"),
            ({"pinyin_table_size": -3}, "pinyin_table_size must be at least 1, got -3"),
        ],
    )
    def test_refuses_impossible_sizes(self, options, message):
        with pytest.raises(ValueError, match=message):
            ChineseBertConfig(**options)

    @pytest.mark.parametrize("options", [{"glyph_storage": "int4"}, {"token_classifier": "crf"}])
    def test_refuses_unknown_kinds(self, options):
        with pytest.raises(Exception, match=next(iter(options))):
            ChineseBertConfig(**options)

    def test_round_trip(self, tmp_path):
        config = ChineseBertConfig(glyph_storage="bits", token_classifier="mlp", glyph_fonts=2, num_labels=7)
        config.save_pretrained(tmp_path)
        again = ChineseBertConfig.from_pretrained(tmp_path)
        assert again.to_dict() == {**config.to_dict(), "transformers_version": again.to_dict()["transformers_version"]}
        assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "chinesebert"


class TestLosses:
    @pytest.mark.parametrize("head", list(HEADS.values())[1:], ids=lambda head: head.__name__)
    @pytest.mark.parametrize("parts", [1, 2, 4])
    def test_parts_of_a_batch_add_up_to_its_gradient(self, head, parts, tiny_chinesebert_folder):
        """What the Trainer does in gradient accumulation, against one batch; parts with unequal numbers of labels."""
        model = head.from_pretrained(tiny_chinesebert_folder, num_labels=4)
        batch = make_batch(model, batch=8)
        batch["attention_mask"][:] = 1
        labels = make_labels(head, batch, model.config)
        if head in {ChineseBertForMaskedLM, ChineseBertForTokenClassification}:
            labels["labels"][:5, 2:] = -100
        batch |= labels
        if head is ChineseBertForMultipleChoice:
            batch = {name: value if name == "labels" else value.repeat(4, 1) for name, value in batch.items()}
            batch = {name: v if name == "labels" else v.view(8, 4, -1) for name, v in batch.items()}
        model(**batch).loss.backward()
        expected = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        model.zero_grad()
        items = (labels["labels"] != -100).sum() if "labels" in labels else None
        for part in range(parts):
            step = slice(part * 8 // parts, (part + 1) * 8 // parts)
            if head.accepts_loss_kwargs:
                loss = model(**{name: value[step] for name, value in batch.items()}, num_items_in_batch=items).loss
            else:
                loss = model(**{name: value[step] for name, value in batch.items()}).loss / parts
            loss.backward()
        for name, parameter in model.named_parameters():
            if name in expected:
                torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6, msg=name)

    @pytest.mark.parametrize(
        ("num_labels", "labels"), [(1, [0.5, -1.0, 2.0]), (3, [[0.0, 1, 1], [1, 0, 0], [0, 0, 0]])]
    )
    def test_numbers_and_several_labels(self, num_labels, labels, tiny_chinesebert_folder):
        model = ChineseBertForSequenceClassification.from_pretrained(tiny_chinesebert_folder, num_labels=num_labels)
        batch, labels = make_batch(model), torch.tensor(labels)
        output = model(**batch, labels=labels)
        logits = output.logits.detach().double().numpy()
        if num_labels == 1:
            expected = np.mean((logits[:, 0] - labels.numpy()) ** 2)
        else:
            chance = 1 / (1 + np.exp(-logits))
            expected = -np.mean(np.where(labels.numpy() == 1, np.log(chance), np.log(1 - chance)))
        assert output.loss.item() == pytest.approx(expected, rel=1e-5)
        half = sum(
            model(
                **{name: tensor[rows] for name, tensor in batch.items()},
                labels=labels[rows],
                num_items_in_batch=labels.numel(),
            ).loss
            for rows in (slice(0, 1), slice(1, 3))
        )
        assert half.item() == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("outside", [-100, -1, 9, 99])
    def test_answers_outside_of_the_sequence_do_not_count(self, outside, tiny_chinesebert_folder):
        model = ChineseBertForQuestionAnswering.from_pretrained(tiny_chinesebert_folder)
        batch, stock = make_batch(model), BertForQuestionAnswering(model.config)
        inside = torch.tensor([1, 3])

        def loss(starts, ends):
            return model(**batch, start_positions=torch.tensor(starts), end_positions=torch.tensor(ends)).loss

        # The stock head's loss of the two that are inside: of its positions alone, whatever its vectors.
        logits = {name: model(**batch)[name][:2] for name in ("start_logits", "end_logits")}
        stock.bert.forward = lambda *_, **__: BaseModelOutput(torch.stack(list(logits.values()), -1))
        stock.qa_outputs = nn.Identity()
        expected = stock(batch["input_ids"][:2], start_positions=inside, end_positions=inside).loss
        assert loss([1, 3, outside], [1, 3, outside]).item() == pytest.approx(expected.item(), rel=1e-6)

        nothing = loss([outside] * 3, [outside] * 3)
        nothing.backward()
        assert nothing.item() == 0
        assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)

    def test_padding_is_not_tagged(self, tiny_chinesebert_folder):
        model = ChineseBertForTokenClassification.from_pretrained(tiny_chinesebert_folder, num_labels=3)
        batch = make_batch(model)
        labels = torch.ones_like(batch["input_ids"])
        marked = labels.masked_fill(batch["attention_mask"] == 0, -100)
        assert torch.equal(model(**batch, labels=labels).loss, model(**batch, labels=marked).loss)


class TestSaving:
    def test_reload_is_bit_equal(self, model, tmp_path):
        batch = make_batch(model)
        with torch.no_grad():
            expected = model(**batch).logits
            model.save_pretrained(tmp_path / "saved")
            again = AutoModelForMaskedLM.from_pretrained(tmp_path / "saved")
            assert torch.equal(again(**batch).logits, expected)
        for name, tensor in model.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor), name

    def test_shards(self, model, tmp_path):
        model.save_pretrained(tmp_path, max_shard_size="60KB")
        assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
        again = AutoModelForMaskedLM.from_pretrained(tmp_path)
        for name, tensor in model.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor), name

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_keeps_the_tables(self, model, dtype, tmp_path, tiny_chinesebert_folder):
        model.save_pretrained(tmp_path)
        loaded = AutoModelForMaskedLM.from_pretrained(tmp_path, dtype=dtype)
        halved = AutoModelForMaskedLM.from_pretrained(tmp_path).to(dtype)
        for other in (loaded, halved):
            assert other.bert.embeddings.map_fc.weight.dtype == dtype
            for name, buffer in model.named_buffers():
                assert torch.equal(dict(other.named_buffers())[name], buffer), name
        batch = make_batch(model)
        torch.testing.assert_close(loaded(**batch).logits.float(), model(**batch).logits, rtol=0.1, atol=0.1)

    def test_missing_tables_never_are_uninitialised_memory(self, model, tmp_path):
        """Loading builds the model without memory first; whatever the file lacks must get a value after."""
        tables = ("pinyin_table", "default_pinyin_ids", "glyph_embeddings")
        kept = {name: value for name, value in model.state_dict().items() if not any(t in name for t in tables)}
        model.save_pretrained(tmp_path, state_dict=kept)
        again = AutoModelForMaskedLM.from_pretrained(tmp_path).bert.embeddings
        assert torch.equal(again.pinyin_table, model.bert.embeddings.pinyin_table)  # the default table
        assert not again.default_pinyin_ids.any()
        assert not again.glyph_embeddings.embedding.weight.any()

    def test_device_map(self, tiny_chinesebert_folder, model):
        batch = make_batch(model)
        mapped = AutoModelForMaskedLM.from_pretrained(tiny_chinesebert_folder, device_map={"": "cpu"})
        torch.testing.assert_close(mapped(**batch).logits, model(**batch).logits, rtol=0, atol=1e-5)

    @pytest.mark.skipif(
        version.parse(accelerate.__version__) < version.parse("1.15"),
        reason="accelerate before 1.15 leaves a weight empty that lies on disk",
    )
    def test_offloaded_to_disk(self, tiny_chinesebert_folder, model, tmp_path):
        batch = make_batch(model)
        device_map = {"bert.embeddings": "disk", "bert.encoder": "cpu", "cls": "disk"}
        mapped = AutoModelForMaskedLM.from_pretrained(
            tiny_chinesebert_folder, device_map=device_map, offload_folder=tmp_path
        )
        with torch.no_grad():
            torch.testing.assert_close(mapped(**batch).logits, model(**batch).logits, rtol=0, atol=1e-5)


class TestTables:
    def test_wrong_shapes_and_values_are_refused(self, model):
        config, embeddings = model.config, model.bert.embeddings
        table, default = embeddings.pinyin_table.clone(), embeddings.default_pinyin_ids.clone()
        with pytest.raises(ValueError, match=r"build the model with config\.pinyin_table_size=3"):
            model.set_readings(table[:3], default)
        with pytest.raises(ValueError, match="Does the tokenizer belong to this model"):
            model.set_readings(table, default[:-1])
        with pytest.raises(ValueError, match=r"default_pinyin_ids must lie in \[0, "):
            model.set_readings(table, torch.full_like(default, len(table)))
        with pytest.raises(ValueError, match=r"pinyin_table must lie in \[0, 32\)"):
            model.set_readings(torch.full_like(table, 32), default)
        with pytest.raises(ValueError, match="glyphs must have the shape"):
            model.set_glyphs(np.zeros((config.vocab_size, 3, 24, 23), dtype=np.uint8))
        assert torch.equal(embeddings.pinyin_table, table)
        assert torch.equal(embeddings.default_pinyin_ids, default)

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (256, r"glyphs must lie in \[0, 256\), got 256 to 256"),
            (-1, r"got -1 to -1"),
            (0.5, r"got fractions; of pictures from 0 to 1: \(255 \* glyphs\)\.round\(\)"),
        ],
    )
    def test_glyphs_that_bytes_do_not_hold_are_refused(self, model, value, message):
        weight = model.bert.embeddings.glyph_embeddings.embedding.weight
        before = weight.clone()
        with pytest.raises(ValueError, match=message):
            model.set_glyphs(np.full((model.config.vocab_size, 3, 24, 24), value))
        assert torch.equal(weight, before)

    @pytest.mark.parametrize("change", [5, -5])
    def test_resizing_the_vocabulary_takes_them_along(self, model, change, tmp_path):
        batch = make_batch(model)
        size = model.config.vocab_size + change
        batch["input_ids"] %= min(size, model.config.vocab_size)
        expected = model(**batch).logits
        model.resize_token_embeddings(size)
        kept = min(size, expected.shape[-1])
        torch.testing.assert_close(model(**batch).logits[..., :kept], expected[..., :kept], rtol=0, atol=1e-5)
        embeddings = model.bert.embeddings
        assert len(embeddings.glyph_embeddings.embedding.weight) == len(embeddings.default_pinyin_ids) == size
        model.save_pretrained(tmp_path)
        again = AutoModelForMaskedLM.from_pretrained(tmp_path)
        last = {"input_ids": torch.full((1, 4), size - 1), "pinyin_ids": torch.zeros(1, 4, dtype=torch.long)}
        with torch.no_grad():
            torch.testing.assert_close(again(**last).logits, model(**last).logits, rtol=0, atol=0)

    def test_head_stays_tied_to_the_characters(self, model, tmp_path):
        assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
        model.save_pretrained(tmp_path)
        again = AutoModelForMaskedLM.from_pretrained(tmp_path)
        assert again.cls.predictions.decoder.weight is again.bert.embeddings.word_embeddings.weight


class TestTraining:
    def test_gradient_checkpointing_gives_the_same_gradients(self, model):
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            setattr(model.config, name, 0.0)
        model = ChineseBertForMaskedLM(model.config).train()
        batch = make_batch(model) | make_labels(ChineseBertForMaskedLM, make_batch(model), model.config)
        twin = copy.deepcopy(model)
        getattr(twin, f"{CHECKPOINTING}_enable")()
        assert twin.bert.encoder.layer[0].gradient_checkpointing
        model(**batch).loss.backward()
        twin(**batch).loss.backward()
        for (name, parameter), other in zip(model.named_parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(other.grad, parameter.grad, rtol=1e-5, atol=1e-7, msg=name)

    def test_every_weight_learns(self, model):
        model.train()
        batch = make_batch(model) | make_labels(ChineseBertForMaskedLM, make_batch(model), model.config)
        model(**batch).loss.backward()
        assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []

    def test_bitmaps_as_floats_learn_too(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        config = ChineseBertConfig.from_pretrained(tmp_path, glyph_storage="float32")
        trainable = ChineseBertForMaskedLM(config).train()
        assert isinstance(trainable.bert.embeddings.glyph_embeddings.embedding.weight, nn.Parameter)
        batch = make_batch(model) | make_labels(ChineseBertForMaskedLM, make_batch(model), model.config)
        trainable(**batch).loss.backward()
        assert trainable.bert.embeddings.glyph_embeddings.embedding.weight.grad is not None
