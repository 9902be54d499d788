"""Learn what an utterance wants and with what: its intent and its slots, with one model.

    python examples/slot_filling.py
    python examples/slot_filling.py --data DATA/slot_filling/cais --limit 400
    python examples/slot_filling.py --data DATA/slot_filling/atis --units words --limit 1000 --output_dir assistant

`--data` is a folder with `train` and `test`: folders of `seq.in`, `seq.out` and `label` with a line an utterance,
JSON lines (`text`, `slots`, `intent`), or CoNLL columns, which have slots alone. Without it the script learns from
utterances of its own and prints

    epoch 1    loss 0.762
    epoch 2    loss 0.010
    epoch 3    loss 0.001
    epoch 4    loss 0.001
    60 utterances: slot F1 1.000  intent accuracy 1.000  exact 1.000

    播放欧阳修的夜曲  播放: singer=欧阳修, song=夜曲
    …

Both are learnt together, by the sum of their negative log-likelihoods. `exact` is the share of utterances whose intent
and slots are all right. English is in words: `--units words`. With two processes:
`ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 examples/slot_filling.py`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from _tagging_data import CITIES, PEOPLE, TIMES
from _tagging_training import Tagger, TaggingOptions, span_f1
from transformers import HfArgumentParser, pipeline

from hf_nlpnotes.corpora import TaggedSentence, of_text, read_tagged, read_utterances
from hf_nlpnotes.tagging import tags_to_spans
from hf_nlpnotes.training import leave_process_group

SONGS = ["夜曲", "稻香", "红豆", "平凡之路", "青花瓷", "后来"]
PATTERNS = {
    "播放": ["播放{singer}的{song}", "我想听{song}", "来一首{singer}的歌", "{singer}的{song}放一下"],
    "天气": ["{city}{date}天气怎么样", "{date}{city}冷吗", "{date}会下雨吗", "看看{city}的天气"],
    "订票": ["订一张{date}去{city}的票", "帮我买{city}的火车票", "{date}从{city}出发的票"],
}
VALUES = {"singer": PEOPLE, "song": SONGS, "city": CITIES, "date": TIMES}


@dataclass
class Options(TaggingOptions):
    """Command-line options."""

    units: str = field(default="characters", metadata={"choices": ["characters", "words"]})


def built_in(size: int, seed: int) -> list[TaggedSentence]:
    """Utterances in characters with an intent."""
    draw, sentences = random.Random(seed), []
    for _ in range(size):
        intent = draw.choice(list(PATTERNS))
        text, spans = draw.choice(PATTERNS[intent]), []
        for slot, values in VALUES.items():
            text = text.replace(f"{{{slot}}}", f"[{slot}:{draw.choice(values)}]")
        pieces = text.replace("]", "[").split("[")
        text = ""
        for piece in pieces:
            slot, _, value = piece.rpartition(":")
            if slot:
                spans.append((slot, len(text), len(text) + len(value)))
            text += value
        sentences.append(of_text(text, spans, "BIOES")._replace(text_class=intent))
    return sentences


def score(
    test: Sequence[TaggedSentence], tags: Sequence[Sequence[str]], intents: Sequence[str | None], scheme: str
) -> dict[str, float]:
    """F1 of slots, accuracy of intents, and the share of utterances with both right."""
    right = [intent == sentence.text_class for intent, sentence in zip(intents, test, strict=True)]
    exact = [
        is_right and tags_to_spans(row, scheme, illegal="repair") == tags_to_spans(sentence.tags, scheme)
        for is_right, row, sentence in zip(right, tags, test, strict=True)
    ]
    return {"f1": span_f1(test, tags, scheme).f1, "intent": sum(right) / len(test), "exact": sum(exact) / len(test)}


def main() -> None:
    """Train, score, understand."""
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    if options.data:
        train, test = read_tagged(options.data, read_utterances, options.test_data, options.limit, options.seed)
    else:
        train, test = built_in(300, 0)[: options.limit], built_in(60, 1)
    test = test[: options.test_limit]
    tagger = Tagger(options, train, units=options.units)
    logits, intents = tagger.scores(test)
    tagger.save()
    if not tagger.is_first:
        return
    scores = score(test, tagger.decode(logits), intents, tagger.scheme)
    has_intents = test[0].text_class is not None
    intent = f"intent accuracy {scores['intent']:.3f}  " if has_intents else ""
    print(f"{len(test)} utterances: slot F1 {scores['f1']:.3f}  {intent}exact {scores['exact']:.3f}\n")
    understand = pipeline("sequence-tagging", model=tagger.model, tokenizer=tagger.tokenizer, view="slots")
    for sentence in test[:3]:
        found = understand({"words": sentence.tokens}, delimiter=" " if options.units == "words" else "")
        slots = ", ".join(f"{slot['slot']}={slot['word']}" for slot in found["slots"])
        intent = f"{found['intent']['label']}: " if found["intent"] else ""
        print(f"{(' ' if options.units == 'words' else '').join(sentence.tokens)}  {intent}{slots}")


if __name__ == "__main__":
    main()
    leave_process_group()
