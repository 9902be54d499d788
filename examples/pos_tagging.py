"""Learn words and their parts of speech together, from characters, or parts of speech of words that are given.

    python examples/pos_tagging.py
    python examples/pos_tagging.py --data zh_gsdsimp-ud-dev.conllu --test_data zh_gsdsimp-ud-test.conllu
    python examples/pos_tagging.py --data zh_gsdsimp-ud-dev.conllu --given_words true --column 4

`--data` is a CoNLL-U file, of which a fifth is for testing where there is no `--test_data`, or a folder with `*train*`
and `*test*`. `--column 3` has universal tags, `--column 4` those of the language. Without data the script learns from
sentences of its own and prints

    epoch 1    loss 0.978
    epoch 2    loss 0.011
    epoch 3    loss 0.001
    epoch 4    loss 0.001
    50 sentences: words with tags P 0.984  R 0.992  F1 0.988

    在/ADP 国家图书馆/PROPN ，/PUNCT 李老师/PROPN 看/VERB 了/PART 电影/NOUN 。/PUNCT
    …

Chinese has no spaces between its words, so a tag such as `B-NOUN` says both where a word begins and what it is. With
`--given_words true` the input is words, the score is accuracy, also of the words that were not seen in training. With
two processes: `ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 examples/pos_tagging.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from _tagging_data import made_up
from _tagging_training import Tagger, TaggingOptions
from transformers import HfArgumentParser, pipeline

from hf_nlpnotes.corpora import TaggedSentence, of_words, read_conllu, read_tagged
from hf_nlpnotes.tagging import PosScores, Scores, joint_scores, pos_accuracy, tags_to_spans
from hf_nlpnotes.training import leave_process_group


@dataclass
class Options(TaggingOptions):
    """Command-line options."""

    given_words: bool = False
    column: int = 3


def built_in(size: int, seed: int, *, given_words: bool, new_words: bool = False) -> list[TaggedSentence]:
    """Sentences in characters or words."""
    rows = [
        ([word.form for word in words], [word.part_of_speech for word in words])
        for words in made_up(size, seed, new_words=new_words)
    ]
    return [TaggedSentence(words, tags) if given_words else of_words(words, tags) for words, tags in rows]


def pairs_of(sentence: TaggedSentence, tags: Sequence[str], scheme: str) -> list[tuple[str, str]]:
    """Words and parts of speech that tags of characters write."""
    spans = tags_to_spans(tags, scheme, illegal="repair")
    return [("".join(sentence.tokens[span.start : span.end]), span.type) for span in spans]


def score_pairs(test: Sequence[TaggedSentence], tags: Sequence[Sequence[str]], scheme: str) -> Scores:
    """F1 of words with their tags."""
    gold = [pairs_of(sentence, sentence.tags, scheme) for sentence in test]
    return joint_scores(gold, [pairs_of(sentence, row, scheme) for sentence, row in zip(test, tags, strict=True)])


def score_tags(
    train: Sequence[TaggedSentence], test: Sequence[TaggedSentence], tags: Sequence[Sequence[str]]
) -> PosScores:
    """Accuracy of the tags of given words."""
    known = {word for sentence in train for word in sentence.tokens}
    gold, words = [sentence.tags for sentence in test], [sentence.tokens for sentence in test]
    return pos_accuracy(gold, tags, words=words, vocabulary=known)


def main() -> None:
    """Train, score, tag."""
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    if options.data:
        read = partial(read_conllu, column=options.column, characters=not options.given_words)
        train, test = read_tagged(options.data, read, options.test_data, options.limit, options.seed)
    else:
        train = built_in(200, 0, given_words=options.given_words)[: options.limit]
        test = built_in(50, 1, given_words=options.given_words, new_words=True)
    test = test[: options.test_limit]
    tagger = Tagger(options, train, units="words" if options.given_words else "characters")
    tags = tagger.tag(test)
    tagger.save()
    if not tagger.is_first:
        return
    if options.given_words:
        accuracy = score_tags(train, test, tags)
        print(f"{len(test)} sentences: accuracy {accuracy.accuracy:.3f}", end="  ")
        print(f"of unknown words {accuracy.unknown_accuracy or 0:.3f}\n")
    else:
        scores = score_pairs(test, tags, tagger.scheme)
        print(f"{len(test)} sentences: words with tags P {scores.precision:.3f}  R {scores.recall:.3f}", end="  ")
        print(f"F1 {scores.f1:.3f}\n")
    tag = pipeline("sequence-tagging", model=tagger.model, tokenizer=tagger.tokenizer, view="tagged_words")
    for sentence in test[:3]:
        found = tag({"words": sentence.tokens} if options.given_words else "".join(sentence.tokens))
        print(" ".join(f"{word['word']}/{word['tag']}" for word in found))


if __name__ == "__main__":
    main()
    leave_process_group()
