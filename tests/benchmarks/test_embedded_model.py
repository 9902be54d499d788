"""The sheet of the embedded model: its splits, its figures, and a run on made-up data with a tiny model."""

import importlib
import importlib.util
import json
import runpy
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))

tasks = importlib.import_module("_embedded_model_tasks")

needs_sklearn = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The files that the sheet reads, in their formats, with texts that the tiny vocabulary can spell."""
    folder = tmp_path_factory.mktemp("classification")
    generator = np.random.default_rng(0)

    def text(word):
        return word + "".join(generator.choice(list("我你他的了在上下来去国天气学生老师银行市场公司"), size=9))

    for name, count in (("train", 40), ("dev", 12), ("test", 12)):
        rows = [f"{label}\t{text('喜欢高兴' if label else '难过')}" for label in [0, 1] * (count // 2)]
        write_lines(folder / "chnsenticorp" / f"{name}.tsv", ["label\ttext_a", *rows])
    few = folder / "fewclue" / "eprstmt"
    for name, count in (("train_few_all", 160), ("dev_few_all", 160), ("test_public", 12)):
        labels = ["Positive", "Negative"] * (count // 2)
        rows = [{"sentence": text("很好" if x == "Positive" else "很差"), "label": x} for x in labels]
        write_lines(few / f"{name}.json", [json.dumps(row, ensure_ascii=False) for row in rows])
    for name in ("train_0", "dev_0", "test_public"):
        rows = [{"sentence": text(word), "label_desc": label} for label, word in tasks.TNEWS_TOPICS.items()]
        write_lines(folder / "fewclue" / "tnews" / f"{name}.json", [json.dumps(row) for row in rows])
    titles = [f"{text(topic)}\t{label}" for label, topic in enumerate(tasks.THUCNEWS_TOPICS) for _ in range(10)]
    write_lines(folder / "thucnews10" / "dev.txt", [*titles, titles[0]])
    return folder


class TestSplits:
    def test_draw_is_balanced_disjoint_and_complete(self):
        rows = tuple((f"text {place}", place % 3) for place in range(60))
        chosen, rest = tasks.draw(rows, 5, seed=1)
        assert Counter(label for _, label in chosen) == {0: 5, 1: 5, 2: 5}
        assert not set(chosen) & set(rest)
        assert sorted(chosen + rest) == sorted(rows)

    def test_draw_depends_on_the_seed_alone(self):
        rows = tuple((f"text {place}", place % 2) for place in range(60))
        assert tasks.draw(rows, 5, seed=1) == tasks.draw(rows, 5, seed=1)
        assert tasks.draw(rows, 5, seed=1) != tasks.draw(rows, 5, seed=2)

    def test_draw_needs_enough_texts(self):
        with pytest.raises(ValueError, match="Label 1 has 1 texts, 2 are to be drawn"):
            tasks.draw((("a", 0), ("b", 0), ("c", 1)), 2, seed=0)

    def test_thucnews(self, data):
        first, second = (tasks.thucnews(data, seed, shots=3, test=20) for seed in (0, 1))
        assert first.test == second.test
        assert first.train != second.train
        assert Counter(label for _, label in first.test) == dict.fromkeys(range(10), 2)
        for task in (first, second):
            parts = [{text for text, _ in part} for part in (task.train, task.dev, task.test)]
            assert [len(part) for part in parts] == [30, 30, 20]
            assert len(set.union(*parts)) == 80
            for part in (task.train, task.dev):
                assert Counter(label for _, label in part) == dict.fromkeys(range(10), 3)

    def test_eprstmt_takes_the_official_splits_one_after_the_other(self, data):
        lines = (data / "fewclue" / "eprstmt" / "train_few_all.json").read_text(encoding="utf-8").splitlines()
        expected = [json.loads(line)["sentence"] for line in lines]
        found = [text for seed in range(5) for text, _ in tasks.eprstmt(data, seed).train]
        assert found == expected
        with pytest.raises(ValueError, match="there is no split 5"):
            tasks.eprstmt(data, 5)

    def test_chnsenticorp(self, data):
        task = tasks.chnsenticorp(data, 0, texts=20)
        assert Counter(label for _, label in task.train) == {0: 10, 1: 10}
        assert len(task.dev) == len(task.test) == 12
        assert {text.startswith("喜欢") for text, label in task.train if label == 1} == {True}

    def test_tnews_has_one_split(self, data):
        assert len(tasks.tnews(data, 0).test) == 15
        with pytest.raises(ValueError, match="split 0 only"):
            tasks.tnews(data, 1)


def made_up_task(train, test=(), dev=()):
    return tasks.Task(("差评", "好评"), tasks.OPINION_TEMPLATES, ("差", "好"), tuple(train), tuple(dev), tuple(test))


class TestFigures:
    def test_majority_is_of_the_training_texts(self):
        task = made_up_task([("a", 1), ("b", 1), ("c", 0)], test=[("d", 1), ("e", 0), ("f", 0), ("g", 0)])
        assert tasks.majority(task) == 0.25

    def test_texts_seen_in_training(self):
        task = made_up_task([("很 好", 1), ("差", 0)], test=[("很好", 1), ("不好", 0), ("差 ", 0)])
        assert tasks.seen_in_training(task) == [True, False, True]

    @needs_sklearn
    def test_row(self):
        from embedded_model import Row

        row = Row("task", "way", (60.0, 70.0, 65.5), goal=66)
        assert row.mean == pytest.approx(np.mean(row.accuracies))
        assert row.deviation == pytest.approx(np.std(row.accuracies, ddof=1))
        assert row.reached is False
        assert Row("task", "way", (66.0,), goal=66).reached is True
        assert Row("task", "way", (66.0,)).deviation is None

    @needs_sklearn
    def test_tables_of_the_page(self):
        from embedded_model import BEGIN, END, Row, with_tables

        rows = [Row("A", "first", (60.0, 61.0), held_out=59.96, goal=60), Row("B", "second", (10.04,), goal=11)]
        page = with_tables(f"before\n{BEGIN}\nold\n{END}\nafter\n", rows)
        assert page.startswith(f"before\n{BEGIN}\n")
        assert page.endswith(f"\n{END}\nafter\n")
        assert "old" not in page
        assert "### A" in page
        assert "| first | 60.5 | 0.7 |  | 60.0 | 60, reached |" in page
        assert "| second | 10.0 |  |  |  | 11, not reached |" in page
        assert with_tables(page, rows) == page
        with pytest.raises(ValueError, match="once each"):
            with_tables("no marks", rows)

    @needs_sklearn
    def test_accuracy(self):
        from _embedded_model_ways import accuracy

        scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
        assert accuracy(scores, [("a", 0), ("b", 1), ("c", 1), ("d", 1)]) == 0.75


@needs_sklearn
class TestMixing:
    def test_product_of_opinions(self):
        from _embedded_model_ways import Prediction, mix

        first = np.log(np.array([[0.8, 0.2], [0.4, 0.6]]))
        second = np.log(np.array([[0.1, 0.9], [0.7, 0.3]]))
        found = mix(Prediction(first, first), Prediction(second, second), weight=0.5)
        margins = [part[:, 0] - part[:, 1] for part in (first, second)]
        # Centred scores of two labels are ± half the margin, so their spread is the root mean square of it.
        spreads = [np.sqrt(np.mean((margin / 2) ** 2)) for margin in margins]
        expected = margins[0] / spreads[0] + 0.5 * margins[1] / spreads[1]
        np.testing.assert_allclose(found.test[:, 0] - found.test[:, 1], expected)
        np.testing.assert_allclose(np.exp(found.test).sum(axis=1), 1)

    def test_weight_is_chosen_on_held_out_texts(self):
        from _embedded_model_ways import MIXING_WEIGHTS, Prediction, best_mix

        right = np.array([[0.0, -1.0], [-1.0, 0.0]])
        held_out = [[("a", 0), ("b", 1)]]
        for test in (right, -right):  # whatever is in the test
            useful, wrong = Prediction(right, test), Prediction(-right, test)
            assert best_mix([wrong], [useful], held_out)[0] == max(MIXING_WEIGHTS)
            assert best_mix([useful], [wrong], held_out)[0] == min(MIXING_WEIGHTS)


@needs_sklearn
class TestWays:
    def test_features_side_by_side(self):
        from _embedded_model_ways import beside, unit_rows
        from scipy import sparse

        (left,) = unit_rows([np.array([[3.0, 1.0], [-1.0, 1.0]])])
        np.testing.assert_allclose(left, [[1, 0], [-1, 0]])
        (both,) = beside([sparse.csr_matrix([[5.0], [6.0]])], [left], weight=0.5)
        np.testing.assert_allclose(both.toarray(), [[5, 0.5, 0], [6, -0.5, 0]])

    def test_regression_needs_no_cross_validation_of_single_texts(self):
        from _embedded_model_ways import logistic_regression

        parts = [np.array([[0.0], [1.0]]), np.array([[0.1]]), np.array([[0.9], [0.2]])]
        found = logistic_regression(parts, [0, 1], seed=0)
        assert found.test.argmax(axis=1).tolist() == [1, 0]
        assert found.dev.shape == (1, 2)

    def test_mean_features_are_those_of_each_text_alone(self, tiny_chinesebert_folder):
        from _embedded_model_ways import FrozenModel
        from transformers import AutoModel, AutoTokenizer

        frozen = FrozenModel(str(tiny_chinesebert_folder), batch_size=2)
        texts = ["我喜欢猫", "今天天气很好，我们去吃饭", "好"]
        found = frozen.mean_features(texts)
        model = AutoModel.from_pretrained(tiny_chinesebert_folder, add_pooling_layer=False).eval()
        tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
        for text, row in zip(texts, found, strict=True):
            with torch.no_grad():
                states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
            expected = torch.cat([state[0].mean(dim=0) for state in states])
            np.testing.assert_allclose(row, expected.numpy(), atol=0.03)  # bf16 against float32
        np.testing.assert_array_equal(frozen.mean_features(texts[::-1]), found[::-1])

    def test_prompt_is_the_pipelines(self, tiny_chinesebert_folder):
        from _embedded_model_ways import FrozenModel, calibrated_prompt
        from transformers import pipeline

        train = [("房间很干净", 1), ("服务很差", 0), ("开心", 1), ("难过", 0)]
        test = [("服务很好", 1), ("很难过", 0), ("我很满意", 1)]
        template = "{label}评：{text}"
        task = replace(made_up_task(train, test=test, dev=test), templates=(template,))
        found = calibrated_prompt(FrozenModel(str(tiny_chinesebert_folder)), task)
        answers = pipeline("zero-shot-prompt", model=str(tiny_chinesebert_folder))(
            [text for text, _ in test],
            candidate_labels=list(task.labels),
            template=template,
            verbalizer="ready",
            calibration="batch",
            calibration_texts=[text for text, _ in train],
        )
        expected = [dict(zip(answer["labels"], answer["scores"], strict=True)) for answer in answers]
        for row, scores in zip(np.exp(found.test), expected, strict=True):
            np.testing.assert_allclose(row, [scores[label] for label in task.labels], atol=0.01)

    def test_batches_have_every_text_once_and_like_lengths_together(self):
        from _embedded_model_tuning import batches

        generator = np.random.default_rng(0)
        lengths = generator.integers(5, 100, size=203).tolist()
        found = batches(lengths, 8, generator)
        assert sorted(place for batch in found for place in batch) == list(range(203))
        assert max(map(len, found)) == 8
        spread = np.mean([np.ptp([lengths[place] for place in batch]) for batch in found])
        assert spread < np.ptp(lengths) / 4

    @pytest.mark.parametrize("way", ["cls", "mean", "prompt"])
    def test_training_learns_its_texts(self, way, tiny_chinesebert_folder):
        from _embedded_model_tuning import Recipe, tune
        from _embedded_model_ways import accuracy

        train = [("我很高兴" + tail, 1) for tail in "猫狗吃饭"] + [("我很难过" + tail, 0) for tail in "猫狗吃饭"]
        task = made_up_task(train, test=train, dev=train[:2])
        recipe = Recipe(epochs=40 if way == "prompt" else 20, batch_size=8, rate=3e-3, head_rate=3e-2)
        found = tune(way, str(tiny_chinesebert_folder), task, recipe, seed=0)
        assert found.test.shape == (8, 2)
        np.testing.assert_allclose(np.exp(found.test).sum(axis=1), 1, atol=1e-5)
        assert accuracy(found.test, task.test) == 1
        again = tune(way, str(tiny_chinesebert_folder), task, recipe, seed=0)
        np.testing.assert_array_equal(found.test, again.test)

    def test_frozen_embeddings_stay(self, tiny_chinesebert_folder):
        from _embedded_model_tuning import MeanClassifier, Recipe, fit
        from _embedded_model_ways import encode
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
        examples = [("我很高兴", 1), ("我很难过", 0)]
        rows = encode(tokenizer, [text for text, _ in examples], 16)
        recipe = Recipe(epochs=2, freeze_embeddings=True)  # the first step has the size 0
        model = MeanClassifier(str(tiny_chinesebert_folder), 2, recipe)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        fit(model, rows, examples, recipe, seed=0)
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert changed
        assert not [name for name in changed if "embeddings" in name]


@needs_sklearn
class TestSheet:
    def test_all_rows(self, data, tiny_chinesebert_folder, tmp_path, monkeypatch, capsys):
        import _embedded_model_ways as ways
        import embedded_model
        from _embedded_model_tuning import Recipe

        monkeypatch.setattr(embedded_model, "FULL", Recipe(epochs=1))
        monkeypatch.setattr(embedded_model, "FEW", Recipe(epochs=1))
        monkeypatch.setattr(embedded_model, "HUNDREDS", Recipe(epochs=1))
        monkeypatch.setattr(embedded_model, "FEWCLUE_SPLITS", 2)
        monkeypatch.setattr(ways, "INVERSE_PENALTIES", (1.0,))
        monkeypatch.setattr(embedded_model, "chnsenticorp", lambda *args: tasks.chnsenticorp(*args, texts=20))
        monkeypatch.setattr(embedded_model, "thucnews", lambda *args: tasks.thucnews(*args, shots=2, test=20))
        # The tiny model cannot spell all names of topics.
        places = "上海 广州 深圳 北京 重庆 西安 日本 东京 公司 银行 市场 手机 芯片 电影 天气"
        monkeypatch.setattr(
            embedded_model, "tnews", lambda *args: replace(tasks.tnews(*args), labels=tuple(places.split()))
        )
        target = tmp_path / "sheet.json"
        arguments = ["--data", str(data), "--model", str(tiny_chinesebert_folder), "--json", str(target)]
        monkeypatch.setattr(sys, "argv", ["embedded_model.py", *arguments, "--seeds", "2"])
        assert embedded_model.main() == 0

        lines = capsys.readouterr().out.splitlines()
        sheet = json.loads(target.read_text(encoding="utf-8"))
        assert list(tmp_path.iterdir()) == [target]
        rows = sheet["rows"]
        assert {row["task"].split(",")[0] for row in rows} == {"THUCNews", "eprstmt", "tnews", "ChnSentiCorp"}
        for row in rows:
            assert row["mean"] == pytest.approx(np.mean(row["accuracies"]))
            assert any(line.startswith(row["way"]) and f"{row['mean']:.1f}" in line for line in lines)
        goals = [row["reached"] for row in rows if row["goal"] is not None]
        assert len(goals) == 5
        assert lines[-1] == f"embedded_model goals reached {sum(goals)} of 5"
        for task in {row["task"] for row in rows if row["chosen"]}:
            own = [row for row in rows if row["task"] == task and row["held_out"] is not None]
            (chosen,) = [row for row in own if row["chosen"]]
            baselines = {"TF-IDF + LR", embedded_model.STOCK}
            ours = [row for row in own if not row["chosen"] and row["way"] not in baselines]
            assert chosen["held_out"] == max(row["held_out"] for row in ours)
            assert chosen["accuracies"] in [row["accuracies"] for row in ours]

    def test_without_data(self, monkeypatch, capsys):
        import embedded_model

        monkeypatch.setattr(sys, "argv", ["embedded_model.py", "--data", "/nowhere"])
        with pytest.raises(SystemExit, match="2"):
            embedded_model.main()
        assert "No data in /nowhere" in capsys.readouterr().err


def test_without_scikit_learn(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(BENCHMARKS / "embedded_model.py"), run_name="__main__")
    assert "scikit-learn is not installed" in capsys.readouterr().err
