"""The database that the pages show: read-only, and few reads however many look."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from sqlbuffer.core import counts
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.workers import GRACE_S
from sqlbuffer.db.database import Database
from sqlbuffer.looks.opening import handles, open_existing
from sqlbuffer.web.caching import Cache

T = TypeVar("T")

COUNTERS_KEPT_S = 1.0
"""How long counters are kept: however many look, the database is asked once a second."""

CHARTS_KEPT_S = 5.0
"""How long charts are kept."""

LARGE = 10_000
LARGE_KEPT_S = 30.0
"""How long charts are kept of a buffer of more samples than `LARGE`."""


@dataclasses.dataclass(frozen=True)
class Source:
    """What pages read from.

    Attributes:
        url: URL of the database, which may hold a password: no page shows it.
        database: The database, opened to read only.
        role: PostgreSQL role that runs the SQL of users; None for the role that has logged in.
        has_metrics: True to answer at /metrics.
        cache: What was read.
    """

    url: str
    database: Database
    role: str | None = None
    has_metrics: bool = False
    cache: Cache = dataclasses.field(default_factory=Cache)

    @classmethod
    def open(cls, url: str, **options: Any) -> Source:
        """Open a database that exists."""
        return cls(url, open_existing(url, read_only=True), **options)

    def buffers(self) -> list[BufferHandle]:
        """Return handles on all buffers."""
        return handles(self.database, None, grace_s=GRACE_S)

    def buffer(self, name: str) -> BufferHandle:
        """Return a handle on a buffer.

        Raises:
            BufferNotFound: If there is none of this name.
        """
        return handles(self.database, name, grace_s=GRACE_S)[0]

    def soon(
        self, buffer: BufferHandle, read: Callable[..., T], *, keep_s: float = COUNTERS_KEPT_S
    ) -> T:
        """Return what a function of a transaction reads, at most a second old."""
        key = (buffer.buffer_id, buffer.created_at, read)
        found: T = self.cache.get(key, lambda: buffer.read(read), keep_s=keep_s)
        return found

    def in_time(
        self, buffer: BufferHandle, read: Callable[..., T], finish: Callable[[T], Any] | None = None
    ) -> Any:
        """Return what a function reads that takes longer for a larger buffer.

        Args:
            buffer: The buffer.
            read: A function of a transaction.
            finish: What to make of it, which is kept as well.
        """
        is_large = self.soon(buffer, counts.stats).stored > LARGE
        keep_s = LARGE_KEPT_S if is_large else CHARTS_KEPT_S
        if finish is None:
            return self.soon(buffer, read, keep_s=keep_s)
        key = (buffer.buffer_id, buffer.created_at, read, "finished")
        return self.cache.get(key, lambda: finish(buffer.read(read)), keep_s=keep_s)
