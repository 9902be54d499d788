"""Answers from logits: against all spans, and the quick way against the script's order of work."""

import json
from dataclasses import astuple

import numpy as np
import pytest

from hf_nlpnotes.question_answering import extract_spans, postprocess_predictions, script_lists
from hf_nlpnotes.question_answering.example_script import ScriptOptions, replay
from hf_nlpnotes.question_answering.feature_table import read_features

WIDTH = 24


def make_case(seed, *, dtype=np.float32, examples=12, coarse=False):
    """Contexts of letters under overlapping windows, a token a letter; features in no order, an example without."""
    rng = np.random.default_rng(seed)
    table = {"id": [f"e{number}" for number in range(examples)], "context": []}
    features = []
    for name in table["id"]:
        length = int(rng.integers(4, 40))
        table["context"].append("".join(rng.choice(list("abcdefgh "), length)))
        question = int(rng.integers(2, 6))
        room = WIDTH - question - 1
        for begin in range(0, length, room - 4):
            end = min(length, begin + room)
            pairs = [None] * question + [(place, place + 1) for place in range(begin, end)]
            features.append({"example_id": name, "offset_mapping": pairs + [None] * (WIDTH - len(pairs))})
            if end == length:
                break
    features = [features[number] for number in rng.permutation(len(features))]
    features = [feature for feature in features if feature["example_id"] != "e3"]
    logits = 3 * rng.standard_normal((2, len(features), WIDTH))
    if coarse:
        logits = logits.round()
    return table, features, tuple(logits.astype(dtype))


def forms_of(features):
    import datasets

    columns = {name: [feature[name] for feature in features] for name in features[0]}
    dense = [[pair or (-1, -1) for pair in row] for row in columns["offset_mapping"]]
    shuffled = datasets.Dataset.from_dict({name: values[::-1] for name, values in columns.items()})
    yield columns
    yield {**columns, "offset_mapping": np.array(dense)}
    yield datasets.Dataset.from_dict(columns)
    yield datasets.Dataset.from_dict({**columns, "offset_mapping": np.array(dense)})
    yield shuffled.select(range(len(features))[::-1])


def spans_of(table, features, logits, length):
    """Every valid answer of every example, by characters, with its best score."""
    best = {name: {} for name in table["id"]}
    for feature, start, end in zip(features, *(side.astype(float) for side in logits), strict=True):
        pairs = feature["offset_mapping"]
        for i in range(WIDTH):
            for j in range(i, min(WIDTH, i + length)):
                if pairs[i] and pairs[j]:
                    span = pairs[i][0], pairs[j][1]
                    known = best[feature["example_id"]]
                    known[span] = max(known.get(span, -np.inf), start[i] + end[j])
    return best


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [1, 5, 40])
def test_exact_answers_are_the_best_of_all(seed, size):
    table, features, logits = make_case(seed)
    found = extract_spans(table, features, logits, n_best_size=size, max_answer_length=6)
    for name, context in zip(table["id"], table["context"], strict=True):
        spans = spans_of(table, features, logits, 6)[name]
        expected = sorted(spans.items(), key=lambda item: -item[1])[:size]
        entries = found.n_best[name]
        assert [(entry["start"], entry["end"]) for entry in entries] == [span for span, _ in expected]
        assert [entry["start_logit"] + entry["end_logit"] for entry in entries] == [score for _, score in expected]
        assert all(entry["text"] == context[entry["start"] : entry["end"]] for entry in entries)
        weights = np.exp([score for _, score in expected])
        np.testing.assert_allclose([entry["probability"] for entry in entries], weights / weights.sum(), rtol=1e-6)
        assert found.answers[name] == (entries[0]["text"] if entries else "")
    assert found.null_odds is None


@pytest.mark.parametrize("threshold", [-3.0, 0.0, 2.5])
def test_no_answer_wins_by_more_than_the_threshold(threshold):
    table, features, logits = make_case(5)
    found = extract_spans(table, features, logits, True, 5, 6, threshold)
    spans = spans_of(table, features, logits, 6)
    nulls = {}
    for feature, start, end in zip(features, *(side.astype(float) for side in logits), strict=True):
        name = feature["example_id"]
        nulls[name] = min(nulls.get(name, np.inf), start[0] + end[0])
    assert found.null_odds.keys() == nulls.keys()
    for name, null in nulls.items():
        odds = null - max(spans[name].values())
        assert found.null_odds[name] == pytest.approx(odds, rel=1e-12)
        assert (found.answers[name] == "") == (odds > threshold)
        scores = [entry["start_logit"] + entry["end_logit"] for entry in found.n_best[name]]
        assert scores == sorted(scores, reverse=True)
        assert [entry["text"] for entry in found.n_best[name]].count("") == 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize(("size", "length"), [(1, 4), (2, 3), (5, 30), (20, 6), (40, 4)])
