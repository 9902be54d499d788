"""Schedules as YAML: written for a model, edited by hand, read back.

```yaml
phases:
- name: head
  start: 0                       # a step; or {epoch: 1}, {fraction: 0.25}
  train: [head]                  # groups, patterns of groups, patterns of parameters
- name: top
  start: {plateau: eval_loss, patience: 2, at_most: {epoch: 3}}
  train: [head, layer.11]
  warmup_steps: 50
  learning_rate_scale: 0.5
keep_frozen: [embeddings]
```
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml  # type: ignore[import-untyped]  # PyYAML has no type information
from torch import nn

from hf_nlpnotes.layers.layer_discovery import LayerGroup, layer_groups

from .schedule import Epoch, Fraction, LayerSample, Moment, Phase, Plateau, Start, Step, UnfreezingSchedule

T = TypeVar("T")

_MOMENTS: Mapping[str, Callable[[Any], Moment]] = {"step": Step, "epoch": Epoch, "fraction": Fraction}
_LINE = "__line__"
_MOST_ENTRIES = 100_000
_DAMAGE = (  # what PyYAML raises for tags that do not fit their values, and for thousands of brackets
    *(yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError),
)


def write_schedule(
    schedule: UnfreezingSchedule,
    path: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
) -> None:
    """Write a schedule to a YAML file that `read_schedule` and `Unfreezing` take.

    Args:
        schedule: for instance `GradualUnfreeze().schedule_for(model)`.
        path: the file, written as a whole or not at all.
        model: its groups and their sizes are listed at the top of the file, for whoever edits it.
    """
    content: dict[str, Any] = {"phases": [_phase_entry(phase) for phase in schedule.phases]}
    if schedule.keep_frozen:
        content["keep_frozen"] = list(schedule.keep_frozen)
    text = _dumped(content, allow_unicode=True)
    if yaml.safe_load(text) != content:  # PyYAML does not read back some line ends of Unicode that it writes plainly
        text = _dumped(content, allow_unicode=False)
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text((_header(model) if model is not None else "") + text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_schedule(path: str | os.PathLike[str]) -> UnfreezingSchedule:
    """Read a schedule from a YAML file.

    Args:
        path: the file.

    Raises:
        ValueError: the file is no schedule; the message has the file, the line, the entry and what was expected.
        FileNotFoundError: there is no such file.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        loaded = yaml.load(text, Loader=_LineLoader)  # noqa: S506  (a SafeLoader that keeps line numbers)
        _check_size(loaded)
    except _DAMAGE as error:
        raise ValueError(f"{path} is not YAML of a schedule: {error}") from error
    where = _Where(os.fspath(path), "", 1)
    table = where.mapping(loaded, {"phases", "keep_frozen"})
    if "phases" not in table:
        raise where.error("expected an entry 'phases' with a list of phases")
    entries = where.inside("phases").sequence(table["phases"])
    phases = tuple(_phase(where.inside(f"phases[{i}]"), entry) for i, entry in enumerate(entries))
    frozen = where.inside("keep_frozen").sequence(table.get("keep_frozen") or [])
    return where.made(UnfreezingSchedule, phases=phases, keep_frozen=tuple(map(str, frozen)))


