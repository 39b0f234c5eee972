"""Reads of a buffer: its waiting samples, its labels, its best samples."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from sqlbuffer._messages import shown
from sqlbuffer._numpy import np
from sqlbuffer._typing import Floats, Ints
from sqlbuffer._validation import as_name, require_count
from sqlbuffer.core import pool
from sqlbuffer.core.add import hashes_of
from sqlbuffer.core.content import content
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.order import require_order
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.where import Checked, Where, as_where, explained, guarded, narrowed
from sqlbuffer.db import queries
from sqlbuffer.db.schema import samples
from sqlbuffer.errors import InvalidArgument


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """All waiting samples, by id, which is the order in which they were stored.

    Samples of one `add` have ids in the order of their hashes, and not in that of the list.

    Attributes:
        ids: (n,) int64, ids of the samples.
        hashes: Their hashes.
        samples: The n samples.
        sources: Names of the generators that added them.
        scores: (n,) float64, NaN for none.
        weights: (n,) float64, NaN if there is no score yet.

    Examples:
        >>> store.waiting().sources[:2]
        ['library', 'library']
    """

    ids: Ints
    hashes: list[bytes]
    samples: list[Any]
    sources: list[str]
    scores: Floats
    weights: Floats


def waiting(tx: Transaction) -> Waiting:
    """Return the whole pool, decoded."""
    tx.note_ids()
    rows = tx.rows(queries.read.waiting_samples())
    return Waiting(
        ids=np.array([row.id for row in rows], dtype=np.int64),
        hashes=[row.hash for row in rows],
        samples=content(rows, tx.buffer),
        sources=[row.source for row in rows],
        scores=pool.as_floats([row.score for row in rows]),
        weights=pool.as_floats([row.weight for row in rows]),
    )


def labelled(tx: Transaction) -> tuple[list[Any], Floats]:
    """Return the n samples with a reward, by id, and the rewards, (n,) float64."""
    rows = tx.rows(queries.read.labelled_samples())
    return content(rows, tx.buffer), pool.as_floats([row.reward for row in rows])


def rewards_of(tx: Transaction, given: Sequence[Any]) -> list[float | None]:
    """Return the reward of each sample: NaN if its measurement failed, None if there was none."""
    hashes = hashes_of(tx.buffer, given)
    known = sorted({digest for digest in hashes if digest is not None})
    statement = queries.samples.samples_by_hash(tx.backend)
    rows = (
        tx.execute_with(statement, queries.params.INCOMING_HASHES, {"hash": known}) if known else []
    )
    measured = [row for row in rows if row.rewarded_at is not None]
    rewards = pool.as_floats([row.reward for row in measured]).tolist()
    reward = dict(zip([row.hash for row in measured], rewards, strict=True))
    return [None if digest is None else reward.get(digest) for digest in hashes]


def samples_of(tx: Transaction, ids: Sequence[int]) -> dict[int, Any]:
    """Return the samples of these ids, by id."""
    known = {"sample_id": sorted(set(ids))}
    statement = queries.scores.scored(tx.backend)
    rows = tx.execute_with(statement, queries.params.INCOMING_IDS, known).all() if ids else []
    return dict(zip([row.id for row in rows], content(rows, tx.buffer), strict=True))


def incumbent(tx: Transaction) -> float | None:
    """Return the best reward stored before the newest predictor; without a predictor, the best."""
    newest = tx.execute(queries.predictors.newest_training()).one_or_none()
    statement = queries.read.best_reward_before(newest, tx.buffer.direction)
    found = tx.execute(statement).scalar()
    return None if found is None else float(pool.as_floats([found])[0])


def top(
    buffer: BufferHandle, n: int, *, by: str, objective: str | None, where: Where
) -> list[dict[str, Any]]:
    """Return the n best samples as dicts, the best first; a higher score is always better."""
    n, condition = require_count(n, "n must be a number of samples"), as_where(where)
    if objective is not None:
        objective = as_name(objective, "the name of an objective")
        find = functools.partial(_top_of, n=n, objective=objective, where=condition)
    else:
        by = require_order(by)
        find = functools.partial(_top, n=n, by=by, where=condition)
    return explained(buffer, condition, lambda: buffer.read(find))


def _top(tx: Transaction, *, n: int, by: str, where: Checked) -> list[dict[str, Any]]:
    tx.note_ids()
    best = queries.read.best(by, tx.buffer.direction, samples)
    with guarded(tx, where):
        rows = tx.rows(narrowed(best, where), limit=n)
    return _as_dicts(tx, rows, ("rewarded_at",))


def _top_of(tx: Transaction, *, n: int, objective: str, where: Checked) -> list[dict[str, Any]]:
    """Return the n best samples by their newest rewards under an earlier objective."""
    tx.note_ids()
    statement = queries.read.best("reward", tx.buffer.direction, samples, of_earlier=True)
    require_objective(tx, objective)
    with guarded(tx, where):
        rows = tx.rows(narrowed(statement, where), limit=n, objective=objective)
    return [
        {**found, "reward": row.earlier}
        for found, row in zip(_as_dicts(tx, rows, ()), rows, strict=True)
    ]


def require_objective(tx: Transaction, objective: str) -> None:
    """Raise `InvalidArgument` if the buffer has never had an objective."""
    if not tx.execute(queries.objective.is_used(), objective=objective).scalar():
        raise InvalidArgument(
            f"buffer {tx.buffer.name!r} has never had the objective {shown(objective)}."
        )


def _as_dicts(tx: Transaction, rows: Sequence[Any], more: Sequence[str]) -> list[dict[str, Any]]:
    own = ("key",) if tx.buffer.keep_key else ()
    columns = (*own, "id", "source", "reward", "score", "created_iteration", "created_at")
    columns = (*columns, *more, "meta")
    return [
        {"sample": sample, **{name: getattr(row, name) for name in columns}}
        for sample, row in zip(content(rows, tx.buffer), rows, strict=True)
    ]


def is_refreshed(tx: Transaction) -> bool:
    """Return whether the newest full refresh that was begun is finished."""
    return bool(tx.execute(queries.refresh.is_refresh_finished()).scalar())
