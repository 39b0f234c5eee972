"""Keys and weights of the pool, from its table."""

import sqlalchemy as sa

from helpers import inside
from sqlbuffer.db.schema import buffers, pool
from sqlbuffer.store import SampleStore


def places(store: SampleStore) -> dict[int, tuple[float, float]]:
    """Key and weight of all that waits, by the number of the sample."""
    ours = sa.select(pool.c.sample_id, pool.c.race_key, pool.c.weight).where(
        pool.c.buffer_id == inside.buffer_id(store)
    )
    rows = inside.rows(store, ours)
    return {row.sample_id: (row.race_key, row.weight) for row in rows}


def assert_weights_are_those_of_the_scores(store: SampleStore) -> None:
    waiting, standing = store.waiting(), places(store)
    with inside.engine_of(store, "reader").connect() as connection:
        base = connection.scalar(
            sa.select(buffers.c.base_score).where(buffers.c.id == inside.buffer_id(store))
        )
    weights = [standing[i][1] for i in waiting.ids.tolist()]
    assert weights == inside.handle_of(store).settings.weights(waiting.scores, base).tolist()
