"""What scoring and refreshing do with scores: into the samples, and by way of the weights into the race."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeAlias

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from sqlbuffer._integrity import tampered
from sqlbuffer._messages import printable
from sqlbuffer._typing import Floats, Ints
from sqlbuffer.core import pool, race
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.db import queries
from sqlbuffer.db.schema import buffers

log = logging.getLogger(__name__)

ScoreFunction: TypeAlias = Callable[[list[Any]], Any]

P = ParamSpec("P")


class GoneBack(Exception):
    """A number is that of another sample, or of none: the database has gone back to an earlier state since it was read.

    The transaction that finds it stores nothing; the work begins again from what the database has now.
    """


class Overtaken(Exception):
    """A predictor was stored, or a refresh has begun, after the version that the scorer is known to be of.

    Nothing was written: the scorer is to look for a newer predictor first.
    """


_TIMES = 3
"""How often work begins again: a database that goes back more often while it lasts is a broken one."""


def beginning_again(what: str, work: Callable[P, int], *args: P.args, **kwargs: P.kwargs) -> int:
    """Call `work`, again if the database has returned to an earlier state during the call; return its result."""
    for _ in range(_TIMES):
        try:
            return work(*args, **kwargs)
        except GoneBack:
            log.warning(
                "the database has returned to an earlier state (failover, restore): %s starts again",
                what,
            )
    raise tampered("waiting samples are not stored, or their numbers change repeatedly")


class Scored(NamedTuple):
    """Columns of `queries.scored`."""

    sample_id: Sequence[int] = ()
    hash: Sequence[bytes] = ()
    score: Sequence[float | None] = ()
    score_version: Sequence[int | None] = ()
    text: Sequence[str] = ()
    payload: Sequence[bytes | None] = ()
    codec: Sequence[str] = ()


@contextlib.contextmanager
def progress_bar(
    description: str, *, silent: bool, total: int | None = None
) -> Iterator[Callable[[int], None]]:
    """Give a function that says how many more are done."""
    if silent:
        yield lambda n: None
        return
    from rich.markup import escape
    from rich.progress import (
        Progress,
    )  # only where a process looks on: most processes never need it

    with Progress(transient=True) as progress:
        task = progress.add_task(escape(printable(description)), total=total)
        yield lambda n: progress.update(task, advance=n)


def read_scored(tx: Transaction, *, ids: Ints) -> Scored:
    """Return samples and scores, in the order of the ids.

    Raises:
        GoneBack: Where one is not there any more.
    """
    statement = queries.scored(tx.backend)
    rows = tx.execute_with(statement, queries.INCOMING_IDS, {"sample_id": ids.tolist()}).all()
    if len(rows) != len(ids):
        raise GoneBack
    return Scored(*zip(*rows, strict=True))


def keep(
    tx: Transaction,
    *,
    ids: Sequence[int],
    hashes: Sequence[bytes],
    scores: Floats,
    version: int,
    only_older: bool = False,
) -> int:
    """Write scores into the samples, whose ids are sorted, or only where theirs are older; return into how many.

    The transaction must also `count`.

    Raises:
        GoneBack: Where a number is not that of the sample of this hash.
    """
    if not len(ids):
        return 0
    columns = {"sample_id": ids, "hash": hashes, "score": pool.as_weights(scores)}
    statement, shape = (
        queries.store_newer_scores if only_older else queries.store_scores,
        queries.INCOMING_SCORES,
    )
    dialect, more = tx.backend, {"version": version, "tick": tx.tick()}
    n_kept = tx.execute_each(statement(dialect), shape, columns, **more)
    if n_kept < len(ids):  # theirs are newer, unless they are others
        found = tx.execute_with(
            queries.samples_by_id(dialect), queries.INCOMING_IDS, {"sample_id": ids}
        )
        if {row.id: row.hash for row in found} != dict(zip(ids, hashes, strict=True)):
            raise GoneBack
    return n_kept


def begin_version(tx: Transaction, *, by: int | None, again: bool, is_full: bool) -> int:
    """Begin a refresh, under a new version if it is to score `again`; return its version.

    Args:
        tx: A writing transaction.
        by: Version that the scorer is known to be of, None where it is not known.
        again: Begin a new version.
        is_full: The refresh scores everything that is stale, and ends itself.

    Raises:
        Overtaken: There is a newer version than `by`.
    """
    version = buffers.c.score_version + int(again)
    begin = sa.update(buffers).where(buffers.c.id == tx.buffer.buffer_id)
    begin = begin if by is None else begin.where(buffers.c.score_version == by)
    values = {"score_version": version} | ({"refresh_version": version} if is_full else {})
    begun: int | None = tx.connection.scalar(
        begin.values(values).returning(buffers.c.score_version)
    )
    if begun is None:
        raise Overtaken
    return begun


def reopen(tx: Transaction, *, version: int) -> None:
    """Note that something waits whose score is of an older version than the newest finished refresh gave.

    So the next refresh with a budget looks for it. A refresh of everything that is under way finds it anyway.
    """
    tx.execute(queries.reopen_refresh(), version=version)


def take_in(
    tx: Transaction, state: RaceState, scores: Floats, *, may_move_all: bool
) -> tuple[RaceState, Floats] | None:
    """Return where the race stands then, and the weights of scores that come into it.

    None where that would move every key, for a new lowest score or a clock that blurs these weights: it may where the
    caller has the race exclusively.
    """
    lowest = np.fmin.reduce(scores)
    is_lower = tx.buffer.settings.weighting.needs_base and (
        state.base is None or lowest < state.base
    )
    base = float(lowest) if is_lower and not math.isnan(lowest) else state.base
    weights = tx.buffer.settings.weights(scores, base)
    is_blurred = race.is_blurred(state.clock, weights)
    if not may_move_all and (base != state.base or is_blurred):
        return None
    if is_blurred:
        pool.turn_back(tx)
        state = state._replace(clock=0.0)
    if base is not None and base != state.base:
        state = pool.set_base(tx, state, base)
    return state, weights


def change_weights(
    tx: Transaction,
    state: RaceState,
    ids: Ints,
    keys: Floats,
    old: Floats,
    new: Floats,
    scores: Floats,
    entries: Ints,
) -> NDArray[np.bool_]:
    """Give waiting samples other weights, and their keys with them; tell which, (n,) bool, still stood at their key.

    Args:
        tx: The transaction.
        state: The race.
        ids: (n,) numbers of the samples.
        keys: (n,) their keys so far.
        old: (n,) their weights so far; NaN where there is none.
        new: (n,) their weights from now on.
        scores: (n,) the scores that these come from.
        entries: (n,) how often they have entered the race so far.
    """
    moving = np.where(new == old, keys, math.inf)
    both = (old > 0) & (new > 0) & (new != old)
    moving[both] = race.rescaled(keys[both], state.clock, old[both], new[both])
    joining = np.flatnonzero(~(old > 0) & (new > 0))
    entries = entries + np.isin(np.arange(len(ids)), joining)
    moving[joining] = _joining(tx, state, ids[joining], entries[joining], new[joining])
    moved = pool.move(tx, state, ids.tolist(), (keys, old), moving, new, scores, entries.tolist())
    tx.count(
        touched=state.clock if moved.any() else None,
        unscored=-int(np.isnan(old[moved]).sum()),
        unscorable=int((new[moved] == 0).sum() - (old[moved] == 0).sum()),
    )
    return moved


def _joining(
    tx: Transaction, state: RaceState, ids: Ints, entries: Ints, weights: Floats
) -> Floats:
    """Return the keys of samples that could not be drawn before."""
    if not len(ids):
        return weights
    statement = queries.samples_by_id(tx.backend)
    rows = tx.execute_with(statement, queries.INCOMING_IDS, {"sample_id": ids.tolist()}).all()
    known = {row.id: (row.hash, row.requeues) for row in rows}
    if len(known) != len(ids):
        raise GoneBack
    hashes, requeues = zip(*(known[i] for i in ids.tolist()), strict=True)
    return pool.join_race(tx.buffer, state, hashes, requeues, entries.tolist(), weights)
