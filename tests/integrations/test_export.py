"""torch.compile, torch.export, ONNX and flex attention: each answers as the eager model does."""

import copy

import numpy as np
import pytest
import torch

from hf_nlpnotes.models.chinesebert import ChineseBertConfig, ChineseBertForMaskedLM

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # of the exporters' own code
    "ignore::FutureWarning",
    "ignore::UserWarning",
)


def make_inputs(config, batch, length):
    random = np.random.default_rng(batch * length)
    mask = np.ones((batch, length), dtype=np.int64)
    mask[-1, length // 2 :] = 0
    arrays = {
        "input_ids": random.integers(0, config.vocab_size, (batch, length)),
        "pinyin_ids": random.integers(0, config.pinyin_table_size, (batch, length)),
        "attention_mask": mask,
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture(params=[("bits", "fused"), ("uint8", "folded")], ids="-".join)
def case(request):
    return request.param


@pytest.fixture
def model(case):
    config = ChineseBertConfig(
        vocab_size=90,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        glyph_storage=case[0],
    )
    torch.manual_seed(0)
    model = ChineseBertForMaskedLM(config).eval()
    model.set_glyphs(np.random.default_rng(0).random((90, 3, 24, 24)) < 0.3)
    return model


@pytest.fixture
def state(case, model):
    if case[1] == "folded":
        model.fold_embeddings()
    return case[1]


# The ONNX exporter of torch 2.9 refuses a batch of one where `scaled_dot_product_attention` gets a mask, a BERT's too.
# What it exports with this bound takes one example all the same.
LEAST_BATCH_OF_ONNX = 2 if torch.__version__.startswith("2.9.") else 1


def dynamic_shapes(least_batch=1):
    batch, length = torch.export.Dim("batch", min=least_batch, max=64), torch.export.Dim("length", min=2, max=64)
    return {name: {0: batch, 1: length} for name in ("input_ids", "pinyin_ids", "attention_mask")}


def eager(model, inputs):
    model = copy.deepcopy(model)
    with torch.enable_grad():  # where gradients are wanted, the fusion itself is computed, and a table dropped
        return model(**inputs).logits.detach()


def test_compile_without_a_graph_break(model, state):
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for batch, length in [(2, 7), (3, 12)]:
        inputs = make_inputs(model.config, batch, length)
        with torch.no_grad():
            torch.testing.assert_close(compiled(**inputs).logits, eager(model, inputs), rtol=0, atol=1e-5)
    assert (model.bert.embeddings.folded is not None) == (state == "folded")


def test_compiled_training_gives_the_same_gradients(model):
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    inputs = make_inputs(model.config, 2, 7)
    gradients = []
    for network in (model, compiled):
        model.zero_grad()
        network(**inputs, labels=inputs["input_ids"]).loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_compile_to_machine_code(tiny_chinesebert_folder):
    torch.compiler.reset()
    model = ChineseBertForMaskedLM.from_pretrained(tiny_chinesebert_folder)
    inputs = make_inputs(model.config, 2, 7)
    compiled = torch.compile(model.bert, fullgraph=True)
    with torch.no_grad():
        expected = model.bert(**inputs).last_hidden_state
        torch.testing.assert_close(compiled(**inputs).last_hidden_state, expected, rtol=0, atol=1e-5)


def test_flex_attention(tiny_chinesebert_folder):
    model = ChineseBertForMaskedLM.from_pretrained(tiny_chinesebert_folder, attn_implementation="eager")
    inputs = make_inputs(model.config, 3, 9)
    expected = eager(model, inputs)
    model.set_attn_implementation("flex_attention")
    with torch.no_grad():
        got = model(**inputs).logits
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(got[real], expected[real], rtol=0, atol=1e-5)


def test_export_with_dynamic_shapes(model, state):
    inputs = make_inputs(model.config, 2, 9)
    with torch.no_grad():
        program = torch.export.export(model, (), kwargs=inputs, dynamic_shapes=dynamic_shapes())
    for batch, length in [(1, 2), (5, 17), (3, 64)]:
        inputs = make_inputs(model.config, batch, length)
        torch.testing.assert_close(program.module()(**inputs).logits, eager(model, inputs), rtol=0, atol=1e-5)


def test_onnx_runs_in_onnxruntime(model, state, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    inputs = make_inputs(model.config, 2, 9)
    with torch.no_grad():
        torch.onnx.export(
            model,
            (),
            str(tmp_path / "model.onnx"),
            kwargs=inputs,
            dynamo=True,
            dynamic_shapes=dynamic_shapes(LEAST_BATCH_OF_ONNX),
            input_names=list(inputs),
            output_names=["logits"],
            verbose=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", options)
    for batch, length in [(1, 3), (5, 17)]:
        inputs = make_inputs(model.config, batch, length)
        (logits,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        np.testing.assert_allclose(logits, eager(model, inputs).numpy(), rtol=0, atol=1e-5)
