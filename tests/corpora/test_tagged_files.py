"""The readers of tagged sentences, on files as they are found in the wild."""

import json

import pytest

from hf_nlpnotes import corpora
from hf_nlpnotes.corpora import TaggedSentence, read_tagged, tagged_files
from hf_nlpnotes.corpora.sentences import scheme_of
from hf_nlpnotes.tagging import is_legal, tags_to_spans


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def read(reader, path):
    """As an example reads: blank tokens left out, tags repaired."""
    (sentences,) = tagged_files._cleaned(reader, [path])
    return sentences


@pytest.mark.parametrize("separator", ["\t", " "])
def test_columns_with_any_separator_and_line_end(tmp_path, separator):
    lines = ["-DOCSTART- O", "", "北 x B-LOC", "京 y I-LOC", "", "", "去 z O"]
    path = tmp_path / "file"
    path.write_bytes("\r\n".join(lines).replace(" ", separator).encode())
    first, second = read(corpora.read_columns, path)
    assert (first.tokens, first.tags) == (["北", "京"], ["B-LOC", "I-LOC"])
    assert (second.tokens, second.tags) == (["去"], ["O"])


def test_columns_lose_the_numbers_of_words_but_not_numbers(tmp_path):
    path = written(tmp_path / "file", "科0\tO\n技1\tB-PER.NAM\n\n10\tB-X\n119\tO\n")
    first, second = read(corpora.read_columns, path)
    assert first.tokens == ["科", "技"]
    assert second.tokens == ["1", "1"], "the digit 1 in the places 0 and 19"
    path = written(tmp_path / "file", "a\tB-X\n\n2019\tO\n\n20\tO\n10\tO\n")
    assert [sentence.tokens for sentence in read(corpora.read_columns, path)] == [["a"], ["2019"], ["20", "10"]]
    path = written(tmp_path / "file", "2019\tO\n10\tB-X\n")
    assert [sentence.tokens for sentence in read(corpora.read_columns, path)] == [["2019", "10"]]


def test_a_number_sign_is_a_token_and_not_a_comment(tmp_path):
    lines = ["# O", "赛 B-TOPIC", "# B-TOPIC", "", "# newdoc", "# text = a b", "a O", "# O"]
    first, second = read(corpora.read_columns, written(tmp_path / "file", "\n".join(lines)))
    assert (first.tokens, first.tags) == (["#", "赛", "#"], ["O", "B-TOPIC", "B-TOPIC"])
    assert second.tokens == ["a", "#"]


def test_columns_with_blanks_at_the_end_and_a_wide_blank_as_token(tmp_path):
    (sentence,) = read(corpora.read_columns, written(tmp_path / "file", "a O \n\u3000 O\nb B-X\t\n"))
    assert (sentence.tokens, sentence.tags) == (["a", "b"], ["O", "B-X"])


@pytest.mark.parametrize(("line", "column"), [("a", -1), ("a\t", -1), ("a\tO", 2), ("a\tO", -3)])
def test_columns_without_a_tag(tmp_path, line, column):
    path = written(tmp_path / "file", f"# x\n{line}\n")
    with pytest.raises(ValueError, match="a line without a tag: 'a"):
        list(corpora.read_columns(path, column))


def test_a_blank_token_goes_and_its_span_stays_whole(tmp_path):
    path = written(tmp_path / "file", "听 O\na B-song\n  I-song\nb E-song\n  S-song\n  O\n")
    (sentence,) = read(corpora.read_columns, path)
    assert (sentence.tokens, sentence.tags) == (["听", "a", "b"], ["O", "B-song", "E-song"])


def test_tokens_that_break_lines_elsewhere_are_tokens(tmp_path):
    path = written(tmp_path / "file", "a\x85b\tO\nc\tB-X\n")
    (sentence,) = read(corpora.read_columns, path)
    assert sentence.tokens == ["a\x85b", "c"]


def test_tags_that_break_their_scheme_are_repaired(tmp_path):
    path = written(tmp_path / "file", "a O\nb I-PER\nc I-PER\nd B-LOC\ne I-PER\n\nf B-PER\n")
    sentence, _ = read(corpora.read_columns, path)
    assert sentence.tags == ["O", "B-PER", "I-PER", "B-LOC", "B-PER"]


def test_conllu_leaves_out_ranges_and_empty_nodes(tmp_path):
    def row(number, form, upos, xpos):
        return f"{number}\t{form}\t_\t{upos}\t{xpos}\t_\t0\troot\t_\t_"

    lines = [
        "# text = 我们去",
        row("1-2", "我们去", "_", "_"),
        row(1, "我们", "PRON", "PRP"),
        row("1.1", "x", "X", "X"),
    ]
    path = written(tmp_path / "f.conllu", "\n".join([*lines, row(2, "去", "VERB", "VV"), "", ""]))
    (sentence,) = corpora.read_conllu(path)
    assert (sentence.tokens, sentence.tags) == (["我", "们", "去"], ["B-PRON", "E-PRON", "S-VERB"])
    (sentence,) = corpora.read_conllu(path, column=4, characters=False)
    assert (sentence.tokens, sentence.tags) == (["我们", "去"], ["PRP", "VV"])


