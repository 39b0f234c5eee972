"""Rows of a buffer on their way into another database: in chunks, renumbered, and digested."""

from __future__ import annotations

import bisect
import hashlib
import json
from array import array
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from sqlbuffer._integrity import tampered
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.db.backends import Json
from sqlbuffer.db.schema import batches, checkpoints, predictors, samples

ROWS_AT_ONCE = 10_000
BYTES_AT_ONCE = 32_000_000
"""Most rows that one transaction writes; bytes of text and blobs from which on there are fewer."""

_FETCHED_AT_ONCE = 100
"""Rows that are asked for at a time: each may have a payload of megabytes."""


class Digest(NamedTuple):
    """A number of rows, and a number that hardly any other rows have, in whatever order."""

    n_rows: int = 0
    total: int = 0

    def __add__(self, other: Any) -> Digest:
        return Digest(self.n_rows + other.n_rows, (self.total + other.total) % 2**128)


class Renumbering:
    """The numbers of rows in the original, and in the copy.

    Args:
        what: Name of the table.
        old: Numbers in the original, ascending.
        new: Numbers of the same rows in the copy.
    """

    def __init__(self, what: str, old: array[int], new: array[int]) -> None:
        self._what, self._old, self._new = what, old, new

    def __call__(self, old: int | None) -> int | None:
        """Return the number of a row in the copy.

        Raises:
            InvalidPayload: If the original has no such row.
        """
        if old is None:
            return None
        place = bisect.bisect_left(self._old, old)
        if place == len(self._old) or self._old[place] != old:
            raise tampered(f"number {old} of {self._what} is referred to, and has no row")
        return self._new[place]

    def bound(self, old: int | None) -> int | None:
        """Return a bound of numbers in the copy, below which are the rows that were below `old`."""
        place = 0 if old is None else bisect.bisect_left(self._old, old)
        return self._new[place - 1] + 1 if place else None


class Chunk(NamedTuple):
    """Rows of a table."""

    rows: Sequence[Mapping[str, Any]]
    """As `queries.transfer.insert_row` takes them."""
    ids: Sequence[int]
    """Their numbers, if the table has them."""
    digest: Digest


def chunks(
    tx: Transaction, table: sa.Table, numbers: Mapping[sa.Table, Renumbering]
) -> Generator[Chunk, None, None]:
    """Yield the rows of a buffer in a table, with the new numbers of samples and batches."""
    columns = queries.transfer.rows_of(table).selected_columns
    names, has_id = [column.name for column in columns], "id" in table.c
    changed = {
        names.index(name): numbers[other]
        for name, other in (("sample_id", samples), ("batch_id", batches))
        if name in names
    }
    jsons = [i for i, column in enumerate(columns) if isinstance(column.type, Json)]
    long = [i for i, column in enumerate(columns) if isinstance(column.type, _LONG)]
    digested = _digester(table)
    rows: list[dict[str, Any]] = []
    ids: list[int] = []
    total = size = 0
    with _stream(tx, table) as found:
        for row in found:
            values = list(row)
            for i, renumber in changed.items():
                values[i] = renumber(values[i])
            total += digested(values)
            size += sum(len(values[i]) for i in long if values[i] is not None)
            for i in jsons:  # None would be stored as the null of JSON
                values[i] = sa.null() if values[i] is None else values[i]
            rows.append(dict(zip(names, values, strict=True)))
            if has_id:
                ids.append(rows[-1].pop("id"))
            if len(rows) >= ROWS_AT_ONCE or size >= BYTES_AT_ONCE:
                yield Chunk(rows, ids, Digest(len(rows), total))
                rows, ids, total, size = [], [], 0, 0
    if rows:
        yield Chunk(rows, ids, Digest(len(rows), total))


_LONG = (sa.Text, sa.LargeBinary)


class Read(NamedTuple):
    """All rows of a table that were read."""

    digest: Digest
    ids: array[int]
    """Their numbers, ascending, if the table has them."""


def read(tx: Transaction, table: sa.Table) -> Read:
    """Read the rows of a buffer in a table."""
    digested, n_rows, total = _digester(table), 0, 0
    ids, has_id = array("q"), "id" in table.c
    with _stream(tx, table) as found:
        for row in found:
            total += digested(row)
            n_rows += 1
            if has_id:
                ids.append(row.id)
    return Read(Digest() + Digest(n_rows, total), ids)


def _stream(tx: Transaction, table: sa.Table) -> sa.CursorResult[Any]:
    at_once = 1 if table in (predictors, checkpoints) else _FETCHED_AT_ONCE
    return tx.connection.execute(
        queries.transfer.rows_of(table),
        {"buffer": tx.buffer.buffer_id},
        execution_options={"yield_per": at_once},
    )


def _digester(table: sa.Table) -> Callable[[Sequence[Any]], int]:
    """Return a function that digests a row but for its number.

    Databases differ in how they store zeros of floats and numbers of JSON: they count as equal.
    """
    columns = queries.transfer.rows_of(table).selected_columns
    kept = [i for i, column in enumerate(columns) if column.name != "id"]
    floats = [i for i, column in enumerate(columns) if isinstance(column.type, sa.Double)]
    jsons = [i for i, column in enumerate(columns) if isinstance(column.type, Json)]

    def digested(row: Sequence[Any]) -> int:
        values = list(row)
        for i in floats:
            if values[i] is not None:
                values[i] += 0.0
        for i in jsons:
            if values[i] is not None:
                values[i] = _as_text(_even(values[i]))
        text = repr([values[i] for i in kept]).encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big")

    return digested


_as_text = json.JSONEncoder(sort_keys=True).encode


def _even(value: Any) -> Any:
    """Return JSON with each number as a float."""
    if isinstance(value, dict):
        return {name: _even(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_even(each) for each in value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    try:
        return float(value) + 0.0
    except OverflowError:
        return value
