"""Every exception that sqlbuffer raises; each also derives from a class of the standard library."""

from __future__ import annotations

from sqlbuffer._messages import printable, shortened

EXITS = (SystemExit, GeneratorExit)
"""Exceptions of user code that `except Exception` misses; Ctrl-C and signals raise others."""


class SqlBufferError(Exception):
    """Base of all errors raised by sqlbuffer.

    Examples:
        >>> from sqlbuffer import SqlBufferError
        >>> try:
        ...     store.sample(-2)
        ... except SqlBufferError as error:
        ...     print(type(error).__name__, error)
        InvalidArgument n must be a number of samples, or -1 for all waiting samples; got -2.
    """

    def __str__(self) -> str:
        # A message may quote stored values or a driver: no control character may reach a terminal.
        return printable(shortened(super().__str__()))


class InvalidArgument(SqlBufferError, ValueError):
    """An argument is out of range or has the wrong type or shape; the message gives the rule."""


class TooLarge(InvalidArgument):
    """A value or a statement has more bytes than the database takes."""


class InvalidReward(InvalidArgument):
    """Rewards cannot be stored: one is infinite, or there is not one for each sample."""


class StructureMismatch(InvalidArgument):
    """Samples cannot be stacked, because one has another structure than the first."""


class UnsupportedType(SqlBufferError, TypeError):
    """A sample has a type without a hash or a codec; the message tells how to register the type."""


class InvalidPayload(SqlBufferError, ValueError):
    """A stored payload is truncated, malformed, nested too deep, or of an unknown codec."""


class BufferNotFound(SqlBufferError, LookupError):
    """The database has no buffer of that name."""


class SettingsMismatch(SqlBufferError, ValueError):
    """A buffer was reopened with a setting that differs from the stored one."""


class ReadOnlyStore(SqlBufferError, RuntimeError):
    """A store that was opened with `read_only=True` was asked to write."""


class ClaimLost(SqlBufferError, RuntimeError):
    """A batch was already settled or released, by this process or by a reaper."""


class StaleIds(SqlBufferError, LookupError):
    """Ids may mean other samples: the database was replaced, or restored to an earlier state."""


class UnknownProbability(SqlBufferError, ArithmeticError):
    """The importance weights of a batch are not known, because its probabilities are not."""


class TrainingDiverged(SqlBufferError, ArithmeticError):
    """The loss or the weights in training were not finite; the predictor keeps its old weights."""


class CannotMeasure(SqlBufferError, RuntimeError):
    """The reward function cannot run, or a measurement failed and failures were to be raised."""


class LeaseLost(SqlBufferError, RuntimeError):
    """The lease of a job was released or taken over; its former owner can store nothing more."""


class DatabaseUnavailable(SqlBufferError, ConnectionError):
    """The database cannot be opened, reached, read or written."""


class SchemaMismatch(SqlBufferError, RuntimeError):
    """This release does not work with the schema of the database."""


class NoSchema(SchemaMismatch, BufferNotFound):
    """The database has no tables yet, and no buffer."""


class SchemaTooOld(SchemaMismatch):
    """The schema is of an older release: `sqlbuffer db upgrade` brings it up to date."""


class SchemaTooNew(SchemaMismatch):
    """The schema is of a newer release: upgrade sqlbuffer."""


class ForeignDatabase(SchemaMismatch):
    """The database has tables of another program; sqlbuffer left it untouched."""


class InconsistentDatabase(SqlBufferError, RuntimeError):
    """The database contradicts its earlier answers; the transaction was rolled back."""


class MissingExtra(SqlBufferError, ImportError):
    """An optional package is not installed; the message gives the command that installs it."""
