"""Training features against those of transformers' example script."""

import json

import numpy as np
from transformers import BertTokenizer

from hf_nlpnotes.question_answering import prepare_train_features, prepare_validation_features


def check_train_features(entry, folder):
    examples = json.loads((folder / entry["examples"]).read_text(encoding="utf-8"))
    tokenizer = BertTokenizer(vocab=str(folder / entry["vocab"]))
    expected = np.load(folder / entry["expected"])
    options = {"max_length": entry["max_length"], "doc_stride": entry["stride"]}

    features = prepare_train_features(examples, tokenizer, **options)
    assert len(features["input_ids"]) == entry["features"]
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        np.testing.assert_array_equal(features[name], expected[name], err_msg=name)
    np.testing.assert_array_equal(features["start_positions"], expected["start"])
    np.testing.assert_array_equal(features["end_positions"], expected["end"])
    assert (features["start_positions"] != 0).sum() == entry["with_answer"]

    features = prepare_validation_features({"id": list(range(entry["n"])), **examples}, tokenizer, **options)
    np.testing.assert_array_equal(features["input_ids"], expected["input_ids"])
    inside = features["offset_mapping"][..., 0] >= 0
    np.testing.assert_array_equal(features["offset_mapping"][inside], expected["offsets"][inside])
    ids = examples.get("id", list(range(entry["n"])))
    assert features["example_id"] == [ids[number] for number in expected["sample"].tolist()]


CHECKS = {"qa_train_features": check_train_features}
