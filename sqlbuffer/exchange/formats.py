"""The files that samples come from and go to: their formats, and a file that appears when whole."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import IO, Any

from sqlbuffer._files import part_of
from sqlbuffer._messages import listed, printable, shown
from sqlbuffer.errors import InvalidArgument

FORMATS = ("csv", "jsonl", "parquet", "smi")
"""Formats by the ending of a file's name."""

STANDARD_STREAM = "-"
"""Stands for standard input or output."""


def format_of(path: str, given: str | None) -> str:
    """Return the format of a file: the given one, or that of its name's ending.

    Raises:
        InvalidArgument: If none is given, and the name has none of these endings.
    """
    ending = pathlib.PurePath(path).suffix.lower().removeprefix(".")
    found = given or ("csv" if ending == "tsv" else ending)
    if found not in FORMATS:
        raise InvalidArgument(
            f"the format of {shown(path)} is not known: give a name that ends with one of "
            f"{listed('.' + each for each in FORMATS)}, or --format."
        )
    return found


_DELIMITERS = {"comma": ",", "tab": "\t", "semicolon": ";", "\\t": "\t"}


def delimiter_of(path: str, form: str, given: str | None) -> str:
    """Return the character between the fields of a CSV file: the given one, else a tab in `.tsv`.

    Raises:
        InvalidArgument: If it cannot separate fields, or the format is another.
    """
    if given is None:
        return "\t" if path.lower().endswith(".tsv") else ","
    if form != "csv":
        raise InvalidArgument(f"--delimiter is of CSV files, and {shown(path)} is read as {form}.")
    found = _DELIMITERS.get(given, given)
    if len(found) != 1 or found.isalnum() or found in '"\r\n\0 -+._' or not found.isascii():
        raise InvalidArgument(
            f"--delimiter must be tab, semicolon, or one character such as '|'; got {shown(given)}."
        )
    return found


class _Terminal(io.RawIOBase):
    """Standard output as a terminal shows it, with control characters as escapes."""

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Write whole characters."""
        lines = bytes(data).decode(errors="backslashreplace").split("\n")
        sys.stdout.write("\n".join(map(printable, lines)))
        return len(data)


@contextlib.contextmanager
def written(path: str) -> Iterator[IO[bytes]]:
    """Open a file for writing, which gets its name when the block has ended without an error."""
    if path == STANDARD_STREAM:
        yield _Terminal() if sys.stdout.isatty() else sys.stdout.buffer  # type: ignore[misc]
        sys.stdout.flush()
        return
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device
        with open(path, "wb") as file:
            yield file
        return
    with _opening(path, "written"):
        part = part_of(path)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(descriptor, "wb") as file:
            yield file
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


@contextlib.contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """Open a file for reading.

    Raises:
        InvalidArgument: If it cannot be opened.
    """
    if path == STANDARD_STREAM:
        yield sys.stdin.buffer
        return
    with contextlib.ExitStack() as stack:
        with _opening(path, "read"):
            file = stack.enter_context(open(path, "rb"))
        yield file


@contextlib.contextmanager
def created(path: str) -> Iterator[IO[str]]:
    """Open a text file for writing, in which each line stands as soon as it is written.

    Bytes that were read as lone surrogates are written as they were.

    Raises:
        InvalidArgument: If it cannot be opened.
    """
    how: Any = {"encoding": "utf-8", "errors": "surrogateescape", "newline": "", "buffering": 1}
    with contextlib.ExitStack() as stack:
        with _opening(path, "written"):
            file = stack.enter_context(open(path, "w", **how))
        yield file


@contextlib.contextmanager
def _opening(path: str, done: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise InvalidArgument(f"{path} cannot be {done}: {exc.strerror}.") from exc
