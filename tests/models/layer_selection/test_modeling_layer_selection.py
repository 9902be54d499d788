"""Heads on selected layers: against stock hidden states, through files, pipelines, the Trainer and PEFT."""

import inspect
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from datasets import Dataset
from huggingface_hub.errors import StrictDataclassFieldValidationError
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    DataCollatorWithPadding,
    T5Config,
    Trainer,
    TrainingArguments,
    pipeline,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_nlpnotes._compat import CHECKPOINTING
from hf_nlpnotes.layers.layer_selection import LayerSelection
from hf_nlpnotes.layers.scalar_mix import ScalarMix
from hf_nlpnotes.models.chinesebert import ChineseBertModel, ChineseBertTokenizer
from hf_nlpnotes.models.layer_selection import (
    LayerSelectionConfig,
    LayerSelectionForQuestionAnswering,
    LayerSelectionForSequenceClassification,
    LayerSelectionForTokenClassification,
    LayerSelectionModel,
)

HEADS = {
    AutoModelForSequenceClassification: LayerSelectionForSequenceClassification,
    AutoModelForTokenClassification: LayerSelectionForTokenClassification,
    AutoModelForQuestionAnswering: LayerSelectionForQuestionAnswering,
}
COMMON = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "pad_token_id": 0,
}
ENCODERS = {
    "albert": {"embedding_size": 16},
    "bert": {},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8},
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64},
    "electra": {"embedding_size": 16},
    "modernbert": {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
    "roberta": {},
    "xlm-roberta": {},
}
PEFT_ASKS = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
TEXTS = ["我喜欢猫", "国足今晚出战，很好", "股票涨跌", "北京大学老师开心"]


@pytest.fixture(scope="module", params=ENCODERS)
def encoder_folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(request.param, **COMMON, **ENCODERS[request.param])).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    BertModel(BertConfig(**COMMON, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)).save_pretrained(folder)
    return folder


@pytest.fixture
def tokenizer(tiny_chinesebert_folder):
    return AutoTokenizer.from_pretrained(tiny_chinesebert_folder)


def tokens() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 100, (2, 7), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return {"input_ids": ids.masked_fill(mask == 0, 0), "attention_mask": mask}


def build(folder, selection="mix", head=LayerSelectionForSequenceClassification, **options):
    torch.manual_seed(1)
    return head.from_encoder(folder, selection=selection, **options)


# ------------------------------------------------------------------------------------------------------------- result


@pytest.mark.parametrize("selection", ["embeddings", "layer:2", "top", "last:2:mean", "last:2:concat", "mix"])
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # of the models' own code
def test_a_head_on_stock_hidden_states_is_the_same(encoder_folder, selection) -> None:
    batch = tokens()
    with torch.no_grad():
        states = AutoModel.from_pretrained(encoder_folder)(**batch, output_hidden_states=True).hidden_states
        chosen = LayerSelection.parse(selection)
        features = ScalarMix(4)(states) if selection == "mix" else chosen.select(states)
        mask = batch["attention_mask"][..., None]
        vectors = {
            "cls": features[:, 0],
            "mean": (features * mask).sum(dim=1) / mask.sum(dim=1),
            "max": features.masked_fill(mask == 0, -torch.inf).amax(dim=1),
        }
        for pooling, vector in vectors.items():
            model = build(encoder_folder, selection, num_labels=3, token_pooling=pooling)
            torch.testing.assert_close(model(**batch).logits, model.classifier(vector), rtol=1e-5, atol=1e-5)
        tagger = build(encoder_folder, selection, LayerSelectionForTokenClassification, num_labels=5)
        torch.testing.assert_close(tagger(**batch).logits, tagger.classifier(features), rtol=1e-5, atol=1e-5)
        answers = build(encoder_folder, selection, LayerSelectionForQuestionAnswering)
        found = answers(**batch)
        expected = answers.qa_outputs(features)
        torch.testing.assert_close(
            torch.stack([found.start_logits, found.end_logits], -1), expected, rtol=1e-5, atol=1e-5
        )


