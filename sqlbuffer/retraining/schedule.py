"""When a job is due, by its stored state and by the time since this process saw it start."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math

from cronsim import CronSim, CronSimError

from sqlbuffer._messages import shown
from sqlbuffer._validation import as_duration_s, as_name, require_int
from sqlbuffer.core.leases import Job
from sqlbuffer.errors import InvalidArgument

_DRIFT_S = 30.0
"""Most seconds that two clocks drift apart between two runs; a larger difference was set."""

_LEAP_YEAR = dt.datetime(2000, 1, 1, tzinfo=dt.timezone.utc)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When a job is due: if one of `every`, `cron` and `when_new` says so.

    A job that never ran is due at once by `every` and `cron`. A job whose last run was broken off
    is due at once. Several missed times are made up for by one run.

    Args:
        every: Time since the last start: "30s", "10m", "2h" or "1d".
        cron: Five fields of a crontab, in UTC: minute, hour, day of the month, month, day of the
            week. 0 and 7 are Sunday. If both days are restricted, one of them is enough.
        when_new: Number of samples measured since the last start.

    Raises:
        InvalidArgument: If none is given, or one cannot be read.
    """

    every: str | None = None
    cron: str | None = None
    when_new: int | None = None
    _every_s: float | None = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.every is None and self.cron is None and self.when_new is None:
            raise InvalidArgument(
                "a schedule needs every, cron or when_new, or several of them: give at least one."
            )
        if self.when_new is not None:
            n = require_int(
                self.when_new,
                "when_new must be a number of new samples, 1 or more",
                least=1,
                most=None,
            )
            object.__setattr__(self, "when_new", n)
        object.__setattr__(
            self, "_every_s", None if self.every is None else as_duration_s(self.every, "every")
        )
        if self.cron is not None:
            object.__setattr__(self, "cron", _crontab(self.cron))

    def __str__(self) -> str:
        words = {"every {}": self.every, "at {} UTC": self.cron, "when {:,} are new": self.when_new}
        return ", or ".join(
            form.format(value) for form, value in words.items() if value is not None
        )

    def is_due(self, job: Job) -> bool:
        """Return whether a job is due now and no process runs it."""
        if job.is_held:
            return False
        if job.is_broken_off or (
            self.when_new is not None and job.measured_now - job.measured >= self.when_new
        ):
            return True
        due_in_s = self.due_in_s(job)
        return due_in_s is not None and due_in_s <= 0.0

    def due_in_s(self, job: Job) -> float | None:
        """Return the seconds until a job is due by time, 0 or less if it is due now.

        None if no time makes it due. The time since the last start is the time that this process
        has seen pass: a clock that was set cannot postpone the job. Times of a crontab are those of
        the clock.
        """
        if self._every_s is None and self.cron is None:
            return None
        if job.started_ago_s is None or math.isinf(job.started_ago_s):
            return 0.0
        waits_s = [] if self._every_s is None else [self._every_s - job.started_ago_s]
        if self.cron is not None and (due_at := _next(self.cron, _started_at(job))) is not None:
            waits_s.append((due_at - job.now).total_seconds())
        return min(waits_s, default=None)


def _started_at(job: Job) -> dt.datetime:
    """Return when a job last started, by the clock of the crontab.

    The time that this process has seen is some milliseconds off: a run that started on time would
    seem to have started before it, and would be due again. So the stored time counts, unless the
    clock was set since.
    """
    seen = job.now.astimezone(dt.timezone.utc) - dt.timedelta(seconds=job.started_ago_s or 0.0)
    stored = job.last_started_at
    return (
        stored if stored is not None and abs((stored - seen).total_seconds()) <= _DRIFT_S else seen
    )


def _next(cron: str, after: dt.datetime) -> dt.datetime | None:
    """Return the first time of a crontab after a time; None if none comes within fifty years."""
    return next(CronSim(cron, after.astimezone(dt.timezone.utc)), None)


def _crontab(text: str) -> str:
    """Return the fields of a crontab.

    Raises:
        InvalidArgument: If there are not five, one is out of range, or the day never comes.
    """
    fields = as_name(text, "cron").split()
    try:
        if len(fields) != 5:  # cronsim reads a sixth field as seconds
            raise CronSimError(f"{len(fields)} fields")
        if _next(found := " ".join(fields), _LEAP_YEAR) is None:
            raise CronSimError("the day never comes")
    except (CronSimError, ValueError) as exc:
        raise InvalidArgument(
            "cron must be the five fields of a crontab: minute (0-59), hour (0-23), day of the "
            "month (1-31), month (1-12 or JAN-DEC), day of the week (0-7 or SUN-SAT, 0 and 7 "
            "are Sunday), such as '30 3 * * MON-FRI' for half past three UTC on working days; "
            f"got {shown(text)} ({exc})."
        ) from exc
    return found
