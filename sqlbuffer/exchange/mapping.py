"""What the columns of a file mean: sample, source, meta, and what was measured."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlbuffer._json import as_json
from sqlbuffer._messages import shown
from sqlbuffer._validation import is_storable
from sqlbuffer.core.conditions import META
from sqlbuffer.core.measured import as_error
from sqlbuffer.errors import InvalidArgument, SqlBufferError
from sqlbuffer.exchange.frames import jsonable
from sqlbuffer.exchange.rows import Row
from sqlbuffer.samples.codec import decode_all

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
"""A number of JSON."""

_DIGITS = 300
"""Longest text that is read as a number: Python reads no integer of more than 4,300 digits."""

_FLAGS = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
"""As JSON and Polars, pandas, and R and spreadsheets write them."""


class Entry(NamedTuple):
    """A row whose values are those of a sample."""

    number: int
    sample: Any
    source: str
    meta: str | None
    """JSON."""
    reward: float | None
    error: str | None
    seconds: float | None

    @property
    def is_measured(self) -> bool:
        """Whether it has a reward, or an error."""
        return self.reward is not None or self.error is not None


class Refused(NamedTuple):
    """A row that is not stored."""

    number: int
    reason: str


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which column of a file is which; None for none."""

    sample: str
    reward: str | None = None
    source: str | None = None
    metas: Sequence[str] = ()
    """Columns that are values of the metas, under their own names."""
    error: str | None = None
    seconds: str | None = None
    meta: str | None = None
    """A column of whole metas, as JSON."""
    payload: str | None = None
    codec: str | None = None

    @classmethod
    def of(
        cls,
        names: Sequence[str] | None,
        *,
        sample: str | None = None,
        reward: str | None = None,
        source: str | None = None,
        metas: Sequence[str] = (),
    ) -> Columns:
        """Return the columns that a user has named, or those of a file that `export` has written.

        Raises:
            InvalidArgument: If the file has no such column.
        """
        if sample is reward is source is None and not metas:
            found = cls._of_an_export(names)
        else:
            found = cls(sample or "sample", reward, source, tuple(metas))
        if names is not None:
            found._require(names)
        return found

    def _require(self, names: Sequence[str]) -> None:
        """Refuse columns that a file does not have."""
        if missing := [name for name in self.given() if name not in names]:
            raise InvalidArgument(
                f"the file has no column {shown(missing[0])}, but {', '.join(map(shown, names))}: "
                "--sample, --reward, --source-column and --meta name its columns, and --delimiter "
                "the character between them."
            )

    @classmethod
    def _of_an_export(cls, names: Sequence[str] | None) -> Columns:
        known = ("reward", "source", "error", "seconds", "meta", "payload", "codec")
        there = {name: name for name in known if names is None or name in names}
        if len(there.keys() & {"payload", "codec"}) == 1:
            there = {name: name for name in there if name not in ("payload", "codec")}
        apart = [] if "meta" in there else [name for name in names or () if name.startswith(META)]
        return cls("sample", metas=tuple(apart), **there)

    def given(self) -> list[str]:
        """Return the names of the columns that are read."""
        one = (self.sample, self.reward, self.source, self.error, self.seconds)
        more = (self.meta, self.payload, self.codec, *self.metas)
        return [name for name in (*one, *more) if name is not None]


class Reader:
    """Reads the entries of rows.

    Args:
        columns: The columns of the file.
        source: Name of the generator if no column has it.
        are_texts: Whether all values are text, as in CSV.
        allow_pickle: Read pickled samples.
    """

    def __init__(
        self, columns: Columns, *, source: str, are_texts: bool, allow_pickle: bool
    ) -> None:
        self._columns, self._source = columns, source
        self._are_texts, self._allow_pickle = are_texts, allow_pickle

    def entry(self, row: Row) -> Entry | Refused:
        """Return the entry of a row, or why there is none."""
        if row.problem:
            return Refused(row.number, row.problem)
        try:
            return self._entry(row)
        except (SqlBufferError, _Wrong) as exc:
            return Refused(row.number, str(exc))

    def _entry(self, row: Row) -> Entry:
        columns, values = self._columns, row.values
        reward = _float(values, columns.reward)
        if reward is not None and math.isinf(reward):
            raise _Wrong(f"the reward is {reward}")
        error = _text(values, columns.error)
        if error is not None and reward is not None:
            raise _Wrong(f"it has a reward and the error {shown(error)}")
        seconds = _float(values, columns.seconds)
        if seconds is not None and not 0 <= seconds < math.inf:
            raise _Wrong(f"it took {seconds} seconds")
        return Entry(
            row.number,
            self._sample(values),
            self._source if columns.source is None else _text(values, columns.source) or "",
            self._meta(values),
            reward,
            None if error is None else as_error(error),
            seconds,
        )

    def _sample(self, values: Mapping[str, Any]) -> Any:
        columns = self._columns
        found = values.get(columns.sample)
        if found is None:
            raise _Wrong(f"it has no sample in column {shown(columns.sample)}")
        codec = _text(values, columns.codec)
        if codec is None or codec == "text":
            return found
        payload = values.get(columns.payload or "")
        if isinstance(payload, str):
            payload = _bytes(payload)
        return decode_all([found], [payload], [codec], allow_pickle=self._allow_pickle)[0]

    def _meta(self, values: Mapping[str, Any]) -> str | None:
        columns = self._columns
        whole = values.get(columns.meta) if columns.meta is not None else None
        if isinstance(whole, str):
            whole = _object(whole)
        if not columns.metas:
            return None if whole is None else as_json(whole, "meta")
        convert: Callable[[Any], Any] = value_from if self._are_texts else jsonable
        found = {name.removeprefix(META): convert(values.get(name)) for name in columns.metas}
        return as_json(found, "meta")


class _Wrong(ValueError):
    """A value of a row that cannot be stored."""


def value_from(text: str | None) -> Any:
    """Return a text as a number if it is one of JSON, or as True or False if it is such a word.

    "007", "1_0" and "tRUE" are text.
    """
    if text is None or not _NUMBER.fullmatch(text):
        return text if text is None else _FLAGS.get(text, text)
    if len(text) > _DIGITS:
        return text
    found = int(text) if text.lstrip("-").isdigit() else float(text)
    return found if math.isfinite(found) else text


def _float(values: Mapping[str, Any], name: str | None) -> float | None:
    """Return a number, None for a missing one and for NaN."""
    value = None if name is None else values.get(name)
    if value is None:
        return None
    try:
        if isinstance(value, bool) or "_" in str(value):
            raise ValueError
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise _Wrong(f"{shown(value)} in column {shown(name)} is not a number") from None
    return None if math.isnan(found) else found


def _text(values: Mapping[str, Any], name: str | None) -> str | None:
    """Return a text that databases take; a number becomes text."""
    value = None if name is None else values.get(name)
    if value is None:
        return None
    if not isinstance(value, (str, int, float)) or not is_storable(str(value)):
        raise _Wrong(f"{shown(value)} in column {shown(name)} is not text")
    return str(value)


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise _Wrong(f"the payload {shown(text)} is not in hexadecimal digits") from None


def _object(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _Wrong(f"the meta {shown(text)} is not JSON") from None
