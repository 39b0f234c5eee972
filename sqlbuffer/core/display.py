"""What a store and a batch show of themselves: one line, and a table in a notebook."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

from sqlbuffer import _html
from sqlbuffer._messages import n_of, shown_sample, summary
from sqlbuffer._typing import Floats, Ints
from sqlbuffer.core import counts
from sqlbuffer.core.decoded_batch import DecodedBatch
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.records import Stats

ROWS = 20
"""The most samples that the table of a batch shows."""


def store_line(buffer: BufferHandle) -> str:
    """Return the repr of a store."""
    found = _stats(buffer)
    numbers = (
        f"unreadable: {found}"
        if isinstance(found, str)
        else f"waiting={found.waiting}, measured={found.measured}"
    )
    return f"SampleStore({buffer.database.url!r}, name={buffer.name!r}, {numbers})"


def store_table(buffer: BufferHandle) -> str:
    """Return the table of a store."""
    found = _stats(buffer)
    numbers: dict[str, Any] = (
        {"unreadable": found}
        if isinstance(found, str)
        else {
            name: getattr(found, name)
            for name in (
                *("iteration", "waiting", "claimed", "measured", "failed", "stored"),
                *("best_reward", "direction"),
            )
        }
    )
    about = {"name": buffer.name, "database": buffer.database.url}
    return _html.record(about | numbers, caption="SampleStore")


def _stats(buffer: BufferHandle) -> Stats | str:
    """Return the statistics, or why they cannot be read.

    The connection is one of its own: a repr in a debugger waits neither for a connection that
    another thread holds nor for a server that is gone, and leaves a closed store closed.
    """
    try:
        with contextlib.closing(buffer.apart(is_patient=False).database) as database:
            return database.look(buffer.bound(counts.stats))
    except Exception as exc:
        return summary(exc)


class DisplayedBatch(DecodedBatch):
    """The repr of a batch, and its table in a notebook."""

    id: int | None
    sources: list[str]
    ids: Ints
    scores: Floats
    info: Any
    _is_open: bool
    _is_detached: bool
    _reported: dict[int, float]

    def __repr__(self) -> str:
        return f"Batch(id={self.id}, size={len(self.ids)}, state={self._state!r})"

    def _repr_html_(self) -> str | None:
        return _html.or_none(self._as_html)

    @property
    def _state(self) -> str:
        """The claim as this object knows it; another process may have ended it since."""
        if self.id is None:
            return "empty"
        if self._is_open:
            return "open"
        return "detached" if self._is_detached else "ended"

    def _as_html(self) -> str:
        n = len(self.ids)
        size = n_of(n, "sample")
        columns = ["id", "sample", "source", "score", "probability", "reported"]
        rest = f", the first {ROWS} of them" if n > ROWS else ""
        caption = f"Batch {'-' if self.id is None else self.id}: {size}{rest}, {self._state}"
        return _html.table(columns, map(self._row, range(min(n, ROWS))), caption=caption)

    def _row(self, place: int) -> Sequence[Any]:
        number, sample = int(self.ids[place]), self.samples[place]
        reported = self._reported.get(number)
        return (
            number,
            sample if isinstance(sample, str) else shown_sample(sample),
            self.sources[place],
            _known(self.scores[place]),
            _known(self.info.probability[place]),
            "failed" if reported is not None and math.isnan(reported) else reported,
        )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