def test_roles_are_a_sentence_a_predicate(tmp_path):
    rows = [
        "1\t我們\t我们\tPRON\tPRP\t_\t2\tnsubj\t_\t_\tA0\t_",
        "2\t要求\t要求\tVERB\tVV\t_\t0\troot\tY\task.01\t_\t_",
        "3\t回答\t回答\tVERB\tVV\t_\t2\tccomp\tY\tanswer.01\tA1\t_",
    ]
    path = written(tmp_path / "f.conllu", "\n".join(rows) + "\n")
    first, second = corpora.read_roles(path, form=2)
    assert first.tokens == list("我们要求回答")
    assert first.predicate == (2, 4)
    assert tags_to_spans(first.tags, "BIOES") == [("A0", 0, 2), ("A1", 4, 6)]
    assert second.predicate == (4, 6)
    assert set(second.tags) == {"O"}
    written(path, "\n".join(row.rsplit("\t", 1)[0] for row in rows) + "\n")
    with pytest.raises(ValueError, match="2 predicates and 1 columns of arguments"):
        list(corpora.read_roles(path))


@pytest.mark.parametrize(
    "row",
    [
        {"text": "叶老桂 在北京", "label": {"name": {"叶老桂": [[0, 2]]}, "address": {"北京": [[5, 6]]}}},
        {
            "text": "叶老桂 在北京",
            "entity_list": [
                {"entity_type": "address", "entity": "北京", "entity_index": {"begin": 5, "end": 7}},
                {"entity_type": "name", "entity": "叶老桂", "entity_index": {"begin": 0, "end": 3}},
                {"entity_type": "book", "entity": "老桂", "entity_index": {"begin": 1, "end": 3}},
            ],
        },
        {
            "text": "叶老桂 在北京",
            "spans": [{"type": "name", "start": 0, "end": 3}, {"label": "address", "start": 5, "end": 7}],
        },
    ],
)
def test_json_lines_with_spans(tmp_path, row):
    path = written(tmp_path / "train.json", json.dumps(row, ensure_ascii=False) + "\n\n")
    (sentence,) = corpora.read_json_lines(path)
    assert sentence.tokens == list("叶老桂在北京")
    assert tags_to_spans(sentence.tags, "BIOES") == [("name", 0, 3), ("address", 4, 6)]


def test_json_lines_with_tags_and_intent(tmp_path):
    path = written(tmp_path / "train.json", json.dumps({"tokens": ["a"], "tags": ["B-X"], "intent": "go"}))
    assert list(corpora.read_json_lines(path)) == [TaggedSentence(["a"], ["B-X"], None, "go")]


def test_segmented_text(tmp_path):
    path = written(tmp_path / "file.utf8", "\ufeff我  喜欢  北京大学\n\n　\n猫  \n")
    first, second = corpora.read_segmented(path)
    assert "".join(first.tags) == "SBEBMME"
    assert second.tokens == ["猫"]


def test_utterances_of_three_files(tmp_path):
    for name, line in (("seq.in", "fly to boston"), ("seq.out", "O O B-city"), ("label", "flight")):
        written(tmp_path / name, line + "\n")
    (sentence,) = corpora.read_utterances(tmp_path)
    assert sentence == TaggedSentence(["fly", "to", "boston"], ["O", "O", "B-city"], None, "flight")
    written(tmp_path / "label", "flight\nflight\n")
    with pytest.raises(ValueError, match=r"different lengths: \{'seq.in': 1, 'seq.out': 1, 'label': 2}"):
        list(corpora.read_utterances(tmp_path))


@pytest.mark.parametrize(
    "line",
    [
        "to keywords\t机器 学习与深度学习，学习\t学习_机器 学习_没有",
        json.dumps({"abst": "机器 学习与深度学习，学习", "keyword": ["学习", "机器 学习", "没有"]}),
    ],
)
def test_keywords_where_they_stand_longest_first(tmp_path, line):
    (sentence,) = corpora.read_keywords(written(tmp_path / "f", line + "\n"))
    assert sentence.keywords == ("学习", "机器学习", "没有")
    found = ["".join(sentence.tokens[start:end]) for _, start, end in tags_to_spans(sentence.tags, "BIOES")]
    assert found == ["机器学习", "学习", "学习"]


