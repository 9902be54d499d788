"""`hf-nlpnotes train`: a model that `classify`, `tag` or `answer` reads, or one to begin with; by the Trainer."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import _pretrain
from ._arguments import natural, positive, positive_number, share
from ._models import find_model, loading_options
from ._options import add_model
from ._output import note, print_table, say
from ._training import (
    SHARED_HELP,
    add_training,
    new_task,
    output_folder,
    quiet_data_sets,
    training_arguments,
    versions,
)

_READERS = ("columns", "json", "segmented", "conllu", "roles", "utterances", "keywords")
_METRICS = ("squad_v1", "squad_v2", "cmrc2018", "drcd")

# A CRF's transitions and the ends of spans begin at nothing, and want larger steps than what has been pretrained.
_HEAD_LEARNING_RATES = {"classify": None, "tag": 5e-3, "answer": 5e-3}

_COMMON = f"""\
A file that comes without test data is cut, and a part of it held out; the part is the same every time.

{SHARED_HELP} Checkpoints go to --output-dir (default:
OUTPUT.work), and --resume-from-checkpoint true goes on from the last. On several processes:
  torchrun --nproc_per_node 2 -m hf_nlpnotes train …

The defaults are for small models, such as the embedded one: base and large ones want --learning-rate 1e-5 to 5e-5.
The metrics on what was held out are printed, and are in OUTPUT/training.json with the options. OUTPUT appears whole,
at the end.
"""

_EPILOGS = {
    "classify": f"""\
DATA is a file (.tsv, .csv, .json with an object a line), a folder with train, test or dev files, or a name on the hub.
Its texts are in a column text, text_a, sentence, review or content, its labels in label, labels or label_desc.

{_COMMON}
examples:
  hf-nlpnotes train classify --data reviews.tsv --output classifier
  hf-nlpnotes train classify --data chnsenticorp --limit 1000 --output classifier --epochs 2
  hf-nlpnotes classify --model classifier new_reviews.txt
""",
    "tag": f"""\
DATA is a file, or a folder with files named *train* and *test* or *dev*. Its format, --data-format:
  columns     a token and its tag a line, a blank line between sentences (CoNLL); any scheme: BIO, BIOES, BMES, …
  json        an object a line: tokens and tags, or text with spans
  segmented   a sentence a line, words with spaces between them        → words
  conllu      CoNLL-U                                                  → words with parts of speech
  roles       CoNLL-U with a column of arguments a predicate           → semantic roles
  utterances  columns, JSON lines, or seq.in, seq.out and label        → slots and intents
  keywords    JSON lines or a table of tabs: a text and its keywords   → keywords

{_COMMON}
examples:
  hf-nlpnotes train tag --data ner/resume --output tagger
  hf-nlpnotes train tag --data pku.utf8 --data-format segmented --output segmenter --epochs 2
  hf-nlpnotes tag --model tagger news.txt
""",
    "answer": f"""\
DATA is a file in SQuAD's layout, a folder with *train*.json and *dev*.json, or a name on the hub.

{_COMMON}
examples:
  hf-nlpnotes train answer --data cmrc2018_dev.json --output reader
  hf-nlpnotes train answer --data squad_v2 --max-length 256 --doc-stride 64 --output reader --max-steps 500
  hf-nlpnotes answer --model reader --question '谁写了《红楼梦》？' article.txt
""",
}

_EPILOG = """\
examples:
  hf-nlpnotes train classify --data reviews.tsv --output classifier
  hf-nlpnotes train tag --data ner/resume --output tagger --epochs 8
  hf-nlpnotes train answer --data cmrc2018_dev.json --output reader --max-steps 200
  hf-nlpnotes train pretrain --data texts --output encoder
  hf-nlpnotes train tag --help