class _Where:
    """A place in a file, for messages."""

    def __init__(self, file: str, entry: str, line: int) -> None:
        self.file, self.entry, self.line = file, entry, line

    def error(self, message: object) -> ValueError:
        return ValueError(f"{self.file}, line {self.line}{', ' if self.entry else ''}{self.entry}: {message}")

    def inside(self, name: str) -> _Where:
        return _Where(self.file, f"{self.entry}.{name}" if self.entry else name, self.line)

    def mapping(self, value: Any, known: set[str]) -> dict[str, Any]:
        """The entries of a table, without the mark of its line, which is taken as the place."""
        if not isinstance(value, dict):
            raise self.error(f"expected a table with {sorted(known)}, got {value!r}")
        table = dict(value)
        self.line = table.pop(_LINE, self.line)
        for key in table:
            if key not in known:
                near = get_close_matches(str(key), known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f": known are {sorted(known)}"
                raise self.error(f"unknown entry {key!r}{hint}")
        return table

    def sequence(self, value: Any) -> Sequence[Any]:
        if not isinstance(value, list):
            raise self.error(f"expected a list, got {_plain(value)!r}")
        return value

    def made(self, kind: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        try:
            return kind(*args, **kwargs)
        except (TypeError, ValueError) as error:
            raise self.error(error) from error


def _phase(where: _Where, value: Any) -> Phase:
    table = where.mapping(value, {entry.name for entry in fields(Phase)})
    for needed in ("name", "train"):
        if needed not in table:
            raise where.error(f"a phase needs {needed!r}")
    where.entry += f" ({table['name']!r})"
    table["train"] = tuple(where.inside("train").sequence(table["train"]))
    if "start" in table:
        table["start"] = _start(where.inside("start"), table["start"])
    if table.get("stop") is not None:
        table["stop"] = _plateau(where.inside("stop"), table["stop"])
    if table.get("sample") is not None:
        place = where.inside("sample")
        sample = place.mapping(table["sample"], {entry.name for entry in fields(LayerSample)})
        sample["groups"] = tuple(place.inside("groups").sequence(sample.get("groups", [])))
        table["sample"] = place.made(LayerSample, **sample)
    return where.made(Phase, **table)


def _start(where: _Where, value: Any) -> Start:
    if isinstance(value, dict) and "plateau" in value:
        return _plateau(where, value)
    return _moment(where, value)


def _moment(where: _Where, value: Any) -> Moment:
    if isinstance(value, int) and not isinstance(value, bool):
        return where.made(Step, value)
    if not isinstance(value, dict):
        raise where.error(f"expected a step such as 100, {{epoch: 1}}, {{fraction: 0.25}} or a plateau, got {value!r}")
    table = where.mapping(value, {*_MOMENTS})
    if len(table) != 1:
        raise where.error(f"expected one of {sorted(_MOMENTS)}, got {table}")
    ((kind, amount),) = table.items()
    return where.made(_MOMENTS[kind], amount)


def _plateau(where: _Where, value: Any) -> Plateau:
    known = {entry.name for entry in fields(Plateau)} - {"metric"} | {"plateau"}
    table = where.mapping(value, known)
    if "plateau" not in table:
        raise where.error("expected {plateau: eval_loss, …}")
    if table.get("at_most") is not None:
        table["at_most"] = _moment(where.inside("at_most"), table["at_most"])
    return where.made(Plateau, metric=table.pop("plateau"), **table)


def _dumped(content: dict[str, Any], *, allow_unicode: bool) -> str:
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=allow_unicode, width=110)
    return text


def _phase_entry(phase: Phase) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": phase.name, "start": _start_entry(phase.start), "train": list(phase.train)}
    if phase.sample is not None:
        sample = phase.sample
        groups = list(sample.groups)
        entry["sample"] = {"groups": groups, "count": sample.count, "every": sample.every, "seed": sample.seed}
    for name in ("learning_rate_scale", "warmup_steps"):
        if getattr(phase, name) != next(entry.default for entry in fields(Phase) if entry.name == name):
            entry[name] = getattr(phase, name)
    if phase.stop is not None:
        entry["stop"] = _start_entry(phase.stop)
    return entry


def _start_entry(start: Start) -> Any:
    if isinstance(start, Step):
        return start.value
    if isinstance(start, Moment):
        return {type(start).__name__.lower(): start.value}
    entry: dict[str, Any] = {"plateau": start.metric}
    for part in fields(Plateau):
        value = getattr(start, part.name)
        if part.name != "metric" and part.default is not MISSING and value != part.default:
            entry[part.name] = _start_entry(value) if isinstance(value, Moment) else value
    return entry


def _header(model: nn.Module) -> str:
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    groups: tuple[LayerGroup, ...] = layer_groups(model)
    width = max(len(group.name) for group in groups)
    lines = [f"# Groups of {type(model).__name__}, the lowest first, with their numbers of parameters:"]
    lines += [f"#   {g.name:<{width}}  {sum(sizes[name] for name in g.parameters):>13,}" for g in groups]
    return "\n".join(lines) + "\n"


def _check_size(loaded: Any) -> None:
    """Raise where aliases of aliases stand for more than memory holds: a few lines of YAML can say so."""
    waiting, seen = [loaded], 0
    while waiting:
        value = waiting.pop()
        inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        seen += len(inner)
        if seen > _MOST_ENTRIES:
            raise ValueError(f"it has more than {_MOST_ENTRIES} entries, with its aliases")
        waiting += inner


def _plain(value: Any) -> Any:
    return {key: item for key, item in value.items() if key != _LINE} if isinstance(value, dict) else value


class _LineLoader(yaml.SafeLoader):
    """A SafeLoader whose tables know the line they begin at."""


class _Dumper(yaml.SafeDumper):
    """Lists of names and small tables on one line each, phases as blocks."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
        flat = all(isinstance(item, str) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style=flat if flow_style is None else flow_style)

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> Any:
        flat = not {"name", "phases"} & set(dict(mapping))
        return super().represent_mapping(tag, mapping, flow_style=flat if flow_style is None else flow_style)


def _construct_mapping(loader: _LineLoader, node: Any) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    twice = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
    if twice is not None:
        raise yaml.constructor.ConstructorError(None, None, f"{twice!r} stands twice", node.start_mark)
    values = [loader.construct_object(value, deep=True) for _, value in node.value]
    return {**dict(zip(keys, values, strict=True)), _LINE: node.start_mark.line + 1}


_LineLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)
