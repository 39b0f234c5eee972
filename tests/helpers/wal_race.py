"""Processes that provoke SQLite's WAL-reset race on one file, with or without the lock of the
writers.

`python tests/helpers/wal_race.py ROLE URL SECONDS guarded|unguarded` is one of them. A writer
commits tiny transactions, each of which writes the log back, and prints how many were acknowledged;
a checkpointer only writes the log back.
"""

import contextlib
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import sqlalchemy as sa

from sqlbuffer.db.backends import parse_url, sqlite_connections, sqlite_lock

N_WRITERS, N_CHECKPOINTERS = 3, 3
BUSY_S = 60.0


class Outcome(NamedTuple):
    """What became of the file."""

    commits: int
    lost: int
    damage: list[str]
    said: list[str]
    log_bytes: int
    stall_s: float

    @property
    def is_sound(self) -> bool:
        return not (self.lost or self.damage or self.said)


def provoke(url: str, *, seconds: float, guarded: bool, python: str = sys.executable) -> Outcome:
    """Let writers and checkpointers loose on a fresh file, and audit it when they have ended."""
    location, dialect = parse_url(url)
    owner = dialect.engine(location, "owner")
    with owner.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE acknowledged (writer INTEGER, number INTEGER, filling BLOB)"
        )
        connection.exec_driver_sql("CREATE INDEX of_writer ON acknowledged (writer, number)")
    roles = [f"writer{i}" for i in range(N_WRITERS)] + ["checkpointer"] * N_CHECKPOINTERS
    word = "guarded" if guarded else "unguarded"
    processes = [
        subprocess.Popen(
            [python, __file__, role, url, str(seconds), word],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for role in roles
    ]
    log = pathlib.Path(f"{location.database}-wal")
    largest = 0
    while any(process.poll() is None for process in processes):
        time.sleep(0.2)
        with contextlib.suppress(FileNotFoundError):
            largest = max(largest, log.stat().st_size)
    answers = [process.communicate() for process in processes]
    owner.dispose()
    commits = {i: int(out.split()[0]) for i, (out, _) in enumerate(answers[:N_WRITERS]) if out}
    stall_s = max((float(out.split()[1]) for out, _ in answers[:N_WRITERS] if out), default=0.0)
    said = [error.strip().splitlines()[-1] for _, error in answers if error.strip()]
    return Outcome(sum(commits.values()), *audit(url, commits), said, largest, stall_s)


def audit(url: str, commits: dict[int, int]) -> tuple[int, list[str]]:
    """Return how many acknowledged rows are missing, and what SQLite finds wrong with the file."""
    location, dialect = parse_url(url)
    reader = dialect.engine(location, "reader")
    try:
        with reader.begin() as connection:
            damage = dialect.damage(connection)
            query = (
                "SELECT writer, count(DISTINCT number) AS n FROM acknowledged NOT INDEXED GROUP "
                "BY writer"
            )
            stored = {int(row.writer): int(row.n) for row in connection.execute(sa.text(query))}
    except sa.exc.DBAPIError as exc:
        return sum(commits.values()), [str(exc.orig)]
    finally:
        reader.dispose()
    return sum(max(0, count - stored.get(writer, 0)) for writer, count in commits.items()), damage


# -- the processes ---------------------------------------------------------------------------------


def write(url: str, number: int, until: float) -> None:
    """Commit one row after the other; print how many, and the longest time that one took."""
    location, dialect = parse_url(url)
    engine = dialect.engine(location, "writer")
    connection: Any = (
        engine.raw_connection().driver_connection
    )  # SQLAlchemy would take most of the time
    commits, longest = 0, 0.0
    try:
        while time.monotonic() < until:
            begun = time.monotonic()
            assert connection.lock.acquire(BUSY_S)
            connection.execute("BEGIN IMMEDIATE")
            connection.same.require()
            connection.execute(
                "INSERT INTO acknowledged VALUES (?, ?, zeroblob(300))", (number, commits)
            )
            connection.commit()
            commits += 1
            longest = max(longest, time.monotonic() - begun)
    finally:
        print(commits, f"{longest:.3f}", flush=True)


def checkpoint(url: str, until: float) -> None:
    """Write the log back again and again, under the lock of the writers."""
    location, dialect = parse_url(url)
    driver: Any = dialect._driver
    lock = sqlite_lock.WriterLock(location.database or "")
    connection = driver.connect(location.database, timeout=BUSY_S, isolation_level=None)
    # Between reading the header of the log and believing it, SQLite unmaps the file: where it maps
    # it, the race takes
    # seconds to be lost instead of hours.
    connection.execute("PRAGMA mmap_size = 2147418112")
    connection.execute("PRAGMA synchronous = OFF")
    while time.monotonic() < until:
        for _ in range(3):
            with held(lock):
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        time.sleep(0.01)
    connection.close()


@contextlib.contextmanager
def held(lock: sqlite_lock.WriterLock) -> Iterator[None]:
    assert lock.acquire(BUSY_S)
    try:
        yield
    finally:
        lock.release()


def main() -> None:
    role, url, seconds, word = sys.argv[1:]
    sqlite_connections.CHECKPOINT_PAGES = 1
    if word == "unguarded":
        sqlite_lock.WriterLock.acquire = lambda self, timeout_s: True  # type: ignore[method-assign]
    until = time.monotonic() + float(seconds)
    if role == "checkpointer":
        checkpoint(url, until)
    else:
        write(url, int(role.removeprefix("writer")), until)


if __name__ == "__main__":
    main()
