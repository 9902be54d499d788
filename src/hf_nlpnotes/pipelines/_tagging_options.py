"""Options of the `sequence-tagging` pipeline, checked where they are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from hf_nlpnotes.tagging.user_dictionary import UserDictionary

from ._tagging_documents import UNITS, Units
from ._tagging_views import VIEWS, View

Decoding = Literal["auto", "greedy", "constrained", "crf"]
_DECODINGS = ("auto", "greedy", "constrained", "crf")


@dataclass(frozen=True)
class TaggingOptions:
    """See `SequenceTaggingPipeline`; None is what its documentation calls the default.

    Raises:
        ValueError: a value that is not one of those expected.
    """

    view: View | None = None
    scheme: str | None = None
    units: Units | None = None
    decoding: Decoding = "auto"
    top_n: int | None = None
    force_words: UserDictionary | None = None
    combine_words: UserDictionary | None = None
    stride: int | None = None
    max_length: int | None = None
    overlap: Literal["mean", "max_context"] = "mean"
    is_split_into_words: bool = False
    delimiter: str = " "

    def __post_init__(self) -> None:
        _one_of("view", self.view, (None, *VIEWS))
        _one_of("units", self.units, (None, *UNITS))
        _one_of("decoding", self.decoding, _DECODINGS)
        _one_of("overlap", self.overlap, ("mean", "max_context"))
        check_count("top_n", self.top_n, 1)
        check_count("stride", self.stride, 0)
        check_count("max_length", self.max_length, 1)
        if not isinstance(self.is_split_into_words, bool):
            raise ValueError(f"is_split_into_words is True or False, got {self.is_split_into_words!r}")
        if not isinstance(self.delimiter, str):
            raise ValueError(f"delimiter is what stands between words, a string, got {self.delimiter!r}")
        for name in ("force_words", "combine_words"):
            words = getattr(self, name)
            if words is not None and not isinstance(words, UserDictionary):
                object.__setattr__(self, name, UserDictionary(words))

    def updated(self, given: dict[str, Any]) -> TaggingOptions:
        """These options with others in their place.

        Raises:
            TypeError: an option that there is not.
        """
        known = [field.name for field in fields(self)]
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise TypeError(f"sequence-tagging has no option {unknown[0]!r}: expected one of {', '.join(known)}")
        return replace(self, **given)


def check_count(name: str, value: Any, least: int) -> None:
    """Refuse what is neither None nor a whole number of at least `least`."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def _one_of(name: str, value: Any, known: Sequence[str | None]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(filter(None, known))}, got {value!r}")


__all__ = ["TaggingOptions", "check_count"]
