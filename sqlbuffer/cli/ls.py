"""`sqlbuffer ls`: the buffers of a database."""

from __future__ import annotations

import contextlib

from sqlbuffer.cli import output
from sqlbuffer.cli.answers import Answer, reading
from sqlbuffer.cli.common import Grace, Url, handles, open_existing
from sqlbuffer.core.workers import GRACE_S
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.db.queries.buffers import unfinished_copies
from sqlbuffer.looks.buffers import summary

_COLUMNS = (
    *("name", "stored", "waiting", "claimed", "measured", "failed", "direction", "best_reward"),
    *("iteration", "running", "seen_at"),
)


@reading("sqlbuffer ls", "sqlbuffer ls --url sqlite:///run.db --json")
def ls(url: Url = DEFAULT_URL, grace: Grace = GRACE_S) -> Answer:
    """List the buffers of a database.

    "running" counts the workers that are alive, as far as can be seen. "seen_at" is the last sign
    of life of any worker. `sqlbuffer stats --help` explains the other columns.
    """
    with contextlib.closing(open_existing(url)) as database:
        rows = [each.read(summary) for each in handles(database, None, grace_s=grace)]
        unfinished = database.read(lambda tx: tx.scalars(unfinished_copies()).all())
    for name in unfinished:
        output.line(
            f"{name!r} did not come to its end: run the copy again, or delete it with "
            "`sqlbuffer rm`",
            stderr=True,
        )
    return Answer(_COLUMNS, rows)
