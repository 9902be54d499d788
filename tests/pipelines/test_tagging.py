"""`sequence-tagging` beside the stock `token-classification`, on taggers whose answer for each token is known."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast, pipeline
from transformers.modeling_outputs import TokenClassifierOutput

from hf_nlpnotes.models.chinesebert import ChineseBertConfig, ChineseBertForTokenClassification
from hf_nlpnotes.models.crf import CrfForTokenClassification
from hf_nlpnotes.pipelines import SequenceTaggingPipeline
from hf_nlpnotes.tagging import is_legal, scheme_labels, spans_to_tags, tagger_options, tags_to_spans


class TableConfig(PreTrainedConfig):
    model_type = "table_tagger"


class TableTagger(PreTrainedModel):
    """The logits of a token are a row of a table."""

    config_class = TableConfig

    def __init__(self, config):
        super().__init__(config)
        self.table = nn.Embedding(config.vocab_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, token_type_ids=None, pinyin_ids=None):
        logits = self.table(input_ids)
        if token_type_ids is not None and self.config.segment_weight:
            logits = logits + torch.tensor(self.config.segment_weight) * token_type_ids[..., None]
        return TokenClassifierOutput(logits=logits)


@pytest.fixture(scope="module")
def tokenizer(tiny_chinesebert_folder):
    return AutoTokenizer.from_pretrained(tiny_chinesebert_folder)


def tagger(tokenizer, labels, answers, *, scheme=None, margin=6.0, limit=64):
    """Return a model that is sure of the label that `answers` has for a token's text, and of the first label else."""
    config = TableConfig(
        vocab_size=len(tokenizer),
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        max_position_embeddings=limit,
        segment_weight=[],
    )
    if scheme:
        config.tagging_scheme = scheme
    model = TableTagger(config)
    vocabulary = tokenizer.get_vocab()
    with torch.no_grad():
        model.table.weight.zero_()
        model.table.weight[:, 0] = margin
        for token, label in answers.items():
            row = torch.zeros(len(labels))
            scores = label if isinstance(label, dict) else {label: margin}
            for name, score in scores.items():
                row[labels.index(name)] = score
            model.table.weight[vocabulary[token]] = row
    return model.eval()


def ours(model, tokenizer, **options):
    return pipeline("sequence-tagging", model=model, tokenizer=tokenizer, **options)


def stock(model, tokenizer, **options):
    return pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="simple", **options)


def brief(entities, key="entity_group"):
    return [(entity[key], entity["word"], entity["start"], entity["end"]) for entity in entities]


BIOES = scheme_labels(["LOC", "ORG"], "BIOES")
CITY = {"北": "B-LOC", "京": "E-LOC", "大": "B-ORG", "学": "E-ORG", "猫": "S-LOC"}


