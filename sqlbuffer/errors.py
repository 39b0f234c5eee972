"""Every error this package raises on purpose, each also a kind the standard library knows."""

from __future__ import annotations

import collections.abc
import contextlib
import itertools
import reprlib

EXITS = (SystemExit, GeneratorExit)
"""What user code may raise that no `except Exception` sees, and that is neither Ctrl-C nor a signal."""


def printable(text: str) -> str:
    """Return a text in which characters that move cursors, change colours or break lines are written as escapes."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def shown(value: object) -> str:
    """Return what a message shows of a value: one line, 80 characters at the most."""
    try:
        text = f"{value!r:.200}"
    except Exception as exc:  # of another's class; an integer of more digits than Python writes
        text = f"<{type(value).__name__}, whose repr fails: {type(exc).__name__}>"
    line = printable(" ".join(text.split()))
    return line if len(line) <= 80 else f"{line[:77]}..."


def listed(names: collections.abc.Iterable[str]) -> str:
    """Return the first ten of some names as a message has them, each 80 characters at the most, and "none" for none."""
    first = list(itertools.islice(names, 11))
    cut = [name if len(name) <= 80 else f"{name[:77]}..." for name in first[:10]]
    return ", ".join(cut + ["..."] * (len(first) > 10)) or "none"


def summary(error: BaseException) -> str:
    """Return what a log line, or a row, says of any error: its class, and the first line of its message.

    It has no NUL, no lone surrogate and no escape, which messages of user code and of drivers may quote from what is
    stored, and 1,000 characters at the most.
    """
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # a __str__ of user code
        lines = ["the message cannot be read"]
    line = printable(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)
    return line if len(line) <= 1000 else f"{line[:997]}..."


class SqlBufferError(Exception):
    """Base of all errors raised by sqlbuffer."""

    def __str__(self) -> str:
        # A message may quote what is stored, or what a driver says of it: a log or a terminal must not obey it.
        return printable(super().__str__())


class InvalidArgument(SqlBufferError, ValueError):
    """An argument is out of range or of the wrong shape; the message says what would do."""


class TooLarge(InvalidArgument):
    """More bytes than the database takes in one value, or in one statement."""


class InvalidReward(InvalidArgument):
    """Rewards that cannot be stored: infinite, or not one for each sample."""


class UnsupportedType(SqlBufferError, TypeError):
    """A sample of a type without a canonical hash or a codec; the message says how to register it."""


@contextlib.contextmanager
def naming(number: int | None, sample: object) -> collections.abc.Iterator[None]:
    """Say which sample an error is about: its number in what the user gave, and what it looks like."""
    try:
        yield
    except (UnsupportedType, InvalidArgument) as exc:
        if number is None:
            raise
        raise type(exc)(f"sample {number}, {printable(_SHORT.repr(sample))}: {exc}") from exc


class InvalidPayload(SqlBufferError, ValueError):
    """A stored payload that is truncated, malformed, too deep, or of an unknown codec."""


def tampered(what: str) -> InvalidPayload:
    """Return the error for a stored value that sqlbuffer cannot have written: what it is, and what it is not."""
    return InvalidPayload(
        f"{what}: the stored value is corrupt or was edited; fix it, or restore a backup."
    )


@contextlib.contextmanager
def numbers_of(what: str) -> collections.abc.Iterator[None]:
    """Turn the failure of reading stored numbers, where there is text or none that is finite, into `tampered`."""
    try:
        yield
    except (TypeError, ValueError, OverflowError) as exc:
        raise tampered(
            f"{what} is stored with a value that is not a number ({shown(exc)})"
        ) from exc


class BufferNotFound(SqlBufferError, LookupError):
    """No buffer of that name in the database."""


class SettingsMismatch(SqlBufferError, ValueError):
    """A buffer was reopened with a setting that differs from the stored one."""


class ClaimLost(SqlBufferError, RuntimeError):
    """A batch was settled or released before, by this process or on behalf of it."""


class StaleIds(SqlBufferError, LookupError):
    """Numbers that may be those of other samples: the database has gone back to an earlier state, or was replaced."""


class TrainingDiverged(SqlBufferError, ArithmeticError):
    """A training whose loss or weights were not finite; the predictor keeps its old weights."""


class LeaseLost(SqlBufferError, RuntimeError):
    """A job was let go on behalf of its owner, or taken over by another one: the owner can store nothing any more."""


class DatabaseUnavailable(SqlBufferError, ConnectionError):
    """The database cannot be opened, reached, read or written."""


class SchemaMismatch(SqlBufferError, RuntimeError):
    """The database holds a schema that this release does not work with."""


class SchemaTooOld(SchemaMismatch):
    """The schema is of an older release: `sqlbuffer db upgrade` brings it up to date."""


class SchemaTooNew(SchemaMismatch):
    """The schema is of a newer release: a newer sqlbuffer is needed."""


class ForeignDatabase(SchemaMismatch):
    """The database holds another process's tables; it was left untouched."""


class InconsistentDatabase(SqlBufferError, RuntimeError):
    """The database does not find again what it has told before; what was begun was rolled back."""


def require_all(n_found: int, n_expected: int, what: str) -> None:
    """Refuse to go on where a statement has not changed the rows that it must have changed.

    Raises:
        InconsistentDatabase: Where it has changed others, fewer or more.
    """
    if n_found != n_expected:
        raise InconsistentDatabase(
            f"{n_found} rows of {n_expected} were found again when {what}: nothing was stored; "
            "run `sqlbuffer db check`, and make sure that no other program changes the tables."
        )


def no_progress(what: str) -> InconsistentDatabase:
    """Return the error for a loop over the database that comes back to where it was."""
    return InconsistentDatabase(
        f"{what} makes no progress, because the database returns the same rows repeatedly: run "
        "`sqlbuffer db check`, and make sure that no other program changes the tables."
    )


class MissingExtra(SqlBufferError, ImportError):
    """An optional package is not installed; the message has the command that installs it."""