def test_the_scripts_answers_by_both_ways(monkeypatch, dtype, coarse, negative, size, length):
    """Several questions at once give what each gives in the script's own order of work."""
    monkeypatch.setattr(script_lists, "_EXAMPLES", 5)
    table, features, logits = make_case(size + 7, dtype=dtype, coarse=coarse)
    check_both_ways(table, features, logits, ScriptOptions(negative, size, length, -1.0))


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("size", [2, 5, 40])
def test_the_scripts_answers_where_the_model_rules_tokens_out(negative, size):
    """Among its best starts and ends are then some of -inf, which make spans of the script's list too."""
    table, features, logits = make_case(size)
    for side, numbers in zip(logits, np.random.default_rng(0).random((2, *logits[0].shape)), strict=True):
        side[numbers < 0.7] = -np.inf
        side[::6] = -np.inf
        side[:, 0] = 0
    with np.errstate(invalid="ignore"):  # where all are ruled out, the script's softmax takes -inf from -inf
        check_both_ways(table, features, logits, ScriptOptions(negative, size, 6, -1.0))


def check_both_ways(table, features, logits, options):
    negative, size, length, threshold = astuple(options)
    if negative:  # the script fails on a question without windows
        gone = table["id"].index("e3")
        table = {name: values[:gone] + values[gone + 1 :] for name, values in table.items()}
    logits[0][:, 0] += 4
    logits[1][:, 0] += 4
    read = read_features(table, features)
    expected = [replay(read, number, *logits, options) for number in range(len(table["id"]))]
    arguments = {"version_2_with_negative": negative, "n_best_size": size, "max_answer_length": length}
    arguments |= {"null_score_diff_threshold": threshold, "mode": "example_script"}
    found = extract_spans(table, features, logits, **arguments)
    assert list(found.answers.values()) == [answer for answer, _, _ in expected]
    assert list(map(str, found.n_best.values())) == [str(entries) for _, entries, _ in expected]  # nan is nan
    assert (found.null_odds is not None) == negative
    if negative:
        assert list(found.null_odds.values()) == [odds for _, _, odds in expected]
    assert postprocess_predictions(table, features, logits, **arguments) == found.answers


@pytest.mark.parametrize("negative", [False, True])
def test_the_scripts_probabilities_are_those_among_its_list(negative):
    table, features, logits = make_case(8)
    table = {name: [*values[:3], *values[4:]] for name, values in table.items()}
    found = extract_spans(table, features, logits, negative, 5, 6, mode="example_script")
    for entries in found.n_best.values():
        weights = np.exp([entry["start_logit"] + entry["end_logit"] for entry in entries])
        np.testing.assert_allclose([entry["probability"] for entry in entries], weights / weights.sum(), rtol=1e-5)


def test_a_token_without_characters_may_be_the_scripts_answer():
    """Byte-level tokenizers have such tokens; the script takes the best span, and its text is then ""."""
    features = [{"example_id": "a", "offset_mapping": [None, (0, 1), (1, 1), (1, 2)]}]
    logits = (np.array([[0, 2.0, 9, 1]]), np.array([[0, 1.0, 9, 2.5]]))
    table = {"id": ["a"], "context": ["xy"]}
    found = extract_spans(table, features, logits, mode="example_script")
    assert [entry["text"] for entry in found.n_best["a"]][:2] == ["", "y"]
    assert found.answers == postprocess_predictions(table, features, logits, mode="example_script") == {"a": ""}


@pytest.mark.parametrize(("null", "answer"), [(0.75, ""), (-0.75, "empty")])
def test_the_script_weighs_no_answer_against_nothing(null, answer):
    """Where a question has no valid span, its only rival is the entry "empty", whose two logits are 0."""
    features = [{"example_id": "a", "offset_mapping": [None, None]}]
    logits = (np.array([[null, 9.0]]), np.array([[2 * null, 9.0]]))
    found = extract_spans({"id": ["a"], "context": ["x"]}, features, logits, True, mode="example_script")
    assert found.null_odds == {"a": 3 * null}
    assert found.answers == {"a": answer}


def test_the_script_says_empty_where_it_finds_nothing():
    features = [{"example_id": "a", "offset_mapping": [None, None, None]}]
    logits = (np.zeros((1, 3), dtype=np.float32), np.zeros((1, 3), dtype=np.float32))
    table = {"id": ["a", "b"], "context": ["xyz", "xyz"]}
    found = extract_spans(table, features, logits, mode="example_script")
    entry = {"start_logit": 0.0, "end_logit": 0.0, "text": "empty", "probability": 1.0}
    assert found.n_best == {"a": [entry], "b": [entry]}
    assert extract_spans(table, features, logits).answers == {"a": "", "b": ""}
    with pytest.raises(ValueError, match="'b' has no feature"):
        extract_spans(table, features, logits, True, mode="example_script")


