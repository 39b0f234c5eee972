"""Two PostgreSQL servers that follow each other: a primary, and a standby that is promoted when the
primary is gone.

`SQLBUFFER_PG_BIN` names the folder of `initdb`, `pg_ctl` and `pg_basebackup`; by default it is that
of Debian's newest.
"""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator

import psycopg

DEBIAN = pathlib.Path("/usr/lib/postgresql")
CONFIGURATION = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
wal_keep_size = 256MB
max_wal_senders = 10
hot_standby = on
"""
USER = "postgres" if os.name == "posix" and os.getuid() == 0 else None
"""Who runs the servers: they refuse to run as root."""


def binaries() -> pathlib.Path:
    """The folder of the server's programs."""
    if "SQLBUFFER_PG_BIN" in os.environ:
        return pathlib.Path(os.environ["SQLBUFFER_PG_BIN"])
    return max(DEBIAN.glob("*/bin"), key=lambda folder: int(folder.parent.name))


def run(program: str, *arguments: str) -> None:
    """Run one of the server's programs; its output goes to no process, for a server would keep the
    pipe open.
    """
    command = [str(binaries() / program), *arguments]
    subprocess.run(
        command,
        check=True,
        user=USER,
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def free_port() -> int:
    """A port on which no process listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Pair:
    """A primary and its standby, which change places."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.ports = [free_port(), free_port()]
        self.primary = 0

    @property
    def url(self) -> str:
        """The URL of whichever of the two is the primary."""
        hosts = "&".join(f"host=127.0.0.1:{port}" for port in self.ports)
        return f"postgresql://postgres@/postgres?{hosts}&target_session_attrs=read-write"

    def data(self, i: int) -> pathlib.Path:
        """The folder of a server's data."""
        return self.folder / str(i)

    def execute(self, statement: str, *, standby: bool = False) -> list[tuple[object, ...]]:
        """Execute a statement on the primary, or on the standby."""
        port = self.ports[1 - self.primary if standby else self.primary]
        with psycopg.connect(
            f"host=127.0.0.1 port={port} user=postgres", autocommit=True
        ) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def begin(self) -> None:
        """Create the primary and start it."""
        run("initdb", "-D", str(self.data(0)), "-A", "trust", "-U", "postgres", "-N")
        with (self.data(0) / "postgresql.conf").open("a") as file:
            file.write(CONFIGURATION)
        self.start(0)

    def start(self, i: int) -> None:
        """Start a server, and wait until it takes connections."""
        options = f"-p {self.ports[i]}"
        log = str(self.folder / f"{i}.log")
        run("pg_ctl", "-w", "-t", "120", "-D", str(self.data(i)), "-l", log, "-o", options, "start")

    def stop(self, i: int) -> None:
        """Stop a server as a crash would."""
        run("pg_ctl", "-w", "-m", "immediate", "-D", str(self.data(i)), "stop")

    def back_up(self, target: pathlib.Path, *arguments: str) -> None:
        """Take a copy of the primary while it runs."""
        port = str(self.ports[self.primary])
        source = ("-h", "127.0.0.1", "-p", port, "-U", "postgres")
        run(
            "pg_basebackup",
            "-D",
            str(target),
            *source,
            "-X",
            "stream",
            "-c",
            "fast",
            "--no-sync",
            *arguments,
        )

    def follow(self) -> None:
        """Let the other server be the primary's standby, from a copy of it."""
        other = 1 - self.primary
        shutil.rmtree(self.data(other), ignore_errors=True)
        self.back_up(self.data(other), "-R")
        self.start(other)

    def keep_in_step(self, *, in_step: bool) -> None:
        """Let no COMMIT end before the standby has it, or let it end at once."""
        self.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{'*' if in_step else ''}'")
        self.execute("SELECT pg_reload_conf()")

    def let_lag(self) -> None:
        """Let the standby receive nothing any more."""
        self.execute("ALTER SYSTEM SET primary_conninfo = ''", standby=True)
        self.execute("SELECT pg_reload_conf()", standby=True)
        while self.execute("SELECT 1 FROM pg_stat_replication"):
            time.sleep(0.05)

    def wait_for_standby(self) -> None:
        """Wait until the standby has all that is committed, and has it in step where it is to."""
        waiting = "SELECT 1 FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_flush_lsn()"
        while not self.execute(waiting):
            time.sleep(0.05)

    def fail_over(self) -> None:
        """Kill the primary, and promote the standby."""
        self.stop(self.primary)
        self.primary = 1 - self.primary
        run("pg_ctl", "-w", "-t", "120", "-D", str(self.data(self.primary)), "promote")

    def restore(self, backup: pathlib.Path) -> None:
        """Kill the primary, and start it from a copy that was taken before."""
        self.stop(self.primary)
        shutil.rmtree(self.data(self.primary))
        shutil.copytree(backup, self.data(self.primary))
        if USER is not None:
            subprocess.run(["chown", "-R", USER, str(self.data(self.primary))], check=True)
        self.start(self.primary)


@contextlib.contextmanager
def pair() -> Iterator[Pair]:
    """Give a primary that runs; both servers end with the block."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="sb"))
    if USER is not None:
        shutil.chown(folder, USER)
    servers = Pair(folder)
    servers.begin()
    try:
        yield servers
    finally:
        for i in (0, 1):
            with contextlib.suppress(subprocess.CalledProcessError):  # it does not run
                servers.stop(i)
        shutil.rmtree(folder, ignore_errors=True)
