"""Databases of older releases, frozen as SQL when they were the newest: refused as they are, whole when upgraded."""

import pathlib
import re
import sqlite3

import psycopg
import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from test_schema import connect, execute

from sqlbuffer import schema
from sqlbuffer.database import Database
from sqlbuffer.dialect import VERSION_TABLE
from sqlbuffer.errors import SchemaTooOld
from sqlbuffer.store import open_store

FROZEN = pathlib.Path(__file__).parent / "frozen"


@pytest.fixture(params=["0001"])
def old_url(request: pytest.FixtureRequest, store_url: str) -> str:
    """A database of an older release: 24 samples, 5 rewards, a predictor, a settled and an open batch."""
    kind = sa.make_url(store_url).get_backend_name()
    script = (FROZEN / f"{request.param}.{kind}.sql").read_text()
    if kind == "sqlite":
        connection = sqlite3.connect(sa.make_url(store_url).database or "")
        connection.executescript(script)
        connection.close()
    else:
        with psycopg.connect(store_url) as server:
            server.execute(script.encode())
    return store_url


def upgrade(url: str) -> None:
    database = Database(url, any_revision=True)
    database.upgrade()
    database.close()


def test_it_is_refused_with_the_way_out(old_url: str) -> None:
    with pytest.raises(SchemaTooOld, match=re.escape("`sqlbuffer db upgrade --url")):
        open_store(old_url, name="old", seed=7)
    assert execute(old_url, f"SELECT version_num FROM {VERSION_TABLE}") == [("0001",)]


def test_all_is_there_when_upgraded(old_url: str) -> None:
    upgrade(old_url)
    with open_store(old_url, name="old", seed=7) as store:
        assert store.check() == []
        stats = store.stats()
        assert (stats.stored, stats.measured, stats.failed, stats.iteration) == (24, 5, 1, 1)
        # Its worker was on another host, and has been silent since: what it had claimed waits again.
        assert (stats.waiting, stats.claimed) == (18, 0)
        assert store.top(1)[0]["sample"] == "s100"
        assert [row["value"] for row in store.history()] == [0.5]
        assert store.checkpoint("loop") == (1, b'{"size": 18}')
        again = store.sample(4)
        assert [str(sample) for sample in again.samples] == ["s4", "[0. 1. 2.]", "(1, 2)", "s10"]
        again.settle([0.0] * 4)
        labels = [(sample, reward) for sample, reward in zip(*store.labelled(), strict=True) if reward == 5.0]
        assert [(sample.tolist(), reward) for sample, reward in labels] == [([1.5], 5.0)]
        predictor = store.newest_predictor()
        assert predictor is not None
        assert (predictor.version, predictor.rows_trained, predictor.train_loss) == (1, 4, 0.25)


def test_it_draws_as_the_older_release_would_have_drawn(old_url: str) -> None:
    keys = execute(old_url, "SELECT sample_id FROM pool ORDER BY race_key")
    upgrade(old_url)
    with open_store(old_url, name="old", seed=7) as store:
        store.sample(4).settle([0.0] * 4)  # those that had been claimed come first
        assert store.sample(14).ids.tolist() == [row[0] for row in keys]


def test_the_schema_is_that_of_a_new_database(old_url: str) -> None:
    upgrade(old_url)
    with connect(old_url) as connection:
        assert MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision() == (
            schema.REVISION
        )
        for name, table in schema.metadata.tables.items():
            columns = {column["name"]: column for column in sa.inspect(connection).get_columns(name)}
            assert list(columns) == [column.name for column in table.columns]
            assert {name: column["nullable"] for name, column in columns.items()} == {
                column.name: bool(column.nullable) for column in table.columns
            }
