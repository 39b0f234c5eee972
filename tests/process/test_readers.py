"""Users who may read an SQLite file and not write to it: they see its last commit, and create no
file that its owner could not use.
"""

import contextlib
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.users import User, user
from sqlbuffer.db.backends import parse_url, sqlite_opening, sqlite_reading, sqlite_rights
from sqlbuffer.db.database import Database
from sqlbuffer.errors import DatabaseUnavailable
from sqlbuffer.looks.sql import ask
from sqlbuffer.store import open_store

OWNER, READER = 61_000, 61_001

needs_root = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0, reason="only root can act as two other users"
)


@pytest.fixture(scope="module")
def owner() -> Iterator[User]:
    """The owner of the files; the user of the tests, if they cannot act as another one."""
    with user(OWNER if os.name == "posix" and os.geteuid() == 0 else None) as process:
        yield process


@pytest.fixture(scope="module")
def reader() -> Iterator[User]:
    with user(READER) as process:
        yield process


@pytest.fixture
def file() -> Iterator[pathlib.Path]:
    """The path of a new file, in a folder to which everybody's path leads."""
    folder = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o777)
    yield folder / "run.db"
    folder.chmod(0o777)
    shutil.rmtree(folder)


@pytest.fixture
def may_not_write(file: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take from this process the right to write."""

    def allows(path: str, right: int) -> bool:
        return right != os.W_OK

    monkeypatch.setattr(sqlite_rights, "allows", allows)
    yield
    left = sorted(path.name for path in file.parent.iterdir())
    assert not [name for name in left if name.endswith(("-shm", "-wal"))], left


def seen(*samples: str) -> list[Any]:
    """What `look` finds if these samples wait."""
    n = len(samples)
    return [n, sorted(samples), [], n, n]


def listing(folder: pathlib.Path) -> set[tuple[str, int]]:
    return {(path.name, path.stat().st_uid) for path in folder.iterdir()}


def as_killed(owner: User, file: pathlib.Path, *endings: str) -> None:
    """Make a file as a killed writer leaves it: commits are in its log only."""
    source = file.with_name("source.db")
    assert owner.ask(f"write('{source}', 'a')") == 1
    owner.ask(f"globals().update(store=open_store('{source}', name='run'))")
    assert owner.ask("store.add(['b']).added") == 1
    for ending in ("", *endings):
        shutil.copyfile(f"{source}{ending}", f"{file}{ending}")
        os.chown(f"{file}{ending}", OWNER, OWNER)
    owner.ask("store.close()")
    for path in file.parent.glob("source.db*"):
        path.unlink()


@needs_root
@pytest.mark.parametrize(
    ("state", "mode", "folder_mode"),
    [
        ("closed", 0o644, 0o777),
        ("closed", 0o444, 0o555),
        ("open", 0o644, 0o777),
        ("open", 0o644, 0o755),
        ("killed", 0o644, 0o777),
        ("killed", 0o444, 0o555),
    ],
)
def test_a_reader_leaves_nothing_behind(
    owner: User, reader: User, file: pathlib.Path, state: str, mode: int, folder_mode: int
) -> None:
    os.chown(file.parent, OWNER, OWNER)
    if state == "killed":
        as_killed(owner, file, "-wal", "-shm")
    else:
        assert owner.ask(f"write('{file}', 'a', 'b')") == 2
    if state == "open":
        owner.ask(f"globals().update(store=open_store('{file}', name='run'))")
        assert owner.ask("store.add(['c']).added") == 1
    file.chmod(mode)
    file.parent.chmod(folder_mode)
    before = listing(file.parent)
    assert reader.ask(f"look('{file}')") == seen("a", "b", *["c"] * (state == "open"))
    refused = reader.ask(f"write('{file}', 'd')")
    assert f"user {READER} may not write to {file}, which belongs to user {OWNER}" in refused
    assert "read_only=True" in refused
    assert listing(file.parent) == before
    file.parent.chmod(0o777)
    file.chmod(0o644)
    if state == "open":
        assert owner.ask("store.add(['d']).added") == 1
        owner.ask("store.close()")
    else:
        assert owner.ask(f"write('{file}', 'c', 'd')") == 2
    assert reader.ask(f"look('{file}')") == seen("a", "b", "c", "d")


@needs_root
def test_commits_that_a_reader_cannot_read_are_an_error(
    owner: User, reader: User, file: pathlib.Path
) -> None:
    as_killed(owner, file, "-wal")
    before = listing(file.parent)
    said = reader.ask(f"look('{file}')")
    assert said.startswith(f"DatabaseUnavailable: {file}-wal has commits that this process"), said
    assert f"let user {OWNER} run `sqlbuffer ls` once" in said
    assert "sqlbuffer db backup" in said
    assert listing(file.parent) == before
    assert owner.ask(f"look('{file}')") == seen("a", "b")
    assert reader.ask(f"look('{file}')") == seen("a", "b")


@needs_root
@pytest.mark.parametrize(
    ("endings", "has_commits"),
    [(("-shm", "-wal"), False), (("-shm",), True), (("-shm", "-wal"), True)],
)
def test_files_that_another_user_left_are_named_with_the_way_out(
    owner: User, file: pathlib.Path, endings: tuple[str, ...], has_commits: bool
) -> None:
    as_killed(owner, file, "-wal", "-shm")
    if not has_commits:
        assert owner.ask(f"look('{file}')") == seen("a", "b")
        for ending in ("-wal", "-shm"):
            pathlib.Path(f"{file}{ending}").touch()
            os.chown(f"{file}{ending}", OWNER, OWNER)
    for ending in endings:
        os.chown(f"{file}{ending}", READER, READER)
    said = owner.ask(f"write('{file}', 'c')")
    for ending in endings:
        assert f"{file}{ending}, which belongs to user {READER} (mode 644)" in said, said
    assert owner.ask(f"look('{file}')") == seen("a", "b"), "reading goes on"
    command = said.split("`")[1]
    assert owner.ask(f"os.system({command!r})") == 0
    assert owner.ask(f"write('{file}', 'c')") == 1
    assert owner.ask(f"look('{file}')") == seen("a", "b", "c")


@needs_root
def test_a_lock_file_of_another_user_locks_nobody_out(owner: User, file: pathlib.Path) -> None:
    lock = pathlib.Path(f"{file}-lock")
    lock.touch(0o644)
    os.chown(lock, READER, READER)
    assert owner.ask(f"write('{file}', 'a', 'b')") == 2
    assert lock.stat().st_uid == READER


@needs_root
def test_a_folder_that_is_not_writable_is_named(owner: User, file: pathlib.Path) -> None:
    assert owner.ask(f"write('{file}', 'a')") == 1
    file.parent.chmod(0o555)
    said = owner.ask(f"write('{file}', 'b')")
    assert (
        f"user {OWNER} may not write to {file.parent}, which belongs to user root (mode 555)"
        in said
    )
    assert f"the log of {file}" in said
    assert owner.ask(f"look('{file}')") == seen("a")


# -- without the rights of others ------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.usefixtures("may_not_write")
def test_a_reader_sees_each_commit_of_a_writer_that_comes_and_goes(
    owner: User, file: pathlib.Path, seed: int
) -> None:
    assert owner.ask(f"write('{file}', '0')") == 1
    rng, expected, is_open = random.Random(seed), 1, False
    with open_store(str(file), name="run", read_only=True) as store, store.connect() as connection:
        for i in range(1, 30):
            if (step := rng.choice(["open", "add", "add", "close", "all"])) == "open":
                owner.ask(f"globals().update(store=open_store('{file}', name='run'))")
                is_open = True
            elif step == "close" and is_open:
                owner.ask("store.close()")
            elif step == "all":
                expected += owner.ask(f"write('{file}', '{i}')")
            elif is_open:
                expected += owner.ask(f"store.add(['{i}']).added")
            ways = {
                "look": lambda: len(store),
                "read": lambda: len(store.waiting().samples),
                "viewer": lambda: connection.exec_driver_sql(
                    "SELECT count(*) FROM samples"
                ).scalar(),
            }
            way = rng.choice(sorted(ways))
            # A connection that is kept all the time is opened again after one error.
            is_kept = way == "viewer"
            with contextlib.suppress(*[sa.exc.OperationalError] * is_kept):
                assert ways[way]() == expected, (i, step, way)
            connection.rollback()
            assert ways[way]() == expected, (i, step, way)
            connection.rollback()
    owner.ask("globals().pop('store').close()")
    owner.ask(f"look('{file}')")  # the last to close, which may write, removes the log


def grow(owner: User, file: pathlib.Path, label: str) -> bool:
    """Change pages of a file itself: the writer adds 300 samples, and closes it."""
    return bool(owner.ask(f"write('{file}', *['{label} %d' % i for i in range(300)])") == 300)


@pytest.mark.usefixtures("may_not_write")
def test_a_transaction_that_a_change_has_met_runs_again(owner: User, file: pathlib.Path) -> None:
    grow(owner, file, "first")
    database = Database(str(file), read_only=True)
    found = []

    def work(connection: sa.Connection) -> None:
        counts = [connection.scalar(sa.text("SELECT count(*) FROM samples"))]
        found.append(counts)
        if len(found) == 1:
            grow(owner, file, "second")
        counts.append(connection.scalar(sa.text("SELECT count(*) FROM pool")))

    database.read(work)
    assert found == [[300], [600, 600]]
    database.close()


@pytest.mark.usefixtures("may_not_write")
def test_rows_of_two_commits_are_never_given(owner: User, file: pathlib.Path) -> None:
    grow(owner, file, "first")
    with open_store(str(file), name="run", read_only=True) as store, store.connect() as connection:
        rows = connection.exec_driver_sql("SELECT text FROM samples ORDER BY id").yield_per(10)
        assert next(rows)[0].startswith("first")
        grow(owner, file, "second")
        with pytest.raises(sa.exc.OperationalError, match="the file changed while it was read"):
            rows.all()
        connection.rollback()
        assert connection.exec_driver_sql("SELECT count(*) FROM samples").scalar() == 600
    with (
        pytest.raises(DatabaseUnavailable, match=r"changed while it was read .*: run it again"),
        ask(str(file), "SELECT text FROM samples") as found,
    ):
        list(found.rows if grow(owner, file, "third") else ())
    parse_url(file)[1].backup(parse_url(file)[0], file.with_name("copy.db"))
    with open_store(file.with_name("copy.db"), name="run", read_only=True) as store:
        assert (len(store), store.check()) == (900, [])


@pytest.mark.usefixtures("may_not_write")
def test_a_log_that_vanishes_while_it_is_opened_is_not_made_again(
    owner: User, file: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(owner, file, "first")
    os.chown(file, os.geteuid(), os.getegid())  # as root SQLite gives its files to this user
    found = [(sqlite_reading.WITH_LOG, None)]

    def way_to_read(path: str) -> Any:
        return found.pop() if found else sqlite_reading.way_to_read(path)

    monkeypatch.setattr(sqlite_opening, "way_to_read", way_to_read)
    with open_store(str(file), name="run", read_only=True) as store:
        assert len(store) == 300
    assert found == []


@pytest.mark.parametrize("ending", ["-wal", "-journal"])
@pytest.mark.usefixtures("may_not_write")
def test_unread_changes_are_never_passed_over(owner: User, file: pathlib.Path, ending: str) -> None:
    grow(owner, file, "first")
    changes = pathlib.Path(f"{file}{ending}")
    changes.write_bytes(b"\0" * 100)
    with pytest.raises(DatabaseUnavailable, match=f"{ending} has commits that this process"):
        open_store(str(file), name="run", read_only=True)
    changes.unlink()


@pytest.mark.parametrize("age_s", [-0.02, 0.0, 0.02, 1.0])
@pytest.mark.parametrize("fraction_s", [0.0, 0.25])
def test_a_second_change_has_another_time(
    file: pathlib.Path, age_s: float, fraction_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader waits until a change could not be in the same tick of the file system's clock."""
    file.touch()
    changed = 1_000_000.0 + fraction_s
    clock = [changed + age_s]
    about = os.stat_result(
        [*range(10)], {"st_mtime_ns": 0, "st_ctime": changed, "st_ctime_ns": int(changed * 1e9)}
    )
    monkeypatch.setattr(sqlite_reading.os, "stat", lambda _: about)
    monkeypatch.setattr(sqlite_reading.time, "time", lambda: clock[0])

    def sleep(duration_s: float) -> None:
        clock[0] += duration_s

    monkeypatch.setattr(sqlite_reading.time, "sleep", sleep)
    waits = sqlite_reading.Stamp(str(file)).wait()
    monkeypatch.undo()
    tick_s = 0.05 if fraction_s else 2.0
    assert waits == (age_s < tick_s)
    assert clock[0] - changed >= min(tick_s, max(age_s, tick_s)) - 1e-6


def reading_only(file: pathlib.Path) -> None:
    with open_store(str(file), name="run", read_only=True) as store:
        assert len(store) == 1


def by_the_viewer(file: pathlib.Path) -> None:
    with open_store(str(file), name="run", read_only=True) as store:
        connection = store.connect()
        inside.handle_of(store).database.close_idle()  # the reader's connection is not the last
        assert connection.exec_driver_sql("SELECT count(*) FROM samples").scalar() == 1
        connection.invalidate()
        connection.close()


@pytest.mark.parametrize("read", [reading_only, by_the_viewer])
def test_a_reader_that_may_write_removes_the_log_too(
    owner: User, file: pathlib.Path, read: Callable[[pathlib.Path], None]
) -> None:
    """Else another user of a group could be left with files that belong to this one."""
    assert owner.ask(f"write('{file}', 'a')") == 1
    read(file)
    assert {name for name, _ in listing(file.parent)} == {"run.db", "run.db-lock"}


@needs_root
@pytest.mark.slow
def test_a_read_only_file_system(owner: User, file: pathlib.Path) -> None:
    """As root, who has every right: the file system alone refuses."""
    assert owner.ask(f"write('{file}', 'a')") == 1
    folder = file.parent
    script = (
        f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} && "
        f"{sys.executable} -m sqlbuffer top --url {file} --name run"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("this system mounts nothing")
    assert done.returncode == 0, done.stderr
