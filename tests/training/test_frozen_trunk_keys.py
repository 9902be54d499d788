"""What an encoder is called with: what a cache can tell apart, and what it refuses to keep states for."""

import warnings

import pytest
import torch
from torch import nn

from hf_nlpnotes.training.frozen_trunk_keys import encoder_call, fingerprint


def forward(input_ids=None, attention_mask=None, position_ids=None, scale=1.0, **kwargs):
    """A forward that takes names of its own and others."""


IDS = torch.zeros(2, 3, dtype=torch.long)


def test_arguments_by_place_and_by_name_are_one_call():
    call = encoder_call(forward, (IDS,), {"attention_mask": torch.ones(2, 3), "scale": 2.0, "pinyin_ids": IDS})
    assert set(call.values) == {"input_ids", "attention_mask", "scale", "pinyin_ids"}
    assert call.rows[0] == "input_ids"
    assert call.values["scale"] == 2.0


def test_rows_are_those_of_the_tokens():
    vectors = torch.zeros(4, 5, 8)
    assert encoder_call(forward, (), {"frames": vectors, "one_for_all": torch.zeros(1, 5)}).rows == ("frames",)


def test_without_a_mask_every_position_is_real():
    assert encoder_call(forward, (IDS,), {}).real_positions().tolist() == [[True] * 3] * 2
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert encoder_call(forward, (IDS, mask), {}).real_positions().tolist() == mask.bool().tolist()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"input_ids": IDS, "output_hidden_states": True},
            "output_hidden_states asks for what the frozen layers give",
        ),
        ({"input_ids": IDS, "output_attentions": True}, "output_attentions asks for"),
        ({"inputs_embeds": torch.zeros(2, 3, 4, requires_grad=True)}, "inputs_embeds needs gradients"),
        ({"input_ids": IDS, "past_key_values": [IDS]}, r"cannot tell two list apart \(past_key_values\)"),
        ({"scale": 2.0}, r"no input with a row an example among \['scale'\]"),
        ({"input_ids": torch.zeros(3, dtype=torch.long)}, r"no input with a row an example among \['input_ids'\]"),
    ],
)
def test_calls_that_no_states_can_be_kept_for(kwargs, message):
    with pytest.raises(ValueError, match=message):
        encoder_call(forward, (), kwargs)


def test_a_mask_of_another_shape_does_not_say_what_is_padding():
    call = encoder_call(forward, (IDS, torch.ones(2, 1, 3, 3)), {})
    with pytest.raises(ValueError, match=r"attention_mask has the shape \(2, 1, 3, 3\).*exact=True"):
        call.real_positions()


def number() -> str:
    encoder = nn.Linear(2, 2)
    return fingerprint(encoder, [("weight", torch.ones(2, 2))], [encoder], "")


PRECISIONS = {
    "mkldnn.matmul": (torch.backends.mkldnn.matmul, "bf16"),
    "mkldnn.conv": (torch.backends.mkldnn.conv, "bf16"),
    "cuda.matmul": (torch.backends.cuda.matmul, "tf32"),
    "cudnn.conv": (torch.backends.cudnn.conv, "ieee"),
}


@pytest.fixture
def put_back():
    """The precisions are again what they were: they are the whole process's."""
    before = [(kind, kind.fp32_precision) for kind, _ in PRECISIONS.values()]
    yield
    for kind, precision in before:
        kind.fp32_precision = precision


@pytest.mark.usefixtures("put_back")
@pytest.mark.parametrize("name", PRECISIONS)
def test_states_of_another_precision_are_others(name):
    """And a fingerprint is there at all: torch refuses to read the older settings after one of these was set."""
    kind, other = PRECISIONS[name]
    before, usual = number(), kind.fp32_precision
    assert number() == before
    kind.fp32_precision = other
    assert number() != before
    kind.fp32_precision = usual
    assert number() == before


@pytest.mark.usefixtures("put_back")
def test_the_older_setting_of_the_precision_counts_too():
    numbers = []
    for precision in ("high", "highest"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch 2.9 announces the end of this setting
            torch.set_float32_matmul_precision(precision)
        numbers.append(number())
    assert numbers[0] != numbers[1]
