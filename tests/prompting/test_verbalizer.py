import pytest
import torch

from hf_nlpnotes.prompting import READY_LABEL_WORDS, Verbalizer, group_words, ready_label_words


def test_a_list_of_labels_speaks_for_itself() -> None:
    verbalizer = Verbalizer.of(["体育", "财经"])
    assert verbalizer.labels == ("体育", "财经")
    assert verbalizer.words == (("体育",), ("财经",))


def test_weights_of_a_label_sum_to_one() -> None:
    verbalizer = Verbalizer.of({"体育": {"体育": 3, "足球": 1}, "财经": ["财经", "股市", "体育"]})
    assert verbalizer.all_words == ("体育", "足球", "财经", "股市")
    expected = torch.tensor([[0.75, 1 / 3], [0.25, 0], [0, 1 / 3], [0, 1 / 3]], dtype=torch.float64)
    torch.testing.assert_close(verbalizer.weight_matrix(), expected)


def test_selecting_keeps_known_words_and_takes_unknown_labels_as_words() -> None:
    selected = Verbalizer.of({"体育": {"足球": 2, "篮球": 6}, "财经": "股市"}).select(["娱乐", "体育"])
    assert selected == Verbalizer(("娱乐", "体育"), (("娱乐",), ("足球", "篮球")), ((1.0,), (0.25, 0.75)))


def test_words_are_grouped_by_their_number_of_tokens() -> None:
    groups = group_words(Verbalizer.of({"a": ["xyz", "x"], "b": ["y", "uv"]}), lambda word: [ord(c) for c in word])
    assert [(g.num_masks, g.positions, g.token_ids) for g in groups] == [
        (1, (1, 2), ((120,), (121,))),
        (2, (3,), ((117, 118),)),
        (3, (0,), ((120, 121, 122),)),
    ]


@pytest.mark.parametrize(
    ("words", "error", "what"),
    [
        ([], ValueError, "no label"),
        ({}, ValueError, "no label"),
        (["体育", "体育"], ValueError, "'体育' is given twice"),
        (["体育", " "], ValueError, "label ' ' is empty"),
        (["体育", 3], TypeError, "got 3"),
        ({"体育": []}, ValueError, "'体育' has no words"),
        ({"体育": ["足球", ""]}, ValueError, "empty word ''"),
        ({"体育": ["足球", "足球"]}, ValueError, "the word '足球' twice"),
        ({"体育": ["足球", None]}, TypeError, "None"),
        ({"体育": 5}, TypeError, "got 5"),
        ({"体育": {"足球": 0}}, ValueError, "must be positive, got 0"),
        ({"体育": {"足球": float("nan")}}, ValueError, "must be positive, got nan"),
        ({"体育": {"足球": "1"}}, TypeError, "not a number but '1'"),
        ("体育", TypeError, "got '体育'"),
        (None, TypeError, "got None"),
    ],
)
def test_errors_name_the_value(words: object, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        Verbalizer.of(words)  # type: ignore[arg-type]


def test_selecting_checks_the_labels() -> None:
    with pytest.raises(ValueError, match="'a' is given twice"):
        Verbalizer.of({"a": "x"}).select(["a", "b", "a"])


def test_ready_words_make_a_verbalizer() -> None:
    verbalizer = Verbalizer.of(READY_LABEL_WORDS)
    assert all(len(words) >= 8 for words in verbalizer.words)
    assert ready_label_words(["体育", "闲聊"]) == {"体育": READY_LABEL_WORDS["体育"], "闲聊": ("闲聊",)}
