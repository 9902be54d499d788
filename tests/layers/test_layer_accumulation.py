"""Hidden states selected while an encoder runs are those of `output_hidden_states`, and no more layers run."""

import copy
import pickle
import threading

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, BertConfig, BertModel, T5Config, T5Model
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_nlpnotes._compat import CHECKPOINTING
from hf_nlpnotes.layers.layer_accumulation import run_selected, start_accumulation, watch_layers
from hf_nlpnotes.layers.layer_selection import LayerSelection
from hf_nlpnotes.layers.scalar_mix import ScalarMix

LAYERS = 4
COMMON = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "pad_token_id": 0,
}
# Among them shared layers, a projection after the embeddings, a convolution between two layers, norms before each
# layer and after the last, parallel lists for a stack, padding inside of the encoder, and the sequence first.
ENCODERS = {
    "albert": {"embedding_size": 16},
    "bert": {},
    "big_bird": {"attention_type": "original_full"},
    "convbert": {"embedding_size": 32},
    "deberta": {},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 8,
        "conv_kernel_size": 3,
    },
    "distilbert": {"dim": 32, "n_layers": LAYERS, "n_heads": 4, "hidden_dim": 64},
    "electra": {"embedding_size": 16},
    "eurobert": {},
    "fnet": {},
    "longformer": {"attention_window": [4] * LAYERS},
    "megatron-bert": {},
    "mobilebert": {"embedding_size": 32},
    "modernbert": {"global_attn_every_n_layers": 2, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1},
    "mpnet": {},
    "nomic_bert": {},
    "nystromformer": {},
    "rembert": {"input_embedding_size": 16},
    "roberta": {},
    "roberta-prelayernorm": {},
    "roformer": {"embedding_size": 32},
    "xlm": {"emb_dim": 32, "n_layers": LAYERS, "n_heads": 4},
    "xlm-roberta": {},
    "xlnet": {"d_model": 32, "n_layer": LAYERS, "n_head": 4, "d_inner": 64},
}
SELECTIONS = ["embeddings", "layer:1", "layer:2", "top", "last:3:mean", "all:max", "layers:0,2:concat", "mix"]


def build(model_type: str) -> nn.Module:
    options = {**COMMON, **ENCODERS[model_type]}
    if model_type == "modernbert":
        options["eos_token_id"] = 2
    torch.manual_seed(0)
    encoder = AutoModel.from_config(AutoConfig.for_model(model_type, **options)).eval()
    watch_layers(encoder, LAYERS)
    return encoder


def tokens(batch: int = 2, length: int = 6) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 100, (batch, length), generator=torch.Generator().manual_seed(batch * length))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def run(encoder: nn.Module, selection: str | LayerSelection, inputs, mix: ScalarMix | None = None, **options):
    parsed = LayerSelection.parse(selection) if isinstance(selection, str) else selection
    return run_selected(encoder, parsed, inputs, num_layers=LAYERS, mix=mix, **options)


@pytest.fixture
def bert() -> nn.Module:
    return build("bert")


@pytest.mark.parametrize("model_type", ENCODERS)
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # of the models' own code
def test_selections_are_those_of_output_hidden_states(model_type: str) -> None:
    encoder, mix = build(model_type), ScalarMix(LAYERS + 1, initial=[0.0, 1.0, 2.0, 3.0, 4.0])
    # A square first: whether the sequence comes first cannot be told from its shape.
    for inputs in (tokens(6, 6), tokens(2, 7)):
        with torch.no_grad():
            stock = encoder(**inputs, output_hidden_states=True).hidden_states
            for written in SELECTIONS:
                selection = LayerSelection.parse(written)
                found = run(encoder, written, inputs, mix if written == "mix" else None)
                expected = mix(stock) if written == "mix" else selection.select(stock)
                torch.testing.assert_close(found.features, expected, rtol=1e-6, atol=1e-6)
                # Layers above the selection were left alone.
                assert (found.outputs is None) == (selection.indices(LAYERS)[-1] < LAYERS)


