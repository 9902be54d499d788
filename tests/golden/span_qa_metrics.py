"""Metrics of question answering against the official scripts."""

import json
from pathlib import Path
from typing import Any

import pytest

from hf_nlpnotes.question_answering.cmrc_metrics import cmrc2018, cmrc2018_scores, mixed_words
from hf_nlpnotes.question_answering.squad_metrics import (
    normalize_answer,
    squad_v1,
    squad_v1_scores,
    squad_v2,
    squad_v2_scores,
)

Entry = dict[str, Any]


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def within(entry: Entry, ours: Any, expected: Any) -> None:
    assert ours == pytest.approx(expected, rel=0, abs=entry["tolerance"])


def questions(data: Any) -> list[dict[str, Any]]:
    return [question for article in data["data"] for part in article["paragraphs"] for question in part["qas"]]


def check_squad_v1(entry: Entry, folder: Path) -> None:
    name, _, note = entry["data"].partition(" (")
    rows = questions(read(folder, name))
    if "answerable" in note:
        rows = [row for row in rows if row["answers"]]
    scores = squad_v1(read(folder, entry["preds"]), rows)
    within(entry, scores, entry["scores"])
    within(entry, scores, read(folder, entry["expected"]))


def check_squad_v2(entry: Entry, folder: Path) -> None:
    probabilities = read(folder, entry["na_prob"]) if entry["na_prob"] else None
    predictions, data = read(folder, entry["preds"]), read(folder, entry["data"])
    scores = squad_v2(predictions, data, probabilities, entry["na_prob_thresh"], per_question=True)
    raw = scores.pop("per_question")
    expected = read(folder, entry["expected"])
    within(entry, scores, expected["out_eval"])
    within(entry, {name: scores[name] for name in entry["scores"]}, entry["scores"])
    for place, name in enumerate(("exact_raw", "f1_raw")):
        if name in expected:
            within(entry, {key: pair[place] for key, pair in raw.items()}, expected[name])


def check_cmrc2018(entry: Entry, folder: Path) -> None:
    predictions, data = read(folder, entry["preds"]), read(folder, entry["data"])
    scores = cmrc2018(predictions, data, per_question=True)
    expected = read(folder, entry["expected"])
    within(entry, [scores["f1"], scores["em"]], entry["scores"])
    for name in scores.keys() & expected.keys():
        within(entry, scores[name], expected[name])
    assert scores["total"] == entry["n"]
    if "per_question_f1_em" in expected:
        assert scores["per_question"].keys() == expected["per_question_f1_em"].keys()
        for key, pair in expected["per_question_f1_em"].items():
            within(entry, list(scores["per_question"][key]), pair)


def check_corners(entry: Entry, folder: Path) -> None:
    rows = read(folder, entry["file"])
    assert len(rows) == entry["n"]
    for row in rows:
        answers, prediction = row["answers"], row["prediction"]
        f1, em = cmrc2018_scores(answers, prediction)
        within(entry, [f1, em], [row["cmrc_f1"], row["cmrc_em"]])
        within(entry, list(squad_v1_scores(answers, prediction)), [float(row["v1_em"]), row["v1_f1"]])
        within(entry, list(squad_v2_scores(answers, prediction)), [row["v2_em"], row["v2_f1"]])
        assert normalize_answer(prediction) == row["squad_norm_pred"]
        for name, text in (("cmrc_seg_pred", prediction), ("cmrc_seg_ans0", answers[0])):
            if name in row:
                assert list(mixed_words(text)) == row[name], row


CHECKS = {
    "squad_v1": check_squad_v1,
    "squad_v2": check_squad_v2,
    "cmrc2018_eval": check_cmrc2018,
    "qa_pair_corners": check_corners,
}