class TestFaultsOfTheStockPipeline:
    def test_bioes_entities_are_whole(self, tokenizer):
        model = tagger(tokenizer, BIOES, CITY)
        text = "我在北京大学"
        expected = [("LOC", "北京", 2, 4), ("ORG", "大学", 4, 6)]
        assert brief(ours(model, tokenizer)(text)) == expected
        assert brief(stock(model, tokenizer)(text)) != expected

    def test_bmes_words_are_whole(self, tokenizer):
        model = tagger(
            tokenizer, ["B", "M", "E", "S"], {"北": "B", "京": "M", "人": "E", "喜": "B", "欢": "E", "猫": "S"}
        )
        expected = ["北京人", "喜欢", "猫"]
        assert [word["word"] for word in ours(model, tokenizer)("北京人喜欢猫")] == expected
        assert [word["word"] for word in stock(model, tokenizer)("北京人喜欢猫")] != expected

    def test_neighbouring_entities_stay_apart(self, tokenizer):
        model = tagger(tokenizer, BIOES, CITY)
        assert brief(ours(model, tokenizer)("猫猫北京北京")) == [
            ("LOC", "猫", 0, 1),
            ("LOC", "猫", 1, 2),
            ("LOC", "北京", 2, 4),
            ("LOC", "北京", 4, 6),
        ]
        assert len(stock(model, tokenizer)("猫猫北京北京")) != 4

    def test_an_entity_across_two_windows_is_whole(self, tokenizer):
        labels = scheme_labels(["LOC"], "BIOES")
        model = tagger(tokenizer, labels, {"北": "B-LOC", "京": "I-LOC", "海": "E-LOC"}, limit=16)
        for position in range(30):
            text = "我" * position + "北京京京京海" + "我" * (40 - position)
            expected = [("LOC", "北京京京京海", position, position + 6)]
            for overlap in ("mean", "max_context"):
                found = ours(model, tokenizer, overlap=overlap)(text)
                assert brief(found) == expected
                assert text[found[0]["start"] : found[0]["end"]] == found[0]["word"]
            assert brief(ours(model, tokenizer, stride=0)(text)) == expected

    def test_nothing_is_cut_off(self, tokenizer):
        model = tagger(tokenizer, BIOES, CITY, limit=16)
        text = "我" * 500 + "北京"
        assert brief(ours(model, tokenizer)(text)) == [("LOC", "北京", 500, 502)]
        tokenizer.model_max_length = 16
        try:
            assert stock(model, tokenizer)(text) == []
        finally:
            tokenizer.model_max_length = 128


