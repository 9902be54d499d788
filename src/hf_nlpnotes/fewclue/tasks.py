"""FewCLUE, the few-shot benchmark of Chinese: its seven classification tasks as data, and its files.

Xu et al., FewCLUE: A Chinese Few-shot Learning Evaluation Benchmark, 2021, https://arxiv.org/abs/2107.07498. Of its
nine tasks OCNLI and CHID are not here. A task is a folder of files of JSON objects, one a line:

    DIR/eprstmt/train_0.json … train_4.json, train_few_all.json, dev_0.json …, test_public.json

Accuracy is the measure of all seven. Texts are tested on `test_public.json`; where a task's folder lacks it, on
`dev_few_all.json`, or else `dev_0.json`: nothing is chosen on these here, so they are as unseen as a test.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hf_nlpnotes.prompting.config import PromptConfig
from hf_nlpnotes.prompting.label_words import ready_label_words

SPLITS = 5
"""How many training splits of a task FewCLUE has, numbered from 0."""

TEST_FILES = ("test_public.json", "dev_few_all.json", "dev_0.json")
"""What is tested on, the first that is there."""

_WHOLE = "few_all"
_LIST_MARK = "、"
_WHERE = (
    "the folder of FewCLUE's data sets with one folder a task, such as FewCLUE/datasets of"
    " https://github.com/CLUEbenchmark/FewCLUE"
)


@dataclass(frozen=True)
class TaskDefinition:
    """A task as data.

    Args:
        name: of the task and of its folder.
        columns: column of the template → where its text is in a row, dots leading inwards (`"target.span1_text"`);
            a list there is joined by `、`.
        label: where the label is in a row.
        template: the prompt.
        words: the words of each label, the best first, which alone is trained in few-shot; `None`: the file
            `label_names.json` of the task's folder has a short name for each label, its `label_des2tag`.
    """

    name: str
    columns: Mapping[str, str]
    label: str
    template: str
    words: Mapping[str, tuple[str, ...]] | None


_OPINIONS = {"Negative": "差评", "Positive": "好评"}

TNEWS_TOPICS = {
    "news_story": "故事",
    "news_culture": "文化",
    "news_entertainment": "娱乐",
    "news_sports": "体育",
    "news_finance": "财经",
    "news_house": "房产",
    "news_car": "汽车",
    "news_edu": "教育",
    "news_tech": "科技",
    "news_military": "军事",
    "news_travel": "旅游",
    "news_world": "国际",
    "news_stock": "股票",
    "news_agriculture": "农业",
    "news_game": "游戏",
}
"""Labels of tnews, and their names in Chinese."""


def _ready(names: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    words = ready_label_words(names.values())
    return {label: tuple(words[name]) for label, name in names.items()}


_DEFINITIONS = (
    # Opinions on goods.
    TaskDefinition("eprstmt", {"text": "sentence"}, "label", "{text}总之是{label}。", _ready(_OPINIONS)),
    # Topics of news titles.
    TaskDefinition("tnews", {"text": "sentence"}, "label_desc", "{label}新闻：{text}", _ready(TNEWS_TOPICS)),
    # What an app is for, by its description.
    TaskDefinition("iflytek", {"text": "sentence"}, "label_des", "{label}软件：{text}", None),
    # The field of a scientific abstract.
    TaskDefinition("csldcp", {"text": "content"}, "label", "{label}研究：{text}", None),
    # Whether two short texts mean the same.
    TaskDefinition(
        "bustm",
        {"sentence1": "sentence1", "sentence2": "sentence2"},
        "label",
        "“{sentence1}”和“{sentence2}”的意思{label}同。",
        {"0": ("不",), "1": ("相",)},
    ),
    # Whether all keywords are those of the abstract.
    TaskDefinition(
        "csl",
        {"abstract": "abst", "keywords": "keyword"},
        "label",
        "{abstract:head}其中{label}有{keywords}。",
        {"0": ("没",), "1": ("都",)},
    ),
    # Whether the pronoun means the noun.
    TaskDefinition(
        "cluewsc",
        {"text": "text", "noun": "target.span1_text", "pronoun": "target.span2_text"},
        "label",
        "“{pronoun}”{label}是“{noun}”：{text}",
        {"false": ("不",), "true": ("就",)},
    ),
)

TASKS: Mapping[str, TaskDefinition] = MappingProxyType({task.name: task for task in _DEFINITIONS})
"""Name → definition, for every task that is known."""


@dataclass(frozen=True)
class FewClueTask:
    """A task with its texts.

    Args:
        name: of the task.
        template: the prompt, or several as in `PromptConfig`.
        words: label → words, in the order of the labels; of weighted words, the weights.
        test_name: name of the test file.
        test: its rows: the columns, and `label`.
        splits: name of a training split → its rows.
    """

    name: str
    template: Any
    words: Mapping[str, Any]
    test_name: str
    test: Sequence[Mapping[str, str]]
    splits: Mapping[str, Sequence[Mapping[str, str]]]


def find_tasks(folder: str | Path, names: Iterable[str] | None = None) -> list[str]:
    """Names of the tasks in a folder, in the order of `TASKS`.

    Args:
        folder (`str` or `Path`):
            The folder with one folder a task.
        names (`Iterable[str]`, *optional*):
            The tasks that are wanted. Default: all that are there.

    Raises:
        `ValueError`: no folder, none of the tasks, or not one that is wanted.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {str(folder)!r}: give {_WHERE}.")
    found = [name for name in TASKS if (folder / name).is_dir()]
    if not found:
        inside = folder.resolve().name in TASKS
        raise ValueError(
            f"{folder} is the folder of one task: give the folder that it is in, {folder.resolve().parent}."
            if inside
            else f"{folder} has a folder for none of the tasks {', '.join(TASKS)}: give {_WHERE}."
        )
    wanted = found if names is None else list(dict.fromkeys(names))
    for name in wanted:
        if name not in TASKS:
            raise ValueError(f"Unknown task {name!r}; there are: {', '.join(TASKS)}.")
        if name not in found:
            raise ValueError(f"{folder} has no folder for the task {name!r}; there are: {', '.join(found)}.")
    return [name for name in TASKS if name in wanted]


