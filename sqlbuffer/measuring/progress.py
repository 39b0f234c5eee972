"""The progress line of a measurement: done, failed, rate, time left."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any

from sqlbuffer._messages import printable, shown
from sqlbuffer.core import pool
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries

log = logging.getLogger(__name__)

_LOG_S = 60.0
"""Seconds from one logged line to the next."""
_LOOK_S = 5.0
"""Seconds from one look at the number of waiting samples to the next."""


class Progress:
    """Shows a line on a terminal: samples measured and failed, samples left, rate and time left."""

    def __init__(self, buffer: BufferHandle, *, silent: bool) -> None:
        self._buffer, self._is_silent = buffer, silent
        self._bar: Any = None
        self._task: Any = None
        self._done = self._failed = 0
        self._looked = -_LOOK_S
        self._logged = time.monotonic()

    def __enter__(self) -> Progress:
        if self._is_silent or not sys.stderr.isatty():
            return self
        # Imported late: most processes show no bar.
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]} failed, {task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar.start()
        name = escape(printable(self._buffer.name))
        self._task = self._bar.add_task(f"measuring {name}", failed=0, rate="")
        self._look()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, *, has_failed: bool) -> None:
        """Count a sample."""
        self._done += 1
        self._failed += has_failed
        if self._bar is None:
            self._log()
            return
        seconds = self._bar.tasks[self._task].elapsed or 0.0
        rate = f"{60 * self._done / seconds:.3g}/min" if seconds else ""
        self._bar.update(self._task, completed=self._done, failed=self._failed, rate=rate)
        if time.monotonic() - self._looked > _LOOK_S:
            self._look()

    def _log(self) -> None:
        """Log a line once a minute: a process without a terminal has no bar."""
        if (now := time.monotonic()) - self._logged >= _LOG_S:
            self._logged = now
            log.info(
                "buffer %s: %d samples measured, %d of them failed, %d left",
                shown(self._buffer.name),
                self._done,
                self._failed,
                self._buffer.read(_left),
            )

    def _look(self) -> None:
        self._looked = time.monotonic()
        self._bar.update(self._task, total=self._done + self._buffer.read(_left))


def _left(tx: Transaction) -> int:
    """Return how many samples wait or are claimed."""
    totals = tx.execute(queries.buffers.totals()).one()
    claimed = int(totals.drawn - totals.released - totals.settled)
    return pool.size(tx.buffer, totals) + (claimed if tx.buffer.consumes else 0)
