"""Overlap with evaluation texts: the same lines as comparing every window as a string, on any format of files."""

import csv
import json
import logging
import unicodedata

import datasets
import numpy as np
import pytest
from datasets import Dataset

from hf_nlpnotes.pretraining import overlap
from hf_nlpnotes.pretraining.overlap import EvaluationText, OverlapRule, drop_overlap, normalized, window_hashes

FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12 and later


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def by_hand(text):
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def windows_by_hand(text, rule):
    text = by_hand(text)
    if len(text) < rule.window:
        return [("whole", text)] if text and rule.short_texts else []
    return [text[i : i + rule.window] for i in range(len(text) - rule.window + 1)]


def found_by_hand(text, others, rule):
    """Whether `text` is found among the windows of `others`."""
    known = {window for other in others for window in windows_by_hand(other, rule)}
    own = windows_by_hand(text, rule)
    hits = sum(window in known for window in own)
    return bool(own) and (hits > rule.share * len(own) or hits >= rule.count)


def random_texts(rng, alphabet, number, longest):
    return ["".join(rng.choice(list(alphabet), size=int(rng.integers(0, longest)))) for _ in range(number)]


@pytest.fixture
def corpus():
    """Lines of which some share pieces with evaluation texts, some nothing, some all."""
    rng = np.random.default_rng(0)
    evaluation = random_texts(rng, "我你他的，。 ABⅣab一", 60, 80)
    lines = random_texts(rng, "我你他的，。 ABⅣab一", 200, 120)
    for i in range(0, 200, 3):
        text = evaluation[int(rng.integers(60))]
        start, stop = sorted(rng.integers(0, len(text) + 1, size=2))
        lines[i] += text[start:stop].replace("a", "Ａ").replace("，", " ") + lines[i - 1]
    lines[1], lines[4], lines[7] = evaluation[3], "ab一\n我，", ""
    return lines, [*evaluation, "AＢ一我。"]


RULES = [
    OverlapRule(shortest=1),
    OverlapRule(window=5, share=0.5, count=8, shortest=1),
    OverlapRule(window=3, share=0, count=1000, shortest=1),
    OverlapRule(window=7, share=0.3, count=12, short_texts=False, shortest=1),
]


@pytest.mark.parametrize("rule", RULES)
def test_brute_force(corpus, rule):
    lines, texts = corpus
    data = Dataset.from_dict({"text": lines, "source": ["ab"[i % 2] for i in range(len(lines))]})
    evaluation = EvaluationText.from_texts({"x": texts[:30], "y": texts[30:]}, rule=rule)
    found = [found_by_hand(line, texts, rule) for line in lines]
    assert 3 < sum(found) < 197

    kept, report = drop_overlap(data, evaluation)
    assert kept["text"][:] == [line for line, drop in zip(lines, found, strict=True) if not drop]
    for i, source in enumerate("ab"):
        own, dropped = lines[i::2], [line for line, drop in zip(lines[i::2], found[i::2], strict=True) if drop]
        numbers = report.sources[source]
        assert (numbers.lines, numbers.dropped_lines) == (100, len(dropped))
        assert numbers.characters == sum(map(len, own))
        assert numbers.dropped_characters == sum(map(len, dropped))
    for name, own in (("x", texts[:30]), ("y", texts[30:])):
        with_windows = [text for text in own if windows_by_hand(text, rule)]
        assert report.files[name].texts == len(with_windows)
        assert report.files[name].found == sum(found_by_hand(text, lines, rule) for text in with_windows)

    stream, nothing = drop_overlap(data.to_iterable_dataset(), evaluation)
    assert nothing is None
    assert [row["text"] for row in stream] == kept["text"][:]


@FORKS
def test_processes_change_nothing(corpus):
    lines, texts = corpus
    data = Dataset.from_dict({"text": lines, "source": ["s"] * len(lines)})
    evaluation = EvaluationText.from_texts({"x": texts})
    (alone, one), (shared, two) = drop_overlap(data, evaluation), drop_overlap(data, evaluation, num_proc=2)
    assert alone[:] == shared[:]
    assert one == two


def test_normalized():
    texts = ["ＡB，c\n ﬁ", "", "\u3000。", "Straße①"]
    codes, lengths = normalized(texts)
    assert lengths.tolist() == [len(by_hand(text)) for text in texts]
    assert "".join(map(chr, codes)) == "".join(map(by_hand, texts)) == "abcfistrasse1"
    assert normalized([])[1].tolist() == []


def test_hashes_are_equal_where_windows_are():
    rule = OverlapRule(window=4)
    texts = random_texts(np.random.default_rng(1), "abc一", 300, 30)
    hashes, counts = window_hashes(texts, rule)
    expected = [window for text in texts for window in windows_by_hand(text, rule)]
    assert counts.tolist() == [len(windows_by_hand(text, rule)) for text in texts]
    of = {}
    assert all(of.setdefault(window, h) == h for window, h in zip(expected, hashes.tolist(), strict=True))
    assert len(set(of.values())) == len(of)  # no collision


def test_short_texts():
    lines = ["价格 不太好", "价格不太好的", "好的", "不太好", "。"]
    texts = {"x": ["价格不太好！", "好的", "一二三四五六七"]}
    assert not EvaluationText.from_texts(texts).find(lines)[0].any()  # of five letters: below `shortest`
    found = EvaluationText.from_texts(texts, rule=OverlapRule(shortest=5)).find(lines)[0]
    assert found.tolist() == [True, False, False, False, False]


