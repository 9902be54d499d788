"""Checks of the tagging kinds: seqeval's scores, schemes, nervaluate's schemas, the SIGHAN score program."""

import json
import math
import warnings

import pytest

from hf_nlpnotes.tagging import convert_tags, spans_to_tags, tags_to_spans
from hf_nlpnotes.tagging.metrics import accuracy_score, classification_report, precision_recall_f1
from hf_nlpnotes.tagging.partial_matching import partial_matches
from hf_nlpnotes.tagging.word_segmentation import segmentation_scores


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def close(value, expected, tolerance):
    if expected is None:
        return value is None
    both_undefined = math.isnan(value) and math.isnan(expected)
    return both_undefined or abs(value - expected) <= tolerance


def check_report(case, expected, tolerance, **how):
    """One corpus in one mode: the dictionary, the text, the averages."""
    tags = case["y_true"], case["y_pred"]
    report = classification_report(*tags, output_dict=True, **how)
    assert list(report) == list(expected["report"])
    for row, scores in expected["report"].items():
        assert report[row].keys() == scores.keys()
        for name, value in scores.items():
            assert close(report[row][name], value, tolerance), (row, name, report[row][name], value)
    for average in ("micro", "macro", "weighted"):
        if average in expected:
            found = precision_recall_f1(*tags, average=average, **how)
            for value, wanted in zip(found, expected[average], strict=False):
                assert close(value, wanted, tolerance), (average, value, wanted)
    if expected.get("text"):
        assert classification_report(*tags, digits=4, **how) == expected["text"]


def check_inclusive(sentences, expected):
    """seqeval's default reading has inclusive ends; only cases that our own reading shares are compared."""
    for tags, entities in zip(sentences, expected, strict=True):
        spans = tags_to_spans(tags, scheme_of(sentences), illegal="repair")
        assert [[span.type, span.start, span.end - 1] for span in spans] == entities


def scheme_of(sentences):
    prefixes = {tag[0] for tags in sentences for tag in tags}
    return "BIOES" if prefixes <= set("BIOES") else "BILOU"


def check_seqeval(entry, folder):
    cases = read(folder, entry["file"])
    for case in cases if isinstance(cases, list) else [cases]:
        with warnings.catch_warnings():
            # The default reading warns of tags that it does not know: L and U.
            warnings.filterwarnings("ignore", message="not tags of a span")
            check_report(case, case["default"], entry["tolerance"])
        check_report(case, case["strict"], entry["tolerance"], mode="strict", scheme=entry["scheme"])
        if "accuracy" in case:
            assert close(accuracy_score(case["y_true"], case["y_pred"]), case["accuracy"], entry["tolerance"])
        for side in ("true", "pred"):
            if f"get_entities_{side}" in case and scheme_of(case[f"y_{side}"]) == "BIOES":
                check_inclusive(case[f"y_{side}"], case[f"get_entities_{side}"])


def check_odd(entry, folder):
    for name, cases in read(folder, entry["file"]).items():
        for case in cases:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="not tags of a span")
                check_report(case, case["default"], entry["tolerance"], suffix=case.get("suffix", name == "suffix"))


def check_conversions(entry, folder):
    for case in read(folder, entry["file"]):
        spans = [tuple(span) for span in case["spans"]]
        for scheme, tags in case["tags"].items():
            assert spans_to_tags(spans, case["n"], scheme) == tags
            for illegal in ("error", "repair", "drop"):
                assert tags_to_spans(tags, scheme, illegal=illegal) == spans
            for target, written in case["tags"].items():
                assert convert_tags(tags, scheme, target) == written


def check_nervaluate(entry, folder):
    for case in read(folder, entry["file"]):
        true, pred = ([tags_to_spans(tags, illegal="repair") for tags in case[side]] for side in ("y_true", "y_pred"))
        found = partial_matches(true, pred, types=case["tags"]).overall
        assert found.keys() == case["overall"].keys()
        for schema, expected in case["overall"].items():
            assert found[schema].as_dict() == pytest.approx(expected, abs=entry["tolerance"], rel=0)


def check_segmentation(entry, folder):
    def words(key):
        return [line.split() for line in (folder / entry[key]).read_text(encoding="utf-8").splitlines()]

    vocabulary = {word for line in words("words") for word in line}
    scores = segmentation_scores(words("gold"), words("pred"), vocabulary=vocabulary)
    exact = entry["scores"]["exact"]
    for name, value in exact.items():
        found = getattr(scores, {"pred": "predicted"}.get(name, name))
        assert found == pytest.approx(value, abs=1e-12), name
    for name, value in (
        ("TOTAL TRUE WORD COUNT", scores.gold),
        ("TOTAL TEST WORD COUNT", scores.predicted),
        ("TOTAL TRUE WORDS RECALL", scores.recall),
        ("TOTAL TEST WORDS PRECISION", scores.precision),
        ("F MEASURE", scores.f1),
        ("OOV Rate", scores.oov_rate),
        ("OOV Recall Rate", scores.oov_recall),
        ("IV Recall Rate", scores.iv_recall),
    ):
        assert round(value, 3) == entry["scores"][name], name
    # The program counts the rest from diff, which pairs some equal words of different places; these two stand.
    printed = {name: entry["scores"][f"TOTAL {name.upper()}"] for name in ("insertions", "deletions", "substitutions")}
    assert scores.insertions - scores.deletions == printed["insertions"] - printed["deletions"]
    assert scores.deletions + scores.substitutions == printed["deletions"] + printed["substitutions"]


CHECKS = {
    "seqeval": check_seqeval,
    "seqeval_real": check_seqeval,
    "seqeval_odd": check_odd,
    "scheme_conversion": check_conversions,
    "nervaluate": check_nervaluate,
    "cws": check_segmentation,
}
