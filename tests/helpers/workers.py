"""Rows of the table of workers."""

from typing import Any

import sqlalchemy as sa

from helpers import inside
from sqlbuffer.core import workers
from sqlbuffer.db.backends import from_now
from sqlbuffer.db.schema import workers as workers_table
from sqlbuffer.store import SampleStore


def change(store: SampleStore, **values: Any) -> None:
    """Change the row of this process."""
    mine = (
        sa.update(workers_table).where(workers_table.c.id == workers.worker_id()).values(**values)
    )
    inside.execute(store, mine)


def move_away(store: SampleStore, *, silent_for_s: float) -> None:
    """Let the row of this process be one of another host that was last heard of some time ago."""
    change(store, host="elsewhere", heartbeat_at=from_now(sa.literal(-silent_for_s, sa.Double)))


def rows(store: SampleStore) -> dict[str, Any]:
    table = workers_table
    found = inside.rows(store, sa.select(table))
    return {row.id: row for row in found if row.id != workers.LEDGER}
