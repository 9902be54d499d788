"""Importance and ablation, against the same heads gated by hand in the weights of their output projection."""

import copy
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from hf_nlpnotes.attention import ablated, capture_inputs, head_ablation, head_importance
from hf_nlpnotes.attention.encoding import accepted

LAYERS, HEADS, DIM = 2, 4, 8
PROJECTIONS = {  # where a layer's heads are put together again: head h has the columns h·8 to h·8 + 8
    "bert": "{}.encoder.layer.{}.attention.output.dense",
    "deberta-v2": "{}.encoder.layer.{}.attention.output.dense",  # through the fallback
    "bloom": "{}.h.{}.self_attention.dense",  # the same, with weights of shape (batch · heads, …)
}


def batch_of(examples: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        "input_ids": torch.randint(5, 300, (examples, 6), generator=generator),
        "labels": torch.randint(0, 2, (examples,), generator=generator),
    }


def classifier(make_model: Any, model_type: str) -> PreTrainedModel:
    options = {} if model_type != "bloom" else {"pad_token_id": 0, "hidden_dropout": 0.0}
    model: PreTrainedModel = make_model(model_type, AutoModelForSequenceClassification, **options).double()
    return model


def gated_by_hand(model: PreTrainedModel, layer: int, heads: Iterable[int], factor: float) -> PreTrainedModel:
    changed = copy.deepcopy(model)
    path = PROJECTIONS[model.config.model_type].format(model.base_model_prefix, layer)
    with torch.no_grad():
        for head in heads:
            changed.get_submodule(path).weight[:, head * DIM : (head + 1) * DIM] *= factor  # type: ignore[index,operator]  # a Linear's weight
    return changed


@pytest.mark.parametrize("model_type", PROJECTIONS)
def test_importance_is_the_slope_of_the_loss_at_the_gate(make_model: Any, model_type: str) -> None:
    """The gradient by differences: each head's output a little larger and a little smaller, one example at a time."""
    model, batch, step = classifier(make_model, model_type), batch_of(), 1e-2  # DeBERTa rounds to float32 inside
    examples = [{name: value[i : i + 1] for name, value in batch.items()} for i in range(3)]
    found = head_importance(model, [batch], normalize=False)
    assert [len(numbers) for numbers in found] == [HEADS] * LAYERS
    with torch.no_grad():
        for layer in range(LAYERS):
            for head in range(HEADS):
                larger = gated_by_hand(model, layer, [head], 1 + step)
                smaller = gated_by_hand(model, layer, [head], 1 - step)
                slopes = [float(larger(**one).loss - smaller(**one).loss) / (2 * step) for one in examples]
                assert found[layer][head] == pytest.approx(np.mean(np.abs(slopes)), rel=3e-3, abs=1e-6)


def test_batches_of_other_sizes_give_the_same(make_model: Any) -> None:
    model, batch = classifier(make_model, "bert"), batch_of()
    parts = [{name: value[:1] for name, value in batch.items()}, {name: value[1:] for name, value in batch.items()}]
    np.testing.assert_allclose(head_importance(model, parts), head_importance(model, [batch]), rtol=1e-6)


def test_layers_are_normalized_by_their_length(make_model: Any) -> None:
    model, batch = classifier(make_model, "bert"), batch_of()
    raw = head_importance(model, [batch], normalize=False)
    for layer, numbers in enumerate(head_importance(model, [batch])):
        np.testing.assert_allclose(numbers, raw[layer] / np.sqrt((raw[layer] ** 2).sum()))


def test_a_loss_of_one_s_own(make_model: Any) -> None:
    model, batch = classifier(make_model, "bert"), batch_of()
    twice = head_importance(model, [batch], loss=lambda output, _: 2 * output.loss, normalize=False)
    once = head_importance(model, [batch], normalize=False)
    np.testing.assert_allclose(np.array(twice), 2 * np.array(once))


