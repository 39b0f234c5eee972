"""Converters of what users give: one for each kind of argument, the same everywhere.

numpy's scalars, and arrays and tensors without a dimension, are numbers. A bool is no number, and a flag is a bool of
Python or of numpy. Rewards, scores and metrics are data: there True is 1 and False is 0. A list may be a list, an
array or tensor of one dimension, or a pandas Series. What a converter returns is a value of Python: SQLite would store
a numpy integer as bytes.

Text is as both databases take it: valid Unicode, without the NUL that PostgreSQL has not.
"""

from __future__ import annotations

import io
import math
import numbers
from collections import UserString
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sqlbuffer.errors import InvalidArgument, InvalidReward, shown

T = TypeVar("T")

WHOLE: list[Callable[[type[Any]], bool]] = []
"""Each tells whether what is made of a class is one sample, although it can be iterated over; the registry of samples
adds its own."""

LARGEST_INT = 2**31 - 1
"""The largest number of the columns that count iterations, versions and rows."""

_LARGEST_ID = 2**63 - 1

_MEASURED = frozenset({float, int, bool, type(None)})

_PYTHON = frozenset({type(None), bool, int, float, str, bytes})

_NO_NUMBERS = frozenset("mMV")
"""Kinds of numpy's dtypes whose items are no numbers, though some of them turn into integers."""

_NO_INTEGERS = (bool, np.generic)
"""What counts as an integer of Python, or, as a time of numpy does, of its tower of numbers."""


# -- one value --------------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Return the Python value of a scalar of numpy, or of an array or tensor without a dimension; all else as it is."""
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


def require_int(
    value: Any, rule: str, *, least: int | None = None, most: int | None = LARGEST_INT
) -> int:
    """Return an integer.

    Args:
        value: An integer of Python or numpy, or an array or tensor of one without a dimension.
        rule: What it must be, as "bs must be 1 or more": the beginning of the message.
        least: The least that will do; None for any.
        most: The largest that will do; None for any.

    Raises:
        InvalidArgument: Where it is none, or out of range.
    """
    number = plain(value)
    is_integer = isinstance(number, numbers.Integral) and not isinstance(number, _NO_INTEGERS)
    if (
        not is_integer
        or (least is not None and number < least)
        or (most is not None and number > most)
    ):
        raise InvalidArgument(f"{rule}; got {shown(value)}.")
    return int(number)


def require_count(value: Any, rule: str, *, least: int = 0) -> int:
    """Return a number of things, cut off where there are never so many: `require_int` without an upper bound."""
    return min(require_int(value, rule, least=least, most=None), LARGEST_INT)


def as_max_size(value: Any) -> int | None:
    """Return how many scored samples may wait, None for any number."""
    return (
        None
        if value is None
        else require_count(value, "max_size must be a positive number of samples, or None", least=1)
    )


def require_real(value: Any, rule: str, fits: Callable[[float], bool] = math.isfinite) -> float:
    """Return a float.

    Args:
        value: A real number of Python or numpy, or an array or tensor of one without a dimension.
        rule: What it must be: the beginning of the message.
        fits: Tells whether it is in range; without it, whatever is finite.

    Raises:
        InvalidArgument: Where it is none, or out of range.
    """
    number = plain(value)
    try:
        if (
            isinstance(number, numbers.Real)
            and not isinstance(number, _NO_INTEGERS)
            and fits(found := float(number))
        ):
            return found
    except OverflowError:  # an integer beyond every float
        pass
    raise InvalidArgument(f"{rule}; got {shown(value)}.")


def is_share(number: float) -> bool:
    """Tell whether a number is in [0, 1]."""
    return 0.0 <= number <= 1.0


def is_part(number: float) -> bool:
    """Tell whether a number is in [0, 1): a share that leaves a rest."""
    return 0.0 <= number < 1.0


def is_rate(number: float) -> bool:
    """Tell whether a number is 0 or more, and finite."""
    return 0.0 <= number < math.inf


def is_learning_rate(number: float) -> bool:
    """Tell whether a number is 0 or more, and a step of so much is still a number of single precision."""
    return 0.0 <= number <= 1e30


def is_positive(number: float) -> bool:
    """Tell whether a number is above 0, and finite."""
    return 0.0 < number < math.inf


def require_flag(value: Any, name: str) -> bool:
    """Return a flag.

    Raises:
        InvalidArgument: Where it is neither True nor False.
    """
    flag = plain(value)
    if not isinstance(flag, bool):
        raise InvalidArgument(f"{name} must be True or False; got {shown(value)}.")
    return flag


