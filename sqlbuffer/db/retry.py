"""How long, and how often, a failed function is called again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import tenacity

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE_S = 60.0
"""How long a failed transaction runs again and again: a server that restarts takes less."""

LONGEST_S = 1.0
"""The longest pause between two attempts."""

_FIRST_PAUSE_S = 0.01

_system = random.SystemRandom()


def _backoff(state: tenacity.RetryCallState) -> float:
    """Return a random pause: rivals do not meet again. The global generator is the user's."""
    longest_s = min(LONGEST_S, _FIRST_PAUSE_S * 2.0 ** min(state.attempt_number - 1, 10))
    return _system.uniform(0.0, longest_s)


def retrying(is_passing: Callable[[BaseException, int], bool]) -> tenacity.Retrying:
    """Return a caller that calls a function again while its errors may pass.

    Args:
        is_passing: Takes an error and the number of its attempt, from 1; returns True to try again.
    """

    def passes(state: tenacity.RetryCallState) -> bool:
        error = None if state.outcome is None else state.outcome.exception()
        return error is not None and is_passing(error, state.attempt_number)

    return tenacity.Retrying(
        retry=passes,
        wait=_backoff,
        stop=tenacity.stop_after_delay(PATIENCE_S),
        reraise=True,
    )


def call_again(function: Callable[[], T], is_passing: Callable[[BaseException, int], bool]) -> T:
    """Call a function again, whose first attempt has ended with an error that may pass.

    The first attempt needs no `retrying`, which takes longer than a short transaction.
    """
    time.sleep(_system.uniform(0.0, _FIRST_PAUSE_S))
    return retrying(lambda error, attempt: is_passing(error, attempt + 1))(function)


def until_true(function: Callable[P, bool], *args: P.args, **kwargs: P.kwargs) -> bool:
    """Call a function until it returns True; return False if it never does."""
    again = tenacity.Retrying(
        retry=tenacity.retry_if_result(_is_false),
        wait=_backoff,
        stop=tenacity.stop_after_delay(PATIENCE_S),
        retry_error_callback=_give_up,
    )
    return again(function, *args, **kwargs)


def _is_false(result: bool) -> bool:
    return not result


def _give_up(_: Any) -> bool:
    return False
