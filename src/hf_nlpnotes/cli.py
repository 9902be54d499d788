"""The command line: `hf-nlpnotes demo`, `classify`, `eval`, `convert-chinesebert`.

Exit codes: 0 done; 1 an error, told on stderr; 2 wrong usage; 130 interrupted; 141 the reader of the output went away
(`| head`). Text and tables go to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  hf-nlpnotes demo
  hf-nlpnotes classify --labels 体育,财经,科技 titles.txt
  cat reviews.txt | hf-nlpnotes classify --labels 好评,差评 --template '{text}总之是{label}。' --json -
  hf-nlpnotes eval fewclue --data FewCLUE/datasets --tasks eprstmt tnews
  hf-nlpnotes convert-chinesebert ShannonAI/ChineseBERT-base ./chinesebert-base
"""

_CLASSIFY_EPILOG = """\
The text is put into the template with masks in place of {label}; the label whose words the model expects most is the
answer. Words: "ready" (the default) takes words that come with the package for the labels it knows, and the label
itself for others; "names" takes the labels themselves; a JSON file maps labels to words,
  {"体育": ["体育", "足球"], "财经": {"财经": 2, "股市": 1}}
Calibration takes out what the model prefers before reading: "contextual" and "domain" judge each text alone, "batch"
and "prior" compare all texts of the file, and are more accurate when there are many and no label is rare.

examples:
  hf-nlpnotes classify --labels 体育,财经,科技 titles.txt
  hf-nlpnotes classify --verbalizer words.json --calibration batch --json titles.txt > answers.jsonl
  hf-nlpnotes classify --labels 体育,财经 --encoding gb18030 old.txt
"""

_LEARNING_RATE = 2e-4

