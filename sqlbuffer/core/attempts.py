"""Attempts at a measurement: started, ended by the death of a worker, given up, begun again."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlbuffer._integrity import require_all
from sqlbuffer._json import as_json
from sqlbuffer._numpy import np
from sqlbuffer._typing import Ints
from sqlbuffer._validation import require_count
from sqlbuffer.core import counts, pool
from sqlbuffer.core.claim import Claim
from sqlbuffer.core.content import content
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.measured import Known, Measured, Origin, as_error
from sqlbuffer.core.pool import as_ints
from sqlbuffer.core.release import put_back
from sqlbuffer.core.report import Reported, report
from sqlbuffer.core.rewards import keep
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.core.weights import reopen
from sqlbuffer.core.where import Checked, Where, as_where, explained, guarded, narrowed
from sqlbuffer.db import queries
from sqlbuffer.db.schema import samples
from sqlbuffer.errors import InvalidArgument


class Ending(NamedTuple):
    """How an attempt at a measurement ended without a reward."""

    what: str = "worker died"
    """What ended it, to be counted; "" if the error alone tells."""
    how: str = ""
    error: str = "worker died"
    seconds: float | None = None
    details: Mapping[str, Any] | None = None


DEATH = Ending()
"""The death of a worker, found by another."""


def start(tx: Transaction, *, batch: int, ids: Sequence[int]) -> None:
    """Note that the measurement of some samples of a batch starts now."""
    tx.race_state()  # raises if the buffer is gone
    columns = {"sample_id": sorted(ids)}
    statement = queries.attempts.start(tx.backend)
    tx.execute_with(statement, queries.params.INCOMING_IDS, columns, batch=batch)


def tried(tx: Transaction, *, ids: Sequence[int]) -> set[int]:
    """Return those of some samples at which an attempt was counted."""
    statement = queries.attempts.tried(tx.backend)
    columns = {"sample_id": sorted(ids)}
    return set(tx.execute_with(statement, queries.params.INCOMING_IDS, columns).scalars())


def unreported(tx: Transaction, *, batch: int | None) -> Ints:
    """Return the ids of the samples of a batch that have neither a reward nor a failure of it."""
    rows = [] if batch is None else tx.rows(queries.attempts.unreported_samples(), batch=batch)
    return as_ints([row.sample_id for row in rows])


def ended(
    tx: Transaction, *, claim: Claim, number: int, ending: Ending, closes: bool
) -> list[int] | None:
    """Count an attempt at one sample, see `count_attempts`; None if the batch was closed before."""
    if not claim.lock(tx):
        return None
    return count_attempts(tx, batch=claim.batch, ids=[number], ending=ending, closes=closes)


def count_attempts(
    tx: Transaction,
    *,
    batch: int,
    ids: Sequence[int] | None = None,
    ending: Ending = DEATH,
    closes: bool = True,
) -> list[int]:
    """Count an attempt at samples of a batch that were started and not measured.

    The buffer's `max_attempts` decides when a sample has failed. Each attempt is kept as a
    measurement; with the last one the sample has failed, and the others only tell of it.

    Args:
        tx: A writing transaction.
        batch: Number of an open batch.
        ids: Only these samples, of any batch; None for all samples of a batch that counts attempts.
        ending: How the attempt ended.
        closes: Settle the samples that have failed, and with the last one the batch.

    Returns:
        The ids of the samples that have failed.
    """
    tx.race_state()  # raises if the buffer is gone
    of_any = ids is not None
    rows = tx.execute(queries.attempts.interrupted(), batch=batch, of_any=of_any).all()
    wanted = None if ids is None else set(ids)
    rows = [row for row in rows if wanted is None or row.sample_id in wanted]
    if not rows:
        return []
    columns = {
        "sample_id": [row.sample_id for row in rows],
        "attempts": [row.attempts + 1 for row in rows],
    }
    statement = queries.attempts.store_attempts(tx.backend)
    tx.execute_each(statement, queries.params.INCOMING_ATTEMPTS, columns)
    known = {"sample_id": columns["sample_id"]}
    statement = queries.attempts.end_attempt(tx.backend)
    tx.execute_with(statement, queries.params.INCOMING_IDS, known, batch=batch)
    over = [row for row in rows if _is_last(row)]
    if others := [row for row in rows if not _is_last(row)]:
        _keep_tries(tx, batch, others, ending)
    if over:
        reported = _given_up(over, ending)
        report(
            tx,
            claim=None,
            origin=Origin(batch, "", True),
            reported=reported,
            closes=closes,
            advances=of_any,  # a loop whose process has died has not finished its iteration
        )
    return [row.sample_id for row in over]


def _is_last(row: Any) -> bool:
    return row.max_attempts is not None and bool(row.attempts + 1 >= row.max_attempts)


def _keep_tries(tx: Transaction, batch: int, rows: Sequence[Any], ending: Ending) -> None:
    """Append attempts to the measurements; the samples stay as they are."""
    n = len(rows)
    columns = {
        "sample_id": [row.sample_id for row in rows],
        "reward": [None] * n,
        "error": [as_error(ending.error)] * n,
        "seconds": [ending.seconds] * n,
        "details": [_details(ending, queries.params.TRY, row) for row in rows],
    }
    keep(tx, columns, batch, None)
    tx.count()  # stores the logical time


def _details(ending: Ending, key: str, row: Any) -> str:
    return as_json({**(ending.details or {}), key: row.attempts + 1}, "details")


def _given_up(rows: Sequence[Any], ending: Ending) -> Reported:
    """Return the failures of samples at which there were too many attempts."""
    n, none = len(rows), [None] * len(rows)
    ids = np.array([row.sample_id for row in rows], dtype=np.int64)
    hashes = [row.hash for row in rows]
    errors = [as_error(_reason(row.attempts + 1, ending)) for row in rows]
    details = [_details(ending, queries.params.TRIES, row) for row in rows]
    measured = Measured(np.full(n, np.nan), errors, [ending.seconds] * n, details)
    nothing: list[Any] = [""] * n
    known = Known(ids, hashes, nothing, none, nothing, nothing)
    return Reported(known, np.arange(n), measured)


def _reason(n: int, ending: Ending) -> str:
    if not ending.what:  # the error comes first: views group failures by its beginning
        return ending.error if n == 1 else f"{ending.error}: tried {n} times"
    times = f"{ending.what} once" if n == 1 else f"{ending.what} {n} times"
    return f"{times}, last {ending.how}" if ending.how else times


def failed(
    buffer: BufferHandle, n: int | None, where: Where, *, as_text: bool = False
) -> list[dict[str, Any]]:
    """Return the samples whose measurement failed, the newest failure first, each as a dict.

    Args:
        buffer: The buffer.
        n: Most samples; None for all.
        where: A condition.
        as_text: Return the stored text of each sample: decoding may need a type that only the
            user's program knows.
    """
    if n is not None:
        n = require_count(n, "n must be a number of samples, or None for all")
    condition = as_where(where)
    find = functools.partial(_failed, n=n, where=condition, as_text=as_text)
    return explained(buffer, condition, lambda: buffer.read(find))


def count_failed(buffer: BufferHandle, where: Where) -> int:
    """Return how many samples `failed` has without a limit."""
    condition = as_where(where)

    def count(tx: Transaction) -> int:
        with guarded(tx, condition):
            counted = queries.read.count_of(narrowed(queries.attempts.failed(), condition))
            return int(tx.execute(counted).scalar_one())

    return explained(buffer, condition, lambda: buffer.read(count))


def _failed(
    tx: Transaction, *, n: int | None, where: Checked, as_text: bool
) -> list[dict[str, Any]]:
    tx.note_ids()
    if where is None and not counts.stats(tx).failed:
        return []  # no index has the failed samples: the statement reads all
    with guarded(tx, where):
        rows = tx.rows(narrowed(queries.attempts.failed(), where).limit(n))
    own = ("key",) if tx.buffer.keep_key else ()
    columns = (*own, "source", "error", "attempts", "tries", "seconds", "failed_at")
    found = [row.text for row in rows] if as_text else content(rows, tx.buffer)
    return [
        {"id": row.id, "sample": sample, **{name: getattr(row, name) for name in columns}}
        for sample, row in zip(found, rows, strict=True)
    ]


def require_failed(buffer: BufferHandle, ids: Sequence[int]) -> None:
    """Check that each of some samples has failed.

    Raises:
        InvalidArgument: If one has not, or is not stored.
    """
    having = queries.attempts.failed().where(samples.c.id.in_(ids))
    known = {row.id for row in buffer.read(lambda tx: tx.rows(having))} if ids else set()
    if others := sorted(set(ids) - known):
        raise InvalidArgument(
            f"sample {others[0]} of buffer {buffer.name!r} has not failed, or is not stored: "
            "`sqlbuffer failed` shows the failed samples."
        )


def retry(buffer: BufferHandle, ids: Sequence[int] | None, where: Where) -> int:
    """Make failed samples wait again, first in line; return how many."""
    condition = as_where(where)

    def find(tx: Transaction) -> list[int]:
        tx.race_state()  # raises if the buffer is gone
        with guarded(tx, condition):
            rows = tx.rows(narrowed(queries.attempts.failed(), condition))
        return [row.id for row in rows if ids is None or row.id in wanted]

    wanted = set() if ids is None else set(ids)
    found = explained(buffer, condition, lambda: buffer.read(find))
    return buffer.write(_retry, ids=found, is_by_user=ids is not None) if found else 0


def _retry(tx: Transaction, *, ids: Sequence[int], is_by_user: bool) -> int:
    state = tx.lock_race(exclusive=True)
    if is_by_user:
        tx.require_ids(ids)
    incoming, columns = queries.params.INCOMING_IDS, {"sample_id": sorted(ids)}
    rows = tx.execute_with(
        queries.attempts.failed_of(tx.backend), incoming, columns, clock=state.clock
    ).all()
    if not rows:
        return 0
    tx.execute_each(
        queries.attempts.forget_failures(tx.backend),
        incoming,
        {"sample_id": [row.sample_id for row in rows]},
    )
    _move_up(tx, state, [row.sample_id for row in rows if row.queued])
    back = [row for row in rows if not row.queued]
    put_back(tx, state, back)
    # They have joined the race at its clock: the release of an earlier draw leaves it there.
    tx.count(requeued=len(back), failed=-len(rows), touched=tx.race_state().clock)
    versions = [row.score_version for row in back if row.score_version is not None]
    if versions and min(versions) < state.version:
        reopen(tx, version=min(versions))  # a refresh may have finished without these samples
    return len(rows)


def _move_up(tx: Transaction, state: RaceState, ids: Sequence[int]) -> None:
    """Give samples that wait, in replay mode, the clock as their key, unless they stand before."""
    if not ids:
        return
    rows = [row for row in pool.standing(tx, ids) if state.clock < row.race_key < math.inf]
    keys, weights, scores = (
        pool.as_floats([getattr(row, name) for row in rows])
        for name in ("race_key", "weight", "score")
    )
    clocks = np.full(len(rows), state.clock)
    moved, entries = [row.sample_id for row in rows], [row.entries for row in rows]
    is_moved = pool.move(tx, state, moved, (keys, weights), clocks, weights, scores, entries)
    require_all(int(is_moved.sum()), len(rows), "samples moved to the head of the race")
