"""What setup.cfg requires, the lists of versions that are tried, and the versions that pages name agree."""

import configparser
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
OURS = "hf-nlpnotes"
CUDA = re.compile(r"nvidia-|cuda-|triton$")  # what torch brings depends on the build that is installed

OPTIONS = configparser.ConfigParser(interpolation=None)
OPTIONS.read(ROOT / "setup.cfg", encoding="utf-8")


def listed(text: str) -> list[Requirement]:
    return [Requirement(line) for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def of_extra(extra: str) -> list[Requirement]:
    """What an extra asks for, and the extras that it names."""
    found = []
    for requirement in listed(OPTIONS["options.extras_require"][extra]):
        if requirement.name == OURS:
            found += [one for name in sorted(requirement.extras) for one in of_extra(name)]
        else:
            found.append(requirement)
    return found


def pins(name: str) -> dict[str, Version]:
    """Package -> the version that a list of constraints has for the newest Python."""
    lines = listed((ROOT / name).read_text(encoding="utf-8"))
    for line in lines:
        assert [one.operator for one in line.specifier] == ["=="], f"{name}: {line}"
    return {
        canonicalize_name(line.name): Version(next(iter(line.specifier)).version)
        for line in lines
        if not line.marker or line.marker.evaluate({"python_version": "3.13", "python_full_version": "3.13.0"})
    }


def lower_bound(requirement: Requirement) -> Version:
    (bound,) = (Version(one.version) for one in requirement.specifier if one.operator == ">=")
    return bound


NEEDED = listed(OPTIONS["options"]["install_requires"])
LOWER = {"python_version": "3.10", "extra": ""}


@pytest.mark.parametrize(
    "requirement",
    [one for one in NEEDED + of_extra("test") if not one.marker or one.marker.evaluate(LOWER)],
    ids=lambda one: one.name,
)
def test_the_lower_bound_is_what_the_suite_is_tried_with(requirement: Requirement) -> None:
    assert pins("constraints-lower.txt")[canonicalize_name(requirement.name)] == lower_bound(requirement)


@pytest.mark.parametrize("requirement", NEEDED + of_extra("dev"), ids=lambda one: one.name)
def test_the_tested_set_lies_in_the_range(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pins("constraints.txt")[canonicalize_name(requirement.name)])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="what Python 3.10 alone needs is not pinned")
def test_the_tested_set_is_whole() -> None:
    """Whatever a requirement itself requires is pinned too, or the set of tomorrow is another one."""
    pinned = pins("constraints.txt")
    waiting = [(canonicalize_name(one.name), frozenset(one.extras)) for one in NEEDED + of_extra("dev")]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        try:
            found = distribution(name)
        except PackageNotFoundError:  # for another system, or of an extra that is not installed
            continue
        if Version(found.version).base_version != str(pinned.get(name)):  # another version requires other things
            continue
        for one in map(Requirement, found.requires or []):
            below = canonicalize_name(one.name), frozenset(one.extras)
            wanted = not one.marker or any(one.marker.evaluate({"extra": extra}) for extra in {"", *extras})
            if wanted and below not in seen and not CUDA.match(below[0]):
                seen.add(below)
                waiting.append(below)
    assert {name for name, _ in seen} - set(pinned) == set()


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md", "CHANGELOG.md", "docs/getting-started.md"])
def test_pages_name_the_lower_bounds(page: str) -> None:
    bounds = {one.name: lower_bound(one) for one in NEEDED}
    (bounds["Python"],) = (Version(one) for one in re.findall(r">=(\S+)", OPTIONS["options"]["python_requires"]))
    text = (ROOT / page).read_text(encoding="utf-8")
    if page == "CHANGELOG.md":
        text = re.findall(r"Needed: .*", text)[0]
    wanted = re.findall(r"\b(Python|transformers|torch|peft) (\d+(?:\.\d+)+)(?: or newer| 以上|,| and newer)", text)
    assert wanted
    for name, version in wanted:
        assert Version(version) == bounds[name], f"{page}: {name} {version}"


def test_classifiers_name_the_pythons_from_the_oldest_on() -> None:
    named = re.findall(r"Python :: (3\.\d+)$", OPTIONS["metadata"]["classifiers"], flags=re.MULTILINE)
    assert [f">={named[0]}"] == [OPTIONS["options"]["python_requires"]]
    assert [int(one.split(".")[1]) for one in named] == list(range(int(named[0].split(".")[1]), 10 + len(named)))
