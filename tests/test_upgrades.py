"""Two releases on one database: the schema is brought up to date while the older one is at work."""

import contextlib
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from sqlbuffer.database import Database, migrations_folder
from sqlbuffer.errors import SchemaTooNew, SchemaTooOld
from sqlbuffer.schema import REVISION
from sqlbuffer.store import open_store

pytestmark = pytest.mark.empty_database

ROOT = pathlib.Path(__file__).parent.parent
OLD = "0001"

OLDER_RELEASE = f"""
import sys
from sqlbuffer import database
database.REVISION = {OLD!r}
from sqlbuffer.store import open_store
"""

AT_WORK = """
with open_store(sys.argv[1], weighting="uniform") as store:
    for i in range(10**9):
        samples = [f"{sys.argv[2]} {i} {j}" for j in range(20)]
        assert store.add(samples).added == 20
        with store.sample(10) as batch:
            batch.settle([1.0] * len(batch))
        print(i, flush=True)
"""

KILLED = """
import os, signal
def migrate(self, connection, migrate=database.Database._upgrade):
    migrate(self, connection)
    os.kill(os.getpid(), signal.SIGKILL)
database.REVISION = sys.argv[2]
database.Database._upgrade = migrate
database.Database(sys.argv[1], any_revision=True).upgrade()
"""


@pytest.fixture
def old_url(store_url: str) -> str:
    """A database as the first release has left it, with twenty samples."""
    with open_store(store_url, weighting="uniform") as store:
        store.add([f"old {i}" for i in range(20)])
    database = Database(store_url)
    database._run("owner", lambda engine: downgrade(engine))
    database.close()
    return store_url


def downgrade(engine: sa.Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, OLD)


def revision(url: str) -> str | None:
    with contextlib.closing(Database(url, any_revision=True)) as database:
        return database.revision()


@contextlib.contextmanager
def older_release(url: str, n: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes of the release before, at work."""
    program = [sys.executable, "-c", OLDER_RELEASE + AT_WORK, url]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*program, str(i)], cwd=ROOT, **pipe) for i in range(n)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def wait_for_work(processes: list[subprocess.Popen[str]]) -> list[int]:
    """Wait until each has done one more round, and say which."""
    return [int(process.stdout.readline()) for process in processes if process.stdout]


def test_an_upgrade_under_writers_completes_and_they_go_on(old_url: str) -> None:
    with older_release(old_url, 3) as processes:
        wait_for_work(processes)
        with pytest.raises(SchemaTooOld):
            open_store(old_url)
        with contextlib.closing(Database(old_url, any_revision=True)) as database:
            database.upgrade()
        assert revision(old_url) == REVISION
        before = wait_for_work(processes)
        for _ in range(3):
            after = wait_for_work(processes)
        assert all(b > a for a, b in zip(before, after, strict=True)), "who has it open goes on"
        assert [process.poll() for process in processes] == [None] * 3
    with open_store(old_url, weighting="uniform") as store:
        assert {f"old {i}" for i in range(20)} <= {*store.waiting().samples, *store.labelled()[0]}
        assert store.check() == []


def test_the_older_release_refuses_the_newer_schema(old_url: str) -> None:
    with contextlib.closing(Database(old_url, any_revision=True)) as database:
        database.upgrade()
    program = OLDER_RELEASE + "open_store(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", program, old_url], cwd=ROOT, capture_output=True, text=True)
    assert SchemaTooNew.__name__ in done.stderr
    assert "pip install -U sqlbuffer" in done.stderr
    assert revision(old_url) == REVISION


def test_an_upgrade_that_is_killed_changes_nothing(old_url: str) -> None:
    with older_release(old_url, 2) as processes:
        wait_for_work(processes)
        done = subprocess.run([sys.executable, "-c", OLDER_RELEASE + KILLED, old_url, REVISION], cwd=ROOT)
        assert done.returncode == -signal.SIGKILL
        assert revision(old_url) == OLD
        wait_for_work(processes)
    with contextlib.closing(Database(old_url, any_revision=True)) as database:
        database.upgrade()
    with open_store(old_url, weighting="uniform") as store:
        assert store.check() == []
