"""Against the outputs of the official ChineseBERT code (ShannonAI/ChineseBert).

The folder is `$HF_NLPNOTES_GOLDEN/chinesebert`; every case comes from what its manifests list.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pypinyin
import pytest
import torch

from hf_nlpnotes.models.chinesebert import (
    ChineseBertConfig,
    ChineseBertForMaskedLM,
    ChineseBertForQuestionAnswering,
    ChineseBertForSequenceClassification,
    ChineseBertForTokenClassification,
    ChineseBertModel,
    ChineseBertTokenizer,
)
from hf_nlpnotes.models.chinesebert.convert_chinesebert import convert_official

TOLERANCE, LOGITS_OF_THE_VOCABULARY, TRAINING = 1e-5, 5e-5, 1e-4


@pytest.fixture(scope="module")
def folder(golden_folder):
    if not (golden_folder / "chinesebert").is_dir():
        pytest.skip(f"no folder chinesebert in {golden_folder}")
    return golden_folder / "chinesebert"


@pytest.fixture(scope="module")
def manifest(folder):
    return json.loads((folder / "manifest_model.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def outputs(folder):
    with np.load(folder / "model_outputs.npz") as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(scope="module")
def checkpoint(folder, manifest):
    return folder / manifest["checkpoint"]


def tensors(case):
    return {name: torch.tensor(values) for name, values in case["inputs"].items()}


def close(got, expected, bound, what):
    got = got.detach().numpy() if isinstance(got, torch.Tensor) else np.asarray(got)
    assert got.shape == expected.shape, what
    worst = float(np.abs(got - expected).max())
    assert worst <= bound, f"{what}: off by {worst:.2e}, allowed {bound:.0e}"


def as_rows(letters, table):
    """Turn letters `(batch, seq, 8)` into rows of the model's table; None when one is not in it."""
    index = {tuple(row): number for number, row in enumerate(table.tolist())}
    rows = [[index.get(tuple(reading), -1) for reading in text] for text in letters.tolist()]
    return None if any(row < 0 for text in rows for row in text) else torch.tensor(rows)


@pytest.fixture(scope="module", params=["fused", "folded", "converted"])
def encoder(request, checkpoint, tmp_path_factory):
    """Return the encoder, and whether gradients are wanted: then the fusion is computed, else the table is read."""
    source = checkpoint
    if request.param == "converted":
        source = tmp_path_factory.mktemp("converted") / "model"
        convert_official(checkpoint, source)
    return ChineseBertModel.from_pretrained(source, attn_implementation="eager"), request.param == "fused"


class TestEncoder:
    def test_hidden_states_pooler_and_attentions(self, encoder, manifest, outputs):
        model, gradients = encoder
        checked = set()
        for name, case in manifest["cases"].items():
            inputs = tensors(case)
            rows = as_rows(inputs["pinyin_ids"], model.embeddings.pinyin_table)
            for pinyin_ids in [inputs["pinyin_ids"], *([] if rows is None else [rows])]:
                with torch.set_grad_enabled(gradients):
                    output = model(
                        **{**inputs, "pinyin_ids": pinyin_ids}, output_hidden_states=True, output_attentions=True
                    )
                assert (model.embeddings._fold is None) == gradients
                got = {"last_hidden_state": output.last_hidden_state, "pooler_output": output.pooler_output}
                got |= {f"hidden_states.{layer}": states for layer, states in enumerate(output.hidden_states)}
                got |= {f"attentions.{layer}": weights for layer, weights in enumerate(output.attentions)}
                for key, expected in outputs.items():
                    case_name, _, output_name = key.partition("/")
                    if case_name == name and output_name in got:
                        close(got[output_name], expected, TOLERANCE, key)
                        checked.add(key)
        of_heads = {key for key in outputs if key.endswith(("logits", "loss")) or "/emb." in key}
        assert checked == set(outputs) - of_heads

    def test_parts_of_the_embedding(self, encoder, manifest, outputs):
        model, gradients = encoder
        embeddings = model.embeddings
        names = {key.partition("/")[0] for key in outputs if key.endswith("/emb.fused_before_position")}
        assert names
        for name in names:
            inputs = tensors(manifest["cases"][name])
            ids, pinyin_ids = inputs["input_ids"], inputs["pinyin_ids"]
            with torch.set_grad_enabled(gradients):
                got = {
                    "emb.word": embeddings.word_embeddings(ids),
                    "emb.pinyin": embeddings.pinyin_embeddings(pinyin_ids),
                    "emb.glyph": embeddings.glyph_map(embeddings.glyph_embeddings(ids).float()),
                    "emb.fused_before_position": embeddings.fuse(ids, pinyin_ids),
                }
            for part, values in got.items():
                close(values, outputs[f"{name}/{part}"], TOLERANCE, f"{name}/{part}")


