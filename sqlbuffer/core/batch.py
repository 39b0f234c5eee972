"""A batch is a claim: it ends when it is settled with rewards, or released, by its owner or after the owner's death."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import math
import os
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from sqlbuffer._messages import shown, summary
from sqlbuffer._typing import Floats, Ints
from sqlbuffer._validation import as_rewards, require_flag
from sqlbuffer.core import leases, pool
from sqlbuffer.core.add import Known, Recorded, store_measured
from sqlbuffer.core.add import record as write_recorded
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.race import is_blurred, rescaled, turned_back
from sqlbuffer.core.report import Claim, Closed, Reported, close, report
from sqlbuffer.core.run_records import states_from, write_checkpoints, write_metrics
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.core.weights import reopen
from sqlbuffer.core.workers import Mark, fold, forget_receipts, lock_dead, worker_id
from sqlbuffer.db import disposal, queries
from sqlbuffer.db.schema import batches
from sqlbuffer.errors import ClaimLost, DatabaseUnavailable, InvalidArgument
from sqlbuffer.records import SampleInfo
from sqlbuffer.samples.codec import decode_all

log = logging.getLogger(__name__)


class Drawn(NamedTuple):
    """Drawn samples as columns of n each: 512 rows cost half as much to take apart once as to look into ten times."""

    sample_id: Sequence[int] = ()
    race_key: Sequence[float] = ()
    weight: Sequence[float | None] = ()
    entries: Sequence[int] = ()
    source: Sequence[str] = ()
    score: Sequence[float | None] = ()
    reward: Sequence[float | None] = ()
    hash: Sequence[bytes] = ()
    requeues: Sequence[int] = ()
    text: Sequence[str] = ()
    payload: Sequence[bytes | None] = ()
    codec: Sequence[str] = ()


class Batch:
    """Samples claimed by this process until they are settled or released.

    As a context manager it releases what the block has not settled; dropped without either it is released too, soon,
    with a warning. The claim is that of the process which made it: a forked child can store rewards, but neither ends
    the claim nor gives it back. A pickled batch may be settled, reported or released by the process that it is sent to.

    Attributes:
        id: Number of the batch, None where it is empty.
        iteration: The iteration it was drawn for, from 0.
        samples: The samples, those of the argmax share first, then in the order of the race.
        sources: Names of the generators that added them.
        ids: (n,) int64, numbers of the samples.
        scores: (n,) float64, NaN where there is none.
        weights: (n,) float64, NaN where there is none.
        clock: Clock of the race after the draw.
        info: What the draw knows of each sample.
    """

    def __init__(
        self,
        buffer: BufferHandle,
        drawn: Drawn,
        *,
        claim: Claim | None,
        iteration: int,
        clock: float,
        info: SampleInfo,
    ) -> None:
        self.id = None if claim is None else claim.batch
        self.iteration = iteration
        self.clock = clock
        self.samples = decode_all(
            drawn.text, drawn.payload, drawn.codec, allow_pickle=buffer.allow_pickle
        )
        self.sources = list(drawn.source)
        self.ids: Ints = pool.as_ints(drawn.sample_id)
        self.scores: Floats = pool.as_floats(drawn.score)
        self.weights: Floats = pool.as_floats(drawn.weight)
        self.info = info
        self._buffer = buffer
        self._claim = claim
        self._known = Known(
            self.ids, drawn.hash, drawn.text, drawn.payload, drawn.codec, drawn.source
        )
        self._is_open = True
        self._has_reports = False
        self._pid: int | None = os.getpid()
        self._dropped: weakref.finalize[..., Any] | None = None
        if claim is not None:
            self._dropped = weakref.finalize(self, _drop, self._pid, buffer.in_disposal, claim)
            self._dropped.atexit = False  # the last beat of the heartbeat releases all there are

    def __getstate__(self) -> dict[str, Any]:
        self._has_reports = True  # for all that either of them knows
        if self._dropped is not None:  # the copy may outlive this one
            self._dropped.detach()
        return {**vars(self), "_dropped": None, "_pid": None}

    def __len__(self) -> int:
        return len(self.samples)

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._is_open or self._is_of_another_process:
            return
        try:
            self.release()
        except ClaimLost:
            if kind is None:  # else it was settled a moment ago, and what came then goes on
                raise
        except DatabaseUnavailable as exc:
            if kind is None or issubclass(kind, Exception):
                raise
            # Ctrl-C, or what else came, goes on.
            log.warning(
                "could not release the batch: it stays claimed until this process exits: %s",
                summary(exc),
            )
        except BaseException as exc:
            if not isinstance(exc, Exception):  # a signal during it: no other process has the batch
                with contextlib.suppress(ClaimLost):
                    self.release()
            raise

    def settle(
        self,
        rewards: Any = None,
        *,
        record: tuple[Sequence[Any], Any, str | Sequence[str]] | None = None,
        metrics: Mapping[str, float] | None = None,
        checkpoint: Mapping[str, bytes] | None = None,
        kept: Mapping[str, int | None] | None = None,
        is_iteration: bool = True,
    ) -> None:
        """Store the rewards and end the claim; the buffer's iteration advances. All in one transaction.

        What was reported before keeps its reward, unless it is given another one.

        Args:
            rewards: (n,) finite floats, one for each sample. NaN: measured and failed, never to be measured again; a
                reward that is stored stays. None, for all or for one: not measured.
            record: `(samples, rewards, sources)` that were not drawn from the buffer, to be stored as well.
            metrics: Metrics of this iteration, to be stored as well.
            checkpoint: States to resume from, by name, to be stored as well.
            kept: How many states of a name stay stored, None for all; where it says nothing, the newest alone.
            is_iteration: Let the buffer's iteration advance.

        Raises:
            InvalidReward: Where the rewards are infinite, or not one for each sample. Nothing is stored.
            ClaimLost: Where the batch is settled or released already, or where the database has gone back to a state
                before its draw. The rewards are stored all the same, with the samples: they were measured.
        """
        values = as_rewards([None] * len(self) if rewards is None else rewards, len(self))
        recorded = None if record is None else _recorded(self._buffer, record)
        is_settled = self._buffer.write(
            self._settle,
            rewards=values,
            recorded=recorded,
            metrics={} if metrics is None else metrics,
            states=states_from(checkpoint),
            kept=kept,
            n_iterations=int(require_flag(is_iteration, "is_iteration")),
        )
        self._end()
        if not is_settled:
            raise self._lost("its rewards are stored, and nothing else")

    def report(self, ids: Sequence[int], rewards: Any) -> int:
        """Store the rewards of some of the samples, as they come; the last of them settles the batch.

        What is reported is measured: a release, or this worker's death, gives back only the rest.

        Args:
            ids: m of `ids`; a later reward takes the place of an earlier one.
            rewards: (m,) finite floats. NaN: measured and failed, never to be measured again; a reward that is stored
                stays.

        Returns:
            The number of samples whose rewards are still to come.

        Raises:
            InvalidArgument: Where an id is not of this batch. Nothing is stored.
            InvalidReward: Where the rewards are infinite, or not one for each id. Nothing is stored.
            ClaimLost: As `settle` does.
        """
        reported = Reported.prepare(self._known, ids, rewards)
        store = functools.partial(
            report, claim=self._claim, reported=reported, may_close=not self._is_of_another_process
        )
        self._has_reports = True  # before it is committed: any process that settles has to look
        left = self._buffer.write(store)
        if left is None or (left == 0 and len(self)):
            self._end()
        if left is None:
            raise self._lost("its rewards are stored, and nothing else")
        return left

    def release(self) -> None:
        """Give the samples back to the pool, where they are first in line again, but for those already reported.

        Raises:
            ClaimLost: Where the batch is settled or released already, or the database has gone back to a state before
                its draw.
        """
        is_released = self._is_open and not self._is_of_another_process
        if self._claim is not None and not self._is_of_another_process:
            is_released = self._buffer.write(release, batch=self._claim)
        self._end()
        if not is_released:
            raise self._lost("no sample can be released")

    def witness(self) -> None:
        """Let this batch, which is committed, prove the numbers that were read before it."""
        if self._claim is not None:
            found_by = {"buffer": self._buffer.buffer_id, **self._claim.parameters()}
            self._buffer.lineage.last_draw = found_by

    @property
    def _is_of_another_process(self) -> bool:
        """True in a forked child."""
        return self._pid not in (None, os.getpid())

    def _end(self) -> None:
        """Note that the claim has ended; never that it has not, which another thread may have just found out."""
        self._is_open = False
        if self._dropped is not None:
            self._dropped.detach()

    def _lost(self, what: str) -> ClaimLost:
        """Return the error for a batch that this process cannot end, which says what has become of it."""
        if self._is_of_another_process:
            return ClaimLost(
                f"batch {self.id} belongs to process {self._pid}, and this process is its forked "
                f"child {os.getpid()}: {what}; settle the batch in process {self._pid}, or send "
                "it pickled to another process."
            )
        if self._claim is None or self._buffer.read(self._claim.find):
            return ClaimLost(f"batch {self.id} was already settled or released: {what}.")
        return ClaimLost(
            f"batch {self.id} is no longer in the database, which has returned to an earlier "
            f"state (failover to a lagging standby, restore): {what}; draw again."
        )

    def _reported(self, tx: Transaction) -> list[int]:
        """Return the samples that have been reported, perhaps by another thread, or by another process."""
        if self.id is None or not self._has_reports:
            return []
        found = tx.execute(queries.reported_samples(), batch=self.id)
        return list(found.scalars())

    def _settle(
        self,
        tx: Transaction,
        *,
        rewards: list[float | None],
        recorded: Recorded | None,
        metrics: Mapping[str, float],
        states: Mapping[str, bytes],
        kept: Mapping[str, int | None] | None,
        n_iterations: int,
    ) -> bool:
        buffer = self._buffer
        is_ours = self._is_open and not self._is_of_another_process
        if self._claim is not None and not self._is_of_another_process:
            is_ours = self._claim.close(tx, "settled_at") is not None
        measured = np.array([reward is not None for reward in rewards], dtype=bool)
        values = pool.as_floats(rewards)
        leaves = is_ours and buffer.consumes
        early = np.isin(
            self.ids, self._reported(tx) if is_ours else []
        )  # they may have been added again since
        deltas: Counter[str] = Counter()
        for part, stay_queued in ((measured & ~early, not leaves), (measured & early, True)):
            places = np.flatnonzero(part)
            options = {"stay_queued": stay_queued, "of_draws": is_ours and self._claim is not None}
            deltas.update(store_measured(tx, self._known, places, values[part], **options))
        if leaves:
            places = np.flatnonzero(~measured & ~early)
            pool.dequeue_known(tx, self.ids[places], [self._known.hash[i] for i in places.tolist()])
        if recorded is not None:  # it counts, after which no rows of others are locked
            write_recorded(tx, recorded)
        if not is_ours:
            tx.race_state()  # or say that the buffer is another one by now
            tx.count(**deltas)
            return False
        deltas.update(settled=len(self) - int(early.sum()), iterations=n_iterations)
        tx.count(**deltas)
        write_metrics(tx, iteration=self.iteration, values=metrics)
        settled = self.iteration + n_iterations
        write_checkpoints(tx, iteration=settled, states=states, kept=kept)
        return True


def _recorded(buffer: BufferHandle, record: Any) -> Recorded:
    """Check what is to be stored with a batch."""
    if not isinstance(record, (tuple, list)) or len(record) != 3:
        raise InvalidArgument(f"record must be (samples, rewards, sources), got {shown(record)}.")
    return Recorded.prepare(buffer, *record)


def _drop(pid: int, buffer: BufferHandle, claim: Claim) -> None:
    """Have the claim of a batch given back that is garbage, unless it is one that a forked child has inherited."""
    if pid == os.getpid():
        disposal.later(functools.partial(_give_back, buffer, claim), database=buffer.database.url)


def _give_back(buffer: BufferHandle, claim: Claim) -> None:
    # One that was rolled back is not found, though another may have its number by now.
    try:
        with contextlib.closing(buffer.database):
            is_released = buffer.write(release, batch=claim)
    except Exception as exc:
        log.warning(
            "could not release the dropped batch %d: it stays claimed until this process exits: %s",
            claim.batch,
            summary(exc),
        )
        return
    if is_released:
        log.warning(
            "batch %d of buffer %s was dropped without having been settled or released: its "
            "samples wait again; settle the batch, with or without rewards, or use it in a "
            "`with` block",
            claim.batch,
            shown(buffer.name),
        )


def release_dropped(buffer: BufferHandle) -> None:
    """Wait until the open batches of this process that are garbage are released: what a loop left that was given up."""
    if buffer.look(_has_open):
        gc.collect()  # a loop and its callbacks lead to each other
        disposal.wait(database=buffer.database.url)


def _has_open(tx: Transaction) -> bool:
    ours = sa.and_(batches.c.buffer_id == tx.buffer.buffer_id, batches.c.worker_id == worker_id())
    still_open = sa.and_(batches.c.settled_at.is_(None), batches.c.released_at.is_(None))
    return bool(tx.connection.scalar(sa.select(sa.exists().where(ours, still_open))))


def content(rows: Iterable[Any], buffer: BufferHandle) -> list[Any]:
    """Return the samples of rows with `text`, `payload` and `codec`."""
    columns = [(row.text, row.payload, row.codec) for row in rows]
    texts, payloads, codecs = map(list, zip(*columns, strict=True)) if columns else ([], [], [])
    return decode_all(texts, payloads, codecs, allow_pickle=buffer.allow_pickle)


def release(tx: Transaction, *, batch: int | Claim) -> bool:
    """Put a batch's samples back where they stood in the race; return False where the batch was closed before.

    With their old keys they are first in line, in the same order. Where nothing has happened in the race since, the
    clock goes back too, and the race is as if they had never been drawn.

    Args:
        tx: The transaction.
        batch: What a draw gave, or the number of a batch that was looked up in this transaction.
    """
    state = tx.lock_race(exclusive=True)
    if isinstance(batch, Claim):
        number, closed = batch.batch, batch.close(tx, "released_at")
    else:
        number, closed = batch, close(tx, queries.close_batch("released_at"), batch=batch)
    if closed is None:
        return False
    rows = tx.execute(queries.draws_of_batch(), batch=number).all()
    # A batch of which a part was reported remains a turn of the race: that part went on from it.
    is_whole = len(rows) == closed.size
    tx.count(batches=-int(is_whole), released=len(rows))
    may_go_back = is_whole and _is_as_before(state, closed)
    later = None
    if may_go_back or not tx.buffer.consumes:
        # An argmax share does not move the clock, yet it came from the samples that this draw had left.
        later = tx.execute(queries.later_draw(), batch=number).first()
    if may_go_back and later is None:
        pool.take_back_clock(tx, closed.clock_before)
        state = state._replace(clock=closed.clock_before)
    if tx.buffer.consumes:
        put_back(tx, state, rows)
        oldest = tx.execute(queries.oldest_version_of_batch(), batch=number).scalar()
        if (
            oldest is not None and pool.as_ints([oldest])[0] < state.version
        ):  # a refresh came to its end without them
            reopen(tx, version=oldest)
    else:
        _stand_again(tx, state, rows, is_last=later is None)
    return True


def _is_as_before(state: RaceState, closed: Closed) -> bool:
    """Tell whether the race, once all of a batch is back in it, is what it was before the draw, but for its clock.

    No other draw has gone beyond the batch's own end, and nothing has joined, left or got another weight since.
    Otherwise the clock stays, and the keys of the batch are overdue. (A clock below 0 has been turned back since.)
    """
    return (
        state.clock == closed.clock
        and max(state.touched, 0.0) <= closed.clock_before < closed.clock
    )


def put_back(tx: Transaction, state: RaceState, rows: Sequence[Any], *, entries: int = 1) -> None:
    """Let samples wait again: at their old keys, or at new ones where they have none or their weight is a new one.

    `entries` is how often they have entered the race then, which in replay mode names their variates.
    """
    scores, clock = pool.as_floats([row.score for row in rows]), state.clock
    lowest = np.fmin.reduce(scores, initial=math.inf)
    base = (
        math.inf if state.base is None else state.base
    )  # a refresh of what was left has raised or forgotten it
    if tx.buffer.settings.weighting.needs_base and lowest < base:
        state = pool.set_base(tx, state, float(lowest))
    weights = tx.buffer.settings.weights(scores, state.base)
    if tx.buffer.settings.weighting.needs_score:
        weights[[not row.scored for row in rows]] = math.nan
    keys, before = (
        pool.as_floats([row.race_key for row in rows]),
        pool.as_floats([row.weight for row in rows]),
    )
    joins = (keys == math.inf) | ((keys > clock) & (before != weights))
    if is_blurred(state.clock, weights[joins]):
        pool.turn_back(tx)
        state = state._replace(clock=0.0)
    if state.clock != clock:  # they would have moved with all others, had they waited
        keys = turned_back(keys, clock)
    hashes, counts = [row.hash for row in rows], [entries] * len(rows)
    fresh = pool.join_race(
        tx.buffer, state, hashes, [row.requeues for row in rows], counts, weights
    )
    given = keys
    keys = np.where(
        (weights > 0) & (keys < math.inf), _stretched(keys, state, before, weights), fresh
    )
    ids = [row.sample_id for row in rows]
    pool.enter(tx, state, ids, keys, weights, scores, counts)
    tx.count(
        touched=state.clock if np.any(keys[weights > 0] != given[weights > 0]) else None,
        unscored=int(np.isnan(weights).sum()),
        unscorable=int((weights == 0).sum()),
    )


def _stretched(keys: Floats, state: RaceState, before: Floats, weights: Floats) -> Floats:
    """Return the keys of drawn samples at the weights that they have by now.

    A key that the clock has not reached is that of an argmax draw. It stretches as those of waiting samples did.
    """
    changed = (before > 0.0) & (weights > 0.0) & (before != weights)
    stretched = keys.copy()
    stretched[changed] = rescaled(keys[changed], state.clock, before[changed], weights[changed])
    return stretched


def _stand_again(tx: Transaction, state: RaceState, rows: Sequence[Any], *, is_last: bool) -> None:
    """Undo a draw of replay mode, after which the samples went on waiting with new keys. Reads the whole pool.

    Their next entries have new variates: later draws depended on those of the entries that are undone, and a variate
    used twice would make batches depend on each other. Where no later draw is left, an interrupted run draws as one
    that was never interrupted, so the entry is taken off too.
    """
    drawn = {row.sample_id: row for row in rows}
    standing = pool.standing(tx, list(drawn))
    ids = [row.sample_id for row in standing]
    keys = pool.as_floats([row.race_key for row in standing])
    old, before = (
        pool.as_floats([getattr(drawn[i], name) for i in ids]) for name in ("race_key", "weight")
    )
    weights = pool.as_floats([row.weight for row in standing])
    back = np.where(
        (old < math.inf) & (weights > 0.0), _stretched(old, state, before, weights), keys
    )
    entries = [row.entries - is_last for row in standing]
    scores = pool.as_floats([row.score for row in standing])
    pool.move(tx, state, ids, (keys, weights), back, weights, scores, entries)
    if np.any((old < math.inf) & (back != old)):
        tx.count(touched=state.clock)


def release_dead(buffer: BufferHandle) -> int:
    """Release the open batches and jobs of dead workers and drop their rows; return how many batches went back."""
    gone = buffer.read(leases.dead_workers)
    return buffer.write(_bury, gone=gone) if gone else 0


def _bury(tx: Transaction, *, gone: Mapping[str, Mark]) -> int:
    tx.lock_race(exclusive=True)  # before any row, as everybody does
    dead = lock_dead(tx, gone)
    forget_receipts(tx)
    n_released = release_open(tx, dead)
    leases.let_go(tx, dead)
    for worker in dead:
        fold(tx, worker=worker)
    return n_released


def release_open(tx: Transaction, owners: Sequence[str]) -> int:
    """Release the open batches of some workers; return how many."""
    find = (
        sa.select(batches.c.id)
        .where(batches.c.buffer_id == tx.buffer.buffer_id)
        .where(batches.c.worker_id.in_(owners))
        .where(batches.c.settled_at.is_(None))
        .where(batches.c.released_at.is_(None))
        .order_by(batches.c.id.desc())  # the last draw of a sample is undone first
    )
    still_open = tx.connection.scalars(find).all()
    return sum(release(tx, batch=batch) for batch in still_open)
