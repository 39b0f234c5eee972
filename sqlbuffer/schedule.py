"""When a job is due: told from what is stored with it, and by the database's clock, so that all workers agree."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from typing import Any

from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from sqlbuffer.errors import InvalidArgument, shown
from sqlbuffer.leases import Job
from sqlbuffer.names import as_name, require_int

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When a job is due: whenever one of these says so.

    A job that never ran is due by `every` and `cron` at once, as is one whose last run was broken off. Times that have
    passed while nobody was there are made up for once.

    Args:
        every: A time, "30s", "10m", "2h" or "1d", after the last start.
        cron: Five fields of a crontab, in UTC.
        when_new: Number of samples measured since the last start.

    Raises:
        InvalidArgument: Where none is given, or one cannot be read.
    """

    every: str | None = None
    cron: str | None = None
    when_new: int | None = None
    _trigger: Any = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.every is None and self.cron is None and self.when_new is None:
            raise InvalidArgument("nothing says when it is due: give every, cron or when_new, or several of them.")
        if self.when_new is not None:
            n = require_int(self.when_new, "when_new must be a number of new samples, 1 or more", least=1, most=None)
            object.__setattr__(self, "when_new", n)
        given = [] if self.every is None else [_interval(self.every)]
        given += [] if self.cron is None else [_crontab(self.cron)]
        object.__setattr__(self, "_trigger", OrTrigger(given) if given else None)

    def __str__(self) -> str:
        words = {"every {}": self.every, "at {} UTC": self.cron, "when {:,} are new": self.when_new}
        return ", or ".join(form.format(value) for form, value in words.items() if value is not None)

    def is_due(self, job: Job) -> bool:
        """Tell whether a job is to be done now, and nobody is at it."""
        if job.is_held:
            return False
        if job.is_broken_off or (self.when_new is not None and job.measured_now - job.measured >= self.when_new):
            return True
        due_at = self.due_at(job)
        return due_at is not None and due_at <= job.now

    def due_at(self, job: Job) -> dt.datetime | None:
        """Return when a job is next due by time; None where no time makes it due."""
        if self._trigger is None or job.last_started_at is None:
            return None if self._trigger is None else job.now
        due_at: dt.datetime = self._trigger.get_next_fire_time(job.last_started_at, job.now)
        return due_at


def _interval(text: str) -> IntervalTrigger:
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text) if isinstance(text, str) else None
    if found is None or not int(found[1]):
        raise InvalidArgument(f"every must be a number with s, m, h or d, as 30s, 10m, 2h or 1d; got {shown(text)}.")
    return IntervalTrigger(seconds=int(found[1]) * _UNITS[found[2]], timezone=dt.timezone.utc)


def _crontab(text: str) -> CronTrigger:
    try:
        return CronTrigger.from_crontab(as_name(text, "cron"), timezone=dt.timezone.utc)
    except ValueError as exc:
        raise InvalidArgument(
            f"cron must be minute, hour, day, month and day of the week, as '0 * * * *'; got {shown(text)} ({exc})."
        ) from exc