HEADS = {
    "mlm": ChineseBertForMaskedLM,
    "seqcls": ChineseBertForSequenceClassification,
    "seqreg": ChineseBertForSequenceClassification,
    "tokcls": ChineseBertForTokenClassification,
    "qa": ChineseBertForQuestionAnswering,
}
"""The class behind each tag of the golden files, by how the tag begins: `tokcls5mlp` has 5 labels and 2 layers."""


def load_head(tag, checkpoint, weights):
    (head,) = [model_class for prefix, model_class in HEADS.items() if tag.startswith(prefix)]
    number = "".join(filter(str.isdigit, tag))
    options = {"num_labels": int(number)} if number else {}
    options |= {"token_classifier": "mlp"} if tag.endswith("mlp") else {}
    model = head.from_pretrained(checkpoint, **options)
    assert model.load_state_dict(weights, strict=False).unexpected_keys == []
    return model


def targets_of(tag, labels):
    if tag.startswith("qa"):
        return {key: torch.tensor(labels[key]) for key in ("start_positions", "end_positions")}
    return {"labels": torch.tensor(labels[tag if tag in labels else tag.removesuffix("mlp")])}


def test_heads(folder, checkpoint, manifest, outputs):
    with np.load(folder / "heads.npz") as archive:
        weights = {name: torch.from_numpy(archive[name]) for name in archive.files}
    # case/tag.output; the encoder's own outputs have no tag, or emb
    keys = [key for key in outputs if key.endswith(("logits", "loss"))]
    tags = {key.partition("/")[2].partition(".")[0] for key in keys}
    assert tags >= {key.partition("/")[0] for key in weights}
    for tag in sorted(tags):
        own = {key.partition("/")[2]: value for key, value in weights.items() if key.partition("/")[0] == tag}
        model = load_head(tag, checkpoint, own)
        for name, case in manifest["cases"].items():
            expected = {key for key in keys if key.startswith(f"{name}/{tag}.")}
            if expected:
                output = model(**tensors(case), **targets_of(tag, case["labels"]))
            for key in expected:
                vocabulary = tag == "mlm" and key.endswith("logits")
                bound = LOGITS_OF_THE_VOCABULARY if vocabulary else TOLERANCE
                close(output[key.rpartition(".")[2]], outputs[key], bound, key)


@pytest.fixture(scope="module")
def trained(checkpoint):
    options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "glyph_storage": "float32"}
    return ChineseBertForMaskedLM.from_pretrained(checkpoint, **options).train()


def test_gradients_and_losses(trained, manifest):
    train = manifest["train"]
    case = manifest["cases"][train["case"]]
    inputs = tensors(case) | {"labels": torch.tensor(case["labels"]["mlm"])}
    rate = float(train["optimizer"].partition("lr=")[2].partition(",")[0])
    optimizer = torch.optim.SGD(trained.parameters(), lr=rate)
    names = dict(trained.named_parameters())
    for step, expected in enumerate(train["losses_steps_0_to_3"]):
        loss = trained(**inputs).loss
        assert loss.item() == pytest.approx(expected, abs=TRAINING), f"loss of step {step}"
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            compared = 0
            for name, recorded in train["grad_norm_and_sum_step0"].items():
                # The key's bias shifts all scores of a query alike: its gradient is 0 but for rounding.
                if recorded is None or name.endswith("key.bias"):
                    continue
                gradient, (norm, total) = names[name].grad, recorded
                assert gradient.norm().item() == pytest.approx(norm, rel=TOLERANCE), name
                rounding = TOLERANCE * norm * gradient.numel() ** 0.5
                assert gradient.double().sum().item() == pytest.approx(total, rel=TOLERANCE, abs=rounding), name
                compared += 1
            assert compared > len(names) // 2
        optimizer.step()


