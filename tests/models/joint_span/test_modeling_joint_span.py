"""The joint head on encoders: through files, the Trainer and PEFT."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForQuestionAnswering,
    BertConfig,
    BertModel,
    Trainer,
    TrainingArguments,
)

from hf_nlpnotes.models.chinesebert import ChineseBertModel
from hf_nlpnotes.models.joint_span import JointSpanConfig, JointSpanForQuestionAnswering
from hf_nlpnotes.models.layer_selection import LayerSelectionForQuestionAnswering


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def model(bert_folder):
    torch.manual_seed(0)
    return JointSpanForQuestionAnswering.from_encoder(bert_folder, pair_size=8)


def inputs(batch=2, length=10):
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[-1, -3:] = 0
    return {"input_ids": torch.randint(1, 60, (batch, length), generator=generator), "attention_mask": mask}


def trained(model):
    torch.manual_seed(1)
    torch.nn.init.normal_(model.pairs.last.weight)
    return model


def test_a_new_head_scores_pairs_by_their_ends(model):
    outputs = model(**inputs())
    expected = outputs.start_logits[0, :, None] + outputs.end_logits[0, None, :]
    upper = torch.ones(10, 10, dtype=torch.bool).triu()
    torch.testing.assert_close(outputs.span_logits[0][upper], expected[upper])


def test_the_loss_is_that_of_the_ends_and_that_of_the_pair(model, bert_folder):
    trained(model)
    labels = {"start_positions": torch.tensor([2, 4]), "end_positions": torch.tensor([5, 4])}
    outputs = model(**inputs(), **labels)
    ends = LayerSelectionForQuestionAnswering.from_encoder(bert_folder, "top")
    ends.qa_outputs.load_state_dict(model.qa_outputs.state_dict())
    spans = outputs.span_logits.flatten(1).log_softmax(dim=1).view(2, 10, 10)
    pair = -(spans[0, 2, 5] + spans[1, 4, 4]) / 2
    assert outputs.loss.item() == pytest.approx((ends(**inputs(), **labels).loss + pair).item(), rel=1e-5)
    outputs.loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_an_answer_outside_of_the_window_does_not_count(model):
    labels = {"start_positions": torch.tensor([10, 10]), "end_positions": torch.tensor([10, 10])}
    assert model(**inputs(), **labels).loss.item() == 0


def test_files_keep_the_answers(model, tmp_path):
    trained(model).save_pretrained(tmp_path)
    again = AutoModelForQuestionAnswering.from_pretrained(tmp_path)
    assert type(again) is JointSpanForQuestionAnswering
    assert again.config.pair_size == 8
    torch.testing.assert_close(again(**inputs()).span_logits, model(**inputs()).span_logits)


def test_a_head_that_the_checkpoint_lacks_begins_as_the_stock_head(bert_folder, tmp_path):
    LayerSelectionForQuestionAnswering.from_encoder(bert_folder, "top").save_pretrained(tmp_path)
    config = JointSpanConfig.from_pretrained(tmp_path)
    model = JointSpanForQuestionAnswering.from_pretrained(tmp_path, config=config)
    assert model.pairs.last.weight.eq(0).all()
    assert model.pairs.first.weight.ne(0).any()


def test_layers_are_selected(bert_folder):
    model = JointSpanForQuestionAnswering.from_encoder(bert_folder, "mix", mix_dropout=0.1)
    assert model.config.selection == "mix"
    assert model.model.mix is not None
    lower = JointSpanForQuestionAnswering.from_encoder(bert_folder, "layer:1")
    assert not any(p.requires_grad for p in lower.encoder_model.encoder.layer[1].parameters())


def test_pinyin_reaches_a_chinesebert(tiny_chinesebert_folder):
    model = trained(JointSpanForQuestionAnswering.from_encoder(tiny_chinesebert_folder))
    assert isinstance(model.encoder_model, ChineseBertModel)
    ids = torch.tensor([[2, 100, 101, 102, 3]])
    outputs = [model(input_ids=ids, pinyin_ids=torch.full_like(ids, row)).span_logits for row in (1, 2)]
    assert not torch.equal(*outputs)


def test_the_stock_trainer_trains_it_and_collects_no_pairs(model, tmp_path):
    # The first answer is between a 7 and an 8, wherever they stand.
    generator = torch.Generator().manual_seed(3)
    rows = []
    for _ in range(32):
        ids = torch.randint(10, 60, (12,), generator=generator)
        first = int(torch.randint(0, 8, (), generator=generator))
        last = first + int(torch.randint(1, 4, (), generator=generator))
        ids[first], ids[last] = 7, 8
        rows.append({"input_ids": ids.tolist(), "start_positions": first, "end_positions": last})
    data = Dataset.from_list(rows)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        learning_rate=5e-3,
        num_train_epochs=15,
        per_device_train_batch_size=16,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model, arguments, train_dataset=data, eval_dataset=data)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    predictions = trainer.predict(data)
    assert [part.shape for part in predictions.predictions] == [(32, 12), (32, 12)]
    assert predictions.metrics["test_loss"] < 0.5 * before
    with torch.no_grad():
        spans = model.eval()(input_ids=torch.tensor(data["input_ids"][:])).span_logits
    best = [divmod(int(place), 12) for place in spans.flatten(1).argmax(dim=1)]
    right = sum(pair == (row["start_positions"], row["end_positions"]) for pair, row in zip(best, rows, strict=True))
    assert right >= 24


def test_peft_finds_what_to_adapt(model):
    adapted = get_peft_model(model, LoraConfig(task_type="QUESTION_ANS", modules_to_save=["qa_outputs", "pairs"]))
    adapted(**inputs()).start_logits.sum().backward()
    assert any("lora" in name and p.grad is not None for name, p in adapted.named_parameters())


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_that_is_none(size):
    with pytest.raises(ValueError, match="pair_size"):
        JointSpanConfig(pair_size=size)
