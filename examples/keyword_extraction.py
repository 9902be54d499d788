"""Learn to find the keywords of a text where they stand, and rank them.

    python examples/keyword_extraction.py
    python examples/keyword_extraction.py --data csl_dev.tsv --limit 400 --test_limit 100 --epochs 6

`--data` is a file of texts with keywords, of which a fifth is for testing (JSON lines with `text` and `keywords`, or a
table whose last two columns are the text and its keywords, apart by `_`), or a folder with `*train*` and `*test*`.
Without it the script learns from texts of its own and prints

    epoch 1    loss 0.492
    epoch 2    loss 0.018
    epoch 3    loss 0.001
    epoch 4    loss 0.000
    all    P 1.000  R 1.000  F1 1.000
    top 3  P 1.000  R 1.000  F1 1.000

    遗传算法 1.00, 路径规划 1.00  (遗传算法 路径规划)
    …

Every place of a keyword in its text is tagged; long texts are read in windows that overlap. A predicted keyword is
right when it is one of the text's, whether that stands in the text or not, so recall has a limit below 1; the second
line keeps only the `--top` most certain ones of each text. With two processes:
`ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 examples/keyword_extraction.py`.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from _tagging_training import Tagger, TaggingOptions
from transformers import HfArgumentParser, pipeline

from hf_nlpnotes.corpora import TaggedSentence, of_keywords, read_keywords, read_tagged
from hf_nlpnotes.tagging import Scores, tags_to_spans
from hf_nlpnotes.training import leave_process_group

METHODS = ["神经网络", "遗传算法", "支持向量机", "小波变换", "有限元法", "聚类分析"]
OBJECTS = ["图像识别", "语音合成", "故障诊断", "机器翻译", "路径规划", "股票预测"]
TEXTS = [
    "针对{}中的问题，提出了一种基于{}的新方法。实验结果表明，{}能够提高准确率。",
    "本文研究{}的应用。首先介绍了{}的原理，然后给出了仿真结果。",
    "为了提高{}的速度，采用{}进行优化，结果令人满意。",
]


@dataclass
class Options(TaggingOptions):
    """Command-line options."""

    top: int = 3


def built_in(size: int, seed: int) -> list[TaggedSentence]:
    """Abstracts with a method and what it is for as their keywords."""
    draw, sentences = random.Random(seed), []
    for _ in range(size):
        method, use = draw.choice(METHODS), draw.choice(OBJECTS)
        text = draw.choice(TEXTS)
        sentences.append(of_keywords(text.format(use, method, method), [method, use]))
    return sentences


def keywords_of(sentence: TaggedSentence, tags: Sequence[str], scheme: str) -> list[str]:
    """The keywords that tags write, each once."""
    spans = tags_to_spans(tags, scheme, illegal="repair")
    return list(dict.fromkeys("".join(sentence.tokens[span.start : span.end]) for span in spans))


def score(test: Sequence[TaggedSentence], found: Sequence[Iterable[str]]) -> Scores:
    """Precision, recall and F1 over the keywords of all texts."""
    pairs = [(set(sentence.keywords), set(words)) for sentence, words in zip(test, found, strict=True)]
    correct = sum(len(gold & words) for gold, words in pairs)
    gold, predicted = (sum(len(pair[side]) for pair in pairs) for side in (0, 1))
    precision, recall = correct / max(predicted, 1), correct / max(gold, 1)
    return Scores(precision, recall, 2 * correct / max(gold + predicted, 1), gold)


def main() -> None:
    """Train, score, rank."""
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    if options.data:
        train, test = read_tagged(options.data, read_keywords, options.test_data, options.limit, options.seed)
    else:
        train, test = built_in(150, 0)[: options.limit], built_in(40, 1)
    test = test[: options.test_limit]
    tagger = Tagger(options, train)
    tags = tagger.tag(test)
    tagger.save()
    if not tagger.is_first:
        return
    rank = pipeline("sequence-tagging", model=tagger.model, tokenizer=tagger.tokenizer, view="keywords", batch_size=16)
    ranked = rank(["".join(sentence.tokens) for sentence in test])
    top = [[keyword["word"] for keyword in words[: options.top]] for words in ranked]
    found = [keywords_of(sentence, row, tagger.scheme) for sentence, row in zip(test, tags, strict=True)]
    for name, words in (("all", found), (f"top {options.top}", top)):
        scores = score(test, words)
        print(f"{name:<6} P {scores.precision:.3f}  R {scores.recall:.3f}  F1 {scores.f1:.3f}")
    print()
    for sentence, words in zip(test[:3], ranked, strict=False):
        best = [f"{keyword['word']} {keyword['score']:.2f}" for keyword in words[: options.top]]
        print(f"{', '.join(best) or '-'}  ({' '.join(sentence.keywords)})")


if __name__ == "__main__":
    main()
    leave_process_group()
