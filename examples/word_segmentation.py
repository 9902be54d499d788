"""Learn to cut Chinese text into words, score it as SIGHAN does, and cut new text, with words of one's own.

    python examples/word_segmentation.py
    python examples/word_segmentation.py --data pku_test_gold.utf8 --limit 400 --output_dir segmenter
    python examples/word_segmentation.py --data TRAIN --test_data TEST --words 大学生 中国银行 --crf false

`--data` is a file of words with spaces between them, of which a fifth is for testing, or a folder with `*train*` and
`*test*`. Without it the script learns from sentences of its own and prints

    epoch 1    loss 0.341
    epoch 2    loss 0.005
    epoch 3    loss 0.000
    epoch 4    loss 0.000
    50 sentences: P 0.989  R 0.995  F1 0.992  OOV recall 0.895  IV recall 1.000

    在 国家图书馆 ， 李老师 看 了 电影 。
    …

`OOV` are the words that the training sentences do not have. `--crf false` learns a softmax a character instead of a
CRF; only legal sequences are decoded all the same. `--words` stand as they are wherever they occur. With two
processes: `ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 examples/word_segmentation.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from _tagging_data import made_up
from _tagging_training import Tagger, TaggingOptions
from transformers import HfArgumentParser, pipeline

from hf_nlpnotes.corpora import TaggedSentence, of_words, read_segmented, read_tagged
from hf_nlpnotes.tagging import SegmentationScores, segmentation_scores, tags_to_words
from hf_nlpnotes.training import leave_process_group


@dataclass
class Options(TaggingOptions):
    """Command-line options."""

    words: list[str] = field(default_factory=list)


def built_in(size: int, seed: int, *, new_words: bool = False) -> list[TaggedSentence]:
    """Sentences in characters; their tags say where words begin and end."""
    return [
        of_words([word.form for word in words], [""] * len(words))
        for words in made_up(size, seed, new_words=new_words)
    ]


def words_of(sentence: TaggedSentence, tags: Sequence[str], scheme: str) -> list[str]:
    """The words that tags of characters write."""
    return tags_to_words("".join(sentence.tokens), tags, scheme)


def score(
    train: Sequence[TaggedSentence], test: Sequence[TaggedSentence], tags: Sequence[Sequence[str]], scheme: str
) -> SegmentationScores:
    """Precision, recall and F1 of words, and the recall of those in and outside of the training sentences."""
    gold = [words_of(sentence, sentence.tags, scheme) for sentence in test]
    found = [words_of(sentence, row, scheme) for sentence, row in zip(test, tags, strict=True)]
    known = {word for sentence in train for word in words_of(sentence, sentence.tags, scheme)}
    return segmentation_scores(gold, found, vocabulary=known)


def main() -> None:
    """Train, score, segment."""
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    if options.data:
        train, test = read_tagged(options.data, read_segmented, options.test_data, options.limit, options.seed)
    else:
        train, test = built_in(200, 0)[: options.limit], built_in(50, 1, new_words=True)
    test = test[: options.test_limit]
    tagger = Tagger(options, train)
    tags = tagger.tag(test)
    tagger.save()
    if not tagger.is_first:
        return
    scores = score(train, test, tags, tagger.scheme)
    print(f"{len(test)} sentences: P {scores.precision:.3f}  R {scores.recall:.3f}  F1 {scores.f1:.3f}", end="  ")
    print(f"OOV recall {scores.oov_recall or 0:.3f}  IV recall {scores.iv_recall or 0:.3f}\n")
    segment = pipeline("sequence-tagging", model=tagger.model, tokenizer=tagger.tokenizer, view="words")
    for sentence in test[:3]:
        found = segment("".join(sentence.tokens), force_words=options.words or None)
        print(" ".join(word["word"] for word in found))


if __name__ == "__main__":
    main()
    leave_process_group()
