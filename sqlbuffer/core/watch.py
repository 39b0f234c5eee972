"""What this process has itself seen stay the same, and for how long, by a clock that no process sets.

Differences of wall-clock times do not tell silence: a suspend, NTP or an administrator moves the clock, and everybody
seems to have been silent for hours. `time.monotonic` only ever runs forward, at its own pace. On Linux it stands still
while the machine is suspended, which is right here: who did not look on has not seen anybody be silent.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from time import monotonic
from typing import Any, NamedTuple


class _Same(NamedTuple):
    """A value that has been seen more than once, for how long it is known to have stayed, and when it was last read."""

    value: object
    for_s: float
    read_at: float


class _Since(NamedTuple):
    """A value, when it came, and when the last look at it began."""

    value: object
    came_at: float
    looked_at: float


class Watch:
    """What one handle has seen. Of a process: another one, to which it is sent, has seen nothing yet.

    Threads share it without a lock, which a fork could leave locked for good: each look replaces what it has found by
    one assignment, and where a slower thread is the last one, silences are told too short, never too long.
    """

    def __init__(self) -> None:
        self._same: dict[Hashable, dict[str, _Same]] = {}
        self._since: dict[tuple[Hashable, str], _Since] = {}

    def __reduce__(self) -> Any:
        return Watch, ()

    @staticmethod
    def begin() -> float:
        """Return the time at which a look begins, to be asked before the database is."""
        return monotonic()

    def same_for_s(
        self, group: Hashable, values: Mapping[str, object], *, began: float, gap_s: float
    ) -> dict[str, float]:
        """Return for how long each value of a group has been seen to stay the same, in seconds; 0 at the first look.

        Args:
            group: What the values are of; those of it that are not given are forgotten.
            values: What has just been read, by name.
            began: When this look began: the values were read later.
            gap_s: What lies between two looks counts for no more than this. A process that was stopped, together with
                those that it looks at, has not watched them.
        """
        before, ended = self._same.get(group, {}), monotonic()
        found = {}
        for name, value in values.items():
            last = before.get(name)
            if last is None or last.value != value:
                found[name] = _Same(value, 0.0, ended)
            else:
                gained = min(max(began - last.read_at, 0.0), gap_s)
                found[name] = _Same(value, last.for_s + gained, max(began, last.read_at))
        self._same[group] = found
        return {name: same.for_s for name, same in found.items()}

    def age_s(
        self, group: Hashable, name: str, value: object, *, told_s: float, began: float
    ) -> float:
        """Return how long ago a value has come, in seconds.

        A clock that may be set is believed where this process knows no better: how long a value is there that was there
        at the first look, and when, between two looks, one has come.

        Args:
            group: What the value is of.
            name: Which of the group.
            value: What has just been read.
            told_s: How long ago it has come by the clock; at the first look, infinity is made of what lies ahead.
            began: When this look began.
        """
        last, ended = self._since.get((group, name)), monotonic()
        if last is None:
            age_s = math.inf if told_s < 0.0 else told_s
        elif last.value == value:
            age_s = ended - last.came_at
        else:
            age_s = min(max(told_s, 0.0), ended - last.looked_at)
        self._since[group, name] = _Since(value, ended - age_s, began)
        return age_s
