"""How long, and how often, something that fails is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, ParamSpec

import tenacity

P = ParamSpec("P")

PATIENCE_S = 60.0
"""How long a transaction is tried again: a server that restarts is back by then."""

LONGEST_S = 1.0
"""The longest pause between two attempts."""

_system = random.SystemRandom()


def _backoff(state: tenacity.RetryCallState) -> float:
    """Return how long to wait: at random, so that rivals part, but not by the global generator, which is the user's."""
    return _system.uniform(0.0, min(LONGEST_S, 0.01 * 2.0 ** min(state.attempt_number - 1, 10)))


def retrying(is_passing: Callable[[BaseException, int], bool]) -> tenacity.Retrying:
    """Return what calls a function again and again while its errors are of those that pass.

    Args:
        is_passing: Takes an error and the number of the attempt, from 1 on, that has ended with it.
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


def until_true(function: Callable[P, bool], *args: P.args, **kwargs: P.kwargs) -> bool:
    """Call a function until it returns True; return False where it never did."""
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