_EVAL_EPILOG = """\
DIR has one folder a task, with train_0.json … train_4.json, train_few_all.json and test_public.json, one JSON object a
line, as https://github.com/CLUEbenchmark/FewCLUE has them under datasets. Zero-shot classifies the test texts by the
task's prompt. Few-shot trains the model in that prompt anew for each split and seed; the table gives mean and standard
deviation over them. The measure is the accuracy, in percent; "majority" is the best constant answer.

Other prompts: --prompts FILE, a JSON file with a template, a verbalizer or both for some tasks,
  {"eprstmt": {"template": "{text}这是{label}评。", "verbalizer": {"Negative": "差", "Positive": "好"}}}

examples:
  hf-nlpnotes eval fewclue --data FewCLUE/datasets --shots zero
  hf-nlpnotes eval fewclue --data FewCLUE/datasets --tasks eprstmt --json eprstmt.json
  hf-nlpnotes eval fewclue --data FewCLUE/datasets --model hfl/chinese-roberta-wwm-ext --learning-rate 2e-5
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show Chinese gets escapes instead of a crash.
            stream.reconfigure(errors="backslashreplace")
    args = _parser().parse_args(argv)
    try:
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter would flush stdout again on its way out, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130
    except (OSError, TypeError, ValueError) as error:
        print(f"hf-nlpnotes: error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="hf-nlpnotes",
        description="Chinese text techniques on transformers: classify text by a prompt, convert checkpoints.",
        epilog=_EPILOG,
        formatter_class=layout,
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = commands.add_parser(
        "demo",
        help="classify Chinese sentences and fill masks with the embedded model, offline",
        formatter_class=layout,
    )
    demo.add_argument("--model", help="folder or hub name of a masked language model (default: the embedded one)")
    demo.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    demo.set_defaults(run=_demo)

    classify = commands.add_parser(
        "classify",
        help="classify the lines of a file by a prompt",
        description="Classify every line of a text file, blank lines excepted.",
        epilog=_CLASSIFY_EPILOG,
        formatter_class=layout,
    )
    classify.add_argument("file", metavar="FILE", help="text file, one text a line; '-' for standard input")
    classify.add_argument("--labels", help="labels separated by commas (default: those of the verbalizer file)")
    classify.add_argument("--template", help="prompt with the slots {label} and {text}")
    classify.add_argument("--verbalizer", default="ready", help="words of the labels: ready, names or a JSON file")
    classify.add_argument(
        "--calibration", default="contextual", choices=["none", "contextual", "domain", "batch", "prior"]
    )
    classify.add_argument(
        "--prior", type=_shares, metavar="SHARES", help="of the labels, for --calibration prior: such as 0.5,0.3,0.2"
    )
    classify.add_argument("--model", help="folder or hub name of a masked language model (default: the embedded one)")
    classify.add_argument("--device", help="where to run: cpu, cuda:0, … (default: the first accelerator)")
    classify.add_argument("--batch-size", type=_positive, default=32, metavar="N")
    classify.add_argument("--max-length", type=_positive, metavar="N", help="cut texts so that a prompt has N tokens")
    classify.add_argument("--top", type=_positive, default=1, metavar="N", help="labels to show for a text")
    classify.add_argument("--encoding", default="utf-8", help="of the file (default: utf-8)")
    classify.add_argument("--json", action="store_true", help="print one JSON object a line, with all labels")
    classify.add_argument("--no-progress", action="store_true", help="show no progress bar on stderr")
    classify.set_defaults(run=_classify)

    evaluate = commands.add_parser(
        "eval",
        help="measure a model by prompts on a benchmark, without training and on a few examples",
        description="Measure a masked language model by prompts, without training and trained on a few examples.",
        epilog=_EVAL_EPILOG,
        formatter_class=layout,
    )
    evaluate.add_argument("benchmark", choices=["fewclue"], help="the benchmark")
    evaluate.add_argument("--data", required=True, metavar="DIR", help="folder with one folder a task")
    evaluate.add_argument("--model", help="folder or hub name of a masked language model (default: the embedded one)")
    evaluate.add_argument("--tasks", nargs="+", metavar="TASK", help="tasks (default: all that DIR has)")
    evaluate.add_argument(
        "--shots", nargs="+", choices=["zero", "few"], default=["zero", "few"], help="what to measure (default: both)"
    )
    evaluate.add_argument(
        "--splits", nargs="+", metavar="SPLIT", help="training splits, 0 to 4 or few_all (default: 0 to 4, if there)"
    )
    evaluate.add_argument(
        "--seeds", nargs="+", type=_natural, default=[0], metavar="SEED", help="of the training (default: 0)"
    )
    evaluate.add_argument("--limit", type=_positive, metavar="N", help="test on a fixed random sample of N texts")
    evaluate.add_argument("--prompts", metavar="FILE", help="JSON file with prompts that replace the tasks' own")
    evaluate.add_argument(
        "--calibration",
        default="contextual",
        choices=["none", "contextual", "domain", "batch"],
        help="of zero-shot: see classify (default: contextual)",
    )
    evaluate.add_argument("--epochs", type=_positive, default=20, metavar="N", help="of few-shot (default: 20)")
    evaluate.add_argument(
        "--learning-rate",
        type=_positive_number,
        default=_LEARNING_RATE,
        metavar="X",
        help=f"of few-shot (default: {_LEARNING_RATE:g}, for small models; base models want 1e-5 to 5e-5)",
    )
    evaluate.add_argument(
        "--train-batch-size", type=_positive, metavar="N", help="of few-shot (default: 8 of < 100 texts, 32 of more)"
    )
    evaluate.add_argument("--batch-size", type=_positive, default=32, metavar="N", help="of testing (default: 32)")
    evaluate.add_argument("--max-length", type=_positive, metavar="N", help="cut texts so that a prompt has N tokens")
    evaluate.add_argument("--device", help="cpu, cuda:0, … (default: the first accelerator); few-shot: cpu or default")
    evaluate.add_argument("--json", metavar="FILE", help="write everything that was measured to a JSON file")
    evaluate.add_argument("--no-progress", action="store_true", help="show no progress bar on stderr")
    evaluate.set_defaults(run=_evaluate)

    convert = commands.add_parser(
        "convert-chinesebert",
        help="write an official ChineseBERT checkpoint as a folder that AutoModel loads",
        formatter_class=layout,
    )
    convert.add_argument("src", metavar="SRC", help="official folder, or its name on the hub")
    convert.add_argument("dst", metavar="DST", help="folder to write")
    convert.add_argument("--overwrite", action="store_true", help="replace DST where it holds a model")
    convert.set_defaults(run=_convert)
    return parser


class _Version(argparse.Action):
    """`--version`, asked for only when it is wanted: importing the package takes a moment."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from hf_nlpnotes import __version__

        print(f"hf-nlpnotes {__version__}")
        parser.exit()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive whole number, got {text!r}")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)


