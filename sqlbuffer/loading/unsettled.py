"""Claims that a stream has made or had batches of, and that are not settled yet."""

from __future__ import annotations

import functools
import logging
import os
import weakref
from collections.abc import Iterable

from sqlbuffer._messages import n_of, shown, summary
from sqlbuffer.core.claim import Claim
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.parts import Part, release_claims, settle_parts, take_over
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db import disposal
from sqlbuffer.errors import ClaimLost
from sqlbuffer.loading.delivery import Receipt

log = logging.getLogger(__name__)


class Unsettled:
    """Claims, made by this process or by its workers, and how much of each it has had.

    They are released when this object is dropped.

    Attributes:
        pid: The process that has had them.
        n_batches: Batches that it has had since the last `settle`.
    """

    def __init__(self, buffer: BufferHandle) -> None:
        self.pid = os.getpid()
        self.n_batches = 0
        self._buffer = buffer
        self._parts: dict[Claim, Part] = {}
        self._closed: set[Claim] = set()
        dropped = weakref.finalize(self, _release_later, self.pid, buffer.in_disposal, self._parts)
        dropped.atexit = False  # the last heartbeat releases all open batches

    def require_own_process(self) -> None:
        """Check that this process has made the claims.

        Raises:
            ClaimLost: In a forked child of that process.
        """
        if self.pid != os.getpid():
            raise ClaimLost(
                f"this iteration of a stream was begun in process {self.pid}, its claims belong to "
                f"that process, and this is its forked child, process {os.getpid()}: begin a loop "
                "in the child, iter(stream), which makes claims of its own."
            )

    def made(self, claim: Claim, size: int) -> None:
        """Note a claim that this process has made, before it has had a batch of it."""
        self._note(Receipt(claim, size, 0))

    def had(self, receipt: Receipt) -> None:
        """Note a batch that this process has had."""
        self._note(receipt)
        self.n_batches += 1

    def had_all(self, receipts: Iterable[Receipt]) -> None:
        """Note how far claims were had; those that `settle` has ended may be among them."""
        told = {receipt.claim: receipt for receipt in receipts}
        self._closed &= set(told)
        for claim, receipt in told.items():
            if claim not in self._closed:
                self._note(receipt)

    def _note(self, receipt: Receipt) -> None:
        claim, size, end = receipt
        part = self._parts.get(claim, Part(claim, size, 0, 0))
        self._parts[claim] = part._replace(end=max(end, part.end))

    def settle(self) -> int:
        """Settle all that this process has had, in one transaction; return how many samples."""
        self.n_batches = 0
        return self._store([part for part in self._parts.values() if _has_work(part)])

    def abandon(self) -> None:
        """Hand out no more of the own claims: the rest waits again once what was had is settled.

        A worker goes on to hand out its claims, and gives them back when it ends.
        """
        ours = [part for part in self._parts.values() if part.claim.drawn_by == worker_id()]
        self._parts.update({part.claim: part._replace(gives_back=True) for part in ours})
        self._store([self._parts[part.claim] for part in ours if part.first == part.end])

    def _store(self, parts: list[Part]) -> int:
        if not parts:
            return 0
        self.require_own_process()
        # The newest first, as a release takes them: in another order the two could deadlock.
        parts.sort(key=lambda part: part.claim.batch, reverse=True)
        were_open = self._buffer.write(settle_parts, parts)
        for part, was_open in zip(parts, were_open, strict=True):
            if was_open and part.end < part.size and not part.gives_back:
                self._parts[part.claim] = part._replace(first=part.end)
            else:
                del self._parts[part.claim]
                self._closed.add(part.claim)
        lost = [part for part, was_open in zip(parts, were_open, strict=True) if not was_open]
        self._tell_lost(lost)
        return sum(part.end - part.first for part in parts if part not in lost)

    def take_over(self) -> None:
        """Own the claims that workers have made, so that they outlive the workers."""
        others = [claim for claim in self._parts if claim.drawn_by != worker_id()]
        if not others:
            return
        taken = self._buffer.write(take_over, others)
        parts = [self._parts.pop(claim) for claim in others]
        for part, claim in zip(parts, taken, strict=True):
            if claim is not None:
                self._parts[claim] = part._replace(claim=claim)
        self._tell_lost([part for part, claim in zip(parts, taken, strict=True) if claim is None])

    def release(self) -> None:
        """Let all that is not settled wait again."""
        if self._parts:
            self._buffer.write(release_claims, list(self._parts))
        self._parts.clear()
        self.n_batches = 0

    def _tell_lost(self, parts: list[Part]) -> None:
        if n_samples := sum(part.end - part.first for part in parts):
            log.warning(
                "buffer %s released the claims of %s before they were settled (by hand, or after "
                "silence): they come again",
                shown(self._buffer.name),
                n_of(n_samples, "sample"),
            )


def _has_work(part: Part) -> bool:
    return part.end > part.first or part.gives_back


def _release_later(pid: int, buffer: BufferHandle, parts: dict[Claim, Part]) -> None:
    if parts and pid == os.getpid():
        work = functools.partial(_release, buffer, list(parts))
        disposal.later(work, database=buffer.database.url)


def _release(buffer: BufferHandle, claims: list[Claim]) -> None:
    try:
        buffer.write(release_claims, claims)
    except Exception as exc:
        log.warning(
            "could not release %d claims of a dropped stream: they stay until this process exits: "
            "%s",
            len(claims),
            summary(exc),
        )
    finally:
        buffer.database.close()
