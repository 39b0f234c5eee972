"""The files that samples come from and go to: their formats, and a file that appears when whole."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import IO, Any

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
    found = given or pathlib.PurePath(path).suffix.lower().removeprefix(".")
    if found not in FORMATS:
        raise InvalidArgument(
            f"the format of {shown(path)} is not known: give a name that ends with one of "
            f"{listed('.' + each for each in FORMATS)}, or --format."
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
    part = f"{path}.{os.getpid()}.part"
    with _opening(path, "written"):
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

    Raises:
        InvalidArgument: If it cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        with _opening(path, "written"):
            file = stack.enter_context(open(path, "w", encoding="utf-8", newline="", buffering=1))
        yield file


@contextlib.contextmanager
def _opening(path: str, done: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise InvalidArgument(f"{path} cannot be {done}: {exc.strerror}.") from exc