def _positive_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return number


def _shares(text: str) -> list[float]:
    try:
        return [float(share) for share in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers separated by commas, got {text!r}") from None


def _classify(args: argparse.Namespace) -> None:
    verbalizer, labels = _labels_and_words(args)
    texts = list(_lines(args.file, args.encoding))
    if not texts:
        print(f"hf-nlpnotes: {_name(args.file)} has no text", file=sys.stderr)
        return
    from tqdm import tqdm

    pipe = _pipeline("zero-shot-prompt", args.model, device=args.device)
    options = {
        "candidate_labels": labels,
        "template": args.template,
        "verbalizer": verbalizer,
        "calibration": args.calibration,
        "label_prior": args.prior,
        "max_length": args.max_length,
        "batch_size": args.batch_size,
    }
    with tqdm(texts, desc="classify", unit="text", disable=args.no_progress, file=sys.stderr) as bar:
        answers = pipe((text for _, text in bar), **options)
        width = max(map(_width, labels))
        for (number, text), answer in zip(texts, answers, strict=True):
            if args.json:
                row = json.dumps({"line": number, **answer}, ensure_ascii=False)
            else:
                best = list(zip(answer["labels"], answer["scores"], strict=True))[: args.top]
                row = "  ".join(f"{_padded(label, width)} {score:.2f}" for label, score in best)
                row = _shortened(f"{row}  {text}")
            if sys.stdout.isatty():
                bar.write(row, file=sys.stdout)  # around the bar
            else:
                print(row)


def _labels_and_words(args: argparse.Namespace) -> tuple[Any, list[str]]:
    """The verbalizer and the labels that the options ask for."""
    labels = [label.strip() for label in (args.labels or "").replace("，", ",").split(",") if label.strip()]
    if args.prior and args.calibration != "prior":
        raise ValueError(f"--prior is for --calibration prior, and the calibration is {args.calibration}")
    if args.verbalizer in ("ready", "names"):
        if not labels:
            raise ValueError("no labels: give --labels 体育,财经,科技, or --verbalizer FILE with words for each label")
        return ("ready" if args.verbalizer == "ready" else None), labels
    path = Path(args.verbalizer)
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"--verbalizer is ready, names or a JSON file, and there is no file {str(path)!r}") from None
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if not isinstance(words, dict):
        raise ValueError(f'{path} must map labels to words, such as {{"体育": ["体育", "足球"]}}, got {words!r}')
    return words, labels or list(words)


def _lines(file: str, encoding: str) -> Iterator[tuple[int, str]]:
    """Lines of a file that are not blank, with their numbers from 1."""
    data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    try:
        text = data.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{_name(file)}, line {line}: not {encoding} text ({error.reason}); name its encoding, such as"
            " --encoding gb18030"
        ) from None
    except LookupError:
        raise ValueError(f"unknown encoding {encoding!r}; try utf-8, gb18030, big5, utf-16") from None
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if line.strip():
            yield number, line.strip()


def _name(file: str) -> str:
    return "standard input" if file == "-" else file


def _pipeline(task: str, model: str | None, **options: Any) -> Any:
    """A pipeline on the named model, or on the embedded one, with the libraries' own reports turned off."""
    import transformers
    from transformers.utils import logging

    import hf_nlpnotes

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    make: Any = transformers.pipeline  # its overloads know the stock tasks only
    model = model or hf_nlpnotes.EMBEDDED_MODEL
    try:
        return make(task, model=model, **options)
    except OSError as error:
        raise OSError(f"the model {model!r} cannot be loaded: {error}") from error


_DEMO_TASKS = [
    (
        "News titles: which topic?",
        {"template": "下面报道一则{label}新闻。{text}"},
        ["体育", "财经", "科技", "娱乐", "教育", "房产"],
        [
            "主队加时赛绝杀对手，时隔十年再夺联赛冠军",
            "央行下调贷款利率，多家银行跟进",
            "新款手机换上自研芯片，电池续航翻倍",
            "高考分数线今日公布，考生可上网查询成绩",
            "这部电影上映三天，导演和主演到场与观众见面",
        ],
    ),
    (
        "Reviews: good or bad?",
        {"template": "{text}总的来说{label}。"},
        ["好评", "差评"],
        [
            "房间很干净，离地铁近，前台态度也好，下次还住这里",
            "屏幕用了两天就坏了，客服一直不回复，后悔买了",
            "书很快就收到了，包装完好，孩子非常喜欢",
        ],
    ),
]

