"""Converters of one value: integers, floats, flags, words and functions."""

from __future__ import annotations

import inspect
import math
import numbers
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from sqlbuffer._messages import shown
from sqlbuffer._numpy import np
from sqlbuffer.errors import InvalidArgument

T = TypeVar("T")

LARGEST_INT = 2**31 - 1
"""Largest number in the columns that count iterations, versions and rows."""

_PYTHON = frozenset({type(None), bool, int, float, str, bytes})

_NO_NUMBERS = frozenset("mMV")
"""Kinds of numpy dtypes that are not numbers, although `item()` makes integers of some of them."""


def plain(value: Any) -> Any:
    """Return the Python value of a numpy scalar, or of an array or tensor without dimensions.

    Any other value is returned unchanged.
    """
    if (
        type(value) in _PYTHON
        or getattr(value, "ndim", None) != 0
        or not callable(getattr(value, "item", None))
    ):
        return value
    if getattr(getattr(value, "dtype", None), "kind", "") in _NO_NUMBERS:
        return value
    try:
        found = value.item()
    except (RuntimeError, TypeError, ValueError):  # a tensor without data
        return value
    return float(found) if isinstance(found, np.floating) else found


def is_integer(value: Any) -> bool:
    """Tell whether a value is an integer; a bool is not.

    An integer is one of Python or numpy, or an array or tensor of one without dimensions.
    """
    return _is_integer(plain(value))


def _is_integer(number: Any) -> bool:
    return isinstance(number, numbers.Integral) and not _is_flag_or_time(number)


def _is_flag_or_time(number: Any) -> bool:
    """Tell whether a value is none of our numbers, although `numbers` counts it as an integer."""
    if type(number) in _PYTHON:  # without numpy, which a command that only reads has not loaded
        return isinstance(number, bool)
    return isinstance(number, (bool, np.generic))


def require_int(
    value: Any, rule: str, *, least: int | None = None, most: int | None = LARGEST_INT
) -> int:
    """Return an integer.

    Args:
        value: An integer as `is_integer` takes it.
        rule: The beginning of the message, such as "bs must be 1 or more".
        least: Smallest integer allowed; None for any.
        most: Largest integer allowed; None for any.

    Raises:
        InvalidArgument: If the value is not an integer, or out of range.
    """
    number = plain(value)
    if (
        _is_integer(number)
        and (least is None or number >= least)
        and (most is None or number <= most)
    ):
        return int(number)
    raise InvalidArgument(f"{rule}; got {shown(value)}.")


def require_count(value: Any, rule: str, *, least: int = 0) -> int:
    """Return a number of things: `require_int` without upper bound, cut to `LARGEST_INT`."""
    return min(require_int(value, rule, least=least, most=None), LARGEST_INT)


def as_max_size(value: Any) -> int | None:
    """Return the number of scored samples that may wait, None for no limit."""
    rule = "max_size must be a positive number of samples, or None"
    return None if value is None else require_count(value, rule, least=1)


EVICTIONS = ("lightest", "oldest")
"""Names of the samples that leave a pool first when it has become too large."""


def as_evict(value: Any) -> str | None:
    """Return the name of the samples that leave beyond `max_size`, None for the stored one."""
    rule = 'evict must be "lightest", "oldest", or None for the stored value'
    return None if value is None else require_choice(value, rule, EVICTIONS)


def require_real(value: Any, rule: str, fits: Callable[[float], bool] = math.isfinite) -> float:
    """Return a float.

    Args:
        value: A real number of Python or numpy, or an array or tensor of one without dimensions.
        rule: The beginning of the message.
        fits: Tells whether the number is in range; by default, whether it is finite.

    Raises:
        InvalidArgument: If the value is not a real number, or out of range.
    """
    number = plain(value)
    try:
        if (
            isinstance(number, numbers.Real)
            and not _is_flag_or_time(number)
            and fits(found := float(number))
        ):
            return found
    except OverflowError:  # an integer beyond every float
        pass
    raise InvalidArgument(f"{rule}; got {shown(value)}.")


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def as_duration_s(text: Any, name: str) -> float:
    """Return the seconds of a duration such as "30s", "10m", "2h" or "1d".

    Raises:
        InvalidArgument: If it is none, or 0.
    """
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text) if isinstance(text, str) else None
    if found is None or not int(found[1]):
        raise InvalidArgument(
            f"{name} must be a number with s, m, h or d, such as 30s, 10m, 2h or 1d; "
            f"got {shown(text)}."
        )
    return float(int(found[1]) * _UNITS[found[2]])


def is_share(number: float) -> bool:
    """Tell whether a number is in [0, 1]."""
    return 0.0 <= number <= 1.0


def is_part(number: float) -> bool:
    """Tell whether a number is in [0, 1)."""
    return 0.0 <= number < 1.0


def is_rate(number: float) -> bool:
    """Tell whether a number is 0 or more, and finite."""
    return 0.0 <= number < math.inf


def is_learning_rate(number: float) -> bool:
    """Tell whether a number is in [0, 1e30]: a larger step overflows single precision."""
    return 0.0 <= number <= 1e30


def is_positive(number: float) -> bool:
    """Tell whether a number is above 0, and finite."""
    return 0.0 < number < math.inf


def require_flag(value: Any, name: str) -> bool:
    """Return a bool.

    Args:
        value: A bool of Python or numpy, or an array or tensor of one without dimensions.
        name: The argument, for the message.

    Raises:
        InvalidArgument: If the value is not a bool.
    """
    flag = plain(value)
    if not isinstance(flag, bool):
        raise InvalidArgument(f"{name} must be True or False; got {shown(value)}.")
    return flag


def require_choice(value: Any, rule: str, choices: Iterable[str]) -> str:
    """Return a word.

    Raises:
        InvalidArgument: If the value is not one of the choices. The message begins with `rule`.
    """
    if not isinstance(value, str) or value not in choices:
        raise InvalidArgument(f"{rule}; got {shown(value)}.")
    return str.__str__(value)


def require_function(value: T, rule: str, *, takes: int) -> T:
    """Return a function.

    Args:
        value: The function.
        rule: What it must be; the message begins with it.
        takes: Number of arguments with which it is called.

    Raises:
        InvalidArgument: If the value cannot be called, or not with so many arguments.
    """
    if not callable(value):
        raise InvalidArgument(f"{rule}; got {shown(value)}.")
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # as of some functions that are written in C
        return value
    try:
        signature.bind(*[None] * takes)
    except TypeError:
        raise InvalidArgument(
            f"{rule}; got {shown(value)}, whose arguments are {signature}."
        ) from None
    return value


def as_float(value: Any) -> float:
    """Return a measured or computed number as a float; True is 1.0 and False is 0.0.

    Raises:
        TypeError: If the value is not a number, or has more than one.
        ValueError: If the value is not a number.
        OverflowError: If the value is an integer beyond the range of floats.
    """
    number = plain(value)
    if isinstance(number, (str, bytes, bytearray, np.generic)) or getattr(number, "ndim", 0) != 0:
        raise TypeError("no number")
    return float(number)
