"""A thread that would wait for itself: it writes, and is interrupted by code that writes."""

from __future__ import annotations

import inspect
from types import CodeType

import sqlalchemy as sa

from sqlbuffer.errors import DatabaseUnavailable

WRITING = ("writer", "copier", "owner")
"""The kinds of engines whose transactions write."""


def refuse_reentry(url: sa.URL, shown: str, code: CodeType) -> None:
    """Refuse to write if this thread is writing already: the write would wait for itself.

    The stack of calls is searched, which takes 7 us at 60 calls. A mark that is set and removed
    could stay for good if a signal comes between.

    Args:
        url: URL of the database.
        shown: The URL without its password.
        code: Code of the method that writes, with the variables `kind` and `self`; it has called
            this function.
    """
    frame = inspect.currentframe()
    frame = frame and frame.f_back and frame.f_back.f_back  # the callers of the method
    while frame is not None:
        given = frame.f_locals if frame.f_code is code else {}
        if given and given["kind"] in WRITING and given["self"]._url == url:
            raise DatabaseUnavailable(
                f"this thread is in the middle of writing to {shown}, and a second write would "
                "wait for the first: set a flag in the signal handler, destructor or callback, and "
                "write after the interrupted call has returned."
            )
        frame = frame.f_back
