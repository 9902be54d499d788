r"""Pretrain a ChineseBERT: from scratch on a small budget, or further on your own domain's text.

    # on: a model that is there, two more epochs on your text (any masked LM of BERT's shape; the embedded one here)
    python examples/pretrain_chinesebert.py --data texts/*.txt --output_dir MODEL --num_train_epochs 2 \
        --model_name_or_path chinesebert-small

    # from scratch on two cores, with the warm start
    torchrun --nproc_per_node 2 examples/pretrain_chinesebert.py --data texts --output_dir MODEL --max_steps 10000 \
        --fonts NotoSerifCJK-Regular.ttc#2 LXGWWenKai-Regular.ttf NotoSansCJK-Regular.ttc#2

`--data` takes text files (a paragraph or sentence a line), folders, globs, and data sets of the hub (`owner/name`).
`--exclude` takes files of evaluation data, of which no line shall be trained on. All options of the stock
`TrainingArguments` are there; `python examples/pretrain_chinesebert.py --help` lists them after our own. It runs as it
is on one process, on several (`torchrun`, `accelerate launch`), on CPUs and GPUs.

1. **Text**: read by `datasets`, 1 % of the lines held out, evaluation text dropped, packed once into an Arrow cache of
   full rows with word borders and readings, in random order.
2. **From scratch**: a vocabulary from the text, bitmaps of the vocabulary from three fonts, and a warm start: token
   vectors from co-occurrence counts, heads that look at one offset each, then two short stages in which layer 0
   predicts every position (`--neighbour_steps`, `--attention_steps`). `--warm_start false` begins at random instead.
3. **Masked language modelling** by the stock `Trainer`: whole words and single characters, 15 % of the tokens.
4. **Publish**: the model in float16, its tokenizer, a card and a learning curve, from what was measured.

Killed and started again with the same command, it goes on where its last whole checkpoint was, in the middle of an
epoch too, and comes to the same weights as if it had not been killed. Checkpoints lie in `--work_dir` (default:
OUTPUT_DIR.work); OUTPUT_DIR appears whole, at the end. Needs the extra `pretrain`, and `glyphs` for fonts.
"""

from __future__ import annotations

import logging
import sys

from transformers import HfArgumentParser

from hf_nlpnotes.recipes.pretraining import (
    ModelOptions,
    PretrainingArguments,
    PretrainingRun,
    TextOptions,
    model_to_go_on_from,
    new_model,
    prepare_text,
    publish,
    train_masked_lm,
)
from hf_nlpnotes.training import leave_process_group


def main(options: list[str] | None = None) -> None:
    """Read, train, publish."""
    parser = HfArgumentParser((TextOptions, ModelOptions, PretrainingArguments))
    text, model, arguments = parser.parse_args_into_dataclasses(options)
    logging.basicConfig(
        format="%(asctime)s %(message)s", stream=sys.stdout,
        level=logging.INFO if arguments.process_index == 0 else logging.WARNING,
    )  # fmt: skip
    try:
        run = PretrainingRun(text, model, arguments)
        data = prepare_text(run)
    except (ImportError, OSError, ValueError) as error:  # the options', text's or folder's fault: no traceback needed
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    network = model_to_go_on_from(run) if model.model_name_or_path else new_model(run, data)
    train_masked_lm(run, data, network)
    publish(run, data, network)


if __name__ == "__main__":
    main()
    leave_process_group()
