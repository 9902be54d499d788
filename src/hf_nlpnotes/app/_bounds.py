"""What a request may hold: an app answers whoever reaches its port, so that every text has a longest length."""

from __future__ import annotations

MOST_CHARACTERS = {
    "text": 2_000,
    "text to tag": 5_000,
    "text to read": 20_000,
    "text to look at": 400,
    "question": 500,
    "template": 300,
    "labels": 1_000,
    "label words": 5_000,
    "word list": 20_000,
    "model": 300,
}
"""Longest value of each field, in characters."""


def bounded(field: str, value: str | None, *, needed: bool = True) -> str:
    """Return a field's text without the spaces around it.

    Raises:
        ValueError: It is empty though it is needed, or longer than `MOST_CHARACTERS` allows.
    """
    text = (value or "").strip()
    if needed and not text:
        raise ValueError(f"The {field} is empty: write something into its field.")
    most = MOST_CHARACTERS[field]
    if len(text) > most:
        raise ValueError(f"The {field} has {len(text):,} characters, and this page takes up to {most:,}.")
    return text


def counted(name: str, value: float | None, least: int, most: int) -> int:
    """Return a whole number between two others.

    Raises:
        ValueError: It is none.
    """
    if value is None or not least <= value <= most or value != int(value):
        raise ValueError(f"{name} is {value!r}, expected a whole number from {least} to {most}.")
    return int(value)


def chosen(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return one of several choices.

    Raises:
        ValueError: It is none of them.
    """
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}.")
    return value
