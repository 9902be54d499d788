"""Templates and prompts: parsed or refused with the place, and a user's text stays text."""

import pytest
from hardening_inputs import json_files, json_values, nearly, put, refused, strange_text
from hypothesis import assume, example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from hf_nlpnotes.prompting import PromptConfig, Template, Verbalizer
from hf_nlpnotes.prompting.encoding import PromptEncoder

PIECES = ("{label}", "{text}", "{title:head}", "{a:max=3}", "{b:head,max=20}", "{c:whole}", "{sep}", "{sep:pair}")
MORE = ("{options}", "{options:/}", "{demos:2}", "{demos:2,seed=7}", "{demos:1,nearest}", "{soft:5}", "{soft:请判断}")
ODD = ("{", "}", "{{", "}}", ":", "：", ",", "=", "label", "text", "max", "²", "٣", "99999999999999999999", "-1", " ")
sources = st.lists(st.sampled_from([*PIECES, *MORE, *ODD]) | strange_text, max_size=8).map("".join)

RESERVED = {"label", "mask", "sep", "options", "demos", "soft"}
names = st.text(min_size=1, max_size=5).filter(
    lambda name: name == name.strip() and not set(name) & set("{}:：") and name not in RESERVED
)
"""Names that a column may have in a template."""


@given(sources)
@example("{label}{text}{soft:" + "9" * 5000 + "}")
@example("{label}{text:max=" + "9" * 5000 + "}")
@example("{label}{text}{demos:" + "9" * 5000 + "}")
def test_any_string_is_parsed_or_refused_with_the_template_in_the_message(source):
    template = refused(Template, source, naming=" in the template: ")
    if template is not None:
        assert template.columns
        assert Template(str(template)) == template


@given(before=strange_text, after=strange_text, name=names, value=strange_text, label=strange_text)
def test_what_is_parsed_renders_as_it_was_written(before, after, name, value, label):
    escaped = [text.replace("{", "{{").replace("}", "}}") for text in (before, after)]
    template = Template(f"{escaped[0]}{{label}}{escaped[1]}{{{name}}}")
    assert template.columns == (name,)
    assert template.fill({name: value}, label) == before + label + after + value


@pytest.fixture(scope="module")
def tokenizer(tiny_chinesebert_folder):
    return AutoTokenizer.from_pretrained(tiny_chinesebert_folder)


@given(text=strange_text, masks=st.integers(1, 3), form=st.sampled_from(["{text}新闻{label}。", "{label}{text:head}"]))
def test_a_text_never_becomes_a_mask_or_a_slot(tokenizer, text, masks, form):
    encoder = PromptEncoder(Template(form), tokenizer, max_length=64)
    (row,) = encoder.encode({"text": text}, [masks])
    assert sum(row["label_mask"]) == masks
    ids = row["input_ids"]
    assert [place for place, number in enumerate(ids) if number == tokenizer.mask_token_id] == [
        place for place, marked in enumerate(row["label_mask"]) if marked
    ]
    assert ids.count(tokenizer.cls_token_id) == ids.count(tokenizer.sep_token_id) == 1


WHOLE = {
    "template": {"{text}总之是{label}。": 2.0, "{demos:2}{label}：{text}": 1},
    "verbalizer": {"好评": ["好", "不错"], "差评": {"差": 0.5, "坏": 2}},
    "demonstrations": [{"text": "很好", "label": "好评"}, {"text": "糟糕", "label": 1}],
    "calibration": "contextual",
    "calibration_texts": ["一般", {"text": "还行"}],
    "label_prior": {"好评": 0.5, "差评": 0.5},
    "bias": [0.1, -0.1],
    "prior_weight": 0.2,
    "scoring": "joint",
    "rerank": 2,
    "max_length": 128,
    "model": "some/model",
}


@given(values=nearly(WHOLE))
def test_a_prompt_is_made_or_refused(values):
    assume(isinstance(values, dict))
    made = refused(PromptConfig.from_dict, values, kinds=(ValueError, TypeError))
    if made is not None:
        assert PromptConfig.from_dict(made.to_dict()) == made
        assert made.labels == tuple(made.words.labels if made.verbalizer else ())


@given(content=json_files(WHOLE))
def test_a_prompt_file_is_read_or_refused_by_name(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / "prompts"
    path = put(folder, "prompt.json", content)
    refused(PromptConfig.from_pretrained, folder, naming=path, kinds=(ValueError, TypeError))


@given(words=st.dictionaries(strange_text, json_values, max_size=4) | json_values)
def test_label_words_are_taken_or_refused(words):
    made = refused(Verbalizer.of, words, kinds=(ValueError, TypeError))
    if made is not None:
        assert made.weight_matrix().sum(0).sub(1).abs().max() < 1e-9
