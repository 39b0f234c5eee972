"""The table of a buffer, which pandas, Polars, DuckDB and pyarrow read as one of theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlbuffer._messages import printable
from sqlbuffer._validation import require_count, require_flag
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.where import as_where
from sqlbuffer.exchange.arrow import batches_of, optional
from sqlbuffer.exchange.columns import WITH_OLD_NAMES, as_columns, column_of
from sqlbuffer.exchange.reading import CHUNK, Chunk, Reading


class Table:
    """The samples of a buffer as a stream of Arrow record batches, read when it is asked for.

    `pyarrow.table(it)`, `polars.DataFrame(it)`, `pandas.DataFrame.from_arrow(it)` and `SELECT` in
    DuckDB read it, each time from the database. So does a `for` loop, batch by batch.

    Examples:
        >>> store.table(["sample", "reward"])
        <Table of buffer 'molecules': sample, reward>
        >>> [batch.num_rows for batch in store.table(chunk=10)]
        [10, 3]
    """

    def __init__(self, reading: Reading) -> None:
        optional("pyarrow")
        self._reading = reading

    def __repr__(self) -> str:
        name = printable(self._reading.buffer.name)
        return f"<Table of buffer {name!r}: {', '.join(self.columns)}>"

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._reading.names)

    @property
    def schema(self) -> Any:
        """The `pyarrow.Schema`; the types of samples and metas are those stored now."""
        return self._batches(self._reading.chunks())[0]

    def __iter__(self) -> Iterator[Any]:
        return self._batches(self._reading.chunks())[1]

    def __arrow_c_schema__(self) -> Any:
        return self.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.reader().__arrow_c_stream__(requested_schema)

    def reader(self) -> Any:
        """Begin to read the table: return a `pyarrow.RecordBatchReader`."""
        schema, batches = self._batches(self._reading.chunks())
        return optional("pyarrow").RecordBatchReader.from_batches(schema, batches)

    def to_arrow(self) -> Any:
        """Return a `pyarrow.Table` of the samples as they are at one time."""
        about = self._reading.about()

        def as_table(chunks: Iterator[Chunk], metas: Callable[[], Iterator[Chunk]]) -> Any:
            schema, batches = self._batches(chunks, metas, about)
            return optional("pyarrow").Table.from_batches(list(batches), schema)

        return self._reading.at_once(as_table)

    def to_pandas(self) -> Any:
        """Return a DataFrame of the samples as they are at one time.

        Integers that may be missing have the type `Int64`, other numbers types of numpy.
        """
        pandas, pyarrow = optional("pandas"), optional("pyarrow")
        found = self.to_arrow()
        whole = {pyarrow.int64(): pandas.Int64Dtype(), pyarrow.bool_(): pandas.BooleanDtype()}
        frame = found.to_pandas(types_mapper=whole.get)
        plain = {
            field.name: field.type.to_pandas_dtype()
            for field in found.schema
            if field.type in whole and not column_of(field.name).may_be_missing
        }
        return frame.astype(plain)

    def _batches(
        self,
        chunks: Iterator[Chunk],
        metas: Callable[[], Iterator[Chunk]] | None = None,
        about: dict[str, str] | None = None,
    ) -> tuple[Any, Iterator[Any]]:
        reading = self._reading
        return batches_of(
            reading.names,
            chunks,
            decode=reading.decode,
            metas=reading.metas if metas is None else metas,
            about=reading.about() if about is None else about,
        )


def table(
    buffer: BufferHandle,
    columns: Any = None,
    where: Any = None,
    *,
    decode: bool = False,
    chunk: int = CHUNK,
    has_old_names: bool = False,
) -> Table:
    """Return the table of a buffer, see `SampleStore.table`.

    With `has_old_names` it also has the names of columns before 0.6 if no columns are asked for.
    """
    names = as_columns(columns)
    if columns is None and has_old_names:
        names = list(WITH_OLD_NAMES)
    return Table(
        Reading(
            buffer,
            names,
            as_where(where),
            decode=require_flag(decode, "decode"),
            chunk=require_count(chunk, "chunk must be a positive number of samples", least=1),
        )
    )
