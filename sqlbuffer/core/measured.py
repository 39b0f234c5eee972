"""What a user tells about measurements: rewards, errors, seconds and details, as columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlbuffer._json import as_json
from sqlbuffer._messages import shown
from sqlbuffer._numpy import np
from sqlbuffer._typing import Floats, Ints
from sqlbuffer._validation import as_floats, as_list, as_rewards
from sqlbuffer.errors import InvalidArgument, InvalidReward

MOST_CHARACTERS = 2_000
"""Longest stored error; the rest is cut off."""

IS_NAN, IS_NONE = "the reward is NaN", "the reward is None"


class Measured(NamedTuple):
    """n measurements, as columns."""

    rewards: Floats
    """(n,) float64; NaN for a failed measurement."""
    errors: Sequence[str | None]
    """Why each measurement failed; None for one with a reward."""
    seconds: Sequence[float | None]
    details: Sequence[str | None]
    """JSON."""

    @classmethod
    def prepare(
        cls, rewards: Any, n: int, *, errors: Any = None, seconds: Any = None, details: Any = None
    ) -> Measured:
        """Check what a user tells about n measurements.

        Raises:
            InvalidReward: If a reward is infinite, if there are not n of them, or if a reward came
                with an error.
            InvalidArgument: If errors, seconds or details are of another number or type.
        """
        values = as_rewards(rewards, n)
        reasons = _errors(errors, values)
        numbers = [math.nan if value is None else value for value in values]
        return cls(
            np.array(numbers, dtype=np.float64), reasons, _seconds(seconds, n), _details(details, n)
        )

    def take(self, places: Ints) -> Measured:
        """Return the measurements at m places, (m,) int."""
        if len(places) == len(self.rewards) and bool((places == np.arange(len(places))).all()):
            return self
        chosen = places.tolist()
        columns = ([column[i] for i in chosen] for column in self[1:])
        return Measured(self.rewards[places], *columns)

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def has_only_rewards(self) -> bool:
        """True if no seconds and no details are known."""
        n = len(self.rewards)
        return self.seconds.count(None) == n and self.details.count(None) == n

    @classmethod
    def of_rewards(cls, rewards: Floats) -> Measured:
        """Return measurements of which only the rewards are known, (n,) float64."""
        none = [None] * len(rewards)
        errors = [IS_NAN if is_nan else None for is_nan in np.isnan(rewards).tolist()]
        return cls(rewards, errors, none, none)


class Known(NamedTuple):
    """Samples as this process has read them, as columns of n values; the ids may be out of date."""

    ids: Ints
    hash: Sequence[bytes]
    text: Sequence[str]
    payload: Sequence[bytes | None]
    codec: Sequence[str]
    source: Sequence[str]
    requeues: Sequence[int] = ()
    """How often each sample had been added again when it was drawn; () if that does not matter."""


class Origin(NamedTuple):
    """The batch that measured samples were drawn in."""

    batch: int | None
    objective: str
    """The objective when it was drawn."""
    is_open: bool
    """True if this transaction has found the batch open: then the ids are valid."""
    repeats: bool = False
    """True if a loop draws the samples of a lost batch again, with or without their rewards."""


def as_error(text: Any) -> str:
    """Return the reason of a failure as it is stored: valid text without NUL, not too long.

    Raises:
        InvalidArgument: If it is no text, or empty.
    """
    if not isinstance(text, str) or not text:
        raise InvalidArgument(
            f"an error is the reason of a failed measurement, as text; got {shown(text)}."
        )
    clean = str.__str__(text).replace("\0", "\\0").encode(errors="backslashreplace").decode()
    return clean if len(clean) <= MOST_CHARACTERS else clean[: MOST_CHARACTERS - 1] + "…"


def _errors(errors: Any, values: Sequence[float | None]) -> list[str | None]:
    found = [IS_NONE if each is None else IS_NAN if each != each else None for each in values]
    if errors is None:
        return found
    given = _list_of(errors, "errors", len(values))
    return [
        failed if error is None else _error(error, value, i)
        for i, (error, value, failed) in enumerate(zip(given, values, found, strict=True))
    ]


def _error(error: Any, value: float | None, place: int) -> str:
    if value is None or value != value:
        return as_error(error)
    raise InvalidReward(
        f"measurement {place} came with the reward {value} and the error {shown(error)}: give "
        "one of the two."
    )


def _seconds(seconds: Any, n: int) -> list[float | None]:
    if seconds is None:
        return [None] * n
    try:
        values = as_floats(_list_of(seconds, "seconds", n))
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidArgument(
            f"seconds must be {n} numbers, one for each measurement; got {shown(seconds)}."
        ) from exc
    if values.shape != (n,) or (values < 0).any() or np.isinf(values).any():
        raise InvalidArgument(f"seconds must be {n} numbers of 0 or more; got {shown(seconds)}.")
    return [None if math.isnan(value) else value for value in values.tolist()]


def _details(details: Any, n: int) -> list[str | None]:
    if details is None:
        return [None] * n
    return [
        None if one is None else as_json(one, "details") for one in _list_of(details, "details", n)
    ]


def _list_of(given: Any, name: str, n: int) -> list[Any]:
    found = as_list(given, name)
    if len(found) != n:
        raise InvalidArgument(
            f"{n} measurements came with {len(found)} {name}: give one for each, or None."
        )
    return found
