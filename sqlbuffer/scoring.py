"""Scores: what is new joins the race, and a refresh rescores the whole pool.

The score function runs outside of every transaction. A refresh first predicts, chunk by chunk, while draws go on with
the old weights; then it swaps the weights, again chunk by chunk. Both walks can be stopped anywhere and gone on with:
a score of an older version, or a weight that is not the one of its score, is still to do.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from sqlbuffer import pool, race, statements
from sqlbuffer.attachment import Attachment
from sqlbuffer.codec import decode_all
from sqlbuffer.race import Floats, Ints
from sqlbuffer.schema import buffers
from sqlbuffer.weighing import ScoreFunction, as_scores, change_weights, keep, progress_bar, take_in
from sqlbuffer.workers import worker_id

SWAP_CHUNK = 20_000
"""Rows whose weights are swapped in one transaction."""

_IDS_AT_ONCE = 100_000


def score_missing(attachment: Attachment, score_fn: ScoreFunction, *, chunk: int, silent: bool = True) -> int:
    """Score what waits without a score; it joins the race. Return the number of samples scored."""
    if not attachment.settings.weighting.needs_score:
        return 0
    total = after = 0
    with progress_bar("scoring new samples", silent=silent) as advance:
        while rows := attachment.database.read(
            functools.partial(_page, attachment=attachment, statement=statements.unscored(), after=after, limit=chunk)
        ):
            found = _Unscored(*zip(*rows, strict=True))
            scores = as_scores(score_fn(_decoded(attachment, found)), len(rows))
            join = functools.partial(_join, attachment=attachment, found=found, scores=scores)
            if not attachment.database.write(join):
                attachment.database.write(functools.partial(join, exclusive=True))
            after = found.sample_id[-1]
            total += len(rows)
            advance(len(rows))
            if len(rows) < chunk:
                break
    return total


def refresh(attachment: Attachment, score_fn: ScoreFunction, *, anew: bool, chunk: int, silent: bool = True) -> int:
    """Give every waiting sample a score of the newest version, and then its weight. Return the samples scored.

    Args:
        attachment: The buffer.
        score_fn: Takes a list of samples, returns (n,) floats.
        anew: Begin a new version; otherwise only what is older than the newest is scored.
        chunk: Samples scored at once.
        silent: Show no progress bar.
    """
    version = attachment.database.write(functools.partial(_begin, attachment=attachment, anew=anew))
    ids = attachment.database.read(functools.partial(_waiting_ids, attachment=attachment))
    total, lowest = 0, math.inf
    with progress_bar("refreshing scores", silent=silent, total=len(ids)) as advance:
        for part in _in_an_order_of_its_own(ids, chunk):
            scores, n_scored = _rescore(attachment, score_fn, part, version=version)
            total += n_scored
            lowest = np.fmin(lowest, np.fmin.reduce(scores))
            advance(len(part))
    attachment.database.write(functools.partial(_count_from, attachment=attachment, lowest=float(lowest)))
    while not _swap_all(attachment):
        attachment.database.write(functools.partial(pool.turn_back, attachment=attachment))
    attachment.database.write(functools.partial(_finish, attachment=attachment, version=version))
    return total


def _in_an_order_of_its_own(ids: Ints, chunk: int) -> Iterator[Ints]:
    """Walk through ids chunk by chunk: each process in another order, so that two are seldom at the same one.

    From one end both would score everything: the second never finds what the first is at to be done.
    """
    order = np.random.default_rng(list(worker_id().encode())).permutation(math.ceil(len(ids) / chunk))
    return (ids[i * chunk : (i + 1) * chunk] for i in order)


def _rescore(attachment: Attachment, score_fn: ScoreFunction, ids: Ints, *, version: int) -> tuple[Floats, int]:
    """Score what is stale of these samples; return the scores of all, and how many are new."""
    found = attachment.database.read(functools.partial(_scored, attachment=attachment, ids=ids))
    scores = pool.as_floats(found.score)
    stale = [i for i, made in enumerate(found.score_version) if made is None or made < version]
    if stale:
        old = _Scored._make([column[i] for i in stale] for column in found)
        scores[stale] = as_scores(score_fn(_decoded(attachment, old)), len(stale))
        store = functools.partial(keep, attachment=attachment, version=version)
        attachment.database.write(functools.partial(store, ids=old.sample_id, scores=scores[stale]))
    return scores, len(stale)


def is_refreshed(connection: sa.Connection, attachment: Attachment) -> bool:
    """Tell whether the newest refresh that was begun has also come to its end."""
    this = sa.select(buffers.c.refreshed_version == buffers.c.refresh_version)
    return bool(connection.scalar(this.where(buffers.c.id == attachment.buffer_id)))


def _page(connection: sa.Connection, *, attachment: Attachment, statement: Any, **parameters: Any) -> Sequence[Any]:
    rows: Sequence[Any] = attachment.run(connection, statement, **parameters).all()
    return rows


class _Unscored(NamedTuple):
    """Columns of `statements.unscored`."""

    sample_id: Sequence[int]
    hash: Sequence[bytes]
    requeues: Sequence[int]
    text: Sequence[str]
    payload: Sequence[bytes | None]
    codec: Sequence[str]


class _Scored(NamedTuple):
    """Columns of `statements.scored`."""

    sample_id: Sequence[int] = ()
    score: Sequence[float | None] = ()
    score_version: Sequence[int | None] = ()
    text: Sequence[str] = ()
    payload: Sequence[bytes | None] = ()
    codec: Sequence[str] = ()


def _decoded(attachment: Attachment, found: _Unscored | _Scored) -> list[Any]:
    return decode_all(found.text, found.payload, found.codec, allow_pickle=attachment.allow_pickle)


def _waiting_ids(connection: sa.Connection, *, attachment: Attachment) -> Ints:
    """Return the ids of all that waits, sorted: samples are read and written in the order in which they are stored."""
    parts = attachment.run(connection, statements.waiting_ids()).scalars().partitions(_IDS_AT_ONCE)
    return np.sort(np.concatenate([np.zeros(0, np.int64), *(np.array(part, np.int64) for part in parts)]))


def _scored(connection: sa.Connection, *, attachment: Attachment, ids: Ints) -> _Scored:
    statement = statements.scored(attachment.database.dialect)
    rows = attachment.run_with(connection, statement, statements.INCOMING_IDS, {"sample_id": ids.tolist()}).all()
    return _Scored(*zip(*rows, strict=True))


def _pages(attachment: Attachment, limit: int) -> Iterator[Sequence[Any]]:
    """Walk the pool in the order of the race. What moves ahead meanwhile is met again: all work on it is idempotent."""
    after: dict[str, Any] = {"after_key": -math.inf, "after_id": 0}
    while rows := attachment.database.read(
        functools.partial(_page, attachment=attachment, statement=statements.pool_page(), limit=limit, **after)
    ):
        yield rows
        after = {"after_key": rows[-1].race_key, "after_id": rows[-1].sample_id}


def _join(
    connection: sa.Connection, *, attachment: Attachment, found: _Unscored, scores: Floats, exclusive: bool = False
) -> bool:
    """Let scored samples join the race; return False where that moves every key, which needs the race exclusively."""
    taken_in = take_in(connection, attachment, scores, exclusive=exclusive)
    if taken_in is None:
        return False
    state, weights = taken_in
    keys = pool.join_race(attachment, state, found.hash, found.requeues, weights)
    never = np.full(len(scores), math.inf)
    moved = pool.move(connection, attachment, state, found.sample_id, never, keys, weights)
    ids = np.array(found.sample_id)[moved].tolist()
    keep(connection, attachment=attachment, ids=ids, scores=scores[moved], version=state.version)
    attachment.count(connection, unscored=-len(ids), unscorable=int((weights[moved] == 0).sum()))
    return True


def _begin(connection: sa.Connection, *, attachment: Attachment, anew: bool) -> int:
    version = buffers.c.score_version + int(anew)
    begun: int = connection.execute(
        sa.update(buffers)
        .where(buffers.c.id == attachment.buffer_id)
        .values(score_version=version, refresh_version=version)
        .returning(buffers.c.score_version)
    ).scalar_one()
    return begun


def _count_from(connection: sa.Connection, *, attachment: Attachment, lowest: float) -> None:
    """Let weights count from the new lowest score, and the top begin anew; the swap brings every row there."""
    attachment.race(connection, exclusive=True)
    pool.set_top_weight(connection, attachment, None)
    if attachment.settings.weighting.needs_base and math.isfinite(lowest):
        connection.execute(sa.update(buffers).where(buffers.c.id == attachment.buffer_id).values(base_score=lowest))


def _swap_all(attachment: Attachment) -> bool:
    """Bring every weight to what the score says; return False where the clock must be turned back first."""
    return all(
        attachment.database.write(functools.partial(_swap, attachment=attachment, rows=rows))
        for rows in _pages(attachment, SWAP_CHUNK)
    )


def _swap(connection: sa.Connection, *, attachment: Attachment, rows: Sequence[Any]) -> bool:
    state = attachment.race(connection)
    ids, race_keys, weights, scores, versions = zip(*rows, strict=True)
    old = pool.as_floats(weights)
    new = attachment.weights(pool.as_floats(scores), state.base)
    is_scored = np.array([version is not None for version in versions])
    changed = np.flatnonzero((new != old) & is_scored)
    if race.is_blurred(state.clock, new[changed]):
        return False
    if len(changed):
        places = (np.array(ids)[changed], pool.as_floats(race_keys)[changed])
        change_weights(connection, attachment, state, *places, old[changed], new[changed])
    return True


def _finish(connection: sa.Connection, *, attachment: Attachment, version: int) -> None:
    this = sa.update(buffers).where(buffers.c.id == attachment.buffer_id)
    connection.execute(this.where(buffers.c.refreshed_version < version).values(refreshed_version=version))
