"""The indexes of the tables: only code that makes tables needs them, since statements name none.

The condition of a partial index belongs to a dialect of SQLAlchemy, and makes it load that dialect.
"""

from __future__ import annotations

from sqlalchemy import Index, true

from sqlbuffer.db.backends import where
from sqlbuffer.db.schema import batches, measurements, pool, samples

_OPEN = batches.c.settled_at.is_(None) & batches.c.released_at.is_(None)
Index("ix_batches_open", batches.c.buffer_id, batches.c.worker_id, **where(_OPEN))
Index(
    "ix_batches_released",
    batches.c.buffer_id,
    batches.c.clock,
    **where(batches.c.released_at.is_not(None)),
)
Index("ix_batches_token", batches.c.token, **where(batches.c.token.is_not(None)))
Index("ix_batches_iteration", batches.c.buffer_id, batches.c.iteration)
Index("ix_measurements_sample", measurements.c.sample_id)
# Without the hash, which orders equal rewards: with it, a batch of rewards writes 1.5 times as
# many pages.
Index(
    "ix_samples_reward",
    samples.c.buffer_id,
    samples.c.reward,
    **where(samples.c.reward.is_not(None)),
)
# Both are partial: a draw deletes 512 neighbours from the table, but would delete 512 scattered
# rows from an index over all scores, which trebles its cost at a million rows.
# "= true", as in the statements: SQLite does not use an index WHERE top for "top = 1".
Index(
    "ix_pool_top",
    pool.c.buffer_id,
    pool.c.score,
    pool.c.tie,
    pool.c.sample_id,
    **where(pool.c.top == true()),
)
Index("ix_pool_unscored", pool.c.buffer_id, pool.c.sample_id, **where(pool.c.weight.is_(None)))
