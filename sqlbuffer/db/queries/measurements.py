"""SQL of measurements: every reward and every failure that was stored."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from sqlbuffer.db.backends import BigId, Dialect, now
from sqlbuffer.db.queries.params import BUFFER, INCOMING_MEASUREMENTS, TICK
from sqlbuffer.db.schema import measurements


@functools.cache
def insert_measurements(dialect: Dialect) -> Any:
    """Append measurements of one batch, or of samples that were not drawn."""
    incoming = dialect.each(INCOMING_MEASUREMENTS)
    given = ("sample_id", "reward", "error", "seconds")
    batch: sa.BindParameter[int] = bindparam("batch", type_=BigId)
    return dialect.insert_each(
        measurements,
        {
            "buffer_id": BUFFER,
            "batch_id": batch,
            "worker_id": bindparam("worker", type_=sa.Text),
            "objective": bindparam("objective", type_=sa.Text),
            **{name: getattr(incoming, name) for name in given},
            "details": dialect.json(incoming.details),
            "measured_at": now(),
            "measured_tick": TICK,
        },
    )
