"""Add the rows of a table of another library: one column has the samples, the others the metas."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Iterator, Sequence
from typing import Any

from sqlbuffer._messages import shown, summary
from sqlbuffer._validation import as_list, as_name, is_text
from sqlbuffer.core import add
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.exchange.arrow import optional
from sqlbuffer.records import AddResult

_INDEX = "__index_level_"
"""Beginning of the name that pandas gives to an index without a name."""


def add_table(
    buffer: BufferHandle,
    table: Any,
    sample: Any,
    source: str | Sequence[str],
    *,
    requeue: bool,
) -> AddResult:
    """Add the rows of a table, chunk by chunk.

    Args:
        buffer: The buffer.
        table: An object with `__arrow_c_stream__`, or with `__dataframe__`.
        sample: Name of the column with the samples; the other columns become meta.
        source: Name of the generator, or one for each row.
        requeue: See `SampleStore.add`.

    Raises:
        InvalidArgument: If it is no table, has no such column, or a row has no sample.
    """
    sample = as_name(sample, "the name of the column of the samples")
    sources = source if isinstance(source, str) else as_list(source, "sources")
    result, start = AddResult(), 0
    for columns in _chunks(table, sample):
        samples = columns.pop(sample)
        _require_samples(samples, sample, start)
        end = start + len(samples)
        found = add.add(
            buffer,
            samples,
            sources if isinstance(sources, str) else sources[start:end],
            metas_of(columns, len(samples)),
            requeue=requeue,
            start=start,
        )
        result, start = result + found, end
    if not isinstance(sources, str) and len(sources) != start:
        raise InvalidArgument(
            f"{start} samples came with {len(sources)} sources: give one for each."
        )
    return result


def metas_of(columns: dict[str, list[Any]], n: int) -> list[dict[str, Any] | None]:
    """Return the metas of n rows, None if there are no columns."""
    if not columns:
        return [None] * n
    return [
        {name: jsonable(value) for name, value in zip(columns, values, strict=True)}
        for values in zip(*columns.values(), strict=True)
    ]


def jsonable(value: Any) -> Any:
    """Return a value of a column of Arrow as JSON takes it."""
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    return float(value) if isinstance(value, decimal.Decimal) else value


def _require_samples(samples: Sequence[Any], name: str, start: int) -> None:
    if None in samples:
        row = start + next(i for i, sample in enumerate(samples) if sample is None)
        raise InvalidArgument(
            f"row {row} of the table has no value in column {shown(name)}: drop the rows without a "
            "sample first."
        )


def _chunks(table: Any, sample: str) -> Iterator[dict[str, list[Any]]]:
    """Return the columns of some rows at a time."""
    reader = _reader(table)
    names = [name for name in reader.schema.names if not name.startswith(_INDEX)]
    if sample not in names or len(set(names)) < len(names):
        raise InvalidArgument(
            f"the table must have a column {shown(sample)}, and each column once; it has "
            f"{', '.join(map(shown, names))}."
        )
    for batch in reader:
        for start in range(0, batch.num_rows, add.CHUNK):
            part = batch.slice(start, add.CHUNK)
            yield {name: part.column(name).to_pylist() for name in names}


def _surrogate_in(table: Any) -> str:
    """Return where a DataFrame has text that is not Unicode."""
    for name in getattr(table, "columns", ()):
        for row, value in enumerate(table[name]):
            if isinstance(value, str) and not is_text(value):
                return (
                    f"row {row} of the table has {shown(value)} in column {shown(name)}, a lone "
                    "surrogate that no database takes: mend the text, or drop the row."
                )
    return "the table has text with lone surrogates, which no database takes: mend it first."


def _reader(table: Any) -> Any:
    pyarrow = optional("pyarrow")
    try:
        if hasattr(table, "__arrow_c_stream__"):
            return pyarrow.RecordBatchReader.from_stream(table)
        if hasattr(table, "__dataframe__"):
            optional("pyarrow.interchange")
            return pyarrow.interchange.from_dataframe(table).to_reader()
    except UnicodeEncodeError as exc:
        raise InvalidArgument(_surrogate_in(table)) from exc
    except (pyarrow.ArrowException, TypeError, ValueError, RuntimeError) as exc:
        raise InvalidArgument(
            f"a {type(table).__name__} cannot be read as a table of Arrow ({summary(exc)}): give "
            "each column one type."
        ) from exc
    raise InvalidArgument(
        f"sample= names a column of a table, and {shown(table)} is none: give a table of pandas, "
        "Polars or pyarrow."
    )