def test_losses_are_those_of_torch(bert_folder) -> None:
    batch = tokens()
    model = build(bert_folder, num_labels=3).eval()
    logits = model(**batch).logits
    labels = torch.tensor([2, 0])
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert model(**batch, labels=labels).loss.item() == pytest.approx(expected.mean().item(), rel=1e-6)
    found = model(**batch, labels=labels, num_items_in_batch=torch.tensor(5)).loss
    assert found.item() == pytest.approx(expected.sum().item() / 5, rel=1e-6)

    regression = build(bert_folder, num_labels=1)
    scores = regression(**batch).logits[:, 0]
    goals = torch.tensor([0.5, -1.0])
    found = regression(**batch, labels=goals, num_items_in_batch=4).loss
    assert found.item() == pytest.approx((scores - goals).square().sum().item() / 4, rel=1e-6)
    assert regression.config.problem_type == "regression"

    several = build(bert_folder, num_labels=3)
    found = several(**batch, labels=torch.tensor([[1.0, 0, 1], [0, 0, 1]])).loss
    probabilities = several(**batch).logits.sigmoid()
    goals = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    expected = -(goals * probabilities.log() + (1 - goals) * (1 - probabilities).log()).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)

    tagger = build(bert_folder, head=LayerSelectionForTokenClassification, num_labels=3)
    labels = torch.randint(0, 3, (2, 7)).masked_fill(batch["attention_mask"] == 0, -100)
    logits = tagger(**batch).logits
    expected = torch.nn.functional.cross_entropy(logits[labels >= 0], labels[labels >= 0])
    assert tagger(**batch, labels=labels).loss.item() == pytest.approx(expected.item(), rel=1e-6)

    answers = build(bert_folder, head=LayerSelectionForQuestionAnswering)
    outputs = answers(**batch, start_positions=torch.tensor([1, 99]), end_positions=torch.tensor([3, 2]))
    start = -outputs.start_logits.log_softmax(-1)[0, 1]  # 99 is outside
    end = -(outputs.end_logits.log_softmax(-1)[0, 3] + outputs.end_logits.log_softmax(-1)[1, 2]) / 2
    assert outputs.loss.item() == pytest.approx(((start + end) / 2).item(), rel=1e-6)


def test_attentions_and_hidden_states_on_demand(bert_folder) -> None:
    model = build(bert_folder, "layer:1", attn_implementation="eager")
    outputs = model(**tokens(), output_attentions=True, output_hidden_states=True)
    assert len(outputs.attentions) == 3
    assert len(outputs.hidden_states) == 4
    assert model(**tokens()).hidden_states is None
    assert torch.equal(model(**tokens(), return_dict=False)[0], outputs.logits)


# -------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("auto_class", HEADS)
def test_folders_load_by_the_auto_classes(encoder_folder, auto_class, tmp_path) -> None:
    model = build(encoder_folder, "mix", HEADS[auto_class], mix_dropout=0.2, mix_layer_norm=True)
    with torch.no_grad():
        model.model.mix.scalars.normal_()
        model.model.mix.gamma.fill_(0.3)
    model.save_pretrained(tmp_path)
    again, report = auto_class.from_pretrained(tmp_path, output_loading_info=True)
    assert type(again) is HEADS[auto_class]
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert again.config.to_dict() == AutoConfig.from_pretrained(tmp_path).to_dict()
    assert again.model.mix.dropout == 0.2
    assert again.model.mix.layer_norm
    assert {name: tensor.tolist() for name, tensor in again.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in model.state_dict().items()
    }
    assert torch.equal(again(**tokens())[0], model(**tokens())[0])
    body = AutoModel.from_pretrained(tmp_path)
    assert type(body) is LayerSelectionModel
    assert torch.equal(body(**tokens())[0], model.model(**tokens())[0])