class TestDecoding:
    # B-LOC without an end: alone 京 is more likely O.
    DOUBT = {"北": "B-LOC", "京": {"O": 3.0, "E-LOC": 2.0}}

    def test_output_is_legal_unless_greedy(self, tokenizer):
        model = tagger(tokenizer, BIOES, self.DOUBT)
        assert brief(ours(model, tokenizer)("我北京我")) == [("LOC", "北京", 1, 3)]
        assert brief(ours(model, tokenizer, decoding="greedy")("我北京我")) == [("LOC", "北", 1, 2)]

    def test_greedy_bio_is_the_stock_pipeline_s(self, tokenizer):
        labels = scheme_labels(["LOC", "ORG"], "IOB2")
        generator = random.Random(0)
        characters = "北京大学我喜欢猫狗国足"
        answers = {character: generator.choice(labels) for character in dict.fromkeys(characters)}
        model = tagger(tokenizer, labels, answers)
        texts = ["".join(generator.choices(characters, k=30)) for _ in range(40)]
        greedy, other = ours(model, tokenizer, decoding="greedy")(texts), stock(model, tokenizer)(texts)
        for mine, theirs in zip(greedy, other, strict=True):
            strip = [(entity["entity_group"], entity["start"], entity["end"]) for entity in theirs]
            assert [(entity["entity_group"], entity["start"], entity["end"]) for entity in mine] == strip
            assert [entity["score"] for entity in mine] == pytest.approx(
                [float(entity["score"]) for entity in theirs], rel=1e-5
            )
        assert sum(map(len, greedy)) > 100

    def test_a_crf_takes_part(self, tokenizer, tiny_chinesebert_folder):
        torch.manual_seed(0)
        model = CrfForTokenClassification.from_encoder(tiny_chinesebert_folder, **tagger_options(BIOES))
        with torch.no_grad():
            model.crf.transitions[:, 0] = -20  # nothing is outside
            model.crf.start_transitions[0] = -20
        text = "北京大学学生喜欢猫"
        found = ours(model, tokenizer)(text)
        inputs = tokenizer(text, return_tensors="pt")
        logits = model(**inputs).logits[:, 1:-1]
        tags = [BIOES[tag] for tag in model.decode(logits)[0]]
        assert [(e["entity_group"], e["start"], e["end"]) for e in found] == [
            tuple(span) for span in tags_to_spans(tags, "BIOES")
        ]
        marginals = model.crf.marginals(logits)[0]
        ids = [BIOES.index(tag) for tag in tags]
        shares = marginals[range(len(ids)), ids]
        for entity in found:
            assert entity["score"] == pytest.approx(shares[entity["start"] : entity["end"]].mean().item(), rel=1e-4)
        best = ours(model, tokenizer, top_n=3)(text)
        assert best[0]["output"] == found
        expected = [path.log_probability for path in model.crf.n_best(logits, k=3)[0]]
        assert [torch.tensor(one["score"]).log().item() for one in best] == pytest.approx(expected, rel=1e-3)
        with pytest.raises(ValueError, match="has none"):
            ours(tagger(tokenizer, BIOES, CITY), tokenizer, decoding="crf")

    def test_top_n_without_a_crf(self, tokenizer):
        model = tagger(tokenizer, BIOES, self.DOUBT)
        best = ours(model, tokenizer)("北京", top_n=4)
        assert brief(best[0]["output"]) == [("LOC", "北京", 0, 2)]
        assert [one["score"] for one in best] == sorted((one["score"] for one in best), reverse=True)
        assert sum(one["score"] for one in ours(model, tokenizer)("北京", top_n=1000)) == pytest.approx(1)

    def test_schemes_are_read_from_the_model(self, tokenizer):
        answers = {"北": "I-LOC", "京": "I-LOC", "上": "B-LOC", "海": "I-LOC"}
        model = tagger(tokenizer, ["O", "B-LOC", "I-LOC"], answers, scheme="IOB1")
        assert brief(ours(model, tokenizer)("北京上海")) == [("LOC", "北京", 0, 2), ("LOC", "上海", 2, 4)]
        # In IOB2 the first token has to be B, of which the model is not sure.
        scores = [ours(model, tokenizer, scheme=scheme)("北京")[0]["score"] for scheme in ("IOB1", "IOB2")]
        assert scores[0] > 0.9
        assert scores[1] < 0.6

    @pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "IOE1", "IOE2", "BIOES", "BMESO", "BILOU"])
    def test_any_spans_in_any_scheme(self, tokenizer, scheme):
        """Spans written over distinct characters come back as they were."""
        generator = random.Random(scheme)
        characters = "国足今晚出战对阵球队体育财经科技娱乐教育"
        characters = "".join(dict.fromkeys(characters))
        labels = scheme_labels(["A", "B"], scheme)
        for _ in range(8):
            cuts = sorted(generator.sample(range(len(characters) + 1), 8))
            spans = [
                (generator.choice("AB"), start, end)
                for start, end in itertools.pairwise(cuts)
                if generator.random() < 0.7
            ]
            tags = spans_to_tags(spans, len(characters), scheme)
            assert is_legal(tags, scheme)
            model = tagger(tokenizer, labels, dict(zip(characters, tags, strict=True)), scheme=scheme)
            found = ours(model, tokenizer)(characters)
            assert [(e["entity_group"], e["start"], e["end"]) for e in found] == spans


