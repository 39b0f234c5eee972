"""The places where a reward function runs: what they have in common, and this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from sqlbuffer.errors import CannotMeasure
from sqlbuffer.measuring.calls import Answer, call


class Part(NamedTuple):
    """Samples of one call."""

    indices: Sequence[int]
    """n positions among all samples that were submitted."""
    samples: Sequence[Any]
    """n samples."""
    begin: Callable[[Sequence[int]], None]
    """Called with `indices` right before the function gets the samples."""


class Ended(NamedTuple):
    """A call that has ended."""

    part: Part
    answer: Answer


class Place(Protocol):
    """Where calls run."""

    @property
    def broken(self) -> CannotMeasure | None:
        """Why no call can run any more; None while calls can run."""
        ...

    @property
    def falls_together(self) -> bool:
        """True if a process that dies ends all calls."""
        ...

    @property
    def begins_late(self) -> bool:
        """True if a call begins later than `start`: the place then calls `Part.begin`."""
        ...

    def free(self) -> int:
        """Return how many calls can start now."""
        ...

    def running(self) -> int:
        """Return how many calls have started, and were not returned by `wait`."""
        ...

    def start(self, part: Part) -> None:
        """Start a call; only if one is free."""
        ...

    def wait(self, timeout_s: float) -> list[Ended]:
        """Return the calls that have ended, after at most `timeout_s` seconds; see `broken`."""
        ...

    def close(self) -> None:
        """Abandon the calls that run."""
        ...


class ThisProcess:
    """Runs one call at a time, in the thread that waits for it."""

    broken = None
    falls_together = False  # the caller dies too
    begins_late = False

    def __init__(self, fn: Callable[[Any], Any], *, each: bool) -> None:
        self._fn, self._each = fn, each
        self._part: Part | None = None

    def free(self) -> int:
        """Return 1, or 0 with a call to make."""
        return int(self._part is None)

    def running(self) -> int:
        """Return 1 with a call to make."""
        return int(self._part is not None)

    def start(self, part: Part) -> None:
        """Keep a call for `wait`."""
        self._part = part

    def wait(self, timeout_s: float) -> list[Ended]:
        """Make the call, if there is time at all; Ctrl-C goes through, `sys.exit` is a failure."""
        if self._part is None or timeout_s <= 0:
            return []
        part, self._part = self._part, None
        return [Ended(part, call(self._fn, part.samples, self._each, (Exception, SystemExit)))]

    def close(self) -> None:
        """Forget the call."""
        self._part = None
