"""How long this process has seen a value stay the same, by a monotonic clock.

Differences of wall-clock times do not prove silence: after a suspend, NTP or an administrator has
moved the clock, every worker seems to have been silent for hours. `time.monotonic` only runs
forward. On Linux it stands still while the machine is suspended, which is right: this process has
not watched other workers during the suspend.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from time import monotonic
from typing import Any, NamedTuple


class _Same(NamedTuple):
    """A value, for how long it is known to be the same, and when it was last read."""

    value: object
    for_s: float
    read_at: float


class _Since(NamedTuple):
    """A value, when it appeared, and when the last look at it began."""

    value: object
    came_at: float
    looked_at: float


class Watch:
    """The values that one handle has seen in this process; sent to another process it is empty.

    Threads share it without a lock, which a fork could leave locked for good. Each look stores its
    result by one assignment. If a slower thread stores last, silences are too short, never too
    long.
    """

    def __init__(self) -> None:
        self._same: dict[Hashable, dict[str, _Same]] = {}
        self._since: dict[tuple[Hashable, str], _Since] = {}

    def __reduce__(self) -> Any:
        return Watch, ()

    @staticmethod
    def begin() -> float:
        """Return the time at which a look begins; call it before reading from the database."""
        return monotonic()

    def same_for_s(
        self, group: Hashable, values: Mapping[str, object], *, began: float, gap_s: float
    ) -> dict[str, float]:
        """Return for how many seconds each value has been seen the same; 0 at the first look.

        Args:
            group: The group of the values; values of the group that are not given are forgotten.
            values: The values just read, by name.
            began: When this look began: the values were read later.
            gap_s: Most seconds that count between two looks. A process that was stopped, together
                with the workers that it looks at, has not watched them.
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
        """Return how many seconds ago a value appeared.

        A wall clock is believed if this process knows no better: for the age of a value at the
        first look, and for the moment between two looks at which a value appeared.

        Args:
            group: The group of the value.
            name: Name of the value in the group.
            value: The value just read.
            told_s: Its age by the wall clock, in seconds. A negative age at the first look, which
                lies in the future, becomes infinity.
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
