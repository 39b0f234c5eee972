"""Write the table of a buffer into a file: CSV, JSON lines, Parquet, or one SMILES a line."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import io
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, NamedTuple

from sqlbuffer._messages import shown
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.where import Checked
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.exchange.arrow import as_text, batches_of, optional
from sqlbuffer.exchange.columns import COLUMNS, JSON, column_of
from sqlbuffer.exchange.reading import Chunk, Reading

_COLUMNS_OF = {"parquet": [*COLUMNS, "payload", "codec"], "smi": ["sample"]}
"""Columns of a file if no others are asked for, where they are not those of a table."""

_PLAIN = ("string", "int64", "float64")
"""Types whose values the module `csv` writes exactly."""


class Exported(NamedTuple):
    """How many samples were written, and how many of them are no text, or the empty one."""

    rows: int = 0
    other: int = 0
    empty: int = 0


def export(
    buffer: BufferHandle,
    file: IO[bytes],
    form: str,
    *,
    columns: Sequence[str] | None = None,
    where: Checked = None,
    delimiter: str = ",",
    advance: Callable[[int], object] = lambda n: None,
) -> Exported:
    """Write the samples of a buffer into a file.

    Parquet and JSON lines hold a sample of any type; other formats hold a text for people instead,
    and so do JSON lines if columns are chosen.

    Args:
        buffer: The buffer.
        file: A file that is open for writing.
        form: "csv", "jsonl", "parquet" or "smi".
        columns: Names of columns; None for those of a table, in Parquet with payload and codec, in
            smi only the samples.
        where: Only samples that meet this condition.
        delimiter: The character between the fields of CSV.
        advance: Called with the number of samples that have just been written.

    Raises:
        InvalidArgument: If the format cannot hold a sample, or the condition is wrong.
        MissingExtra: If pyarrow is needed, and not installed.
    """
    names = list(columns or _COLUMNS_OF.get(form, list(COLUMNS)))
    if form == "smi":
        names = ["sample", *(name for name in names if name != "sample")]
    is_whole = form == "jsonl" and columns is None
    more = ("sample_id", "codec", "payload") if is_whole else ("sample_id", "codec")
    done = Exported()

    def chunks() -> Iterator[Chunk]:
        nonlocal done
        for chunk in Reading(buffer, list(dict.fromkeys([*names, *more])), where).chunks():
            yield chunk
            n, other = len(chunk["sample_id"]), sum(codec != "text" for codec in chunk["codec"])
            empty = chunk.get("sample", []).count("")
            done = Exported(done.rows + n, done.other + other, done.empty + empty)
            advance(n)

    found = _begun(chunks())
    if form == "parquet":
        _write_parquet(file, names, found, Reading(buffer, names, where))
    elif form == "csv":
        _write_csv(file, names, found, delimiter)
    elif form == "jsonl":
        _write_jsonl(file, names, found, is_whole=is_whole)
    else:
        _write_smi(file, names, found)
    return done


def _begun(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Return the chunks, of which the first is read: a wrong condition is told before any output.

    The first one is held no longer than the others.
    """
    held = list(itertools.islice(chunks, 1))

    def all_of_them() -> Iterator[Chunk]:
        while held:
            yield held.pop()
        yield from chunks

    return all_of_them()


def _write_parquet(
    file: IO[bytes], names: Sequence[str], chunks: Iterator[Chunk], reading: Reading
) -> None:
    pyarrow, parquet = optional("pyarrow"), optional("pyarrow.parquet")
    schema, batches = batches_of(
        names, chunks, decode=False, metas=reading.metas, about=reading.about()
    )
    with parquet.ParquetWriter(file, schema) as writer:
        for batch in batches:
            writer.write_table(pyarrow.Table.from_batches([batch]))


@contextlib.contextmanager
def _as_text(file: IO[bytes]) -> Iterator[io.TextIOWrapper]:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    try:
        yield text
    finally:
        text.detach()


class _Lines:
    """A file for a writer of CSV, whose lines end with a line feed.

    The writer itself ends them with both characters, so that it quotes fields that have either.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, line: str) -> None:
        self._file.write(line.removesuffix("\r\n") + "\n")


def _write_csv(
    file: IO[bytes], names: Sequence[str], chunks: Iterator[Chunk], delimiter: str = ","
) -> None:
    is_plain = [column_of(name).type in _PLAIN and name not in JSON for name in names]
    with _as_text(file) as text:
        writer = csv.writer(_Lines(text), lineterminator="\r\n", delimiter=delimiter)
        writer.writerow(names)
        for chunk in chunks:
            columns = [
                chunk[name] if plain else list(map(_field, chunk[name]))
                for name, plain in zip(names, is_plain, strict=True)
            ]
            writer.writerows(zip(*columns, strict=True))


def _field(value: Any) -> str | None:
    """Return a value as a field of CSV, None for an empty one."""
    if value is None:
        return None
    if isinstance(value, (dt.datetime, bytes, memoryview)):
        return json_value(value)
    return as_text(value)


def _write_jsonl(
    file: IO[bytes], names: Sequence[str], chunks: Iterator[Chunk], *, is_whole: bool = False
) -> None:
    encode = json.JSONEncoder(ensure_ascii=False, default=json_value).encode
    with _as_text(file) as text:
        for chunk in chunks:
            columns = zip(*(chunk[name] for name in names), strict=True)
            encoded = zip(chunk["codec"], chunk["payload"], strict=True) if is_whole else None
            for values in columns:
                row = dict(zip(names, values, strict=True))
                codec, payload = next(encoded) if encoded is not None else ("text", None)
                if codec != "text":
                    row |= {"codec": codec, "payload": payload}
                text.write(encode(row) + "\n")


def json_value(value: Any) -> str:
    """Return a time in ISO 8601, bytes in hexadecimal digits."""
    return value.isoformat() if isinstance(value, dt.datetime) else bytes(value).hex()


def _write_smi(file: IO[bytes], names: Sequence[str], chunks: Iterator[Chunk]) -> None:
    with _as_text(file) as text:
        for chunk in chunks:
            _require_words(chunk)
            columns = [map(_word, chunk[name]) for name in names[1:]]
            for words in zip(chunk["sample"], *columns, strict=True):
                text.write("\t".join(words) + "\n")


def _require_words(chunk: Chunk) -> None:
    for number, sample, codec in zip(
        chunk["sample_id"], chunk["sample"], chunk["codec"], strict=True
    ):
        if codec != "text" or sample.split() != [sample]:
            raise InvalidArgument(
                f"sample {number} is {shown(sample)}, and a line of a .smi file begins with one "
                "word: export as csv, jsonl or parquet."
            )


def _word(value: Any) -> str:
    """Return a value without the characters that end a field."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return " ".join(str(value if is_number else _field(value) or "").split())