class TestUnits:
    LABELS = scheme_labels(["X"], "IOB2")

    def test_the_first_piece_of_a_word_stands_for_it(self, tokenizer):
        model = tagger(tokenizer, self.LABELS, {"c": "B-X", "##a": "O", "猫": "B-X"})
        text = "猫 cab, 猫cat"
        assert brief(ours(model, tokenizer)(text)) == [
            ("X", "猫", 0, 1),
            ("X", "cab", 2, 5),
            ("X", "猫", 7, 8),
            ("X", "cat", 8, 11),
        ]
        pieces = ours(model, tokenizer, units="tokens")(text)
        assert ("X", "c", 2, 3) in brief(pieces)

    def test_characters(self, tokenizer):
        model = tagger(tokenizer, self.LABELS, {"2": "B-X", "0": "I-X"})
        assert brief(ours(model, tokenizer, units="characters")("在 2020 年")) == [
            ("X", "20", 2, 4),
            ("X", "20", 4, 6),
        ]
        model.config.tagging_units = "characters"
        assert len(ours(model, tokenizer)("2020")) == 2

    def test_words_of_the_user(self, tokenizer):
        model = tagger(tokenizer, self.LABELS, {"c": "B-X", "猫": "I-X"})
        tag = ours(model, tokenizer)
        expected = [("X", "cat 猫", 2, 7)]
        assert brief(tag({"words": ["我", "cat", "猫"]})) == expected
        assert brief(tag(["我", "cat", "猫"], is_split_into_words=True)) == expected
        found = tag([["我", "cat", "猫"], ["猫"]], is_split_into_words=True, delimiter="")
        assert [brief(one) for one in found] == [[("X", "cat猫", 1, 5)], []]

    @pytest.mark.parametrize("units", ["words", "tokens"])
    @pytest.mark.parametrize("splits", [True, False])
    def test_sentencepiece_loses_no_character(self, units, splits):
        """XLM-R's tokenizer puts an empty piece before a word, at its first character; DeBERTa's at the space."""
        core = Tokenizer(models.Unigram())
        core.normalizer = normalizers.NFKC()
        metaspace = pre_tokenizers.Metaspace()
        core.pre_tokenizer = (
            pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace]) if splits else metaspace
        )
        lines = ["国足今晚在北京出战", "Zhang lives in Beijing", "hello 世界 ok", "我喜欢北京大学"] * 20
        special = ["<s>", "<pad>", "</s>", "<unk>"]
        core.train_from_iterator(
            lines, trainers.UnigramTrainer(vocab_size=70, special_tokens=special, unk_token="<unk>")
        )
        sentencepiece = PreTrainedTokenizerFast(
            tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", model_max_length=64
        )
        tag = ours(tagger(sentencepiece, ["S", "B", "M", "E"], {}), sentencepiece, units=units, max_length=12)
        pieces = {piece for text in ("Zhang 北京", "北京") for piece in sentencepiece.tokenize(text)}
        assert "▁" in pieces  # what this test is about
        for text in ("Zhang lives in 北京", " \u3000国足 ", "👨\u200d👧好 ok", "e\u0301te\u0301 ＡＢ", "北京" * 20):
            words = tag(text)
            assert all(word["start"] < word["end"] for word in words)
            assert all(one["end"] <= other["start"] for one, other in itertools.pairwise(words))
            assert "".join("".join(word["word"].split()) for word in words) == "".join(text.split())
        if units == "words":
            assert [word["word"] for word in tag("Zhang lives")] == ["Zhang", "lives"]

    def test_accents_that_a_tokenizer_drops_stay_with_their_letters(self, tokenizer):
        model = tagger(tokenizer, ["S", "B", "M", "E"], {})
        found = ours(model, tokenizer)("cafe\u0301s 猫\u0301猫")
        assert [word["word"] for word in found] == ["cafe\u0301s", "猫\u0301", "猫"]

    def test_offsets_are_those_of_the_original_string(self, tokenizer):
        model = tagger(tokenizer, self.LABELS, {"北": "B-X", "京": "I-X"})
        text = "  𠀀\u200b北京\n\t（北京）  "
        found = ours(model, tokenizer)(text)
        assert [text[entity["start"] : entity["end"]] for entity in found] == ["北京", "北京"]


