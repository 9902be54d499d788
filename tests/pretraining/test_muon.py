"""Two optimizers as one: each parameter moves as under its own, and saved states bring it back."""

import copy

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, get_linear_schedule_with_warmup

from hf_nlpnotes.pretraining.muon import MuonAdamW, muon_adamw


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=12, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertForMaskedLM(config)


IDS = torch.randint(5, 30, (4, 10), generator=torch.Generator().manual_seed(1))


def train(model, optimizers, steps, schedules=()):
    for _ in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        model(IDS, labels=IDS).loss.backward()
        for part in (*optimizers, *schedules):
            part.step()


def test_is_muon_on_matrices_and_adam_on_the_rest(model):
    twin = copy.deepcopy(model)
    optimizer = muon_adamw(model, 1e-2)
    train(model, [optimizer], 3)
    named = dict(twin.named_parameters())
    inner = {n for n, p in named.items() if p.dim() == 2 and ("encoder.layer" in n or "transform.dense" in n)}
    assert len(inner) == 2 * 6 + 1
    looks = [p for n, p in named.items() if n in inner and (".query." in n or ".key." in n)]
    carries = [p for n, p in named.items() if n in inner and not (".query." in n or ".key." in n)]
    others = [p for n, p in named.items() if n not in inner]
    options = {"weight_decay": 0.01, "ns_steps": 4, "adjust_lr_fn": "match_rms_adamw"}
    separate = [
        torch.optim.Muon(looks, lr=1e-2 / 3, **options),
        torch.optim.Muon(carries, lr=1e-2, **options),
        torch.optim.AdamW(others, lr=0.7e-2, betas=(0.9, 0.99), weight_decay=0),
    ]
    train(twin, separate, 3)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, named[name], rtol=0, atol=0)


def test_schedules_reach_every_group(model):
    optimizer = muon_adamw(model, 1e-2)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, 10)
    train(model, [optimizer], 5, [schedule])
    rates = [group["lr"] for group in (*optimizer.muon.param_groups, *optimizer.adam.param_groups)]
    assert rates == pytest.approx([0.5e-2 / 3, 0.5e-2, 0.35e-2])
    assert [group["lr"] for group in optimizer.param_groups] == rates


def test_goes_on_from_a_saved_state(model, tmp_path):
    optimizer = muon_adamw(model, 1e-2)
    train(model, [optimizer], 2)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    train(model, [optimizer], 2)
    expected = copy.deepcopy(model.state_dict())
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    model.load_state_dict(state["model"])
    again = muon_adamw(model, 1e-2)
    again.load_state_dict(state["optimizer"])
    get_linear_schedule_with_warmup(again, 0, 10)  # sees groups that the parts use
    assert again.param_groups[0] is again.muon.param_groups[0]
    for group, rate in zip(again.param_groups, (1e-2 / 3, 1e-2, 0.7e-2), strict=True):
        group["lr"] = rate
    train(model, [again], 2)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_refuses_models_of_other_shapes():
    with pytest.raises(ValueError, match="BERT-shaped"):
        muon_adamw(torch.nn.Linear(3, 3), 1e-3)


def test_closures(model):
    optimizer = MuonAdamW([{"params": [model.bert.encoder.layer[0].output.dense.weight], "lr": 1e-2}],
                          [{"params": [model.cls.predictions.bias], "lr": 1e-2}])  # fmt: skip
    assert optimizer.step(lambda: 3.0) == 3.0
