"""Masking: the laws of its proportions, nothing of a hidden reading left, masks that depend on the example alone."""

import math

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hf_nlpnotes.models.chinesebert import (
    ChineseBertForMaskedLM,
    ChineseBertTokenizer,
    DataCollatorForChineseBertMaskedLM,
)
from hf_nlpnotes.models.chinesebert.collator_chinesebert import (
    IGNORED,
    NO_WORD,
    characters_as_words,
    choose_words,
    number_words,
    random_bits,
    replace_tokens,
    row_keys,
    uniform_numbers,
    words_of_tokens,
)

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def chi_square_999(degrees):
    """The 99.9 % quantile of the chi-square distribution (Wilson and Hilferty 1931): a right program fails one of a
    thousand fixed seeds."""
    if degrees < 3:
        return {1: 10.828, 2: 13.816}[degrees]  # there the formula is 3 % too high
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + 3.0902 * spread**0.5) ** 3


def chi_square(observed, expected):
    return float(((np.asarray(observed) - expected) ** 2 / np.asarray(expected)).sum())


def follows(observed, shares):
    """Whether counts of independent events follow the shares."""
    observed, shares = np.asarray(observed), np.asarray(shares)
    assert observed.sum() * shares.min() > 20  # or the test says nothing
    return chi_square(observed, observed.sum() * shares) < chi_square_999(len(shares) - 1)


def independent(one, other):
    """Whether two arrays of small numbers, of the same shape, are independent: chi-square of their table of counts."""
    one, other = np.asarray(one).astype(int).ravel(), np.asarray(other).astype(int).ravel()
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1)
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    assert expected.min() > 5
    return chi_square(table, expected) < chi_square_999((table.shape[0] - 1) * (table.shape[1] - 1))


def test_quantiles():
    """Against the tables of the distribution."""
    for degrees, quantile in {3: 16.266, 9: 27.877, 30: 59.703, 100: 149.449}.items():
        assert abs(chi_square_999(degrees) / quantile - 1) < 0.02


@pytest.fixture(scope="module")
def tokenizer(tiny_chinesebert_folder):
    return ChineseBertTokenizer.from_pretrained(tiny_chinesebert_folder)


# ------------------------------------------------------------------------------------------------------ pure functions


def rows_of_words(rows=4000, seed=0):
    """(rows, 25) words of one to three tokens: special token, 10 words, special tokens to the end."""
    rng = np.random.default_rng(seed)
    result = np.full((rows, 32), NO_WORD)
    for row in result:
        tokens = np.repeat(np.arange(10), rng.integers(1, 4, 10))
        row[1 : 1 + len(tokens)] = tokens
    return result


def test_every_word_is_chosen_whole_and_as_often_as_the_others():
    words = rows_of_words(8000)
    chosen = choose_words(words, np.random.default_rng(1).random(words.shape), 0.15)
    assert not chosen[words == NO_WORD].any()
    per_word = np.zeros((len(words), 10), dtype=bool)
    for word in range(10):
        members, hit = words == word, chosen & (words == word)
        assert np.array_equal(hit.sum(1) == members.sum(1), hit.any(1))  # all of its tokens or none
        per_word[:, word] = hit.any(1)
    p = 0.15 + 0.85**10 / 10  # the second part: rows that would have none get one
    expected = np.full(10, p * len(words))
    # Words of a row are nearly independent: the sum of ten squared standard scores.
    assert chi_square(per_word.sum(0), expected) / (1 - p) < chi_square_999(9)
    share = chosen.sum() / (words != NO_WORD).sum()
    assert abs(share - p) < 0.005
    assert per_word.any(1).all()


def test_long_rows_have_the_plain_share():
    words = np.arange(200)[None].repeat(1000, 0)
    chosen = choose_words(words, np.random.default_rng(2).random(words.shape), 0.15)
    assert abs(chosen.mean() - 0.15) < 4 * math.sqrt(0.15 * 0.85 / chosen.size)


def test_rows_without_words_get_nothing():
    words = np.full((2, 4), NO_WORD)
    assert not choose_words(words, np.zeros((2, 4)), 0.5).any()


