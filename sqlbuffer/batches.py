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

from sqlbuffer import disposal, leases, pool, statements
from sqlbuffer.adding import Known, Recorded, store_measured
from sqlbuffer.adding import record as write_recorded
from sqlbuffer.attachment import Attachment, RaceState
from sqlbuffer.codec import decode_all
from sqlbuffer.errors import ClaimLost, DatabaseUnavailable, InvalidArgument, shown, summary
from sqlbuffer.names import as_rewards, require_flag
from sqlbuffer.progress import states_from, write_checkpoints, write_metrics
from sqlbuffer.race import Floats, Ints, is_blurred, rescaled, turned_back
from sqlbuffer.records import SampleInfo
from sqlbuffer.reporting import Claim, Closed, Reported, close, report
from sqlbuffer.schema import batches
from sqlbuffer.weighing import reopen
from sqlbuffer.workers import Mark, fold, forget_receipts, lock_dead, worker_id

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
        attachment: Attachment,
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
        self.samples = decode_all(drawn.text, drawn.payload, drawn.codec, allow_pickle=attachment.allow_pickle)
        self.sources = list(drawn.source)
        self.ids: Ints = pool.as_ints(drawn.sample_id)
        self.scores: Floats = pool.as_floats(drawn.score)
        self.weights: Floats = pool.as_floats(drawn.weight)
        self.info = info
        self._attachment = attachment
        self._claim = claim
        self._known = Known(self.ids, drawn.hash, drawn.text, drawn.payload, drawn.codec, drawn.source)
        self._is_open = True
        self._has_reports = False
        self._pid: int | None = os.getpid()
        self._dropped: weakref.finalize[..., Any] | None = None
        if claim is not None:
            self._dropped = weakref.finalize(self, _drop, self._pid, attachment.in_disposal, claim)
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
            log.warning("could not release the batch: it stays claimed until this process exits: %s", summary(exc))
        except BaseException as exc:
            if not isinstance(exc, Exception):  # a signal amid it: nobody else has the batch
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
        recorded = None if record is None else _recorded(self._attachment, record)
        settle = functools.partial(
            self._settle,
            rewards=values,
            recorded=recorded,
            metrics={} if metrics is None else metrics,
            states=states_from(checkpoint),
            kept=kept,
            n_iterations=int(require_flag(is_iteration, "is_iteration")),
        )
        is_settled = self._attachment.database.write(settle)
        self._end()
        if not is_settled:
            raise self._lost("its rewards are stored, nothing else")

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
            report,
            attachment=self._attachment,
            claim=self._claim,
            reported=reported,
            may_close=not self._is_of_another_process,
        )
        self._has_reports = True  # before it is committed: whoever settles has to look
        left = self._attachment.database.write(store)
        if left is None or (left == 0 and len(self)):
            self._end()
        if left is None:
            raise self._lost("its rewards are stored, nothing else")
        return left

    def release(self) -> None:
        """Give the samples back to the pool, where they are first in line again, but for those already reported.

        Raises:
            ClaimLost: Where the batch is settled or released already, or the database has gone back to a state before
                its draw.
        """
        is_released = self._is_open and not self._is_of_another_process
        if self._claim is not None and not self._is_of_another_process:
            give_back = functools.partial(release, attachment=self._attachment, batch=self._claim)
            is_released = self._attachment.database.write(give_back)
        self._end()
        if not is_released:
            raise self._lost("there is nothing to give back")

    def witness(self) -> None:
        """Let this batch, which is committed, prove the numbers that were read before it."""
        if self._claim is not None:
            found_by = {"buffer": self._attachment.buffer_id, **self._claim.parameters()}
            self._attachment.lineage.last_draw = found_by

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
                f"batch {self.id} belongs to process {self._pid}, which drew it, and this is its child {os.getpid()}: "
                f"{what}; settle it there, or send it pickled to the process that is to settle it."
            )
        if self._claim is None or self._attachment.database.read(functools.partial(self._claim.find, self._attachment)):
            return ClaimLost(f"batch {self.id} was settled or released before: {what}.")
        return ClaimLost(
            f"batch {self.id} is not in the database any more, which has gone back to an earlier state (by a failover "
            f"to a standby that lagged, or a restore): {what}; draw again."
        )

    def _reported(self, connection: sa.Connection) -> list[int]:
        """Return the samples that have been reported, perhaps by another thread, or by another process."""
        if self.id is None or not self._has_reports:
            return []
        found = self._attachment.run(connection, statements.reported_samples(), batch=self.id)
        return list(found.scalars())

    def _settle(
        self,
        connection: sa.Connection,
        *,
        rewards: list[float | None],
        recorded: Recorded | None,
        metrics: Mapping[str, float],
        states: Mapping[str, bytes],
        kept: Mapping[str, int | None] | None,
        n_iterations: int,
    ) -> bool:
        attachment = self._attachment
        is_ours = self._is_open and not self._is_of_another_process
        if self._claim is not None and not self._is_of_another_process:
            is_ours = self._claim.close(connection, attachment, "settled_at") is not None
        measured = np.array([reward is not None for reward in rewards], dtype=bool)
        values = pool.as_floats(rewards)
        leaves = is_ours and attachment.consumes
        early = np.isin(self.ids, self._reported(connection) if is_ours else [])  # they may have been added again since
        deltas: Counter[str] = Counter()
        for part, stay_queued in ((measured & ~early, not leaves), (measured & early, True)):
            places = np.flatnonzero(part)
            store = functools.partial(store_measured, connection, attachment, self._known, places, values[part])
            deltas.update(store(stay_queued=stay_queued))
        if leaves:
            places = np.flatnonzero(~measured & ~early)
            pool.dequeue_known(connection, attachment, self.ids[places], [self._known.hash[i] for i in places.tolist()])
        if recorded is not None:  # it counts, after which no rows of others are locked
            write_recorded(connection, attachment, recorded)
        if not is_ours:
            attachment.race_state(connection)  # or say that the buffer is another one by now
            attachment.count(connection, **deltas)
            return False
        deltas.update(settled=len(self) - int(early.sum()), iterations=n_iterations)
        attachment.count(connection, **deltas)
        write_metrics(connection, attachment, iteration=self.iteration, values=metrics)
        settled = self.iteration + n_iterations
        write_checkpoints(connection, attachment, iteration=settled, states=states, kept=kept)
        return True