def test_gradients_are_those_of_output_hidden_states(bert: nn.Module) -> None:
    inputs = tokens()
    for written in SELECTIONS:
        mix = ScalarMix(LAYERS + 1)
        direction = torch.randn_like(run(bert, written, inputs, mix if written == "mix" else None).features)
        gradients = []
        for way in ("ours", "stock"):
            bert.zero_grad()
            if way == "ours":
                features = run(bert, written, inputs, mix if written == "mix" else None).features
            else:
                stock = bert(**inputs, output_hidden_states=True).hidden_states
                features = mix(stock) if written == "mix" else LayerSelection.parse(written).select(stock)
            features.backward(direction)
            gradients.append({name: p.grad for name, p in bert.named_parameters() if p.grad is not None})
        assert gradients[0].keys() == gradients[1].keys(), written
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-5)


def test_layers_that_are_not_needed_do_not_run(bert: nn.Module) -> None:
    ran = []
    for index, layer in enumerate(bert.encoder.layer):
        layer.register_forward_hook(lambda *_, index=index: ran.append(index))
    for written, expected in {"embeddings": 0, "layer:1": 1, "layers:0,3:mean": 3, "top": 4, "mix": 5}.items():
        ran.clear()
        run(bert, written, tokens(), ScalarMix(5) if written == "mix" else None)
        assert ran == list(range(min(expected, LAYERS)))
    ran.clear()
    found = run(bert, "layer:1", {**tokens(), "output_hidden_states": True}, all_layers=True)
    assert ran == list(range(LAYERS))
    assert torch.equal(found.features, found.outputs.hidden_states[1])


def test_hooks_are_put_once_and_sleep_outside(bert: nn.Module) -> None:
    watch_layers(bert, LAYERS)
    assert [len(layer._forward_pre_hooks) for layer in bert.encoder.layer] == [1] * LAYERS
    inputs = tokens()
    expected = bert(**inputs).last_hidden_state
    run(bert, "embeddings", inputs)
    assert torch.equal(bert(**inputs).last_hidden_state, expected)


def test_an_error_inside_leaves_nothing_behind(bert: nn.Module) -> None:
    with pytest.raises(IndexError):
        run(bert, "mix", {"input_ids": torch.tensor([[500]])}, ScalarMix(5))
    assert bert(**tokens()).last_hidden_state.shape == (2, 6, 32)


def test_copies_and_pickles_work_by_themselves(bert: nn.Module) -> None:
    inputs = tokens()
    expected = run(bert, "mix", inputs, ScalarMix(5)).features
    for other in (copy.deepcopy(bert), pickle.loads(pickle.dumps(bert))):
        assert torch.equal(run(other, "mix", inputs, ScalarMix(5)).features, expected)


def test_threads_do_not_mix_their_runs(bert: nn.Module) -> None:
    batches = [tokens(2, length) for length in (3, 5, 8, 13)]
    mix = ScalarMix(5).requires_grad_(False)
    with torch.no_grad():
        expected = [run(bert, "mix", batch, mix).features for batch in batches]
    found: dict[int, list[bool]] = {index: [] for index in range(len(batches))}
    barrier = threading.Barrier(len(batches))

    def work(index: int) -> None:
        barrier.wait()
        for _ in range(20):
            with torch.no_grad():
                features = run(bert, "mix", batches[index], mix).features
            found[index].append(torch.equal(features, expected[index]))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {index: [True] * 20 for index in range(len(batches))}


