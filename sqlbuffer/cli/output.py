"""Prints results: tables for people, aligned lines for pipes, JSON and CSV for programs.

Values from a database may be hostile. They are never read as markup, and their control characters
are shown as escapes on a terminal.
"""

from __future__ import annotations

import contextlib
import csv
import decimal
import json
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sqlbuffer._messages import printable
from sqlbuffer.errors import MissingExtra, SqlBufferError
from sqlbuffer.looks.values import as_number
from sqlbuffer.looks.values import cell as cell
from sqlbuffer.looks.values import plain as plain

Row = Sequence[Any]
Named = Mapping[str, Any]

GAP = 2
"""Spaces between the columns of a table."""

WATCH_S = 2.0
"""Seconds from one look to the next."""

LONG_S = 1.0
"""Seconds after which a part of a command is told of in a pipe."""

READABLE = 16
"""Least number of characters of a text that a table on a terminal shows."""


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints text as it is: no markup, no emoji codes, no highlighting."""
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=True)


def line(text: str, *, style: str = "", stderr: bool = False) -> None:
    """Print a text as one line of any length."""
    console(stderr=stderr).print(Text(printable(text), style=style))


def error(exc: BaseException, *, debug: bool) -> None:
    """Print an error as one red line on stderr, after its traceback if `debug` is true."""
    if debug:
        for each in "".join(traceback.format_exception(exc)).splitlines():
            line(each, stderr=True)
    if isinstance(exc, SqlBufferError):
        message = str(exc)
    else:
        cause = getattr(exc, "orig", None) or exc  # of SQLAlchemy, which says more than needed
        first = str(cause).strip().split("\n", 1)[0]
        message = f"{type(cause).__name__}: {first} (`sqlbuffer --debug ...` shows where)"
    line(f"error: {message}", style="bold red", stderr=True)


def show_until_ctrl_c(draw: Callable[[], RenderableType]) -> None:
    """Draw something on a terminal every two seconds; once if stdout is no terminal."""
    out = console()
    if not out.is_terminal:
        out.print(draw())
        return
    with (
        contextlib.suppress(KeyboardInterrupt),
        Live(draw(), console=out, screen=True, auto_refresh=False) as live,
    ):
        while True:
            time.sleep(WATCH_S)
            live.update(draw(), refresh=True)


@contextlib.contextmanager
def status(text: str) -> Iterator[Callable[[str], None]]:
    """Show what is done during the block, if errors are shown on a terminal with a spinner.

    Elsewhere each text is a line, once its part has taken `LONG_S` seconds.

    Yields:
        A function that is called with the text of the next part.
    """
    out = console(stderr=True)
    if out.is_terminal:
        with out.status(Text(printable(text))) as shown:
            yield lambda part: shown.update(Text(printable(part)))
        return
    timers: list[threading.Timer] = []

    def begin(part: str) -> None:
        end()
        timers.append(threading.Timer(LONG_S, line, [f"{part} ..."], {"stderr": True}))
        timers[-1].daemon = True
        timers[-1].start()

    def end() -> None:
        while timers:
            timers.pop().cancel()

    try:
        begin(text)
        yield begin
    finally:
        end()


# -- values ---------------------------------------------------------------------------------------


# -- tables ---------------------------------------------------------------------------------------


def table(columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Print a table: cut to the width of a terminal; as aligned, uncut lines in a pipe."""
    out = console()
    given = [list(row) for row in rows]
    is_number = [all(_is_number(row[i]) for row in given) for i in range(len(columns))]
    lines = [
        [printable(column) for column in columns],
        *([cell(value) for value in row] for row in given),
    ]
    if not out.is_terminal:
        _write_aligned(out.file, lines, is_number)
        return
    lines = [[text[: out.width + 1] for text in line] for line in lines]
    longest = _longest_text(lines, is_number, out.width)
    shown = (
        _as_records(lines, out.width) if longest is None else _as_table(lines, is_number, longest)
    )
    out.print(shown, soft_wrap=False)


