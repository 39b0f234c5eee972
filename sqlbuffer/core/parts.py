"""Claims that are settled from their beginning on, by this process or for another one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sqlbuffer._integrity import require_all
from sqlbuffer.core.batch import Batch
from sqlbuffer.core.claim import Claim
from sqlbuffer.core.release import release
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db import queries


class Part(NamedTuple):
    """The samples of a claim that are to be settled, without rewards."""

    claim: Claim
    size: int
    """Samples of the claim."""
    first: int
    """Number of its first samples that were settled before."""
    end: int
    """Number of its first samples that are settled afterwards."""
    gives_back: bool = False
    """Release the samples from `end` on."""


def leave_open(batch: Batch, note: Callable[[Claim, int], None] | None = None) -> Claim | None:
    """Return the claim of a batch, which stays open when the object is dropped; None if empty.

    Args:
        batch: The batch.
        note: Called with the claim and its number of samples before the batch lets go of it: an
            exception in between leaves the claim to one of the two.
    """
    claim = batch._claim
    if note is not None and claim is not None:
        note(claim, len(batch))
    batch._end()
    return claim


def settle_parts(tx: Transaction, parts: Sequence[Part]) -> list[bool]:
    """Settle parts of claims, all or none; return which of the claims were still open.

    Args:
        tx: A writing transaction.
        parts: Parts of different claims.
    """
    if any(part.gives_back for part in parts):
        tx.lock_race(exclusive=True)  # every transaction locks the race before rows
    deltas: Counter[str] = Counter()
    were_open = [_settle(tx, part, deltas) for part in parts]
    tx.count(**deltas)
    return were_open


def _settle(tx: Transaction, part: Part, deltas: Counter[str]) -> bool:
    claim, n = part.claim, part.end - part.first
    is_whole = part.end == part.size
    if not (claim.close(tx, "settled_at") is not None if is_whole else claim.lock(tx)):
        return False
    place = {"batch": claim.batch, "first": part.first, "end": part.end}
    if not is_whole:
        n_found = tx.execute(queries.parts.report_part(), **place).rowcount
        require_all(n_found, n, "a part of a batch was settled")
    if tx.buffer.consumes:
        n_found = tx.execute(queries.parts.dequeue_part(), **place).rowcount
        require_all(n_found, n, "samples left the queue")
    deltas.update(settled=n, iterations=int(is_whole))
    return release(tx, batch=claim) if part.gives_back and not is_whole else True


def take_over(tx: Transaction, claims: Sequence[Claim]) -> list[Claim | None]:
    """Let this process own open claims of others; return them, None for one that is closed."""
    taken = [_taken_over(tx, claim) for claim in claims]
    tx.count()  # registers this process, without whose row the claims would have no owner
    return taken


def _taken_over(tx: Transaction, claim: Claim) -> Claim | None:
    owner = worker_id()
    found = tx.execute(queries.batches.take_over(), new_owner=owner, **claim.parameters())
    return claim._replace(drawn_by=owner) if found.rowcount else None


def release_claims(tx: Transaction, claims: Sequence[Claim]) -> int:
    """Release claims, those that are open; return how many."""
    tx.lock_race(exclusive=True)
    # The newest first: the last draw of a sample must be undone before earlier ones.
    ordered = sorted(claims, key=lambda claim: claim.batch, reverse=True)
    return sum(release(tx, batch=claim) for claim in ordered)
