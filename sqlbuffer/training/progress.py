"""The progress of a loop: a bar on a terminal, one table in a notebook."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sqlbuffer._notebook import LiveTable

ROWS = 20
"""The newest reports that the table of a notebook shows."""


@contextlib.contextmanager
def fit_progress(log: Any, *, total: int) -> Iterator[Callable[[], None]]:
    """Show the progress of a loop during the block; yield a function that brings it up to date.

    Args:
        log: The log of the loop. It prints its reports, unless it has a `live` table for them.
        total: Iterations that will be done in the end.
    """
    console = getattr(log, "console", None)
    if getattr(console, "is_jupyter", False):
        log.live = LiveLog(total)
        try:
            log.live.show(log.iterations)
            yield lambda: log.live.show(log.iterations)
        finally:
            log.live.finish()
            log.live = None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    hidden = console is None or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        bar = progress.add_task("training", total=total, completed=log.iterations)
        yield lambda: progress.update(bar, completed=log.iterations)


class LiveLog:
    """The newest reports of a loop, in one table of a notebook."""

    def __init__(self, total: int) -> None:
        self._table, self._total = LiveTable(), total
        self._reports: deque[Mapping[str, Any]] = deque(maxlen=ROWS)
        self._began = time.monotonic()

    def add(self, report: Mapping[str, Any]) -> None:
        """Add the values of an iteration, by name."""
        self._reports.append(report)

    def show(self, iterations: int) -> None:
        """Show the table, with the number of iterations that are done."""
        columns = list(self._reports[-1]) if self._reports else []
        rows = [[report.get(name) for name in columns] for report in self._reports]
        seconds = time.monotonic() - self._began
        caption = f"{iterations:,} of {self._total:,} iterations, {seconds:,.1f} s"
        self._table.show(columns, rows, caption)

    def finish(self) -> None:
        """Show the last state."""
        self._table.finish()
