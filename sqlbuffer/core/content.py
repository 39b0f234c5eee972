"""Decode the samples of rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.samples.codec import decode_all


def content(rows: Iterable[Any], buffer: BufferHandle) -> list[Any]:
    """Decode the samples of rows with `text`, `payload` and `codec`."""
    columns = [(row.text, row.payload, row.codec) for row in rows]
    texts, payloads, codecs = map(list, zip(*columns, strict=True)) if columns else ([], [], [])
    return decode_all(texts, payloads, codecs, allow_pickle=buffer.allow_pickle)
