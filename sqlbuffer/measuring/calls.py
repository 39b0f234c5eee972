"""One call of a reward function: rewards from what it returns, reasons from what it raises.

numpy, which takes more than half of the start of a child process, is imported for the values that
need it: the converters of arguments are imported in the functions that call them.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlbuffer._messages import n_of, shown
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.measuring.outcome import one_line, reason_of


class Value(NamedTuple):
    """What a reward function returned for one sample: a reward, or why the value is none."""

    reward: float | None
    error: str | None = None
    details: dict[str, Any] | None = None


class Answer(NamedTuple):
    """The end of one call for n samples."""

    values: list[Value] | None
    """n values; None if the call failed as a whole."""
    error: str | None
    """Why it failed as a whole."""
    seconds: float
    died: bool = False
    """The process of the call died."""

    @classmethod
    def failure(cls, error: str, seconds: float, *, died: bool = False) -> Answer:
        """Return the answer of a call that failed as a whole."""
        return cls(None, one_line(error), seconds, died)

    def encoded(self) -> bytes:
        """Return the answer as JSON: a parent does not unpickle what a reward function returns."""
        return json.dumps(self).encode()

    @classmethod
    def decoded(cls, message: bytes) -> Answer:
        """Return the answer that was encoded."""
        values, error, seconds, died = json.loads(message)
        return cls(
            None if values is None else [Value(*each) for each in values], error, seconds, died
        )


_NUMBERS = frozenset({float, int, bool})


class _NoRewards(Exception):
    """The values that a function returned are not one for each sample."""


def call(
    fn: Callable[[Any], Any],
    samples: Sequence[Any],
    each: bool,
    failures: type[BaseException] | tuple[type[BaseException], ...] = BaseException,
) -> Answer:
    """Call a reward function once.

    Args:
        fn: The reward function.
        samples: n samples; one if `each`.
        each: Call `fn(sample)` instead of `fn(list of samples)`.
        failures: Errors of these classes are failures of the measurement, others are raised.
    """
    begun = time.perf_counter()
    values, error = None, None
    try:
        returned = fn(samples[0]) if each else fn(list(samples))
        values = [value_of(returned)] if each else values_of(returned, len(samples))
    except _NoRewards as exc:
        error = one_line(str(exc))
    except failures as exc:
        error = reason_of(exc)
    return Answer(values, error, time.perf_counter() - begun)


def values_of(returned: Any, n: int) -> list[Value]:
    """Return the values of n samples from what a reward function returned for their list."""
    shape = tuple(getattr(returned, "shape", (n,)))
    try:
        if len(shape) != 1:
            raise TypeError("not a list")
        values = returned if type(returned) is list else _as_list(returned)
    except (InvalidArgument, TypeError) as exc:
        raise _NoRewards(
            f"the reward function returned {shown(returned)} for {n_of(n, 'sample')}: return one "
            "number for each"
        ) from exc
    if len(values) != n:
        raise _NoRewards(
            f"the reward function returned {n_of(len(values), 'value')} for "
            f"{n_of(n, 'sample')}: return one number for each, in their order"
        )
    return [value_of(value) for value in values]


def value_of(returned: Any) -> Value:
    """Return a value from what a reward function returned for one sample.

    A tuple of two whose second is a mapping is `(reward, details)`; any other value is a reward.
    """
    details = None
    if isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], Mapping):
        returned, details = returned[0], _details_of(returned[1])
    try:
        reward = float(returned) if type(returned) in _NUMBERS else _as_float(returned)
    except Exception:  # a user's __float__, or a tensor without data
        reward = math.inf
    if math.isnan(reward):
        return Value(None, "the reward is NaN", details)
    if math.isinf(reward):
        return Value(None, f"the reward function returned {shown(returned)}", details)
    return Value(reward, None, details)


def _details_of(details: Mapping[Any, Any]) -> dict[str, Any]:
    """Return details as JSON has them; a reward is not lost for details that JSON cannot hold."""
    from sqlbuffer._json import as_json

    known = {name: _as_lists(value) for name, value in details.items()}
    try:
        found: dict[str, Any] = json.loads(as_json(known, "details"))
    except InvalidArgument as exc:
        return {**_those_of_json(known), "error": one_line(str(exc))}
    return found


def _as_lists(value: Any) -> Any:
    """Return an array or tensor, such as the coordinates of a pose, as lists."""
    shape = getattr(value, "shape", ())
    return (
        value.tolist() if isinstance(shape, tuple) and shape and hasattr(value, "tolist") else value
    )


def _those_of_json(details: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the details that JSON can hold."""
    from sqlbuffer._json import as_json

    found: dict[str, Any] = {}
    for name, value in details.items():
        with contextlib.suppress(InvalidArgument):
            found |= json.loads(as_json({name: value}, "details"))
    return found


def _as_float(value: Any) -> float:
    from sqlbuffer._validation import as_float

    return as_float(value)


def _as_list(values: Any) -> list[Any]:
    from sqlbuffer._validation import as_list

    return as_list(values)
