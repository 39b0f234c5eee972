"""The samples of a batch that wait to be measured, in the order in which they are started."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection


class Queue:
    """Positions of the samples of a batch that are not started.

    A sample that was started before, and whose process has died, goes last and in a call of its
    own: so it can only take itself with it.

    Args:
        n: The number of samples in the batch.
        tried: Positions of the samples that were started before.
    """

    def __init__(self, n: int, tried: Collection[int] = ()) -> None:
        self._fresh = deque(place for place in range(n) if place not in tried)
        self._tried = deque(sorted(tried))

    def __len__(self) -> int:
        return len(self._fresh) + len(self._tried)

    @property
    def is_alone(self) -> bool:
        """True if the next sample goes in a call of its own."""
        return not self._fresh

    def take(self, n: float) -> list[int]:
        """Return the positions of at most n samples to start now."""
        if self.is_alone:
            return [self._tried.popleft()]
        return [self._fresh.popleft() for _ in range(int(min(n, len(self._fresh))))]

    def again(self, place: int, *, died: bool) -> None:
        """Measure a sample again, in a call of its own if its process has died."""
        (self._tried if died else self._fresh).append(place)

    def clear(self) -> None:
        """Start no more samples."""
        self._fresh.clear()
        self._tried.clear()
