"""Label words under causal language models: one whole forward pass a word, without a cache, is the oracle."""

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from hf_nlpnotes.prompting import Template
from hf_nlpnotes.prompting.causal_scoring import (
    CausalPromptEncoder,
    causal_word_scores,
    continuation_log_probs,
)

TEXTS = ["the team won the final match", "", "国足今晚出战", "<|end|> shares fell"]
WORDS = ["sports", "finance", "sportswear", "体育", "s"]
TEMPLATES = ["{text} This is about {label}", "{text} This is about {label}.", "{label}: {text}", "关于{label}：{text}"]

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 256},
    "llama": {**SIZES, "num_key_value_heads": 1},
    "mistral": {**SIZES, "num_key_value_heads": 1, "sliding_window": 6},
    "qwen3": {**SIZES, "num_key_value_heads": 1, "head_dim": 8},
    # Recurrent states, of which some architectures cannot go on with several tokens at once.
    "lfm2": {**SIZES, "num_key_value_heads": 1, "full_attn_idxs": [1], "block_ff_dim": 32},
    "bamba": {**SIZES, "num_key_value_heads": 1, "attn_layer_indices": [1]}
    | {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 4},
    "mamba": {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},  # no cache of keys and values
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|end|>"]
    )
    core.train_from_iterator(["this is about sports", "about finance", "the sports team", "finance, sports"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>")


def tiny(name: str, tokenizer: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, vocab_size=len(tokenizer), **MODELS[name], bos_token_id=0, eos_token_id=0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tokenizer: Any) -> Any:
    return tiny(request.param, tokenizer)


def brute_force(model: Any, ids: list[int]) -> list[float]:
    """Log-probability of every token but the first."""
    with torch.no_grad():
        log_probs = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(dim=-1)
    return [float(log_probs[i - 1, token]) for i, token in enumerate(ids) if i]


def written(tokenizer: Any, template: str, text: str, word: str) -> tuple[list[int], int, int]:
    """Tokens of the filled prompt and which are the word's, character by character."""
    before, after = (part.replace("{text}", text) for part in template.split("{label}"))
    encoded = tokenizer(before + word + after, return_offsets_mapping=True, split_special_tokens=True)
    inside = range(len(before), len(before) + len(word))
    own = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if any(a <= place < b for place in inside)]
    ids = encoded["input_ids"]
    return ([tokenizer.eos_token_id, *ids], own[0] + 1, own[-1] + 2) if own[0] == 0 else (ids, own[0], own[-1] + 1)


@pytest.mark.parametrize("template", TEMPLATES)
def test_scores_are_those_of_the_whole_prompt(model: Any, tokenizer: Any, template: str) -> None:
    encoder = CausalPromptEncoder(Template(template), tokenizer)
    with torch.no_grad():
        scores = causal_word_scores(model, [encoder.encode({"text": text}, WORDS) for text in TEXTS], max_rows=2)
    for row, text in enumerate(TEXTS):
        prompts = [written(tokenizer, template, text, word) for word in WORDS]
        # " sports" is one token, " 体育" has a token for the space: it counts for both.
        start = min(first for _, first, _ in prompts)
        for column, (ids, _, end) in enumerate(prompts):
            log_probs = brute_force(model, ids)
            own, after = sum(log_probs[start - 1 : end - 1]), sum(log_probs[end - 1 :])
            assert scores.word[row, column].item() == pytest.approx(own, abs=1e-4)
            assert scores.after[row, column].item() == pytest.approx(after, abs=1e-4)
            assert scores.lengths[row, column] == end - start
            assert scores.log_likelihood[row, column].item() == pytest.approx(own + after, abs=2e-4)
            assert scores.per_token[row, column].item() == pytest.approx(own / (end - start) + after, abs=2e-4)


def test_words_with_a_common_beginning(tokenizer: Any) -> None:
    """It is the same for all of them, and still theirs."""
    model, words = tiny("gpt2", tokenizer), ["sports", "sportswear", "sportsman"]
    for some in (words[:2], words[1:]):
        check_words(model, tokenizer, some)


def check_words(model: Any, tokenizer: Any, words: list[str]) -> None:
    prompts = CausalPromptEncoder(Template("{text} This is about {label}"), tokenizer).encode({"text": "abc"}, words)
    assert prompts[0].token_ids[prompts[0].start] == prompts[1].token_ids[prompts[1].start]
    with torch.no_grad():
        scores = causal_word_scores(model, [prompts])
    for prompt, found in zip(prompts, scores.word[0].tolist(), strict=True):
        log_probs = brute_force(model, list(prompt.token_ids))
        assert found == pytest.approx(sum(log_probs[prompt.start - 1 :]), abs=1e-4)


def test_the_prefix_is_read_once(tokenizer: Any) -> None:
    model = tiny("llama", tokenizer)
    read: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(lambda _m, _a, inputs: read.append(inputs["input_ids"].shape), with_kwargs=True)
    prefix, words = [5] * 40, [[7, 8], [9], [7, 8, 3]]
    with torch.no_grad():
        continuation_log_probs(model, prefix, words)
    assert read == [(1, 39), (3, 3)]


@pytest.mark.parametrize("length", [1, 2, 5])
def test_continuations(model: Any, length: int) -> None:
    prefix, rest = list(range(5, 5 + length)), [[9], [9, 4, 3], [8, 8], [1]]
    with torch.no_grad():
        found = continuation_log_probs(model, prefix, rest, max_rows=3)
    for tokens, log_probs in zip(rest, found, strict=True):
        assert log_probs.tolist() == pytest.approx(brute_force(model, prefix + tokens)[length - 1 :], abs=1e-5)


@pytest.mark.parametrize(("prefix", "rest"), [([], [[1]]), ([1], [[2], []])])
def test_nothing_to_score(tokenizer: Any, prefix: list[int], rest: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        continuation_log_probs(tiny("gpt2", tokenizer), prefix, rest)


@pytest.mark.parametrize("template", ["{text} about {label}", "{label}: {text:head}", "{label}：{text}。{text}"])
@pytest.mark.parametrize("text", ["a b c " * 3, "长文本" * 2000, "word " * 20000])
def test_long_texts_are_cut_alike_for_all_words(tokenizer: Any, template: str, text: str) -> None:
    encoder = CausalPromptEncoder(Template(template), tokenizer, max_length=40)
    prompts = encoder.encode({"text": text}, WORDS)
    assert max(len(prompt.token_ids) for prompt in prompts) <= 40
    without = set()
    for prompt, word in zip(prompts, WORDS, strict=True):
        decoded = tokenizer.decode(prompt.token_ids, skip_special_tokens=True)
        assert word in decoded
        without.add(decoded.replace(word, "{label}", 1) if word != "s" else None)
    assert len(without - {None}) == 1, "the same text for every word"
    assert max(len(prompt.token_ids) for prompt in prompts) > 20, "no more is cut than needed"


def test_which_end_is_cut(tokenizer: Any) -> None:
    for slot, kept in (("{text}", "first"), ("{text:head}", "last")):
        encoder = CausalPromptEncoder(Template(f"{{label}}: {slot}"), tokenizer, max_length=30)
        (prompt,) = encoder.encode({"text": "first " + "x y z " * 100 + " last"}, ["sports"])
        decoded = tokenizer.decode(prompt.token_ids)
        assert kept in decoded
        assert ({"first", "last"} - {kept}).pop() not in decoded


def test_special_tokens_in_a_text_are_text(tokenizer: Any) -> None:
    (prompt,) = CausalPromptEncoder(Template("{text} {label}"), tokenizer).encode({"text": "<|end|>"}, ["sports"])
    assert tokenizer.eos_token_id not in prompt.token_ids


def test_any_character_may_stand_beside_the_label(tokenizer: Any) -> None:
    """Also those of private use, which are pictures in some fonts."""
    every = "a\ue000b\uf8ff\U000f0000c"
    encoder = CausalPromptEncoder(Template(f"{{demos:1}}{every}{{options}}{{text}} is {{label}}, {every}"), tokenizer)
    (prompt,) = encoder.encode({"text": every}, ["sports"], [every, "x"], [every])
    assert tokenizer.decode(prompt.token_ids) == f"{every}{every}{every}、x{every} is sports, {every}"
    assert tokenizer.decode(prompt.token_ids[prompt.start : prompt.end]).strip() == "sports"


def test_a_template_that_does_not_fit_is_named(tokenizer: Any) -> None:
    encoder = CausalPromptEncoder(Template("a long beginning {label} {text}"), tokenizer, max_length=4)
    with pytest.raises(ValueError, match="more than the 4 that the model reads"):
        encoder.encode({"text": "abc"}, ["sports"])


def test_a_label_at_the_very_beginning_needs_a_token_before_it(tokenizer: Any) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(ValueError, match="write something before the label"):
        CausalPromptEncoder(Template("{label}: {text}"), bare).encode({"text": "abc"}, ["sports"])
