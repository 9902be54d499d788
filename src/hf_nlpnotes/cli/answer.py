"""`hf-nlpnotes answer`: questions about a text, answered with pieces of it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ._arguments import positive, share
from ._inputs import name_of, whole_text
from ._models import device_of, load_trained
from ._options import add_encoding, add_json, add_model, add_output, add_quiet, add_running, new_command
from ._output import note, output_path, results_to, say, shortened, write_json

_EPILOG = """\
With --question, FILE is the text that is asked about. Without, it has questions and their texts: a JSON file in
SQuAD's form, a JSON list or JSON lines of {"question": …, "context": …}, with or without "id".

A row has the score, the characters of the text, and the answer. --json prints one object a question,
  {"id": …, "question": …, "answers": [{"score": …, "start": …, "end": …, "answer": …}]}
and --predictions writes {id: answer}, as the scorers of SQuAD and CMRC2018 read it.

MODEL is one that was trained to answer questions, as `hf-nlpnotes train answer` does it.

examples:
  hf-nlpnotes answer --model MODEL --question '谁写了《红楼梦》？' --question '写于何时？' article.txt
  cat article.txt | hf-nlpnotes answer --model MODEL --question '谁写了《红楼梦》？' --top 3 -
  hf-nlpnotes answer --model MODEL --predictions predictions.json cmrc2018_dev.json
"""


def add_parser(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    answer = new_command(
        commands,
        "answer",
        run,
        summary="answer questions about a text with pieces of it",
        description="Answer questions about a text with pieces of it.",
        epilog=_EPILOG,
    )
    answer.add_argument("file", metavar="FILE", help="text, or JSON with questions; '-' for standard input")
    add_model(answer, "a model for question answering", embedded=False)
    answer.add_argument("--question", action="append", metavar="TEXT", help="may be given several times")
    answer.add_argument("--top", type=positive, default=1, metavar="N", help="answers to a question (default: 1)")
    answer.add_argument(
        "--threshold", type=share, metavar="P", help="all answers with this score or more that do not overlap"
    )
    answer.add_argument("--impossible", action="store_true", help="let a question have no answer")
    answer.add_argument(
        "--max-answer-length", type=positive, metavar="N", help="tokens of the longest answer (default: 128)"
    )
    add_running(
        answer,
        batch_size=16,
        batch_of="windows",
        max_length="tokens of a window (default: as the model takes, or 384)",
    )
    add_encoding(answer)
    add_output(answer)
    answer.add_argument("--predictions", metavar="FILE", help="write the best answer of each question to a JSON file")
    add_json(answer, "print one JSON object a question")
    add_quiet(answer)


def run(args: argparse.Namespace) -> None:
    """Answer questions."""
    # Whatever may be wrong with options and files is told before a model is loaded.
    target = output_path(args.predictions, "--predictions")
    output = output_path(args.output)
    text = whole_text(args.file, args.encoding)
    if args.question:
        if not text.strip():
            raise ValueError(f"{name_of(args.file)} has no text to ask about")
        asked = [{"question": question, "context": text} for question in args.question]
    else:
        asked = list(_questions(text, name_of(args.file)))
    if not asked:
        raise ValueError(f"{name_of(args.file)} has no questions: give --question with a text file")
    if target is not None and args.question:
        raise ValueError("--predictions is for a file of questions with ids; of --question, write --json -o FILE")
    if target is not None and len({row["id"] for row in asked if "id" in row}) < len(asked):
        raise ValueError(f"--predictions needs an id of its own for each question, and {name_of(args.file)} has not")

    pipe = _pipeline(args)
    found = pipe(
        asked,
        batch_size=args.batch_size,
        top_k=args.top if args.threshold is None or args.top > 1 else None,
        threshold=args.threshold,
        handle_impossible_answer=args.impossible,
        max_answer_len=args.max_answer_length,
        max_seq_len=args.max_length,
        progress_bar=not args.quiet and sys.stderr.isatty(),
    )
    answers = [[one] if isinstance(one, dict) else one for one in found]
    if target is not None:
        best = {row["id"]: one[0]["answer"] if one else "" for row, one in zip(asked, answers, strict=True)}
        write_json(target, best)
        note(f"wrote {len(best)} answers to {target}", quiet=args.quiet)
        if not args.json and output is None:
            return
    with results_to(output):
        for row, one in zip(asked, answers, strict=True):
            _print(row, one, args, named=len(asked) > 1)


def _print(row: Mapping[str, Any], answers: list[dict[str, Any]], args: argparse.Namespace, *, named: bool) -> None:
    """The answers to one question."""
    if args.json:
        identity = {"id": row["id"]} if "id" in row else {}
        say(json.dumps({**identity, "question": row["question"], "answers": answers}, ensure_ascii=False))
        return
    if named:
        say(shortened(str(row["question"])))
    for answer in answers:
        piece = " ".join(answer["answer"].split()) or "(no answer)"
        say(shortened(f"{answer['score']:.2f}  {answer['start']}:{answer['end']}  {piece}"))


def _pipeline(args: argparse.Namespace) -> Any:
    """The pipeline, of a model that has learnt to answer: others give random pieces."""
    device = device_of(args)
    model, tokenizer = load_trained(
        "QuestionAnswering",
        args,
        work="answer questions",
        teacher="train answer --data DATA --output FOLDER",
    )
    import transformers

    make: Any = transformers.pipeline
    return make("extractive-question-answering", model=model, tokenizer=tokenizer, device=device)


def _questions(text: str, name: str) -> Iterator[dict[str, Any]]:
    """The questions of a JSON file."""
    try:
        content = json.loads(text)
    except ValueError:
        content = list(_json_lines(text, name))
    if isinstance(content, Mapping) and isinstance(content.get("data"), list):
        for article in content["data"]:
            for paragraph in _inside(article, "paragraphs", name):
                for question in _inside(paragraph, "qas", name):
                    if not isinstance(question, Mapping):
                        raise _no_question(question, name)
                    yield _row({**paragraph, **question}, name)
        return
    for row in content if isinstance(content, list) else [content]:
        yield _row(row, name)


def _inside(row: Any, column: str, name: str) -> list[Any]:
    """What a column lists; the row itself where it has none."""
    found = row.get(column, [row]) if isinstance(row, Mapping) else None
    if not isinstance(found, list):
        raise _no_question(row, name)
    return found


def _json_lines(text: str, name: str) -> Iterator[Any]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(
                    f"{name}, line {number}: no JSON ({error}); of a text that is asked about, give --question"
                ) from None


def _row(row: Any, name: str) -> dict[str, Any]:
    if not isinstance(row, Mapping) or not {"question", "context"} <= row.keys():
        raise _no_question(row, name)
    return {column: row[column] for column in ("id", "question", "context") if column in row}


def _no_question(row: Any, name: str) -> ValueError:
    return ValueError(f"{name}: expected question and context, got {json.dumps(row, ensure_ascii=False)[:80]}")
