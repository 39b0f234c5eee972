"""Output that a notebook updates in place; IPython is used where it runs, and never imported."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from sqlbuffer import _html
from sqlbuffer._messages import printable

_PAUSE_S = 0.2
"""Least seconds from one update to the next: each is a message to the browser."""


def in_notebook() -> bool:
    """Tell whether this process is the kernel of a notebook."""
    if "IPython" not in sys.modules:
        return False
    import rich  # imported late: most processes are no notebook

    return rich.get_console().is_jupyter


class LiveTable:
    """A table in the output of a cell that is updated in place, and leaves its last state.

    It is plain HTML: a saved notebook has it, and needs no widget to show it.
    """

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown_at = 0.0
        self._is_behind = False
        self._content: tuple[Sequence[str], list[Sequence[Any]], str] = ([], [], "")

    def show(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str) -> None:
        """Show these rows; soon after the last time they wait for `finish` or the next call."""
        self._content, self._is_behind = (columns, list(rows), caption), True
        if time.monotonic() - self._shown_at >= _PAUSE_S:
            self.finish()

    def finish(self) -> None:
        """Show the newest rows, if they are not shown yet."""
        if not self._is_behind:
            return
        self._shown_at, self._is_behind = time.monotonic(), False
        columns, rows, caption = self._content
        data = {
            "text/plain": printable(caption),
            "text/html": _html.table(columns, rows, caption=caption),
        }
        if self._handle is None:
            self._handle = _display(data)
        else:
            self._handle.update(data, raw=True)


def _display(data: dict[str, str]) -> Any:
    display = sys.modules["IPython"].display.display
    return display(data, raw=True, display_id=True)
