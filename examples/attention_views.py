"""Look at what each head of a model looks at: a table of the most telling heads, and a page for the browser.

    python examples/attention_views.py
    python examples/attention_views.py --model MODEL --text "国足今晚出战" --text_pair "球迷很高兴" --output page.html

Any model of transformers that has attention will do. With the embedded model of version 0.1 the first prints

    the head that most                        layer  head  share of its weight
    looks at itself                               2     4  0.07
    looks at the previous token                   0     0  0.99
    looks at the next token                       0     1  1.00
    looks at separators                           0     6  0.17
    looks from the first text at the second       2     3  0.49
    looks from the second text at the first       2     7  0.58

and writes attention.html, a page that needs no network: the lines of one head, its matrix, all heads at a glance,
queries and keys neuron by neuron. In a notebook `head_view(maps)` as a cell's last value shows the same page.
"""

from dataclasses import dataclass

from transformers import AutoModel, AutoTokenizer, HfArgumentParser

import hf_nlpnotes
from hf_nlpnotes.attention import capture_attention, head_statistics, head_view

PAIR = ("国足今晚在北京出战韩国队。", "球迷希望国足赢下这场比赛。")

# What to look for, and the statistic that tells.
QUESTIONS = [
    ("looks at itself", "self_share"),
    ("looks at the previous token", "previous_share"),
    ("looks at the next token", "next_share"),
    ("looks at separators", "separator_share"),
    ("looks from the first text at the second", "a_to_b"),
    ("looks from the second text at the first", "b_to_a"),
]


@dataclass
class Options:
    """Command-line options."""

    model: str = hf_nlpnotes.EMBEDDED_MODEL
    text: str | None = None
    text_pair: str | None = None
    output: str = "attention.html"


def main() -> None:
    """Capture, print the most telling heads, write the page."""
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    model = AutoModel.from_pretrained(options.model)
    tokenizer = AutoTokenizer.from_pretrained(options.model)

    text, text_pair = PAIR if options.text is None else (options.text, options.text_pair)
    maps = capture_attention(model, tokenizer, text, text_pair)
    rows = [row for layer in head_statistics(maps) for row in layer.rows()]
    print(f"{'the head that most':<42}layer  head  share of its weight")
    for question, statistic in QUESTIONS:
        known = [row for row in rows if row[statistic] is not None]
        if known:
            best = max(known, key=lambda row: row[statistic])
            print(f"{question:<42}{best['layer']:>5}{best['head']:>6}  {best[statistic]:.2f}")

    nearest = max(rows, key=lambda row: row["largest"])
    page = head_view(maps, layer=nearest["layer"], head=nearest["head"])
    print(f"wrote {page.save(options.output)}: it opens at the head with the sharpest weights")


if __name__ == "__main__":
    main()