"""


def add_parser(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    train = commands.add_parser(
        "train",
        help="train a model that classify, tag or answer reads, or one to begin with",
        description="Train a model on labelled data, or on plain text, evaluate it on what was held out, and save it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    tasks = train.add_subparsers(title="tasks", metavar="TASK", required=True)
    classify = _task(tasks, "classify", _classify, "labels of texts")
    classify.add_argument("--max-length", type=positive, metavar="N", help="tokens of a text (default: all it takes)")
    tag = _task(tasks, "tag", _tag, "words, entities, roles, slots or keywords")
    tag.add_argument("--data-format", choices=_READERS, default="columns", help="see below (default: columns)")
    tag.add_argument("--no-crf", action="store_true", help="a classifier of each token alone, without a CRF")
    tag.add_argument("--max-length", type=positive, default=128, metavar="N", help="tokens of a window (default: 128)")
    tag.add_argument("--overlap", type=natural, default=32, metavar="N", help="of windows, in tokens (default: 32)")
    answer = _task(tasks, "answer", _answer, "answers to questions about a text")
    answer.add_argument(
        "--metric", choices=_METRICS, help="default: squad_v2 with unanswerable questions, or cmrc2018"
    )
    answer.add_argument(
        "--max-length", type=positive, metavar="N", help="tokens of a window (default: 384, or all the model takes)"
    )
    answer.add_argument("--doc-stride", type=natural, metavar="N", help="overlap of windows (default: a third of one)")
    answer.add_argument(
        "--max-answer-length",
        type=positive,
        default=50,
        metavar="N",
        help="tokens of the longest answer (default: 50)",
    )
    answer.add_argument(
        "--empty-windows",
        type=share,
        default=1.0,
        metavar="P",
        help="share of the windows without the answer to learn from (default: 1)",
    )
    _pretrain.add_task(tasks)


def _task(tasks: Any, name: str, prepare: Callable[..., Any], what: str) -> argparse.ArgumentParser:
    task = new_task(
        tasks,
        name,
        run,
        summary=f"learn {what}",
        description=f"Train a model to find {what}, for `hf-nlpnotes {name}`.",
        epilog=_EPILOGS[name],
        defaults="FineTuningArguments",
    )
    task.set_defaults(prepare=prepare)
    task.add_argument("--test-data", metavar="FILE", help="what to evaluate on, in place of that of DATA")
    add_model(task, "an encoder to begin with", embedded=True)
    add_training(task, examples="examples", learning_rate="3e-4, for small models", epochs=4, batch_size=16)
    rate = _HEAD_LEARNING_RATES[name]
    task.add_argument(
        "--head-learning-rate",
        type=positive_number,
        default=rate,
        metavar="X",
        help=f"of the new layers (default: {rate or '--learning-rate'})",
    )
    return task


def run(args: argparse.Namespace) -> None:
    """Train, evaluate, save."""
    output = output_folder(args)
    arguments = training_arguments(args)
    from transformers import set_seed

    from hf_nlpnotes.recipes import fine_tune

    model = find_model(args.model)
    quiet_data_sets()
    set_seed(arguments.seed)
    recipe = args.prepare(args, model, arguments.seed)
    counts = f"{recipe.sizes['train']} examples to learn from, {recipe.sizes['held_out']} held out"
    is_first = arguments.process_index == 0
    if is_first:
        note(counts, quiet=args.quiet)
    measured = fine_tune(
        recipe,
        arguments,
        output,
        head_learning_rate=args.head_learning_rate,
        progress=not args.quiet,
        about={"task": args.task, "model": model, "versions": versions(), "options": _options(args, arguments)},
    )
    if not is_first:
        return
    _remove_if_empty(Path(arguments.output_dir))
    if args.json:
        say(json.dumps({"task": args.task, "output": str(output), "examples": recipe.sizes, "metrics": measured}))
    else:
        print_table(["metric", "held out"], [[name, f"{value:.4g}"] for name, value in measured.items()])
    note(f"wrote {output}; `hf-nlpnotes {args.task} --model {output}` reads it", quiet=args.quiet)


def _classify(args: argparse.Namespace, model: str, seed: int) -> Any:
    from hf_nlpnotes.corpora import read_texts
    from hf_nlpnotes.recipes import classification

    data = read_texts(args.data, args.limit, seed, test_data=args.test_data, held_out="one")
    return classification(model, data, max_length=args.max_length, **loading_options(args))


def _tag(args: argparse.Namespace, model: str, seed: int) -> Any:
    from hf_nlpnotes.corpora import READERS, read_tagged
    from hf_nlpnotes.recipes import sequence_tagging

    train, held_out = read_tagged(args.data, READERS[args.data_format], args.test_data, args.limit, seed)
    return sequence_tagging(
        model,
        train,
        held_out,
        crf=not args.no_crf,
        max_length=args.max_length,
        overlap=args.overlap,
        **loading_options(args),
    )


def _answer(args: argparse.Namespace, model: str, seed: int) -> Any:
    from hf_nlpnotes.corpora import read_questions
    from hf_nlpnotes.recipes import question_answering

    data = read_questions(args.data, seed, test_data=args.test_data)
    if args.limit is not None and args.limit < len(data["train"]):
        data["train"] = data["train"].shuffle(seed=seed).select(range(args.limit))
    return question_answering(
        model,
        data,
        metric=args.metric,
        max_length=args.max_length,
        doc_stride=args.doc_stride,
        max_answer_length=args.max_answer_length,
        empty_windows=args.empty_windows,
        seed=seed,
        **loading_options(args),
    )


def _options(args: argparse.Namespace, arguments: Any) -> dict[str, Any]:
    """What the weights depend on."""
    own = ("data", "test_data", "limit", "max_length", "head_learning_rate", "no_crf", "data_format", "doc_stride")
    stock = (
        "num_train_epochs",
        "max_steps",
        "learning_rate",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "world_size",
        "weight_decay",
        "seed",
    )
    found = {name: getattr(args, name) for name in own if hasattr(args, name)}
    return found | {name: getattr(arguments, name) for name in stock}


def _remove_if_empty(folder: Path) -> None:
    """Remove the folder of checkpoints, which the Trainer makes whether there are any or not."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