def require_choice(value: Any, rule: str, choices: Iterable[str]) -> str:
    """Return one of some words.

    Raises:
        InvalidArgument: Where it is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        raise InvalidArgument(f"{rule}; got {shown(value)}.")
    return str.__str__(value)


def require_function(value: T, rule: str) -> T:
    """Return a function.

    Raises:
        InvalidArgument: Where it cannot be called.
    """
    if not callable(value):
        raise InvalidArgument(f"{rule}; got {shown(value)}.")
    return value


def as_float(value: Any) -> float:
    """Return a number that was measured or computed; a flag is 0 or 1.

    Raises:
        TypeError: It is no number, or more than one.
        ValueError: It is no number.
        OverflowError: It is beyond every float.
    """
    number = plain(value)
    if isinstance(number, (str, bytes, bytearray, np.generic)) or getattr(number, "ndim", 0) != 0:
        raise TypeError("no number")
    return float(number)


# -- text -------------------------------------------------------------------------------------------------------------


def is_text(value: str) -> bool:
    """Tell whether the string is valid Unicode: lone surrogates have no UTF-8."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_storable(value: str) -> bool:
    """Tell whether both databases take the string."""
    return "\0" not in value and is_text(value)


def as_name(value: Any, what: str) -> str:
    """Return a name.

    Raises:
        InvalidArgument: Where it is no string, or one that no database takes. `what` says whose name it is.
    """
    if type(value) is str and is_storable(value):
        return value
    name = plain(value)
    if not isinstance(name, str) or not is_storable(name):
        raise InvalidArgument(
            f"{what} is a string without NUL and lone surrogates, got {shown(value)}."
        )
    return str.__str__(name)


# -- lists ------------------------------------------------------------------------------------------------------------


def as_list(samples: Any, what: str = "samples") -> list[Any]:
    """Return samples as a list: a list, tuple, Series, array or tensor of one dimension, or whatever gives samples.

    Raises:
        InvalidArgument: Where it is one sample, as a string is, or iterates over something other than samples, as a
            table and an image do. The message has the way out.
    """
    if type(samples) is list:
        return list(samples)
    require_list(samples, what)
    return list(
        samples.to_pylist() if hasattr(samples, "to_pylist") else samples
    )  # Arrow's scalars are no samples


def require_list(samples: Any, what: str = "samples") -> None:
    """Refuse what is not a list of samples; see `as_list`."""
    kind = type(samples)
    n_dimensions = getattr(samples, "ndim", 1)
    if _has_columns(samples):
        raise InvalidArgument(
            f"{what} must be a list, got a {kind.__name__}, which is a table: give one column, "
            "such as table['smiles'], or its rows, such as table.to_dict('records')."
        )
    if isinstance(n_dimensions, int) and n_dimensions > 1 and not isinstance(samples, type):
        shape = tuple(getattr(samples, "shape", ()))
        raise InvalidArgument(
            f"{what} must be a list, got one {kind.__name__} of shape {shape}: put it into a list, or use add_one, if "
            f"it is one sample; give list(...) of it if it is {shape[0] if shape else 'many'} samples."
        )
    if isinstance(samples, io.IOBase):
        raise InvalidArgument(
            f"{what} must be a list, got a file: give its lines, such as file.read().splitlines()."
        )
    is_iterable = isinstance(samples, Iterable) or _is_sequence(samples)
    if _is_one(samples) or n_dimensions == 0 or not is_iterable:
        raise InvalidArgument(
            f"{what} must be a list, got one {kind.__name__}: put it into a list."
        )


def _is_one(value: Any) -> bool:
    """Tell whether something that can be iterated over is one sample all the same: its parts are none."""
    one = (str, bytes, bytearray, memoryview, UserString, Mapping, Set)
    return isinstance(value, one) or any(is_whole(type(value)) for is_whole in WHOLE)


def _is_sequence(value: Any) -> bool:
    return (
        not isinstance(value, type) and hasattr(value, "__getitem__") and hasattr(value, "__len__")
    )


def _has_columns(value: Any) -> bool:
    """Tell whether it is a table of pandas, polars or Arrow, which iterates over names, or over columns."""
    columns = (
        None if getattr(value, "ndim", 2) == 1 else getattr(value, "columns", None)
    )  # a Series may have any name
    return columns is not None and not callable(columns) and hasattr(value, "shape")


def as_names(names: Any, n: int, what: str) -> list[str]:
    """Return n names, of which one may stand for all.

    Args:
        names: A name, or a list of n.
        n: How many samples there are.
        what: What they name, as "source".

    Raises:
        InvalidArgument: Where they are none, or not one for each.
    """
    one = plain(names)
    if isinstance(one, str):
        return [as_name(one, f"a {what}")] * n
    if not isinstance(one, Iterable):
        raise InvalidArgument(
            f"{what} must be a name, or a list of one name for each sample; got {shown(names)}."
        )
    given = as_list(names, f"{what}s")
    if len(given) != n:
        raise InvalidArgument(
            f"{n} samples came with {len(given)} {what}s: give one name, or one for each sample."
        )
    return [as_name(name, f"a {what}") for name in given]


def as_ids(ids: Any, rule: str = "ids must be a list of integers, such as batch.ids") -> list[int]:
    """Return numbers of samples as a list.

    Args:
        ids: A list, array, tensor or Series of integers.
        rule: What they must be: the beginning of the message.

    Raises:
        InvalidArgument: Where they are none.
    """
    try:
        if not hasattr(ids, "ndim"):
            ids = as_list(ids, "ids")
            if any(isinstance(number, (bool, np.bool_)) for number in ids):
                raise TypeError("no integers")
        given = np.asarray(_on_cpu(ids))
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise TypeError("no list of integers")
        if given.size and (int(given.max()) > _LARGEST_ID or int(given.min()) < -_LARGEST_ID):
            raise ValueError("no number of a sample")
    except (
        TypeError,
        ValueError,
        RuntimeError,
        OverflowError,
    ) as exc:  # also from numpy, for lists of several lengths
        raise InvalidArgument(f"{rule}; got {shown(ids)}.") from exc
    found: list[int] = given.astype(np.int64, copy=False).tolist()
    return found


