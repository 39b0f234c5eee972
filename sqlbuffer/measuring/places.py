"""The places where a reward function runs: what they have in common, and this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from sqlbuffer.measuring.calls import Answer, call


class Part(NamedTuple):
    """Samples of one call."""

    indices: Sequence[int]
    """n positions among all samples that were submitted."""
    samples: Sequence[Any]
    """n samples."""


class Ended(NamedTuple):
    """A call that has ended."""

    part: Part
    answer: Answer


class Place(Protocol):
    """Where calls run."""

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
        """Return the calls that have ended, after at most `timeout_s` seconds.

        Raises:
            CannotMeasure: If no call can run any more; calls that had ended are returned first.
        """
        ...

    def close(self) -> None:
        """Abandon the calls that run."""
        ...


class ThisProcess:
    """Runs one call at a time, in the thread that waits for it."""

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
