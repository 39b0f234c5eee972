"""The lock of writers on an SQLite file, which keeps SQLite's WAL-reset race from happening.

SQLite 3.7.0 to 3.51.2 has the WAL-reset race: a checkpoint that overlaps another connection's
restart of the log can skip committed pages (https://sqlite.org/wal.html#walresetbug). A writing
transaction restarts the log, and its COMMIT checkpoints it. Neither overlaps the other if each
writing transaction holds one lock exclusively. (The checkpoint of the last connection to be closed
is safe: it holds the whole file.)
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
import weakref

from sqlbuffer.errors import DatabaseUnavailable

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.0002, 0.01


def is_affected(version: tuple[int, ...]) -> bool:
    """Return True if SQLite of this version has the WAL-reset race.

    A distribution may have patched the race in an older version.
    """
    if version >= (3, 51):
        return version < (3, 51, 3)
    if version >= (3, 50):
        return version < (3, 50, 7)
    if version >= (3, 44):
        return version >= (3, 45) or version < (3, 44, 6)
    return version >= (3, 7)


if sys.platform == "win32":
    import msvcrt

    def _try(fd: int) -> bool:
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _try(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(fd: int) -> None:
        # Not by closing: a child that was forked since has the same open file.
        fcntl.flock(fd, fcntl.LOCK_UN)


class WriterLock:
    """The lock that every writing transaction holds on `FILE-lock`, from before BEGIN to COMMIT.

    SQLite has one writer at a time anyway, so an exclusive lock delays no process. With a shared
    lock, held exclusively by checkpoints only, checkpoints would wait until by chance no writer
    waits for SQLite.

    The file is opened for each transaction and never removed: a process that finds another file
    under its name tries again.

    Args:
        file: Path of the database.

    Attributes:
        fd: Descriptor of the lock file, None while the lock is not held.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._path = f"{file}-lock"
        self.fd: int | None = None
        locks.add(self)

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self.release()

    def acquire(self, timeout_s: float) -> bool:
        """Wait for the lock, unless it is held already; return False if `timeout_s` passes first.

        Raises:
            DatabaseUnavailable: If the lock file cannot be opened or locked.
        """
        if self.fd is not None:
            return True
        give_up_at = time.monotonic() + timeout_s
        pause_s = _FIRST_PAUSE_S
        try:
            while not self._acquire_now():
                if time.monotonic() > give_up_at:
                    return False
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            return True
        except OSError as exc:
            raise DatabaseUnavailable(
                f"{self._path} cannot be locked ({exc.strerror}): every writer of {self._file} "
                "must be able to create it and to write to it; make the file and its folder "
                "writable (chmod u+w)."
            ) from exc

    def _acquire_now(self) -> bool:
        is_ours = False
        try:
            self.fd = self._open()  # set before it is locked: a signal leaves no lock behind
            is_ours = _try(self.fd) and self._is_current(self.fd)
            return is_ours
        finally:
            if not is_ours:
                self.release()

    def release(self) -> None:
        """Release the lock if it is held."""
        fd = self.fd
        if fd is None:
            return
        try:
            _unlock(fd)
        finally:  # also if a signal comes now
            self.fd = None
            os.close(fd)

    def leave(self) -> None:
        """Close the file in a forked child, which must not hold the lock of its parent."""
        fd, self.fd = self.fd, None
        if fd is not None:
            os.close(fd)

    def _open(self) -> int:
        flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
        try:
            return os.open(self._path, flags)
        except FileNotFoundError:
            about = os.stat(self._file)
        except PermissionError:  # of another user: the right to read is enough, but not on NFS
            return os.open(self._path, flags & ~os.O_RDWR | os.O_RDONLY)
        fd = os.open(self._path, flags | os.O_CREAT, 0o600)
        if sys.platform != "win32":
            # Every process that may write to the database may lock it, whatever our umask is.
            with contextlib.suppress(PermissionError):  # another user has created it at this moment
                os.fchmod(fd, stat.S_IMODE(about.st_mode) & 0o666)
                if os.geteuid() == 0:
                    os.fchown(fd, about.st_uid, about.st_gid)
        return fd

    def _is_current(self, fd: int) -> bool:
        """Return True if the locked file still has its name."""
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._path))
        except FileNotFoundError:
            return False


locks: weakref.WeakSet[WriterLock] = weakref.WeakSet()
"""All locks of this process."""
