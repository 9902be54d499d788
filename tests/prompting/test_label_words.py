"""The table of ready label words: what it promises."""

import itertools

import pytest

from hf_nlpnotes.prompting import READY_LABEL_WORDS, Verbalizer, ready_label_words
from hf_nlpnotes.prompting.label_words import _ALIASES, _OPINIONS, _TOPICS

PARTS = {"娱乐": {"电影", "音乐"}}
"""Topics that are part of another."""


def test_a_topic_has_eight_words_of_two_characters() -> None:
    for label in _TOPICS:
        words = READY_LABEL_WORDS[label]
        assert len(words) == 8, label
        assert len(set(words)) == 8, label
        assert {len(word) for word in words} == {2}, label


def test_topics_share_no_word_unless_one_is_part_of_the_other() -> None:
    for one, other in itertools.combinations(_TOPICS, 2):
        if other not in PARTS.get(one, set()):
            assert not set(READY_LABEL_WORDS[one]) & set(READY_LABEL_WORDS[other]), (one, other)


def test_opinions_and_feelings_share_no_word() -> None:
    words = [word for label in _OPINIONS for word in READY_LABEL_WORDS[label]]
    assert len(words) == len(set(words))


def test_an_alias_has_its_own_name_and_the_words_of_its_label() -> None:
    assert not set(_ALIASES) & {*_TOPICS, *_OPINIONS}
    for alias, label in _ALIASES.items():
        assert READY_LABEL_WORDS[alias][0] == alias
        assert set(READY_LABEL_WORDS[alias]) == {alias, *READY_LABEL_WORDS[label]}


def test_the_table_cannot_be_changed_and_is_a_verbalizer() -> None:
    with pytest.raises(TypeError):
        READY_LABEL_WORDS["新"] = ("新",)  # type: ignore[index]
    assert Verbalizer.of(READY_LABEL_WORDS).labels == tuple(READY_LABEL_WORDS)
    assert ready_label_words(["体育", "闲聊"])["闲聊"] == ("闲聊",)
