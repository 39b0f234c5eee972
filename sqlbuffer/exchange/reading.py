"""Read the columns of a table chunk by chunk, as values of Python."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from sqlbuffer._integrity import no_progress, tampered
from sqlbuffer._messages import shown
from sqlbuffer._typing import Ints
from sqlbuffer.core.conditions import META, OLD_NAMES
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.where import Checked, explained, guarded, narrowed, renewed
from sqlbuffer.db import queries
from sqlbuffer.samples.codec import decode_all

T = TypeVar("T")

Chunk = dict[str, list[Any]]
"""Columns of some samples, by name."""

CHUNK = 10_000
"""Samples read in one transaction, if the user does not say."""

CHUNK_BYTES = 32_000_000
"""Texts and payloads after which a chunk ends early."""

_AT_ONCE = 1_000
"""Rows after which the size of a chunk is looked at."""

_WIDEST = 16
"""Most ids of a page, in chunks: a reading of SQLite keeps its log from being emptied."""

_COUNTED_AT_ONCE = 100_000
"""Samples whose draws are read at once."""

_SIZED = ("sample", "payload")
"""Columns with values of any size."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """One reading of a table.

    Each chunk is read in a transaction of its own. Samples that are stored after the beginning are
    left out, so that the reading ends.
    """

    buffer: BufferHandle
    names: Sequence[str]
    where: Checked = None
    decode: bool = False
    chunk: int = CHUNK

    def chunks(self) -> Iterator[Chunk]:
        """Return the columns of some samples at a time, by name.

        Raises:
            InvalidArgument: If the condition is wrong.
        """
        span, drawn = self.buffer.read(self._begin)
        begun = dataclasses.replace(self, where=renewed(self.where))

        def read(after: int, until: int) -> list[Any]:
            return explained(
                self.buffer,
                begun.where,
                lambda: self.buffer.read(begun._guarded, after=after, until=until),
            )

        def find(after: int) -> int | None:
            return self.buffer.read(_next_id, after)

        return self._chunks(_Pages(read, find, self.chunk, *span), drawn)

    def at_once(self, use: Callable[[Iterator[Chunk], Callable[[], Iterator[Chunk]]], T]) -> T:
        """Return what `use` makes of the chunks, all of which are read in one transaction.

        Args:
            use: Called with the chunks, and with a function that returns those of `metas`.

        Raises:
            InvalidArgument: If the condition is wrong.
        """
        begun = dataclasses.replace(self, where=renewed(self.where))

        def read_all(tx: Transaction) -> T:
            span, drawn = self._begin(tx)

            def chunks(of: Reading, drawn: _Drawn | None = None) -> Iterator[Chunk]:
                read, find = functools.partial(of._rows, tx), functools.partial(_next_id, tx)
                return of._chunks(_Pages(read, find, self.chunk, *span), drawn)

            with guarded(tx, begun.where):
                return use(chunks(begun, drawn), lambda: chunks(begun._of_metas))

        return explained(self.buffer, begun.where, lambda: self.buffer.read(read_all))

    def about(self) -> dict[str, str]:
        """Return what a file tells of the buffer."""
        row = self.buffer.read(lambda tx: tx.own_row(queries.buffers.objective_and_key()))
        return {
            **({"key": row.key} if row.key else {}),
            "name": self.buffer.name,
            "direction": self.buffer.direction,
            "objective": row.objective,
            "weighting": self.buffer.settings.weighting.name,
        }

    def metas(self) -> Iterator[Chunk]:
        """Return the columns with values of the metas alone."""
        return self._of_metas.chunks()

    @property
    def _of_metas(self) -> Reading:
        names = [name for name in self.names if name.startswith(META)]
        return dataclasses.replace(self, names=names, decode=False)

    def _chunks(self, pages: _Pages, drawn: _Drawn | None) -> Iterator[Chunk]:
        for rows in pages:
            known = dict(zip(self._stored, map(list, zip(*rows, strict=True)), strict=True))
            if drawn is not None:
                known["drawn"] = drawn.of(known["sample_id"])
            if self.decode and "sample" in self.names:
                known["sample"] = self._decoded(known)
            yield {name: _column(name, known) for name in self.names}

    def _decoded(self, known: Chunk) -> list[Any]:
        stored = known["sample"], known["payload"], known["codec"]
        return decode_all(*stored, allow_pickle=self.buffer.allow_pickle)

    @functools.cached_property
    def _stored(self) -> list[str]:
        """Names of the columns that a statement reads."""
        names = ["meta" if name.startswith(META) else name for name in self.names]
        names = [OLD_NAMES.get(name, name) for name in names if name != "drawn"]
        if self.decode and "sample" in names:
            names += ["payload", "codec"]
        return list(dict.fromkeys(["sample_id", *names]))

    def _begin(self, tx: Transaction) -> tuple[tuple[int, int], _Drawn | None]:
        """Return the lowest and the highest id, and the draws if they are asked for."""
        tx.note_ids()
        span = tx.execute(queries.copy.id_range()).one()
        ids = (1, 0) if span.lowest is None else (span.lowest, span.highest)
        return ids, _Drawn.read(tx) if "drawn" in self.names else None

    def _guarded(self, tx: Transaction, *, after: int, until: int) -> list[Any]:
        with guarded(tx, self.where):
            return self._rows(tx, after, until)

    def _rows(self, tx: Transaction, after: int, until: int) -> list[Any]:
        """Return the samples of a range of ids, or the first of them if they are many or large."""
        ids = narrowed(queries.table.ids_of_page(), self.where)
        statement = queries.table.rows_of_page(ids, self._stored)
        sized = [i for i, name in enumerate(self._stored) if name in _SIZED]
        rows: list[Any] = []
        size = 0
        read = statement.execution_options(yield_per=min(_AT_ONCE, self.chunk))
        with tx.execute(read, after=after, last=until) as result:
            for part in result.partitions():
                rows += part
                size += sum(len(row[i] or "") for row in part for i in sized)
                if size > CHUNK_BYTES or len(rows) >= self.chunk:
                    break
        return rows[: self.chunk]


@dataclasses.dataclass(frozen=True)
class _Pages:
    """The rows of a table, some at a time."""

    read: Callable[[int, int], list[Any]]
    """Returns the rows of the samples after one id and up to another, or the first of them."""
    find: Callable[[int], int | None]
    """Returns the lowest id after an id."""
    chunk: int
    lowest: int
    highest: int

    def __iter__(self) -> Iterator[list[Any]]:
        after = self.lowest - 1
        if after >= self.highest:
            self.read(after, after)  # nothing, or an error: a wrong condition is told in any case
        width = self.chunk
        while after < self.highest:
            until = min(after + width, self.highest)
            if rows := self.read(after, until):
                yield rows
            if rows and not after < rows[-1][0] <= until:
                raise no_progress("reading a table")
            # A condition, and samples of other buffers, leave few rows: each page has its cost.
            is_sparse = 2 * len(rows) < self.chunk
            width = min(2 * width, _WIDEST * self.chunk) if is_sparse else self.chunk
            # Large or many samples end a page early. Ids may have gaps of any size.
            after = rows[-1][0] if rows else (self.find(until) or self.highest + 1) - 1


def _next_id(tx: Transaction, after: int) -> int | None:
    found: int | None = tx.execute(queries.table.lowest_id_after(), after=after).scalar()
    return found


def _column(name: str, known: Chunk) -> list[Any]:
    if name.startswith(META):
        key = name.removeprefix(META)
        return [value_of(meta, key) for meta in known["meta"]]
    return known[OLD_NAMES.get(name, name)]


def value_of(meta: Any, key: str) -> Any:
    """Return a value of a meta, None if it has none of this name."""
    return meta.get(key) if isinstance(meta, dict) else None


json_of = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode
"""Returns a value of the metas as JSON."""


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """How often samples were drawn; 16 bytes for each sample that was."""

    ids: Ints
    """(n,) int64, ascending."""
    counts: Ints
    """(n,) int64."""

    @classmethod
    def read(cls, tx: Transaction) -> _Drawn:
        statement = queries.table.times_drawn().execution_options(yield_per=_COUNTED_AT_ONCE)
        parts = [np.zeros((0, 2), np.int64)]
        for part in tx.execute(statement).partitions():
            parts.append(_as_integers(part))
        ids, counts = np.concatenate(parts).T
        return cls(np.ascontiguousarray(ids), np.ascontiguousarray(counts))

    def of(self, ids: Sequence[int]) -> list[int]:
        """Return the number of draws of each sample."""
        wanted = np.array(ids, np.int64)
        if not len(self.ids):
            return [0] * len(wanted)
        at = np.searchsorted(self.ids, wanted).clip(max=len(self.ids) - 1)
        found: list[int] = np.where(self.ids[at] == wanted, self.counts[at], 0).tolist()
        return found


def _as_integers(rows: Sequence[Any]) -> Ints:
    try:
        return np.array([tuple(row) for row in rows], np.int64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError) as exc:
        raise tampered(f"the number of a drawn sample is not an integer ({shown(exc)})") from exc
