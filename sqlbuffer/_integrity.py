"""Checks of what the database returns: corrupt values, missing rows, and loops without progress."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlbuffer._messages import shown
from sqlbuffer.errors import InconsistentDatabase, InvalidPayload


def tampered(what: str) -> InvalidPayload:
    """Return the error for a stored value that sqlbuffer cannot have written.

    Args:
        what: The value and its fault, such as "a time is stored as 'x', which is not a time".
    """
    return InvalidPayload(
        f"{what}: the stored value is corrupt or was edited; fix it, or restore a backup."
    )


@contextlib.contextmanager
def numbers_of(what: str) -> Iterator[None]:
    """Report stored numbers that cannot be read as numbers, or are not finite, as `tampered`.

    Args:
        what: The subject of the message, such as "the weight of a waiting sample".
    """
    try:
        yield
    except (TypeError, ValueError, OverflowError) as exc:
        raise tampered(
            f"{what} is stored with a value that is not a number ({shown(exc)})"
        ) from exc


def require_all(n_found: int, n_expected: int, what: str) -> None:
    """Refuse to continue if a statement changed another number of rows than it must change.

    Args:
        n_found: Rows that the statement changed.
        n_expected: Rows that it must change.
        what: The step, such as "samples left the queue".

    Raises:
        InconsistentDatabase: If the numbers differ.
    """
    if n_found != n_expected:
        raise InconsistentDatabase(
            f"{n_found} rows of {n_expected} were found again when {what}: nothing was stored; "
            "run `sqlbuffer db check`, and make sure that no other program changes the tables."
        )


def no_progress(what: str) -> InconsistentDatabase:
    """Return the error for a loop over the database that reads the same rows repeatedly.

    Args:
        what: The loop, such as "a walk through the pool".
    """
    return InconsistentDatabase(
        f"{what} makes no progress, because the database returns the same rows repeatedly: run "
        "`sqlbuffer db check`, and make sure that no other program changes the tables."
    )
