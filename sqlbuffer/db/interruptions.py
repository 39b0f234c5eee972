"""The exception of a signal handler, found behind the errors that it has caused."""

from __future__ import annotations


def interruption(
    error: BaseException | None, handled: BaseException | None
) -> BaseException | None:
    """Return the Ctrl-C, or another exception of a signal handler, that has caused an error.

    A signal may come during the steps of a driver or a pool, which then fail with errors of their
    own. Each exception that is neither of this package nor of the database counts, since a handler
    may raise any.

    Args:
        error: The error.
        handled: An exception that was being handled before; it is not the cause.
    """
    if _package(error) == "sqlbuffer":
        return None
    while error is not None and error is not handled:
        if not _is_of_database(error):
            return error
        if error.__suppress_context__ and error.__cause__ is None:
            return None  # a driver's `from None`: it has put another exception in its own words
        error = error.__context__
    return None


_DATABASE_PACKAGES = ("sqlalchemy", "sqlite3", "pysqlite3", "psycopg")


def _package(error: BaseException | None) -> str:
    return type(error).__module__.partition(".")[0]


def _is_of_database(error: BaseException) -> bool:
    is_theirs = _package(error) in _DATABASE_PACKAGES
    # Signal handlers often raise TimeoutError.
    is_of_network = isinstance(error, OSError) and type(error) is not TimeoutError
    return is_theirs or is_of_network or isinstance(error, AssertionError)
