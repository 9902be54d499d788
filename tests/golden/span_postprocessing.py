"""Answers from logits against transformers' example script and against v4's pipeline."""

import json

import numpy as np

from hf_nlpnotes.question_answering import extract_spans, postprocess_predictions, select_starts_ends


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def features_of(arrays, ids):
    """Features as the example script makes them: a pair for a token of the context, else None."""
    return [
        {
            "example_id": ids[number],
            "offset_mapping": [tuple(pair) if pair[0] >= 0 else None for pair in row],
        }
        for number, row in zip(arrays["example_of_feature"].tolist(), arrays["offsets"].tolist(), strict=True)
    ]


def check_postprocess(entry, folder):
    examples, expected = read(folder / entry["examples"]), read(folder / entry["expected"])
    arrays = np.load(folder / entry["inputs"])
    features = features_of(arrays, examples["id"])
    assert len(features) == entry["features"]
    logits = (arrays["start"], arrays["end"])

    found = extract_spans(examples, features, logits, mode="example_script", **expected["params"])
    assert found.answers == expected["predictions"]
    assert list(found.answers) == list(expected["predictions"])
    assert found.null_odds == expected.get("null_odds")
    assert found.n_best.keys() == expected["nbest"].keys()
    for name, entries in expected["nbest"].items():
        assert len(found.n_best[name]) == len(entries)
        for ours, theirs in zip(found.n_best[name], entries, strict=True):
            assert ours.keys() == theirs.keys()
            for key, value in theirs.items():
                if key == "probability":
                    assert abs(ours[key] - value) <= 1e-7
                else:
                    assert ours[key] == value

    best = postprocess_predictions(examples, features, logits, mode="example_script", **expected["params"])
    assert best == expected["predictions"]


def check_ties(entry, folder):
    """Half-precision logits, in which many scores are equal: the best score, which the order cannot change."""
    expected = read(folder / entry["expected"])["best_score"]
    arrays = np.load(folder / entry["inputs"])
    ids = list(expected)
    assert len(ids) == entry["n"]
    features = features_of(arrays, ids)
    examples = {"id": ids, "context": ["x" * (int(arrays["offsets"].max()) + 1)] * len(ids)}
    logits = (arrays["start"].astype(np.float16), arrays["end"].astype(np.float16))
    for mode in ("example_script", "exact"):
        wide = tuple(side.astype(np.float32) for side in logits)
        found = extract_spans(examples, features, wide, mode=mode)
        for name, score in expected.items():
            best = found.n_best[name][0]
            assert best["start_logit"] + best["end_logit"] == score, (mode, name)


def check_v4_decoding(entry, folder):
    cases = read(folder / entry["expected"])
    assert len(cases) == entry["n"]
    for case in cases:
        starts, ends, scores, null = select_starts_ends(
            np.array(case["start"], dtype=np.float32),
            np.array(case["end"], dtype=np.float32),
            np.array(case["p_mask"]),
            None,
            top_k=case["top_k"],
            handle_impossible_answer=True,
            max_answer_len=case["max_answer_len"],
        )
        assert starts.tolist() == case["starts"]
        assert ends.tolist() == case["ends"]
        np.testing.assert_allclose(scores, case["scores"], rtol=1e-6)
        np.testing.assert_allclose(null, case["min_null_score"], rtol=1e-6)


CHECKS = {
    "utils_qa_postprocess": check_postprocess,
    "utils_qa_postprocess_ties": check_ties,
    "v4_select_starts_ends": check_v4_decoding,
}
