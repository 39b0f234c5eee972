"""What a store asks of its connections: how durable a COMMIT is."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import server_execute

from sqlbuffer.store import open_store

TRANSACTIONS = ("write", "write_from_one_state")


def shown(statement: str) -> Callable[[sa.Connection], Any]:
    return lambda connection: connection.exec_driver_sql(statement).scalar_one()


@pytest.mark.parametrize(("options", "expected"), [({}, 1), ({"durability": "normal"}, 1), ({"durability": "full"}, 2)])
def test_sqlite_syncs_its_log_at_every_commit_only_when_told(
    sqlite_url: str, options: dict[str, str], expected: int
) -> None:
    with open_store(sqlite_url, **options) as store:  # type: ignore[arg-type]
        database = store._attachment.database
        for same in (database, database.sibling(), copy.copy(database), pickle.loads(pickle.dumps(database))):
            for kind in TRANSACTIONS:
                assert getattr(same, kind)(shown("PRAGMA synchronous")) == expected
            same.close()


@pytest.mark.parametrize("of_server", ["on", "off", "local"])
def test_postgresql_commits_as_its_server_says_or_waits_for_the_disk(postgresql_url: str, of_server: str) -> None:
    name = sa.make_url(postgresql_url).database
    server_execute(postgresql_url, f"ALTER DATABASE {name} SET synchronous_commit = {of_server}")
    for durability, expected in (("normal", of_server), ("full", "on")):
        with open_store(postgresql_url, durability=durability) as store:
            for kind in TRANSACTIONS:
                transaction = getattr(store._attachment.database, kind)
                assert transaction(shown("SHOW synchronous_commit")) == expected
            connection = store._attachment.database._engine("writer").raw_connection()
            cursor = connection.cursor()
            cursor.execute("SHOW synchronous_commit")
            assert cursor.fetchone() == (of_server,), "it is set for one transaction"
            connection.close()