def test_save_and_reload_without_the_original(checkpoint, manifest, tmp_path):
    """Converted, the original moved away, saved again: the same bits."""
    shutil.copytree(checkpoint, tmp_path / "original")
    model = ChineseBertForMaskedLM.from_pretrained(tmp_path / "original")
    tokenizer = ChineseBertTokenizer.from_pretrained(tmp_path / "original")
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    shutil.rmtree(tmp_path / "original")
    again = ChineseBertForMaskedLM.from_pretrained(tmp_path / "saved")
    assert isinstance(again.config, ChineseBertConfig)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    texts = [text for case in manifest["cases"].values() for text in case.get("texts") or [] if isinstance(text, str)]
    batches = [
        t(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
        for t in (tokenizer, ChineseBertTokenizer.from_pretrained(tmp_path / "saved"))
    ]
    with torch.no_grad():
        assert torch.equal(model(**batches[0]).logits, again(**batches[1]).logits)


# ---------------------------------------------------------------------------------------------------------- tokenizer


@pytest.fixture(scope="module")
def official_tokenizer(folder):
    return ChineseBertTokenizer.from_pretrained(folder / "tok-official")


def read_lines(path):
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def installed_pypinyin():
    return "pypinyin" + "".join(pypinyin.__version__.split(".")[:2])


def made_with_this_pypinyin(folder, stem):
    """Rows of the file that was made with the installed version of pypinyin; skip where there is none."""
    path = folder / f"{stem}_{installed_pypinyin()}.jsonl"
    if not path.is_file():
        pytest.skip(f"{path.name} is absent: the golden files were made with another version of pypinyin")
    rows = read_lines(path)
    assert rows, f"{path} is empty"
    return rows


def check(tokenizer, row, input_ids, pinyin_ids):
    assert list(input_ids) == row["input_ids"], row["text"]
    letters = np.asarray(tokenizer.pinyin_table[np.asarray(pinyin_ids)]).ravel()
    assert letters.tolist() == row["pinyin_ids"], row["text"]


@pytest.mark.parametrize("batched", [True, False], ids=["batch", "single"])
def test_sentences(folder, official_tokenizer, batched):
    """Ids, offsets and letters; rows with an error are those that the official code refuses as too long."""
    rows = made_with_this_pypinyin(folder, "tok")
    limit = official_tokenizer.model_max_length
    official_tokenizer.model_max_length = 10**9
    try:
        texts = [row["text"] for row in rows]
        batch = official_tokenizer(texts, return_offsets_mapping=True) if batched else None
        for place, row in enumerate(rows):
            one = official_tokenizer(row["text"], return_offsets_mapping=True) if batch is None else None
            ids, pinyin_ids, offsets = (
                batch[key][place] if one is None else one[key] for key in ("input_ids", "pinyin_ids", "offset_mapping")
            )
            if row["error"] is not None:
                assert len(ids) > limit, row["text"]
                continue
            check(official_tokenizer, row, ids, pinyin_ids)
            if "offsets" in row:
                assert [list(offset) for offset in offsets] == row["offsets"], row["text"]
            if "tokens" in row:
                assert official_tokenizer.convert_ids_to_tokens(ids) == row["tokens"], row["text"]
    finally:
        official_tokenizer.model_max_length = limit


def test_pairs_and_masks(folder, official_tokenizer):
    """Rows of the official data sets: pairs, cut at the end as a whole, and sentences with one masked token."""
    rows = made_with_this_pypinyin(folder, "tok_pairs")
    mask, closing = official_tokenizer.mask_token_id, official_tokenizer.sep_token_id
    for row in rows:
        texts = [row[name] for name in ("text", "text_pair") if name in row]
        if row["kind"] == "spm":  # this data set takes the blanks out
            texts = [text.replace(" ", "") for text in texts]
        output = official_tokenizer(*texts)
        ids, pinyin_ids = list(output["input_ids"]), list(output["pinyin_ids"])
        if "location" in row:
            place = row["location"] + 1
            ids[place], pinyin_ids[place] = mask, 0
        limit = row.get("max_length")
        if limit is not None and len(ids) > limit:
            ids, pinyin_ids = [*ids[: limit - 1], closing], [*pinyin_ids[: limit - 1], 0]
        check(official_tokenizer, row, ids, pinyin_ids)


def test_external_samples(folder, official_tokenizer):
    """Sentences whose ids and letters were published by others, of the real files."""
    samples = json.loads((folder / "external_goldens.json").read_text(encoding="utf-8"))
    assert samples
    for row in samples:
        output = official_tokenizer(row["text"])
        check(official_tokenizer, row, output["input_ids"], output["pinyin_ids"])