def as_mask(flags: Any, n: int, rule: str) -> NDArray[np.bool_]:
    """Return n flags, (n,) bool.

    Raises:
        InvalidArgument: Where they are none, or not one for each. `rule` is the beginning of the message.
    """
    try:
        given = np.asarray(_on_cpu(flags if hasattr(flags, "ndim") else as_list(flags)))
        if given.dtype.kind == "O":
            given = np.array(
                [require_flag(flag, "a flag") for flag in given.tolist()], dtype=np.bool_
            )
        is_mask = given.shape == (n,) and (given.dtype.kind == "b" or not n)
    except (TypeError, ValueError, RuntimeError):
        is_mask = False
    if not is_mask:
        raise InvalidArgument(f"{rule}; got {shown(flags)}.")
    return given.astype(np.bool_)


def as_floats(values: Any) -> NDArray[np.float64]:
    """Return numbers as float64: a list, an array, a Series or a tensor on any device, of any shape.

    Raises:
        TypeError: They are no numbers.
        ValueError: They are no numbers, or lists of several lengths.
        OverflowError: One is an integer beyond every float.
    """
    try:
        given = np.asarray(_on_cpu(values))
    except RuntimeError:  # a list of tensors with gradients
        given = np.array([as_float(value) for value in values])
    if given.dtype.kind == "O":
        each = [
            math.nan if value is None else as_float(value) for value in given.reshape(-1).tolist()
        ]
        return np.array(each, dtype=np.float64).reshape(given.shape)
    if given.dtype.kind not in "fiub":
        raise TypeError("no numbers")
    with np.errstate(over="ignore"):
        return given.astype(np.float64)


def _on_cpu(values: Any) -> Any:
    """Return a tensor, of whatever library that has `detach`, as a numpy array; all else as it is."""
    if not callable(getattr(values, "detach", None)):
        return values
    tensor = values.detach().cpu()
    try:
        return tensor.numpy()
    except TypeError:  # bfloat16
        return tensor.double().numpy()


def as_rewards(rewards: Any, n: int) -> list[float | None]:
    """Return rewards as a list of n floats or None.

    Raises:
        InvalidReward: Where they are not n numbers, or where one is infinite.
    """
    try:
        values = _each_reward(rewards)
    except (TypeError, ValueError, OverflowError, RuntimeError) as exc:
        raise InvalidReward(
            f"rewards must be {n} numbers, one for each sample; got {shown(rewards)}."
        ) from exc
    if len(values) != n:
        raise InvalidReward(
            f"got {len(values)} rewards for {n} samples: give one for each, in their order."
        )
    if math.inf in values or -math.inf in values:
        position = next(
            i for i, value in enumerate(values) if value is not None and math.isinf(value)
        )
        raise InvalidReward(
            f"reward {position} is {values[position]}: rewards must be finite; use NaN for a measurement that failed."
        )
    return values


def _each_reward(rewards: Any) -> list[float | None]:
    if hasattr(rewards, "ndim") or isinstance(rewards, np.generic):
        if rewards.ndim != 1:
            raise TypeError("not a list of numbers")
        given = np.asarray(_on_cpu(rewards))
        if given.dtype.kind != "O":
            numbers: list[float | None] = as_floats(given).tolist()
            return numbers
        rewards = given.tolist()
    if type(rewards) is list and set(map(type, rewards)) <= _MEASURED:  # at a fifth of the cost
        return [None if reward is None else float(reward) for reward in rewards]
    return [None if reward is None else as_float(reward) for reward in as_list(rewards, "rewards")]


def as_scores(scores: Any, n: int) -> NDArray[np.float64]:
    """Return scores as (n,) float64, NaN for what is not finite.

    Raises:
        InvalidArgument: Where they are a tensor, no numbers, or not one for each sample.
    """
    if hasattr(scores, "detach"):
        raise InvalidArgument(
            "scores came as a tensor: return a numpy array, such as `scores.detach().cpu().numpy()`."
        )
    try:
        values = as_floats(scores)
    except (TypeError, ValueError, OverflowError, RuntimeError) as exc:
        raise InvalidArgument(
            f"scores must be {n} numbers, one for each sample; got {shown(scores)}."
        ) from exc
    if values.shape != (n,):
        raise InvalidArgument(
            f"scores have shape {values.shape}, but {n} samples need one each: return shape ({n},)."
        )
    return np.where(np.isfinite(values), values, np.nan)


def as_mapping(value: Any, what: str) -> Mapping[Any, Any]:
    """Return a mapping.

    Raises:
        InvalidArgument: Where it is none.
    """
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"{what} must be a mapping, got {shown(value)}.")
    return value