_DEMO_MASKS = ["我很喜[MASK]吃苹果。", "他在银[MASK]工作。", "中国的首都是北[MASK]。"]


def _demo(args: argparse.Namespace) -> None:
    started = time.perf_counter()
    pipe = _pipeline("zero-shot-prompt", args.model)
    from transformers import pipeline

    fill = pipeline("fill-mask", model=pipe.model, tokenizer=pipe.tokenizer, device=pipe.device)
    loaded = time.perf_counter() - started
    name = Path(pipe.model.name_or_path).name
    parameters = sum(parameter.numel() for parameter in pipe.model.parameters())

    tasks: list[dict[str, Any]] = [
        {"title": title, **template, "answers": pipe(texts, labels, verbalizer="ready", **template)}
        for title, template, labels, texts in _DEMO_TASKS
    ]
    masks: list[dict[str, Any]] = [
        {"text": text, "answers": [_candidate(pipe.tokenizer, text, found) for found in fill(_masked(pipe, text))]}
        for text in _DEMO_MASKS
    ]
    if args.json:
        report = {"model": pipe.model.name_or_path, "parameters": parameters, "load_seconds": round(loaded, 3)}
        print(json.dumps({**report, "classification": tasks, "fill_mask": masks}, ensure_ascii=False, indent=2))
        return

    print(f"Model {name}: {parameters / 1e6:.1f} million parameters, loaded in {loaded:.1f} s.")
    for task in tasks:
        print(f"\n{task['title']}  Prompt: {task['template']}")
        rows = [
            [answer["sequence"], *(f"{answer['labels'][i]} {answer['scores'][i]:.2f}" for i in range(2))]
            for answer in task["answers"]
        ]
        _print_table(["text", "best", "second"], rows)
    print("\nMasks: which character?")
    rows = [
        [mask["text"], *(f"{x['token']} {x['pinyin']} {x['score']:.2f}" for x in mask["answers"])] for mask in masks
    ]
    _print_table(["text", "1", "2", "3", "4", "5"], rows)
    print(
        f"\nDone: {sum(len(task['answers']) for task in tasks)} texts classified with no training data (contextual"
        f" calibration), {len(masks)} masks filled."
        "\nNext, your own text, one a line:  hf-nlpnotes classify --labels 体育,财经,科技 FILE"
    )


def _masked(pipe: Any, text: str) -> str:
    return text.replace("[MASK]", pipe.tokenizer.mask_token)


def _candidate(tokenizer: Any, text: str, found: dict[str, Any]) -> dict[str, Any]:
    """A character that fills the mask, with its reading in the sentence where the tokenizer knows readings."""
    token = found["token_str"].strip()
    filled = tokenizer(text.replace("[MASK]", token), return_offsets_mapping=True)
    place = text.index("[MASK]")
    reading = ""
    if "pinyin_ids" in filled:
        from hf_nlpnotes.models.chinesebert.pinyin_chinesebert import LETTERS, to_tone_mark

        where = next(i for i, (a, b) in enumerate(filled["offset_mapping"]) if a <= place < b)
        letters = tokenizer.pinyin_table[filled["pinyin_ids"][where]]
        reading = to_tone_mark("".join(LETTERS[letter] for letter in letters if letter))
    return {"token": token, "pinyin": reading, "score": found["score"]}


