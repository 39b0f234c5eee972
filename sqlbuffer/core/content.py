"""Decode the samples of rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.samples.codec import decode_all


def content(rows: Iterable[Any], buffer: BufferHandle) -> list[Any]:
    """Decode the samples of rows with `text`, `payload` and `codec`."""
    columns = [(row.text, row.payload, row.codec) for row in rows]
    texts, payloads, codecs = map(list, zip(*columns, strict=True)) if columns else ([], [], [])
    return decode_all(texts, payloads, codecs, allow_pickle=buffer.allow_pickle)


def metas_of(tx: Transaction, ids: Sequence[int]) -> list[Any]:
    """Return the meta of each sample, in the order of the ids; None for a sample without one."""
    incoming, columns = queries.params.INCOMING_IDS, {"sample_id": sorted(set(ids))}
    rows = tx.execute_with(queries.samples.metas(tx.backend), incoming, columns).all()
    meta_of = {row.id: row.meta for row in rows}
    return [meta_of.get(number) for number in ids]