@pytest.mark.parametrize("mode", ["exact", "example_script"])
def test_no_question_has_no_answer(mode):
    features, logits = {"example_id": [], "offset_mapping": []}, (np.zeros((0, 4)), np.zeros((0, 4)))
    table = {"id": [], "context": []}
    assert postprocess_predictions(table, features, logits, True, mode=mode) == {}
    found = extract_spans(table, features, logits, True, mode=mode)
    assert (found.answers, found.n_best, found.null_odds) == ({}, {}, {})


@pytest.mark.parametrize("mode", ["exact", "example_script"])
def test_features_in_any_form_give_the_same(mode):
    table, features, logits = make_case(3)
    expected = extract_spans(table, features, logits, mode=mode)
    for form in forms_of(features):
        assert extract_spans(table, form, logits, mode=mode) == expected
    rows = [{"id": name, "context": context} for name, context in zip(*table.values(), strict=True)]
    assert extract_spans(rows, features, logits, mode=mode) == expected


@pytest.mark.parametrize("best", [{"2": True}, [False, False, True], np.arange(4) == 2])
def test_tokens_with_more_context_elsewhere_are_passed_over(best):
    """`token_is_max_context` of the example script's features, and as `prepare_validation_features` gives it."""
    pairs = [None, (0, 1), (1, 2), (2, 3)]
    features = [{"example_id": "a", "offset_mapping": pairs, "token_is_max_context": best}]
    logits = (np.array([[0, 9, 1, 2]], dtype=np.float32), np.array([[0, 9, 5, 1]], dtype=np.float32))
    found = extract_spans({"id": ["a"], "context": ["xyz"]}, features, logits, mode="example_script")
    assert [entry["text"] for entry in found.n_best["a"]] == ["y", "yz"]


def test_several_tokens_of_one_character_give_one_answer():
    pairs = [None, (0, 1), (0, 1), (0, 1), (1, 2)]
    features = [{"example_id": "a", "offset_mapping": pairs}]
    logits = (np.array([[0, 9.0, 8, 7, 1]]), np.array([[0, 9.0, 8, 7, 1]]))
    found = extract_spans({"id": ["a"], "context": ["xy"]}, features, logits, n_best_size=3)
    assert [entry["text"] for entry in found.n_best["a"]] == ["x", "xy", "y"]


def test_files(tmp_path):
    table, features, logits = make_case(1)
    table = {name: [*values[:3], *values[4:]] for name, values in table.items()}
    for mode in ("exact", "example_script"):
        answers = postprocess_predictions(table, features, logits, True, mode=mode, output_dir=tmp_path, prefix=mode)
        found = extract_spans(table, features, logits, True, mode=mode)
        assert json.loads((tmp_path / f"{mode}_predictions.json").read_text()) == answers == found.answers
        assert json.loads((tmp_path / f"{mode}_nbest_predictions.json").read_text()) == found.n_best
        assert json.loads((tmp_path / f"{mode}_null_odds.json").read_text()) == found.null_odds
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(NotADirectoryError):
        postprocess_predictions(table, features, logits, output_dir=tmp_path / "absent")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, f, _: ({"id": t["id"]}, f), "examples has no column 'context'"),
        (lambda t, f, _: (t, [{"example_id": x["example_id"]} for x in f]), "features has no column 'offset_mapping'"),
        (lambda t, f, _: (t, [{"offset_mapping": x["offset_mapping"]} for x in f]), "no column 'example_id'"),
        (lambda t, f, _: (t, [{**f[0], "example_id": "z"}, *f[1:]]), "'z', which is no id"),
        (lambda t, f, _: ({**t, "id": ["e0"] * len(t["id"])}, f), "must differ"),
        (lambda t, f, _: (t, f[1:]), "there are"),
    ],
)
def test_bad_input_is_named(change, message):
    table, features, logits = make_case(1)
    changed = change(table, features, logits)
    with pytest.raises(ValueError, match=message):
        extract_spans(*changed, logits)


@pytest.mark.parametrize("mode", ["exact", "example_script"])
def test_offsets_of_another_text_are_named(mode):
    table, features, logits = make_case(1)
    table = {**table, "context": [context[:2] for context in table["context"]]}
    for answer in (postprocess_predictions, extract_spans):
        with pytest.raises(ValueError, match="are those of another text"):
            answer(table, features, logits, mode=mode)


