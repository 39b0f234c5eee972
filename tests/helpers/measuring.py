"""A loop that measures samples."""

from collections.abc import Sequence
from typing import Any

from sqlbuffer.measuring.outcome import Outcome
from sqlbuffer.measuring.slots import Slots


def measured(slots: Slots, samples: Sequence[Any], chunk: int | None = None) -> list[Outcome]:
    """Measure samples as a caller does, and return their outcomes in their order.

    A number for `chunk` is for slots with each=False.
    """
    left, outcomes = list(samples), list[Outcome]()
    while left or slots.unfinished:
        while left and slots.free():
            n = chunk or slots.free()
            slots.submit(left[:n])
            left = left[n:]
        outcomes += slots.wait(1.0)
    assert [outcome.index for outcome in sorted(outcomes, key=index_of)] == list(
        range(len(samples))
    )
    return sorted(outcomes, key=index_of)


def index_of(outcome: Outcome) -> int:
    return outcome.index
