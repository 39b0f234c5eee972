"""Names of files."""

from __future__ import annotations

import errno
import os
import pathlib

from sqlbuffer._messages import printable

LONGEST_NAME = 255
"""Most bytes of the name of a file, in the usual file systems."""

_BEGIN = 40


def too_long(name: str) -> str | None:
    """Return what is wrong with the name of a file that no file system takes; None if one does."""
    if (n := len(os.fsencode(name))) <= LONGEST_NAME:
        return None
    return (
        f"the name of the file {printable(name[:20])}... has {n} bytes, and file systems take "
        f"{LONGEST_NAME}: shorten it"
    )


def part_of(file: str | os.PathLike[str]) -> pathlib.Path:
    """Return the path under which this process writes a file until it is complete.

    Its name is short, so that the file may have the longest name that there can be.

    Raises:
        OSError: If the name of the file itself is too long.
    """
    path = pathlib.Path(file)
    if too_long(path.name):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return path.with_name(f"{path.name[:_BEGIN]}.{os.getpid()}.part")
