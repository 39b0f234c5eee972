"""The values of metrics, and the lines in which a log prints them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sqlbuffer._messages import printable, shown
from sqlbuffer._validation import as_float, as_name, plain
from sqlbuffer.errors import InvalidArgument

Value = float | int | str


def as_metric(name: str, value: Any) -> Value:
    """Return a value of a metric as a string or number; of an array, its one element."""
    number = plain(value)
    if isinstance(number, str):
        return as_name(number, f"metric {shown(name)}")
    try:
        number = plain(
            number.item() if getattr(number, "ndim", 0) and hasattr(number, "item") else number
        )
        as_float(number)
    except (TypeError, ValueError, OverflowError, RuntimeError) as exc:
        raise InvalidArgument(
            f"metric {shown(name)} must be a number or text, got {shown(value)}."
        ) from exc
    found: Value = number
    return found


def print_values(console: Console, values: Mapping[str, Value], *, has_header: bool) -> None:
    """Print a row of values, below their names if it has a header."""
    names = list(map(printable, values))  # names may come from the database
    cells = list(map(_cell, values.values()))
    if console.is_terminal:
        table = Table(box=None, show_header=has_header, header_style="bold", pad_edge=False)
        for name in names:
            table.add_column(Text(name), justify="right", min_width=_width(name), no_wrap=True)
        table.add_row(*map(Text, cells))
        console.print(table, crop=False)
        return
    for line in [names, cells] if has_header else [cells]:
        aligned = "  ".join(
            cell.rjust(_width(name)) for name, cell in zip(names, line, strict=True)
        )
        console.print(aligned, soft_wrap=True, markup=False, highlight=False)


def _width(name: str) -> int:
    return max(len(name), len("-1.234e+05"))


def _cell(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))
