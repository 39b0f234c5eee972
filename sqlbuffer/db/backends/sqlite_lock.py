"""What many processes on one SQLite file need beyond SQLite's own locks: a lock of its writers, and the same file.

SQLite 3.7.0 to 3.51.2 has the WAL-reset race: a checkpoint that overlaps another connection's restart of the log can
skip committed pages (https://sqlite.org/wal.html#walresetbug). A log is restarted in a writing transaction, and
checkpointed in the COMMIT of one, so neither overlaps the other if each writing transaction holds one lock exclusively.
(The checkpoint of the last connection to be closed is safe: it holds the whole file.)
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import threading
import time
import weakref

from sqlbuffer.errors import DatabaseUnavailable

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.0002, 0.01

_LONGEST_ENDING = "-journal"
"""Of the files that SQLite puts next to the database."""

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def is_affected(version: tuple[int, ...]) -> bool:
    """Tell whether an SQLite of this version has the WAL-reset race; a distribution may have mended its own."""
    if version >= (3, 51):
        return version < (3, 51, 3)
    if version >= (3, 50):
        return version < (3, 50, 7)
    if version >= (3, 44):
        return version >= (3, 45) or version < (3, 44, 6)
    return version >= (3, 7)


# -- the lock ---------------------------------------------------------------------------------------------------------

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
        # Closing would not do: a child that was forked in between has the same open file.
        fcntl.flock(fd, fcntl.LOCK_UN)


class WriterLock:
    """The lock that every writing transaction holds on `FILE-lock`, from before its BEGIN to after its COMMIT.

    SQLite has one writer at a time anyway, so an exclusive lock keeps no process from anything. A shared lock, held
    exclusively by checkpoints only, would: they would wait until by chance no writer waits for SQLite.

    The file is opened for each transaction and never removed: who finds another file under its name tries again.

    Args:
        file: Path of the database.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._path = f"{file}-lock"
        self._fd: int | None = None
        _locks.add(self)

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self.release()

    def acquire(self, timeout_s: float) -> bool:
        """Wait for the lock, unless it is held already; tell whether it came in time.

        Raises:
            DatabaseUnavailable: If the lock file cannot be opened or locked.
        """
        if self._fd is not None:
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
                f"{self._path} cannot be locked ({exc.strerror}): every writer of {self._file} must be able to create "
                "it and to write to it; make the file and its folder writable (chmod u+w)."
            ) from exc

    def _acquire_now(self) -> bool:
        is_ours = False
        try:
            self._fd = self._open()  # set before it is locked: a signal leaves no lock behind
            is_ours = _try(self._fd) and self._is_current(self._fd)
            return is_ours
        finally:
            if not is_ours:
                self.release()

    def release(self) -> None:
        """Let the next writer go on; also where the lock is not held."""
        fd = self._fd
        if fd is None:
            return
        try:
            _unlock(fd)
        finally:  # also where a signal comes now
            self._fd = None
            os.close(fd)

    def leave(self) -> None:
        """Close the file in a forked child, which must not hold the lock when its parent has been killed."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _open(self) -> int:
        flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
        try:
            return os.open(self._path, flags)
        except FileNotFoundError:
            about = os.stat(self._file)
        fd = os.open(self._path, flags | os.O_CREAT, 0o600)
        if (
            sys.platform != "win32"
        ):  # any process that may write to the database may lock it, whatever our umask is
            with contextlib.suppress(PermissionError):  # another user has created it at this moment
                os.fchmod(fd, stat.S_IMODE(about.st_mode) & 0o666)
                if os.geteuid() == 0:
                    os.fchown(fd, about.st_uid, about.st_gid)
        return fd

    def _is_current(self, fd: int) -> bool:
        """Tell whether what is locked is still the file of that name."""
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._path))
        except FileNotFoundError:
            return False


_locks: weakref.WeakSet[WriterLock] = weakref.WeakSet()


# -- the same file ----------------------------------------------------------------------------------------------------


def require_plain(file: str, *, may_be_new: bool) -> None:
    """Refuse what is no file that SQLite could share between processes.

    Raises:
        DatabaseUnavailable: If it is a FIFO, a device, a socket, has a second name, or is not there.
    """
    try:
        about = os.stat(file)
    except FileNotFoundError:
        if may_be_new:
            _require_short(file)
            return
        raise DatabaseUnavailable(
            f"there is no {file}: it was removed or moved, or never created; restore the file, "
            "or open a store to create it."
        ) from None
    except OSError:
        return  # SQLite says why
    if kind := _KINDS.get(stat.S_IFMT(about.st_mode)):
        raise DatabaseUnavailable(
            f"{file} is {kind}, but SQLite needs a regular file: give the path of a file."
        )
    _require_one_name(file, about)


def _require_short(file: str) -> None:
    """Refuse a name to which SQLite could add nothing."""
    try:
        os.stat(f"{file}{_LONGEST_ENDING}")
    except OSError as exc:
        if exc.errno == errno.ENAMETOOLONG:
            raise DatabaseUnavailable(
                f"the name of {file} leaves no room for {_LONGEST_ENDING}, which SQLite adds: use a shorter one."
            ) from exc


def _require_one_name(file: str, about: os.stat_result) -> None:
    if stat.S_ISREG(about.st_mode) and about.st_nlink > 1:
        raise DatabaseUnavailable(
            f"{file} has {about.st_nlink} names (hard links), and SQLite keeps a log for each of them, which corrupts "
            "the file: remove the other names, or make them copies."
        )


class SameFile:
    """The file, its log and the index of that, to be found under their names at each writing transaction.

    A file that is removed, moved or replaced stays open, and SQLite goes on writing into it: no process ever reads what
    it acknowledges. Where the index of the log is another one, two processes write over each other's commits. Three
    calls of stat tell.

    Args:
        file: Path of the database, which has just been opened.
        has_log: The log has been opened, too.
        is_ours: The package uses it, and closes it soon; another one is a person's.
        library: The module whose SQLite library has opened it.
    """

    def __init__(self, file: str, *, has_log: bool, is_ours: bool, library: str) -> None:
        self.file = file
        self.is_ours = is_ours
        self.library = library
        self._beside = (f"{file}-wal", f"{file}-shm")
        self.file_id = file_id(file)
        self._has_log = has_log
        self._ids = self._find() if has_log else (None, None)
        _opened.add(self)

    def forget(self) -> None:
        """Let another file have the name: the connection is closed."""
        _opened.discard(self)

    def require(self) -> None:
        """Refuse to go on with a file that has gone.

        Raises:
            DatabaseUnavailable: If the file or its log is not what was opened.
        """
        try:
            about = os.stat(self.file)
        except FileNotFoundError:
            raise DatabaseUnavailable(
                f"{self.file} was removed or moved while this process had it open, and nothing "
                "more is stored in it: restore the file, or close the store and open it again."
            ) from None
        if _id(about) != self.file_id:
            raise DatabaseUnavailable(
                f"{self.file} was replaced by another file while this process had it open, and "
                "nothing more is stored in the old file: close the store and open it again."
            )
        if about.st_nlink != 1:
            _require_one_name(self.file, about)
        if not self._has_log:
            return
        found = self._find()
        if None in self._ids:  # a file that has only now become one with a log
            self._ids = found
        elif found != self._ids:
            wrong = self._beside[0 if found[0] != self._ids[0] else 1]
            raise DatabaseUnavailable(
                f"{wrong} was deleted or replaced while this process had it open, and the last "
                "commits may be lost with it: end all processes that use the file, then run "
                "`sqlbuffer db check`; docs/sqlite.md lists the causes."
            )

    def _find(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(map(file_id, self._beside))


_opened: weakref.WeakSet[SameFile] = weakref.WeakSet()
"""What the connections of this process have open."""


def require_same(file: str) -> None:
    """Refuse to open a file whose log was taken from another connection of this process.

    Raises:
        DatabaseUnavailable: If the log is not what the other one has opened.
    """
    for same in opened(file_id(file)):
        if same.file == file:
            same.require()


def opened(identity: tuple[int, int] | None) -> list[SameFile]:
    """Return what the connections of this process have open of one file, under whatever name."""
    return [same for same in list(_opened) if same.file_id == identity is not None]


def file_id(path: str) -> tuple[int, int] | None:
    """Return what tells a file from another one of that name, None if there is none."""
    try:
        return _id(os.stat(path))
    except (OSError, ValueError):
        return None


def _id(about: os.stat_result) -> tuple[int, int]:
    return about.st_dev, about.st_ino


# -- a forked child ---------------------------------------------------------------------------------------------------


FORK_TAKES_S = 10.0
"""More than a fork waits for the transactions of other threads."""

_may_open = threading.Event()
_may_open.set()


class Passage:
    """A connection that is being opened or closed, for as long as this is referred to.

    Args:
        waits: First wait for a fork that is under way.
    """

    def __init__(self, *, waits: bool) -> None:
        _passages.add(self)
        if waits and is_held_back():
            _passages.discard(self)
            _may_open.wait(FORK_TAKES_S)
            _passages.add(self)


_passages: weakref.WeakSet[Passage] = weakref.WeakSet()


def hold_back() -> bool:
    """Let no connection be opened until this process has forked; tell whether some are still open."""
    _may_open.clear()
    return len(_passages) > 0 or any(same.is_ours for same in list(_opened))


def is_held_back() -> bool:
    """Tell whether this process is about to fork."""
    return not _may_open.is_set()


_inherited: set[tuple[int, int] | None] = set()
"""The files that a parent of this process had open when it forked."""


def require_not_inherited(file: str) -> None:
    """Refuse to open what SQLite takes for open already, with locks that are the parent's.

    Raises:
        DatabaseUnavailable: If the parent had it open.
    """
    if _inherited and file_id(file) in _inherited:
        raise DatabaseUnavailable(
            f"{file} was open in the process from which this one was forked, in a transaction of another thread or "
            "by `store.connect()`, and SQLite can only open it again there: fork when no thread uses the store, or "
            'start processes by "spawn".'
        )


def _after_fork() -> None:
    """Forget the connections of the parent, which may close them and leave other files under their names."""
    global _may_open
    _may_open = threading.Event()  # no lock of a thread that is not there
    _may_open.set()
    _passages.clear()
    _inherited.update(same.file_id for same in list(_opened))
    _opened.clear()
    for lock in list(_locks):
        lock.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=lambda: _may_open.set(), after_in_child=_after_fork)
