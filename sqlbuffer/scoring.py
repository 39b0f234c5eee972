"""Scores: what is new joins the race, and a refresh rescores the whole pool.

The score function runs outside of every transaction. A refresh first predicts, chunk by chunk, while draws go on with
the old weights; then it swaps the weights, again chunk by chunk. Both walks can be stopped anywhere and gone on with:
a score of an older version, or a weight that is not the one of its score, is still to do.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from rich.progress import Progress

from sqlbuffer import pool, race, statements
from sqlbuffer.attachment import Attachment
from sqlbuffer.batches import content
from sqlbuffer.errors import InvalidArgument, shown
from sqlbuffer.race import Floats
from sqlbuffer.schema import buffers

ScoreFunction = Callable[[list[Any]], Any]

SWAP_CHUNK = 20_000
"""Rows whose weights are swapped in one transaction."""


def score_missing(attachment: Attachment, score_fn: ScoreFunction, *, chunk: int, silent: bool = True) -> int:
    """Score what waits without a score; it joins the race. Return the number of samples scored."""
    if not attachment.settings.weighting.needs_score:
        return 0
    total = after = 0
    with _progress("scoring new samples", silent=silent) as advance:
        while rows := attachment.database.read(
            functools.partial(_page, attachment=attachment, statement=statements.unscored(), after=after, limit=chunk)
        ):
            scores = as_scores(score_fn(content(rows, attachment)), len(rows))
            join = functools.partial(_join, attachment=attachment, rows=rows, scores=scores)
            if not attachment.database.write(join):
                attachment.database.write(functools.partial(join, exclusive=True))
            after = rows[-1].sample_id
            total += len(rows)
            advance(len(rows))
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
    total, lowest = 0, math.inf
    with _progress("refreshing scores", silent=silent) as advance:
        for rows in _pages(attachment, chunk):
            scores = pool.as_floats([row.score for row in rows])
            stale = [i for i, row in enumerate(rows) if row.score_version is None or row.score_version < version]
            if stale:
                olds = [rows[i] for i in stale]
                scores[stale] = as_scores(score_fn(content(olds, attachment)), len(stale))
                keep = functools.partial(_keep, attachment=attachment, rows=olds, scores=scores[stale], version=version)
                attachment.database.write(keep)
            total += len(stale)
            lowest = np.fmin(lowest, np.fmin.reduce(scores))
            advance(len(stale))
    attachment.database.write(functools.partial(_count_from, attachment=attachment, lowest=float(lowest)))
    while not _swap_all(attachment):
        attachment.database.write(functools.partial(pool.turn_back, attachment=attachment))
    attachment.database.write(functools.partial(_finish, attachment=attachment, version=version))
    return total


def is_refreshed(connection: sa.Connection, attachment: Attachment) -> bool:
    """Tell whether the newest refresh that was begun has also come to its end."""
    this = sa.select(buffers.c.refreshed_version == buffers.c.refresh_version)
    return bool(connection.scalar(this.where(buffers.c.id == attachment.buffer_id)))


def as_scores(scores: Any, n: int) -> Floats:
    """Return scores as (n,) float64, NaN for what is not finite.

    Raises:
        InvalidArgument: Where they are a tensor, no numbers, or not one for each sample.
    """
    if hasattr(scores, "detach"):
        raise InvalidArgument("scores came as a tensor: return a numpy array, as `scores.detach().cpu().numpy()`.")
    try:
        given = np.asarray(scores)
        if given.dtype.kind == "c":
            raise TypeError("complex numbers")
        values = given.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidArgument(f"scores must be {n} numbers, one for each sample; got {shown(scores)}.") from exc
    if values.shape != (n,):
        raise InvalidArgument(f"scores have shape {values.shape}, but {n} samples need one each: return shape ({n},).")
    return np.where(np.isfinite(values), values, np.nan)


@contextlib.contextmanager
def _progress(description: str, *, silent: bool) -> Iterator[Callable[[int], None]]:
    with Progress(disable=silent, transient=True) as progress:
        task = progress.add_task(description, total=None)
        yield lambda n: progress.update(task, advance=n)


def _page(connection: sa.Connection, *, attachment: Attachment, statement: Any, **parameters: Any) -> Sequence[Any]:
    rows: Sequence[Any] = attachment.run(connection, statement, **parameters).all()
    return rows


def _pages(attachment: Attachment, limit: int) -> Iterator[Sequence[Any]]:
    """Walk the pool in the order of the race. What moves ahead meanwhile is met again: all work on it is idempotent."""
    after: dict[str, Any] = {"after_key": -math.inf, "after_id": 0}
    while rows := attachment.database.read(
        functools.partial(_page, attachment=attachment, statement=statements.pool_page(), limit=limit, **after)
    ):
        yield rows
        after = {"after_key": rows[-1].race_key, "after_id": rows[-1].sample_id}


def _join(
    connection: sa.Connection, *, attachment: Attachment, rows: Sequence[Any], scores: Floats, exclusive: bool = False
) -> bool:
    """Let scored samples join the race; return False where that moves every key, which needs the race exclusively."""
    state = attachment.race(connection, exclusive=exclusive)
    lowest = np.fmin.reduce(scores)
    is_lower = attachment.settings.weighting.needs_base and (state.base is None or lowest < state.base)
    base = float(lowest) if is_lower and not math.isnan(lowest) else state.base
    weights = attachment.weights(scores, base)
    is_blurred = race.is_blurred(state.clock, weights)
    if not exclusive and (base != state.base or is_blurred):
        return False
    if is_blurred:
        pool.turn_back(connection, attachment=attachment)
        state = state._replace(clock=0.0)
    if base is not None and base != state.base:
        pool.set_base(connection, attachment, state, base)
        state = attachment.race(connection, exclusive=True)
    keys = pool.join_race(attachment, state, [row.hash for row in rows], [row.requeues for row in rows], weights)
    never = np.full(len(rows), math.inf)
    moved = pool.move(connection, attachment, state, [row.sample_id for row in rows], never, keys, weights)
    waiting = [row for row, has_moved in zip(rows, moved, strict=True) if has_moved]
    _keep(connection, attachment=attachment, rows=waiting, scores=scores[moved], version=state.version)
    attachment.count(connection, unscored=-len(waiting), unscorable=int((weights[moved] == 0).sum()))
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


def _keep(
    connection: sa.Connection, *, attachment: Attachment, rows: Sequence[Any], scores: Floats, version: int
) -> None:
    """Write scores into the samples, in the order of their ids."""
    if rows:
        pairs = sorted(zip((row.sample_id for row in rows), pool.as_weights(scores), strict=True))
        columns = {"sample_id": [i for i, _ in pairs], "score": [score for _, score in pairs]}
        statement = statements.store_scores(attachment.database.dialect)
        attachment.run_each(connection, statement, statements.INCOMING_SCORES, columns, version=version)


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
    scores = pool.as_floats([row.score for row in rows])
    old = pool.as_floats([row.weight for row in rows])
    new = attachment.weights(scores, state.base)
    changed = np.flatnonzero((new != old) & [row.score_version is not None for row in rows]).tolist()
    if race.is_blurred(state.clock, new[changed]):
        return False
    if not len(changed):
        return True
    rows, old, new = [rows[i] for i in changed], old[changed], new[changed]
    keys = pool.as_floats([row.race_key for row in rows])
    fresh = pool.join_race(attachment, state, [row.hash for row in rows], [row.requeues for row in rows], new)
    both = (old > 0) & (new > 0)
    moving = fresh.copy()
    moving[both] = race.rescaled(keys[both], state.clock, old[both], new[both])
    moved = pool.move(connection, attachment, state, [row.sample_id for row in rows], keys, moving, new)
    attachment.count(
        connection,
        unscored=-int(np.isnan(old[moved]).sum()),
        unscorable=int((new[moved] == 0).sum() - (old[moved] == 0).sum()),
    )
    return True


def _finish(connection: sa.Connection, *, attachment: Attachment, version: int) -> None:
    this = sa.update(buffers).where(buffers.c.id == attachment.buffer_id)
    connection.execute(this.where(buffers.c.refreshed_version < version).values(refreshed_version=version))
