"""Several heads on one encoder: gradients against stock models, folders against stock loading."""

import copy
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    RobertaConfig,
    RobertaForTokenClassification,
    pipeline,
)

from hf_nlpnotes.training.multi_task import MultiTaskModel
from hf_nlpnotes.training.multi_task_data import MultiTaskDataset, TaskExample, task_datasets
from hf_nlpnotes.training.two_stage import carry_encoder

WORKER = Path(__file__).with_name("multi_task_worker.py")
BERT = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("multi_task_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model(worker: ModuleType, tiny_chinesebert_folder: Path) -> MultiTaskModel:
    return worker.make_model(tiny_chinesebert_folder)


@pytest.fixture
def batches(worker: ModuleType, tiny_chinesebert_folder: Path, model: MultiTaskModel) -> dict[str, dict[str, Any]]:
    tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
    collator = model.data_collator(tokenizer)
    data = worker.make_data(tokenizer)
    return {task: collator([TaskExample(task, row) for row in rows[:4]]) for task, rows in data.items()}


def berts() -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "tag": BertForTokenClassification(BertConfig(**BERT, num_labels=4)),
        "class": BertForSequenceClassification(BertConfig(**BERT, num_labels=3)),
    }


class TestModel:
    def test_all_heads_run_one_encoder(self, model: MultiTaskModel, batches: dict[str, dict[str, Any]]) -> None:
        """Each against a stock model with copies of the weights."""
        model.eval()
        for task, batch in batches.items():
            stock = copy.deepcopy(model.task_model(task))
            inputs = {name: value for name, value in batch.items() if name not in {"task", "labels"}}
            expected, found = stock(**inputs), model(**batch)
            assert expected.keys() == found.keys() - {"loss"}
            assert all(torch.equal(expected[name], found[name]) for name in expected)
        with torch.no_grad():
            model.encoder.embeddings.word_embeddings.weight.add_(1)
        for task, batch in batches.items():
            assert model.task_model(task).base_model is model.encoder
            assert model.heads[task].bert is model.encoder
            assert model(**batch).loss.isfinite()

    def test_each_weight_has_one_name(self, model: MultiTaskModel) -> None:
        names = list(model.state_dict())
        assert [name for name in names if not name.startswith(("bert.", "heads."))] == []
        assert len({tensor.data_ptr() for tensor in model.state_dict().values()}) == len(names)
        assert "heads.ner.classifier.weight" in names

    def test_a_step_moves_its_own_head_alone(self, model: MultiTaskModel, batches: dict[str, dict[str, Any]]) -> None:
        model.train()(**batches["ner"]).loss.backward()
        with_gradient = {name for name, weight in model.named_parameters() if weight.grad is not None}
        assert {name for name in with_gradient if name.startswith("heads.")} == {
            "heads.ner.classifier.weight",
            "heads.ner.classifier.bias",
        }
        assert "bert.encoder.layer.0.output.dense.weight" in with_gradient
        assert not any("pooler" in name for name in with_gradient)

    def test_the_encoder_is_one_with_all_parts(self) -> None:
        """Taggers of BERT have no pooler; the classifier's encoder is taken, though it is the second."""
        models = berts()
        pooler = models["class"].bert.pooler
        multi = MultiTaskModel(models)
        assert isinstance(multi.encoder, BertModel)
        assert multi.encoder.pooler is pooler
        assert multi.heads["tag"].bert is multi.encoder

    def test_modes_and_devices_reach_everything(self, model: MultiTaskModel) -> None:
        model.train()
        assert all(module.training for task in model.tasks for module in model.task_model(task).modules())
        model.eval()
        assert not any(module.training for task in model.tasks for module in model.task_model(task).modules())
        assert {weight.dtype for weight in model.double().parameters()} == {torch.float64}

    def test_a_copy_shares_its_own_encoder(self, model: MultiTaskModel) -> None:
        other = copy.deepcopy(model)
        assert other.heads["ner"].bert is other.encoder
        assert other.encoder is not model.encoder

    def test_a_masked_language_model_among_the_tasks_stays_tied(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        models = {"class": berts()["class"], "masked": BertForMaskedLM(BertConfig(**BERT))}
        multi = MultiTaskModel(models).eval()
        embeddings = multi.encoder.embeddings.word_embeddings.weight
        assert multi.heads["masked"].cls.predictions.decoder.weight is embeddings
        multi.save_pretrained(tmp_path)
        again = MultiTaskModel.from_pretrained(tmp_path)
        assert again.heads["masked"].cls.predictions.decoder.weight is again.encoder.embeddings.word_embeddings.weight
        tokens = torch.arange(12).view(2, 6)
        assert torch.equal(multi("masked", input_ids=tokens).logits, again("masked", input_ids=tokens).logits)

    @pytest.mark.parametrize("name", ["", "a.b", "a/b", "keys", "a b"])
    def test_names_that_cannot_be(self, name: str) -> None:
        with pytest.raises(ValueError, match="cannot name a task"):
            MultiTaskModel({name: berts()["tag"]})

    def test_models_that_cannot_share(self) -> None:
        other = RobertaForTokenClassification(RobertaConfig(**BERT))
        with pytest.raises(ValueError, match="differ in class or size"):
            MultiTaskModel({"tag": berts()["tag"], "other": other})
        wide = BertForTokenClassification(BertConfig(**{**BERT, "intermediate_size": 32}))
        with pytest.raises(ValueError, match="differ in class or size"):
            MultiTaskModel({"tag": berts()["tag"], "wide": wide})
        with pytest.raises(TypeError, match="Linear: expected a model of transformers"):
            MultiTaskModel({"linear": torch.nn.Linear(2, 2)})
        with pytest.raises(ValueError, match="is not one head around one encoder"):
            MultiTaskModel({"bare": BertModel(BertConfig(**BERT))})
        with pytest.raises(ValueError, match="models is empty"):
            MultiTaskModel({})

        class Own(BertForTokenClassification):
            pass

        with pytest.raises(ValueError, match=r"AutoModelForSequenceClassification.register\(BertConfig, Own\)"):
            MultiTaskModel({"own": Own(BertConfig(**BERT))})

    def test_names_of_no_task(self, model: MultiTaskModel, batches: dict[str, dict[str, Any]]) -> None:
        with pytest.raises(ValueError, match=r"task is one of \['sentiment', 'ner', 'answer', 'stars'\], got 'x'"):
            model(**{**batches["ner"], "task": "x"})
        with pytest.raises(ValueError, match="loss_weights names 'x'"):
            MultiTaskModel(berts(), {"x": 1.0})
        with pytest.raises(ValueError, match="functions names 'x'"):
            model.task_metrics({"x": dict})
        with pytest.raises(ValueError, match="task names 'x'"):
            model.task_model("x")


class TestLoss:
    def test_weights_count_in_training_alone(self, model: MultiTaskModel, batches: dict[str, dict[str, Any]]) -> None:
        for task, batch in batches.items():
            plain = model.eval()(**batch).loss
            torch.testing.assert_close(model.train()(**batch).loss, plain * model.loss_weights[task])
        assert model.loss_weights == {"sentiment": 1.0, "ner": 2.0, "answer": 0.5, "stars": 1.0}

    @pytest.mark.parametrize("task", ["sentiment", "ner", "answer", "stars"])
    def test_parts_of_a_step_add_up_to_its_mean(
        self, model: MultiTaskModel, batches: dict[str, dict[str, Any]], task: str
    ) -> None:
        """Parts of 1, 0, …, n labels, each told how many there are in all."""
        model.eval().double()
        batch = batches[task]
        items = batch["labels"].ne(-100).sum()
        rows = [
            {name: value if name == "task" else value[row : row + 1] for name, value in batch.items()}
            for row in range(4)
        ]
        parts = sum(model(**row, num_items_in_batch=items).loss for row in rows)
        torch.testing.assert_close(parts, model(**batch).loss, rtol=1e-6, atol=1e-6)

    def test_stock_heads_that_ignore_the_number_of_labels(self) -> None:
        """BERT's heads return a mean whatever they are told; here the number scales it."""
        multi = MultiTaskModel(berts()).eval()
        tokens, labels = torch.arange(12).view(2, 6), torch.tensor([[1, 2, -100, -100, -100, -100], [0] * 6])
        logits = multi("tag", input_ids=tokens).logits
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / 20
        found = multi("tag", input_ids=tokens, labels=labels, num_items_in_batch=torch.tensor(20)).loss
        torch.testing.assert_close(found, expected)

    def test_a_batch_without_labels_costs_nothing(self) -> None:
        """Its mean is nan, its gradient nought."""
        multi = MultiTaskModel(berts()).train()
        loss = multi("tag", input_ids=torch.ones(2, 3, dtype=torch.long), labels=torch.full((2, 3), -100)).loss
        loss.backward()
        assert loss == 0
        assert multi.heads["tag"].classifier.weight.grad.abs().max() == 0

    def test_accumulation_does_not_change_a_training(
        self, worker: ModuleType, tiny_chinesebert_folder: Path, tmp_path: Path
    ) -> None:
        runs = [
            worker.train(
                tiny_chinesebert_folder,
                tmp_path,
                dtype=torch.float64,
                per_device_train_batch_size=4 // parts,
                gradient_accumulation_steps=parts,
                max_steps=6,
            )
            for parts in (1, 4)
        ]
        assert runs[1]["tasks"] == [task for task in runs[0]["tasks"] for _ in range(4)]
        assert runs[1]["norms"] == pytest.approx(runs[0]["norms"], rel=1e-6)
        for name, weight in runs[0]["weights"].items():
            torch.testing.assert_close(weight, runs[1]["weights"][name], rtol=0, atol=1e-12)


class TestTrainer:
    def test_resume_in_the_middle_of_an_epoch_is_exact(
        self, worker: ModuleType, tiny_chinesebert_folder: Path, tmp_path: Path
    ) -> None:
        def trainer() -> Any:
            changes = {"hidden_dropout_prob": 0.3}
            options = {"save_strategy": "steps", "save_steps": 4, "max_steps": 20, "optim": "adamw_torch"}
            made, _ = worker.make_trainer(
                tiny_chinesebert_folder,
                tmp_path,
                worker.make_model(tiny_chinesebert_folder, **changes),
                per_device_train_batch_size=2,
                **options,
            )
            assert made.train_dataset.steps_per_epoch == 17
            return made

        whole = trainer()
        whole.train()
        resumed = trainer()
        torch.manual_seed(5)
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
        assert resumed.state.global_step == 20
        for name, weight in whole.model.state_dict().items():
            assert torch.equal(weight, resumed.model.state_dict()[name]), name

    def test_metrics_of_each_task(self, worker: ModuleType, tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
        """Against the stock Trainer with the task's stock model."""
        model = worker.make_model(tiny_chinesebert_folder)
        trainer, _ = worker.make_trainer(tiny_chinesebert_folder, tmp_path, model)
        metrics = trainer.evaluate()
        assert {"eval_sentiment_loss", "eval_ner_loss", "eval_answer_loss", "eval_stars_loss"} <= metrics.keys()
        tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
        data = worker.make_data(tokenizer)
        right = 0
        starts = 0
        for row in data["sentiment"]:
            logits = model.task_model("sentiment")(**tokenizer(row["text"], return_tensors="pt")).logits
            right += int(logits.argmax()) == row["label"]
        for row in data["answer"]:
            encoded = tokenizer(row["text"], return_tensors="pt", padding="max_length", max_length=16)
            starts += int(model.task_model("answer")(**encoded).start_logits.argmax()) == row["start_positions"]
        assert metrics["eval_sentiment_accuracy"] == pytest.approx(right / 12)
        assert metrics["eval_answer_starts"] == pytest.approx(starts / 7)
        one = trainer.predict(task_datasets(data)["ner"])
        assert one.predictions.shape == (9, 13, 3)

    def test_a_checkpoint_has_the_tokenizer(
        self, worker: ModuleType, tiny_chinesebert_folder: Path, tmp_path: Path, model: MultiTaskModel
    ) -> None:
        trainer, _ = worker.make_trainer(tiny_chinesebert_folder, tmp_path / "run", model)
        trainer.save_model(str(tmp_path / "saved"))
        assert AutoTokenizer.from_pretrained(tmp_path / "saved").vocab_size > 100

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
    def test_adapters_learn_on_the_shared_encoder(
        self, model: MultiTaskModel, worker: ModuleType, tiny_chinesebert_folder: Path, tmp_path: Path
    ) -> None:
        import peft

        config = peft.LoraConfig(target_modules=["query"], modules_to_save=["classifier", "qa_outputs"])
        adapted = peft.get_peft_model(model, config)
        trainer, seen = worker.make_trainer(tiny_chinesebert_folder, tmp_path, model, max_steps=8)
        trainer.model = trainer.model_wrapped = adapted
        before = {name: weight.clone() for name, weight in adapted.named_parameters()}
        trainer.train()
        moved = {name for name, weight in adapted.named_parameters() if not torch.equal(weight, before[name])}
        assert any("lora_B" in name for name in moved)
        assert all("lora" in name or "modules_to_save" in name for name in moved)
        for task in set(seen):
            assert any(f"heads.{task}." in name for name in moved), task


class TestCollator:
    def test_batches(self, batches: dict[str, dict[str, Any]]) -> None:
        assert {task: batch["task"] for task, batch in batches.items()} == {task: task for task in batches}
        assert batches["sentiment"]["labels"].shape == (4,)
        assert batches["ner"]["labels"].shape == batches["ner"]["input_ids"].shape
        assert batches["answer"]["labels"].shape == (4, 2)
        assert batches["stars"]["labels"].dtype == torch.float32
        assert all("text" not in batch and "pinyin_ids" in batch for batch in batches.values())

    def test_bad_batches(self, model: MultiTaskModel, tiny_chinesebert_folder: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
        collator = model.data_collator(tokenizer)
        row = dict(tokenizer("我"))
        with pytest.raises(ValueError, match=r"several tasks \(ner, sentiment\).*sequential"):
            collator([TaskExample("ner", row), TaskExample("sentiment", row)])
        with pytest.raises(TypeError, match="do not say their task"):
            collator([row])
        with pytest.raises(ValueError, match="No task is named 'x'"):
            collator([TaskExample("x", row)])
        with pytest.raises(ValueError, match="begin or end outside of the 3 tokens"):
            collator([TaskExample("answer", {**row, "start_positions": 1, "end_positions": 3})])
        with pytest.raises(ValueError, match="collators names 'x'"):
            model.data_collator(tokenizer, {"x": list})

    def test_a_masked_language_model_needs_its_own(self) -> None:
        multi = MultiTaskModel({"masked": BertForMaskedLM(BertConfig(**BERT))})
        with pytest.raises(ValueError, match="needs a collator that masks"):
            multi.data_collator(None)


class TestFolders:
    @pytest.fixture
    def folder(self, model: MultiTaskModel, tiny_chinesebert_folder: Path, tmp_path: Path) -> Path:
        model.eval().save_pretrained(tmp_path / "multi")
        AutoTokenizer.from_pretrained(tiny_chinesebert_folder).save_pretrained(tmp_path / "multi")
        return tmp_path / "multi"

    def test_shards(self, model: MultiTaskModel, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path, max_shard_size="20kB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 2
        again = MultiTaskModel.from_pretrained(tmp_path)
        assert all(torch.equal(again.state_dict()[name], weight) for name, weight in model.state_dict().items())

    def test_the_whole_model_comes_back_in_a_new_process(
        self, folder: Path, model: MultiTaskModel, batches: dict[str, dict[str, Any]]
    ) -> None:
        torch.save(batches, folder / "batches.pt")
        code = (
            "import sys, torch, hf_nlpnotes\n"
            "from hf_nlpnotes.training.multi_task import MultiTaskModel\n"
            "torch.set_num_threads(1)\n"
            "model = MultiTaskModel.from_pretrained(sys.argv[1])\n"
            "batches = torch.load(sys.argv[1] + '/batches.pt')\n"
            "torch.save((model.state_dict(), model.loss_weights, model.tasks,\n"
            "    {task: model(**batch).loss for task, batch in batches.items()}), sys.argv[1] + '/out.pt')\n"
        )
        subprocess.run([sys.executable, "-c", code, str(folder)], check=True, capture_output=True, timeout=300)
        weights, loss_weights, tasks, losses = torch.load(folder / "out.pt")
        assert weights.keys() == model.state_dict().keys()
        assert all(torch.equal(weights[name], weight) for name, weight in model.state_dict().items())
        assert (loss_weights, tasks) == (model.loss_weights, model.tasks)
        assert all(torch.equal(losses[task], model(**batch).loss) for task, batch in batches.items())

    def test_the_folder_is_a_stock_encoder(self, folder: Path, model: MultiTaskModel) -> None:
        encoder = AutoModel.from_pretrained(folder)
        for name, weight in encoder.state_dict().items():
            assert torch.equal(weight, model.encoder.state_dict()[name])
        assert AutoModelForTokenClassification.from_pretrained(folder, num_labels=7).config.num_labels == 7
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert config["architectures"] == ["ChineseBertModel"]
        assert "id2label" not in config

    @pytest.mark.parametrize(
        ("task", "auto_class"),
        [
            ("sentiment", AutoModelForSequenceClassification),
            ("ner", AutoModelForTokenClassification),
            ("answer", AutoModelForQuestionAnswering),
            ("stars", AutoModelForSequenceClassification),
        ],
    )
    def test_each_task_is_a_stock_folder(
        self, model: MultiTaskModel, batches: dict[str, dict[str, Any]], tmp_path: Path, task: str, auto_class: Any
    ) -> None:
        model.eval().save_task(tmp_path / task, task)
        stock, info = auto_class.from_pretrained(tmp_path / task, output_loading_info=True)
        assert not any(info.values())  # nothing missing, nothing too much
        assert type(stock) is type(model.heads[task])
        inputs = {name: value for name, value in batches[task].items() if name not in {"task", "labels"}}
        expected = model(task, **inputs)
        found = stock(**inputs)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert model.heads[task].bert is model.encoder  # still, after saving

    def test_pipelines_run_on_the_folders(
        self, model: MultiTaskModel, tiny_chinesebert_folder: Path, tmp_path: Path
    ) -> None:
        tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
        model.eval().save_task(tmp_path / "ner", "ner", tokenizer)
        tags = pipeline("token-classification", str(tmp_path / "ner"), ignore_labels=[])("国足今晚出战")
        assert [one["word"] for one in tags] == list("国足今晚出战")
        assert {one["entity"] for one in tags} <= {"O", "B-PER", "I-PER"}
        live = pipeline("token-classification", model.task_model("ner"), tokenizer=tokenizer, ignore_labels=[])
        assert live("国足今晚出战") == tags
        model.save_task(tmp_path / "ner", "sentiment", tokenizer)  # another in its place
        assert pipeline("text-classification", str(tmp_path / "ner"))("我")[0]["label"].startswith("LABEL_")

    def test_a_task_that_cannot_be_saved_leaves_no_folder(self, model: MultiTaskModel, tmp_path: Path) -> None:
        with pytest.raises(AttributeError):
            model.save_task(tmp_path / "ner", "ner", tokenizer=object())
        assert list(tmp_path.iterdir()) == []

    def test_weights_that_are_missing(self, folder: Path) -> None:
        stored = json.loads((folder / "multi_task.json").read_text(encoding="utf-8"))
        stored["tasks"]["other"] = stored["tasks"]["ner"]
        (folder / "multi_task.json").write_text(json.dumps(stored), encoding="utf-8")
        with pytest.raises(ValueError, match=r"has no classifier\.bias, classifier\.weight for the task 'other'"):
            MultiTaskModel.from_pretrained(folder)

    def test_a_folder_of_another_kind(self, tiny_chinesebert_folder: Path) -> None:
        with pytest.raises(OSError, match=r"multi_task\.json"):
            MultiTaskModel.from_pretrained(tiny_chinesebert_folder)

    def test_a_new_task_on_the_folder(self, folder: Path, model: MultiTaskModel) -> None:
        """The second stage after several tasks."""
        more = MultiTaskModel.from_encoder(folder, {"more": (AutoModelForMaskedLM, {})})
        for name, weight in more.encoder.state_dict().items():
            assert torch.equal(weight, model.encoder.state_dict()[name])
        assert [stage["source"] for stage in more.heads["more"].config.lineage][-1] == "multi"
        for source in (folder, model):
            alone, report = carry_encoder(source, AutoModelForSequenceClassification)
            assert torch.equal(alone.bert.pooler.dense.weight, model.encoder.pooler.dense.weight)
            assert {name for name in report.dropped if "ner" in name} == {
                "heads.ner.classifier.weight",
                "heads.ner.classifier.bias",
            }
        data = MultiTaskDataset({"more": [1]}, step_examples=1)
        assert data[0].task == "more"