def test_replacement_follows_80_10_10():
    rng = np.random.default_rng(0)
    ids = np.full((1000, 100), 7)
    chosen = np.ones_like(ids, dtype=bool)
    new, _, labels = replace_tokens(ids, None, chosen, rng.random(ids.shape), np.full_like(ids, 9), mask_token_id=4)
    counts = [(new == token).sum() for token in (4, 9, 7)]
    assert follows(counts, [0.8, 0.1, 0.1])
    assert (labels == 7).all()


def test_no_reading_of_a_hidden_token_is_left():
    rng = np.random.default_rng(0)
    shape = (200, 60)
    ids, pinyin = rng.integers(5, 50, shape), rng.integers(100, 150, shape)
    default = np.arange(50) + 1  # readings of 1 to 50 are defaults, those from 100 on come from the text
    chosen, random_ids = rng.random(shape) < 0.3, rng.integers(5, 50, shape)
    new, new_pinyin, labels = replace_tokens(
        ids, pinyin, chosen, rng.random(shape), random_ids, mask_token_id=4, default_pinyin_ids=default
    )
    masked, random = new == 4, chosen & (new != ids) & (new != 4)
    assert masked.any()
    assert random.any()
    assert (new_pinyin[masked] == 0).all()
    assert np.array_equal(new_pinyin[random], default[new[random]])
    same = ~chosen | (new == ids)
    assert np.array_equal(new_pinyin[~chosen], pinyin[~chosen])
    assert np.array_equal(new[same], ids[same])
    assert np.array_equal(labels, np.where(chosen, ids, IGNORED))


def test_readings_need_defaults():
    ids = np.zeros((1, 2), dtype=int)
    with pytest.raises(ValueError, match="default_pinyin_ids"):
        replace_tokens(ids, ids, ids == 0, ids * 0.5, ids, mask_token_id=4)


def test_words_of_tokens():
    tokens = ["[CLS]", "我", "喜", "欢", "py", "##thon", "。", "[SEP]", "##x", "猫", "[SEP]"]
    special = [token.startswith("[") for token in tokens]
    assert words_of_tokens(tokens, special) == [-1, 0, 1, 2, 3, 3, 4, -1, 5, 6, -1]
    cut = lambda text: text.replace("喜欢", " 喜欢 ").split() if "喜欢" in text else list(text)  # noqa: E731 (short)
    assert words_of_tokens(tokens, special, cut) == [-1, 0, 1, 1, 2, 2, 3, -1, 4, 5, -1]
    with pytest.raises(ValueError, match="cover 1 of 3"):
        words_of_tokens(tokens, special, lambda text: text[:1])


def test_characters_as_words():
    assert characters_as_words(np.array([[-1, 0, 0, 1, -1]])).tolist() == [[-1, 1, 2, 3, -1]]


def test_words_are_runs():
    words = np.array([[-1, 7, 7, 3, 3, 3, -1, 3, 9], [5, 5, -1, -1, 5, 0, 0, -1, -1]])
    assert number_words(words).tolist() == [[-1, 0, 0, 1, 1, 1, -1, 2, 3], [0, 0, -1, -1, 1, 2, 2, -1, -1]]


# ------------------------------------------------------------------------------------------------------ random numbers


def test_random_bits_are_those_of_splitmix64():
    """First outputs for the seed 1234567, as published with several implementations of the generator."""
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert random_bits(np.array([1234567], np.uint64), np.arange(5)).tolist() == expected


def test_random_numbers_of_rows_seeds_and_epochs_are_uniform_and_independent():
    """100,000 numbers each: 250 rows with the seeds 0, 1, 2, … by 400 places."""
    places = np.arange(400)

    def draw(seed, epoch, first):
        return uniform_numbers(row_keys(seed, epoch, range(first, first + 250))[:, None], places)

    numbers = draw(0, 0, 0)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    tenths = (numbers * 10).astype(int)
    assert follows(np.bincount(tenths.ravel()), np.full(10, 0.1))
    assert follows(np.bincount((numbers * 2**20).astype(int).ravel() % 16), np.full(16, 1 / 16))  # lower bits too
    for lag in (1, 2, 3, 4, 8):  # four numbers a place: neighbours in the text are four apart
        assert independent(tenths[:, lag:], tenths[:, :-lag]), lag
        assert independent(tenths[lag:], tenths[:-lag]), lag
    for other in (draw(1, 0, 0), draw(0, 1, 0), draw(0, 0, 2**32), draw(0, 0, -250), draw(2**63, 0, 0)):
        assert independent(tenths, other * 10)


