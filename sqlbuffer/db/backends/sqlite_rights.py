"""The rights of this process on an SQLite file, and on the files that SQLite keeps next to it."""

from __future__ import annotations

import os
import shlex

from sqlbuffer.errors import DatabaseUnavailable

LOG, INDEX = "-wal", "-shm"
"""Endings of the files that SQLite keeps next to a database: its log, and the log's index."""


def allows(path: str, right: int) -> bool:
    """Return True if this process has a right on a path: `os.R_OK`, `os.W_OK`."""
    return os.access(path, right, effective_ids=os.access in os.supports_effective_ids)


def obstacles(file: str) -> list[str]:
    """Return the paths for which this process cannot write to a database, [] if it can.

    They are the file itself, its folder, or the log and its index. If there is no file, SQLite
    reports the reason.
    """
    if not os.path.exists(file):
        return []
    if not allows(file, os.W_OK):
        return [file]
    paths = [f"{file}{ending}" for ending in (INDEX, LOG)]
    there = [path for path in paths if os.path.exists(path)]
    if there != paths and not allows(os.path.dirname(file), os.W_OK):
        return [os.path.dirname(file)]
    return [path for path in there if not allows(path, os.W_OK)]


def require_writable(file: str) -> None:
    """Refuse to write to a file without the right to do so, before SQLite creates other files.

    Raises:
        DatabaseUnavailable: If this process may not write to the file, or to one next to it. The
            message names it, its owner, and the way out.
    """
    if found := obstacles(file):
        raise DatabaseUnavailable(f"{_shown(found)}: {_way_out(file, found)}.")


def has_content(path: str) -> bool:
    """Return True for a file that exists and is not empty."""
    try:
        return os.stat(path).st_size > 0
    except OSError:
        return False


def owner_of(path: str) -> str:
    """Return the name of a file's owner."""
    return _user(os.stat(path).st_uid)


def _shown(paths: list[str]) -> str:
    """Return that this process may not write to some paths, and to whom they belong."""
    us = _user(os.geteuid()) if hasattr(os, "geteuid") else "this process"
    owned = " and ".join(
        f"{path}, which belongs to {owner_of(path)} (mode {os.stat(path).st_mode & 0o777:o})"
        for path in paths
    )
    return f"{us} may not write to {owned}"


def _way_out(file: str, found: list[str]) -> str:
    if found == [file]:
        return (
            "open the store with read_only=True, or make the file and its folder writable (chmod "
            "u+w, for a group g+w)"
        )
    if found == [os.path.dirname(file)]:
        return (
            f"SQLite keeps the log of {file} there, so make the folder writable (chmod u+w), or "
            "open the store with read_only=True"
        )
    return f"end all processes that use {file}, then run `{_commands(file, found)}`"


def _commands(file: str, leftovers: list[str]) -> str:
    """Return the commands that end the reign of another user over files next to a database.

    The index of the log can be made again, and an empty log too. A log with commits is copied.
    """
    log = f"{file}{LOG}"
    commands = []
    if log in leftovers and has_content(log):
        leftovers = [path for path in leftovers if path != log]
        mine = shlex.quote(f"{log}.copy")
        commands = [f"cp {shlex.quote(log)} {mine}", f"mv -f {mine} {shlex.quote(log)}"]
    if leftovers:
        commands.append(f"rm -f {shlex.join(leftovers)}")
    return " && ".join(commands)


def _user(uid: int) -> str:
    """Return the name of a user, or the number of one without a name."""
    try:
        import pwd

        return f"user {pwd.getpwuid(uid).pw_name}"
    except (ImportError, KeyError):
        return f"user {uid}"
