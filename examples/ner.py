"""Learn to find named entities, report precision, recall and F1 by type, and find entities in new text.

    python examples/ner.py
    python examples/ner.py --data DATA/ner/resume --limit 400 --output_dir tagger
    python examples/ner.py --data DATA/ner/weibo --crf false --epochs 8
    python examples/ner.py --data DATA/ner/cluener --format json

`--data` is a folder with `*train*` and `*test*` (or `*dev*`), or one file, of which a fifth is for testing: CoNLL
columns in any scheme (BIO, BIOES, BMES, …), or with `--format json` a JSON object a line. Tags that break their scheme
are repaired. Without data the script learns from sentences of its own and prints

    epoch 1    loss 0.652
    epoch 2    loss 0.008
    epoch 3    loss 0.000
    epoch 4    loss 0.000
                  precision    recall  f1-score   support

             LOC      0.846     0.880     0.863        25
             ORG      1.000     0.960     0.980        25
             PER      0.980     0.980     0.980        50

       micro avg      0.950     0.950     0.950       100
       macro avg      0.942     0.940     0.941       100
    weighted avg      0.952     0.950     0.951       100

    在国家图书馆，李老师看了电影。  国家图书馆/ORG 李老师/PER
    星期三李老师在国家图书馆看了电影。  李老师/PER 国家图书馆/ORG
    …

Texts longer than `--max_length` are tagged in windows that overlap. With two processes:
`ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 examples/ner.py` (without ACCELERATE_USE_CPU on GPUs).
"""

from dataclasses import dataclass, field

from _tagging_data import made_up
from _tagging_training import Tagger, TaggingOptions, as_iob2
from transformers import HfArgumentParser, pipeline

from hf_nlpnotes.corpora import TaggedSentence, of_text, read_columns, read_json_lines, read_tagged
from hf_nlpnotes.tagging import classification_report
from hf_nlpnotes.training import leave_process_group


@dataclass
class Options(TaggingOptions):
    """Command-line options."""

    format: str = field(default="columns", metadata={"choices": ["columns", "json"]})


def built_in(size: int, seed: int, *, new_words: bool = False) -> list[TaggedSentence]:
    """Sentences in characters with people, places and organizations."""
    sentences = []
    for words in made_up(size, seed, new_words=new_words):
        text, spans = "", []
        for word in words:
            if word.entity:
                spans.append((word.entity, len(text), len(text) + len(word.form)))
            text += word.form
        sentences.append(of_text(text, spans, "BIOES"))
    return sentences


def main() -> None:
    """Train, score, find."""
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    if options.data:
        read = read_json_lines if options.format == "json" else read_columns
        train, test = read_tagged(options.data, read, options.test_data, options.limit, options.seed)
    else:
        train, test = built_in(200, 0)[: options.limit], built_in(50, 1, new_words=True)
    test = test[: options.test_limit]
    tagger = Tagger(options, train)
    tags = tagger.tag(test)
    tagger.save()
    if not tagger.is_first:
        return
    gold = [as_iob2(sentence.tags, tagger.scheme) for sentence in test]
    found = [as_iob2(row, tagger.scheme) for row in tags]
    print(classification_report(gold, found, scheme="IOB2", mode="strict", digits=3))
    find = pipeline("sequence-tagging", model=tagger.model, tokenizer=tagger.tokenizer)
    for sentence in test[:3]:
        text = "".join(sentence.tokens)
        entities = [f"{entity['word']}/{entity['entity_group']}" for entity in find(text)]
        print(f"{text}  {' '.join(entities)}")


if __name__ == "__main__":
    main()
    leave_process_group()
