"""The files of an SQLite database: SQLite can share them, and they are still the same files."""

from __future__ import annotations

import errno
import os
import pathlib
import stat
import time
import weakref

import psutil

from sqlbuffer.errors import DatabaseUnavailable

_LONGEST_ENDING = "-journal"
"""The longest ending of the files that SQLite creates next to the database."""

_SMALLEST_PAGE = 512
"""Bytes of the smallest page that SQLite has."""

LATELY_S = 0.05
"""Seconds for which readers trust that a file is still the same: the check takes a twentieth of the
shortest read."""

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}

NETWORK = frozenset(
    "9p afpfs afs beegfs ceph cifs davfs glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs panfs "
    "pvfs2 smb smb2 smb3 smbfs webdav fuse.ceph fuse.davfs fuse.davfs2 fuse.glusterfs fuse.rclone "
    "fuse.s3fs fuse.sshfs".split()
)
"""File systems, by their names in the mount table, whose locks and shared memory do not hold
between machines."""


def network_file_system(file: pathlib.Path) -> str | None:
    """Return the kind of network file system that a file is on, or would be created on.

    Returns:
        None if the file is on a local disk, and also if the system does not list its mounts, such
        as Linux without /proc.
    """
    there = pathlib.Path(os.path.realpath(file))  # `resolve` fails where links lead in a circle
    folders = {str(folder) for folder in (there, *there.parents)}
    try:
        above = [disk for disk in psutil.disk_partitions(all=True) if disk.mountpoint in folders]
    except OSError:
        return None
    # The innermost, and of those mounted on one another the last.
    kind = (
        max(enumerate(above), key=lambda each: (len(each[1].mountpoint), each[0]))[1].fstype
        if above
        else ""
    )
    return kind if kind.lower() in NETWORK else None


def require_plain(file: str, *, may_be_new: bool) -> None:
    """Refuse a file that SQLite cannot share between processes.

    Raises:
        DatabaseUnavailable: If the file is a FIFO, a device, a socket, has a second name, or does
            not exist and may not be new.
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
        return  # SQLite reports the reason
    if kind := _KINDS.get(stat.S_IFMT(about.st_mode)):
        raise DatabaseUnavailable(
            f"{file} is {kind}, but SQLite needs a regular file: give the path of a file."
        )
    _require_one_name(file, about)


def is_too_small(file: str) -> bool:
    """Return True for a file of a few bytes, which SQLite would treat as an empty database."""
    return os.path.isfile(file) and 0 < os.path.getsize(file) < _SMALLEST_PAGE


def _require_short(file: str) -> None:
    """Refuse a name to which SQLite cannot add its endings."""
    try:
        os.stat(f"{file}{_LONGEST_ENDING}")
    except OSError as exc:
        if exc.errno == errno.ENAMETOOLONG:
            raise DatabaseUnavailable(
                f"the name of {file} leaves no room for {_LONGEST_ENDING}, which SQLite adds: "
                "use a shorter one."
            ) from exc


def _require_one_name(file: str, about: os.stat_result) -> None:
    if stat.S_ISREG(about.st_mode) and about.st_nlink > 1:
        raise DatabaseUnavailable(
            f"{file} has {about.st_nlink} names (hard links), and SQLite keeps a log for each of "
            "them, which corrupts the file: remove the other names, or make them copies."
        )


class SameFile:
    """The database file, its log and the log's index, as a connection has opened them.

    A file that is removed, moved or replaced stays open, and SQLite continues to write to it: no
    process ever reads these commits, and readers see no later ones. If the index of the log is
    another file, two processes overwrite each other's commits. Three calls of `stat` at each
    writing transaction detect both, and one at reads detects the former.

    Args:
        file: Path of the database, which has just been opened.
        has_log: True if the log has been opened too.
        is_ours: True if the package uses the connection and closes it soon; False for a connection
            that was given to the user.
        library: The Python module whose SQLite library has opened the file.
    """

    def __init__(self, file: str, *, has_log: bool, is_ours: bool, library: str) -> None:
        self.file = file
        self.is_ours = is_ours
        self.library = library
        self._beside = (f"{file}-wal", f"{file}-shm")
        self.file_id = file_id(file)
        self._has_log = has_log
        self._was_same_at = time.monotonic()
        self._ids = self._find() if has_log else (None, None)
        open_files.add(self)

    def forget(self) -> None:
        """Stop watching the file, since the connection is closed: another file may get its name."""
        open_files.discard(self)

    def require_for_reading(self) -> None:
        """Check the same as `require`, unless that was done lately."""
        now = time.monotonic()
        if now - self._was_same_at >= LATELY_S:
            self.require()
            self._was_same_at = now

    def require(self) -> None:
        """Check that the files are still those that the connection opened.

        Raises:
            DatabaseUnavailable: If the file or its log was removed or replaced.
        """
        try:
            about = os.stat(self.file)
        except FileNotFoundError:
            raise DatabaseUnavailable(
                f"{self.file} was removed or moved while this process had it open, and nothing "
                "more is stored in it or read from it: restore the file, or close the store and "
                "open it again."
            ) from None
        if _id(about) != self.file_id:
            raise DatabaseUnavailable(
                f"{self.file} was replaced by another file while this process had it open, and "
                "nothing more is stored in the old file or read from it: close the store and open "
                "it again."
            )
        if about.st_nlink != 1:
            _require_one_name(self.file, about)
        if not self._has_log:
            return
        found = self._find()
        if None in self._ids:  # the file had no log until now
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


open_files: weakref.WeakSet[SameFile] = weakref.WeakSet()
"""The files that the connections of this process have open."""


def require_same(file: str) -> None:
    """Refuse to open a file whose log was replaced under another connection of this process.

    Raises:
        DatabaseUnavailable: If the log is not the one that the other connection has opened.
    """
    for same in opened(file_id(file)):
        if same.file == file:
            same.require()


def opened(identity: tuple[int, int] | None) -> list[SameFile]:
    """Return one entry for each connection of this process to one file, under any name."""
    return [same for same in list(open_files) if same.file_id == identity is not None]


def file_id(path: str) -> tuple[int, int] | None:
    """Return device and inode of a file, None if there is no file of that name."""
    try:
        return _id(os.stat(path))
    except (OSError, ValueError):
        return None


def _id(about: os.stat_result) -> tuple[int, int]:
    return about.st_dev, about.st_ino
