"""The progress bar of a command, on the terminal of its errors."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from sqlbuffer._messages import printable
from sqlbuffer.cli import output


@contextlib.contextmanager
def progress(
    text: str, total: int | None, at: Callable[[], int] | None = None
) -> Iterator[Callable[[int], None]]:
    """Show a bar during the block, if errors are shown on a terminal.

    Args:
        text: What is done.
        total: The number of rows, or the bytes of a file; None if it is not known.
        at: Returns how many bytes are done; None if rows are counted.

    Yields:
        A function that is called with the number of rows that have just been done.
    """
    console = output.console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # of a pipe it would end on this terminal
    ) as bar:
        task = bar.add_task(printable(text), total=total, rows=0)

        def advance(n: int) -> None:
            rows = bar.tasks[0].fields["rows"] + n
            bar.update(task, completed=rows if at is None else at(), rows=rows)

        yield advance