def _is_number(value: Any) -> bool:
    return value is None or (
        isinstance(value, (int, float, decimal.Decimal)) and not isinstance(value, bool)
    )


def _write_aligned(file: IO[str], lines: list[list[str]], is_number: list[bool]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = zip(line, widths, is_number, strict=True)
        file.write(
            "  ".join(
                text.rjust(n) if right else text.ljust(n) for text, n, right in padded
            ).rstrip()
            + "\n"
        )


def _longest_text(lines: list[list[str]], is_number: list[bool], width: int) -> int | None:
    """Return the length to cut texts to for a table of this width; None if it is below 16."""
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    room = width - GAP * (len(widths) - 1)
    for longest in range(max(READABLE, *widths), READABLE - 1, -1):
        if (
            sum(n if right else min(n, longest) for n, right in zip(widths, is_number, strict=True))
            <= room
        ):
            return longest
    return None


def _as_table(lines: list[list[str]], is_number: list[bool], longest: int) -> Table:
    shown = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for head, right in zip(lines[0], is_number, strict=True):
        max_width = None if right else longest
        shown.add_column(
            Text(head), justify="right" if right else "left", no_wrap=True, max_width=max_width
        )
    for line in lines[1:]:
        shown.add_row(*map(Text, line))
    return shown


def _as_records(lines: list[list[str]], width: int) -> Table:
    """Return a table with one line for each value, for rows that are too wide for a terminal."""
    shown = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=False)
    shown.add_column(style="bold", no_wrap=True)
    shown.add_column(no_wrap=True, max_width=width - GAP - max(map(cell_len, lines[0])))
    for i, line in enumerate(lines[1:]):
        if i:
            shown.add_row()
        for head, text in zip(lines[0], line, strict=True):
            shown.add_row(Text(head), Text(text))
    return shown


# -- for programs ---------------------------------------------------------------------------------


def write_json(value: Any, file: IO[str]) -> None:
    """Write one JSON value. NaN and infinities, which JSON lacks, become PostgreSQL's words."""
    file.write(json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def write_json_rows(rows: Iterable[Named], file: IO[str]) -> None:
    """Write rows as a JSON array of objects, one a line, each as soon as it is read."""
    file.write("[")
    for i, row in enumerate(rows):
        file.write((",\n" if i else "\n") + json.dumps(plain(row), allow_nan=False))
    file.write("\n]\n")


def write_csv(columns: Sequence[str], rows: Iterable[Named], file: IO[str]) -> None:
    """Write rows as CSV, each as soon as it is read.

    None is an empty field; a list or an object is JSON.
    """
    clean = printable if file.isatty() else str
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(clean, columns))
    for row in rows:
        writer.writerow([clean(_field(plain(row[column]))) for column in columns])


def _field(value: Any) -> str:
    if value is None or isinstance(value, str):
        return "" if value is None else value
    return json.dumps(value, ensure_ascii=False)


def write_parquet(columns: Sequence[str], rows: Iterable[Named], file: IO[bytes]) -> int:
    """Write rows as Parquet; return their number.

    A list or an object is JSON. Values of several types in one column become text.

    Raises:
        MissingExtra: If pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as exc:
        raise MissingExtra('Parquet needs pyarrow: pip install "sqlbuffer[export]".') from exc
    given = list(rows)

    def column(name: str) -> Any:
        values = [_stored(row[name]) for row in given]
        try:
            found = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            found = pa.array([None if value is None else cell(value) for value in values])
        return found.cast(pa.string()) if pa.types.is_null(found.type) else found

    pq.write_table(pa.table({name: column(name) for name in columns}), file)
    return len(given)


def _stored(value: Any) -> Any:
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, (Mapping, list, tuple)):
        return json.dumps(plain(value), ensure_ascii=False)
    return as_number(value) if isinstance(value, decimal.Decimal) else value