TEXT = "我今天在北京的饭店里吃了很好吃的饭"
OTHER = "国足今晚出战韩国队，球迷们都很期待"


def keeps_out(paths, *texts):
    evaluation = EvaluationText.from_files(paths)
    assert evaluation.find(list(texts))[0].all(), paths
    assert not evaluation.find(["完全不相干的一句话，在哪里都没有出现过"])[0].any()
    return evaluation


def test_formats(tmp_path):
    record = {"id": 7, "data": [{"paragraphs": [{"context": TEXT, "qas": [{"answers": [{"text": OTHER}]}]}]}]}
    files = {
        "squad.json": json.dumps(record, indent=1),
        "lines.json": "\n".join(json.dumps({"s": text}, ensure_ascii=False) for text in (TEXT, OTHER)),
        "lines.jsonl": "\n".join(json.dumps([text]) for text in (TEXT, OTHER)) + "\n",
        "json.txt": json.dumps({"text": TEXT, "label": OTHER}, ensure_ascii=False),
        "table.tsv": f'label\ttext\n1\t{TEXT}\n0\t{OTHER} "x',
        "plain.txt": f"{TEXT}\t3\n\n{OTHER}\t4\n",
        "chars.bmes": "\n".join(f"{c} O" for c in TEXT) + "\n\n" + "\n".join(f"{c}0\tB" for c in OTHER) + "\n",
        "cut.utf8": f"{TEXT[:2]}  {TEXT[2:3]}  {TEXT[3:]}\n一  二\n\n{OTHER[:3]}  {OTHER[3:]}\n",
        "words.conllu": "# text = x\n"
        + "\n".join(f"{i}\t{TEXT[i : i + 2]}\t_" for i in range(0, len(TEXT), 2))
        + "\n\n"
        + "\n".join(f"{i}\t{c}\t_" for i, c in enumerate(OTHER, 1))
        + "\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        keeps_out(tmp_path / name, TEXT, OTHER)
    with (tmp_path / "table.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["label", "text"], [1, f'{TEXT}, "so\n{OTHER}"']])
    limit = csv.field_size_limit()
    keeps_out(tmp_path / "table.csv", TEXT, OTHER)
    assert csv.field_size_limit() == limit
    (tmp_path / "wide.txt").write_text(TEXT, encoding="utf-16")
    keeps_out(tmp_path / "wide.txt", TEXT)


def test_folders_and_errors(tmp_path, caplog):
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.tsv").write_text(TEXT, encoding="utf-8")
    (folder / "b.txt").write_text("短", encoding="utf-8")
    (folder / "c.bin").write_bytes(b"\xff\x00")
    with caplog.at_level(logging.WARNING, logger=overlap.__name__):
        evaluation = keeps_out(folder, TEXT)
    assert evaluation.names == ("data/b.txt", "data/deep/a.tsv")
    messages = [record.getMessage() for record in caplog.records]
    assert any("not read" in message and "c.bin" in message for message in messages)
    assert any("data/b.txt holds no text" in message for message in messages)
    for path, message in (
        (tmp_path / "missing", "no such file"),
        (folder / "b.txt", "no text of 6 letters or more in b.txt"),
        (folder / "c.bin", "not in utf-8: .* at byte 0"),
    ):
        with pytest.raises(ValueError, match=message):
            EvaluationText.from_files(path)
    for name in ("one", "two"):  # files of one name, each with texts of its own
        (tmp_path / name).mkdir()
        (tmp_path / name / "dev.txt").write_text(TEXT if name == "one" else OTHER, encoding="utf-8")
    both = [tmp_path / "one" / "dev.txt", tmp_path / "two" / "dev.txt"]
    assert keeps_out(both, TEXT, OTHER).names == tuple(map(str, both))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no file with one of \.txt"):
        EvaluationText.from_files([tmp_path / "empty"])
    for options in ({"window": 0}, {"share": 1.0}, {"count": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            OverlapRule(**options)


def test_report():
    data = Dataset.from_dict({"text": [TEXT, "别的话", OTHER], "source": ["b", "b", "a"]})
    kept, report = drop_overlap(
        data, EvaluationText.from_texts({"test.json": [TEXT, TEXT[3:], "没有出现过的一个句子，长长的"]})
    )
    assert kept["text"][:] == ["别的话", OTHER]
    assert (report.lines, report.dropped_lines) == (3, 1)
    assert json.loads(json.dumps(report.to_dict())) == {
        "rule": {"window": 13, "share": 0.15, "count": 25, "short_texts": True, "shortest": 6},
        "sources": {
            "b": {"lines": 2, "dropped_lines": 1, "characters": 20, "dropped_characters": 17},
            "a": {"lines": 1, "dropped_lines": 0, "characters": 17, "dropped_characters": 0},
        },
        "files": {"test.json": {"texts": 3, "found": 2}},
    }
    table = str(report).splitlines()
    assert table[1].split() == ["b", "2", "1", "50.00", "17"]
    assert table[-1].split() == ["test.json", "3", "2", "66.67"]


def test_nothing_dropped_and_no_lines():
    evaluation = EvaluationText.from_texts({"x": [TEXT]})
    data = Dataset.from_dict({"text": ["别的话"], "source": ["s"]})
    kept, report = drop_overlap(data, evaluation)
    assert kept[:] == data[:]
    assert report.files["x"].found == 0
    kept, report = drop_overlap(data.select([]), evaluation)
    assert len(kept) == report.lines == 0