def _recorded(attachment: Attachment, record: Any) -> Recorded:
    """Check what is to be stored with a batch."""
    if not isinstance(record, (tuple, list)) or len(record) != 3:
        raise InvalidArgument(f"record must be (samples, rewards, sources), got {shown(record)}.")
    return Recorded.prepare(attachment, *record)


def _drop(pid: int, attachment: Attachment, claim: Claim) -> None:
    """Have the claim of a batch given back that is garbage, unless it is one that a forked child has inherited."""
    if pid == os.getpid():
        disposal.later(functools.partial(_give_back, attachment, claim), database=attachment.database.url)


def _give_back(attachment: Attachment, claim: Claim) -> None:
    # One that was rolled back is not found, though another may have its number by now.
    give_back = functools.partial(release, attachment=attachment, batch=claim)
    try:
        with contextlib.closing(attachment.database):
            is_released = attachment.database.write(give_back)
    except Exception as exc:
        log.warning(
            "could not release batch %d, which was dropped: it stays claimed until this process exits: %s",
            claim.batch,
            summary(exc),
        )
        return
    if is_released:
        log.warning(
            "batch %d of buffer %s was dropped without having been settled or released: its samples wait again; settle "
            "it, without rewards where there are none, or use it in a `with` block",
            claim.batch,
            shown(attachment.name),
        )


