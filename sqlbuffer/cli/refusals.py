"""The rows that an import has refused: shown, and written into a file that can be mended."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from sqlbuffer._messages import shown
from sqlbuffer.cli import output
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.exchange.export import json_value
from sqlbuffer.exchange.formats import created, delimiter_of, format_of
from sqlbuffer.exchange.mapping import Refused
from sqlbuffer.exchange.rows import Row

SHOWN = 20
"""Refused rows that are shown."""

Refuse = Callable[[Refused, Row], None]


@contextlib.contextmanager
def refusals(
    path: str | None, columns: Sequence[str] | None, *, is_csv: bool, of: str
) -> Iterator[Refuse]:
    """Yield a function that shows the first refused rows, and writes all into a file.

    Args:
        path: The file, which an import reads again; None for none.
        columns: Names of the columns of the imported file, None if each row has its own.
        is_csv: Whether the file is CSV; else it has JSON lines.
        of: Path of the imported file.

    Raises:
        InvalidArgument: If the name of the file is that of another format, or it is the imported
            file.
    """
    n = 0
    with contextlib.ExitStack() as stack:
        write: Refuse | None = None
        if path is not None:
            _require_format(path, is_csv=is_csv)
            _require_other(path, of)
            file = stack.enter_context(created(path))
            write = _csv_writer(file, path, columns or ()) if is_csv else _json_writer(file)

        def refuse(why: Refused, row: Row) -> None:
            nonlocal n
            n += 1
            if write is not None:
                write(why, row)
            if n <= SHOWN:
                output.line(f"line {why.number}: {why.reason}", stderr=True)

        yield refuse


def _require_format(path: str, *, is_csv: bool) -> None:
    form = "csv" if is_csv else "jsonl"
    if format_of(path, None) != form:
        raise InvalidArgument(
            f"the refused rows of this file are {form}, and {shown(path)} is not: give --refused a "
            f"name that ends with .{form}."
        )


def _require_other(path: str, imported: str) -> None:
    with contextlib.suppress(OSError):  # one of them does not exist: they are two
        if os.path.samefile(path, imported):
            raise InvalidArgument(
                f"--refused {shown(path)} is the file that is imported, whose rows would be lost: "
                "give --refused another name."
            )


def _csv_writer(file: IO[str], path: str, columns: Sequence[str]) -> Refuse:
    """Rows that cannot be read have the fields that stand there, in one column too many or few."""
    writer = csv.writer(file, lineterminator="\n", delimiter=delimiter_of(path, "csv", None))
    writer.writerow(["line", "reason", *columns])

    def write(why: Refused, row: Row) -> None:
        fields = [row.values.get(name) for name in columns] if row.values else row.raw or ()
        writer.writerow([*why, *fields])

    return write


def _json_writer(file: IO[str]) -> Refuse:
    """Rows that cannot be read have what stands there as "text"."""
    encode = json.JSONEncoder(ensure_ascii=False, default=json_value).encode

    def write(why: Refused, row: Row) -> None:
        values: dict[str, Any] = {**row.values} if row.values else {"text": row.raw}
        file.write(encode({"line": why.number, "reason": why.reason, **values}) + "\n")

    return write