def test_bad_numbers_are_named():
    table, features, (start, end) = make_case(1)
    with pytest.raises(ValueError, match="got 1 parts"):
        extract_spans(table, features, (start,))
    with pytest.raises(ValueError, match="NaN or infinite"):
        extract_spans(table, features, (start * np.nan, end), mode="example_script")
    with pytest.raises(ValueError, match="n_best_size and max_answer_length"):
        postprocess_predictions(table, features, (start, end), n_best_size=0)
    with pytest.raises(ValueError, match="mode must be"):
        postprocess_predictions(table, features, (start, end), mode="v4")


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("negative", [False, True])
def test_the_best_answer_alone_is_that_of_the_list(coarse, negative):
    table, features, logits = make_case(11, coarse=coarse)
    assert (
        postprocess_predictions(table, features, logits, negative, 5, 6)
        == extract_spans(table, features, logits, negative, 5, 6).answers
    )


def test_equal_scores_the_answer_that_begins_first():
    """Of spans that score alike, the first, then the shorter: also where more of them are equal than are asked for."""
    table, features, logits = make_case(2)
    flat = tuple(np.zeros_like(side) for side in logits)
    found = extract_spans(table, features, flat, n_best_size=4, max_answer_length=3)
    spans = spans_of(table, features, flat, 3)
    for name in table["id"]:
        assert [(entry["start"], entry["end"]) for entry in found.n_best[name]] == sorted(spans[name])[:4]


def test_no_answer_in_all_windows_as_a_product():
    table, features, logits = make_case(6)
    found = extract_spans(table, features, logits, True, 5, 6, 1.0, null_score="product")
    nulls = dict.fromkeys(table["id"], 0.0)
    best = dict.fromkeys(table["id"], (-np.inf, 0.0))
    for feature, start, end in zip(features, *(side.astype(float) for side in logits), strict=True):
        normalizer = np.log(np.exp(start).sum()) + np.log(np.exp(end).sum())
        nulls[feature["example_id"]] += start[0] + end[0] - normalizer
        own = spans_of({"id": [feature["example_id"]]}, [feature], (start[None], end[None]), 6)
        score = max(own[feature["example_id"]].values())
        best[feature["example_id"]] = max(best[feature["example_id"]], (score, score - normalizer))
    for name, odds in found.null_odds.items():
        assert odds == pytest.approx(nulls[name] - best[name][1], rel=1e-9)
        assert (found.answers[name] == "") == (odds > 1.0)
    assert found.answers == postprocess_predictions(table, features, logits, True, 5, 6, 1.0, null_score="product")
    with pytest.raises(ValueError, match="null_score must be"):
        extract_spans(table, features, logits, True, null_score="product", mode="example_script")


@pytest.mark.parametrize("best", [{"2": True}, [False, False, True], np.arange(4) == 2])
def test_exact_answers_begin_where_features_have_most_context(best):
    pairs = [None, (0, 1), (1, 2), (2, 3)]
    features = [{"example_id": "a", "offset_mapping": pairs, "token_is_max_context": best}]
    logits = (np.array([[0, 9, 1, 2]], dtype=np.float32), np.array([[0, 9, 5, 1]], dtype=np.float32))
    table = {"id": ["a"], "context": ["xyz"]}
    assert [entry["text"] for entry in extract_spans(table, features, logits).n_best["a"]] == ["y", "yz"]
    assert postprocess_predictions(table, features, logits) == {"a": "y"}


@pytest.mark.parametrize("mode", ["exact", "example_script"])
def test_models_without_a_first_special_token(mode):
    """The first token may be an answer where it is one of the context."""
    features = [{"example_id": "a", "offset_mapping": [(0, 1), (1, 2), (2, 3)]}]
    table = {"id": ["a"], "context": ["xyz"]}
    # The best start but for the first token makes a valid span with the best end, or does not.
    for start, end, answer in (([9, 3, 2], [1, 5, 9], "xyz"), ([9, 1, 2], [1, 9, 0], "xy")):
        logits = (np.array([start], dtype=np.float32), np.array([end], dtype=np.float32))
        assert postprocess_predictions(table, features, logits, mode=mode) == {"a": answer}
        assert extract_spans(table, features, logits, mode=mode).answers == {"a": answer}


def test_peaks_outside_the_context_are_no_answer():
    """The best start and end may stand in the question: the windows are then searched."""
    table, features, logits = make_case(4)
    for side in logits:
        side[:, 1] += 20
    found = postprocess_predictions(table, features, logits, max_answer_length=6)
    spans = spans_of(table, features, logits, 6)
    for name, context in zip(table["id"], table["context"], strict=True):
        best = max(spans[name], key=spans[name].get, default=(0, 0))
        assert found[name] == context[slice(*best)]