class TestBatches:
    def test_batches_streams_and_lists_answer_alike(self, tokenizer):
        model = tagger(tokenizer, BIOES, CITY, limit=16)
        texts = ["我在北京大学", "猫", "我" * 50 + "北京" + "我" * 9, "大学大学", "我"]
        tag = ours(model, tokenizer)
        expected = [tag(text) for text in texts]
        assert tag(texts) == expected
        assert tag(texts, batch_size=3) == expected
        assert list(tag(iter(texts), batch_size=2)) == expected
        assert tag([]) == []

    def test_a_stream_is_read_as_it_is_answered(self, tokenizer):
        read = []

        def texts():
            for text in ["北京", "猫", "我"] * 50:
                read.append(text)
                yield text

        tag = ours(tagger(tokenizer, BIOES, CITY), tokenizer)
        for batch_size, ahead in ((1, 1), (2, 64)):
            read.clear()
            next(tag(texts(), batch_size=batch_size))
            assert len(read) == ahead

    def test_what_a_tokenizer_drops_has_no_spans(self, tokenizer):
        model = tagger(tokenizer, BIOES, CITY)
        assert ours(model, tokenizer)(["\u200b", "北京"])[0] == []


class TestViews:
    def test_words_with_tags(self, tokenizer):
        labels = ["NN", "VV", "PU"]
        model = tagger(tokenizer, labels, {"猫": "NN", "吃": "VV"})
        found = ours(model, tokenizer)("猫吃猫")
        assert brief(found, "tag") == [("NN", "猫", 0, 1), ("VV", "吃", 1, 2), ("NN", "猫", 2, 3)]

    def test_joint_segmentation_and_tags(self, tokenizer):
        labels = scheme_labels(["NR", "VV"], "BMES", outside=False)
        model = tagger(tokenizer, labels, {"北": "B-NR", "京": "E-NR", "出": "B-VV", "战": "E-VV"})
        found = ours(model, tokenizer)("北京出战")
        assert brief(found, "tag") == [("NR", "北京", 0, 2), ("VV", "出战", 2, 4)]

    def test_words_of_a_tagger_of_entities_cover_the_text(self, tokenizer):
        found = ours(tagger(tokenizer, BIOES, CITY), tokenizer, view="tagged_words")("我在北京")
        assert brief(found, "tag") == [("O", "我", 0, 1), ("O", "在", 1, 2), ("LOC", "北京", 2, 4)]

    def test_frames_of_marked_predicates(self, tokenizer):
        labels = scheme_labels(["ARG0", "ARG1"], "IOB2")
        model = tagger(tokenizer, labels, {"猫": "B-ARG0", "我": "B-ARG1"})
        model.config.segment_weight = [50.0, 0, 0, 0, 0]  # the predicate itself is no argument
        found = ours(model, tokenizer, view="arguments")({"text": "猫喜欢我", "predicates": [(1, 3), (0, 1)]})
        assert [frame["predicate"] for frame in found] == [
            {"word": "喜欢", "start": 1, "end": 3},
            {"word": "猫", "start": 0, "end": 1},
        ]
        assert brief(found[0]["arguments"], "role") == [("ARG0", "猫", 0, 1), ("ARG1", "我", 3, 4)]
        assert brief(found[1]["arguments"], "role") == [("ARG1", "我", 3, 4)]
        by_words = ours(model, tokenizer, view="arguments")(
            {"words": ["猫", "喜欢", "我"], "predicates": [(1, 2)]}, delimiter=""
        )
        assert by_words[0] == found[0]

    def test_slots_with_the_intent(self, tokenizer, tiny_chinesebert_folder):
        torch.manual_seed(0)
        model = CrfForTokenClassification.from_encoder(
            tiny_chinesebert_folder, **tagger_options(BIOES), text_classes=["play", "ask", "stop"]
        )
        inputs = tokenizer("北京天气", return_tensors="pt")
        shares = model(**inputs).text_logits.softmax(-1)[0]
        found = ours(model, tokenizer)("北京天气")
        assert set(found) == {"intent", "slots"}
        best = int(shares.argmax())
        assert found["intent"]["label"] == model.config.text_classes[best]
        assert found["intent"]["score"] == pytest.approx(shares[best].item(), rel=1e-4)

    def test_the_view_is_what_the_labels_are_of_unless_it_is_named(self, tokenizer):
        for labels, view in ((BIOES, "entities"), (list("BMES"), "words"), (["NN", "VV"], "tagged_words")):
            model = tagger(tokenizer, labels, {})
            assert ours(model, tokenizer).view == view
            assert ours(model, tokenizer, view="keywords").view == "keywords"

    def test_keywords_are_ranked(self, tokenizer):
        model = tagger(
            tokenizer,
            scheme_labels(["KEY"], "IOB2"),
            {"北": {"B-KEY": 2.0}, "京": {"I-KEY": 2.0}, "猫": {"B-KEY": 2.1}, "狗": {"B-KEY": 9.0}},
        )
        found = ours(model, tokenizer, view="keywords")("猫我北京我狗我北京")
        assert [keyword["word"] for keyword in found] == ["狗", "北京", "猫"]
        assert found[1]["offsets"] == [(2, 4), (7, 9)]
        single = ours(model, tokenizer, view="keywords")("我北京")[0]["score"]
        assert found[1]["score"] == pytest.approx(1 - (1 - single) ** 2, rel=1e-6)


