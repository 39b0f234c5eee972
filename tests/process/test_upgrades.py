"""Two releases on one database: the schema is brought up to date when the older one has ended its
work.
"""

import contextlib
import pathlib
import signal
import subprocess
import sys

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from helpers import inside
from helpers.direct import connect
from helpers.samples import scores_of
from sqlbuffer.db.database import Database
from sqlbuffer.db.migrate import migrations_folder
from sqlbuffer.db.schema import REVISION, pool
from sqlbuffer.errors import SchemaTooNew, SchemaTooOld
from sqlbuffer.store import open_store

pytestmark = pytest.mark.empty_database

ROOT = pathlib.Path(__file__).parents[2]
OLD = "0001"

OLDER_RELEASE = f"""
import sys
from sqlbuffer.db import migrate
migrate.REVISION = {OLD!r}
from sqlbuffer.store import open_store
"""

KILLED = """
import os, signal, sys
from sqlbuffer.db import migrate
from sqlbuffer.db.database import Database
def upgrade(*arguments, upgrade=migrate.upgrade, **named):
    upgrade(*arguments, **named)
    os.kill(os.getpid(), signal.SIGKILL)
migrate.REVISION = sys.argv[2]
migrate.upgrade = upgrade
Database(sys.argv[1], any_revision=True).upgrade()
"""


OLDER = ("0001", "0002")


@pytest.fixture
def old_url(store_url: str, request: pytest.FixtureRequest) -> str:
    """A database as the first release, or another one, has left it, with twenty samples."""
    with open_store(store_url, weighting="uniform") as store:
        store.add([f"old {i}" for i in range(20)])
    database = Database(store_url)
    database._run("owner", lambda engine: downgrade(engine, getattr(request, "param", OLD)))
    database.close()
    set_last_seen(store_url, 3600.0)
    return store_url


def downgrade(engine: sa.Engine, to: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, to)


def revision(url: str) -> str | None:
    with contextlib.closing(Database(url, any_revision=True)) as database:
        return database.revision()


def set_last_seen(url: str, ago_s: float) -> None:
    """Let all workers have been seen last so many seconds ago, by the database's clock."""
    with connect(url) as connection:
        if connection.dialect.name == "postgresql":
            time = f"now() - interval '{ago_s} seconds'"
        else:
            time = f"strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now', '{-ago_s} seconds')"
        connection.exec_driver_sql(f"UPDATE workers SET heartbeat_at = {time}")


@pytest.mark.each_database
@pytest.mark.parametrize("old_url", ["0001", "0003", "0004"], indirect=True)
@pytest.mark.parametrize("ago_s", [0.0, 45.0, -45.0])
def test_an_upgrade_under_workers_is_refused(old_url: str, ago_s: float) -> None:
    """Each of these releases draws by other laws than the next: ties and replay, the locks of
    draws, stored ties.
    """
    old = revision(old_url)
    set_last_seen(old_url, ago_s)
    with pytest.raises(SchemaTooOld, match="db upgrade"):
        open_store(old_url)
    with (
        contextlib.closing(Database(old_url, any_revision=True)) as database,
        pytest.raises(
            SchemaTooOld,
            match=r"nothing has changed: .*may still run: .*last seen at .*Stop the worker",
        ),
    ):
        database.upgrade()
    assert revision(old_url) == old
    set_last_seen(old_url, 61.0)
    with contextlib.closing(Database(old_url, any_revision=True)) as database:
        database.upgrade()
    with open_store(old_url, weighting="uniform") as store:
        assert sorted(store.waiting().samples) == sorted(f"old {i}" for i in range(20))
        assert store.check() == []


def test_weights_moved_by_differences_become_those_of_the_scores(store_url: str) -> None:
    """As the release before has left them; and the top is marked by scores, of which equal weights
    have none.
    """
    samples = [f"s{i}.{i}" for i in range(50)]
    kinds = ("shift", "uniform", "softmax")
    for kind in kinds:
        with open_store(store_url, name=kind, weighting=kind) as store:
            store.add(samples)
            store.score(scores_of, only="all")
            store.sample(5, pct_argmax=0.4).settle()
            order = inside.database_of(store).read(first_in_race)
    database = Database(store_url)
    database._run("owner", lambda engine: downgrade(engine, "0003"))
    database.close()
    with connect(store_url) as connection:
        connection.exec_driver_sql(
            "UPDATE pool SET weight = weight * 1.0000000001 WHERE buffer_id = 1"
        )
    with contextlib.closing(Database(store_url, any_revision=True)) as database:
        with pytest.raises(SchemaTooOld, match="may still run"):
            database.upgrade()
        set_last_seen(store_url, 61.0)
        database.upgrade()
    for kind in kinds:
        with open_store(store_url, name=kind, weighting=kind) as store:
            assert store.check() == []
            waiting = store.waiting()
            found = store.sample(10, pct_argmax=1.0)
            ranks = (
                [digest[8:] for digest in waiting.hashes] if kind == "uniform" else waiting.scores
            )
            rank_of = dict(zip(waiting.samples, ranks, strict=True))
            assert found.samples == sorted(rank_of, key=rank_of.__getitem__)[:-11:-1]
            found.release()
    with open_store(store_url, name=kinds[-1], weighting=kinds[-1]) as store:
        assert inside.database_of(store).read(first_in_race) == order


def first_in_race(connection: sa.Connection) -> list[int]:
    """What the last buffer would draw next, in its order."""
    query = sa.select(pool.c.sample_id).where(pool.c.buffer_id == 3).order_by(pool.c.race_key)
    return list(connection.scalars(query))


def test_the_older_release_refuses_the_newer_schema(old_url: str) -> None:
    with contextlib.closing(Database(old_url, any_revision=True)) as database:
        database.upgrade()
    program = OLDER_RELEASE + "open_store(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", program, old_url], cwd=ROOT, capture_output=True, text=True
    )
    assert SchemaTooNew.__name__ in done.stderr
    assert "pip install -U sqlbuffer" in done.stderr
    assert revision(old_url) == REVISION


def test_an_upgrade_that_is_killed_changes_nothing(old_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OLDER_RELEASE + KILLED, old_url, REVISION], cwd=ROOT
    )
    assert done.returncode == -signal.SIGKILL
    assert revision(old_url) == OLD
    with contextlib.closing(Database(old_url, any_revision=True)) as database:
        database.upgrade()
    with open_store(old_url, weighting="uniform") as store:
        assert store.check() == []


class Late(Database):
    """Finds an empty database, in which another process then creates a schema, before this one has
    its lock.
    """

    def __init__(self, url: str, creates: str) -> None:
        self._creates = creates
        super().__init__(url)

    def revision(self) -> str | None:
        found = super().revision()
        if found is None:
            with contextlib.closing(
                Database(sa.engine.make_url(self._url), create=False, any_revision=True)
            ) as other:
                other._run("owner", lambda engine: migrate_to(engine, self._creates))
        return found


def migrate_to(engine: sa.Engine, wanted: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS sqlbuffer")
        config.attributes["connection"] = connection
        command.upgrade(config, wanted)


@pytest.mark.parametrize("older", OLDER)
def test_creating_a_schema_upgrades_none(store_url: str, older: str) -> None:
    """An older release was quicker: its processes are at work, and an upgrade is for people to
    begin.
    """
    with pytest.raises(SchemaTooOld, match="sqlbuffer db upgrade"):
        Late(store_url, older)
    assert revision(store_url) == older


def test_a_schema_created_by_another_process_is_used(store_url: str) -> None:
    Late(store_url, REVISION).close()
    assert revision(store_url) == REVISION
