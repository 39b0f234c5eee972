"""Copy of a buffer within its database, to try other settings from the same state."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from sqlbuffer._integrity import numbers_of, tampered
from sqlbuffer._validation import as_evict, as_max_size, require_flag, require_int
from sqlbuffer.core.attach import require_name
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.heartbeat import Heartbeat
from sqlbuffer.core.release import put_back, release
from sqlbuffer.core.settings import Settings
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.weighting import Weighting, weighting_from, weighting_settings
from sqlbuffer.core.weights import progress_bar
from sqlbuffer.core.workers import LEDGER, fold, register, worker_id
from sqlbuffer.db import queries
from sqlbuffer.db.queries.buffers import COUNTERS
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.maintenance.repair import END_OF_TICKS, END_OF_TIME, recount
from sqlbuffer.maintenance.transfer import refuse_changes, transfer

log = logging.getLogger(__name__)

IDS_AT_ONCE = 50_000
"""Length of the range of sample numbers that one statement copies."""

_END_OF_THE_RUN = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Moment:
    """The moment whose state is copied; by default now."""

    iteration: int = _END_OF_THE_RUN
    """The first iteration that is not copied."""
    tick: int = END_OF_TICKS
    """Rows with an earlier logical time are copied."""
    cutoff: dt.datetime = END_OF_TIME
    """Rows without a logical time, of an older release, are copied if their time is earlier."""
    version: int | None = None
    """The newest version of scores at that moment; None for the newest of all."""
    objective: str | None = None
    """The objective at that moment; None for the present one."""
    last_of_others: int = -1
    """Logical time of the last measurement of an earlier objective."""

    @property
    def is_now(self) -> bool:
        """True if everything is copied."""
        return self.iteration == _END_OF_THE_RUN

    @property
    def is_told_by_times(self) -> bool:
        """True if only the clock of a host gives the order of events."""
        return self.cutoff != END_OF_TIME


def copy(
    buffer: BufferHandle,
    new: str | None = None,
    *,
    to_url: str | sa.URL | None = None,
    at_iteration: int | None = None,
    seed: int | None = None,
    weighting: str | Weighting | None = None,
    mode: str | None = None,
    max_size: int | None = None,
    evict: str | None = None,
    predictors: bool = True,
    silent: bool = True,
) -> BufferHandle:
    """Copy a buffer under another name, or into another database; see `SampleStore.copy`."""
    if to_url is not None:
        refuse_changes(
            at_iteration=at_iteration,
            seed=seed,
            weighting=weighting,
            mode=mode,
            max_size=max_size,
            evict=evict,
            predictors=predictors,
        )
        return transfer(buffer, to_url, new, silent=silent)
    if new is None:
        raise InvalidArgument(
            "a copy within the database needs a name: give one, or the URL of another database "
            "(`to_url=`, `--to-url`)."
        )
    new, silent = require_name(new), require_flag(silent, "silent")
    limits = {"max_size": as_max_size(max_size), "evict": as_evict(evict)}
    old = buffer.settings
    settings = Settings(
        old.mode if mode is None else mode,
        old.seed if seed is None else seed,
        old.weighting if weighting is None else weighting_from(weighting),
    )
    with progress_bar(f"copying {buffer.name}", silent=silent) as advance:
        buffer_id, moment = buffer.write_from_one_state(
            _copy,
            new=new,
            settings=settings,
            limits=limits,
            at_iteration=at_iteration,
            with_predictors=require_flag(predictors, "predictors"),
            advance=advance,
        )
    if moment.is_told_by_times:
        _warn_of_times(buffer.name, new, at_iteration)
    identity: Any = {"buffer_id": buffer_id, "name": new, "settings": settings}
    copied = dataclasses.replace(buffer, **identity, created_at=None, heartbeat=Heartbeat())
    row = copied.read(lambda tx: tx.own_row(queries.audit.buffer_row()))
    return dataclasses.replace(copied, created_at=row.created_at, heartbeat=Heartbeat())


def _warn_of_times(name: str, new: str, at_iteration: int | None) -> None:
    log.warning(
        "iteration %s of buffer %r was begun by an older release, which stored times "
        "instead of an order: if the clock of its host was set back or forward since, the "
        "copy %r may have too few or too many samples or rewards",
        at_iteration,
        name,
        new,
    )


def _copy(
    tx: Transaction,
    *,
    new: str,
    settings: Settings,
    limits: Mapping[str, Any],
    at_iteration: int | None,
    with_predictors: bool,
    advance: Callable[[int], None],
) -> tuple[int, Moment]:
    moment = _moment(tx, at_iteration)
    buffer_id = _create(tx, new, settings, moment, limits=limits)
    copied = tx.on(
        dataclasses.replace(
            tx.buffer,
            buffer_id=buffer_id,
            name=new,
            settings=settings,
            created_at=None,
            heartbeat=Heartbeat(),
        )
    )
    same_race = moment.is_now and (settings.seed, settings.weighting) == _race_of(
        tx.buffer.settings
    )
    take = functools.partial(_take, tx, copied, moment, is_whole=same_race)
    is_pruned = tx.own_row(queries.audit.buffer_row()).pruned_batch is not None
    for part in _ranges(tx):
        statement = (
            queries.copy.copy_samples()
            if moment.is_now
            else queries.copy.copy_samples_then(is_pruned)
        )
        advance(take(statement, **part))
    for statement in (
        queries.copy.copy_batches(),
        queries.copy.copy_draws(),
        queries.copy.copy_measurements(),
    ):
        advance(take(statement))
    if is_pruned:
        take(queries.copy.copy_pruned())
    if same_race:
        advance(take(queries.copy.copy_pool()))
        _take_counters(tx, copied)
        # In the mode of the original: if it replays, the samples of an open batch wait already.
        as_before = tx.on(dataclasses.replace(copied.buffer, settings=tx.buffer.settings))
        for batch in tx.execute(queries.copy.open_batches(), buffer=buffer_id).scalars().all():
            release(as_before, batch=batch)
    else:
        _begin_race(tx, copied, moment, advance=advance)
    if not same_race or settings.mode != tx.buffer.settings.mode:
        recount(copied)
    if with_predictors:
        take(queries.copy.copy_predictors())
    for statement in (queries.copy.copy_metrics(), queries.copy.copy_checkpoints()):
        take(statement)
    fold(copied, worker=worker_id())
    return buffer_id, moment


def _race_of(settings: Settings) -> tuple[int, Weighting]:
    return settings.seed, settings.weighting


def _moment(tx: Transaction, at_iteration: int | None) -> Moment:
    if at_iteration is None:
        return Moment()
    reached = int(tx.execute(queries.buffers.totals()).one().iterations)
    rule = (
        f"at_iteration must be from 0 to {reached}, the number of batches that "
        f"{tx.buffer.name!r} has settled"
    )
    at_iteration = require_int(at_iteration, rule, least=0, most=reached)
    least = tx.execute(queries.prune.first_iteration()).scalar()
    if least is not None and at_iteration < least:
        later = f"give {least} or later, or " if least <= reached else ""
        raise InvalidArgument(
            f"buffer {tx.buffer.name!r} cannot be copied as it was at iteration {at_iteration}, "
            f"because draws of iteration {least - 1} were dropped by `prune`: {later}leave out "
            "at_iteration, which copies the present state."
        )
    first = tx.execute(queries.moments.began(), from_iteration=at_iteration).one_or_none()
    moment = Moment(at_iteration)
    if first is not None and first.drawn_tick is not None:
        moment = Moment(at_iteration, tick=first.drawn_tick)
    elif first is not None:  # rows that have a tick were stored later
        moment = Moment(at_iteration, tick=0, cutoff=first.drawn_at)
    parameters = {
        "from_iteration": at_iteration,
        "cutoff": moment.cutoff,
        "cutoff_tick": moment.tick,
    }
    then = tx.execute(queries.moments.version_then(), **parameters).one()
    parameters["first"] = None if first is None else first.id
    objective = tx.own_row(queries.moments.objective_then(), **parameters).objective
    others = queries.moments.last_of_other_objectives()
    return dataclasses.replace(
        moment,
        version=max(then.trained or 0, then.scored or 0),
        objective=objective,
        last_of_others=tx.execute(others, **parameters, of_objective=objective).scalar_one(),
    )


def _create(
    tx: Transaction, new: str, settings: Settings, moment: Moment, *, limits: Mapping[str, Any]
) -> int:
    """Insert the row of the copy, and its ledger; return its id.

    `limits` are other values of columns of the buffer; None for the value of the original.
    """
    state = tx.race_state()
    version = state.version if moment.version is None else min(moment.version, state.version)
    row = tx.own_row(queries.audit.buffer_row())
    with numbers_of(f"buffer {tx.buffer.name!r}"):
        refresh_version = min(int(row.refresh_version), version)
        refreshed_version = min(int(row.refreshed_version), version)
    values = {
        "name": new,
        "kind": settings.weighting.name,
        "mode": settings.mode,
        "seed": str(settings.seed),
        "base_score": state.base,
        "top_score": state.top_score,
        **{name: getattr(row, name) if limit is None else limit for name, limit in limits.items()},
        "score_version": version,
        "refresh_version": refresh_version,
        "refreshed_version": refreshed_version,
        "settings": {"weighting": weighting_settings(settings.weighting)},
        "key": row.key,
        "direction": row.direction,
        "objective": row.objective if moment.objective is None else moment.objective,
        "max_attempts": row.max_attempts,
        "keep_key": row.keep_key,
    }
    created = tx.connection.execute(queries.copy.copy_buffer(tx.backend), values).scalar()
    if created is None:
        raise InvalidArgument(
            f"buffer {new!r} already exists in {tx.buffer.database.url}: give the copy another "
            "name."
        )
    register(tx.connection, tx.backend, created, worker=LEDGER)
    _set_counters(tx, int(created), tick=state.tick - 1)  # later than every copied row
    return int(created)


def _take(tx: Transaction, copied: Transaction, moment: Moment, statement: Any, **more: Any) -> int:
    """Execute a statement that copies rows, with all parameters it may have; count the rows."""
    parameters = {
        "source": tx.buffer.buffer_id,
        "cutoff": moment.cutoff,
        "cutoff_tick": moment.tick,
        "from_iteration": moment.iteration,
        "newest": moment.version,
        "of_objective": moment.objective,
        "last_of_others": moment.last_of_others,
        "consumes": tx.buffer.consumes,
        **more,
    }
    return int(copied.execute(statement, **parameters).rowcount)


def _ranges(tx: Transaction) -> Iterator[dict[str, int]]:
    """Yield ranges of ids that cover the samples of a buffer."""
    numbers = tx.execute(queries.copy.id_range()).one()
    lowest = numbers.lowest
    while lowest is not None:
        if lowest < 1:
            raise tampered(
                f"a sample of buffer {tx.buffer.name!r} has the id {lowest}, but ids begin at 1"
            )
        last = min(lowest - 1 + IDS_AT_ONCE, numbers.highest)
        yield {"after": lowest - 1, "last": last}
        # Ids of other buffers lie between: the next range begins at the next id of this buffer.
        lowest = tx.execute(queries.copy.next_id(), after=last).scalar()


def _take_counters(tx: Transaction, copied: Transaction) -> None:
    totals = tx.execute(queries.buffers.totals()).one()
    with numbers_of(f"the counters of buffer {tx.buffer.name!r}"):
        counters = {name: int(getattr(totals, name)) for name in COUNTERS}
        clocks = {name: float(getattr(totals, name)) for name in ("clock", "touched")}
    _set_counters(tx, copied.buffer.buffer_id, **clocks, **counters)


def _set_counters(tx: Transaction, buffer_id: int, **values: Any) -> None:
    tx.execute(queries.workers.set_ledger(values), buffer=buffer_id)


def _begin_race(
    tx: Transaction, copied: Transaction, moment: Moment, *, advance: Callable[[int], None]
) -> None:
    """Put all waiting samples into a new race, and set counters; `recount` corrects the others."""
    counts = copied.execute(queries.copy.history_counts()).one()
    totals = tx.execute(queries.buffers.totals()).one()
    _set_counters(
        tx,
        copied.buffer.buffer_id,
        batches=counts.batches,
        iterations=int(totals.iterations) if moment.is_now else moment.iteration,
        added=counts.stored - counts.recorded,
        recorded=counts.recorded,
        drawn=counts.drawn,
        settled=counts.drawn,
    )
    needs_base = copied.buffer.settings.weighting.needs_base
    base = copied.execute(queries.copy.lowest_queued()).scalar() if needs_base else None
    # Weights match the scores, even if a refresh of the original is under way.
    copied.execute(queries.copy.restart_race(), base=base)
    state = copied.lock_race(exclusive=True)
    for part in _ranges(copied):
        rows = copied.execute(queries.copy.queued_samples(), **part).all()
        put_back(copied, state, rows)
        advance(len(rows))
