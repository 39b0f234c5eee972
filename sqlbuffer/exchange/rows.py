"""Read the rows of a file, each with its number: CSV, JSON lines, Parquet, or one SMILES a line."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

from sqlbuffer._messages import shown, summary
from sqlbuffer._validation import is_text
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.exchange.arrow import optional, told_of

_AT_ONCE = 1_000
"""Rows of Parquet that are made values of Python at once."""


class Row(NamedTuple):
    """A row of a file."""

    number: int
    """Line on which it begins, from 1; in Parquet the number of the row, from 1."""
    values: Mapping[str, Any]
    problem: str = ""
    """Why it cannot be read."""
    raw: Any = None
    """What stands there if it cannot be read: fields, or a line."""
    has_nan: bool = False
    """Whether it has NaN, which JSON has not, and which becomes null."""


class Rows(NamedTuple):
    """The rows of a file, and the names of its columns; None if each row has its own."""

    columns: Sequence[str] | None
    read: Callable[[Sequence[str]], Iterator[Row]]
    """Returns the rows with the columns of these names, and perhaps more; it is called once."""
    total: int | None = None
    """Number of the rows, if the file tells it."""
    about: Mapping[str, str] = {}
    """What the file tells of the buffer that it was exported from."""


def rows_of(file: IO[bytes], form: str, *, delimiter: str = ",") -> Rows:
    """Return the rows of an open file.

    Args:
        file: The file.
        form: "csv", "jsonl", "parquet" or "smi".
        delimiter: The character between the fields of CSV.

    Raises:
        InvalidArgument: If the file is not of this format.
        MissingExtra: If pyarrow is needed, and not installed.
    """
    return _read_csv(file, delimiter) if form == "csv" else _READERS[form](file)


def _read_csv(file: IO[bytes], delimiter: str) -> Rows:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    lines = csv.reader(text, strict=True, delimiter=delimiter)
    with _fields_of_any_size():
        names = next(lines, [])
    if len(set(names)) < len(names) or not names:
        raise InvalidArgument(
            f"the first line of a CSV file must name each column once; got {shown(names)}."
        )
    return Rows(names, lambda _: _csv_rows(lines, names, text))


def _csv_rows(lines: Any, names: Sequence[str], text: io.TextIOWrapper) -> Iterator[Row]:
    number = lines.line_num + 1
    with _fields_of_any_size():
        while True:
            try:
                fields = next(lines, None)
            except csv.Error as exc:
                yield Row(number, {}, f"it is not CSV: {exc}")
                number = lines.line_num + 1
                continue
            if fields is None:
                break
            if fields:
                yield _csv_row(number, names, fields)
            number = lines.line_num + 1
    text.detach()


def _csv_row(number: int, names: Sequence[str], fields: list[str]) -> Row:
    if len(fields) != len(names):
        problem = f"it has {len(fields)} fields, and the first line {len(names)}"
        return Row(number, {}, problem, fields)
    if not all(map(is_text, fields)):
        return Row(number, {}, "it is not UTF-8", fields)
    # An empty field is a missing value.
    return Row(number, {name: field or None for name, field in zip(names, fields, strict=True)})


@contextlib.contextmanager
def _fields_of_any_size() -> Iterator[None]:
    """Let the module `csv` read fields of more than 131,072 characters."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_jsonl(file: IO[bytes]) -> Rows:
    return Rows(None, lambda _: _jsonl_rows(file))


def _jsonl_rows(file: IO[bytes]) -> Iterator[Row]:
    constants: list[str] = []

    def note(constant: str) -> float:
        constants.append(constant)
        return float(constant)

    decode = json.JSONDecoder(parse_constant=note).decode
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        constants.clear()
        try:
            found = decode(line.decode())
        except (ValueError, RecursionError) as exc:
            raw = line.decode(errors="surrogateescape").rstrip("\r\n")
            yield Row(number, {}, f"it is not JSON: {summary(exc)}", raw)
            continue
        if isinstance(found, dict):
            yield Row(number, found, has_nan="NaN" in constants)
        else:
            yield Row(number, {}, f"it is no JSON object but {shown(found)}", found)


def _read_smi(file: IO[bytes]) -> Rows:
    return Rows(["sample", "name"], lambda _: _smi_rows(file))


def _smi_rows(file: IO[bytes]) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        try:
            words = line.decode().split(maxsplit=1)
        except UnicodeDecodeError:
            yield Row(
                number, {}, "it is not UTF-8", [line.decode(errors="surrogateescape").strip()]
            )
            continue
        if words:
            name = words[1].rstrip() if len(words) > 1 else None
            yield Row(number, {"sample": words[0], "name": name})


def _read_parquet(file: IO[bytes]) -> Rows:
    pyarrow, parquet = optional("pyarrow"), optional("pyarrow.parquet")
    try:
        found = parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError, io.UnsupportedOperation) as exc:
        raise InvalidArgument(f"the file is not Parquet, or a pipe: {summary(exc)}.") from exc
    read = functools.partial(_parquet_rows, found)
    schema = found.schema_arrow
    return Rows(schema.names, read, found.metadata.num_rows, told_of(schema))


def _parquet_rows(file: Any, columns: Sequence[str]) -> Iterator[Row]:
    number = 1
    for batch in file.iter_batches(batch_size=_AT_ONCE, columns=list(columns)):
        for values in batch.to_pylist():
            yield Row(number, values)
            number += 1


_READERS: dict[str, Callable[[IO[bytes]], Rows]] = {
    "jsonl": _read_jsonl,
    "smi": _read_smi,
    "parquet": _read_parquet,
}