def load_task(
    folder: str | Path,
    name: str,
    splits: Sequence[str] | None = None,
    template: Any = None,
    words: Mapping[str, Any] | None = None,
) -> FewClueTask:
    """Read a task's texts.

    Args:
        folder (`str` or `Path`):
            The folder with one folder a task.
        name (`str`):
            The task.
        splits (`Sequence[str]`, *optional*):
            Training splits to read: `"0"` to `"4"`, or `"few_all"`, everything at once. Default: the numbered ones
            that are there; without any, `few_all`. Split k is `train_k.json`. Where the folder lacks that and
            `train_few_all.json` is five times as long as `train_0.json` and begins with it, it is the k-th fifth,
            as FewCLUE's are.
        template, words (*optional*):
            Another prompt, and label → words.

    Raises:
        `ValueError`: a file or split is missing, or a row is not what the task's rows are; the message names the line.
    """
    definition = TASKS[name]
    place = Path(folder) / name
    if words is None:
        words = definition.words or _short_names(place)
    labels = list(words)

    tests = [file for file in TEST_FILES if (place / file).is_file()]
    if not tests:
        raise ValueError(f"{place} has nothing to test on: add {', or else '.join(TEST_FILES)}.")
    files = _split_files(place)
    if splits is None:
        splits = [split for split in files if split != _WHOLE] or list(files)
    for split in splits:
        if split not in files:
            there = f"there are: {', '.join(files)}" if files else "it has none at all"
            raise ValueError(f"{place} has no training split {split!r}; {there}. Split k is the file train_k.json.")
    read = {file: _rows(place / file, definition, labels) for file in {tests[0], *(files[s][0] for s in splits)}}
    return FewClueTask(
        name=name,
        template=definition.template if template is None else template,
        words=words,
        test_name=tests[0],
        test=read[tests[0]],
        splits={split: read[files[split][0]][files[split][1]] for split in splits},
    )