@pytest.mark.parametrize("model_type", PROJECTIONS)
def test_an_ablated_head_gives_nothing(make_model: Any, model_type: str) -> None:
    model, batch = classifier(make_model, model_type), batch_of()
    with torch.no_grad():
        whole = model(**batch).logits
        with ablated(model, {0: [1], 1: [0, 3]}):
            without = model(**batch).logits
            torch.testing.assert_close(model(**batch).logits, without)  # every forward alike
        by_hand = gated_by_hand(gated_by_hand(model, 0, [1], 0), 1, [0, 3], 0)
        torch.testing.assert_close(without, by_hand(**batch).logits, atol=1e-6, rtol=1e-6)
        assert (without - whole).abs().max() > 1e-4
        torch.testing.assert_close(model(**batch).logits, whole)


@pytest.mark.parametrize("model_type", ["bert", "deberta-v2"])
def test_blocks_inside_one_another(make_model: Any, model_type: str) -> None:
    model, batch = classifier(make_model, model_type), batch_of()
    by_hand = gated_by_hand(gated_by_hand(model, 0, [1], 0), 1, [3], 0)
    with torch.no_grad(), ablated(model, {0: [1]}):
        with ablated(model, {1: [3]}):
            torch.testing.assert_close(model(**batch).logits, by_hand(**batch).logits, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(
            model(**batch).logits, gated_by_hand(model, 0, [1], 0)(**batch).logits, atol=1e-6, rtol=1e-6
        )


@pytest.mark.parametrize("model_type", ["bert", "deberta-v2"])
def test_what_is_captured_and_measured_inside_is_of_the_model_without_the_heads(
    make_model: Any, model_type: str
) -> None:
    model, batch = classifier(make_model, model_type), batch_of(1)
    by_hand = gated_by_hand(model, 0, range(HEADS - 1), 0)
    inputs = {"input_ids": batch["input_ids"]}
    with ablated(model, {0: range(HEADS - 1)}):
        maps, numbers = capture_inputs(model, inputs), head_importance(model, [batch])
    np.testing.assert_allclose(maps.weights(), capture_inputs(by_hand, inputs).weights(), atol=1e-6)
    assert np.abs(maps[1].weights - capture_inputs(model, inputs)[1].weights).max() > 1e-3
    assert numbers[0][: HEADS - 1].tolist() == [0.0] * (HEADS - 1)
    np.testing.assert_allclose(numbers[1], head_importance(by_hand, [batch])[1], atol=1e-6)


def test_another_model_with_the_same_config_keeps_its_heads(make_model: Any) -> None:
    model, batch = classifier(make_model, "bert"), batch_of()
    other = type(model)(model.config).double().eval()
    with torch.no_grad():
        whole = other(**batch).logits
        with ablated(model, {0: range(HEADS)}):
            torch.testing.assert_close(other(**batch).logits, whole)


@pytest.mark.parametrize("model_type", PROJECTIONS)
def test_another_thread_on_the_model_changes_nothing(make_model: Any, model_type: str) -> None:
    """It runs the whole model while this thread's forward stands between its first and its second layer."""
    model, batch = classifier(make_model, model_type), batch_of()
    with torch.no_grad():
        whole, expected = model(**batch).logits, gated_by_hand(model, 1, [0, 3], 0)(**batch).logits
    main, found = threading.current_thread(), []

    def between(*_: Any) -> None:
        if threading.current_thread() is main:
            thread = threading.Thread(target=lambda: found.append(model(batch["input_ids"][:1]).logits.detach()))
            thread.start()
            thread.join()

    first = PROJECTIONS[model_type].format(model.base_model_prefix, 0)
    model.get_submodule(first).register_forward_hook(between)
    with torch.no_grad(), ablated(model, {1: [0, 3]}):
        torch.testing.assert_close(model(**batch).logits, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found[0], whole[:1], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("model_type", ["bert", "bloom"])
def test_of_a_model_whose_weights_are_kept_elsewhere(make_model: Any, model_type: str) -> None:
    model, batch = classifier(make_model, model_type), batch_of()
    inputs = {name: value[:1] for name, value in batch.items()}
    expected = head_importance(model, [batch]), capture_inputs(model, {"input_ids": inputs["input_ids"]}).weights()
    with torch.no_grad(), ablated(model, {0: [1]}):
        logits = model(**batch).logits
    cpu_offload(model, execution_device="cpu")
    assert all(parameter.is_meta for parameter in model.parameters())
    np.testing.assert_allclose(head_importance(model, [batch]), expected[0], atol=1e-6)
    found = capture_inputs(model, accepted(model, {"input_ids": inputs["input_ids"]}))
    np.testing.assert_allclose(found.weights(), expected[1], atol=1e-6)
    with torch.no_grad(), ablated(model, {0: [1]}):
        torch.testing.assert_close(model(**batch).logits, logits)


def test_ablation_by_a_score(make_model: Any) -> None:
    model, batch = classifier(make_model, "bert"), batch_of()

    def score(which: PreTrainedModel = model) -> float:
        with torch.no_grad():
            return float(which(**batch).loss)

    found = head_ablation(model, score)
    for layer in range(LAYERS):
        for head in range(HEADS):
            by_hand = score(gated_by_hand(model, layer, [head], 0)) - score()
            assert found[layer][head] == pytest.approx(by_hand, abs=1e-6)


def test_layers_of_an_encoder_decoder_keep_their_numbers_in_generation(make_model: Any) -> None:
    """Encoder 0 and 1, then the decoder's self and cross attention in turn: 2 to 5. Generation runs them apart."""
    model = make_model("bart", AutoModelForSeq2SeqLM)
    ids = batch_of(1)["input_ids"]
    maps = capture_inputs(model, {"input_ids": ids, "decoder_input_ids": ids[:, :4]})
    assert maps.of_kind("cross") == (3, 5)
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "forced_eos_token_id": None}
    options |= {"output_logits": True, "return_dict_in_generate": True}
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.model.decoder.layers[0].encoder_attn.out_proj.weight[:, 2 * DIM : 3 * DIM] = 0
    expected = changed.generate(ids, **options)
    with ablated(model, {3: [2]}):
        found = model.generate(ids, **options)
    assert found.sequences.tolist() == expected.sequences.tolist()
    for mine, theirs in zip(found.logits, expected.logits, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


class TestErrors:
    def test_heads_and_layers_that_do_not_exist(self, make_model: Any) -> None:
        model, batch = classifier(make_model, "bert"), batch_of()
        with (
            pytest.raises(ValueError, match="layer 1 has no head 4: it has 4 heads, 0 to 3"),
            ablated(model, {1: [4]}),
        ):
            model(**batch)
        with pytest.raises(ValueError, match="layer 2 never ran: there are layers 0 to 1"), ablated(model, {2: [0]}):
            model(**batch)
        assert model.config._attn_implementation == "sdpa"

    def test_no_batches_no_loss_no_attention(self, make_model: Any) -> None:
        model, batch = classifier(make_model, "bert"), batch_of()
        with pytest.raises(ValueError, match="there are no batches"):
            head_importance(model, [])
        with pytest.raises(ValueError, match="gave no loss"):
            head_importance(model, [{"input_ids": batch["input_ids"]}])
        with pytest.raises(ValueError, match="no attention of BertForSequenceClassification ran"):
            head_ablation(model, lambda: 0.0)
        fnet = make_model("fnet", AutoModelForMaskedLM)
        with pytest.raises(ValueError, match="could be gated"):
            head_importance(fnet, [{"input_ids": batch["input_ids"], "labels": batch["input_ids"]}])

    def test_gradients_and_mode_stay(self, make_model: Any) -> None:
        model = classifier(make_model, "bert").train()
        head_importance(model, [batch_of()])
        assert model.training
        assert all(parameter.grad is None for parameter in model.parameters())