def release_dropped(attachment: Attachment) -> None:
    """Wait until the open batches of this process that are garbage are released: what a loop left that was given up."""
    if attachment.database.look(functools.partial(_has_open, attachment=attachment)):
        gc.collect()  # a loop and its callbacks lead to each other
        disposal.wait(database=attachment.database.url)


def _has_open(connection: sa.Connection, *, attachment: Attachment) -> bool:
    ours = sa.and_(batches.c.buffer_id == attachment.buffer_id, batches.c.worker_id == worker_id())
    still_open = sa.and_(batches.c.settled_at.is_(None), batches.c.released_at.is_(None))
    return bool(connection.scalar(sa.select(sa.exists().where(ours, still_open))))


def content(rows: Iterable[Any], attachment: Attachment) -> list[Any]:
    """Return the samples of rows with `text`, `payload` and `codec`."""
    columns = [(row.text, row.payload, row.codec) for row in rows]
    texts, payloads, codecs = map(list, zip(*columns, strict=True)) if columns else ([], [], [])
    return decode_all(texts, payloads, codecs, allow_pickle=attachment.allow_pickle)


def release(connection: sa.Connection, *, attachment: Attachment, batch: int | Claim) -> bool:
    """Put a batch's samples back where they stood in the race; return False where the batch was closed before.

    With their old keys they are first in line, in the same order. Where nothing has happened in the race since, the
    clock goes back too, and the race is as if they had never been drawn.

    Args:
        connection: The transaction.
        attachment: The buffer.
        batch: What a draw gave, or the number of a batch that was looked up in this transaction.
    """
    state = attachment.race(connection, exclusive=True)
    if isinstance(batch, Claim):
        number, closed = batch.batch, batch.close(connection, attachment, "released_at")
    else:
        number, closed = batch, close(connection, attachment, statements.close_batch("released_at"), batch=batch)
    if closed is None:
        return False
    rows = attachment.run(connection, statements.draws_of_batch(), batch=number).all()
    # A batch of which a part was reported remains a turn of the race: that part went on from it.
    is_whole = len(rows) == closed.size
    attachment.count(connection, batches=-int(is_whole), released=len(rows))
    may_go_back = is_whole and _is_as_before(state, closed)
    later = None
    if may_go_back or not attachment.consumes:
        # An argmax share does not move the clock, yet it came from the samples that this draw had left.
        later = attachment.run(connection, statements.later_draw(), batch=number).first()
    if may_go_back and later is None:
        pool.take_back_clock(connection, attachment, closed.clock_before)
        state = state._replace(clock=closed.clock_before)
    if attachment.consumes:
        put_back(connection, attachment, state, rows)
        oldest = attachment.run(connection, statements.oldest_version_of_batch(), batch=number).scalar()
        if oldest is not None and pool.as_ints([oldest])[0] < state.version:  # a refresh came to its end without them
            reopen(connection, attachment, version=oldest)
    else:
        _stand_again(connection, attachment, state, rows, is_last=later is None)
    return True


def _is_as_before(state: RaceState, closed: Closed) -> bool:
    """Tell whether the race, once all of a batch is back in it, is what it was before the draw, but for its clock.

    No other draw has gone beyond the batch's own end, and nothing has joined, left or got another weight since.
    Otherwise the clock stays, and the keys of the batch are overdue. (A clock below 0 has been turned back since.)
    """
    return state.clock == closed.clock and max(state.touched, 0.0) <= closed.clock_before < closed.clock


