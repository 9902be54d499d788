"""Made-up sentences with their words, parts of speech, entities and roles, for the examples of sequence tagging."""

import random
from typing import NamedTuple


class Word(NamedTuple):
    """A word of a made-up sentence with all that can be said of it."""

    form: str
    part_of_speech: str
    entity: str | None = None
    role: str | None = None


PEOPLE = ["小明", "李老师", "王医生", "张三丰", "欧阳修", "司马光", "陈小红", "刘洋"]
CITIES = ["北京", "上海", "广州", "乌鲁木齐", "哈尔滨", "重庆市", "西安", "日本东京"]
ORGANIZATIONS = ["中国银行", "新华社", "北京大学", "国家图书馆", "华为公司", "清华大学"]
DEEDS = [("参观", "博物馆"), ("看", "电影"), ("买", "手机"), ("研究", "历史"), ("发表", "文章"), ("踢", "足球")]
TIMES = ["今天", "昨天晚上", "去年", "星期三", "上个月", "早上"]


def made_up(size: int, seed: int, *, new_words: bool = False) -> list[list[Word]]:
    """Who does what, when and where, in several orders of words; some of the names only with `new_words`."""
    people, cities, organizations = (names if new_words else names[:-2] for names in (PEOPLE, CITIES, ORGANIZATIONS))
    draw = random.Random(seed)
    sentences = []
    for _ in range(size):
        verb, thing = draw.choice(DEEDS)
        who = Word(draw.choice(people), "PROPN", "PER", "A0")
        when = Word(draw.choice(TIMES), "NOUN", None, "AM-TMP")
        city, organization = draw.choice(cities), draw.choice(organizations)
        named = draw.choice([Word(city, "PROPN", "LOC", "AM-LOC"), Word(organization, "PROPN", "ORG", "AM-LOC")])
        where = [Word("在", "ADP"), named]
        begin = draw.choice(
            [[when, who, *where], [who, when, *where], [who, *where], [*where, Word("，", "PUNCT"), who]]
        )
        done = draw.choice([[], [Word("了", "PART")]])
        sentences.append([*begin, Word(verb, "VERB"), *done, Word(thing, "NOUN", None, "A1"), Word("。", "PUNCT")])
    return sentences
