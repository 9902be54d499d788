"""What a token classifier has to know about its tags, as one set of arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .schemes import Scheme, allowed_transitions, detect_scheme, get_scheme


def tagger_options(
    labels: Sequence[str], scheme: str | Scheme | None = None, *, constrained: bool = True
) -> dict[str, Any]:
    """Return the arguments of `CrfForTokenClassification.from_encoder` (or `CrfConfig`) that follow from the labels.

    Args:
        labels: every tag, in the order of the ids that they shall have.
        scheme: the scheme that they are written in; None: `detect_scheme` names it.
        constrained: whether the CRF gives sequences that break the scheme the probability 0. Training data must then
            keep the scheme (`repair_tags`).

    Returns:
        `id2label`, `label2id`, `tagging_scheme` and `constraints`.

    Raises:
        ValueError: as of `allowed_transitions` and `detect_scheme`.

    >>> tagger_options(["B", "M", "E", "S"])["tagging_scheme"]
    'BMES'
    """
    name = detect_scheme(labels) if scheme is None else get_scheme(scheme).name
    allowed = allowed_transitions(labels, name)
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
        "tagging_scheme": name,
        "constraints": allowed if constrained else None,
    }


__all__ = ["tagger_options"]
