"""Columns of Python values as columns of Arrow, of the right type whatever is missing."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlbuffer._integrity import tampered
from sqlbuffer._messages import shown, summary
from sqlbuffer.core.conditions import META
from sqlbuffer.errors import InvalidArgument, MissingExtra
from sqlbuffer.exchange.columns import JSON, column_of
from sqlbuffer.exchange.reading import Chunk, json_of

ABOUT = b"sqlbuffer"
"""Key of the metadata of a schema that tell of the buffer, as JSON."""


def told_of(schema: Any) -> dict[str, str]:
    """Return what a schema of `batches_of` tells of its buffer; nothing if it is another one."""
    try:
        found = json.loads((schema.metadata or {}).get(ABOUT, b"{}"))
    except (ValueError, RecursionError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def optional(package: str) -> Any:
    """Return a package of the extra `export`.

    Raises:
        MissingExtra: If it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as exc:
        raise MissingExtra(f'this needs {package}: pip install "sqlbuffer[export]".') from exc


def batches_of(
    names: Sequence[str],
    chunks: Iterator[Chunk],
    *,
    decode: bool,
    metas: Callable[[], Iterable[Chunk]],
    about: Mapping[str, str],
) -> tuple[Any, Iterator[Any]]:
    """Return the schema of a table, and its record batches.

    Args:
        names: Names of the columns.
        chunks: The columns, chunk by chunk.
        decode: Whether the samples are decoded.
        metas: Returns the columns with values of the metas, which tell their types.
        about: What the schema tells of the buffer, in its metadata under `ABOUT`.
    """
    first = next(chunks, None)
    fields = _Fields(first, decode=decode)
    values = [name for name in names if name.startswith(META)]
    if values:
        fields.look_at(values, metas())
    pyarrow = optional("pyarrow")
    told = {ABOUT: json.dumps(dict(about), ensure_ascii=False).encode()}
    schema = pyarrow.schema([fields.field(name) for name in names], metadata=told)

    def batches() -> Iterator[Any]:
        chunk = first
        while chunk is not None:
            arrays = [fields.array(name, chunk[name]) for name in names]
            yield pyarrow.RecordBatch.from_arrays(arrays, schema=schema)
            chunk = next(chunks, None)

    return schema, batches()


class _Fields:
    """The types of the columns of one reading."""

    def __init__(self, first: Chunk | None, *, decode: bool) -> None:
        self._pa = optional("pyarrow")
        self._classes: dict[str, set[type]] = {}
        self._decodes = decode
        samples = first["sample"] if decode and first and "sample" in first else [""]
        self._class = type(samples[0])
        self._of_samples = self._inferred(samples) if decode else None

    def look_at(self, names: Sequence[str], chunks: Iterable[Chunk]) -> None:
        """Find the types of columns with values of the metas."""
        self._classes = {name: set() for name in names}
        for chunk in chunks:
            for name in names:
                self._classes[name].update(map(_class_of, chunk[name]))

    def field(self, name: str) -> Any:
        """Return the field of a column."""
        return self._pa.field(name, self._type(name), column_of(name).may_be_missing)

    def array(self, name: str, values: list[Any]) -> Any:
        """Return a column.

        Raises:
            InvalidPayload: If a stored value is of another type.
            InvalidArgument: If decoded samples are of several types.
        """
        if name == "sample" and self._decodes:
            return self._samples(values)
        if name in JSON:
            values = [None if value is None else json_of(value) for value in values]
        elif name.startswith(META):
            convert = _CONVERTERS.get(_type_of(self._classes[name]), _unchanged)
            values = [None if value is None else convert(value) for value in values]
        try:
            return self._pa.array(values, self._type(name))
        except (self._pa.ArrowException, TypeError, ValueError, OverflowError) as exc:
            raise tampered(f"a value of column {name} is of another type ({shown(exc)})") from exc

    def _type(self, name: str) -> Any:
        if name == "sample" and self._decodes:
            return self._of_samples
        if name.startswith(META):
            return getattr(self._pa, _type_of(self._classes[name]))()
        kind = column_of(name).type
        if kind == "timestamp":
            return self._pa.timestamp("us", tz="UTC")
        return getattr(self._pa, kind)()

    def _samples(self, values: list[Any]) -> Any:
        if other := next((each for each in values if type(each) is not self._class), None):
            raise InvalidArgument(
                f"samples are of several types, such as {self._class.__name__} and "
                f"{type(other).__name__}: read their texts, with decode=False."
            )
        try:
            return self._pa.array(values, self._of_samples)
        except (self._pa.ArrowException, TypeError, ValueError, OverflowError) as exc:
            raise self._no_type(exc) from exc

    def _inferred(self, samples: list[Any]) -> Any:
        try:
            return self._pa.array(samples).type
        except (self._pa.ArrowException, TypeError, ValueError, OverflowError) as exc:
            raise self._no_type(exc) from exc

    def _no_type(self, exc: Exception) -> InvalidArgument:
        return InvalidArgument(
            f"samples of type {self._class.__name__} do not fit into a column of Arrow "
            f"({summary(exc)}): read their texts, with decode=False."
        )


def _class_of(value: Any) -> type:
    """Return the class of a value; that of numbers for an integer that only a float holds."""
    if type(value) is not int or -(2**63) <= value < 2**63:
        return type(value)
    return float if abs(value) < 2**1023 else object


def _type_of(classes: set[type]) -> str:
    """Return the name of the type for values of these classes; for none, that of a number."""
    found = classes - {type(None)}
    if found == {bool}:
        return "bool_"
    if found == {int}:
        return "int64"
    if found <= {int, float}:
        return "float64"
    return "string"


def as_text(value: Any) -> str:
    """Return a value of the metas as text: text as it is, another value as JSON."""
    return value if isinstance(value, str) else json_of(value)


def _unchanged(value: Any) -> Any:
    return value


_CONVERTERS: dict[str, Callable[[Any], Any]] = {"float64": float, "string": as_text}
"""Functions that make values of the metas fit into a column of this type."""