def test_row_keys_tell_seed_epoch_and_row_apart():
    keys = {int(key) for seed in range(20) for epoch in range(20) for key in row_keys(seed, epoch, range(100))}
    assert len(keys) == 20 * 20 * 100
    assert row_keys(0, 0, [-1]) == row_keys(0, 0, [2**64 - 1])


# -------------------------------------------------------------------------------------------------------- the collator


SENTENCES = [
    "我喜欢猫，你也喜欢狗吗",
    "国足今晚出战",
    "重庆银行行长还在",
    "今日天气真好，老师和学生都高兴",
    "iphone手机",
]


def examples(tokenizer, count=200):
    rng = np.random.default_rng(0)
    texts = ["，".join(rng.choice(SENTENCES, 6)) for _ in range(count)]
    return [{**dict(tokenizer(text)), "mask_seed": number} for number, text in enumerate(texts)]


def test_batch(tokenizer):
    features = examples(tokenizer, 300)
    collator = DataCollatorForChineseBertMaskedLM(tokenizer, segmenter=list)
    batch = collator(features)
    assert set(batch) == {"input_ids", "token_type_ids", "attention_mask", "pinyin_ids", "labels"}
    padded = tokenizer.pad([{k: v for k, v in f.items() if k != "mask_seed"} for f in features], return_tensors="pt")
    chosen = batch["labels"] != IGNORED
    assert torch.equal(torch.where(chosen, batch["labels"], batch["input_ids"]), padded["input_ids"])
    special = torch.isin(padded["input_ids"], torch.tensor(tokenizer.all_special_ids))
    assert not (chosen & special).any()
    masked = batch["input_ids"] == tokenizer.mask_token_id
    assert (batch["pinyin_ids"][masked] == 0).all()
    assert (padded["pinyin_ids"][masked] > 0).any()
    random = chosen & ~masked & (batch["input_ids"] != padded["input_ids"])
    default = torch.as_tensor(np.asarray(tokenizer.default_pinyin_ids)).long()
    assert torch.equal(batch["pinyin_ids"][random], default[batch["input_ids"][random]])
    text = (~special).sum().item()
    assert abs(chosen.sum().item() / text - 0.15) < 4 * math.sqrt(0.15 * 0.85 / text)
    shares = torch.tensor([masked.sum(), random.sum()]) / chosen.sum()
    assert abs(shares[0] - 0.8) < 0.03
    assert abs(shares[1] - 0.1) < 0.03


# ---------------------------------------------------------------------------------------- laws, on 100,000 tokens each

ROWS, LENGTH = 800, 126