def test_a_fresh_process_with_a_pipeline(tiny_chinesebert_folder, tokenizer, tmp_path) -> None:
    model = build(tiny_chinesebert_folder, "last:2:mix", num_labels=3)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    program = (
        "import hf_nlpnotes, json, sys; from transformers import pipeline\n"
        "classify = pipeline('text-classification', model=sys.argv[1], top_k=None)\n"
        "print(json.dumps([type(classify.model).__name__, type(classify.tokenizer).__name__, classify(sys.argv[2:])]))"
    )
    command = [sys.executable, "-c", program, str(tmp_path), *TEXTS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    model_name, tokenizer_name, answers = json.loads(done.stdout.splitlines()[-1])
    assert model_name == "LayerSelectionForSequenceClassification"
    assert tokenizer_name == "ChineseBertTokenizer"
    with torch.no_grad():
        expected = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits.softmax(-1)
    for answer, row in zip(answers, expected, strict=True):
        found = {entry["label"]: entry["score"] for entry in answer}
        np.testing.assert_allclose([found[f"LABEL_{i}"] for i in range(3)], row.numpy(), atol=1e-5)


def test_the_token_classification_pipeline(tiny_chinesebert_folder, tokenizer, tmp_path) -> None:
    model = build(tiny_chinesebert_folder, "mix", LayerSelectionForTokenClassification, num_labels=3)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = pipeline("token-classification", model=str(tmp_path), ignore_labels=[])("我喜欢猫")
    with torch.no_grad():
        expected = model(**tokenizer("我喜欢猫", return_tensors="pt")).logits[0, 1:-1].softmax(-1)
    np.testing.assert_allclose([entry["score"] for entry in found], expected.amax(-1).numpy(), atol=1e-5)


def test_pinyin_is_passed_on(tiny_chinesebert_folder, tokenizer) -> None:
    model = build(tiny_chinesebert_folder)
    batch = tokenizer(["银行行长"], return_tensors="pt")
    assert isinstance(model.encoder_model, ChineseBertModel)
    assert isinstance(tokenizer, ChineseBertTokenizer)
    blank = {**batch, "pinyin_ids": torch.zeros_like(batch["pinyin_ids"])}
    assert not torch.allclose(model(**batch).logits, model(**blank).logits)


def test_the_encoder_of_a_saved_model_is_taken(bert_folder, tmp_path) -> None:
    first = build(bert_folder, "layer:1", num_labels=2)
    with torch.no_grad():
        first.encoder_model.embeddings.word_embeddings.weight.fill_(0.5)
    first.save_pretrained(tmp_path)
    second = build(tmp_path, "mix", LayerSelectionForTokenClassification, num_labels=7)
    assert type(second.encoder_model) is BertModel
    for mine, theirs in zip(second.encoder_model.parameters(), first.encoder_model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert all(parameter.requires_grad for parameter in second.parameters())


# ----------------------------------------------------------------------------------------------------------- training


def test_weights_that_accelerate_keeps_elsewhere(bert_folder) -> None:
    model = build(bert_folder).eval()
    torch.nn.init.normal_(model.model.mix.scalars)
    weights = model.model.mix.weights()
    with torch.no_grad():
        logits = model(**tokens()).logits
    cpu_offload(model, execution_device="cpu")
    assert model.model.mix.scalars.is_meta
    with torch.no_grad():
        torch.testing.assert_close(model(**tokens()).logits, logits)
    assert torch.equal(model.model.mix.weights(), weights)


def test_the_signature_names_the_columns_of_the_encoder(bert_folder, tiny_chinesebert_folder) -> None:
    mine = inspect.signature(build(tiny_chinesebert_folder).forward).parameters
    assert {"input_ids", "attention_mask", "labels", "pinyin_ids", "token_type_ids"} <= set(mine)
    other = inspect.signature(build(bert_folder).forward).parameters
    assert "pinyin_ids" not in other
    assert "token_type_ids" in other
    assert "self" not in mine
    assert "output_attentions" not in inspect.signature(build(bert_folder).forward).parameters
    layoutlm = AutoConfig.for_model("layoutlm", **COMMON)
    model = LayerSelectionForTokenClassification(LayerSelectionConfig(text_config=layoutlm))
    assert "bbox" in inspect.signature(model.forward).parameters
    assert "bbox" in inspect.signature(model.model.forward).parameters


def arguments(folder, **options) -> TrainingArguments:
    defaults = {
        "per_device_train_batch_size": 4,
        "max_steps": 1,
        "learning_rate": 0.1,
        "optim": "sgd",
        "max_grad_norm": 1e9,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(output_dir=str(folder), **{**defaults, **options})


@pytest.mark.parametrize("peft", [False, True])
@pytest.mark.filterwarnings(PEFT_ASKS)
def test_the_trainer_keeps_pinyin(tiny_chinesebert_folder, tokenizer, tmp_path, peft) -> None:
    data = Dataset.from_dict({"text": TEXTS, "labels": [0, 1, 1, 0], "nothing": [0] * 4})
    data = data.map(lambda rows: tokenizer(rows["text"]), batched=True)
    model = build(tiny_chinesebert_folder)
    if peft:
        model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS"))
    trainer = Trainer(model, arguments(tmp_path), DataCollatorWithPadding(tokenizer), data)
    batch = next(iter(trainer.get_train_dataloader()))
    assert set(batch) == {"input_ids", "pinyin_ids", "token_type_ids", "attention_mask", "labels"}


@pytest.mark.parametrize("head", HEADS.values())
def test_accumulation_does_not_change_the_gradient(head, bert_folder, tmp_path) -> None:
    """Equal parts, so that a head that does not count labels (answers) must agree too."""
    random = np.random.default_rng(0)
    rows = [{"input_ids": random.integers(3, 100, 6).tolist(), "attention_mask": [1] * 6} for _ in range(8)]
    for row in rows:
        if head is LayerSelectionForQuestionAnswering:
            row |= {"start_positions": int(random.integers(6)), "end_positions": int(random.integers(6))}
        elif head is LayerSelectionForTokenClassification:
            row["labels"] = [int(label) for label in random.integers(0, 2, 6)]
        else:
            row["labels"] = int(random.integers(2))
    norms = []
    for parts in (1, 4):
        model = build(bert_folder, head=head, classifier_dropout=0.0)
        options = arguments(tmp_path, per_device_train_batch_size=8 // parts, gradient_accumulation_steps=parts)
        trainer = Trainer(model, options, train_dataset=rows)
        trainer.train()
        norms.append(next(entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry))
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_the_weights_of_the_mix_learn(bert_folder) -> None:
    """A label that stands in the embeddings alone: the mix turns to them."""
    model = build(bert_folder, num_labels=2, token_pooling="mean", classifier_dropout=0.0).train()
    model.encoder_model.requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    before = model.model.mix.weights()
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        ids = torch.randint(3, 100, (16, 6), generator=generator)
        labels = torch.randint(0, 2, (16,), generator=generator)
        ids[:, 3] = labels + 1
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.2
    assert not torch.allclose(model.model.mix.weights(), before, atol=0.02)
    assert model.model.mix.weights().sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.skipif(
    "__call__" in vars(GradientCheckpointingLayer), reason="this transformers' checkpoints take in hooks: refused"
)
def test_activation_checkpointing(bert_folder) -> None:
    model, batch, labels = build(bert_folder, classifier_dropout=0.0).train(), tokens(), torch.tensor([0, 1])
    parameters = [p for p in model.parameters() if p.requires_grad]
    plain = torch.autograd.grad(model(**batch, labels=labels).loss, parameters)
    getattr(model, f"{CHECKPOINTING}_enable")()
    assert getattr(model, f"is_{CHECKPOINTING}")
    found = torch.autograd.grad(model(**batch, labels=labels).loss, parameters)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-7)


def test_what_is_above_the_selection_is_frozen(encoder_folder, tmp_path) -> None:
    model = build(encoder_folder, "layer:1", LayerSelectionForTokenClassification)
    model(**tokens()).logits.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.save_pretrained(tmp_path)
    again = LayerSelectionForTokenClassification.from_pretrained(tmp_path)
    assert {name for name, parameter in again.named_parameters() if parameter.requires_grad} == trained
    if "albert" not in str(encoder_folder):
        assert len(trained) < len(list(model.named_parameters()))


def test_all_is_trained_where_all_layers_are_read(encoder_folder) -> None:
    model = build(encoder_folder, "mix", LayerSelectionForTokenClassification).train()
    model(**tokens()).logits.square().sum().backward()
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == []
    assert [name for name, p in model.named_parameters() if p.grad is None] == []  # and there is no pooler


@pytest.mark.filterwarnings(PEFT_ASKS)
class TestPeft:
    def test_lora_trains_the_mix_and_travels(self, tiny_chinesebert_folder, tokenizer, tmp_path) -> None:
        base = tmp_path / "base"
        build(tiny_chinesebert_folder, num_labels=3).save_pretrained(base)
        model = get_peft_model(
            AutoModelForSequenceClassification.from_pretrained(base),
            LoraConfig(task_type="SEQ_CLS", modules_to_save=["mix", "classifier"]),
        )
        adapted = {name for name, _ in model.named_modules() if name.endswith("lora_A.default")}
        assert len(adapted) == 2 * 2  # query and value in both layers
        batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
        for _ in range(3):
            model(**batch, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        mix = model.base_model.model.model.mix
        assert not torch.allclose(mix.weights(), torch.full((3,), 1 / 3), atol=1e-5)
        model.eval()
        model.save_pretrained(tmp_path / "adapter")
        again = PeftModel.from_pretrained(
            AutoModelForSequenceClassification.from_pretrained(base), tmp_path / "adapter"
        ).eval()
        with torch.no_grad():
            expected = model(**batch).logits
            torch.testing.assert_close(again(**batch).logits, expected)
            torch.testing.assert_close(again.merge_and_unload()(**batch).logits, expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # of the models' own code
    def test_default_targets_fit_every_family(self, encoder_folder) -> None:
        model = get_peft_model(build(encoder_folder), LoraConfig(task_type="SEQ_CLS"))
        model(**tokens(), labels=torch.tensor([0, 1])).loss.backward()
        trained = [name for name, p in model.named_parameters() if p.requires_grad and "lora_B" in name]
        assert trained
        assert all(model.get_parameter(name).grad is not None for name in trained)


# ------------------------------------------------------------------------------------------------- types and the rest


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(bert_folder, dtype) -> None:
    whole, half = build(bert_folder).eval(), build(bert_folder, dtype=dtype).eval()
    half.load_state_dict({name: tensor.to(dtype) for name, tensor in whole.state_dict().items()})
    assert {parameter.dtype for parameter in half.parameters()} == {dtype}
    assert half.config.dtype == dtype
    outputs = half(**tokens(), labels=torch.tensor([0, 1]))
    assert outputs.logits.dtype == dtype
    outputs.loss.backward()
    torch.testing.assert_close(outputs.logits.float(), whole(**tokens()).logits, rtol=0.05, atol=0.02)


def test_autocast(bert_folder) -> None:
    model = build(bert_folder).eval()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(**tokens(), labels=torch.tensor([0, 1]))
    outputs.loss.backward()
    assert model.model.mix.scalars.grad.isfinite().all()
    torch.testing.assert_close(outputs.logits.float(), model(**tokens()).logits, rtol=0.05, atol=0.02)


def test_sdpa_is_eager(encoder_folder) -> None:
    eager = build(encoder_folder, attn_implementation="eager")
    assert eager.encoder_model.config._attn_implementation == "eager"
    try:
        sdpa = build(encoder_folder, attn_implementation="sdpa")
    except ValueError:
        pytest.skip("this encoder has no sdpa")
    assert sdpa.encoder_model.config._attn_implementation == "sdpa"
    sdpa.load_state_dict(eager.state_dict())
    torch.testing.assert_close(sdpa(**tokens()).logits, eager(**tokens()).logits, rtol=1e-4, atol=1e-5)


def test_the_attention_is_that_asked_for(bert_folder, tmp_path) -> None:
    build(bert_folder).save_pretrained(tmp_path)
    for asked in ("eager", "sdpa"):
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path, attn_implementation=asked)
        assert model.encoder_model.config._attn_implementation == asked
        assert model.config.text_config is model.encoder_model.config
    model.set_attn_implementation("eager")
    assert model.encoder_model.config._attn_implementation == "eager"
    live = BertConfig(**COMMON, attn_implementation="eager")
    config = LayerSelectionConfig(text_config=live)
    assert live._attn_implementation == "eager"
    assert LayerSelectionModel(config).encoder.config._attn_implementation == "eager"


@pytest.mark.parametrize("kind", ["bert", "chinesebert"])
def test_the_vocabulary_grows(kind, bert_folder, tiny_chinesebert_folder, tmp_path) -> None:
    model = build(bert_folder if kind == "bert" else tiny_chinesebert_folder)
    size = model.config.vocab_size
    model.resize_token_embeddings(size + 3)
    assert model.config.vocab_size == model.config.text_config.vocab_size == size + 3
    assert model.get_input_embeddings().num_embeddings == size + 3
    batch = {"input_ids": torch.tensor([[1, size + 2]])}
    expected = model(**batch).logits
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(again(**batch).logits, expected)


def test_compiled_in_one_graph(tiny_chinesebert_folder, tokenizer) -> None:
    model = build(tiny_chinesebert_folder)
    batch = dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))
    with torch.no_grad():
        expected = model(**batch).logits
        found = torch.compile(model, backend="eager", fullgraph=True)(**batch).logits
    torch.testing.assert_close(found, expected)


def test_buffers_that_ddp_need_not_send_are_named_from_the_top(tiny_chinesebert_folder) -> None:
    model = build(tiny_chinesebert_folder)
    names = {name for name, _ in model.named_buffers()}
    assert names
    assert set(model._ddp_params_and_buffers_to_ignore) == names


# -------------------------------------------------------------------------------------------------------------- errors


def test_bad_configurations() -> None:
    bert = BertConfig(**COMMON)
    with pytest.raises(ValueError, match="selects layer 4, and the encoder has 3"):
        LayerSelectionConfig(text_config=bert, selection="layer:4")
    with pytest.raises(ValueError, match="'tops' is no selection"):
        LayerSelectionConfig(text_config=bert, selection="tops")
    with pytest.raises(ValueError, match=r"mix_dropout must lie in \[0, 1\), got 1.5"):
        LayerSelectionConfig(text_config=bert, mix_dropout=1.5)
    with pytest.raises(ValueError, match="no model_type"):
        LayerSelectionConfig(text_config={"hidden_size": 3})
    with pytest.raises(ValueError, match="of a t5, an encoder-decoder"):
        LayerSelectionConfig(text_config=T5Config())
    with pytest.raises(
        StrictDataclassFieldValidationError, match="expected one of \\('cls', 'mean', 'max'\\), got first"
    ):
        LayerSelectionConfig(text_config=bert, token_pooling="first")


def test_the_configuration_by_itself(tmp_path) -> None:
    config = LayerSelectionConfig(text_config=BertConfig(**COMMON), selection="last:2:concat", num_labels=4)
    assert (config.feature_size, config.hidden_size, config.num_hidden_layers) == (64, 32, 3)
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert {**again.to_dict(), "_name_or_path": ""} == config.to_dict()
    assert type(again.text_config) is BertConfig
    assert again.get_text_config() is again.text_config
    assert LayerSelectionConfig().text_config.model_type == "bert"
    assert str(config.layer_selection) == config.selection


def test_an_encoder_decoder_is_refused(tmp_path) -> None:
    T5Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a t5, an encoder-decoder"):
        LayerSelectionForSequenceClassification.from_encoder(tmp_path)


def test_pooling_needs_a_mask_of_tokens(bert_folder) -> None:
    model = build(bert_folder, token_pooling="mean")
    with pytest.raises(ValueError, match="Pooling by mean needs an attention mask"):
        model(input_ids=tokens()["input_ids"], attention_mask=torch.ones(2, 1, 7, 7))