def put_back(
    connection: sa.Connection, attachment: Attachment, state: RaceState, rows: Sequence[Any], *, entries: int = 1
) -> None:
    """Let samples wait again: at their old keys, or at new ones where they have none or their weight is a new one.

    `entries` is how often they have entered the race then, which in replay mode names their variates.
    """
    scores, clock = pool.as_floats([row.score for row in rows]), state.clock
    lowest = np.fmin.reduce(scores, initial=math.inf)
    base = math.inf if state.base is None else state.base  # a refresh of what was left has raised or forgotten it
    if attachment.settings.weighting.needs_base and lowest < base:
        state = pool.set_base(connection, attachment, state, float(lowest))
    weights = attachment.weights(scores, state.base)
    if attachment.settings.weighting.needs_score:
        weights[[not row.scored for row in rows]] = math.nan
    keys, before = pool.as_floats([row.race_key for row in rows]), pool.as_floats([row.weight for row in rows])
    joins = (keys == math.inf) | ((keys > clock) & (before != weights))
    if is_blurred(state.clock, weights[joins]):
        pool.turn_back(connection, attachment=attachment)
        state = state._replace(clock=0.0)
    if state.clock != clock:  # they would have moved with all others, had they waited
        keys = turned_back(keys, clock)
    hashes, counts = [row.hash for row in rows], [entries] * len(rows)
    fresh = pool.join_race(attachment, state, hashes, [row.requeues for row in rows], counts, weights)
    given = keys
    keys = np.where((weights > 0) & (keys < math.inf), _stretched(keys, state, before, weights), fresh)
    ids = [row.sample_id for row in rows]
    pool.enter(connection, attachment, state, ids, hashes, keys, weights, scores, counts)
    attachment.count(
        connection,
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


def _stand_again(
    connection: sa.Connection, attachment: Attachment, state: RaceState, rows: Sequence[Any], *, is_last: bool
) -> None:
    """Undo a draw of replay mode, after which the samples went on waiting with new keys. Reads the whole pool.

    Their next entries have new variates: later draws depended on those of the entries that are undone, and a variate
    used twice would make batches depend on each other. Where no later draw is left, an interrupted run draws as one
    that was never interrupted, so the entry is taken off too.
    """
    drawn = {row.sample_id: row for row in rows}
    standing = pool.standing(connection, attachment, list(drawn))
    ids = [row.sample_id for row in standing]
    keys = pool.as_floats([row.race_key for row in standing])
    old, before = (pool.as_floats([getattr(drawn[i], name) for i in ids]) for name in ("race_key", "weight"))
    weights = pool.as_floats([row.weight for row in standing])
    back = np.where((old < math.inf) & (weights > 0.0), _stretched(old, state, before, weights), keys)
    entries = [row.entries - is_last for row in standing]
    scores = pool.as_floats([row.score for row in standing])
    pool.move(connection, attachment, state, ids, (keys, weights), back, weights, scores, entries)
    if np.any((old < math.inf) & (back != old)):
        attachment.count(connection, touched=state.clock)


def release_dead(attachment: Attachment) -> int:
    """Release the open batches and jobs of dead workers and drop their rows; return how many batches went back."""
    gone = attachment.database.read(functools.partial(leases.dead_workers, attachment=attachment))
    return attachment.database.write(functools.partial(_bury, attachment=attachment, gone=gone)) if gone else 0


def _bury(connection: sa.Connection, *, attachment: Attachment, gone: Mapping[str, Mark]) -> int:
    attachment.race(connection, exclusive=True)  # before any row, as everybody does
    dead = lock_dead(connection, attachment.database.dialect, attachment.buffer_id, gone)
    forget_receipts(connection)
    n_released = release_open(connection, attachment, dead)
    leases.let_go(connection, attachment, dead)
    for worker in dead:
        fold(connection, attachment.buffer_id, worker=worker)
    return n_released


def release_open(connection: sa.Connection, attachment: Attachment, owners: Sequence[str]) -> int:
    """Release the open batches of some workers; return how many."""
    find = (
        sa.select(batches.c.id)
        .where(batches.c.buffer_id == attachment.buffer_id)
        .where(batches.c.worker_id.in_(owners))
        .where(batches.c.settled_at.is_(None))
        .where(batches.c.released_at.is_(None))
        .order_by(batches.c.id.desc())  # the last draw of a sample is undone first
    )
    still_open = connection.scalars(find).all()
    return sum(release(connection, attachment=attachment, batch=batch) for batch in still_open)