def _evaluate(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from hf_nlpnotes.prompting import fewclue
    from hf_nlpnotes.prompting.evaluation import HEADER, TaskResult, table

    # Whatever may be wrong with options and files is told before anything is computed.
    path = _json_target(args.json)
    zero, few = "zero" in args.shots, "few" in args.shots
    prompts = fewclue.read_prompts(args.prompts) if args.prompts else {}
    names = fewclue.find_tasks(args.data, args.tasks)
    splits = args.splits if few else ()
    loaded = [fewclue.load_task(args.data, name, splits, **prompts.get(name, {})) for name in names]
    for task in loaded:
        if few and not task.splits:
            raise ValueError(f"{task.name} has no training split: add train_0.json, or leave it out with --shots zero")

    pipe = _pipeline("zero-shot-prompt", args.model, device=args.device)
    from hf_nlpnotes.prompting import fewclue_runs as runs

    model = pipe.model.name_or_path
    options = runs.FewShotOptions(
        epochs=args.epochs,
        learning_rate=args.learning_rate,
        batch_size=args.train_batch_size,
        max_length=args.max_length,
        use_cpu=pipe.device.type == "cpu",
    )
    seeds = list(dict.fromkeys(args.seeds))
    tasks = [runs.limited(task, args.limit) for task in loaded]
    for task in tasks:
        runs.spelled_words(task, pipe.tokenizer)
    results: list[TaskResult] = []
    total = sum(runs.texts_to_read(task, zero, len(seeds), options.epochs) for task in tasks)
    with tqdm(total=total, unit="text", disable=args.no_progress, file=sys.stderr) as bar:
        for task in tasks:
            bar.set_description(task.name)
            score = None
            if zero:
                score = runs.zero_shot(
                    pipe,
                    task,
                    calibration=args.calibration,
                    batch_size=args.batch_size,
                    max_length=args.max_length,
                    advance=bar.update,
                )
            trained = [
                runs.few_shot(model, task, split, seed, options, batch_size=args.batch_size, advance=bar.update)
                for split in task.splits
                for seed in seeds
            ]
            results.append(runs.result_of(task, score, trained))
    _print_table(HEADER, table(results))
    if path is not None:
        _write_json(path, _evaluation_report(args, model, tasks, results))


def _evaluation_report(args: argparse.Namespace, model: str, tasks: Any, results: Any) -> dict[str, Any]:
    """All that was measured, and what is needed to measure it again."""
    import torch
    import transformers

    from hf_nlpnotes import __version__
    from hf_nlpnotes.prompting.evaluation import means

    names = "shots seeds limit calibration epochs learning_rate train_batch_size max_length"
    return {
        "benchmark": args.benchmark,
        "model": model,
        "versions": {"hf_nlpnotes": __version__, "transformers": transformers.__version__, "torch": torch.__version__},
        "options": {name: getattr(args, name) for name in names.split()},
        "tasks": {
            result.task: {"template": task.template, "verbalizer": dict(task.words), **result.to_dict()}
            for task, result in zip(tasks, results, strict=True)
        },
        "mean": means(results),
    }


def _json_target(file: str | None) -> Path | None:
    """The file to write, told to be impossible before hours of work rather than after."""
    if file is None:
        return None
    path = Path(file)
    if path.is_dir():
        raise ValueError(f"--json is a file to write, and {file!r} is a folder: add the name of a file")
    if not path.parent.is_dir():
        raise ValueError(f"--json {file!r}: there is no folder {str(path.parent)!r}; make it first")
    return path


def _write_json(path: Path, report: dict[str, Any]) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _convert(args: argparse.Namespace) -> None:
    from hf_nlpnotes.models.chinesebert.convert_chinesebert import convert_official

    folder = convert_official(args.src, args.dst, overwrite=args.overwrite)
    print(f"Wrote {folder}. Load it with AutoModel.from_pretrained({str(folder)!r}) after `import hf_nlpnotes`.")


def _width(text: str) -> int:
    """Columns that a terminal gives a text: two for Han characters and full-width punctuation."""
    wide = sum(unicodedata.east_asian_width(char) in ("W", "F") for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _shortened(text: str) -> str:
    """Cut to the terminal's width; a file or a pipe gets everything."""
    if not sys.stdout.isatty() or _width(text) <= (room := shutil.get_terminal_size().columns - 1):
        return text
    while _width(text) > room - 1:
        text = text[:-1]
    return text + "…"


def _print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = [list(header), *map(list, rows)]
    widths = [max(_width(row[column]) for row in table) for column in range(len(header))]
    table.insert(1, ["-" * width for width in widths])
    for row in table:
        line = "  ".join(_padded(cell, width) for cell, width in zip(row, widths, strict=True))
        print(f"  {line.rstrip()}")
