"""The progress of a measurement: done, failed, rate, time left."""

from __future__ import annotations

import logging
import math
import sys
import time
from types import TracebackType

from sqlbuffer._messages import n_of, printable, shown
from sqlbuffer._notebook import LiveTable, in_notebook
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
    """Shows samples measured and failed, samples left, rate and time.

    On a terminal it is a line that disappears in the end, in a notebook a table that stays, and
    elsewhere a logged line each minute.

    Args:
        buffer: The buffer.
        silent: Show nothing.
        most: Most samples that are measured.
    """

    def __init__(self, buffer: BufferHandle, *, silent: bool, most: float = math.inf) -> None:
        self._buffer, self._is_silent, self._most = buffer, silent, most
        self._view: _Bar | _Table | None = None
        self._done = self._failed = self._total = 0
        self._looked = -math.inf
        self._logged = self._began = time.monotonic()

    def __enter__(self) -> Progress:
        self._began = time.monotonic()
        if self._is_silent:
            return self
        if in_notebook():
            self._view = _Table()
        elif sys.stderr.isatty():
            self._view = _Bar()
        self._show()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._view is None:
            return
        try:
            if kind is None:
                self._looked = -math.inf
                self._show()  # samples may have come since the last look
        finally:
            self._view.finish()

    def advance(self, *, has_failed: bool) -> None:
        """Count a sample."""
        self._done += 1
        self._failed += has_failed
        if self._view is None:
            self._log()
        else:
            self._show()

    def _show(self) -> None:
        if self._view is None:
            return
        now = time.monotonic()
        if now - self._looked > _LOOK_S:
            self._looked = now
            self._total = self._done + self._left()
        name = printable(self._buffer.name)
        self._view.show(name, self._done, self._failed, self._total, now - self._began)

    def _log(self) -> None:
        """Log a line once a minute: a process without a terminal has no bar."""
        if (now := time.monotonic()) - self._logged >= _LOG_S:
            self._logged = now
            log.info(
                "buffer %s: %s measured, %d of them failed, %d left",
                shown(self._buffer.name),
                n_of(self._done, "sample"),
                self._failed,
                self._left(),
            )

    def _left(self) -> int:
        """Return how many samples are to be measured: no more than the calls that are left."""
        return int(min(self._buffer.peek(_left), max(self._most - self._done, 0)))


class _Bar:
    """A line on the terminal of the errors, which disappears in the end."""

    def __init__(self) -> None:
        # Imported late: most processes show no bar.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]} failed, {task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # of a pipe it would end on this terminal
        )
        self._bar.start()
        self._task = self._bar.add_task("measuring", failed=0, rate="")

    def show(self, name: str, done: int, failed: int, total: int, seconds: float) -> None:
        self._bar.update(
            self._task,
            description=f"measuring {name}",
            completed=done,
            total=total,
            failed=failed,
            rate=_rate(done, seconds),
        )

    def finish(self) -> None:
        self._bar.stop()


class _Table:
    """A table in a notebook."""

    _COLUMNS = ("measured", "failed", "left", "rate", "seconds")

    def __init__(self) -> None:
        self._table = LiveTable()

    def show(self, name: str, done: int, failed: int, total: int, seconds: float) -> None:
        left = max(total - done, 0)
        row = (done - failed, failed, left, _rate(done, seconds), round(seconds, 1))
        self._table.show(self._COLUMNS, [row], f"measuring {name}")

    def finish(self) -> None:
        self._table.finish()


def _rate(done: int, seconds: float) -> str:
    rate = 60 * done / seconds if seconds else 0.0
    return (f"{rate:,.0f}/min" if rate >= 100 else f"{rate:.3g}/min") if rate else ""


def _left(tx: Transaction) -> int:
    """Return how many samples wait or are claimed."""
    totals = tx.execute(queries.buffers.totals()).one()
    claimed = int(totals.drawn - totals.released - totals.settled)
    return pool.size(tx.buffer, totals) + (claimed if tx.buffer.consumes else 0)