class TestUserDictionaries:
    LABELS = ["B", "M", "E", "S"]
    ANSWERS = {"北": "B", "京": "E", "大": "B", "学": "E", "生": "S", "猫": "S"}

    def words(self, tokenizer, text, **options):
        model = tagger(tokenizer, self.LABELS, self.ANSWERS)
        found = ours(model, tokenizer, **options)(text)
        assert "".join(word["word"] for word in found) == text
        return [word["word"] for word in found]

    def test_forced_words_are_never_cut(self, tokenizer):
        assert self.words(tokenizer, "北京大学生") == ["北京", "大学", "生"]
        assert self.words(tokenizer, "北京大学生", force_words=["大学生"]) == ["北京", "大学生"]
        assert self.words(tokenizer, "北京大学生", force_words=["京大"]) == ["北", "京大", "学", "生"]

    def test_combined_words_are_put_together_where_the_model_cuts_so(self, tokenizer):
        assert self.words(tokenizer, "北京大学生", combine_words=["北京大学", "北京大学生"]) == ["北京大学生"]
        assert self.words(tokenizer, "北京大学生", combine_words=["京大"]) == ["北京", "大学", "生"]

    @pytest.mark.parametrize("scheme", ["IOB2", "BIOES"])
    def test_forced_entities(self, tokenizer, scheme):
        labels = scheme_labels(["LOC"], scheme)
        answers = {"京": "I-LOC", "北": "B-LOC", "海": "I-LOC" if scheme == "IOB2" else "E-LOC"}
        model = tagger(tokenizer, labels, answers)
        found = ours(model, tokenizer, force_words={"北京": "LOC"})("北京海我")
        assert ("LOC", "北京", 0, 2) in brief(found)

    def test_a_type_that_the_model_has_not(self, tokenizer):
        tag = ours(tagger(tokenizer, BIOES, CITY), tokenizer)
        with pytest.raises(ValueError, match="'PER' needs the tag 'B-PER'"):
            tag("北京", force_words={"北京": "PER"})


