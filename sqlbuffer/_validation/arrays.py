"""Converters of numbers, rewards, scores, flags and ids, one for each sample.

In rewards and scores, which are data, True is 1 and False is 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from sqlbuffer._messages import n_of, shown
from sqlbuffer._numpy import np
from sqlbuffer._validation.lists import as_list
from sqlbuffer._validation.scalars import as_float, is_integer, require_flag
from sqlbuffer.errors import InvalidArgument, InvalidReward

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST_ID = 2**63 - 1

_MEASURED = frozenset({float, int, bool, type(None)})


def as_ids(ids: Any, rule: str = "ids must be a list of integers, such as batch.ids") -> list[int]:
    """Return ids of samples as a list.

    Args:
        ids: A list, array, tensor or Series of integers.
        rule: The beginning of the message.

    Raises:
        InvalidArgument: If a value is not an integer, or has more than 64 bits.
    """
    try:
        if not hasattr(ids, "ndim"):
            ids = as_list(ids, "ids")
            if not set(map(type, ids)) <= {int} and not all(map(is_integer, ids)):
                raise TypeError("no integers")
        given = np.asarray(_on_cpu(ids))
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise TypeError("no list of integers")
        if given.size and (int(given.max()) > _LARGEST_ID or int(given.min()) < -_LARGEST_ID):
            raise ValueError("no number of a sample")
    # numpy raises these too, such as for lists of several lengths.
    except (TypeError, ValueError, RuntimeError, OverflowError) as exc:
        raise InvalidArgument(f"{rule}; got {shown(ids)}.") from exc
    found: list[int] = given.astype(np.int64, copy=False).tolist()
    return found


def as_mask(flags: Any, n: int, rule: str) -> NDArray[np.bool_]:
    """Return flags as (n,) bool.

    Raises:
        InvalidArgument: If a value is not a flag, or there are not n. The message begins with
            `rule`.
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
    """Return numbers as float64.

    Args:
        values: A list, array, Series or tensor (on any device) of any shape. None becomes NaN.

    Raises:
        TypeError: If a value is not a number.
        ValueError: If a value is not a number, or lists have several lengths.
        OverflowError: If a value is an integer beyond the range of floats.
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
    """Return a tensor, which has `detach`, as a numpy array, and any other value unchanged."""
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
        InvalidReward: If there are not n numbers, or one is infinite.
    """
    try:
        values = _each_reward(rewards)
    except (TypeError, ValueError, OverflowError, RuntimeError) as exc:
        raise InvalidReward(
            f"rewards must be {n} numbers, one for each sample; got {shown(rewards)}."
        ) from exc
    if len(values) != n:
        raise InvalidReward(
            f"got {len(values)} rewards for {n_of(n, 'sample')}: give one for each, in their order."
        )
    if math.inf in values or -math.inf in values:
        position = next(
            i for i, value in enumerate(values) if value is not None and math.isinf(value)
        )
        raise InvalidReward(
            f"reward {position} is {values[position]}: rewards must be finite; use NaN for a "
            "measurement that failed."
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
    # Five times as fast as the last line.
    if type(rewards) is list and set(map(type, rewards)) <= _MEASURED:
        return [None if reward is None else float(reward) for reward in rewards]
    return [None if reward is None else as_float(reward) for reward in as_list(rewards, "rewards")]


def as_scores(scores: Any, n: int) -> NDArray[np.float64]:
    """Return scores as (n,) float64, NaN for values that are not finite.

    Raises:
        InvalidArgument: If the scores are not numbers, or not one for each sample.
    """
    values = _one_for_each(scores, n, "scores", f"return shape ({n},)")
    return np.where(np.isfinite(values), values, np.nan)


def as_priorities(priorities: Any, n: int, *, hint: str = "") -> NDArray[np.float64]:
    """Return priorities as (n,) float64.

    Args:
        priorities: n numbers.
        n: Number of samples.
        hint: Where a NaN may come from, as a sentence.

    Raises:
        InvalidArgument: If there are not n numbers, or one is negative or not finite.
    """
    way_out = f"give shape ({n},), in the order of the samples"
    values = _one_for_each(priorities, n, "priorities", way_out)
    is_right = np.isfinite(values) & (values >= 0.0)
    if not is_right.all():
        first = int(np.argmin(is_right))
        raise InvalidArgument(
            f"priority {first} is {values[first]}: priorities must be finite numbers of 0 or "
            "more, such as abs(error); a sample of priority 0 is never drawn."
            + (f" {hint}" if hint and math.isnan(values[first]) else "")
        )
    return values


def _one_for_each(values: Any, n: int, name: str, way_out: str) -> NDArray[np.float64]:
    """Return (n,) float64.

    Raises:
        InvalidArgument: If there are not n numbers, one for each sample.
    """
    try:
        numbers = as_floats(values if hasattr(values, "ndim") else as_list(values))
    except (TypeError, ValueError, OverflowError, RuntimeError) as exc:
        raise InvalidArgument(
            f"{name} must be {n} numbers, one for each sample; got {shown(values)}."
        ) from exc
    if numbers.shape != (n,):
        raise InvalidArgument(
            f"{name} have shape {numbers.shape}, but {n} samples need one each: {way_out}."
        )
    return numbers
