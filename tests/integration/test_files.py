"""SQLite files: by what name they are opened, and what becomes of them while they are open."""

import contextlib
import os
import pathlib
import pickle
import resource
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.samples import scores_of
from sqlbuffer.db.backends import sqlite_files
from sqlbuffer.db.database import Database
from sqlbuffer.errors import DatabaseUnavailable, InvalidArgument
from sqlbuffer.store import SampleStore, open_store

TEN = [f"s{i}" for i in range(10)]


class Disk(NamedTuple):
    """What psutil tells of a mounted disk."""

    mountpoint: str
    fstype: str


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "lustre", "9p"])
def test_a_network_file_system_is_warned_of(
    tmp_path: pathlib.Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disks = [
        Disk("/", "ext4"),
        Disk(str(tmp_path), "ext4"),
        Disk(str(tmp_path), kind),
        Disk("/elsewhere", "ext4"),
    ]
    monkeypatch.setattr(sqlite_files.psutil, "disk_partitions", lambda all: disks)
    with pytest.warns(UserWarning, match=f"network file system .{kind}.*local disk.*PostgreSQL"):
        open_store(f"sqlite:///{tmp_path}/x.db").close()


@pytest.mark.slow
def test_a_local_disk_is_not(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(f"sqlite:///{tmp_path}/x.db").close()
    disks = [Disk("/", "nfs"), Disk(str(tmp_path), "ext4"), Disk(f"{tmp_path}/x", "nfs")]
    monkeypatch.setattr(sqlite_files.psutil, "disk_partitions", lambda all: disks)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_store(f"sqlite:///{tmp_path}/y.db").close()
    monkeypatch.setattr(sqlite_files.psutil, "disk_partitions", lambda all: [])
    assert sqlite_files.network_file_system(tmp_path) is None


# -- a full disk -----------------------------------------------------------------------------------

FILLS_UP = """
import resource, sys
from sqlbuffer.errors import DatabaseUnavailable
from sqlbuffer.store import open_store

with open_store(sys.argv[1], weighting="uniform") as store:
    limit = int(sys.argv[2])
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        for i in range(100):
            store.add([f"{i} {j} " + "x" * 500 for j in range(2000)])
        print("nothing was noticed")
    except DatabaseUnavailable as exc:
        print(exc)
"""


@contextlib.contextmanager
def small_disk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A disk of 4 MB."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True
    )
    if done.returncode:
        pytest.skip("only root mounts a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(url: str, limit: int = 0) -> str:
    command = [sys.executable, "-c", FILLS_UP, url, str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_a_full_disk_is_one_error_and_takes_nothing(tmp_path: pathlib.Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        url = f"sqlite:///{disk}/x.db"
        with open_store(url, weighting="uniform") as store:
            store.add(TEN)
            stored = store.stats().stored
        assert "make room; no stored data was lost" in fill(url)
        with open_store(url, weighting="uniform") as store:
            assert set(TEN) <= set(store.waiting().samples)
            assert store.stats().stored == len(store) >= stored
            assert store.check() == []


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_takes_nothing(tmp_path: pathlib.Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    with open_store(url, weighting="uniform") as store:
        store.add(TEN)
    said = fill(url, limit=2_000_000)
    assert "a quota" in said
    assert "\n" not in said
    with open_store(url, weighting="uniform") as store:
        assert set(TEN) <= set(store.waiting().samples)
        assert store.check() == []
        store.add(["goes on"])


CALLS: dict[str, Callable[[SampleStore], object]] = {
    "add": lambda store: store.add([*TEN, "x" * 500]),
    "remove": lambda store: store.remove([1, 2]),
    "update_priorities": lambda store: store.update_priorities([1, 2], [3.0, 4.0]),
    "forget": lambda store: store.forget([1, 2]),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_after_a_commit_that_failed_finds_its_temporary_tables(
    tmp_path: pathlib.Path, call: str
) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    with open_store(url) as store:
        store.add(TEN)
        store.score(scores_of)
    with open_store(url) as store:
        with full_disk(tmp_path / "x.db-wal"), pytest.raises(DatabaseUnavailable):
            CALLS[call](store)
        CALLS[call](store)
        assert store.check() == []


@contextlib.contextmanager
def full_disk(file: pathlib.Path) -> Iterator[None]:
    """Let this process make no file larger than one of its files is."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# -- by what name ----------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """Another folder to go to; the test begins in the one that the database is opened in, and
    leaves no file here.
    """
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    yield folder
    assert list(folder.iterdir()) == []


AFTER_A_MOVE: dict[str, Callable[[SampleStore], object]] = {
    "add": lambda store: store.add(["new"]),
    "score": lambda store: store.score(scores_of),
    "sample": lambda store: store.sample(2).settle([1.0, 2.0]),
    "look": len,
    "check": lambda store: store.check(),
    "closed and used again": lambda store: (store.close(), store.add(["new"])),
    "copy": lambda store: store.copy("other"),
    "lease": lambda store: store.leased("job").__enter__().__class__,
    "pickled": lambda store: pickle.loads(pickle.dumps(inside.database_of(store))).write(rows),
    "pickled and opened": lambda store: pickle.loads(pickle.dumps(store)).add(["new"]),
    "its url": lambda store: open_store(store.url, weighting="uniform").add(["new"]),
}


def rows(connection: sa.Connection) -> int:
    return int(connection.exec_driver_sql("SELECT count(*) FROM samples").scalar_one())


@pytest.mark.parametrize("action", AFTER_A_MOVE)
@pytest.mark.slow
def test_a_relative_path_means_one_file_wherever_the_process_goes(
    elsewhere: pathlib.Path, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store("sqlite:///x.db", weighting="uniform") as store:
        store.add(TEN)
        monkeypatch.chdir(elsewhere)
        AFTER_A_MOVE[action](store)
        assert store.check() == []
        assert len(store) >= 8


@pytest.mark.slow
def test_heartbeats_go_on_after_a_change_of_folder(
    elsewhere: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store("sqlite:///x.db", grace_s=0.4) as store:
        store.add(TEN)
        monkeypatch.chdir(elsewhere)
        query = sa.text("SELECT max(heartbeat_at) FROM workers WHERE id <> 'ledger'")
        database = inside.database_of(store)
        before = database.read(lambda connection: connection.scalar(query))
        end = time.monotonic() + 20
        while database.read(lambda connection: connection.scalar(query)) == before:
            assert time.monotonic() < end, "no heartbeat came"
            time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    "given", ["x.db", "./x.db", "{folder}/x.db", "x", pathlib.Path("x.db"), pathlib.Path("x")]
)
def test_a_plain_file_name_is_an_sqlite_url(
    tmp_path: pathlib.Path, given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = given.format(folder=tmp_path) if isinstance(given, str) else given
    if given == "x":
        with pytest.raises(InvalidArgument, match="sqlite:///FILE"):
            open_store(given)
        return
    with open_store(given) as store:
        store.add(TEN)
    with open_store(f"sqlite:///{tmp_path}/{os.fspath(given).rpartition('/')[2]}") as store:
        assert len(store) == 10


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///x.db?mode=ro", "no options, got 'mode'"),
        ("sqlite:///x.db?timeout=5&uri=true", "no options, got 'timeout, uri'"),
        ("sqlite:///x?.db", "not an option NAME=VALUE.*as a path alone"),
        ("sqlite:///x.db?mode=", "not an option NAME=VALUE"),
        (os.fsdecode(b"sqlite:///x\xff.db"), "not a file name in UTF-8"),
        (os.fsdecode(b"./x\xff.db"), "not a file name in UTF-8"),
        ("sqlite:///file:x.db", "cannot be a file: URI"),
        ("sqlite:///file:x.db?mode=ro&uri=true", "cannot be a file: URI"),
        ("sqlite://me:hunter2@/x.db", "three slashes"),
        ("sqlite+aiosqlite:///x.db", "aiosqlite"),
        ("sqlite+pysqlcipher:///x.db", "pysqlcipher"),
        ("sqlite:///a\0b.db", "not a file name"),
    ],
)
def test_what_a_url_of_a_file_cannot_have_is_refused(
    tmp_path: pathlib.Path, url: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArgument, match=words) as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value)
    assert "sqlite:///FILE" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_name_too_long_for_its_log_creates_nothing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(
        DatabaseUnavailable, match=r"leaves no room for -journal, which SQLite adds"
    ):
        open_store(tmp_path / f"{'a' * 250}.db")
    assert list(tmp_path.iterdir()) == []
    open_store(tmp_path / f"{'a' * 240}.db").close()


def test_a_store_may_be_opened_while_another_is_being_closed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite deletes the log with the last connection: no process may miss it at that moment."""
    url = f"sqlite:///{tmp_path}/x.db"
    forget = sqlite_files.SameFile.forget
    outcomes: list[Any] = []

    def while_another_opens(same: sqlite_files.SameFile) -> None:
        if same in ours:
            try:
                with open_store(url, weighting="uniform") as other:
                    outcomes.append(len(other))
            except DatabaseUnavailable as exc:  # SQLAlchemy would swallow it
                outcomes.append(exc)
        forget(same)

    with open_store(url, weighting="uniform") as store:
        store.add(TEN)
        ours = sqlite_files.opened(sqlite_files.file_id(f"{tmp_path}/x.db"))
        monkeypatch.setattr(sqlite_files.SameFile, "forget", while_another_opens)
    assert outcomes == [10] * len(ours)


def test_a_relative_path_in_a_folder_that_is_gone(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(DatabaseUnavailable, match="absolute path"):
        open_store("sqlite:///x.db")


# -- what is no file that can be shared ------------------------------------------------------------


def hard_linked(path: pathlib.Path) -> None:
    open_store(f"sqlite:///{path}-1").close()
    os.link(f"{path}-1", path)


def bound(path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(path))


ODD: dict[str, tuple[Callable[[pathlib.Path], object], str]] = {
    "FIFO": (os.mkfifo, "is a FIFO.*path of a file"),
    "device": (lambda path: path.symlink_to("/dev/null"), "/dev/null is a device.*path of a file"),
    "socket": (bound, "is a socket.*path of a file"),
    "hard link": (hard_linked, r"2 names \(hard links\).*remove the other names"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_has_words_of_its_own(tmp_path: pathlib.Path, kind: str) -> None:
    make, words = ODD[kind]
    make(tmp_path / "x.db")
    before = sorted(tmp_path.iterdir())
    for create in (True, False):
        with pytest.raises(DatabaseUnavailable, match=words):
            Database(f"sqlite:///{tmp_path}/x.db", create=create)
    assert sorted(tmp_path.iterdir()) == before


# -- removed, moved, replaced ----------------------------------------------------------------------


def replace(file: pathlib.Path) -> None:
    for end in ("", "-wal", "-shm"):
        pathlib.Path(f"{file}{end}").rename(f"{file}-old{end}")
    open_store(f"sqlite:///{file}-new").close()
    pathlib.Path(f"{file}-new").rename(file)


def delete_log(file: pathlib.Path) -> None:
    pathlib.Path(f"{file}-wal").unlink()


def replace_log(file: pathlib.Path) -> None:
    delete_log(file)
    pathlib.Path(f"{file}-wal").touch()


def delete_index(file: pathlib.Path) -> None:
    """What looks like a leftover is not one: two processes that have not the same index overwrite
    each other.
    """
    pathlib.Path(f"{file}-shm").unlink()


def delete_all(file: pathlib.Path) -> None:
    for each in file.parent.glob(f"{file.name}*"):
        each.unlink()


ACCIDENTS: dict[str, tuple[Callable[[pathlib.Path], object], str]] = {
    "removed": (pathlib.Path.unlink, "was removed or moved.*restore the file"),
    "all removed": (delete_all, "was removed or moved.*restore the file"),
    "moved": (lambda file: file.rename(f"{file}-moved"), "was removed or moved.*restore the file"),
    "replaced": (replace, "was replaced .*open it again"),
    "log deleted": (delete_log, "-wal was deleted or replaced.*last commits may be lost.*db check"),
    "log replaced": (
        replace_log,
        "-wal was deleted or replaced.*last commits may be lost.*db check",
    ),
    "index deleted": (
        delete_index,
        "-shm was deleted or replaced.*last commits may be lost.*db check",
    ),
    "hard link": (lambda file: os.link(file, f"{file}-2"), r"2 names \(hard links\)"),
}

WRITES: dict[str, Callable[[SampleStore, Any], object]] = {
    "add": lambda store, batch: store.add(["new"]),
    "record": lambda store, batch: store.record(["new"], [1.0]),
    "score": lambda store, batch: store.score(scores_of, only="all"),
    "sample": lambda store, batch: store.sample(1),
    "settle": lambda store, batch: batch.settle([1.0, 2.0]),
    "report": lambda store, batch: batch.report(batch.ids[:1], [1.0]),
    "release": lambda store, batch: batch.release(),
    "remove": lambda store, batch: store.remove(store.waiting().ids[:1]),
    "metrics": lambda store, batch: store.log_metrics(0, {"loss": 1.0}),
    "copy": lambda store, batch: store.copy("other"),
    "lease": lambda store, batch: store.leased("job").__enter__(),
}


@pytest.mark.slow
@pytest.mark.parametrize("accident", ACCIDENTS)
@pytest.mark.parametrize("write", WRITES)
def test_a_file_that_has_gone_takes_no_more(sqlite_url: str, accident: str, write: str) -> None:
    """At every write, whatever it is; nothing is acknowledged, and no stray file is made."""
    act, words = ACCIDENTS[accident]
    file = pathlib.Path(sqlite_url.removeprefix("sqlite:///"))
    with open_store(sqlite_url, weighting="uniform") as store:
        store.add(TEN)
        batch = store.sample(2)
        act(file)
        names = sorted(file.parent.iterdir())
        with pytest.raises(DatabaseUnavailable, match=words):
            WRITES[write](store, batch)
        assert sorted(set(file.parent.iterdir()) - set(names)) in (
            [],
            [pathlib.Path(f"{file}-lock")],
        )
    for left in file.parent.glob(f"{file.name}*"):
        left.unlink()


@pytest.mark.parametrize("accident", ["removed", "all removed", "moved", "replaced"])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_that_has_gone_is_read_no_more(
    sqlite_url: str, accident: str, read_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by a look nor by a transaction, though SQLite has the old file open."""
    monkeypatch.setattr(sqlite_files, "LATELY_S", 0.0)
    act, words = ACCIDENTS[accident]
    with open_store(sqlite_url) as store:
        store.add(TEN)
    with open_store(sqlite_url, read_only=read_only) as store:
        assert (len(store), len(store.waiting().ids), store.stats().stored) == (10, 10, 10)
        act(pathlib.Path(sqlite_url.removeprefix("sqlite:///")))
        for read in (len, lambda store: store.waiting(), lambda store: store.stats()):
            with pytest.raises(DatabaseUnavailable, match=words):
                read(store)


def test_a_file_that_comes_back_is_the_file(sqlite_url: str) -> None:
    file = pathlib.Path(sqlite_url.removeprefix("sqlite:///"))
    with open_store(sqlite_url) as store:
        store.add(TEN)
        file.rename(f"{file}-moved")
        with pytest.raises(DatabaseUnavailable, match="restore the file"):
            store.add(["lost"])
        time.sleep(sqlite_files.LATELY_S)
        with pytest.raises(DatabaseUnavailable, match="restore the file"):
            store.stats()
        pathlib.Path(f"{file}-moved").rename(file)
        assert store.stats().stored == 10
        store.add(["stored"])
    with open_store(sqlite_url) as store:
        assert store.stats().stored == 11
        assert store.check() == []


def test_a_file_that_was_replaced_is_another_one_after_closing(sqlite_url: str) -> None:
    file = pathlib.Path(sqlite_url.removeprefix("sqlite:///"))
    store = open_store(sqlite_url)
    store.add(TEN)
    replace(file)
    with pytest.raises(DatabaseUnavailable, match="open it again"):
        store.add(["lost"])
    store.close()
    with pytest.raises(DatabaseUnavailable, match="open it again"):
        store.add(["lost"])
    with open_store(sqlite_url) as store:
        assert len(store) == 0
        assert store.check() == []


def test_a_file_may_be_made_again_while_a_store_of_the_old_one_is_left(sqlite_url: str) -> None:
    """As by a cell of a notebook that is run twice."""
    old = open_store(sqlite_url)
    old.add(TEN)
    delete_all(pathlib.Path(sqlite_url.removeprefix("sqlite:///")))
    with open_store(sqlite_url) as new:
        new.add(TEN[:3])
        with pytest.raises(DatabaseUnavailable, match="was replaced"):
            old.add(["lost"])
        old.close()
        assert new.stats().stored == len(new) == 3
        assert new.check() == []


def test_only_opening_a_store_creates_a_file(sqlite_url: str) -> None:
    """Not the next use of one that was closed, and not a copy of it."""
    file = pathlib.Path(sqlite_url.removeprefix("sqlite:///"))
    with open_store(sqlite_url) as store:
        store.add(TEN)
        copy = pickle.dumps(store)
        store.close()
        delete_all(file)
        for again in (store, pickle.loads(copy)):
            for use in (lambda used: used.add(["new"]), len, lambda used: used.check()):
                with pytest.raises(DatabaseUnavailable, match=f"there is no {file}"):
                    use(again)
    assert list(file.parent.iterdir()) == []


@pytest.mark.slow
def test_a_log_that_was_deleted_is_not_a_failing_disk(sqlite_url: str) -> None:
    """Another process then finds an index of a log that is not there."""
    look = "import sys; from sqlbuffer.store import open_store; print(len(open_store(sys.argv[1])))"
    with open_store(sqlite_url) as store:
        store.add(TEN)
        delete_log(pathlib.Path(sqlite_url.removeprefix("sqlite:///")))
        done = subprocess.run(
            [sys.executable, "-c", look, sqlite_url], capture_output=True, text=True, timeout=60
        )
        assert "disk fails" not in done.stderr
        assert done.returncode == 0 or "DatabaseUnavailable" in done.stderr
        with pytest.raises(DatabaseUnavailable, match="-wal was deleted"):
            store.add(["lost"])