class TestRefusals:
    @pytest.mark.parametrize(
        ("inputs", "options", "message"),
        [
            ("", {}, "empty"),
            ("  ", {}, "empty"),
            ({"words": []}, {}, "expected words"),
            ({"words": ["我", ""]}, {}, "none of them empty"),
            ({"text": "我", "label": "x"}, {}, "columns"),
            ({"text": "我", "predicates": [(0, 2)]}, {}, "does not lie in the input"),
            ({"text": "我", "predicates": [0]}, {}, r"\[start, end\)"),
            ({"text": "我", "predicates": [(0.0, 1.0)]}, {}, "two whole numbers, got"),
            ({"text": "我", "predicates": ["ab"]}, {}, "two whole numbers, got 'ab'"),
            ({"text": "我", "predicate": None}, {}, "two whole numbers, got None"),
            ("我", {"delimiter": None}, "delimiter is what stands between words"),
            ("我", {"is_split_into_words": "yes"}, "is_split_into_words is True or False"),
            ("我", {"view": "trees"}, "view must be one of entities"),
            ("我", {"decoding": "beam"}, "decoding must be"),
            ("我", {"units": "bytes"}, "units must be"),
            ("我", {"top_n": 0}, "top_n must be"),
            ("我", {"stride": 1000}, "smaller stride"),
            ("我", {"max_length": 2}, "longer windows"),
            ("我", {"scheme": "BILOU"}, "not a tag of BILOU"),
            ("我", {"scheme": "XYZ"}, "no tagging scheme"),
            ("我", {"batch_size": -1}, "batch_size must be"),
            ("我", {"batch_size": 0}, "batch_size must be"),
        ],
    )
    def test_with_a_value_error(self, tokenizer, inputs, options, message):
        tag = ours(tagger(tokenizer, BIOES, CITY), tokenizer)
        with pytest.raises(ValueError, match=message):
            tag(inputs, **options)

    def test_with_a_type_error(self, tokenizer):
        tag = ours(tagger(tokenizer, BIOES, CITY), tokenizer)
        with pytest.raises(TypeError, match="no option 'aggregation_strategy'"):
            tag("我", aggregation_strategy="simple")
        with pytest.raises(TypeError, match="a text is a string"):
            tag([3])
        with pytest.raises(TypeError, match="predicates are a list of"):
            tag({"text": "我", "predicates": None})

    def test_labels_that_fit_no_scheme_are_told_at_once(self, tokenizer):
        with pytest.raises(ValueError, match="fit"):
            ours(tagger(tokenizer, ["O", "B-X", "Q-X", "E-X"], {}), tokenizer)


def test_saved_pipelines_load(tokenizer, tiny_chinesebert_folder, tmp_path):
    torch.manual_seed(0)
    model = CrfForTokenClassification.from_encoder(tiny_chinesebert_folder, **tagger_options(BIOES))
    tag = ours(model, tokenizer)
    tag.save_pretrained(tmp_path)
    loaded = pipeline("sequence-tagging", model=str(tmp_path))
    assert isinstance(loaded, SequenceTaggingPipeline)
    assert loaded("北京大学") == tag("北京大学")


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's
def test_an_adapter_leaves_the_model_its_inputs(tokenizer):
    """Pinyin and segments, which PEFT's own forward does not name: a fresh LoRA changes nothing."""
    import peft

    labels = scheme_labels(["ARG"], "IOB2")
    config = ChineseBertConfig.from_pretrained(tokenizer.name_or_path, id2label=dict(enumerate(labels)))
    torch.manual_seed(0)
    model = ChineseBertForTokenClassification(config).eval()
    inputs = ["银行的行长", {"text": "猫喜欢我", "predicates": [(1, 3)]}]
    expected = ours(model, tokenizer, view="arguments")(inputs)
    seen = []
    model.register_forward_pre_hook(lambda _module, _args, given: seen.append(set(given)), with_kwargs=True)
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="TOKEN_CLS", r=2))
    assert ours(adapted, tokenizer, view="arguments")(inputs) == expected
    assert all({"pinyin_ids", "token_type_ids"} <= names for names in seen)


def test_the_stock_pipeline_works_on_our_models(tokenizer, tiny_chinesebert_folder):
    torch.manual_seed(0)
    model = CrfForTokenClassification.from_encoder(tiny_chinesebert_folder, **tagger_options(BIOES))
    logits = model(**tokenizer("北京", return_tensors="pt")).logits[0, 1:-1]
    found = pipeline("token-classification", model=model, tokenizer=tokenizer, ignore_labels=[])("北京")
    assert [entity["entity"] for entity in found] == [BIOES[tag] for tag in logits.argmax(-1).tolist()]
