"""What every pipeline asks of a text, and how its messages show one."""

from __future__ import annotations


def brief(value: object) -> str:
    """A value as a message shows it: a text of a million characters by its beginning."""
    shown = repr(value[:80] if isinstance(value, (str, bytes)) else value)
    whole = len(shown) <= 100 and not (isinstance(value, (str, bytes)) and len(value) > 80)
    return shown if whole else f"{shown[:100]}…"


def check_characters(what: str, text: str) -> None:
    """Refuse halves of surrogate pairs, which are no characters: no tokenizer takes them, and no file in UTF-8.

    Args:
        what: Of whom the message speaks, such as "The context".
        text: The text.

    Raises:
        ValueError: There is one; names its place.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} has half of a surrogate pair, {text[error.start]!r}, as its character {error.start}: "
            "replace it, as text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace') does."
        ) from None


__all__ = ["brief", "check_characters"]
