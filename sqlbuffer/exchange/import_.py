"""Store the rows of a file: new samples wait, rewards are recorded, wrong rows are refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sqlbuffer._messages import shown_sample, summary
from sqlbuffer.core.add import add_chunk, hashes_of
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.record import Recorded, record
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.exchange.mapping import Entry, Reader, Refused
from sqlbuffer.exchange.rows import Row
from sqlbuffer.records import AddResult

CHUNK = 10_000
"""Rows stored in one transaction, or in two if some were measured."""

CHUNK_BYTES = 32_000_000
"""Texts and bytes after which a chunk ends early."""


@dataclasses.dataclass(frozen=True)
class ImportResult:
    """What an import has stored.

    Attributes:
        rows: Rows that were read.
        added: Samples stored for the first time.
        measured: Rewards that were stored.
        failed: Failures that were stored.
        refused: Rows that were not stored.
        nan: Rows of JSON lines with NaN, of which the metas have null.
        dropped: Rows with a value of the metas that their stored samples do not have.
        repeats: Rows whose sample an earlier row of the file has.
    """

    rows: int = 0
    added: int = 0
    measured: int = 0
    failed: int = 0
    refused: int = 0
    nan: int = 0
    dropped: int = 0
    repeats: int = 0

    @property
    def known(self) -> int:
        """Samples of the file that were stored before the import."""
        return self.rows - self.added - self.refused - self.repeats

    def __add__(self, other: ImportResult) -> ImportResult:
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return ImportResult(*(a + b for a, b in zip(mine, theirs, strict=True)))


def import_rows(
    buffer: BufferHandle,
    rows: Iterable[Row],
    reader: Reader,
    *,
    refuse: Callable[[Refused, Row], object],
    advance: Callable[[int], object] = lambda n: None,
    key: str | None = None,
) -> ImportResult:
    """Store rows, chunk by chunk; rows that are stored already change nothing.

    An interrupted import is begun again with the same rows.

    Args:
        buffer: The buffer.
        rows: The rows.
        reader: Reads the entry of a row.
        refuse: Called for each row that is not stored, with why, and with the row.
        advance: Called with the number of rows that have just been stored or refused.
        key: Name of the key function for the reasons.
    """
    result = ImportResult()
    heads = [np.zeros(0, np.int64)]  # 8 bytes of each hash tell two samples apart
    for part in _chunks(rows):
        wrong: list[Refused] = []
        entries = _sorted_out(map(reader.entry, part), wrong)
        hashes = _hashes(buffer, entries, wrong, key or "the key function")
        entries = [each for each in entries if each.number in hashes]
        heads.append(np.frombuffer(b"".join(each[:8] for each in hashes.values()), np.int64))
        result += _store(buffer, entries, [hashes[each.number] for each in entries])
        row_of = {row.number: row for row in part} if wrong else {}
        for each in sorted(wrong):
            refuse(each, row_of[each.number])
        n_nan = sum(row.has_nan for row in part)
        result += ImportResult(rows=len(part), refused=len(wrong), nan=n_nan)
        advance(len(part))
    found = np.concatenate(heads)
    return result + ImportResult(repeats=len(found) - len(np.unique(found)))


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    part: list[Row] = []
    size = 0
    for row in rows:
        part.append(row)
        size += sum(len(value) for value in row.values.values() if isinstance(value, (str, bytes)))
        if len(part) >= CHUNK or size > CHUNK_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _sorted_out(found: Iterable[Entry | Refused], wrong: list[Refused]) -> list[Entry]:
    """Return the entries; put the refused rows into `wrong`."""
    entries: list[Entry] = []
    for each in found:
        entries.append(each) if isinstance(each, Entry) else wrong.append(each)
    return entries


def _hashes(
    buffer: BufferHandle, entries: Sequence[Entry], wrong: list[Refused], key: str
) -> dict[int, bytes]:
    """Return the hash of each sample that has one, by the number of its row."""
    try:
        found = hashes_of(buffer, [each.sample for each in entries], start=None)
    except Exception:  # of a sample without a hash, or of a key function: which one?
        found = [_hash_of(buffer, each, wrong) for each in entries]
    pairs = list(zip(entries, found, strict=True))
    known = {each.number for each in wrong}
    wrong += [
        Refused(each.number, f"{key} returned None for {shown_sample(each.sample)}")
        for each, digest in pairs
        if digest is None and each.number not in known
    ]
    return {each.number: digest for each, digest in pairs if digest is not None}


def _hash_of(buffer: BufferHandle, entry: Entry, wrong: list[Refused]) -> bytes | None:
    try:
        (digest,) = hashes_of(buffer, [entry.sample], start=None)
    except Exception as exc:  # a key function may raise anything
        wrong.append(Refused(entry.number, summary(exc)))
        return None
    return digest


def _store(buffer: BufferHandle, entries: Sequence[Entry], hashes: Sequence[bytes]) -> ImportResult:
    pairs = list(zip(entries, hashes, strict=True))
    waiting = [pair for pair in pairs if not pair[0].is_measured]
    added = _add(buffer, waiting).added if waiting else 0
    measured = [pair for pair in pairs if pair[0].is_measured]
    known = buffer.read(_measured_before, [digest for _, digest in measured]) if measured else set()
    new = []
    for each, digest in measured:
        if (digest, each.reward) not in known:
            known.add((digest, each.reward))
            new.append((each, digest))
    added += _record(buffer, new).added if new else 0
    n_failed = sum(each.reward is None for each, _ in new)
    told = [(each.meta, digest) for each, digest in pairs if each.meta is not None]
    dropped = buffer.read(_count_dropped, told) if told and added < len(pairs) else 0
    return ImportResult(added=added, measured=len(new) - n_failed, failed=n_failed, dropped=dropped)


def _count_dropped(tx: Transaction, told: Sequence[tuple[str, bytes]]) -> int:
    """Return how many of these metas have a value that the stored samples do not have.

    A sample that is stored keeps its metas; those of an import that is begun again are the same.
    """
    statement = queries.samples.metas_by_hash(tx.backend)
    columns = {"hash": sorted({digest for _, digest in told})}
    rows = tx.execute_with(statement, queries.params.INCOMING_HASHES, columns)
    stored = {row.hash: row.meta for row in rows}
    return sum(_has_more(json.loads(meta), stored.get(digest)) for meta, digest in told)


def _has_more(told: Mapping[str, Any], stored: Any) -> bool:
    known = stored if isinstance(stored, dict) else {}
    return any(value is not None and known.get(name) != value for name, value in told.items())


def _measured_before(tx: Transaction, hashes: Sequence[bytes]) -> set[tuple[bytes, float | None]]:
    """Return hash and reward of every measurement of these samples, None for a failure."""
    statement = queries.measurements.rewards_by_hash(tx.backend)
    columns = {"hash": sorted(set(hashes))}
    rows = tx.execute_with(statement, queries.params.INCOMING_HASHES, columns)
    return {(row.hash, row.reward) for row in rows}


def _add(buffer: BufferHandle, pairs: Sequence[tuple[Entry, bytes]]) -> AddResult:
    return add_chunk(
        buffer,
        [each.sample for each, _ in pairs],
        [each.source for each, _ in pairs],
        [each.meta for each, _ in pairs],
        start=0,
        requeue=False,
        hashes=[digest for _, digest in pairs],
    )


def _record(buffer: BufferHandle, pairs: Sequence[tuple[Entry, bytes]]) -> AddResult:
    recorded = Recorded.prepare(
        buffer,
        [each.sample for each, _ in pairs],
        [each.reward for each, _ in pairs],
        [each.source for each, _ in pairs],
        metas=[each.meta for each, _ in pairs],
        hashes=[digest for _, digest in pairs],
        errors=[each.error for each, _ in pairs],
        seconds=[each.seconds for each, _ in pairs],
    )

    def write(tx: Transaction) -> AddResult:
        tx.race_state()  # raises if the buffer is gone
        return record(tx, recorded)

    return buffer.write(write)
