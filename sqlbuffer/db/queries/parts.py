"""SQL of the first part of a batch, which is settled before the others."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId
from sqlbuffer.db.backends.hot import hot
from sqlbuffer.db.schema import draws, samples

_PART = (
    draws.c.batch_id == bindparam("batch", type_=BigId),
    draws.c.position >= bindparam("first", type_=sa.Integer),
    draws.c.position < bindparam("end", type_=sa.Integer),
)
"""The draws of a batch from one position to another: no id travels with the statement."""


@hot
def report_part() -> sa.Update:
    """Mark draws as reported, without a reward."""
    return sa.update(draws).where(*_PART).values(reported=True)


@hot
def dequeue_part() -> Any:
    """Mark the samples of draws as neither waiting nor claimed.

    The batch is open and locked, so that its draws name the samples that it has claimed.
    """
    drawn = select(draws.c.sample_id).where(*_PART)
    return sa.update(samples).where(samples.c.id.in_(drawn)).values(queued=False)