@pytest.mark.parametrize("written", ["mix", "layer:2"])
def test_compiled_in_one_graph(bert: nn.Module, written: str) -> None:
    bert.double()  # a compiler sums in another order
    mix = ScalarMix(5).double() if written == "mix" else None
    inputs, selection = tokens(), LayerSelection.parse(written)

    def features(**batch: torch.Tensor) -> torch.Tensor:
        return run(bert, selection, batch, mix).features

    compiled = torch.compile(features, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(**inputs), features(**inputs))
    gradients = [
        torch.autograd.grad(way(**inputs).square().sum(), bert.embeddings.word_embeddings.weight)[0]
        for way in (compiled, features)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.skipif(
    "__call__" in vars(GradientCheckpointingLayer),
    reason="this transformers' checkpoints take in hooks: refused",
)
@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_changes_no_gradient(reentrant: bool) -> None:
    torch.manual_seed(0)
    config = BertConfig(**COMMON, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    encoder = BertModel(config, add_pooling_layer=False).train()
    watch_layers(encoder, LAYERS)
    mix, inputs = ScalarMix(5), tokens()
    parameters = [*encoder.parameters(), *mix.parameters()]
    plain = torch.autograd.grad(run(encoder, "mix", inputs, mix).features.square().sum(), parameters)
    getattr(encoder, f"{CHECKPOINTING}_enable")({"use_reentrant": reentrant})
    run(encoder, "mix", inputs, mix).features.square().sum().backward()
    for parameter, gradient in zip(parameters, plain, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-6)


class _CheckpointedWhole(nn.Linear):
    """As layers of older transformers: the checkpoint takes in the hooks."""

    gradient_checkpointing = True

    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs)


class _Encoder(nn.Module):
    def __init__(self, layer: type[nn.Module], length: int | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2)])
        if layer is not nn.Linear:
            self.layers = nn.ModuleList([_Whole() for _ in range(2)])
        self.length = length

    def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor]:
        hidden = torch.ones(*input_ids.shape, 4)[:, : self.length]
        for layer in self.layers:
            hidden = layer(hidden)
        return (hidden,)


class _Whole(nn.Module):
    gradient_checkpointing = True

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(hidden))


def test_a_checkpoint_that_takes_in_the_hooks_is_refused() -> None:
    encoder = _Encoder(_CheckpointedWhole)
    watch_layers(encoder, 2)
    inputs = {"input_ids": torch.ones(2, 3, dtype=torch.long)}
    selection = LayerSelection.parse("all:mean")
    with pytest.raises(RuntimeError, match="upgrade transformers, or train without activation checkpointing"):
        run_selected(encoder, selection, inputs, num_layers=2)
    assert run_selected(encoder.eval(), selection, inputs, num_layers=2).features.shape == (2, 3, 4)


def test_hidden_states_of_other_lengths_are_refused() -> None:
    encoder = _Encoder(nn.Linear, length=2)
    watch_layers(encoder, 2)
    inputs = {"input_ids": torch.ones(2, 3, dtype=torch.long)}
    with pytest.raises(ValueError, match=r"Hidden state 0 of _Encoder has the shape \(2, 2, 4\) for input of 2 × 3"):
        run_selected(encoder, LayerSelection.parse("all:mean"), inputs, num_layers=2)


def test_a_wrong_number_of_layers_is_told(bert: nn.Module) -> None:
    with pytest.raises(RuntimeError, match="4 layers of BertModel were called, expected 5"):
        run_selected(bert, LayerSelection.parse("top"), tokens(), num_layers=5)
    bert.encoder.layer[1] = copy.deepcopy(bert.encoder.layer[1])
    bert.encoder.layer[1]._forward_pre_hooks.clear()
    with pytest.raises(RuntimeError, match="3 layers of BertModel were called, expected 4"):
        run(bert, "top", tokens())


def test_two_stacks_are_refused() -> None:
    config = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2, decoder_start_token_id=0)
    with pytest.raises(ValueError, match=r"several stacks of layers, encoder\.block \(2\), decoder\.block \(2\)"):
        watch_layers(T5Model(config), 2)


def test_a_mix_must_fit() -> None:
    selection = LayerSelection.parse("last:2:mix")
    with pytest.raises(ValueError, match="needs a ScalarMix of 2 layers, got none"):
        start_accumulation(selection, 4)
    with pytest.raises(ValueError, match="of 2 layers, got one of 5"):
        start_accumulation(selection, 4, ScalarMix(5))


def test_the_largest_of_equal_values_is_the_lowest_layers_and_nan_stays() -> None:
    states = [torch.tensor([[[1.0, 2.0, float("nan"), 0.0]]], requires_grad=True) for _ in range(2)]
    with torch.no_grad():
        states[1][..., 3] = float("nan")
    running = start_accumulation(LayerSelection.parse("last:2:max"), 4)
    for state in states:
        running.add(state)
    found = running.finish()
    assert found.isnan().tolist() == [[[False, False, True, True]]]
    gradients = torch.autograd.grad(found.sum(), states)
    assert [gradient[0, 0, :2].tolist() for gradient in gradients] == [[1.0, 1.0], [0.0, 0.0]]
