"""FewCLUE's files and tasks, on a made-up folder in their formats, and runs on the tiny random model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

from hf_nlpnotes.fewclue import TASKS, find_tasks, load_task, read_prompts
from hf_nlpnotes.fewclue.results import Summary
from hf_nlpnotes.fewclue.runs import (
    FewShotOptions,
    few_shot,
    limited,
    prompted_model,
    result_of,
    spelled_words,
    texts_to_read,
    zero_shot,
)
from hf_nlpnotes.prompting import Template

GOOD, BAD = ["酒店很好", "喜欢，开心", "推荐，干净", "服务满意"], ["酒店不好", "难过", "差，不干净", "不满意，不推荐"]
OPINIONS = [
    {"sentence": text, "label": label}
    for pair in zip(BAD, GOOD, strict=True)
    for label, text in zip(("Negative", "Positive"), pair, strict=True)
]
ROWS: Mapping[str, Sequence[dict[str, Any]]] = {
    "eprstmt": OPINIONS,
    "tnews": [{"label": 103, "label_desc": "news_sports", "sentence": "国足今晚出战", "keywords": ""}],
    "iflytek": [
        {"label": 1, "label_des": "体育竞技", "sentence": "足球比赛"},
        {"label": 2, "label_des": "股票", "sentence": "股票价格涨跌"},
    ],
    "csldcp": [{"content": "电影音乐", "label": "体育学"}],
    "bustm": [{"sentence1": "你吃什么", "sentence2": "吃什么", "label": "1"}],
    "csl": [
        {"abst": "市场价格", "keyword": ["价格", "市场"], "label": "1"},
        {"abst": "手机芯片", "keyword": ["手机", "北京"], "label": "0"},
    ],
    "cluewsc": [
        {"target": {"span1_text": "小狗", "span2_text": "它", "span1_index": 0, "span2_index": 4},
         "label": label, "text": "小狗喜欢它"} for label in ("true", "false")
    ],
}  # fmt: skip
NAMES = {
    "iflytek": {"体育竞技": "体育", "股票": "股票"},
    "csldcp": {"体育学": "体育"},
}


def write(path: Path, rows: Sequence[Any], start: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"id": start + place, **row} for place, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, rows in ROWS.items():
        for file in ("train_0", "train_few_all", "dev_0", "dev_few_all"):
            write(tmp_path / name / f"{file}.json", rows)
        if name not in ("bustm", "csl", "cluewsc"):
            write(tmp_path / name / "test_public.json", [*rows, *rows])
    for name, words in NAMES.items():
        text = json.dumps({"label_des2tag": words, "other": {}}, ensure_ascii=False)
        (tmp_path / name / "label_names.json").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def classify(tiny_chinesebert_folder: Path) -> Any:
    make: Any = pipeline
    return make("zero-shot-prompt", model=str(tiny_chinesebert_folder), device="cpu")


# -------------------------------------------------------------------------------------------------------------- tasks


def test_a_task_is_a_prompt_and_its_columns() -> None:
    assert list(TASKS) == ["eprstmt", "tnews", "iflytek", "csldcp", "bustm", "csl", "cluewsc"]
    for name, task in TASKS.items():
        assert task.name == name
        assert set(Template(task.template).columns) == set(task.columns)
        words = [] if task.words is None else [words[0] for words in task.words.values()]
        assert len(set(words)) == len(words)


def test_every_task_is_read(folder: Path) -> None:
    assert find_tasks(folder) == list(TASKS)
    for name, rows in ROWS.items():
        task = load_task(folder, name)
        assert len(task.splits["0"]) == len(rows)
        assert all(set(row) == {*TASKS[name].columns, "label"} for row in task.test)
        assert all(row["label"] in task.words for row in task.test)
        assert task.test_name == ("test_public.json" if len(task.test) == 2 * len(rows) else "dev_few_all.json")


def test_columns_are_found_where_they_are(folder: Path) -> None:
    assert load_task(folder, "csl").test[0] == {"abstract": "市场价格", "keywords": "价格、市场", "label": "1"}
    assert load_task(folder, "cluewsc").test[0] == {
        "text": "小狗喜欢它",
        "noun": "小狗",
        "pronoun": "它",
        "label": "true",
    }
    assert load_task(folder, "iflytek").test[0] == {"text": "足球比赛", "label": "体育竞技"}


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["dev_0.json"], "dev_0.json"),
        (["dev_0.json", "dev_few_all.json"], "dev_few_all.json"),
        (["dev_0.json", "dev_few_all.json", "test_public.json"], "test_public.json"),
    ],
)
def test_what_is_tested_on(tmp_path: Path, files: list[str], name: str) -> None:
    for file in files:
        write(tmp_path / "eprstmt" / file, OPINIONS)
    task = load_task(tmp_path, "eprstmt")
    assert task.test_name == name
    assert task.splits == {}


# ------------------------------------------------------------------------------------------------------------- splits


def test_split_files(tmp_path: Path) -> None:
    place = tmp_path / "eprstmt"
    write(place / "dev_0.json", OPINIONS)
    for split in (0, 3):
        write(place / f"train_{split}.json", OPINIONS[split : split + 2])
    write(place / "train_few_all.json", OPINIONS)
    task = load_task(tmp_path, "eprstmt")
    assert list(task.splits) == ["0", "3"]
    assert [row["text"] for row in task.splits["3"]] == [row["sentence"] for row in OPINIONS[3:5]]
    assert len(load_task(tmp_path, "eprstmt", ["few_all"]).splits["few_all"]) == len(OPINIONS)


def test_fifths_of_the_whole_file_are_the_splits(tmp_path: Path) -> None:
    """Where split 0 is the first fifth, its row numbers aside; else the file is not in that order."""
    place = tmp_path / "eprstmt"
    write(place / "dev_0.json", OPINIONS)
    parts = [[{"sentence": f"{k}{i}", "label": "Positive"} for i in range(2)] for k in range(5)]
    whole = [row for part in parts for row in part]
    write(place / "train_few_all.json", whole, start=100)
    write(place / "train_0.json", parts[0])
    own = [{"sentence": "自己", "label": "Positive"}]
    write(place / "train_2.json", own)
    task = load_task(tmp_path, "eprstmt")
    assert list(task.splits) == ["0", "1", "2", "3", "4"]
    for split, part in enumerate(parts):
        expected = own if split == 2 else part
        assert [row["text"] for row in task.splits[str(split)]] == [row["sentence"] for row in expected]
    for other in ([*whole[1:], whole[0]], whole[:-1]):
        write(place / "train_few_all.json", other)
        assert list(load_task(tmp_path, "eprstmt").splits) == ["0", "2"]


def test_everything_at_once_where_there_is_no_split(tmp_path: Path) -> None:
    write(tmp_path / "eprstmt" / "dev_0.json", OPINIONS)
    write(tmp_path / "eprstmt" / "train_few_all.json", OPINIONS)
    assert list(load_task(tmp_path, "eprstmt").splits) == ["few_all"]


# ------------------------------------------------------------------------------------------------------------- errors


def test_folders_that_are_not_there(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(ValueError, match=r"no folder.*absent.*github.com/CLUEbenchmark/FewCLUE"):
        find_tasks(folder / "absent")
    with pytest.raises(ValueError, match=r"none of the tasks eprstmt"):
        find_tasks(tmp_path_factory.mktemp("empty"))
    with pytest.raises(ValueError, match=r"the folder of one task"):
        find_tasks(folder / "tnews")
    with pytest.raises(ValueError, match=r"Unknown task 'ocnli'; there are: eprstmt"):
        find_tasks(folder, ["ocnli"])
    shutil.rmtree(folder / "bustm")
    with pytest.raises(ValueError, match=r"no folder for the task 'bustm'; there are: eprstmt"):
        find_tasks(folder, ["csl", "bustm"])
    assert find_tasks(folder, ["csl", "eprstmt", "csl"]) == ["eprstmt", "csl"]


def test_files_that_are_not_there(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no training split '4'; there are: 0, few_all"):
        load_task(folder, "tnews", ["0", "4"])
    (folder / "iflytek" / "label_names.json").unlink()
    with pytest.raises(ValueError, match=r"label_names.json is missing"):
        load_task(folder, "iflytek")
    assert load_task(folder, "iflytek", words=NAMES["iflytek"]).words == NAMES["iflytek"]
    for path in (folder / "csl").glob("dev_*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"nothing to test on: add test_public.json"):
        load_task(folder, "csl")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "line 9: no JSON"),
        ("[1]", "line 9: .* is no object"),
        ('{"sentence": "好"}', "line 9: there is no 'label'; the row has sentence"),
        ('{"sentence": null, "label": "Positive"}', "line 9: 'sentence' is None"),
        ('{"sentence": "好", "label": "Neutral"}', "line 9: the label 'Neutral' has no words; .* Negative, Positive"),
    ],
)
def test_wrong_rows_are_named(folder: Path, line: str, what: str) -> None:
    path = folder / "eprstmt" / "train_0.json"
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=what):
        load_task(folder, "eprstmt")


def test_wrong_files_are_named(folder: Path) -> None:
    (folder / "eprstmt" / "test_public.json").write_bytes("好".encode("gb18030"))
    with pytest.raises(ValueError, match=r"test_public.json is not UTF-8"):
        load_task(folder, "eprstmt")
    (folder / "csl" / "train_0.json").write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"train_0.json is empty"):
        load_task(folder, "csl")
    for text in ("{", "[]", "{}", '{"label_des2tag": ["体育"]}'):
        (folder / "csldcp" / "label_names.json").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"label_names.json has no names of the labels"):
            load_task(folder, "csldcp")


# ------------------------------------------------------------------------------------------------------------ prompts


def test_prompts_of_ones_own(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    words = {"Negative": "难过", "Positive": ["开心", "喜欢"]}
    given = {"eprstmt": {"template": "{text}很{label}", "verbalizer": words}, "csl": {"template": "{keywords}{label}"}}
    path.write_text(json.dumps(given), encoding="utf-8")
    prompts = read_prompts(path)
    assert prompts["csl"] == {"template": "{keywords}{label}"}
    task = load_task(folder, "eprstmt", **prompts["eprstmt"])
    assert (task.template, task.words) == ("{text}很{label}", words)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "is no JSON"),
        ("[]", "must map tasks to prompts"),
        ('{"chid": {}}', "chid: unknown task"),
        ('{"csl": {}}', "csl: expected a template"),
        ('{"csl": {"words": {}}}', "csl: expected a template"),
        ('{"csl": {"template": "{text}{label}"}}', "csl: the template has the slot 'text'.*abstract, keywords"),
        ('{"csl": {"template": "{abstract}"}}', "csl: .*label"),
        ('{"csl": {"verbalizer": {"0": ""}}}', "csl: .*empty"),
    ],
)
def test_wrong_prompts(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=what):
        read_prompts(path)
    with pytest.raises(ValueError, match=r"no file of prompts"):
        read_prompts(tmp_path / "absent.json")


def test_words_that_the_vocabulary_cannot_spell(folder: Path, tiny_chinesebert_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
    task = load_task(folder, "eprstmt", words={"Negative": {"鼯鼠": 2, "差": 3}, "Positive": ["好", "鼯"]})
    assert spelled_words(task, tokenizer) == {"Negative": {"差": 3}, "Positive": ["好"]}
    task = load_task(folder, "eprstmt", words={"Negative": "鼯鼠", "Positive": "好"})
    with pytest.raises(ValueError, match=r"eprstmt: .*no word of the label 'Negative' \(鼯鼠\)"):
        spelled_words(task, tokenizer)


# --------------------------------------------------------------------------------------------------------------- runs


def test_a_limit_takes_a_fixed_sample(folder: Path) -> None:
    rows = [{"sentence": str(i), "label": "Positive"} for i in range(100)]
    write(folder / "eprstmt" / "test_public.json", rows)
    task = load_task(folder, "eprstmt")
    places = [int(row["text"]) for row in limited(task, 20).test]
    assert places == sorted(set(places))
    assert places == [int(row["text"]) for row in limited(task, 20).test]
    assert len(places) == 20
    assert places[-1] > 60, "test files may be sorted by label: the first texts would be of one label"
    assert limited(task, None) is limited(task, 100) is task
    with pytest.raises(ValueError, match=r"positive whole number, got 0"):
        limited(task, 0)


@pytest.mark.parametrize("name", ["eprstmt", "iflytek", "csl", "cluewsc"])
def test_zero_shot_is_the_pipeline_text_by_text(folder: Path, classify: Any, name: str) -> None:
    small = {"csl": {"0": "不", "1": "都"}}  # the tiny vocabulary has no 没
    task = load_task(folder, name, words=small.get(name))
    right = 0
    for row in task.test:
        values = {column: row[column] for column in TASKS[name].columns}
        words = spelled_words(task, classify.tokenizer)
        right += classify(values, template=task.template, verbalizer=words)["label"] == row["label"]
    told: list[int] = []
    assert zero_shot(classify, task, batch_size=3, advance=told.append) == right / len(task.test)
    assert sum(told) == len(task.test) == texts_to_read(task, True, 0, 20)


def test_few_shot_begins_at_the_calibrated_prompt(folder: Path, classify: Any, tiny_chinesebert_folder: Path) -> None:
    """With steps of no size it answers as the pipeline with one word a label, calibrated on the training texts."""
    task = load_task(folder, "eprstmt", words={"Negative": ["难", "差"], "Positive": ["喜", "满意"]})
    options = FewShotOptions(epochs=1, learning_rate=1e-12, use_cpu=True)
    run = few_shot(str(tiny_chinesebert_folder), task, "0", options=options)
    answers = classify(
        [row["text"] for row in task.test],
        template=task.template,
        verbalizer={"Negative": "难", "Positive": "喜"},
        calibration="batch",
        calibration_texts=[row["text"] for row in task.splits["0"]],
    )
    right = [answer["label"] == row["label"] for answer, row in zip(answers, task.test, strict=True)]
    assert run.accuracy == sum(right) / len(right) < 1
    assert run.train_texts == len(OPINIONS)


def test_every_part_of_a_model_is_of_one_revision(
    folder: Path, tiny_chinesebert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def watched(original: Any) -> Any:
        def from_pretrained(source: Any, **options: Any) -> Any:
            asked.append(options.get("revision"))
            return original(source, **options)

        return staticmethod(from_pretrained)

    for auto in (AutoTokenizer, AutoModelForMaskedLM):
        monkeypatch.setattr(auto, "from_pretrained", watched(auto.from_pretrained))
    prompted_model(str(tiny_chinesebert_folder), load_task(folder, "eprstmt"), revision="trial")
    assert asked == ["trial", "trial"]


def test_few_shot_learns_and_leaves_the_model_alone(
    folder: Path, tiny_chinesebert_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": word * 2, "label": label} for label, word in (("Negative", "难过"), ("Positive", "开心"))] * 4
    words = {"Negative": ["差"], "Positive": ["好"]}
    task = replace(load_task(folder, "eprstmt", words=words), test=rows, splits={"0": rows})
    before = {path: path.stat().st_mtime_ns for path in tiny_chinesebert_folder.iterdir()}
    told: list[int] = []
    options = FewShotOptions(epochs=25, learning_rate=3e-3, batch_size=4, use_cpu=True)
    run = few_shot(str(tiny_chinesebert_folder), task, "0", 0, options, batch_size=3, advance=told.append)
    assert run.accuracy == 1.0
    assert sum(told) == texts_to_read(task, False, 1, 25)
    assert {path: path.stat().st_mtime_ns for path in tiny_chinesebert_folder.iterdir()} == before
    assert capsys.readouterr().out == "", "stdout is the caller's"
    result = result_of(task, 0.5, [run])
    assert (result.majority, result.labels, result.texts, result.few) == (0.5, 2, 8, Summary(1.0, None, 1))


def test_wrong_options() -> None:
    for name in ("epochs", "learning_rate", "batch_size", "max_length"):
        with pytest.raises(ValueError, match=f"{name} must be positive, got 0"):
            FewShotOptions(**{name: 0})
    assert [FewShotOptions().batch_for(texts) for texts in (32, 99, 100)] == [8, 8, 32]
    assert FewShotOptions(batch_size=5).batch_for(100) == 5


def test_a_split_that_is_not_there(folder: Path, tiny_chinesebert_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"eprstmt has no training split '7'; there are: 0"):
        few_shot(str(tiny_chinesebert_folder), load_task(folder, "eprstmt"), "7")