def law_rows(tokenizer):
    """100,800 tokens in words of one to four, in rows of 126 with [CLS] and [SEP]."""
    rng = np.random.default_rng(0)
    ordinary = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)
    ids = np.empty((ROWS, LENGTH + 2), dtype=np.int64)
    words = np.full(ids.shape, NO_WORD)
    ids[:, 0], ids[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    ids[:, 1:-1] = rng.choice(ordinary, (ROWS, LENGTH))
    for row in words:
        row[1:-1] = np.repeat(np.arange(LENGTH), rng.integers(1, 5, LENGTH))[:LENGTH]
    return ids, words


def as_features(ids, words):
    rows = enumerate(zip(ids, words, strict=True))
    return [{"input_ids": row, "word_ids": own, "mask_seed": number} for number, (row, own) in rows]


def collate(tokenizer, ids, words, **options):
    """Tokens and labels as arrays."""
    batch = DataCollatorForChineseBertMaskedLM(tokenizer, **options)(as_features(ids, words))
    return batch["input_ids"].numpy(), batch["labels"].numpy()


def test_law_of_15_percent_characters(tokenizer):
    ids, words = law_rows(tokenizer)
    chosen = collate(tokenizer, ids, words, whole_word_share=0.0)[1][:, 1:-1] != IGNORED
    assert chosen.size > 100_000
    assert follows([chosen.sum(), (~chosen).sum()], [0.15, 0.85])
    assert independent(chosen[:, 1:], chosen[:, :-1])  # neighbours
    assert independent(chosen[1:], chosen[:-1])  # rows
    tenth = np.broadcast_to(np.arange(LENGTH) * 10 // LENGTH, chosen.shape)
    assert independent(chosen, tenth)
    first_of_word = words[:, 1:-1] != words[:, :-2]
    assert independent(chosen, first_of_word)  # words are nothing to single characters


def test_law_of_15_percent_whole_words_whatever_their_length_and_place(tokenizer):
    ids, words = law_rows(tokenizer)
    chosen = collate(tokenizer, ids, words, whole_word_share=1.0)[1][:, 1:-1] != IGNORED
    words = words[:, 1:-1]
    unit = words + np.arange(ROWS)[:, None] * LENGTH  # a number of its own for each word of all rows
    _, start, number, length = np.unique(unit, return_index=True, return_inverse=True, return_counts=True)
    hit = chosen.ravel()[start]
    assert np.array_equal(chosen.ravel(), hit[number.ravel()])  # all tokens of a word or none
    assert follows([hit.sum(), (~hit).sum()], [0.15, 0.85])
    assert independent(hit, length - 1)
    assert independent(hit, start % LENGTH * 10 // LENGTH)
    same_row = start[1:] // LENGTH == start[:-1] // LENGTH
    assert independent(hit[1:][same_row], hit[:-1][same_row])
    # So of the tokens too 15 % are chosen; words of n tokens make the share n times as uneven.
    deviation = math.sqrt(0.15 * 0.85 * (length**2).sum())
    assert abs(chosen.sum() - 0.15 * chosen.size) < 3.29 * deviation


def test_law_of_80_10_10(tokenizer):
    ids, words = law_rows(tokenizer)
    new, labels = collate(tokenizer, ids, words, mlm_probability=0.99, whole_word_share=0.0)
    chosen = labels != IGNORED
    assert np.array_equal(new[~chosen], ids[~chosen])
    assert np.array_equal(labels[chosen], ids[chosen])
    kind = np.select([new == tokenizer.mask_token_id, new != ids], [0, 1], 2)
    repeated = 0.1 / (len(tokenizer) - len(tokenizer.all_special_ids))  # random, and by chance the same
    assert follows(np.bincount(kind[chosen]), [0.8, 0.1 - repeated, 0.1 + repeated])
    both = chosen[:, 1:] & chosen[:, :-1]
    assert independent(kind[:, 1:][both], kind[:, :-1][both])


def test_law_of_epochs(tokenizer):
    """Whether a token is chosen, and what becomes of it, does not depend on another epoch."""
    ids, words = law_rows(tokenizer)
    collator = DataCollatorForChineseBertMaskedLM(tokenizer, whole_word_share=0.0)
    features = as_features(ids, words)
    first = collator(features)
    collator.set_epoch(1)
    second = collator(features)
    chosen = [(batch["labels"] != IGNORED).numpy()[:, 1:-1] for batch in (first, second)]
    assert independent(*chosen)
    masked = (first["input_ids"] == tokenizer.mask_token_id).numpy()[:, 1:-1]
    assert independent(masked[chosen[0]], chosen[1][chosen[0]])


def test_law_of_random_tokens(tokenizer):
    """Each token of the vocabulary but the special ones as often as the others."""
    ids, words = law_rows(tokenizer)
    new, labels = collate(tokenizer, ids, words, mlm_probability=0.99, mask_share=0.0, random_share=1.0)
    drawn = np.where(labels != IGNORED, new, NO_WORD)[:, 1:-1]
    ordinary = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)
    counts = np.bincount(drawn[drawn != NO_WORD], minlength=len(tokenizer))
    assert counts.sum() > 99_000
    assert counts.sum() == counts[ordinary].sum()
    assert follows(counts[ordinary], np.full(len(ordinary), 1 / len(ordinary)))
    both = (drawn[:, 1:] != NO_WORD) & (drawn[:, :-1] != NO_WORD)
    assert independent(drawn[:, 1:][both] % 10, drawn[:, :-1][both] % 10)
    ten = drawn != NO_WORD
    assert independent(drawn[ten] % 10, ids[:, 1:-1][ten] % 10)  # the original does not matter


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_law_of_whole_word_examples(tokenizer, share):
    """105,000 tokens: one word of forty and one of one in each row, so that a row shows how it was masked."""
    rows = 2500
    ids = np.full((rows, 43), 30)
    ids[:, 0], ids[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    words = np.tile([NO_WORD, *[0] * 40, 1, NO_WORD], (rows, 1))
    _, labels = collate(tokenizer, ids, words, mlm_probability=0.3, whole_word_share=share)
    count = (labels[:, 1:41] != IGNORED).sum(1)
    single = (count > 0) & (count < 40)  # one of 1.6 million rows of single characters has none of forty
    if 0 < share < 1:
        assert follows([single.sum(), (~single).sum()], [1 - share, share])
        assert independent(single[1:], single[:-1])
    else:
        assert single.mean() == 1 - share
    if share >= 0.5:  # the kind of masking says nothing about which words: 0.3, and half of the rows that had none
        hit = count[~single] > 0
        assert follows([hit.sum(), (~hit).sum()], [0.545, 0.455])


# ------------------------------------------------------------------------------------------------------ nothing leaks


def readable_rows(tokenizer, count=60):
    rng = np.random.default_rng(1)
    result = []
    for number in range(count):
        length = int(rng.integers(20, 60))
        body = rng.integers(100, len(tokenizer), length)
        result.append(
            {
                "input_ids": np.array([tokenizer.cls_token_id, *body, tokenizer.sep_token_id]),
                "pinyin_ids": np.array([0, *rng.integers(1, 90, length), 0]),
                "token_type_ids": np.array([0, *[0] * (length // 2), *[1] * (length - length // 2), 1]),
                "word_ids": np.array([NO_WORD, *(np.arange(length) // 3), NO_WORD]),
                "mask_seed": number,
            }
        )
    return result


def test_hidden_tokens_and_readings_do_not_reach_the_model(tokenizer, tiny_chinesebert_folder):
    """Other characters and other readings in the hidden places: the model is given, and answers, exactly the same."""
    features = readable_rows(tokenizer)
    collator = DataCollatorForChineseBertMaskedLM(tokenizer, mlm_probability=0.3)
    batch = collator(features)
    rng = np.random.default_rng(2)
    changed = 0
    others = []
    for row, feature in enumerate(features):
        length = len(feature["input_ids"])
        hidden = (batch["labels"][row, :length] != IGNORED).numpy()
        hidden &= batch["input_ids"][row, :length].numpy() != feature["input_ids"]  # a tenth is shown on purpose
        other = {name: np.copy(value) for name, value in feature.items()}
        other["input_ids"][hidden] = rng.integers(100, len(tokenizer), hidden.sum())
        other["pinyin_ids"][hidden] = rng.integers(1, 90, hidden.sum())
        others.append(other)
        changed += int((other["input_ids"] != feature["input_ids"]).sum())
    assert changed > 400
    again = collator(others)
    assert not torch.equal(batch["labels"], again["labels"])
    inputs, same = ({name: value for name, value in b.items() if name != "labels"} for b in (batch, again))
    assert inputs.keys() == same.keys() == {"input_ids", "token_type_ids", "attention_mask", "pinyin_ids"}
    for name, value in inputs.items():
        assert torch.equal(value, same[name]), name
    model = ChineseBertForMaskedLM.from_pretrained(tiny_chinesebert_folder).eval()
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, model(**same).logits)
        seen = {**inputs, "pinyin_ids": tokenizer.pad(features_of(features), return_tensors="pt")["pinyin_ids"]}
        assert not torch.equal(model(**inputs).logits, model(**seen).logits)  # a reading left in place would show


def features_of(features):
    return [{name: feature[name] for name in ("input_ids", "pinyin_ids")} for feature in features]


def test_words_do_not_reach_the_model(tokenizer):
    """Attention mask and token types are those of the text; where characters are masked, words change nothing."""
    features = readable_rows(tokenizer)
    plain = tokenizer.pad(
        [
            {**feature, "token_type_ids": kinds["token_type_ids"]}
            for feature, kinds in zip(features_of(features), features, strict=True)
        ],
        return_tensors="pt",
    )
    batch = DataCollatorForChineseBertMaskedLM(tokenizer)(features)
    assert torch.equal(batch["attention_mask"], plain["attention_mask"])
    assert torch.equal(batch["token_type_ids"], plain["token_type_ids"])
    collator = DataCollatorForChineseBertMaskedLM(tokenizer, whole_word_share=0.0)
    other_words = [{**f, "word_ids": np.where(f["word_ids"] < 0, NO_WORD, f["word_ids"] // 2)} for f in features]
    one, other = collator(features), collator(other_words)
    assert all(torch.equal(one[name], other[name]) for name in one)


# ------------------------------------------------------------------------------------------------ form of the examples


@pytest.mark.parametrize("lengths", ["equal", "unequal"])
def test_lists_arrays_tensors_and_arrow_rows_alike(tokenizer, lengths):
    from datasets import Dataset

    features = [
        {name: value[:18] if lengths == "equal" and name != "mask_seed" else value for name, value in feature.items()}
        for feature in readable_rows(tokenizer, 8)
    ]
    collator = DataCollatorForChineseBertMaskedLM(tokenizer)
    expected = collator(features)
    lists = [{name: np.asarray(value).tolist() for name, value in feature.items()} for feature in features]
    with_none = [{**f, "word_ids": [None if word < 0 else word for word in f["word_ids"]]} for f in lists]
    small = Dataset.from_list(lists)
    none = Dataset.from_list(with_none)
    forms = [lists, with_none, [{k: torch.as_tensor(v) for k, v in f.items()} for f in features]]
    forms += [list(data.with_format(form)) for data in (small, none) for form in (None, "numpy")]
    for form in forms:
        batch = collator(form)
        assert batch.keys() == expected.keys()
        for name, value in expected.items():
            assert value.dtype == torch.int64
            assert torch.equal(batch[name], value), name


def test_rows_of_one_length_are_what_padding_makes_of_them(tokenizer):
    features = [{n: v[:18] if n != "mask_seed" else v for n, v in f.items()} for f in readable_rows(tokenizer, 9)]
    longer = {name: np.concatenate([value, value]) for name, value in features[0].items() if name != "mask_seed"}
    collator = DataCollatorForChineseBertMaskedLM(tokenizer)
    equal, padded = collator(features), collator([*features, longer])
    multiple = DataCollatorForChineseBertMaskedLM(tokenizer, pad_to_multiple_of=16)(features)
    assert multiple["input_ids"].shape == (9, 32)
    for name, value in equal.items():
        assert torch.equal(value, padded[name][:9, :18]), name
        assert torch.equal(value, multiple[name][:, :18]), name


def test_special_tokens_mask_is_respected_and_left_out(tokenizer):
    features = readable_rows(tokenizer, 20)
    for feature in features:
        feature["special_tokens_mask"] = np.arange(len(feature["input_ids"])) < 10
    batch = DataCollatorForChineseBertMaskedLM(tokenizer, mlm_probability=0.9)(features)
    assert "special_tokens_mask" not in batch
    assert (batch["labels"][:, :10] == IGNORED).all()
    assert (batch["labels"][:, 10:20] != IGNORED).any()


def test_columns_that_are_no_integers(tokenizer):
    feature = {"input_ids": [2, 30, 3], "word_ids": [-1, 0, -1], "text": "我"}
    with pytest.raises(ValueError, match="text: expected integers, got '我'"):
        DataCollatorForChineseBertMaskedLM(tokenizer)([feature])


# ---------------------------------------------------------------------------------------------- epochs, seeds, workers


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_masks_depend_on_the_example_alone(tokenizer, workers, batch_size):
    features = examples(tokenizer, 20)
    collator = DataCollatorForChineseBertMaskedLM(tokenizer, segmenter=list)
    alone = {feature["mask_seed"]: collator([feature]) for feature in features}
    context = "fork" if workers else None  # a lambda does not travel to a spawned worker
    loader = DataLoader(
        features[::-1],
        batch_size=batch_size,
        collate_fn=collator,
        num_workers=workers,
        multiprocessing_context=context,
    )
    seeds = iter([feature["mask_seed"] for feature in features[::-1]])
    for batch in loader:
        for row in range(len(batch["input_ids"])):
            expected = alone[next(seeds)]
            length = expected["input_ids"].shape[1]
            for name in ("input_ids", "pinyin_ids", "labels"):
                assert torch.equal(batch[name][row, :length], expected[name][0])


def test_padding_side_changes_nothing_but_the_place(tokenizer):
    features = examples(tokenizer, 6)
    right = DataCollatorForChineseBertMaskedLM(tokenizer)(features)
    left_tokenizer = ChineseBertTokenizer(vocab=tokenizer.get_vocab(), padding_side="left")
    left = DataCollatorForChineseBertMaskedLM(left_tokenizer)(features)
    for row in range(6):
        length = int(right["attention_mask"][row].sum())
        for name in ("input_ids", "pinyin_ids", "labels"):
            assert torch.equal(right[name][row, :length], left[name][row, -length:])


def test_epochs_and_seeds_differ_and_content_stands_in_for_a_seed(tokenizer):
    feature = {key: value for key, value in examples(tokenizer, 1)[0].items() if key != "mask_seed"}
    collator = DataCollatorForChineseBertMaskedLM(tokenizer, mlm_probability=0.5)
    first, again = collator([feature]), collator([feature])
    assert torch.equal(first["input_ids"], again["input_ids"])
    collator.set_epoch(1)
    assert not torch.equal(first["input_ids"], collator([feature])["input_ids"])
    other = DataCollatorForChineseBertMaskedLM(tokenizer, mlm_probability=0.5, seed=1)
    assert not torch.equal(first["input_ids"], other([feature])["input_ids"])


def test_plain_bert_without_pinyin(tmp_path):
    from transformers import BertTokenizer

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"我喜欢猫狗"]
    tokenizer = BertTokenizer(vocab={token: number for number, token in enumerate(vocabulary)})
    batch = DataCollatorForChineseBertMaskedLM(tokenizer)([dict(tokenizer("我喜欢猫")), dict(tokenizer("我喜欢狗狗"))])
    assert "pinyin_ids" not in batch
    assert batch["input_ids"].shape == batch["labels"].shape == (2, 7)
    assert ((batch["labels"] != IGNORED).sum(1) > 0).all()


def test_jieba_words_are_masked_whole(tokenizer):
    pytest.importorskip("jieba")
    options = {"segmenter": "jieba", "whole_word_share": 1.0, "mlm_probability": 0.3}
    collator = DataCollatorForChineseBertMaskedLM(tokenizer, **options)
    features = [{**dict(tokenizer("我喜欢北京大学老师")), "mask_seed": seed} for seed in range(50)]
    hidden = collator(features)["labels"] != IGNORED  # [CLS] 我 喜欢 北京大学 老师 [SEP]
    assert torch.equal(hidden[:, 2], hidden[:, 3])
    assert torch.equal(hidden[:, 4], hidden[:, 7])
    assert torch.equal(hidden[:, 8], hidden[:, 9])
    assert not torch.equal(hidden[:, 3], hidden[:, 4])


@pytest.mark.parametrize(
    "options",
    [{"mlm_probability": 0.0}, {"whole_word_share": 1.5}, {"mask_share": 0.8, "random_share": 0.3}],
)
def test_options_out_of_range(tokenizer, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        DataCollatorForChineseBertMaskedLM(tokenizer, **options)


def test_word_ids_of_another_length(tokenizer):
    with pytest.raises(ValueError, match="2 entries for 3 tokens"):
        DataCollatorForChineseBertMaskedLM(tokenizer)([{"input_ids": [2, 30, 3], "word_ids": [0, 1]}])
