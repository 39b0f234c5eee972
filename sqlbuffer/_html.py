"""Tables of values as HTML, for notebooks: any text is shown as text, colours are the page's."""

from __future__ import annotations

import dataclasses
import datetime as dt
import html
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlbuffer._messages import printable, shown

LONGEST = 120
"""The most characters of a cell."""


def cell(value: Any) -> str:
    """Return a value as text: one line, without control characters, not yet escaped for HTML."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float, str, dt.datetime, Mapping)):
        text = shown(value)
    elif isinstance(value, int):
        text = f"{value:,}"
    elif isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, dt.datetime):
        text = value.isoformat(sep=" ", timespec="seconds")
    else:
        text = printable(value if isinstance(value, str) else json.dumps(value, default=shown))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, caption: str = "") -> str:
    """Return rows as a table: numbers to the right, text to the left.

    Args:
        columns: n names; without names the table has no head, and its first column has names.
        rows: Rows of n values.
        caption: A line above the table.
    """
    given = [list(row) for row in rows]
    is_right = [all(_is_number(row[place]) for row in given) for place in range(len(columns))]
    head = "".join(_element("th", *each) for each in zip(columns, is_right, strict=True))
    lines = ["".join(_cells(row, is_right)) for row in given]
    parts = [
        # The caption is a line of its own: notebooks style captions differently.
        f"<div>{html.escape(printable(caption))}</div>" if caption else "",
        "<table>",
        f"<thead><tr>{head}</tr></thead>" if columns else "",
        "<tbody>",
        *(f"<tr>{line}</tr>" for line in lines),
        "</tbody></table>",
    ]
    return "\n".join(part for part in parts if part)


def record(values: Mapping[str, Any], *, caption: str = "") -> str:
    """Return a mapping as a table with one row for each of its names."""
    return table([], values.items(), caption=caption)


def fields(owner: Any) -> str:
    """Return a dataclass as a table with one row for each of its fields."""
    return record({field.name: getattr(owner, field.name) for field in dataclasses.fields(owner)})


def or_none(make: Callable[..., str], *args: Any) -> str | None:
    """Return the HTML of an object; None, for which a notebook shows the repr, if that fails."""
    try:
        return make(*args)
    except Exception:  # a repr of an object that is half made, or of user code
        return None


def _cells(row: Sequence[Any], is_right: Sequence[bool]) -> Iterable[str]:
    if not is_right:  # a name and its value
        return [_element("th", row[0]), *(_element("td", value) for value in row[1:])]
    return [_element("td", *each) for each in zip(row, is_right, strict=True)]


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _element(tag: str, value: Any, right: bool = False) -> str:
    align = "right" if right else "left"
    return f'<{tag} style="text-align: {align}">{html.escape(cell(value))}</{tag}>'
