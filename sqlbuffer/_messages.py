"""Values, names and errors as text for messages: one short line without control characters."""

from __future__ import annotations

import itertools
import reprlib
from collections.abc import Iterable


def printable(text: str) -> str:
    """Return the text with control characters, line breaks and bidi marks written as escapes."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def shortened(text: str) -> str:
    """Return a message of 2,000 characters at most: its beginning, and its end with the way out.

    A message may quote any text of a user, such as a name of a megabyte.
    """
    return text if len(text) <= 2000 else f"{text[:1495]} ... {text[-500:]}"


def shown(value: object) -> str:
    """Return the repr of a value for a message: one line, 80 characters at most."""
    try:
        text = f"{value!r:.200}"
    except Exception as exc:  # a user's __repr__, or an integer of more digits than Python writes
        text = f"<{type(value).__name__}, whose repr fails: {type(exc).__name__}>"
    line = printable(" ".join(text.split()))
    return line if len(line) <= 80 else f"{line[:77]}..."


def listed(names: Iterable[str]) -> str:
    """Return the first ten names, separated by commas and cut to 80 characters; "none" if empty."""
    first = list(itertools.islice(names, 11))
    cut = [name if len(name) <= 80 else f"{name[:77]}..." for name in first[:10]]
    return ", ".join(cut + ["..."] * (len(first) > 10)) or "none"


def n_of(n: int, one: str, many: str | None = None) -> str:
    """Return a number with the words of one thing or of many, by default `one` with an s."""
    words = one if n == 1 else f"{one}s" if many is None else many
    return f"{n:,} {words}"


def summary(error: BaseException) -> str:
    """Return an error for a log line or a table: its class and the first line of its message.

    The result has 1,000 characters at most, and no NUL, lone surrogate or control character:
    messages of user code and of drivers may quote stored values.
    """
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # a __str__ of user code
        lines = ["the message cannot be read"]
    line = printable(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)
    return line if len(line) <= 1000 else f"{line[:997]}..."


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def shown_sample(sample: object) -> str:
    """Return the repr of a sample for a message; nested containers are abbreviated."""
    return printable(_SHORT.repr(sample))
