"""The claim of a batch: the attempts at its samples, and its end."""

from __future__ import annotations

import functools
import math
import os
import weakref
from collections.abc import Sequence
from typing import Any

from sqlbuffer._typing import Ints
from sqlbuffer._validation import as_ids
from sqlbuffer.core import attempts
from sqlbuffer.core.claim import Claim, lost
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.errors import ClaimLost


class ClaimedBatch:
    """Samples that are claimed until a process ends the claim."""

    id: int | None
    _buffer: BufferHandle
    _claim: Claim | None
    _pid: int | None
    _dropped: weakref.finalize[..., Any] | None
    _is_open: bool
    _has_reports: bool
    _reported: dict[int, float]

    @property
    def unreported(self) -> Ints:
        """(m,) int64, ids of the samples without a reward or failure, reported by any process.

        Examples:
            >>> batch = store.sample(3)
            >>> batch.report(batch.ids[:1], [1.0])
            2
            >>> len(batch.unreported)
            2
        """
        return self._buffer.peek(attempts.unreported, batch=self.id)

    def _start(self, ids: Sequence[int]) -> None:
        """Note that the measurement of some samples starts."""
        if self._claim is not None:
            self._buffer.write(attempts.start, batch=self._claim.batch, ids=as_ids(ids))

    def _ended(self, number: int, ending: attempts.Ending, *, settle: bool = True) -> bool:
        """Count an attempt at a sample; return True if it has failed, or raise ClaimLost."""
        if self._claim is None:
            return False
        self._has_reports = True
        count = functools.partial(attempts.ended, ending=ending, closes=settle)
        gone = self._buffer.write(count, claim=self._claim, number=number)
        if gone is None:
            self._end()
            raise self._lost("the attempt is not counted")
        self._reported |= dict.fromkeys(gone, math.nan)
        return bool(gone)

    @property
    def _is_of_another_process(self) -> bool:
        """True in a forked child."""
        return self._pid not in (None, os.getpid())

    def _end(self) -> None:
        """Note that the claim has ended; it never opens again, whatever another thread finds."""
        self._is_open = False
        if self._dropped is not None:
            self._dropped.detach()

    def _lost(self, what: str) -> ClaimLost:
        """Return the error for a batch that this process cannot end, with the reason."""
        owner = self._pid if self._is_of_another_process else None
        is_stored = self._claim is None or self._buffer.peek(self._claim.find)
        if not is_stored:
            self._buffer.peek(Transaction.race_state)  # raises if the buffer is gone
        return lost(self.id, what, owner=owner, is_stored=is_stored)