def test_a_predicate_stays_in_its_place_where_blanks_go(tmp_path):
    rows = ["1\tNew York\t_\tX\tX\t_\t2\tx\t_\t_\tA0", "2\t要求\t_\tX\tX\t_\t0\tx\tY\task.01\t_"]
    (sentence,) = read(corpora.read_roles, written(tmp_path / "file", "\n".join(rows)))
    assert sentence.tokens[slice(*sentence.predicate)] == ["要", "求"]
    assert tags_to_spans(sentence.tags, "BIOES") == [("A0", 0, 7)]


@pytest.mark.parametrize(("start", "end"), [(2, 50), (50, 60), (-3, 2), (3, 2)])
def test_spans_outside_of_their_text_are_refused(tmp_path, start, end):
    row = {"text": "abcd", "spans": [{"type": "X", "start": start, "end": end}]}
    with pytest.raises(ValueError, match=r"line 1: ValueError the span .* does not lie in a text of 4 characters"):
        list(corpora.read_json_lines(written(tmp_path / "file", json.dumps(row))))


def test_numbers_are_no_tags(tmp_path):
    path = written(tmp_path / "file", json.dumps({"tokens": ["a", "b"], "ner_tags": [0, 3]}))
    with pytest.raises(ValueError, match=r"line 1: expected lists .* Write the names of tags that are numbers"):
        list(corpora.read_json_lines(path))


def test_utterances_with_blank_lines_at_the_end(tmp_path):
    for name, text in (("seq.in", "a b\n\n \n"), ("seq.out", "O B-X\n"), ("label", "go\n\n")):
        written(tmp_path / name, text)
    assert len(list(corpora.read_utterances(tmp_path))) == 1


def test_one_scheme_for_all_files(tmp_path):
    written(tmp_path / "train.txt", "a B-X\nb I-X\n")
    written(tmp_path / "test.txt", "a I-X\nb O\n")
    _, test = read_tagged(str(tmp_path), corpora.read_columns)
    assert test[0].tags == ["B-X", "O"], "legal in IOB1, but the file to learn from is IOB2"
    written(tmp_path / "test.txt", "a O\n")
    assert read_tagged(str(tmp_path), corpora.read_columns)[1][0].tags == ["O"]


def test_a_file_is_of_one_split(tmp_path):
    for name in ("contest_train", "contest_valid", "latest_test"):
        written(tmp_path / f"{name}.txt", f"{name} B-X\n")
    written(tmp_path / "._contest_train.txt", "\0")
    train, test = read_tagged(str(tmp_path), corpora.read_columns)
    assert (train[0].tokens, test[0].tokens) == (["contest_train"], ["latest_test"])
    (tmp_path / "latest_test.txt").unlink()
    assert read_tagged(str(tmp_path), corpora.read_columns)[1][0].tokens == ["contest_valid"]


def test_one_file_is_cut_with_its_sentences_together(tmp_path):
    path = written(tmp_path / "file", "\n\n".join(f"{'ab'[n % 2]}{n % 20 // 2} O\nx B-X" for n in range(40)) + "\n")
    train, test = read_tagged(str(path), corpora.read_columns)
    assert len(train) + len(test) == 40
    assert not {tuple(s.tokens) for s in train} & {tuple(s.tokens) for s in test}
    assert len({tuple(s.tokens) for s in test}) == 4
    again, _ = read_tagged(str(path), corpora.read_columns, limit=5)
    assert len(again) == 5


def test_a_folder_takes_the_test_file_before_the_development_file(tmp_path):
    for name in ("train", "dev", "test"):
        written(tmp_path / f"{name}.txt", f"{name} B-X\n")
    train, test = read_tagged(str(tmp_path), corpora.read_columns)
    assert (train[0].tokens, test[0].tokens) == (["train"], ["test"])
    (tmp_path / "train.txt").unlink()
    with pytest.raises(ValueError, match="no files named"):
        read_tagged(str(tmp_path), corpora.read_columns)
    with pytest.raises(ValueError, match="there is no"):
        read_tagged(str(tmp_path / "absent"), corpora.read_columns)


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("ner/weibo", "read_columns"),
        ("ner/resume", "read_columns"),
        ("slot_filling/cais", "read_columns"),
        ("slot_filling/atis", "read_utterances"),
        ("word_segmentation/pku_test_gold.utf8", "read_segmented"),
        ("pos/zh_gsdsimp-ud-dev.conllu", "read_conllu"),
        ("srl/zh-up-dev.conllu", "read_roles"),
        ("keywords/csl_dev.tsv", "read_keywords"),
    ],
)
def test_real_data_is_legal_in_its_scheme(data_folder, name, reader):
    train, test = read_tagged(str(data_folder / name), getattr(corpora, reader))
    scheme = scheme_of([sentence.tags for sentence in train])
    for sentence in [*train, *test]:
        assert len(sentence.tokens) == len(sentence.tags)
        assert all(token.strip() for token in sentence.tokens)
        assert is_legal(sentence.tags, scheme)