def read_prompts(path: str | Path) -> dict[str, dict[str, Any]]:
    """Prompts that replace the tasks' own, from a JSON file.

    `{"eprstmt": {"template": "{text}这是{label}评。", "verbalizer": {"Negative": "差", "Positive": "好"}}}`, of which
    `template` or `verbalizer` may be left out. A template has the columns of `TaskDefinition`.

    Args:
        path: the file.

    Returns:
        Task → `template` and `words`, those that are given, for `load_task`.

    Raises:
        `ValueError`: no such file, no JSON, an unknown task, key or column, or a prompt that cannot be used.
    """
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError(f"There is no file of prompts {str(path)!r}.") from None
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f'{path} must map tasks to prompts, {{"eprstmt": {{"template": …}}}}, got {given!r}.')
    return {name: _prompt(name, prompt, f"{path}, {name}") for name, prompt in given.items()}


def _prompt(name: str, given: Any, origin: str) -> dict[str, Any]:
    if name not in TASKS:
        raise ValueError(f"{origin}: unknown task; there are: {', '.join(TASKS)}.")
    if not isinstance(given, dict) or not given or not set(given) <= {"template", "verbalizer"}:
        raise ValueError(f"{origin}: expected a template, a verbalizer or both, got {given!r}.")
    columns = TASKS[name].columns
    prompt = PromptConfig.from_dict({"template": TASKS[name].template, **given}, origin=origin)
    unknown = [column for column in prompt.columns if column not in columns]
    if unknown:
        raise ValueError(
            f"{origin}: the template has the slot {unknown[0]!r}, the task the columns {', '.join(columns)}."
        )
    found = {"template": prompt.template, "words": prompt.verbalizer}
    return {key: value for key, value in found.items() if key == "template" or value is not None}


def _split_files(place: Path) -> dict[str, tuple[str, slice]]:
    """Name of each split → its file, and which rows of it."""
    whole = f"train_{_WHOLE}.json"
    files = {str(k): (f"train_{k}.json", slice(None)) for k in range(SPLITS) if (place / f"train_{k}.json").is_file()}
    if (place / whole).is_file():
        if "0" in files and len(files) < SPLITS:
            first, rest = (_lines(place / file) for file in ("train_0.json", whole))
            size = len(first)
            if size * SPLITS == len(rest) and _bare(rest[:size]) == _bare(first):
                fifths = {str(k): (whole, slice(k * size, (k + 1) * size)) for k in range(SPLITS)}
                files = {split: files.get(split, fifths[split]) for split in fifths}
        files[_WHOLE] = (whole, slice(None))
    return files


def _bare(rows: Iterable[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows without their numbers, which differ between the files."""
    return [{key: value for key, value in row.items() if key not in ("id", "idx")} for _, row in rows]


def _short_names(place: Path) -> dict[str, tuple[str, ...]]:
    path = place / "label_names.json"
    way_out = (
        'add the file, {"label_des2tag": {"材料科学与工程": "材料", …}}, or give the words of each label'
        ' in a file of prompts: {"' + place.name + '": {"verbalizer": {"材料科学与工程": "材料", …}}}'
    )
    try:
        names = json.loads(path.read_text(encoding="utf-8-sig"))["label_des2tag"]
        return {str(label): (str(word),) for label, word in names.items()}
    except FileNotFoundError:
        raise ValueError(f"{path} is missing, which has the names of the labels: {way_out}.") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has no names of the labels ({error!r}): {way_out}.") from error


def _lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a file, one a line, with the numbers of their lines from 1."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}): convert it, or fetch it anew.") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: no JSON ({error}); the file has one object a line.") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: {line[:40]!r} is no object; the file has one a line.")
        rows.append((number, row))
    if not rows:
        raise ValueError(f"{path} is empty: fetch it anew.")
    return rows


def _rows(path: Path, definition: TaskDefinition, labels: Sequence[str]) -> list[dict[str, str]]:
    rows = []
    for number, row in _lines(path):
        where = f"{path}, line {number}"
        values = {column: _text(row, source, where) for column, source in definition.columns.items()}
        label = _text(row, definition.label, where)
        if label not in labels:
            raise ValueError(
                f"{where}: the label {label!r} has no words; the task {definition.name} has the labels"
                f" {', '.join(labels)}."
            )
        rows.append({**values, "label": label})
    return rows


def _text(row: Mapping[str, Any], source: str, where: str) -> str:
    value: Any = row
    for key in source.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise ValueError(f"{where}: there is no {source!r}; the row has {', '.join(row)}.")
        value = value[key]
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return _LIST_MARK.join(value)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"{where}: {source!r} is {value!r}, expected a text.")
    return str(value)
