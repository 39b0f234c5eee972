"""Begin to measure the samples of a buffer by another reward function."""

from __future__ import annotations

from sqlbuffer._messages import n_of, shown
from sqlbuffer._validation import as_name
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.release import put_back
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.weights import reopen
from sqlbuffer.core.where import Where, as_where, explained, guarded, narrowed
from sqlbuffer.db import queries
from sqlbuffer.errors import InvalidArgument

_AT_ONCE = 10_000


def remeasure(buffer: BufferHandle, objective: str, where: Where) -> int:
    """Begin another objective; return how many samples wait again. See `SampleStore.remeasure`."""
    name = as_name(objective, "the name of an objective")
    if not name:
        raise InvalidArgument("an objective needs a name, got ''.")
    condition = as_where(where)

    def find(tx: Transaction) -> list[int]:
        with guarded(tx, condition):
            measured = narrowed(queries.objective.measured(), condition)
            return list(tx.execute(measured).scalars())

    is_all = condition is None
    chosen = None if is_all else set(explained(buffer, condition, lambda: buffer.read(find)))
    return buffer.write_alone(_begin, objective=name, chosen=chosen)


def _begin(tx: Transaction, *, objective: str, chosen: set[int] | None) -> int:
    state = tx.lock_race(exclusive=True)
    if objective == state.objective:
        return 0  # a script that was started again
    if tx.execute(queries.objective.is_used(), objective=objective).scalar():
        raise InvalidArgument(
            f"buffer {tx.buffer.name!r} has measurements of the objective {shown(objective)} "
            "already: give the new objective another name."
        )
    if n := tx.execute(queries.batches.count_open()).scalar_one():
        raise InvalidArgument(
            f"{n_of(n, 'batch', 'batches')} of buffer {tx.buffer.name!r} "
            f"{'is' if n == 1 else 'are'} claimed, with rewards of the old objective to come: "
            "settle or release them first (`sqlbuffer claims list`)."
        )
    rows = tx.execute(queries.objective.lock_measured(tx.backend)).all()
    for statement in queries.objective.begin():
        tx.execute(statement, objective=objective)
    back = [row for row in rows if not row.queued and (chosen is None or row.sample_id in chosen)]
    tx.execute_each(
        queries.objective.requeue(tx.backend),
        queries.params.INCOMING_IDS,
        {"sample_id": [row.sample_id for row in back]},
    )
    for start in range(0, len(back), _AT_ONCE):
        put_back(tx, tx.race_state(), back[start : start + _AT_ONCE])
    n_failed = sum(row.reward is None for row in rows)
    tx.count(requeued=len(back), failed=-n_failed, measured=n_failed - len(rows))
    versions = [row.score_version for row in back if row.score_version is not None]
    if versions and min(versions) < state.version:
        reopen(tx, version=min(versions))  # a refresh may have finished without these samples
    return len(back)
