"""The orders of `top`."""

from __future__ import annotations

from typing import Any

from sqlbuffer._validation import require_choice
from sqlbuffer.errors import InvalidArgument

ORDERS = ("reward", "score")


def require_order(by: Any) -> str:
    """Return by what the best samples are ordered.

    Raises:
        InvalidArgument: If it is neither "reward" nor "score". Uncertainty has a message of its
            own: a user may look for it.
    """
    if by == "uncertainty":
        raise InvalidArgument(
            "top goes by reward or score, because the database stores no uncertainty, which only "
            'the model tells: score by an acquisition that adds it, such as acquisition="ucb" of '
            "PredictiveBuffer, and look at the top by score."
        )
    return require_choice(by, 'top goes by "reward" or "score"', ORDERS)
