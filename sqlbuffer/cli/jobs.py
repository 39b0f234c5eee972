"""`sqlbuffer jobs`: the retraining and other jobs of a buffer."""

from __future__ import annotations

from sqlbuffer.cli.answers import Answer, reading
from sqlbuffer.cli.common import AnyBuffer, Grace, Url, rows_of
from sqlbuffer.core.workers import GRACE_S
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.looks.jobs import find_jobs

_COLUMNS = (
    *("buffer", "job", "state", "owner", "lease_until", "last_started_at", "last_finished_at"),
    *("runs", "new", "schedule", "last_error"),
)


@reading("sqlbuffer jobs", "sqlbuffer jobs --name qed --json")
def jobs(url: Url = DEFAULT_URL, name: AnyBuffer = None, grace: Grace = GRACE_S) -> Answer:
    """Show the jobs of buffers, such as retraining: owner, schedule, and result of the last run.

    One worker at a time does a job: its owner, which holds a lease on the job and renews it.
    States:

    - running: the owner holds the lease.
    - silent: the lease has run out by the clock of the database. Another worker takes the job once
      it has seen for --grace seconds that the lease is not renewed.
    - idle: the last run has ended.
    - broken off: the last run was interrupted. The job is due at once.

    "new" counts the samples measured since the last start.
    """
    return Answer(_COLUMNS, rows_of(find_jobs, url=url, name=name, grace=grace))
